//! What must be done from time to time: deliveries that no message carries are put on the queue
//! again, what is too old is deleted, and the queues' depths are measured.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::Pipeline;
use super::route::delivery_messages;
use crate::config::InboxRetention;
use crate::failure::Failure;
use crate::failure::Reason;
use crate::processor::foreign::ForeignSender;
use crate::queue::Depth;
use crate::store::Retention;
use crate::telemetry::metric;
use crate::time::Timestamp;
use crate::topology;

/// Between two sweeps, and between two measurements.
const SWEEP_EVERY: Duration = Duration::from_secs(15);
/// A delivery that has been due for so long, while its queue is empty, is carried by no message.
const STRANDED_AFTER: Duration = Duration::from_secs(60);
/// Most deliveries put back in one sweep of a channel.
const STRANDED_MAX: u32 = 1_000;
/// Most deliveries of a foreign sender given up in one sweep.
const OVERDUE_MAX: u32 = 10_000;
/// Between two clean-ups.
const PRUNE_EVERY: Duration = Duration::from_secs(3_600);
/// Most rows deleted in one transaction.
const PRUNE_ROWS: u32 = 5_000;
/// The same of inboxes, where people wait for their marks meanwhile.
const INBOX_ROWS: u32 = 500;
/// A process that has not been heard of for so long is forgotten.
const PROCESSES_KEPT: Duration = Duration::from_secs(86_400);

/// The chores of a decorator process.
pub struct Chores {
    /// What they work on.
    pub pipeline: Arc<Pipeline>,
    /// How long submissions are kept.
    pub submissions: Duration,
    /// How long dead letters are kept.
    pub dead_letters: Duration,
    /// How long notifications are kept.
    pub inbox: InboxRetention,
    /// Ends them.
    pub stop: CancellationToken,
}

impl Chores {
    /// Runs until told to stop. A chore that fails is logged and comes round again.
    pub async fn run(self) {
        tokio::join!(self.sweeps(), self.cleanings());
    }

    async fn sweeps(&self) {
        let mut due = tokio::time::interval(SWEEP_EVERY);
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return,
                _ = due.tick() => report(self.sweep().await),
            }
        }
    }

    /// Much may have to be deleted: what was not when told to stop is left to the next start.
    async fn cleanings(&self) {
        let mut due = tokio::time::interval(PRUNE_EVERY);
        loop {
            let cleaning = async {
                due.tick().await;
                report(self.prune().await);
                report(self.expire().await);
            };
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = cleaning => {}
            }
        }
    }

    /// Measures the queues, and puts stranded deliveries back on those that are empty: while
    /// messages wait, any of them may be the one that carries a delivery.
    async fn sweep(&self) -> Result<(), Failure> {
        let depths = self.pipeline.queue.depths().await?;
        measure(&depths);
        let ready = |key: &str| {
            depths
                .iter()
                .find(|one| one.key == key)
                .map_or(0, |one| one.ready)
        };
        for sender in &self.pipeline.foreign {
            self.give_up(sender).await?;
        }
        for sender in &self.pipeline.senders {
            let name = sender.name();
            if self.pipeline.foreign.iter().any(|one| one.name == name) {
                continue;
            }
            if [false, true]
                .iter()
                .any(|bulk| 0 < ready(&topology::deliver(name, *bulk)))
            {
                continue;
            }
            let before = Timestamp::now().minus(STRANDED_AFTER);
            let stranded = self
                .pipeline
                .store
                .stranded(name, before, STRANDED_MAX)
                .await?;
            let mut messages = Vec::new();
            let mut count = 0;
            for batch in stranded {
                count += batch.items.len();
                messages.extend(delivery_messages(batch, true)?);
            }
            if !messages.is_empty() {
                tracing::warn!(
                    channel = name,
                    deliveries = count,
                    "deliveries that no message carried were put on the queue again"
                );
                self.pipeline.queue.publish(messages).await?;
            }
        }
        Ok(())
    }

    /// Deliveries that a foreign sender was silent about for too long: nobody knows whether they
    /// were sent, so nobody sends them again.
    async fn give_up(&self, sender: &ForeignSender) -> Result<(), Failure> {
        let before = Timestamp::now().minus(sender.timeout);
        let store = &self.pipeline.store;
        let count = store.overdue(&sender.name, before, OVERDUE_MAX).await?;
        if 0 < count {
            tracing::warn!(
                channel = sender.name,
                deliveries = count,
                "deliveries that no attempt was reported of were given up as unknown"
            );
            metrics::counter!(metric::DELIVERIES, "channel" => sender.name.clone(),
                "outcome" => "unknown", "reason" => Reason::Timeout.as_str())
            .increment(count);
        }
        Ok(())
    }

    async fn prune(&self) -> Result<(), Failure> {
        let now = Timestamp::now();
        let retention = Retention {
            submissions: now.minus(self.submissions),
            dead_letters: now.minus(self.dead_letters),
            processes: now.minus(PROCESSES_KEPT),
        };
        let rows = self.pipeline.store.prune(&retention, PRUNE_ROWS).await?;
        if 0 < rows {
            tracing::info!(rows, "what was too old was deleted");
        }
        Ok(())
    }

    /// Empties inboxes of what is too old. Source: contract 3, "Cleaner".
    async fn expire(&self) -> Result<(), Failure> {
        let Some(keep) = self.inbox.keep else {
            return Ok(());
        };
        let before = Timestamp::now().minus(keep);
        let store = &self.pipeline.store;
        let rows = store.expire(before, self.inbox.saved, INBOX_ROWS).await?;
        metrics::counter!(metric::ROWS, "change" => "expired").increment(rows);
        if 0 < rows {
            tracing::info!(rows, "notifications that were too old were deleted");
        }
        Ok(())
    }
}

fn report(result: Result<(), Failure>) {
    if let Err(failure) = result {
        tracing::warn!(reason = %failure.reason, detail = failure.detail, "a chore failed");
    }
}

fn measure(depths: &[Depth]) {
    let now = Timestamp::now();
    for depth in depths {
        let age = depth
            .oldest
            .map_or(0.0, |oldest| now.since(oldest).as_secs_f64());
        metrics::gauge!(metric::QUEUE_OLDEST_SECONDS, "queue" => depth.key.clone()).set(age);
        metrics::gauge!(metric::QUEUE_READY, "queue" => depth.key.clone()).set(depth.ready as f64);
    }
}
