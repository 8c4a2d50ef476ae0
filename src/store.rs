//! The store: what is kept, as sentences an operator understands.
//!
//! Each method is one statement or one transaction, over everything its caller has in hand.
//! Every multi-row write is sorted by its key, so that transactions do not deadlock; conflicts
//! (40001, 40P01) and lost connections are retried by the back end itself where that is safe.
//! Nothing here decides: what to store and whom to tell is decided above this door.

mod endpoint;
mod import;
mod letters;
mod persist;
#[cfg(feature = "postgres")]
pub mod postgres;
mod reading;
#[cfg(feature = "sqlite")]
pub mod sqlite;
mod timeline;
mod upkeep;

use std::time::Duration;

use async_trait::async_trait;
use uuid::Uuid;

use crate::delivery::Attempt;
use crate::delivery::DeliveryBatch;
use crate::failure::Failure;
use crate::failure::Reason;
use crate::notification::Notification;
use crate::settings::wire::Known;
use crate::time::Timestamp;

pub use self::endpoint::EndpointFailed;
pub use self::endpoint::EndpointState;
pub use self::import::ImportMark;
pub use self::import::ImportPart;
pub use self::import::ImportRows;
pub use self::import::ImportStand;
pub use self::letters::DeadFilter;
pub use self::letters::DeadLetter;
pub use self::letters::Settle;
pub use self::persist::Change;
pub use self::persist::ChunkRows;
pub use self::persist::ChunkStored;
pub use self::persist::Claim;
pub use self::persist::Earlier;
pub use self::persist::NewDelivery;
pub use self::persist::Reported;
pub use self::persist::Row;
pub use self::persist::RowStored;
pub use self::persist::Turns;
pub use self::reading::Counts;
pub use self::reading::Direction;
pub use self::reading::Mark;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
use self::reading::ORIGINS;
pub use self::reading::OrderField;
pub use self::reading::Page;
pub use self::reading::Query;
pub use self::timeline::ChunkLine;
pub use self::timeline::DeliveryLine;
pub use self::timeline::Find;
pub use self::timeline::Tally;
pub use self::timeline::Timeline;
pub use self::upkeep::ChannelSummary;
pub use self::upkeep::Pause;
pub use self::upkeep::PluginKey;
pub use self::upkeep::Process;
pub use self::upkeep::Retention;
pub use self::upkeep::Summary;
pub use self::upkeep::Token;
pub use crate::settings::Setting;

/// The length of a secret of the installation.
#[cfg(any(feature = "postgres", feature = "sqlite"))]
const SECRET_BYTES: usize = 32;

/// What is noted of a delivery that a foreign sender took and said nothing of.
#[cfg(any(feature = "postgres", feature = "sqlite"))]
const NOBODY_REPORTED: &str = "no attempt was reported in time";

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

    /// For each of these deliveries, what was sent last to the same target for another submission
    /// of the same notification: what a service may change in place. Only what has an id of the
    /// service. Answers in the order asked.
    async fn earlier(&self, ids: &[Uuid]) -> Result<Vec<Option<Earlier>>, StoreError>;

    /// Takes up to `count` turns to send of `channel`, `gap` apart, that begin within `within` from
    /// now. All senders of a channel take from one line, so that its rate holds across them; turns
    /// that nobody took are not saved up.
    async fn take_turns(
        &self,
        channel: &str,
        count: u32,
        gap: Duration,
        within: Duration,
    ) -> Result<Turns, StoreError>;

    /// The endpoints that fail now, or were disabled.
    async fn endpoints(&self) -> Result<Vec<EndpointState>, StoreError>;

    /// Notes that an endpoint failed; disables it where that has gone on for too long. Returns how
    /// it stands, by the store's clock.
    async fn endpoint_failed(&self, failed: &EndpointFailed) -> Result<EndpointState, StoreError>;

    /// Forgets that an endpoint failed, or was disabled; says whether it had.
    async fn endpoint_well(&self, channel: &str, name: &str) -> Result<bool, StoreError>;

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

    /// Records what foreign senders report of deliveries of `channels`, at most one attempt for
    /// each delivery. Open ones take the state reported, and so do those that were given up as
    /// `unknown`; of other channels and of what is settled nothing changes. Returns those that
    /// stand as reported now, also when they did before.
    async fn report(
        &self,
        channels: &[String],
        attempts: &[Attempt],
    ) -> Result<Vec<Reported>, StoreError>;

    /// Gives up to `limit` deliveries of `channel` up as `unknown`: those that have been due since
    /// before `due_before`. Says how many.
    async fn overdue(
        &self,
        channel: &str,
        due_before: Timestamp,
        limit: u32,
    ) -> Result<u64, StoreError>;

    /// A secret of the installation, the same for every process: 32 random bytes, made when it is
    /// first asked for.
    async fn secret(&self, name: &str) -> Result<Vec<u8>, StoreError>;

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

    /// Marks those of `ids` that `user` can see, and returns them, newest first. Of very many it
    /// may mark part after part, each in its own transaction.
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

    /// The origins of `user`'s own notifications, each with its topics. Broadcasts do not count.
    async fn origins(&self, user: &str) -> Result<Known, StoreError>;

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

    /// Keeps the public half of a key; one that is kept already gets the new end. Forgets those
    /// that have ended.
    async fn add_plugin_key(&self, key: &PluginKey) -> Result<(), StoreError>;

    /// The public keys whose tokens may still hold, the latest end first, at most `limit`.
    async fn plugin_keys(&self, limit: u32) -> Result<Vec<PluginKey>, StoreError>;

    /// Pauses a channel for `by`, until it is resumed; one that is paused already stays as it is.
    async fn pause(&self, channel: &str, by: &str) -> Result<(), StoreError>;

    /// Ends the pause of a channel; says whether there was one.
    async fn resume(&self, channel: &str) -> Result<bool, StoreError>;

    /// The channels that are paused, by name.
    async fn pauses(&self) -> Result<Vec<Pause>, StoreError>;

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

    /// Deletes from inboxes what was last changed `before` or then, with everybody's marks, oldest
    /// first, in batches of at most `batch` rows (a broadcast is one), each its own transaction; of
    /// several processes one does so at a time. What somebody has saved stays, unless `saved`. Says
    /// how many rows went. Who has a page open is not told: it finds out at its next look.
    async fn expire(&self, before: Timestamp, saved: bool, batch: u32) -> Result<u64, StoreError>;

    /// Takes over rows that stand in another system, and remembers under `source` how far that has
    /// come (`None`: to the end), in one transaction. What is here already, by its id or its key,
    /// is left as it is, and so is a scope that was sent here since. A later send of a row's scope
    /// continues it. Says how many rows are new.
    async fn import(
        &self,
        source: &str,
        rows: &ImportRows,
        stand: Option<&ImportStand>,
    ) -> Result<u64, StoreError>;

    /// How far the import from `source` had come; `None` where it ended or never began.
    async fn import_stand(&self, source: &str) -> Result<Option<ImportStand>, StoreError>;

    /// Whether reading and writing would work now; says what is missing. For `/readyz`.
    async fn ready(&self) -> Result<(), StoreError>;
}
