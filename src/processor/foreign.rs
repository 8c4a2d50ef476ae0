//! Senders that are somebody else's workers: they consume `deliver.<name>` and report attempts.
//!
//! Here is only what the pipeline needs to know of one: for whom it sends, what it is given of a
//! person, and how long it may be silent.

use std::time::Duration;

use async_trait::async_trait;

use super::Audience;
use super::Filter;
use super::Outcome;
use super::Outgoing;
use super::Sender;
use crate::catalog::CatalogUser;
use crate::delivery::Contact;
use crate::failure::Failure;
use crate::failure::Reason;

/// A sender that is somebody else's worker: an item of `tidings.senders`.
#[derive(Clone, Debug, PartialEq)]
pub struct ForeignSender {
    /// The queue's suffix, lower-case.
    pub name: String,
    /// The id in people's settings.
    pub channel: String,
    /// For whom it sends.
    pub audience: Audience,
    /// Which notifications it is given.
    pub filter: Filter,
    /// Which annotations of a person it is given.
    pub annotations: Vec<String>,
    /// How long a delivery may be due without an attempt; then it is `unknown`, and never sent
    /// again by itself.
    pub timeout: Duration,
}

impl ForeignSender {
    /// What the worker is given of a person: no more than it was configured to need.
    pub fn contact(&self, person: &CatalogUser) -> Contact {
        Contact {
            email: person.email.clone(),
            display_name: person.display_name.clone(),
            annotations: self
                .annotations
                .iter()
                .filter_map(|name| Some((name.clone(), person.annotations.get(name)?.clone())))
                .collect(),
        }
    }
}

#[async_trait]
impl Sender for ForeignSender {
    fn name(&self) -> &str {
        &self.name
    }

    fn channel(&self) -> &str {
        &self.channel
    }

    fn audience(&self) -> Audience {
        self.audience
    }

    fn filter(&self) -> &Filter {
        &self.filter
    }

    /// Never called: no process of ours consumes its queue.
    async fn send(&self, _: &Outgoing<'_>) -> Outcome {
        Outcome::Failed(Failure::permanent(
            Reason::Config,
            format!("{} is sent by workers of its own", self.name),
        ))
    }
}
