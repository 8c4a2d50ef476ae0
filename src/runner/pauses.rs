//! Which channels an operator has paused: what the store says, followed by every sender process.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::store::Store;

/// Between two looks: how long a channel may go on after it was paused, or rest after it was
/// resumed.
const EVERY: Duration = Duration::from_secs(1);

/// The switches of a process, by channel. Clones share them.
#[derive(Clone, Debug, Default)]
pub(super) struct Pauses(Arc<Mutex<BTreeMap<String, watch::Sender<bool>>>>);

impl Pauses {
    /// The switch of a channel: true while it is paused. Paused until the store was asked for the
    /// first time, since nothing may leave a paused channel when a process starts again.
    pub(super) fn switch(&self, channel: &str) -> watch::Receiver<bool> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.entry(channel.to_owned())
            .or_insert_with(|| watch::channel(true).0)
            .subscribe()
    }

    /// Follows the store. While it is away the switches stay as they are: nothing could be claimed
    /// anyway.
    pub(super) async fn follow(self, store: Arc<dyn Store>, stop: CancellationToken) {
        let mut tick = tokio::time::interval(EVERY);
        while stop.run_until_cancelled(tick.tick()).await.is_some() {
            match store.pauses().await {
                Ok(pauses) => self.set(pauses.into_iter().map(|one| one.channel).collect()),
                Err(error) => {
                    tracing::debug!(%error, "which channels are paused was not read");
                }
            }
        }
    }

    fn set(&self, paused: BTreeSet<String>) {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (channel, switch) in all.iter() {
            let now = paused.contains(channel);
            let changed = switch.send_if_modified(|before| {
                let changed = *before != now;
                *before = now;
                changed
            });
            if changed {
                let state = if now { "paused" } else { "on" };
                tracing::info!(channel, state, "the switch of a channel");
            }
        }
    }
}
