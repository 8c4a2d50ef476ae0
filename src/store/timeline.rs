//! The story of a submission, as operators and producers read it.

use serde::Deserialize;
use serde::Serialize;
use uuid::Uuid;

use crate::chunk::Note;
use crate::chunk::RefReport;
use crate::delivery::DeliveryState;
use crate::failure::Reason;
use crate::notification::Payload;
use crate::submission::Header;
use crate::time::Timestamp;

/// How to name a submission.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Find {
    /// By its whole id.
    Id(Uuid),
    /// By the last eight hexadecimal digits; the latest if several end so.
    Suffix(String),
    /// By the producer's idempotency key.
    Key {
        /// Who sent it.
        origin: String,
        /// Under which key.
        key: String,
    },
}

/// The story of one submission.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Timeline {
    /// Its identity.
    pub header: Header,
    /// Its content, as decorated.
    pub payload: Payload,
    /// For everybody.
    pub broadcast: bool,
    /// What became of each ref.
    pub refs: Vec<RefReport>,
    /// What was persisted, chunk by chunk.
    pub chunks: Vec<ChunkLine>,
    /// How many chunks it has; fewer lines mean that some are not persisted yet.
    pub of: u32,
    /// Other bodies that came under the same key and were ignored.
    pub ignored: u32,
    /// Deliveries by channel, state and reason.
    pub tally: Vec<Tally>,
    /// Deliveries, as many as were asked for: those not sent come first.
    pub deliveries: Vec<DeliveryLine>,
    /// Dead letters of this submission.
    pub dead: Vec<i64>,
}

/// A persisted chunk in the timeline.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChunkLine {
    /// Which chunk.
    pub no: u32,
    /// When the decorator took it up.
    pub started_at: Timestamp,
    /// When it was committed.
    pub stored_at: Timestamp,
    /// Inbox rows made or updated.
    pub stored: u32,
    /// Rows that a later submission had overtaken.
    pub superseded: u32,
    /// People with the inbox switched off.
    pub muted: u32,
    /// People dropped by a decorator.
    pub dropped: u32,
    /// What decorators said.
    pub notes: Vec<Note>,
}

/// A count of deliveries in the timeline.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// The sender's name.
    pub channel: String,
    /// Where they stand.
    pub state: DeliveryState,
    /// Why.
    pub reason: Option<Reason>,
    /// Tried at least once and to be tried again.
    pub retrying: bool,
    /// How many.
    pub count: u64,
    /// The latest change among them.
    pub at: Timestamp,
}

/// One delivery in the timeline.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeliveryLine {
    /// Its id.
    pub id: Uuid,
    /// The sender's name.
    pub channel: String,
    /// For whom.
    pub user: Option<String>,
    /// Explicit target, if any.
    pub target: String,
    /// Where it stands.
    pub state: DeliveryState,
    /// Tries so far.
    pub attempts: u32,
    /// Why it is not sent.
    pub reason: Option<Reason>,
    /// One sentence on it.
    pub detail: Option<String>,
    /// The id that the service gave it.
    pub provider_id: Option<String>,
    /// When it is tried again.
    pub next_at: Option<Timestamp>,
    /// An earlier holder vanished in the middle: it may have been delivered twice.
    pub doubtful: bool,
    /// Its last change.
    pub at: Timestamp,
}
