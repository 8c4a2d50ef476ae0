//! What is persisted of a chunk, and what became of it.

use std::time::Duration;

use serde::Deserialize;
use serde::Serialize;
use uuid::Uuid;

use crate::chunk::Note;
use crate::chunk::RefReport;
use crate::delivery::DeliveryBatch;
use crate::delivery::DeliveryState;
use crate::failure::Reason;
use crate::notification::Notification;
use crate::notification::Payload;
use crate::submission::Header;
use crate::time::Timestamp;

/// A chunk to persist, with everything that was decided about it.
#[derive(Clone, Debug, PartialEq)]
pub struct ChunkRows {
    /// The submission's identity.
    pub header: Header,
    /// Which chunk.
    pub no: u32,
    /// Of how many.
    pub of: u32,
    /// For everybody.
    pub broadcast: bool,
    /// The content; kept beside the chunk so that deliveries can be made again from the store.
    pub payload: Payload,
    /// One for each person (or one for the broadcast) that gets a row, a delivery, or both;
    /// sorted by user. Notification ids are distinct within one call of [`Store::persist`](super::Store::persist).
    pub rows: Vec<Row>,
    /// People for whom the inbox is switched off.
    pub muted: u32,
    /// People whom a decorator dropped.
    pub dropped: u32,
    /// What became of each ref; in chunk 0 alone.
    pub refs: Vec<RefReport>,
    /// What decorators said.
    pub notes: Vec<Note>,
    /// When the decorator took it up.
    pub started_at: Timestamp,
}

/// One person's part of a chunk.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Derived by [`crate::notification::notification_id`].
    pub id: Uuid,
    /// Whose; `None` is the broadcast.
    pub user: Option<String>,
    /// The content for this person, where it differs from the chunk's.
    pub payload: Option<Payload>,
    /// Whether the inbox gets it. If not, only its deliveries are kept.
    pub stored: bool,
    /// The deliveries that settings allow.
    pub deliveries: Vec<NewDelivery>,
}

/// A delivery to be made pending.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewDelivery {
    /// Derived by [`crate::notification::delivery_id`].
    pub id: Uuid,
    /// The sender's name.
    pub channel: String,
    /// Empty for a person.
    pub target: String,
    /// `Pending`, or `Skipped` with a reason when it is only recorded that it was switched off.
    pub state: DeliveryState,
    /// Why it is skipped.
    pub reason: Option<Reason>,
    /// One sentence on why it is skipped.
    pub detail: Option<String>,
}

/// What became of a persisted chunk.
#[derive(Clone, Debug, PartialEq)]
pub struct ChunkStored {
    /// `false`: it had been persisted before, and nothing was changed now.
    pub first: bool,
    /// It had been persisted before from another body under the same key; the first one stands.
    pub other_body: bool,
    /// Every row with `stored`, as it stands now, in the order of the rows.
    pub rows: Vec<RowStored>,
    /// The chunk's deliveries that are pending now, to be put on the queue: `(id, notification)`.
    pub pending: Vec<Uuid>,
}

/// What became of a row.
#[derive(Clone, Debug, PartialEq)]
pub struct RowStored {
    /// As it stands now.
    pub notification: Notification,
    /// What was done.
    pub change: Change,
}

/// What persisting did to a notification.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    /// It was not there before.
    New,
    /// A row of the same scope was updated.
    Updated,
    /// This very submission had been applied before.
    Same,
    /// A later submission of the same scope had been applied; this one changed nothing.
    Superseded,
}

/// What a sender learns about a delivery it wants to claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// It is the caller's until the lease runs out. `attempt` counts from 1; `doubtful` says that
    /// an earlier holder vanished and may have sent it.
    Mine {
        /// Which try this is.
        attempt: u32,
        /// Whether an earlier holder may have sent it.
        doubtful: bool,
    },
    /// Nothing is left to do.
    Done,
    /// Somebody else holds it, or its time has not come: not before this moment.
    NotBefore(Timestamp),
}

/// Turns to send, taken of a channel's rate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Turns {
    /// How long from now the first one begins; where there is none, when one would.
    pub after: Duration,
    /// How many there are, one after the other.
    pub count: u32,
}

#[cfg(any(feature = "sqlite", feature = "postgres"))]
impl Turns {
    /// How many of `wanted` turns, `gap` apart and the first `after` from now, begin `within`.
    pub(super) fn of(after: Duration, wanted: u32, gap: Duration, within: Duration) -> Self {
        let room = within.saturating_sub(after).as_nanos();
        let fit = room.div_ceil(gap.as_nanos().max(1));
        let count = u32::try_from(fit).unwrap_or(u32::MAX).min(wanted);
        Self { after, count }
    }
}

/// What was sent before to the same target, for another submission of the same notification.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Earlier {
    /// The id that the service gave it.
    pub provider_id: String,
    /// The submission it was sent for.
    pub submission: Uuid,
    /// When that was accepted.
    pub accepted_at: Timestamp,
}

/// A delivery that stands as a foreign sender reported.
#[derive(Clone, Debug, PartialEq)]
pub struct Reported {
    /// The delivery.
    pub delivery: Uuid,
    /// Which try it was, from 1.
    pub tries: u32,
    /// A message that carries it alone, for what is to come again or is a dead letter.
    pub batch: DeliveryBatch,
}
