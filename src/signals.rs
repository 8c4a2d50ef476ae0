//! Signals to open pages: the peer's WebSocket, and a stream of server-sent events of our own.
//!
//! A hint only: REST is the truth. Whoever may have missed one is told to reload: its stream ends
//! with `reload`, its socket closes with 1012, and the page comes back. Every page has a bounded
//! buffer; one that does not read loses its place and nobody else's.

mod socket;
mod stream;

use std::collections::BTreeSet;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;

use axum::Router;
use axum::extract::ws::Utf8Bytes;
use axum::routing::any;
use axum::routing::get;
use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

pub use self::stream::events;

use crate::auth::Auth;
use crate::queue::Announcement;
use crate::queue::Queue;
use crate::signal::Signal;
use crate::signal::SignalRecipients;
use crate::telemetry::metric;

/// Signals that wait for one page before it loses its place.
const PAGE_BUFFER: usize = 256;

/// How long to wait before listening is tried again.
const RELISTEN_AFTER: Duration = Duration::from_secs(1);

/// A signal as pages get it; cheap to clone.
#[derive(Clone, Debug)]
struct Beat {
    channel: Arc<str>,
    /// The message alone, for the stream.
    message: Arc<str>,
    /// `{"channel","message"}`, for the socket.
    envelope: Utf8Bytes,
}

/// Every open page of this process. Clones share everything.
#[derive(Clone, Debug, Default)]
pub struct Hub(Arc<Mutex<Pages>>);

#[derive(Debug, Default)]
struct Pages {
    next: u64,
    /// What leads to each page, and the ref it belongs to.
    open: HashMap<u64, (String, mpsc::Sender<Beat>)>,
    by_ref: HashMap<String, BTreeSet<u64>>,
    closed: bool,
}

impl Hub {
    /// Hands announced signals to the pages they concern, until `shutdown`; then every page is
    /// let go.
    pub async fn run(self, queue: Arc<dyn Queue>, shutdown: CancellationToken) {
        let work = async {
            loop {
                match queue.announcements().await {
                    Ok(mut heard) => {
                        while let Some(announcement) = heard.recv().await {
                            self.hear(announcement);
                        }
                    }
                    Err(error) => tracing::warn!(%error, "pages cannot be told of news"),
                }
                self.let_go();
                tokio::time::sleep(RELISTEN_AFTER).await;
            }
        };
        shutdown.run_until_cancelled(work).await;
        self.pages().closed = true;
        self.let_go();
    }

    fn hear(&self, announcement: Announcement) {
        let body = match announcement {
            Announcement::Body(body) => body,
            Announcement::Lost => return self.let_go(),
        };
        match serde_json::from_slice::<Signal>(&body) {
            Ok(signal) => self.tell(&signal),
            Err(error) => tracing::warn!(%error, "a signal that cannot be read"),
        }
    }

    /// Hands a signal to the pages it concerns.
    pub fn tell(&self, signal: &Signal) {
        let envelope = json!({"channel": signal.channel, "message": signal.message});
        let beat = Beat {
            channel: Arc::from(signal.channel.as_str()),
            message: Arc::from(signal.message.to_string()),
            envelope: envelope.to_string().into(),
        };
        let mut pages = self.pages();
        let concerned: BTreeSet<u64> = match &signal.recipients {
            SignalRecipients::Broadcast => pages.open.keys().copied().collect(),
            SignalRecipients::User { refs } => refs
                .iter()
                .filter_map(|one| pages.by_ref.get(one))
                .flatten()
                .copied()
                .collect(),
        };
        for page in concerned {
            let told = pages
                .open
                .get(&page)
                .is_some_and(|(_, to)| to.try_send(beat.clone()).is_ok());
            if !told {
                pages.remove(page);
            }
        }
    }

    /// Opens a page of `reference`. Its receiver ends when it may have missed something, and at
    /// shutdown.
    fn open(&self, reference: &str) -> Page {
        let (sender, beats) = mpsc::channel(PAGE_BUFFER);
        let mut pages = self.pages();
        let id = pages.next;
        pages.next += 1;
        // After shutdown the sender is dropped here, which ends the page at once.
        if !pages.closed {
            let set = pages.by_ref.entry(reference.to_owned()).or_default();
            set.insert(id);
            pages.open.insert(id, (reference.to_owned(), sender));
        }
        metrics::gauge!(metric::STREAMS).increment(1);
        Page {
            hub: self.clone(),
            id,
            beats,
        }
    }

    /// Ends every page: each may have missed something.
    fn let_go(&self) {
        let mut pages = self.pages();
        pages.open.clear();
        pages.by_ref.clear();
    }

    fn is_closed(&self) -> bool {
        self.pages().closed
    }

    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pages {
    fn remove(&mut self, page: u64) {
        let Some((reference, _)) = self.open.remove(&page) else {
            return;
        };
        if let Some(set) = self.by_ref.get_mut(&reference) {
            set.remove(&page);
            if set.is_empty() {
                self.by_ref.remove(&reference);
            }
        }
    }
}

/// An open page; dropping it closes it.
struct Page {
    hub: Hub,
    id: u64,
    beats: mpsc::Receiver<Beat>,
}

impl Drop for Page {
    fn drop(&mut self) {
        self.hub.pages().remove(self.id);
        metrics::gauge!(metric::STREAMS).decrement(1);
    }
}

/// What the signal routes work with.
#[derive(Clone)]
struct Parts {
    hub: Hub,
    auth: Auth,
}

/// `/api/signals` as the peer has it, and `/api/tidings/v1/stream`.
pub fn routes(hub: Hub, auth: Auth) -> Router {
    Router::new()
        .route("/api/signals", any(socket::connect))
        .route("/api/signals/health", get(socket::healthy))
        .route("/api/tidings/v1/stream", get(stream::stream))
        .with_state(Parts { hub, auth })
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    const GUEST: &str = "user:default/guest";

    #[tokio::test]
    async fn a_signal_reaches_the_pages_it_concerns_and_no_other() {
        let hub = Hub::default();
        let mut guest = hub.open(GUEST);
        let mut other = hub.open("user:default/other");
        hub.tell(&Signal::new_notification(Some(GUEST), Uuid::nil()));
        let beat = guest.beats.recv().await.unwrap();
        assert_eq!(&*beat.channel, "notifications");
        assert!(beat.envelope.as_str().contains("new_notification"));
        assert!(other.beats.try_recv().is_err());
        hub.tell(&Signal::new_notification(None, Uuid::nil()));
        assert!(guest.beats.recv().await.is_some());
        assert!(other.beats.recv().await.is_some());
    }

    #[tokio::test]
    async fn a_page_that_does_not_read_loses_its_place_alone() {
        let hub = Hub::default();
        let mut lazy = hub.open(GUEST);
        for _ in 0..=PAGE_BUFFER {
            hub.tell(&Signal::new_notification(Some(GUEST), Uuid::nil()));
        }
        let mut fresh = hub.open(GUEST);
        hub.tell(&Signal::new_notification(Some(GUEST), Uuid::nil()));
        assert!(fresh.beats.recv().await.is_some());
        let mut read = 0;
        while lazy.beats.recv().await.is_some() {
            read += 1;
        }
        assert_eq!(read, PAGE_BUFFER);
    }

    #[tokio::test]
    async fn lost_signals_end_every_page_and_closed_pages_leave_nothing_behind() {
        let hub = Hub::default();
        let mut page = hub.open(GUEST);
        hub.hear(Announcement::Lost);
        assert!(page.beats.recv().await.is_none());
        let again = hub.open(GUEST);
        drop((again, page));
        assert!(hub.pages().open.is_empty() && hub.pages().by_ref.is_empty());
    }
}
