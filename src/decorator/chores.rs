//! What must be done from time to time: deliveries that no message carries are put on the queue
//! again, what is too old is deleted, and the queues' depths are measured.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::Pipeline;
use super::route::delivery_messages;
use crate::failure::Failure;
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
/// Between two clean-ups.
const PRUNE_EVERY: Duration = Duration::from_secs(3_600);
/// Most rows deleted in one transaction.
const PRUNE_ROWS: u32 = 5_000;
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
    /// Ends them.
    pub stop: CancellationToken,
}

impl Chores {
    /// Runs until told to stop. A chore that fails is logged and comes round again.
    pub async fn run(self) {
        let mut sweep = tokio::time::interval(SWEEP_EVERY);
        let mut prune = tokio::time::interval(PRUNE_EVERY);
        loop {
            let result = tokio::select! {
                () = self.stop.cancelled() => return,
                _ = sweep.tick() => self.sweep().await,
                _ = prune.tick() => self.prune().await,
            };
            if let Err(failure) = result {
                tracing::warn!(reason = %failure.reason, detail = failure.detail, "a chore failed");
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
        for sender in &self.pipeline.senders {
            let name = sender.name();
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
