//! The store: what is kept, as sentences an operator understands.
//!
//! Each method is one statement or one transaction, over everything its caller has in hand.
//! Every multi-row write is sorted by its key, so that transactions do not deadlock; conflicts
//! (40001, 40P01) and lost connections are retried by the back end itself where that is safe.
//! Nothing here decides: what to store and whom to tell is decided above this door.

#[cfg(feature = "postgres")]
pub mod postgres;
#[cfg(feature = "sqlite")]
pub mod sqlite;

use std::time::Duration;

use async_trait::async_trait;
use serde::Deserialize;
use serde::Serialize;
use uuid::Uuid;

use crate::chunk::Note;
use crate::chunk::RefReport;
use crate::delivery::Attempt;
use crate::delivery::DeliveryBatch;
use crate::delivery::DeliveryState;
use crate::failure::Failure;
use crate::failure::Reason;
use crate::notification::Notification;
use crate::notification::Payload;
use crate::notification::Severity;
use crate::queue::HEADER_DETAIL;
use crate::queue::HEADER_REASON;
use crate::queue::HEADER_REPLAYS;
use crate::queue::HEADER_STAGE;
use crate::queue::HEADER_TRIES;
use crate::queue::Message;
pub use crate::settings::Setting;
use crate::submission::Header;
use crate::time::Timestamp;

/// Why the store did not do what it was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// It is away, full or overloaded. Try again.
    #[error("the store is not reachable: {0}")]
    Unavailable(String),
    /// It refused one of the rows: halve the batch until the guilty one stands alone.
    #[error("the store refused it: {0}")]
    Refused(String),
    /// The schema is not as it must be, or a right is missing. An operator must act.
    #[error("{0}")]
    Schema(String),
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Refused(detail) => Self::permanent(Reason::Internal, detail),
            away => Self::dependency(Reason::Network, away.to_string()),
        }
    }
}

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
    /// sorted by user. Notification ids are distinct within one call of [`Store::persist`].
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

/// Which notifications of an inbox, and how many. Source: the peer's query (contract 1.3).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Query {
    /// At most so many; `None` is all.
    pub limit: Option<u64>,
    /// After so many.
    pub offset: u64,
    /// Order, most significant first; empty is `created` descending. The id breaks ties, in the
    /// last field's direction; what is absent counts as the largest.
    pub order: Vec<(OrderField, Direction)>,
    /// Substring of title or description, without case; `%` and `_` are wildcards.
    pub search: Option<String>,
    /// Read or unread alone.
    pub read: Option<bool>,
    /// Saved or unsaved alone.
    pub saved: Option<bool>,
    /// Created at or after.
    pub created_after: Option<Timestamp>,
    /// This severe or more.
    pub minimum_severity: Option<Severity>,
    /// This topic alone.
    pub topic: Option<String>,
}

/// What an inbox can be ordered by: the peer's columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OrderField {
    /// The id.
    Id,
    /// The title.
    Title,
    /// The description.
    Description,
    /// The severity, alphabetically, as in the peer.
    Severity,
    /// The link.
    Link,
    /// Who sent it.
    Origin,
    /// The scope.
    Scope,
    /// The topic.
    Topic,
    /// The icon.
    Icon,
    /// When it became visible.
    Created,
    /// When it was updated.
    Updated,
    /// The user.
    User,
    /// When it was read.
    Read,
    /// When it was saved.
    Saved,
    /// The metadata, as text.
    Metadata,
}

impl OrderField {
    /// Every field and its name on the wire, which is also the column's name.
    pub const ALL: [(&'static str, Self); 15] = [
        ("id", Self::Id),
        ("title", Self::Title),
        ("description", Self::Description),
        ("severity", Self::Severity),
        ("link", Self::Link),
        ("origin", Self::Origin),
        ("scope", Self::Scope),
        ("topic", Self::Topic),
        ("icon", Self::Icon),
        ("created", Self::Created),
        ("updated", Self::Updated),
        ("user", Self::User),
        ("read", Self::Read),
        ("saved", Self::Saved),
        ("metadata", Self::Metadata),
    ];

    /// The field of a wire name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|(one, _)| *one == name)
            .map(|(_, field)| field)
    }

    /// The wire name, which is also the column's.
    pub fn name(self) -> &'static str {
        Self::ALL
            .iter()
            .find(|(_, field)| *field == self)
            .map_or("created", |(name, _)| name)
    }
}

/// Which way an order goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Smallest first.
    Ascending,
    /// Largest first.
    Descending,
}

/// A page of an inbox.
#[derive(Clone, Debug, PartialEq)]
pub struct Page {
    /// How many match, whatever limit and offset.
    pub total: u64,
    /// The rows asked for: the user's own and broadcasts, with the user's marks.
    pub notifications: Vec<Notification>,
}

/// How many notifications a person has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Not read, broadcasts included.
    pub unread: u64,
    /// Read, broadcasts included.
    pub read: u64,
}

/// A mark to set or clear on notifications.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// Set or clear the read date.
    pub read: Option<bool>,
    /// Set or clear the saved date.
    pub saved: Option<bool>,
}

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

/// A message that was given up.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// Its number; 0 until it is filed.
    pub id: i64,
    /// Distinct for each death, so that filing twice files once.
    pub message: String,
    /// The queue where it died.
    pub stage: String,
    /// Why.
    pub reason: Reason,
    /// One sentence on it.
    pub detail: String,
    /// How often it was tried.
    pub tries: u32,
    /// When.
    pub died_at: Timestamp,
    /// The submission it belongs to, if its body says so.
    pub submission: Option<Uuid>,
    /// Who sent it, if known.
    pub origin: Option<String>,
    /// The deliveries in it, to be made pending again on replay.
    pub deliveries: Vec<Uuid>,
    /// Its headers.
    pub headers: crate::queue::Headers,
    /// Its body, as it was; in JSON as text, or as `{"base64": …}` where it is none.
    #[serde(with = "body_as_text")]
    pub body: Vec<u8>,
    /// When it was put back on its queue.
    pub replayed_at: Option<Timestamp>,
}

/// A body is nearly always JSON, and a person should be able to read it.
mod body_as_text {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use serde::Deserialize;
    use serde::Deserializer;
    use serde::Serialize;
    use serde::Serializer;

    #[derive(Deserialize, Serialize)]
    #[serde(untagged)]
    enum Body {
        Text(String),
        Bytes { base64: String },
    }

    pub(super) fn serialize<S: Serializer>(body: &[u8], to: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(body) {
            Ok(text) => to.serialize_str(text),
            Err(_) => {
                let base64 = STANDARD.encode(body);
                Body::Bytes { base64 }.serialize(to)
            }
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        match Body::deserialize(from)? {
            Body::Text(text) => Ok(text.into_bytes()),
            Body::Bytes { base64 } => STANDARD.decode(base64).map_err(serde::de::Error::custom),
        }
    }
}

impl DeadLetter {
    /// The message that gives it another chance: for the queue where it died, without its
    /// post-mortem.
    pub fn revive(&self) -> Message {
        let mut headers = self.headers.clone();
        let stage = headers
            .remove(HEADER_STAGE)
            .unwrap_or_else(|| self.stage.clone());
        for name in [HEADER_REASON, HEADER_DETAIL, HEADER_TRIES] {
            headers.remove(name);
        }
        let replays = headers
            .get(HEADER_REPLAYS)
            .and_then(|count| count.parse().ok());
        let replays = replays.unwrap_or(0_u32) + 1;
        headers.insert(HEADER_REPLAYS.to_owned(), replays.to_string());
        let id = match self.submission {
            Some(submission) => submission.to_string(),
            None => format!("replay-of-{}", self.id),
        };
        Message {
            headers,
            ..Message::new(stage, id, self.body.clone())
        }
    }
}

/// Which dead letters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeadFilter {
    /// These numbers.
    pub ids: Vec<i64>,
    /// Of this reason.
    pub reason: Option<Reason>,
    /// That died at this stage.
    pub stage: Option<String>,
    /// That died before.
    pub before: Option<Timestamp>,
    /// That died at or after.
    pub after: Option<Timestamp>,
    /// Also those that were replayed.
    pub replayed: bool,
    /// At most so many, newest first; 0 is all.
    pub limit: u32,
}

/// What is to become of dead letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settle {
    /// About to be put back on their queue: their failed deliveries become pending, with the
    /// whole retry schedule before them.
    Reopen,
    /// They were put back on their queue.
    Replayed,
    /// They are dropped.
    Discard,
}

/// An API token. Only its hash is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// SHA-256 of the token, in hex.
    pub hash: String,
    /// Who its bearer is: the origin of what they send.
    pub subject: String,
    /// `send`, `operate`.
    pub scopes: Vec<String>,
    /// When it was made.
    pub created: Timestamp,
    /// When it ends.
    pub expires: Option<Timestamp>,
    /// When it was last used, to the minute.
    pub last_used: Option<Timestamp>,
}

/// A running process, as its heartbeat says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Drawn at start.
    pub id: Uuid,
    /// `up`, `ingest`, `decorator`, `sender email`, `inbox`.
    pub role: String,
    /// The machine.
    pub host: String,
    /// The operating system's number.
    pub pid: u32,
    /// `0.1.0+commit`.
    pub version: String,
    /// Where its health and metrics are.
    pub admin: Option<String>,
    /// What is not well; empty when ready.
    pub trouble: Vec<String>,
    /// When it started.
    pub started_at: Timestamp,
    /// When it was last heard of.
    pub seen_at: Timestamp,
}

/// What an operator sees at a glance.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Inbox rows and broadcasts.
    pub notifications: u64,
    /// Deliveries by channel.
    pub channels: Vec<ChannelSummary>,
    /// Dead letters not replayed, by reason.
    pub dead: Vec<(Reason, u64)>,
    /// When the oldest of them died.
    pub dead_oldest: Option<Timestamp>,
}

/// One channel at a glance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChannelSummary {
    /// The sender's name.
    pub channel: String,
    /// Deliveries sent.
    pub sent: u64,
    /// Deliveries waiting for their first or next try.
    pub pending: u64,
    /// Deliveries given up.
    pub failed: u64,
    /// The last success.
    pub last_sent: Option<Timestamp>,
    /// The last try that failed.
    pub last_failed: Option<Timestamp>,
    /// What it said.
    pub last_failure: Option<String>,
}

/// What to delete: everything older than these moments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Submissions with their chunks and final deliveries, accepted before.
    pub submissions: Timestamp,
    /// Dead letters that died before.
    pub dead_letters: Timestamp,
    /// Processes last heard of before.
    pub processes: Timestamp,
}

/// The door to what is kept. Cheap to share behind an `Arc`.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    // -- the pipeline

    /// Persists chunks in one transaction: inbox rows, counters, the timeline, pending deliveries.
    ///
    /// A chunk that was persisted before changes nothing. A row of a scope is updated when
    /// `(accepted_at, submission)` is greater than what it holds: title, severity and metadata are
    /// replaced, description, link and topic only if given, icon never; it becomes unread.
    /// Deliveries of superseded rows are not made. A broadcast keeps its readers' marks.
    ///
    /// A submission whose first persisted chunk came from another body changes nothing either; its
    /// answer has the rows that the first body made. Returns one answer for each chunk, in order.
    async fn persist(&self, chunks: &[ChunkRows]) -> Result<Vec<ChunkStored>, StoreError>;

    /// Claims what it can of these deliveries under `token` until `lease` from now.
    /// Answers in the order asked; an unknown id is `Done`, and one asked for twice in a call is
    /// claimed once. Who holds it under this token already, keeps it. A lease that ran out counts
    /// as a try.
    async fn claim(
        &self,
        ids: &[Uuid],
        token: Uuid,
        lease: Duration,
    ) -> Result<Vec<Claim>, StoreError>;

    /// Records tries of deliveries claimed under `token`, and files the dead letters that come of
    /// them, in one transaction. Says which were recorded: not those whose lease went to another,
    /// and a letter that is about these alone is not filed.
    async fn record(
        &self,
        token: Uuid,
        attempts: &[Attempt],
        dead: &[DeadLetter],
    ) -> Result<Vec<Uuid>, StoreError>;

    /// Gives claimed deliveries back untried.
    async fn release(&self, token: Uuid, ids: &[Uuid]) -> Result<(), StoreError>;

    /// Replaces a claimed delivery by one for each target, all pending, in one transaction. Does
    /// nothing to one that is not claimed under `token`.
    async fn expand(
        &self,
        token: Uuid,
        parent: Uuid,
        children: &[NewDelivery],
    ) -> Result<(), StoreError>;

    /// Up to `limit` deliveries of `channel` that have been due since before `due_before` and that
    /// nobody holds, as messages to put on the queue again. They are not returned a second time
    /// until they have been due for as long again.
    async fn stranded(
        &self,
        channel: &str,
        due_before: Timestamp,
        limit: u32,
    ) -> Result<Vec<DeliveryBatch>, StoreError>;

    /// Files dead letters; one that was filed before is not filed again. The deliveries in it that
    /// are open and that nobody holds are given up with it.
    async fn file_dead(&self, letters: &[DeadLetter]) -> Result<(), StoreError>;

    // -- the inbox

    /// A page of `user`'s inbox.
    async fn list(&self, user: &str, query: &Query) -> Result<Page, StoreError>;

    /// One notification of `user`'s inbox.
    async fn get(&self, user: &str, id: Uuid) -> Result<Option<Notification>, StoreError>;

    /// `user`'s counts.
    async fn counts(&self, user: &str) -> Result<Counts, StoreError>;

    /// The distinct topics of the notifications that match, ascending.
    async fn topics(&self, user: &str, query: &Query) -> Result<Vec<String>, StoreError>;

    /// Marks those of `ids` that `user` can see, and returns them, newest first.
    async fn mark(
        &self,
        user: &str,
        ids: &[Uuid],
        mark: Mark,
    ) -> Result<Vec<Notification>, StoreError>;

    /// Marks all of `user`'s unread as read; says how many there were.
    async fn mark_all_read(&self, user: &str) -> Result<u64, StoreError>;

    /// The stored preferences of these people.
    async fn settings(&self, users: &[String]) -> Result<Vec<Setting>, StoreError>;

    /// Replaces all stored preferences of `user`.
    async fn save_settings(&self, user: &str, settings: &[Setting]) -> Result<(), StoreError>;

    // -- the operators

    /// The story of a submission, with up to `deliveries` of its deliveries (of `user` alone, if
    /// given). `None` until its first chunk is persisted.
    async fn timeline(
        &self,
        find: &Find,
        user: Option<&str>,
        deliveries: u32,
    ) -> Result<Option<Timeline>, StoreError>;

    /// Dead letters, newest first.
    async fn dead_letters(&self, filter: &DeadFilter) -> Result<Vec<DeadLetter>, StoreError>;

    /// Settles these dead letters; says how many there were.
    async fn settle_dead(&self, ids: &[i64], how: Settle) -> Result<u64, StoreError>;

    /// All tokens.
    async fn tokens(&self) -> Result<Vec<Token>, StoreError>;

    /// Keeps a token; one that is kept already gets the new subject, scopes and end.
    async fn add_token(&self, token: &Token) -> Result<(), StoreError>;

    /// Forgets every token whose hash begins with `hash`, which must not be empty; says how many.
    async fn revoke_token(&self, hash: &str) -> Result<u64, StoreError>;

    /// Notes that these tokens were used, to the minute.
    async fn touch_tokens(&self, hashes: &[String]) -> Result<(), StoreError>;

    /// Notes that a process lives; `seen_at` is the store's own clock.
    async fn heartbeat(&self, process: &Process) -> Result<(), StoreError>;

    /// Notes that a process has stopped.
    async fn farewell(&self, process: Uuid) -> Result<(), StoreError>;

    /// The processes that have not said farewell, nor been pruned.
    async fn processes(&self) -> Result<Vec<Process>, StoreError>;

    /// Everything at a glance.
    async fn summary(&self) -> Result<Summary, StoreError>;

    /// Counts everything again and says for how many people the counters were wrong; they are
    /// right afterwards when `mend` is set.
    async fn recount(&self, mend: bool) -> Result<u64, StoreError>;

    /// Deletes what is too old, in batches of at most `batch` rows, each its own transaction;
    /// says how many rows went. A submission stays while one of its deliveries is open; inboxes are
    /// not touched.
    async fn prune(&self, retention: &Retention, batch: u32) -> Result<u64, StoreError>;

    /// Whether reading and writing would work now; says what is missing. For `/readyz`.
    async fn ready(&self) -> Result<(), StoreError>;
}
