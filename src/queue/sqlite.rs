//! The queue in the SQLite file of the embedded back end: a table, and channels within the process.
//!
//! Work waits in the table `message`. Whoever takes a message becomes its holder, on disk, before
//! it sees it: a message whose process dies comes back, one return older. Signals and replies never
//! leave the process, since the file's lock makes sure that there is no other. `bins/` opens it;
//! roles know it as a [`Queue`]. It never reads a body.

mod consumer;
mod local;
mod rows;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicI64;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use async_trait::async_trait;
use bytes::Bytes;
use rusqlite::Connection;
use tokio::sync::Notify;
use tokio::sync::OnceCell;
use tokio::sync::mpsc;

use self::consumer::SqliteConsumer;
use self::local::Listeners;
use self::local::Mailboxes;
use self::rows::NewRow;
use super::Announcement;
use super::Consumer;
use super::Depth;
use super::Message;
use super::Queue;
use super::QueueError;
use super::Replies;
use super::ReplyTo;
use crate::sqlite::Sqlite;
use crate::sqlite::SqliteError;
use crate::time::Timestamp;
use crate::topology::QueueSpec;

/// Most messages that wait in a queue that producers write to, unless told otherwise.
pub const LIMIT_DEFAULT: u64 = 100_000;

/// While a queue is full its messages are counted at most this often: counting is the one thing
/// here that costs more the more there are.
const RECOUNT: Duration = Duration::from_millis(100);

/// The queue in the shared file. One for each process: signals, replies and waking go through it.
#[derive(Clone, Debug)]
pub struct SqliteQueue(Arc<Shared>);

/// What the queue and its consumers have in common.
#[derive(Debug)]
struct Shared {
    sqlite: Arc<Sqlite>,
    lines: BTreeMap<String, Arc<Line>>,
    limit: u64,
    /// The number of the next consumer.
    next_holder: AtomicI64,
    /// Set once what an earlier process had in hand is free again.
    freed: OnceCell<()>,
    listeners: Listeners,
    mailboxes: Mailboxes,
}

/// One work queue, as far as it lives in memory.
#[derive(Debug, Default)]
struct Line {
    key: String,
    limited: bool,
    /// Wakes one waiting consumer for new work, all of them for a new time to wake by.
    work: Arc<Notify>,
    consumers: AtomicU64,
    gate: Mutex<Gate>,
}

/// What is known of the room in a limited queue, without counting it for each message. Only jobs
/// of the one writer look at it.
#[derive(Debug, Default)]
struct Gate {
    /// So many more are surely within the limit: consumers only make room.
    room: u64,
    counted: Option<Instant>,
}

impl SqliteQueue {
    /// The queues of `topology` in this file. Does no I/O: the first consumer frees what an
    /// earlier process had in hand.
    pub fn new(sqlite: Arc<Sqlite>, topology: &[QueueSpec]) -> Self {
        Self::with_limit(sqlite, topology, LIMIT_DEFAULT)
    }

    /// As [`Self::new`], with at most `limit` messages in each queue that producers write to.
    pub fn with_limit(sqlite: Arc<Sqlite>, topology: &[QueueSpec], limit: u64) -> Self {
        let lines = topology.iter().map(|spec| {
            let line = Line {
                key: spec.key.clone(),
                limited: spec.limited,
                ..Line::default()
            };
            (spec.key.clone(), Arc::new(line))
        });
        Self(Arc::new(Shared {
            sqlite,
            lines: lines.collect(),
            limit,
            next_holder: AtomicI64::new(rows::HOLDER_FIRST),
            freed: OnceCell::new(),
            listeners: Listeners::default(),
            mailboxes: Mailboxes::default(),
        }))
    }
}

impl Shared {
    /// The queue of this name.
    fn line(&self, key: &str) -> Result<&Arc<Line>, QueueError> {
        self.lines.get(key).ok_or_else(|| {
            let all: Vec<&str> = self.lines.keys().map(String::as_str).collect();
            QueueError::Topology(format!(
                "there is no queue `{key}`; there are {}",
                all.join(", ")
            ))
        })
    }

    /// The messages as rows, each with its queue. Nothing is written when one has none.
    fn rows(&self, messages: Vec<Message>) -> Result<Vec<(Arc<Line>, NewRow)>, QueueError> {
        let now = Timestamp::now();
        messages
            .into_iter()
            .map(|message| {
                let line = Arc::clone(self.line(&message.key)?);
                Ok((line, NewRow::new(message, now)))
            })
            .collect()
    }

    /// Runs a job on the writing connection; its answer means that it is on disk.
    async fn write<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, QueueError> {
        Ok(self.sqlite.write(job).await?)
    }

    /// Makes free what consumers of an earlier process had in hand. They are gone: the file has
    /// one process at a time.
    async fn free_what_died(&self) -> Result<(), QueueError> {
        let free = || self.write(rows::free_all);
        self.freed.get_or_try_init(free).await.copied()
    }
}

impl Line {
    /// Whether `more` messages are within `limit`; if so, they count as come.
    fn admit(&self, connection: &Connection, more: u64, limit: u64) -> rusqlite::Result<bool> {
        if !self.limited {
            return Ok(true);
        }
        let mut gate = self.gate.lock().unwrap_or_else(PoisonError::into_inner);
        let lately = |counted: Instant| counted.elapsed() < RECOUNT;
        let full_lately = gate.room < more && gate.counted.is_some_and(lately);
        if gate.room < more && !full_lately {
            gate.room = limit - rows::count(connection, &self.key, limit)?;
            gate.counted = Some(Instant::now());
        }
        let fits = more <= gate.room;
        if fits {
            gate.room -= more;
        }
        Ok(fits)
    }
}

/// Writes rows and wakes who waits for them. Part of a job: consumers are woken before the commit,
/// which is early enough to catch the same one and cannot be forgotten when the publisher is
/// cancelled; what they then ask for is done after this, so that they see the rows.
fn insert_and_wake(connection: &Connection, rows: &[(Arc<Line>, NewRow)]) -> rusqlite::Result<()> {
    let (mut now, mut later) = (BTreeMap::new(), BTreeMap::new());
    for (line, row) in rows {
        row.insert(connection)?;
        let lines = if row.is_delayed() {
            &mut later
        } else {
            &mut now
        };
        lines.insert(&line.key, &line.work);
    }
    now.values().for_each(|work| work.notify_one());
    later.values().for_each(|work| work.notify_waiters());
    Ok(())
}

/// Admits rows to limited queues, or says which one is full.
fn admit(
    connection: &Connection,
    rows: &[(Arc<Line>, NewRow)],
    limit: u64,
) -> rusqlite::Result<Result<(), QueueError>> {
    let mut counts: BTreeMap<&str, (&Line, u64)> = BTreeMap::new();
    for (line, _) in rows.iter().filter(|(line, _)| line.limited) {
        counts.entry(&line.key).or_insert((line, 0)).1 += 1;
    }
    for (line, more) in counts.into_values() {
        if !line.admit(connection, more, limit)? {
            return Ok(Err(QueueError::Full {
                key: line.key.clone(),
                detail: format!("{limit} messages may wait in it"),
            }));
        }
    }
    Ok(Ok(()))
}

impl From<SqliteError> for QueueError {
    fn from(error: SqliteError) -> Self {
        Self::Unavailable(error.to_string())
    }
}

#[async_trait]
impl Queue for SqliteQueue {
    async fn publish(&self, messages: Vec<Message>) -> Result<(), QueueError> {
        let rows = self.0.rows(messages)?;
        if rows.is_empty() {
            return Ok(());
        }
        let limit = self.0.limit;
        let publish = move |connection: &Connection| {
            let admitted = admit(connection, &rows, limit)?;
            if admitted.is_ok() {
                insert_and_wake(connection, &rows)?;
            }
            Ok(admitted)
        };
        self.0.write(publish).await?
    }

    async fn announce(&self, body: Bytes) {
        self.0.listeners.tell(&body);
    }

    async fn answer(&self, to: &ReplyTo, body: Bytes) {
        self.0.mailboxes.deliver(to, body);
    }

    async fn consumer(&self, lanes: Vec<String>) -> Result<Box<dyn Consumer>, QueueError> {
        let lines: Result<Vec<_>, _> = lanes
            .iter()
            .map(|lane| self.0.line(lane).map(Arc::clone))
            .collect();
        let lines = lines?;
        self.0.free_what_died().await?;
        Ok(Box::new(SqliteConsumer::new(Arc::clone(&self.0), lines)))
    }

    async fn announcements(&self) -> Result<mpsc::Receiver<Announcement>, QueueError> {
        Ok(self.0.listeners.join())
    }

    async fn replies(&self) -> Result<Replies, QueueError> {
        Ok(self.0.mailboxes.open())
    }

    async fn depths(&self) -> Result<Vec<Depth>, QueueError> {
        let now = Timestamp::now();
        let waiting = self.0.sqlite.read(move |c| rows::waiting(c, now)).await?;
        let mut depths: BTreeMap<String, Depth> = BTreeMap::new();
        for (key, line) in &self.0.lines {
            depths.insert(
                key.clone(),
                Depth {
                    key: key.clone(),
                    ready: 0,
                    consumers: line.consumers.load(Ordering::Relaxed),
                    oldest: None,
                },
            );
        }
        // Also what waits for a sender that is no longer configured: it must not be forgotten.
        for (key, ready, oldest) in waiting {
            let depth = depths.entry(key.clone()).or_insert(Depth {
                key,
                ready: 0,
                consumers: 0,
                oldest: None,
            });
            depth.ready = ready;
            depth.oldest = Some(oldest);
        }
        Ok(depths.into_values().collect())
    }

    async fn ready(&self) -> Result<(), QueueError> {
        // Through the writer: a file that can be read only is not ready.
        self.0.write(rows::probe).await
    }

    async fn purge(&self, key: &str) -> Result<u64, QueueError> {
        let key = self.0.line(key)?.key.clone();
        self.0.write(move |c| rows::purge(c, &key)).await
    }
}
