//! Callers who wait for what became of their submission, and the reply queue that tells them.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::queue::Queue;
use crate::queue::Replies;
use crate::queue::ReplyTo;
use crate::reply::Reply;

/// How long to wait before the reply queue is opened again.
const REOPEN_AFTER: Duration = Duration::from_secs(1);

/// Hands replies to those who wait for them. Clones share everything. While it is not running,
/// or the queue is away, nobody can wait, and callers are answered at once.
#[derive(Clone, Default)]
pub struct Waiter(Arc<Inner>);

#[derive(Default)]
struct Inner {
    /// Our reply queue, while there is one.
    address: Mutex<Option<String>>,
    /// Who waits, by correlation.
    waiting: Mutex<HashMap<String, oneshot::Sender<Bytes>>>,
    /// Makes correlations distinct: two requests under one key wait for the same submission.
    next: AtomicU64,
}

impl fmt::Debug for Waiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Waiter")
    }
}

impl Waiter {
    /// Keeps a reply queue open and hands out what comes, until `shutdown`.
    pub async fn run(self, queue: Arc<dyn Queue>, shutdown: CancellationToken) {
        let work = async {
            loop {
                match queue.replies().await {
                    Ok(replies) => self.hand_out(replies).await,
                    Err(error) => tracing::warn!(%error, "no reply queue; callers cannot wait"),
                }
                self.move_to(None);
                tokio::time::sleep(REOPEN_AFTER).await;
            }
        };
        shutdown.run_until_cancelled(work).await;
    }

    /// Whether callers can wait now.
    pub fn is_open(&self) -> bool {
        self.address().is_some()
    }

    /// Until the reply queue is gone.
    async fn hand_out(&self, mut replies: Replies) {
        let first = replies.address.borrow_and_update().clone();
        self.move_to(Some(first));
        loop {
            tokio::select! {
                changed = replies.address.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let address = replies.address.borrow_and_update().clone();
                    self.move_to(Some(address));
                }
                reply = replies.inbox.recv() => {
                    let Some((correlation, body)) = reply else {
                        return;
                    };
                    let waiting = self.waiting().remove(&correlation);
                    // Whoever has stopped waiting does not want it.
                    let _ = waiting.map(|waiting| waiting.send(body));
                }
            }
        }
    }

    /// A place among those who wait, if replies can come.
    pub(super) fn ticket(&self, submission: Uuid) -> Option<Ticket> {
        let address = self.address().clone().filter(|name| !name.is_empty())?;
        let number = self.0.next.fetch_add(1, Ordering::Relaxed);
        let correlation = format!("{submission}.{number}");
        let (sender, reply) = oneshot::channel();
        self.waiting().insert(correlation.clone(), sender);
        let reply_to = ReplyTo {
            address,
            correlation,
        };
        Some(Ticket {
            waiter: self.clone(),
            reply_to,
            reply,
        })
    }

    fn move_to(&self, address: Option<String>) {
        *self.address() = address;
    }

    fn address(&self) -> std::sync::MutexGuard<'_, Option<String>> {
        self.0
            .address
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, HashMap<String, oneshot::Sender<Bytes>>> {
        self.0
            .waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// One caller who waits; dropping it gives the place up.
pub(super) struct Ticket {
    waiter: Waiter,
    reply_to: ReplyTo,
    reply: oneshot::Receiver<Bytes>,
}

impl Ticket {
    pub(super) fn reply_to(&self) -> ReplyTo {
        self.reply_to.clone()
    }

    /// The reply, if it comes within `wait`.
    pub(super) async fn wait(mut self, wait: Duration) -> Option<Reply> {
        let body = tokio::time::timeout(wait, &mut self.reply)
            .await
            .ok()?
            .ok()?;
        serde_json::from_slice(&body)
            .inspect_err(|error| tracing::warn!(%error, "a reply that cannot be read"))
            .ok()
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.waiter.waiting().remove(&self.reply_to.correlation);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::mpsc;
    use tokio::sync::watch;

    #[tokio::test]
    async fn two_who_wait_for_one_submission_both_hear_and_leave_nothing_behind() {
        let waiter = Waiter::default();
        let id = Uuid::from_u128(1);
        assert!(waiter.ticket(id).is_none(), "nobody listens yet");
        let (address, watched) = watch::channel("r1".to_owned());
        let (sender, inbox) = mpsc::channel(4);
        let replies = Replies {
            address: watched,
            inbox,
        };
        let running = tokio::spawn({
            let waiter = waiter.clone();
            async move { waiter.hand_out(replies).await }
        });
        while waiter.address().is_none() {
            tokio::task::yield_now().await;
        }
        let tickets = [waiter.ticket(id).unwrap(), waiter.ticket(id).unwrap()];
        let unheard = waiter.ticket(id).unwrap();
        for ticket in &tickets {
            assert_eq!(ticket.reply_to().address, "r1");
            let body = serde_json::to_vec(&Reply::accepted(id)).unwrap();
            let answer = (ticket.reply_to().correlation, body.into());
            sender.send(answer).await.unwrap();
        }
        for ticket in tickets {
            let reply = ticket.wait(Duration::from_secs(5)).await;
            assert_eq!(reply, Some(Reply::accepted(id)));
        }
        assert_eq!(unheard.wait(Duration::from_millis(1)).await, None);
        assert!(waiter.waiting().is_empty());
        drop((address, sender));
        running.await.unwrap();
    }
}
