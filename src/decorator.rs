//! The decorator role: from a submission to inbox rows, deliveries and signals.
//!
//! The whole pipeline is on this screen. [`Intake`] takes submissions, [`Chunks`] the parts of
//! large ones; both end in `Pipeline::carry`. Nothing here acknowledges: the loop in
//! `worker.rs` publishes what follows and then does.

mod chain;
mod chores;
mod dead;
mod expand;
mod intake;
mod persist;
mod route;

use std::collections::BTreeMap;
use std::sync::Arc;

use url::Url;

pub use self::chain::Chain;
pub use self::chain::Link;
pub use self::chain::Policy;
pub use self::chores::Chores;
pub use self::dead::Undertaker;
pub use self::intake::Chunks;
pub use self::intake::Intake;
use crate::catalog::Catalog;
use crate::chunk::Chunk;
use crate::failure::Failure;
use crate::processor::Sender;
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
    /// Preferences of people who stored none.
    pub defaults: Defaults,
    /// `app.baseUrl`, which links are resolved against.
    pub app_base_url: Url,
    /// Broker user to origin, for producers on the queue.
    pub origins: BTreeMap<String, String>,
    /// Largest submission that a producer may publish, in bytes.
    pub body_limit: usize,
    /// For the terminal.
    pub events: Events,
}

/// A chunk in hand, with what waits for its being stored.
pub struct Parcel {
    /// The chunk.
    pub chunk: Chunk,
    /// Who wants to hear what was stored.
    pub reply: Option<ReplyTo>,
    /// The submission's other chunks: published once this one is stored as the first of its key.
    pub rest: Vec<Chunk>,
    /// A decorator dropped the submission as a whole: it reaches nobody, and its timeline says so.
    pub dropped: bool,
}

impl Pipeline {
    /// Carries chunks from the decorators to the store and on to the senders. Returns, for each,
    /// the messages that follow.
    async fn carry(&self, mut parcels: Vec<Parcel>) -> Result<Vec<Vec<Message>>, Failure> {
        let mut dropped = self.chain.decorate_people(&mut parcels).await?;
        for (parcel, dropped) in parcels.iter().zip(&mut dropped) {
            dropped.extend(parcel.dropped.then(String::new));
        }
        let plans = self.plan(&parcels, &dropped).await?;
        let stored = self.persist(&plans).await?;

        let mut following = Vec::with_capacity(parcels.len());
        for ((parcel, plan), stored) in parcels.into_iter().zip(&plans).zip(&stored) {
            self.signal(stored).await;
            self.answer(&parcel, stored).await;
            self.tell(&parcel, plan, stored);
            let mut next = self.deliveries(&parcel.chunk, plan, stored)?;
            if !stored.other_body {
                next.extend(expand::messages(&parcel.rest)?);
            }
            following.push(next);
        }
        Ok(following)
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
