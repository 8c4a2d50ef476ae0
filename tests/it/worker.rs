//! The loop, on the SQLite queue: what a failure of the work means for each message.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use tidings::failure::Failure;
use tidings::failure::Reason;
use tidings::failure::RetrySchedule;
use tidings::queue::DEAD;
use tidings::queue::HEADER_REASON;
use tidings::queue::HEADER_TRIES;
use tidings::queue::Message;
use tidings::queue::Queue;
use tidings::queue::Received;
use tidings::queue::sqlite::SqliteQueue;
use tidings::sqlite::Sqlite;
use tidings::telemetry::Readiness;
use tidings::topology::CHUNKS;
use tidings::topology::queues;
use tidings::worker::HOLD_MAX;
use tidings::worker::Verdict;
use tidings::worker::Work;
use tidings::worker::Worker;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

const LIMIT: Duration = Duration::from_secs(20);

/// Work that does what each body says.
#[derive(Default)]
struct Script {
    /// How often each body was worked on.
    seen: Mutex<BTreeMap<String, usize>>,
    done: Notify,
    /// How many more turns find the dependency away.
    away: AtomicUsize,
}

impl Script {
    fn seen(&self, body: &str) -> usize {
        self.seen.lock().unwrap().get(body).copied().unwrap_or(0)
    }

    async fn until_seen(&self, body: &str, times: usize) {
        let wait = async {
            while self.seen(body) < times {
                self.done.notified().await;
            }
        };
        tokio::time::timeout(LIMIT, wait).await.unwrap();
    }
}

#[async_trait]
impl Work for Script {
    fn name(&self) -> &str {
        "script"
    }

    fn timeout(&self) -> Duration {
        Duration::from_millis(300)
    }

    async fn work(&self, batch: &[Received]) -> Result<Vec<Verdict>, Failure> {
        if self.away.load(Ordering::Relaxed) > 0 {
            self.away.fetch_sub(1, Ordering::Relaxed);
            return Err(Failure::dependency(Reason::Network, "the store is away"));
        }
        let bodies: Vec<String> = batch
            .iter()
            .map(|one| String::from_utf8(one.body.to_vec()).unwrap())
            .collect();
        if bodies.iter().any(|body| body == "panic") {
            panic!("on purpose");
        }
        if bodies.iter().any(|body| body == "hang") {
            std::future::pending::<()>().await;
        }
        if bodies.iter().any(|body| body == "refused") {
            return Err(Failure::permanent(
                Reason::Rejected,
                "one of them is not right",
            ));
        }
        let mut verdicts = Vec::new();
        for body in bodies {
            *self.seen.lock().unwrap().entry(body.clone()).or_default() += 1;
            verdicts.push(match body.as_str() {
                "later" => Verdict::Fail(Failure::transient(Reason::Server, "not now")),
                _ => Verdict::Complete(Vec::new()),
            });
        }
        self.done.notify_one();
        Ok(verdicts)
    }
}

struct Bench {
    queue: Arc<SqliteQueue>,
    script: Arc<Script>,
    readiness: Readiness,
    stop: CancellationToken,
    worker: tokio::task::JoinHandle<()>,
    _dir: tempfile::TempDir,
}

impl Bench {
    /// Publishes the bodies, then starts a worker on them.
    async fn start(bodies: &[&str], away: usize) -> Self {
        Self::start_holding(bodies, away, HOLD_MAX).await
    }

    /// The same, with a limit to how long messages are held while a dependency is away.
    async fn start_holding(bodies: &[&str], away: usize, hold: Duration) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let sqlite = Sqlite::open(dir.path()).unwrap();
        let queue = Arc::new(SqliteQueue::new(sqlite, &queues(&[])));
        let messages = bodies
            .iter()
            .map(|body| Message::new(CHUNKS, *body, body.as_bytes().to_vec()))
            .collect();
        queue.publish(messages).await.unwrap();
        let script = Arc::new(Script {
            away: AtomicUsize::new(away),
            ..Script::default()
        });
        let (readiness, stop) = (Readiness::default(), CancellationToken::new());
        let worker = Worker {
            queue: Arc::clone(&queue) as Arc<dyn Queue>,
            lanes: vec![CHUNKS.to_owned()],
            work: Arc::clone(&script) as Arc<dyn Work>,
            schedule: RetrySchedule::new(vec![Duration::from_millis(20); 2]).unwrap(),
            hold,
            readiness: readiness.clone(),
            paused: tidings::worker::never_paused(),
            stop: stop.clone(),
        };
        let worker = tokio::spawn(worker.run());
        Self {
            queue,
            script,
            readiness,
            stop,
            worker,
            _dir: dir,
        }
    }

    /// The next dead letter.
    async fn dead(&self) -> Received {
        let mut consumer = self.queue.consumer(vec![DEAD.to_owned()]).await.unwrap();
        let mut letters = tokio::time::timeout(LIMIT, consumer.take(1))
            .await
            .unwrap()
            .unwrap();
        letters.pop().unwrap()
    }

    async fn stop(self) {
        self.stop.cancel();
        tokio::time::timeout(LIMIT, self.worker)
            .await
            .unwrap()
            .unwrap();
    }
}

#[tokio::test]
async fn a_message_that_panics_dies_alone() {
    let bench = Bench::start(&["a", "panic", "b", "c"], 0).await;
    for body in ["a", "b", "c"] {
        bench.script.until_seen(body, 1).await;
    }
    let dead = bench.dead().await;
    assert_eq!(
        (dead.id.as_str(), dead.headers[HEADER_REASON].as_str()),
        ("panic", "panic")
    );
    bench.stop().await;
}

#[tokio::test]
async fn a_message_that_a_statement_over_many_refuses_is_found_by_halving() {
    let bench = Bench::start(&["a", "b", "refused", "c", "d"], 0).await;
    for body in ["a", "b", "c", "d"] {
        bench.script.until_seen(body, 1).await;
    }
    let dead = bench.dead().await;
    assert_eq!(
        (dead.id.as_str(), dead.headers[HEADER_REASON].as_str()),
        ("refused", "rejected")
    );
    bench.stop().await;
}

#[tokio::test]
async fn a_message_that_hangs_is_cut_off_and_its_neighbours_are_done() {
    let bench = Bench::start(&["a", "hang", "b"], 0).await;
    for body in ["a", "b"] {
        bench.script.until_seen(body, 1).await;
    }
    let dead = bench.dead().await;
    assert_eq!(
        (dead.id.as_str(), dead.headers[HEADER_REASON].as_str()),
        ("hang", "timeout")
    );
    bench.stop().await;
}

#[tokio::test]
async fn a_message_that_may_pass_is_tried_by_the_schedule_and_then_dies() {
    let bench = Bench::start(&["later"], 0).await;
    bench.script.until_seen("later", 3).await;
    let dead = bench.dead().await;
    assert_eq!(dead.headers[HEADER_TRIES], "3");
    assert_eq!(dead.headers[HEADER_REASON], "server");
    bench.stop().await;
}

#[tokio::test]
async fn while_a_dependency_is_away_nothing_is_counted_and_readiness_says_so() {
    let bench = Bench::start(&["a"], 3).await;
    let told = async {
        while bench.readiness.troubles().is_empty() {
            tokio::task::yield_now().await;
        }
        bench.readiness.troubles()
    };
    let troubles = tokio::time::timeout(LIMIT, told).await.unwrap();
    assert_eq!(troubles["script"], "the store is away");
    bench.script.until_seen("a", 1).await;
    let depths = bench.queue.depths().await.unwrap();
    assert!(depths.iter().all(|depth| depth.ready == 0), "{depths:?}");
    bench.stop().await;
}

#[tokio::test]
async fn told_to_stop_while_a_dependency_is_away_it_gives_back_what_it_holds() {
    let bench = Bench::start(&["a"], usize::MAX).await;
    let queue = Arc::clone(&bench.queue);
    bench.stop().await;
    let mut consumer = queue.consumer(vec![CHUNKS.to_owned()]).await.unwrap();
    let back = tokio::time::timeout(LIMIT, consumer.take(1))
        .await
        .unwrap()
        .unwrap();
    assert_eq!((back[0].id.as_str(), back[0].tries()), ("a", 0));
}

#[tokio::test]
async fn what_was_held_too_long_waits_on_the_queue_uncounted() {
    let bench = Bench::start_holding(&["a"], usize::MAX, Duration::ZERO).await;
    let turns = |count: usize| {
        let script = Arc::clone(&bench.script);
        let turns = async move {
            while usize::MAX - script.away.load(Ordering::Relaxed) < count {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(LIMIT, turns)
    };
    turns(1).await.unwrap();
    // The next message is taken only when the first one is off the worker's hands.
    let next = Message::new(CHUNKS, "b", b"b".to_vec());
    bench.queue.publish(vec![next]).await.unwrap();
    turns(2).await.unwrap();
    let queue = Arc::clone(&bench.queue);
    bench.stop().await;
    let mut consumer = queue.consumer(vec![CHUNKS.to_owned()]).await.unwrap();
    let back = tokio::time::timeout(Duration::from_millis(200), consumer.take(2)).await;
    let back = back.map_or_else(|_| Vec::new(), Result::unwrap);
    assert!(back.iter().all(|message| message.id != "a"), "{back:?}");
    drop(consumer);
    assert_eq!(queue.purge(CHUNKS).await.unwrap(), 2, "both are kept");
}
