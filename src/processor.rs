//! Processors: all that a third party reads to add one.
//!
//! A [`Decorator`] changes a notification before it is stored; a [`Sender`] tells somebody of it
//! afterwards. A type may be either or both. A processor never sees the queue or the store: it
//! says what happened, and the pipeline sees to the rest.

#[cfg(feature = "apprise")]
pub mod apprise;
pub mod breaker;
#[cfg(feature = "email")]
pub mod email;
pub mod foreign;
#[cfg(feature = "client")]
pub mod http;
pub mod jinja;
pub mod redact;
pub mod registry;
pub mod rules;
#[cfg(feature = "slack")]
pub mod slack;
pub mod template;
#[cfg(feature = "webhook")]
pub mod webhook;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::Deserialize;
use serde_json::Map;
use serde_json::Value;
use url::Url;
use uuid::Uuid;

use crate::catalog::CatalogUser;
use crate::chunk::RefReport;
use crate::failure::Failure;
use crate::failure::Reason;
use crate::notification::EntityRef;
use crate::notification::Payload;
use crate::notification::Severity;
use crate::settings::Defaults;
use crate::settings::Switchboard;
use crate::time::Timestamp;

/// When a decorator runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Once, before the recipients are known. The peer's `processOptions`.
    PerSubmission,
    /// For each person (once for a broadcast), before it is stored. The peer's `preProcess`.
    PerPerson,
}

/// What a decorator sees.
#[derive(Clone, Copy, Debug)]
pub struct Draft<'a> {
    /// The submission.
    pub submission: Uuid,
    /// Who sent it.
    pub origin: &'a str,
    /// For whom; `None` for a whole submission and for a broadcast.
    pub user: Option<&'a str>,
    /// What the catalog knows of them, for a decorator that [wants it](Decorator::wants_people).
    pub person: Option<&'a CatalogUser>,
    /// The content as earlier decorators left it.
    pub payload: &'a Payload,
}

/// What a decorator wants done.
#[derive(Clone, Debug, PartialEq)]
pub enum Decorated {
    /// Leave it as it is.
    Keep,
    /// Take this content instead.
    Change(Payload),
    /// Do not send it (to this person); the text says why, for the timeline.
    Drop(String),
}

/// Changes notifications before they are stored.
#[async_trait]
pub trait Decorator: Send + Sync + 'static {
    /// Lower-case: config key and metric label.
    fn name(&self) -> &str;

    /// When it runs.
    fn stage(&self) -> Stage;

    /// Which notifications it wants to see.
    fn filter(&self) -> &Filter {
        &Filter::ALL
    }

    /// Whether it wants to know what the catalog knows of each person. A program of its own has
    /// no catalog, and never learns it.
    fn wants_people(&self) -> bool {
        false
    }

    /// Decorates one notification. A failure is handled by the decorator's policy: skipped by
    /// default, as in the peer.
    async fn decorate(&self, draft: Draft<'_>) -> Result<Decorated, Failure>;
}

/// What a decorator's failure means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Policy {
    /// Go on without it, as the peer does: logged, counted, noted in the timeline.
    #[default]
    Skip,
    /// Try the message again by the schedule.
    Retry,
}

/// A decorator and how to treat it.
#[derive(Clone)]
pub struct Link {
    /// What decorates.
    pub decorator: Arc<dyn Decorator>,
    /// What its failure means.
    pub policy: Policy,
    /// The longest it may take for one notification.
    pub timeout: Duration,
}

/// One step of decoration.
#[derive(Clone)]
pub enum Step {
    /// A decorator of this process.
    Here(Link),
    /// A worker of somebody else's, on a queue of its own.
    Queue(QueueStep),
}

/// A step that a foreign worker takes: it consumes `decorate.<name>`.
#[derive(Clone, Debug, PartialEq)]
pub struct QueueStep {
    /// The queue's suffix.
    pub name: String,
    /// Which notifications it is asked about.
    pub filter: Filter,
    /// What it means that nobody took it in time, or that the worker rejected it.
    pub policy: Policy,
    /// The longest a chunk lies on its queue.
    pub timeout: Duration,
}

/// For whom a sender sends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum Audience {
    /// One delivery for each person who has not switched the channel off.
    #[default]
    #[serde(rename = "person")]
    PerPerson,
    /// One delivery for the submission, whatever the settings of people.
    #[serde(rename = "submission")]
    PerSubmission,
    /// One delivery for each person whom the submission names itself, by the same rule, and one
    /// for all the rest of it: groups and other entities, or everybody. Members of groups get none
    /// of their own.
    NamedAndSubmission,
}

impl Audience {
    /// Whether a person gets a delivery; `named`: the submission names them itself.
    pub fn includes(self, named: bool) -> bool {
        match self {
            Self::PerPerson => true,
            Self::PerSubmission => false,
            Self::NamedAndSubmission => named,
        }
    }

    /// Whether a submission to these refs gets a delivery of its own.
    pub fn includes_submission(self, refs: &[RefReport]) -> bool {
        match self {
            Self::PerPerson => false,
            Self::PerSubmission => true,
            Self::NamedAndSubmission => refs.iter().any(|one| !names_person(&one.entity)),
        }
    }
}

/// Whether a ref names a person.
fn names_person(reference: &str) -> bool {
    let parsed = reference.parse::<EntityRef>();
    parsed.is_ok_and(|parsed| parsed.is_user())
}

/// What a sender is given.
#[derive(Clone, Debug)]
pub struct Outgoing<'a> {
    /// The same on every try: an idempotency key for the service.
    pub delivery: Uuid,
    /// The notification.
    pub notification: Uuid,
    /// The submission that made it.
    pub submission: Uuid,
    /// Who sent it.
    pub origin: &'a str,
    /// The content for this person.
    pub payload: &'a Payload,
    /// The link as an absolute address; the inbox's own where the payload has none.
    pub link: Url,
    /// When the notification became visible.
    pub created: Timestamp,
    /// For whom; `None` for a broadcast, and for what is sent once per submission.
    pub user: Option<&'a str>,
    /// What the catalog knows of them.
    pub person: Option<&'a CatalogUser>,
    /// Where there is no one person: the refs of the submission, as its producer wrote them, each
    /// once. Empty for a broadcast.
    pub recipients: &'a [String],
    /// Explicit where one notification has many targets, else empty.
    pub target: &'a str,
    /// For a sender that [updates](Sender::updates): the service's id of what it sent to this
    /// target for an earlier submission of the same scope.
    pub earlier: Option<&'a str>,
    /// Which try this is, from 1.
    pub attempt: u32,
}

/// A target with a fate of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The target.
    pub name: String,
    /// Changes when its configuration does; one that was disabled is then enabled.
    pub version: String,
    /// How long nothing may come through before it is disabled.
    pub disable_after: Duration,
}

/// What came of sending.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The service took it; with the id it gave, if any.
    Sent {
        /// The service's own id.
        provider_id: Option<String>,
    },
    /// There is nothing to send, and that is no failure (no address, not allowed).
    Skipped {
        /// The word for lists.
        reason: Reason,
        /// One sentence.
        detail: String,
    },
    /// It did not work.
    Failed(Failure),
    /// The endpoint it goes to wants nothing any more: it failed for good, and the endpoint is
    /// disabled.
    Gone {
        /// One sentence.
        detail: String,
    },
    /// It was not tried, since what it goes to has a fate of its own and is away, or full for now,
    /// while the service as a whole works. It comes again, and that counts as no try.
    Waits {
        /// The shortest wait that makes sense.
        after: Duration,
        /// The word for lists.
        reason: Reason,
        /// One sentence.
        detail: String,
    },
}

/// Tells people of notifications.
#[async_trait]
pub trait Sender: Send + Sync + 'static {
    /// Lower-case: config key, queue suffix, command line and metric label.
    fn name(&self) -> &str;

    /// The id in people's settings; the peer's `getName()`.
    fn channel(&self) -> &str {
        self.name()
    }

    /// For whom it sends.
    fn audience(&self) -> Audience {
        Audience::PerPerson
    }

    /// Which notifications it wants to see.
    fn filter(&self) -> &Filter {
        &Filter::ALL
    }

    /// How many sends may be under way at once in this process.
    fn concurrency(&self) -> usize {
        8
    }

    /// Whether one person has several targets too, as with several workspaces of a chat.
    fn fans_out(&self) -> bool {
        false
    }

    /// Whether it changes what it sent before when a scope is sent again, and so wants to know
    /// what that was.
    fn updates(&self) -> bool {
        false
    }

    /// The targets that have a fate of their own: each is disabled by itself when it is gone, or
    /// has failed for too long.
    fn endpoints(&self) -> Vec<Endpoint> {
        Vec::new()
    }

    /// The targets of one notification that has no single person (of every one, for a sender that
    /// [fans out](Sender::fans_out)): each becomes a delivery of its own. Empty means that nobody
    /// is told; but a person, or a submission of a sender that sends once for each, is told as it
    /// is.
    async fn targets(&self, notification: &Outgoing<'_>) -> Result<Vec<String>, Failure> {
        let _ = notification;
        Ok(Vec::new())
    }

    /// Sends one. It may be cancelled when the lease runs out.
    async fn send(&self, notification: &Outgoing<'_>) -> Outcome;

    /// Whether the service can be reached and takes our credentials; sends nothing. Called before
    /// trying again after a failure of the dependency, and by `tidings check`.
    async fn probe(&self) -> Result<String, Failure> {
        Ok("nothing to check".to_owned())
    }
}

/// What people may switch on and off: the inbox, then the channel of each sender that asks them.
/// One that sends once per submission asks nobody.
pub fn switchboard(senders: &[Arc<dyn Sender>], defaults: Defaults) -> Switchboard {
    let asks = |sender: &&Arc<dyn Sender>| sender.audience() != Audience::PerSubmission;
    let channels = senders.iter().filter(asks).map(|sender| sender.channel());
    Switchboard::new(defaults, channels)
}

/// Which notifications a processor takes part in, in the peer's keys. Source: contract 4.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Filter {
    /// Nothing less severe.
    #[serde(default)]
    pub min_severity: Option<Severity>,
    /// Nothing more severe.
    #[serde(default)]
    pub max_severity: Option<Severity>,
    /// Not these topics; wins over `includedTopics`.
    #[serde(default)]
    pub excluded_topics: Option<Vec<String>>,
    /// These topics alone; drops what has no topic.
    #[serde(default)]
    pub included_topics: Option<Vec<String>>,
}

impl Filter {
    /// Lets everything pass.
    pub const ALL: Self = Self {
        min_severity: None,
        max_severity: None,
        excluded_topics: None,
        included_topics: None,
    };

    /// Whether a notification passes.
    pub fn passes(&self, payload: &Payload) -> bool {
        let severity = payload.severity();
        if self.min_severity.is_some_and(|least| severity > least)
            || self.max_severity.is_some_and(|most| severity < most)
        {
            return false;
        }
        let topic = payload.topic.as_ref();
        let among = |topics: &Vec<String>| topic.is_some_and(|topic| topics.contains(topic));
        !self.excluded_topics.as_ref().is_some_and(among)
            && self.included_topics.as_ref().is_none_or(among)
    }
}

/// Whether this may be the name of a processor: a config key, a queue's suffix, a metric's label.
pub(crate) fn is_name(name: &str) -> bool {
    let allowed = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || b"-_".contains(&c);
    (1..=64).contains(&name.len()) && name.bytes().all(allowed)
}

/// Lays `patch` over `payload`, or returns a copy; a patch that does not fit is ignored, since a
/// foreign decorator wrote it and the content without it is still right.
pub fn personal(payload: &Payload, patch: Option<&Map<String, Value>>) -> Payload {
    patch
        .and_then(|patch| payload.patched(patch).ok())
        .unwrap_or_else(|| payload.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(severity: Severity, topic: Option<&str>) -> Payload {
        Payload {
            severity: Some(severity),
            topic: topic.map(str::to_owned),
            ..Payload::default()
        }
    }

    #[test]
    fn filters_read_the_peers_keys_and_excluded_topics_win() {
        let filter: Filter = serde_json::from_str(
            r#"{"minSeverity":"high","includedTopics":["a","b"],"excludedTopics":["b"]}"#,
        )
        .unwrap();
        assert!(filter.passes(&payload(Severity::Critical, Some("a"))));
        assert!(!filter.passes(&payload(Severity::Normal, Some("a"))));
        assert!(!filter.passes(&payload(Severity::High, Some("b"))));
        assert!(!filter.passes(&payload(Severity::High, None)));
        let least = Filter {
            max_severity: Some(Severity::Normal),
            ..Filter::ALL
        };
        assert!(least.passes(&payload(Severity::Low, None)));
        assert!(!least.passes(&payload(Severity::High, None)));
        assert!(serde_json::from_str::<Filter>(r#"{"minSeverity":"urgent"}"#).is_err());
    }
}
