//! The decorator role: from a submission to inbox rows, deliveries and signals.
//!
//! The whole pipeline is on this screen. [`Intake`] takes submissions, [`Chunks`] the parts of
//! large ones; both end in `Pipeline::carry`. Nothing here acknowledges: the loop in
//! `worker.rs` publishes what follows and then does.

mod attempts;
mod chain;
mod chores;
mod dead;
mod expand;
mod intake;
mod persist;
mod route;
mod slip;

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::OnceCell;
use url::Url;

pub use self::attempts::Attempts;
pub use self::chain::Chain;
pub use self::chain::Link;
pub use self::chain::Policy;
pub use self::chain::QueueStep;
pub use self::chain::Step;
pub use self::chores::Chores;
pub use self::dead::Undertaker;
pub use self::intake::Chunks;
pub use self::intake::Intake;
use crate::catalog::Catalog;
use crate::chunk::Chunk;
use crate::failure::Failure;
use crate::failure::RetrySchedule;
use crate::notification::Payload;
use crate::processor::Sender;
use crate::processor::foreign::ForeignSender;
use crate::queue::Message;
use crate::queue::Queue;
use crate::queue::ReplyTo;
use crate::settings::Defaults;
use crate::store::Store;
use crate::telemetry::Events;

/// What every decorator worker of a process shares.
pub struct Pipeline {
    /// Who belongs to whom.
    pub catalog: Arc<dyn Catalog>,
    /// What is kept.
    pub store: Arc<dyn Store>,
    /// For announcing signals and answering replies; work is published by the loop alone.
    pub queue: Arc<dyn Queue>,
    /// The decorators, in configured order.
    pub chain: Chain,
    /// The senders, in configured order: who might want a delivery.
    pub senders: Vec<Arc<dyn Sender>>,
    /// Those of them that are somebody else's workers.
    pub foreign: Vec<Arc<ForeignSender>>,
    /// Preferences of people who stored none.
    pub defaults: Defaults,
    /// `app.baseUrl`, which links are resolved against.
    pub app_base_url: Url,
    /// Broker user to origin, for producers on the queue.
    pub origins: BTreeMap<String, String>,
    /// Largest submission that a producer may publish, in bytes.
    pub body_limit: usize,
    /// When a foreign decorator that missed a chunk gets it again, where its policy says so.
    pub schedule: RetrySchedule,
    /// The secret that chunks are sealed with while others have them; asked for once.
    pub seal: OnceCell<Vec<u8>>,
    /// For the terminal.
    pub events: Events,
}

/// A chunk in hand, with what waits for its being stored.
pub struct Parcel {
    /// The chunk.
    pub chunk: Chunk,
    /// Who wants to hear what was stored.
    pub reply: Option<ReplyTo>,
    /// The submission's other chunks: published once this one is stored as the first of its key,
    /// or goes on to a foreign decorator.
    pub rest: Vec<Chunk>,
}

impl Pipeline {
    /// Carries chunks from the decorators to the store and on to the senders; those that a
    /// foreign decorator is to see first, to its queue. Returns, for each, the messages that
    /// follow.
    async fn carry(&self, parcels: Vec<Parcel>) -> Result<Vec<Vec<Message>>, Failure> {
        let mut following = vec![Vec::new(); parcels.len()];
        let (mut places, mut here) = (Vec::new(), Vec::new());
        let preferences = self.preferences(&parcels).await?;
        for (index, mut parcel) in parcels.into_iter().enumerate() {
            let origin = parcel.chunk.header.origin.clone();
            // Of a processor that decorates and sends, its channel's switch is for both.
            let wants = |name: &str, user: &str, payload: &Payload| {
                let sender = self.senders.iter().find(|sender| sender.name() == name);
                let topic = payload.topic.as_deref();
                sender.is_none_or(|one| preferences.wants(user, one.channel(), &origin, topic))
            };
            let (chunk, catalog) = (&mut parcel.chunk, self.catalog.as_ref());
            self.chain.decorate_people(chunk, catalog, wants).await?;
            if parcel.chunk.slip.is_empty() || parcel.chunk.is_for_nobody() {
                places.push(index);
                here.push(parcel);
            } else {
                following[index] = self.onward(parcel).await?;
            }
        }
        let plans = self.plan(&here, &preferences);
        let stored = self.persist(&plans).await?;
        for (((index, parcel), plan), stored) in
            places.into_iter().zip(here).zip(&plans).zip(&stored)
        {
            self.signal(stored).await;
            self.answer(&parcel, stored).await;
            self.tell(&parcel, plan, stored);
            let mut next = self.deliveries(&parcel.chunk, plan, stored).await?;
            if !stored.other_body {
                next.extend(self.others(parcel.rest).await?);
            }
            following[index] = next;
        }
        Ok(following)
    }

    /// A chunk to the foreign decorator that is next on its slip, and the others of its
    /// submission to our own workers.
    async fn onward(&self, parcel: Parcel) -> Result<Vec<Message>, Failure> {
        let mut next = self.others(parcel.rest).await?;
        next.push(self.forward(parcel.chunk, parcel.reply).await?);
        Ok(next)
    }

    /// Chunks as messages for other decorator workers.
    async fn others(&self, chunks: Vec<Chunk>) -> Result<Vec<Message>, Failure> {
        let mut messages = Vec::with_capacity(chunks.len());
        for chunk in chunks {
            messages.push(self.forward(chunk, None).await?);
        }
        Ok(messages)
    }
}

/// A form that our own types always can write; a failure would be a fault of ours.
fn to_body(form: &impl serde::Serialize) -> Result<Vec<u8>, Failure> {
    serde_json::to_vec(form).map_err(|error| {
        Failure::permanent(
            crate::failure::Reason::Internal,
            format!("cannot be written: {error}"),
        )
    })
}
