//! The loop: take messages, work on them, publish what follows, acknowledge. It exists once.
//!
//! A role says what to do with a batch ([`Work`]); the loop owns the messages, so that a panic or
//! a timeout of the work strands none. Two kinds of failure, two answers: of a dependency, the
//! batch stays in hand until it is back, and nothing is counted; of a message, the retry schedule
//! or the dead letters.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::failure::Failure;
use crate::failure::Kind;
use crate::failure::Reason;
use crate::failure::RetrySchedule;
use crate::queue::ALONE_AFTER_RETURNS;
use crate::queue::Consumer;
use crate::queue::Ended;
use crate::queue::Message;
use crate::queue::Queue;
use crate::queue::QueueError;
use crate::queue::Received;
use crate::telemetry::Readiness;

/// First wait after a dependency failed; doubles up to [`BACKOFF_MAX`].
const BACKOFF_MIN: Duration = Duration::from_millis(100);
/// Longest wait between two tries of a dependency.
const BACKOFF_MAX: Duration = Duration::from_secs(30);

/// How long messages are held while a dependency is away; then they wait on the queue. Well below
/// the time after which RabbitMQ takes back what is not acknowledged (`consumer_timeout`, 30
/// minutes), since every such return counts towards the delivery limit.
pub const HOLD_MAX: Duration = Duration::from_secs(600);

/// What is to become of one message.
#[derive(Debug)]
pub enum Verdict {
    /// Done; these follow.
    Complete(Vec<Message>),
    /// Not done: by its kind, the retry schedule or the dead letters.
    Fail(Failure),
}

/// What a role does with messages.
#[async_trait]
pub trait Work: Send + Sync + 'static {
    /// For logs, metrics and `/readyz`.
    fn name(&self) -> &str;

    /// Most messages in one turn.
    fn batch(&self) -> usize {
        256
    }

    /// The longest a turn may take.
    fn timeout(&self) -> Duration {
        Duration::from_secs(60)
    }

    /// Works on a batch and answers with one verdict for each message, in order. Must be
    /// repeatable: any message may come again.
    ///
    /// # Errors
    /// A failure of the whole batch. Of a dependency: the same batch is tried again. Any other:
    /// it is halved until the guilty message stands alone.
    async fn work(&self, batch: &[Received]) -> Result<Vec<Verdict>, Failure>;
}

/// One loop over the lanes of one kind of work.
#[derive(Clone)]
pub struct Worker {
    /// Where messages come from and go to.
    pub queue: Arc<dyn Queue>,
    /// The queues, fast lane first.
    pub lanes: Vec<String>,
    /// What to do.
    pub work: Arc<dyn Work>,
    /// When to try a failed message again.
    pub schedule: RetrySchedule,
    /// How long messages are held while a dependency is away: [`HOLD_MAX`].
    pub hold: Duration,
    /// Where trouble is told.
    pub readiness: Readiness,
    /// While it is true, nothing is taken: an operator has paused the work.
    pub paused: watch::Receiver<bool>,
    /// Ends the loop once what is in hand is done.
    pub stop: CancellationToken,
}

/// For work that nobody pauses.
pub fn never_paused() -> watch::Receiver<bool> {
    watch::channel(false).1
}

impl Worker {
    /// Runs until it is told to stop; finishes what is in hand.
    pub async fn run(self) {
        let mut backoff = Backoff::default();
        while !self.stop.is_cancelled() {
            if *self.paused.borrow() {
                self.readiness.well(&self.topic());
                let resumed = until(self.paused.clone(), false);
                self.stop.run_until_cancelled(resumed).await;
                continue;
            }
            match self.consume(&mut backoff).await {
                Ok(()) => {}
                Err(error) => {
                    self.readiness.trouble(&self.topic(), &error.to_string());
                    backoff.wait(&self.stop).await;
                }
            }
        }
        self.readiness.well(&self.topic());
    }

    fn topic(&self) -> String {
        format!("queue {}", self.lanes.first().map_or("", String::as_str))
    }

    /// One consumer's life, until it is told to stop or paused. What it has in hand when it ends
    /// with an error comes again.
    async fn consume(&self, backoff: &mut Backoff) -> Result<(), QueueError> {
        let mut consumer = self.queue.consumer(self.lanes.clone()).await?;
        // Not with the first message alone: on a quiet queue that may never come.
        self.readiness.well(&self.topic());
        loop {
            let batch = tokio::select! {
                biased;
                () = self.stop.cancelled() => return Ok(()),
                () = until(self.paused.clone(), true) => return Ok(()),
                batch = consumer.take(self.work.batch()) => batch?,
            };
            self.readiness.well(&self.topic());
            backoff.reset();
            self.turn(consumer.as_mut(), batch).await?;
        }
    }

    /// One turn. A message that came back often is worked on alone, so that one that kills the
    /// process takes no company with it to the delivery limit.
    async fn turn(
        &self,
        consumer: &mut dyn Consumer,
        batch: Vec<Received>,
    ) -> Result<(), QueueError> {
        let (suspects, rest): (Vec<_>, Vec<_>) = batch
            .into_iter()
            .partition(|message| ALONE_AFTER_RETURNS <= message.returns);
        let groups = std::iter::once(rest).chain(suspects.into_iter().map(|one| vec![one]));
        for group in groups.filter(|group| !group.is_empty()) {
            let ended = self.end(group).await;
            consumer.finish(ended).await?;
        }
        Ok(())
    }

    /// Ends every message of a group; those that had to be left when told to stop are missing,
    /// and come again.
    async fn end(&self, group: Vec<Received>) -> Vec<Ended> {
        let mut ended = Vec::with_capacity(group.len());
        let mut groups = vec![group];
        while let Some(group) = groups.pop() {
            let (group, result) = self.attempt(group).await;
            match result {
                Ok(verdicts) => {
                    ended.extend(group.into_iter().zip(verdicts).map(|(message, verdict)| {
                        match verdict {
                            Verdict::Complete(next) => message.complete(next),
                            Verdict::Fail(failure) => self.fail(message, &failure),
                        }
                    }));
                }
                Err(failure) if failure.kind == Kind::Dependency => {
                    if self.stop.is_cancelled() {
                        break;
                    }
                    ended.extend(group.into_iter().map(|one| one.wait(BACKOFF_MAX)));
                }
                Err(failure) if group.len() == 1 => {
                    ended.extend(group.into_iter().map(|one| self.fail(one, &failure)));
                }
                Err(_) => {
                    let mut first = group;
                    let second = first.split_off(first.len() / 2);
                    groups.push(second);
                    groups.push(first);
                }
            }
        }
        ended
    }

    /// Works on a group, again and again while a dependency is away. Returns that failure only
    /// when told to stop, or when the group was held for too long.
    async fn attempt(
        &self,
        group: Vec<Received>,
    ) -> (Vec<Received>, Result<Vec<Verdict>, Failure>) {
        let mut backoff = Backoff::default();
        let mut group = Arc::new(group);
        let until = tokio::time::Instant::now() + self.hold;
        loop {
            let result = self.guarded(&group).await;
            // The guarded task has ended, and with it the only other holder.
            group = match Arc::try_unwrap(group) {
                Ok(alone) => {
                    let waits = matches!(&result, Err(failure) if failure.kind == Kind::Dependency);
                    let over = self.stop.is_cancelled() || until <= tokio::time::Instant::now();
                    if !waits || over {
                        if !waits {
                            self.readiness.well(self.work.name());
                        }
                        return (alone, result);
                    }
                    Arc::new(alone)
                }
                Err(shared) => shared,
            };
            if let Err(failure) = &result {
                self.readiness.trouble(self.work.name(), &failure.detail);
            }
            backoff.wait(&self.stop).await;
        }
    }

    /// Runs the work in a task of its own: a panic or timeout is a failure of the batch.
    async fn guarded(&self, group: &Arc<Vec<Received>>) -> Result<Vec<Verdict>, Failure> {
        let (work, batch) = (Arc::clone(&self.work), Arc::clone(group));
        let mut task = tokio::spawn(async move {
            let verdicts = work.work(&batch).await;
            drop(batch);
            verdicts
        });
        match tokio::time::timeout(self.work.timeout(), &mut task).await {
            Ok(Ok(Ok(verdicts))) if verdicts.len() == group.len() => Ok(verdicts),
            Ok(Ok(Ok(_))) => Err(Failure::permanent(
                Reason::Panic,
                "the work answered for more or fewer messages than it was given",
            )),
            Ok(Ok(Err(failure))) => Err(failure),
            Ok(Err(_)) => Err(Failure::permanent(
                Reason::Panic,
                format!("{} panicked on this message", self.work.name()),
            )),
            Err(_) => {
                task.abort();
                // Waits for the task to let go of the batch.
                let _ = task.await;
                let limit = self.work.timeout().as_secs();
                Err(Failure::transient(
                    Reason::Timeout,
                    format!("{} took longer than {limit} s", self.work.name()),
                ))
            }
        }
    }

    /// Ends a message that failed: by the schedule, or among the dead.
    fn fail(&self, message: Received, failure: &Failure) -> Ended {
        let wait = match failure.kind {
            Kind::Transient { after } => self.schedule.wait_after(message.tries() + 1, after),
            Kind::Dependency => Some(BACKOFF_MAX),
            Kind::Permanent => None,
        };
        let stage = message.key.clone();
        match wait {
            Some(wait) => {
                tracing::warn!(queue = stage, message = message.id, reason = %failure.reason,
                    detail = failure.detail, wait_ms = wait.as_millis(), "will be tried again");
                message.retry(wait)
            }
            None => {
                tracing::warn!(queue = stage, message = message.id, reason = %failure.reason,
                    detail = failure.detail, "given up: a dead letter");
                message.dead_letter(failure.reason, &failure.detail)
            }
        }
    }
}

/// Waits until a switch is so; for ever where nobody can turn it any more.
async fn until(mut switch: watch::Receiver<bool>, state: bool) {
    if switch.wait_for(|now| *now == state).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Waits that double.
#[derive(Default)]
struct Backoff(u32);

impl Backoff {
    fn reset(&mut self) {
        self.0 = 0;
    }

    /// Waits, but not beyond the call to stop.
    async fn wait(&mut self, stop: &CancellationToken) {
        let wait = BACKOFF_MIN
            .saturating_mul(1 << self.0.min(16))
            .min(BACKOFF_MAX);
        self.0 += 1;
        // Being told to stop ends the wait; the caller looks at the token itself.
        let _ = stop.run_until_cancelled(tokio::time::sleep(wait)).await;
    }
}
