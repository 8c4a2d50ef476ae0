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

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;
    use crate::queue::ALONE_AFTER_RETURNS;
    use crate::queue::DEAD;
    use crate::queue::DELIVERY_LIMIT;
    use crate::queue::Received;
    use crate::topology::CHUNKS;
    use crate::topology::SUBMISSIONS;
    use crate::topology::queues;

    const PATIENCE: Duration = Duration::from_secs(30);

    struct File {
        sqlite: Arc<Sqlite>,
        _dir: tempfile::TempDir,
    }

    impl File {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let sqlite = Sqlite::open(dir.path()).unwrap();
            Self { sqlite, _dir: dir }
        }

        /// As another process would open it.
        fn queue(&self) -> SqliteQueue {
            SqliteQueue::with_limit(Arc::clone(&self.sqlite), &queues(&[]), 5)
        }
    }

    fn messages(key: &str, count: usize) -> Vec<Message> {
        (0..count)
            .map(|n| Message::new(key, n.to_string(), "body"))
            .collect()
    }

    async fn consumer(queue: &SqliteQueue, lanes: &[&str]) -> Box<dyn Consumer> {
        let lanes = lanes.iter().map(|lane| (*lane).to_owned()).collect();
        queue.consumer(lanes).await.unwrap()
    }

    async fn take(consumer: &mut Box<dyn Consumer>, max: usize) -> Vec<Received> {
        timeout(PATIENCE, consumer.take(max))
            .await
            .unwrap()
            .unwrap()
    }

    fn ids(taken: &[Received]) -> Vec<&str> {
        taken.iter().map(|one| one.id.as_str()).collect()
    }

    /// As if the message `id` had been handed out so often.
    async fn handed(file: &File, id: &str, times: u32) {
        let id = id.to_owned();
        let set = "update message set handed = ?2 where message_id = ?1";
        let set = move |c: &Connection| c.execute(set, rusqlite::params![id, times]);
        assert_eq!(file.sqlite.write(set).await.unwrap(), 1);
    }

    #[tokio::test]
    async fn a_full_queue_refuses_producers_and_takes_them_again_when_there_is_room() {
        let file = File::new();
        let queue = file.queue();
        queue.publish(messages(SUBMISSIONS, 3)).await.unwrap();
        let refused = queue.publish(messages(SUBMISSIONS, 3)).await.unwrap_err();
        assert!(
            matches!(&refused, QueueError::Full { key, .. } if key == SUBMISSIONS),
            "{refused}"
        );
        queue.publish(messages(SUBMISSIONS, 2)).await.unwrap();
        queue.publish(messages(SUBMISSIONS, 1)).await.unwrap_err();

        let mut intake = consumer(&queue, &[SUBMISSIONS]).await;
        assert_eq!(take(&mut intake, 9).await.len(), 5);
        tokio::time::sleep(RECOUNT).await;
        queue.publish(messages(SUBMISSIONS, 5)).await.unwrap();
    }

    #[tokio::test]
    async fn workers_are_never_refused() {
        let file = File::new();
        let queue = file.queue();
        queue.publish(messages(CHUNKS, 20)).await.unwrap();
        queue.publish(messages(SUBMISSIONS, 5)).await.unwrap();
        let mut intake = consumer(&queue, &[SUBMISSIONS]).await;
        let taken = take(&mut intake, 9).await;
        queue.publish(messages(SUBMISSIONS, 5)).await.unwrap_err();
        tokio::time::sleep(RECOUNT).await;
        queue.publish(messages(SUBMISSIONS, 5)).await.unwrap();
        let again = taken.into_iter().map(|one| one.retry(Duration::ZERO));
        intake.finish(again.collect()).await.unwrap();
        assert_eq!(queue.purge(SUBMISSIONS).await.unwrap(), 10);
    }

    #[tokio::test]
    async fn a_suspect_is_handed_out_alone_and_the_others_do_not_share_its_fate() {
        let file = File::new();
        let queue = file.queue();
        queue.publish(messages(CHUNKS, 5)).await.unwrap();
        handed(&file, "2", ALONE_AFTER_RETURNS).await;
        let mut chunks = consumer(&queue, &[CHUNKS]).await;
        assert_eq!(ids(&take(&mut chunks, 9).await), ["0", "1"]);
        assert_eq!(ids(&take(&mut chunks, 9).await), ["2"]);
        assert_eq!(ids(&take(&mut chunks, 9).await), ["3", "4"]);
    }

    #[tokio::test]
    async fn a_suspect_in_the_slow_lane_is_not_kept_waiting_by_the_fast_one() {
        let file = File::new();
        let queue = file.queue();
        queue.publish(messages(CHUNKS, 50)).await.unwrap();
        let slow = vec![Message::new(DEAD, "suspect", "body")];
        queue.publish(slow).await.unwrap();
        handed(&file, "suspect", ALONE_AFTER_RETURNS).await;
        let mut both = consumer(&queue, &[CHUNKS, DEAD]).await;
        assert_eq!(take(&mut both, 10).await.len(), 10);
        assert_eq!(ids(&take(&mut both, 10).await), ["suspect"]);
        assert_eq!(take(&mut both, 10).await.len(), 10);
    }

    #[tokio::test]
    async fn a_spent_message_is_buried_on_the_way_to_the_others() {
        let file = File::new();
        let queue = file.queue();
        queue.publish(messages(CHUNKS, 3)).await.unwrap();
        handed(&file, "0", DELIVERY_LIMIT + 1).await;
        handed(&file, "1", DELIVERY_LIMIT).await;
        let mut dead = consumer(&queue, &[DEAD]).await;
        let mut chunks = consumer(&queue, &[CHUNKS]).await;
        assert_eq!(ids(&take(&mut chunks, 1).await), ["1"]);
        assert_eq!(ids(&take(&mut dead, 9).await), ["0"]);
        assert_eq!(ids(&take(&mut chunks, 9).await), ["2"]);
    }

    #[tokio::test]
    async fn the_dead_do_not_die_again() {
        let file = File::new();
        let queue = file.queue();
        queue.publish(messages(DEAD, 1)).await.unwrap();
        handed(&file, "0", DELIVERY_LIMIT * 2).await;
        let mut dead = consumer(&queue, &[DEAD]).await;
        assert_eq!(take(&mut dead, 1).await[0].returns, DELIVERY_LIMIT * 2);
    }

    #[tokio::test]
    async fn large_bodies_come_in_portions() {
        let file = File::new();
        let queue = file.queue();
        let large = vec![0; 6 << 20];
        let large = (0..5).map(|n| Message::new(CHUNKS, n.to_string(), large.clone()));
        queue.publish(large.collect()).await.unwrap();
        let mut chunks = consumer(&queue, &[CHUNKS]).await;
        assert_eq!(ids(&take(&mut chunks, 9).await), ["0", "1", "2"]);
        assert_eq!(ids(&take(&mut chunks, 9).await), ["3", "4"]);
    }

    #[tokio::test]
    async fn a_cancelled_publisher_leaves_nobody_asleep() {
        let file = File::new();
        let queue = file.queue();
        let mut chunks = consumer(&queue, &[CHUNKS]).await;
        let publish = queue.publish(messages(CHUNKS, 1));
        let (taken, ()) = tokio::join!(take(&mut chunks, 9), async {
            // Polled once: the job is with the writer, and nobody waits for its answer.
            let _ = futures::poll!(std::pin::pin!(publish));
        });
        assert_eq!(ids(&taken), ["0"]);
    }

    #[tokio::test]
    async fn a_cancelled_take_of_many_serves_takes_of_few() {
        let file = File::new();
        let queue = file.queue();
        queue.publish(messages(CHUNKS, 5)).await.unwrap();
        let mut chunks = consumer(&queue, &[CHUNKS]).await;
        let _ = futures::poll!(std::pin::pin!(chunks.take(9)));
        assert_eq!(ids(&take(&mut chunks, 2).await), ["0", "1"]);
        assert_eq!(ids(&take(&mut chunks, 2).await), ["2", "3"]);
        assert_eq!(ids(&take(&mut chunks, 2).await), ["4"]);
    }

    #[tokio::test]
    async fn one_word_wakes_as_many_consumers_as_there_is_work_for() {
        let file = File::new();
        let queue = file.queue();
        let mut waiting = tokio::task::JoinSet::new();
        for _ in 0..4 {
            let mut chunks = consumer(&queue, &[CHUNKS]).await;
            waiting.spawn(async move {
                let taken = take(&mut chunks, 1).await;
                // Kept, or what is in hand would come again to another.
                (ids(&taken)[0].to_owned(), chunks)
            });
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        queue.publish(messages(CHUNKS, 4)).await.unwrap();
        let taken = timeout(PATIENCE, waiting.join_all()).await.unwrap();
        let mut ids: Vec<_> = taken.into_iter().map(|(id, _)| id).collect();
        ids.sort_unstable();
        assert_eq!(ids, ["0", "1", "2", "3"]);
    }

    #[tokio::test]
    async fn a_delayed_message_finds_another_consumer_when_the_first_is_busy() {
        let file = File::new();
        let queue = file.queue();
        let mut late = messages(CHUNKS, 1);
        late[0].delay = Some(Duration::from_millis(100));
        let mut busy = consumer(&queue, &[CHUNKS]).await;
        let mut idle = consumer(&queue, &[CHUNKS]).await;
        let idle = tokio::spawn(async move { ids(&take(&mut idle, 1).await)[0].to_owned() });
        assert!(
            timeout(Duration::from_millis(20), busy.take(1))
                .await
                .is_err()
        );
        queue.publish(late).await.unwrap();
        assert_eq!(timeout(PATIENCE, idle).await.unwrap().unwrap(), "0");
    }

    #[tokio::test]
    async fn what_waits_for_a_queue_that_is_no_longer_configured_is_still_counted() {
        let file = File::new();
        let before = SqliteQueue::new(Arc::clone(&file.sqlite), &queues(&["pigeon".to_owned()]));
        before.publish(messages("deliver.pigeon", 2)).await.unwrap();
        let depths = file.queue().depths().await.unwrap();
        let pigeon = depths.iter().find(|one| one.key == "deliver.pigeon");
        assert_eq!(pigeon.map(|one| one.ready), Some(2));
    }

    #[tokio::test]
    async fn consumers_are_counted_while_they_live() {
        let file = File::new();
        let queue = file.queue();
        let first = consumer(&queue, &[CHUNKS, DEAD]).await;
        let second = consumer(&queue, &[CHUNKS]).await;
        let count = async || -> Vec<u64> {
            let depths = queue.depths().await.unwrap();
            let of = |key: &str| depths.iter().find(|one| one.key == key).unwrap().consumers;
            vec![of(CHUNKS), of(DEAD), of(SUBMISSIONS)]
        };
        assert_eq!(count().await, [2, 1, 0]);
        drop(first);
        assert_eq!(count().await, [1, 0, 0]);
        drop(second);
        assert_eq!(count().await, [0, 0, 0]);
    }
}
