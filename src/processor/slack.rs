//! The sender `slack` (channel `SlackNotificationProcessor`): a notification becomes a message,
//! through Slack's Web API. Source: contract 6.
//!
//! People whom a submission names get a direct message; groups and other entities have a channel;
//! broadcasts go by routes. `registry.rs` builds it from `notifications.processors.slack[]`, an
//! entry for each workspace. Where there are several, a target is `workspace/channel`, a person
//! is told in each that knows them, and one that is away holds up no other.

mod api;
pub mod config;
mod directory;
mod message;
mod pace;
mod standing;
mod workspace;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;

use self::api::Fault;
use self::api::Means;
use self::config::WorkspaceConfig;
use self::standing::Closed;
use self::workspace::Workspace;
use crate::catalog::Catalog;
use crate::catalog::CatalogUser;
use crate::config::ConfigError;
use crate::config::Section;
use crate::failure::Failure;
use crate::failure::Reason;
use crate::notification::EntityRef;
use crate::processor::Audience;
use crate::processor::Outcome;
use crate::processor::Outgoing;
use crate::processor::Sender;
use crate::processor::registry::Services;
use crate::time::Timestamp;

/// The name: config key, queue suffix, command line and metric label.
pub const NAME: &str = "slack";
/// The id in people's settings. Source: contract 3.
pub const CHANNEL: &str = "SlackNotificationProcessor";

/// The annotation of a person or an entity that says where their messages go.
const ANNOTATION: &str = "slack.com/bot-notify";
/// The field of a notification's metadata that names the channel of its groups.
const METADATA: &str = "slackChannel";
/// The longest that a message waits for a workspace before it is given up: about as long as the
/// schedule tries.
const WAIT_MAX: Duration = Duration::from_secs(3 * 86_400);
/// The errors of `chat.update` after which a new message is right.
const GONE: [&str; 3] = [
    "message_not_found",
    "cant_update_message",
    "edit_window_closed",
];

/// Sends messages to Slack.
pub struct Slack {
    workspaces: Vec<Workspace>,
    catalog: Arc<dyn Catalog>,
}

/// Makes the sender of `notifications.processors.slack`; without an entry there is none.
///
/// # Errors
/// What is missing or cannot be, at its key.
pub fn build(
    section: &Section,
    services: &Services,
) -> Result<Option<Arc<dyn Sender>>, ConfigError> {
    let workspaces = WorkspaceConfig::read_all(section)?;
    if workspaces.is_empty() {
        return Ok(None);
    }
    let slack = Slack::new(workspaces, Arc::clone(&services.catalog))
        .map_err(|why| section.error(format!("`{}`: {why}", section.key()), ""))?;
    Ok(Some(Arc::new(slack)))
}

/// What ends a send early.
enum End {
    /// With this outcome.
    Outcome(Outcome),
    /// The workspace's fault.
    Fault(Fault),
}

impl From<Fault> for End {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl Slack {
    /// Builds it; connects to nothing.
    ///
    /// # Errors
    /// Says why there can be no client.
    pub fn new(
        workspaces: Vec<WorkspaceConfig>,
        catalog: Arc<dyn Catalog>,
    ) -> Result<Self, String> {
        let workspaces = workspaces
            .into_iter()
            .enumerate()
            .map(|(no, config)| Workspace::new(no, config))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            workspaces,
            catalog,
        })
    }

    fn is_alone(&self) -> bool {
        self.workspaces.len() == 1
    }

    /// The workspace of a target, and the channel in it. A target without a workspace, from when
    /// there was only one, is of the first.
    fn place<'a>(&self, target: &'a str) -> (Option<&Workspace>, &'a str) {
        let named = target.split_once('/').and_then(|(name, channel)| {
            let workspace = self.workspaces.iter().find(|one| one.name == name)?;
            Some((workspace, channel))
        });
        match named {
            Some((workspace, channel)) => (Some(workspace), channel),
            None => (self.workspaces.first(), target),
        }
    }

    /// The workspace in which a person is to be told.
    fn workspace_of_person(&self, target: &str) -> Option<&Workspace> {
        match target {
            "" => self.workspaces.first(),
            name => self.workspaces.iter().find(|one| one.name == name),
        }
    }

    /// A channel as a target of this workspace; `None` where it names another.
    fn target(&self, workspace: &Workspace, channel: &str) -> Option<String> {
        if self.is_alone() {
            return Some(channel.to_owned());
        }
        match channel.split_once('/') {
            Some((name, _)) if name == workspace.name => Some(channel.to_owned()),
            Some((name, _)) if self.workspaces.iter().any(|one| one.name == name) => None,
            _ => Some(format!("{}/{channel}", workspace.name)),
        }
    }

    /// The channels of the groups and other entities of a submission.
    async fn rooms(&self, one: &Outgoing<'_>) -> Result<Vec<String>, Failure> {
        let refs: Vec<String> = one
            .recipients
            .iter()
            .filter_map(|one| one.parse::<EntityRef>().ok())
            .filter(|one| !one.is_user())
            .map(|one| one.canonical())
            .collect();
        let metadata = one.payload.metadata.as_ref();
        let named = metadata.and_then(|fields| fields.get(METADATA));
        if let Some(channel) = named.and_then(Value::as_str).filter(|one| !one.is_empty()) {
            return Ok(refs.iter().map(|_| channel.to_owned()).take(1).collect());
        }
        let entities = self.catalog.entities(&refs).await?;
        Ok(entities
            .into_iter()
            .filter_map(|mut entity| entity.annotations.remove(ANNOTATION))
            .filter(|channel| !channel.is_empty())
            .collect())
    }

    /// Tells one person, or one channel.
    async fn tell(
        &self,
        workspace: &Workspace,
        one: &Outgoing<'_>,
        channel: &str,
    ) -> Result<Outcome, End> {
        let channel = match one.user {
            Some(_) => self.person(workspace, one.person).await?,
            None => channel.to_owned(),
        };
        let description = message::description(one);
        let mentions = message::mentions(description);
        let ids = self.mentioned(workspace, &mentions).await?;
        let description =
            message::mentioning(description, &mentions, |user| ids.get(user).cloned());
        let message = message::message(one, &description);
        workspace.pace.turn().await.map_err(|after| {
            End::Outcome(self.waits(
                one,
                Closed {
                    after,
                    reason: Reason::Rate,
                    detail: "the configured limit is reached".to_owned(),
                    limited: true,
                },
            ))
        })?;
        // A group's channel gets a new message each time, as in the peer.
        let earlier = one.earlier.filter(|_| one.recipients.is_empty());
        if let Some((channel, ts)) = earlier.and_then(|id| recent(id, Timestamp::now())) {
            match workspace.update(channel, ts, &message).await {
                Err(fault) if GONE.contains(&fault.code.as_str()) => {}
                updated => return Ok(sent(updated?)),
            }
        }
        Ok(sent(workspace.post(&channel, &message).await?))
    }

    /// Where a person reads: what their annotation says, else who has their address in Slack.
    async fn person(
        &self,
        workspace: &Workspace,
        person: Option<&CatalogUser>,
    ) -> Result<String, End> {
        let person = person.ok_or_else(|| skipped("not in the catalog"))?;
        match workspace.id(person).await? {
            Some(id) => Ok(id),
            None if person.email.is_none() => Err(skipped(
                "neither the annotation slack.com/bot-notify nor spec.profile.email in the catalog",
            )),
            None => Err(skipped("the workspace has nobody with their address")),
        }
    }

    /// The ids of the people that a text mentions, where they can be found.
    async fn mentioned(
        &self,
        workspace: &Workspace,
        mentions: &[message::Mention],
    ) -> Result<HashMap<String, String>, End> {
        let mut refs: Vec<String> = mentions.iter().map(|one| one.user.clone()).collect();
        refs.sort_unstable();
        refs.dedup();
        if refs.is_empty() {
            return Ok(HashMap::new());
        }
        let people = self.catalog.people(&refs).await;
        let people = people.map_err(|failure| End::Outcome(Outcome::Failed(failure)))?;
        let mut ids = HashMap::new();
        for (user, person) in refs.into_iter().zip(people) {
            let Some(person) = person else { continue };
            if let Some(id) = workspace.id(&person).await? {
                ids.insert(user, id);
            }
        }
        Ok(ids)
    }

    /// What comes of a workspace's fault.
    fn outcome(&self, workspace: &Workspace, one: &Outgoing<'_>, fault: Fault) -> Outcome {
        let Fault { reason, detail, .. } = fault;
        Outcome::Failed(match fault.means {
            Means::Away | Means::Closed => {
                let closed = workspace.standing.closed().unwrap_or(Closed {
                    after: Duration::ZERO,
                    reason,
                    detail,
                    limited: false,
                });
                return self.closed(one, closed);
            }
            Means::Refused if !self.is_alone() && fault.code == "channel_not_found" => {
                return Outcome::Skipped {
                    reason: Reason::NoAddress,
                    detail: "this workspace has no such channel".to_owned(),
                };
            }
            Means::Refused => Failure::permanent(reason, detail),
            Means::Limited(after) => Failure::later(reason, after, detail),
            Means::MayPass => Failure::transient(reason, detail),
        })
    }

    /// What comes of a workspace that is left alone. The only one is what everything depends on.
    fn closed(&self, one: &Outgoing<'_>, closed: Closed) -> Outcome {
        if self.is_alone() && !closed.limited {
            return Outcome::Failed(Failure::dependency(closed.reason, closed.detail));
        }
        self.waits(one, closed)
    }

    fn waits(&self, one: &Outgoing<'_>, closed: Closed) -> Outcome {
        if WAIT_MAX < Timestamp::now().since(one.created) {
            let detail = format!(
                "it waited for {} days: {}",
                WAIT_MAX.as_secs() / 86_400,
                closed.detail
            );
            return Outcome::Failed(Failure::permanent(closed.reason, detail));
        }
        Outcome::Waits {
            after: closed.after,
            reason: closed.reason,
            detail: closed.detail,
        }
    }
}

#[async_trait]
impl Sender for Slack {
    fn name(&self) -> &str {
        NAME
    }

    fn channel(&self) -> &str {
        CHANNEL
    }

    fn audience(&self) -> Audience {
        Audience::NamedAndSubmission
    }

    fn fans_out(&self) -> bool {
        !self.is_alone()
    }

    fn updates(&self) -> bool {
        true
    }

    async fn targets(&self, one: &Outgoing<'_>) -> Result<Vec<String>, Failure> {
        if one.user.is_some() {
            return Ok(self.workspaces.iter().map(|one| one.name.clone()).collect());
        }
        let rooms = match one.recipients {
            [] => None,
            _ => Some(self.rooms(one).await?),
        };
        let topic = one.payload.topic.as_deref();
        let mut targets = Vec::new();
        for workspace in &self.workspaces {
            let channels = match &rooms {
                Some(rooms) => rooms,
                None => workspace.config.channels(one.origin, topic),
            };
            let of_this = channels
                .iter()
                .filter_map(|channel| self.target(workspace, channel));
            targets.extend(of_this);
        }
        Ok(targets)
    }

    async fn send(&self, one: &Outgoing<'_>) -> Outcome {
        let (workspace, channel) = match one.user {
            Some(_) => (self.workspace_of_person(one.target), ""),
            None => self.place(one.target),
        };
        let Some(workspace) = workspace else {
            return Outcome::Skipped {
                reason: Reason::Config,
                detail: format!("there is no workspace {} any more", one.target),
            };
        };
        if let Some(closed) = workspace.standing.closed() {
            return self.closed(one, closed);
        }
        match self.tell(workspace, one, channel).await {
            Ok(outcome) | Err(End::Outcome(outcome)) => outcome,
            Err(End::Fault(fault)) => self.outcome(workspace, one, fault),
        }
    }

    async fn probe(&self) -> Result<String, Failure> {
        let mut said = Vec::new();
        for workspace in &self.workspaces {
            let asked = workspace.probe().await;
            said.push(asked.map_err(|fault| {
                let which = if self.is_alone() {
                    String::new()
                } else {
                    format!("workspace {}: ", workspace.name)
                };
                Failure::dependency(fault.reason, format!("{which}{}", fault.detail))
            })?);
        }
        Ok(said.join("; "))
    }
}

fn sent(provider_id: Option<String>) -> Outcome {
    Outcome::Sent { provider_id }
}

fn skipped(detail: &str) -> End {
    End::Outcome(Outcome::Skipped {
        reason: Reason::NoAddress,
        detail: detail.to_owned(),
    })
}

/// How long after it was posted a message is updated in place. Source: contract 6.
const UPDATES_WITHIN: Duration = Duration::from_secs(86_400);

/// The channel and the time of a message that is young enough to be changed. In Slack, a message's
/// name is the moment at which it was posted, and stays so.
fn recent(provider_id: &str, now: Timestamp) -> Option<(&str, &str)> {
    let (channel, ts) = provider_id.split_once('/')?;
    let seconds: i64 = ts.split('.').next()?.parse().ok()?;
    let posted = Timestamp::from_millis(seconds.checked_mul(1_000)?);
    (now.since(posted) < UPDATES_WITHIN).then_some((channel, ts))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_changed_for_a_day_after_it_was_posted() {
        let at = |seconds: i64| Timestamp::from_millis(seconds * 1_000);
        let id = "D024BE91L/1700000000.000100";
        let parts = Some(("D024BE91L", "1700000000.000100"));
        assert_eq!(recent(id, at(1_700_000_000)), parts);
        assert_eq!(recent(id, at(1_700_086_399)), parts);
        assert_eq!(recent(id, at(1_700_086_400)), None);
        for other in ["", "1700000000.000100", "D/x", "D/"] {
            assert_eq!(recent(other, at(0)), None, "{other}");
        }
    }
}
