//! The open pages of this process, and what tells them.
//!
//! A page is known by every ref that its person acts for. What it is told waits in a bounded
//! buffer; all pages share the bytes of one signal. One timer asks all of them whether they live.

use std::collections::BTreeSet;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;

use axum::extract::ws::Utf8Bytes;
use serde_json::json;
use tokio::sync::Notify;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::queue::Announcement;
use crate::queue::Queue;
use crate::signal::Signal;
use crate::signal::SignalRecipients;
use crate::telemetry::metric;

/// What may wait for one page before it loses its place.
pub(super) const PAGE_BUFFER: usize = 256;

/// Most pages of one person in this process; more are refused until some are closed.
pub(super) const PAGES_PER_PERSON_MAX: usize = 256;

/// Between two questions to every page whether it lives. Source: the peer.
const TICK_EVERY: Duration = Duration::from_secs(30);

/// How long to wait before listening is tried again.
const RELISTEN_AFTER: Duration = Duration::from_secs(1);

/// How long a shutdown waits for pages to say goodbye.
const GOODBYE: Duration = Duration::from_secs(2);

/// What a page is told; cheap to clone.
#[derive(Clone, Debug)]
pub(super) enum Beat {
    /// A signal that concerns it.
    Signal(Arc<News>),
    /// Does it live?
    Tick,
}

/// A signal as pages get it.
#[derive(Debug)]
pub(super) struct News {
    pub(super) channel: String,
    /// The message alone, for the stream.
    pub(super) message: String,
    /// `{"channel","message"}`, for the socket.
    pub(super) envelope: Utf8Bytes,
}

/// Why a page cannot be opened now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// This process is about to end.
    Closed,
    /// This person has too many open.
    TooMany,
}

/// Every open page of this process. Clones share everything.
#[derive(Clone, Debug, Default)]
pub struct Hub(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    pages: Mutex<Pages>,
    /// A page has gone.
    gone: Notify,
}

#[derive(Debug, Default)]
struct Pages {
    next: u64,
    open: HashMap<u64, Open>,
    by_ref: HashMap<Arc<str>, BTreeSet<u64>>,
    /// Pages that somebody holds, also those that have lost their place.
    held: usize,
    closed: bool,
}

#[derive(Debug)]
struct Open {
    refs: Vec<Arc<str>>,
    to: mpsc::Sender<Beat>,
}

impl Hub {
    /// Hands announced signals to the pages they concern, until `shutdown`; then every page is
    /// let go, and gets a moment to say goodbye.
    pub async fn run(self, queue: Arc<dyn Queue>, shutdown: CancellationToken) {
        let listen = async {
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
        tokio::select! {
            () = listen => {}
            () = self.keep_asking() => {}
            () = shutdown.cancelled() => {}
        }
        self.pages().closed = true;
        self.let_go();
        // Who does not go in time is cut with the process.
        let _ = tokio::time::timeout(GOODBYE, self.until_empty()).await;
    }

    async fn keep_asking(&self) {
        let mut tick = tokio::time::interval_at(Instant::now() + TICK_EVERY, TICK_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            self.tick();
        }
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
        let beat = Beat::Signal(Arc::new(News {
            channel: signal.channel.clone(),
            message: signal.message.to_string(),
            envelope: envelope.to_string().into(),
        }));
        let mut pages = self.pages();
        match &signal.recipients {
            SignalRecipients::Broadcast => pages.tell_all(&beat),
            SignalRecipients::User { refs } => {
                let concerned: BTreeSet<u64> = refs
                    .iter()
                    .filter_map(|one| pages.by_ref.get(one.as_str()))
                    .flatten()
                    .copied()
                    .collect();
                pages.tell(concerned, &beat);
            }
        }
    }

    /// Asks every page whether it lives.
    pub(super) fn tick(&self) {
        self.pages().tell_all(&Beat::Tick);
    }

    /// Opens a page of `person`. Its receiver ends when it may have missed something, and at
    /// shutdown.
    pub(super) fn open(&self, person: &str) -> Result<Page, Refused> {
        let mut pages = self.pages();
        if pages.closed {
            return Err(Refused::Closed);
        }
        let theirs = pages.by_ref.get(person).map_or(0, BTreeSet::len);
        if PAGES_PER_PERSON_MAX <= theirs {
            return Err(Refused::TooMany);
        }
        let (to, beats) = mpsc::channel(PAGE_BUFFER);
        let id = pages.next;
        pages.next += 1;
        pages.held += 1;
        pages.open.insert(
            id,
            Open {
                refs: Vec::new(),
                to,
            },
        );
        pages.own(id, person);
        metrics::gauge!(metric::STREAMS).increment(1);
        Ok(Page {
            hub: self.clone(),
            id,
            beats,
        })
    }

    /// Ends every page: each may have missed something.
    fn let_go(&self) {
        let mut pages = self.pages();
        pages.open = HashMap::new();
        pages.by_ref = HashMap::new();
    }

    /// Whether this process is about to end.
    pub(super) fn is_closed(&self) -> bool {
        self.pages().closed
    }

    /// How many pages hear what is for `reference`.
    #[cfg(test)]
    pub(super) fn pages_of(&self, reference: &str) -> usize {
        self.pages().by_ref.get(reference).map_or(0, BTreeSet::len)
    }

    async fn until_empty(&self) {
        loop {
            let gone = self.0.gone.notified();
            if self.pages().held == 0 {
                return;
            }
            gone.await;
        }
    }

    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.0.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pages {
    fn tell_all(&mut self, beat: &Beat) {
        self.tell(self.open.keys().copied().collect::<Vec<_>>(), beat);
    }

    /// Tells these pages; one whose buffer is full loses its place.
    fn tell(&mut self, concerned: impl IntoIterator<Item = u64>, beat: &Beat) {
        for id in concerned {
            let told = self
                .open
                .get(&id)
                .is_some_and(|page| page.to.try_send(beat.clone()).is_ok());
            if !told {
                self.remove(id);
            }
        }
    }

    /// The page hears from now on what is for `reference`, too.
    fn own(&mut self, id: u64, reference: &str) {
        let Some(page) = self.open.get_mut(&id) else {
            return;
        };
        // Pages of one group share its name.
        let name = match self.by_ref.get_key_value(reference) {
            Some((name, _)) => Arc::clone(name),
            None => Arc::from(reference),
        };
        if self.by_ref.entry(Arc::clone(&name)).or_default().insert(id) {
            page.refs.push(name);
        }
    }

    fn remove(&mut self, id: u64) {
        let Some(page) = self.open.remove(&id) else {
            return;
        };
        for reference in page.refs {
            if let Some(set) = self.by_ref.get_mut(&reference) {
                set.remove(&id);
                if set.is_empty() {
                    self.by_ref.remove(&reference);
                }
            }
        }
    }
}

/// An open page; dropping it closes it.
pub(super) struct Page {
    pub(super) hub: Hub,
    id: u64,
    pub(super) beats: mpsc::Receiver<Beat>,
}

impl Page {
    /// What is for one of `refs` concerns this page too, from now on.
    pub(super) fn own(&self, refs: &[String]) {
        let mut pages = self.hub.pages();
        for reference in refs {
            pages.own(self.id, reference);
        }
        if let Some(page) = pages.open.get_mut(&self.id) {
            page.refs.shrink_to_fit();
        }
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        let mut pages = self.hub.pages();
        pages.remove(self.id);
        pages.held = pages.held.saturating_sub(1);
        drop(pages);
        self.hub.0.gone.notify_one();
        metrics::gauge!(metric::STREAMS).decrement(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    const GUEST: &str = "user:default/guest";

    async fn heard(page: &mut Page) -> Option<Arc<News>> {
        match page.beats.recv().await {
            Some(Beat::Signal(news)) => Some(news),
            Some(Beat::Tick) => panic!("nobody asked"),
            None => None,
        }
    }

    fn to(refs: &[&str]) -> Signal {
        Signal {
            recipients: SignalRecipients::User {
                refs: refs.iter().map(|one| (*one).to_owned()).collect(),
            },
            ..Signal::new_notification(None, Uuid::nil())
        }
    }

    #[tokio::test]
    async fn a_signal_reaches_the_pages_it_concerns_and_no_other() {
        let hub = Hub::default();
        let mut guest = hub.open(GUEST).unwrap();
        let mut other = hub.open("user:default/other").unwrap();
        hub.tell(&Signal::new_notification(Some(GUEST), Uuid::nil()));
        let news = heard(&mut guest).await.unwrap();
        assert_eq!(news.channel, "notifications");
        assert!(news.envelope.as_str().contains("new_notification"));
        assert!(other.beats.try_recv().is_err());
        hub.tell(&Signal::new_notification(None, Uuid::nil()));
        assert!(heard(&mut guest).await.is_some());
        assert!(heard(&mut other).await.is_some());
    }

    #[tokio::test]
    async fn a_page_hears_what_is_for_any_of_its_refs_once_and_refs_match_exactly() {
        let hub = Hub::default();
        let mut page = hub.open(GUEST).unwrap();
        hub.tell(&to(&["group:default/payments"]));
        assert!(page.beats.try_recv().is_err());
        page.own(&[
            GUEST.into(),
            "group:default/payments".into(),
            "group:default/all".into(),
        ]);
        hub.tell(&to(&["group:default/payments"]));
        assert!(heard(&mut page).await.is_some());
        hub.tell(&to(&["group:default/payments", "group:default/all", GUEST]));
        assert!(heard(&mut page).await.is_some());
        hub.tell(&to(&["Group:default/payments", "group:default/pay"]));
        assert!(page.beats.try_recv().is_err());
        drop(page);
        assert!(hub.pages().by_ref.is_empty());
    }

    #[tokio::test]
    async fn a_page_that_does_not_read_loses_its_place_alone() {
        let hub = Hub::default();
        let mut lazy = hub.open(GUEST).unwrap();
        for _ in 0..=PAGE_BUFFER {
            hub.tell(&Signal::new_notification(Some(GUEST), Uuid::nil()));
        }
        let mut fresh = hub.open(GUEST).unwrap();
        hub.tell(&Signal::new_notification(Some(GUEST), Uuid::nil()));
        assert!(heard(&mut fresh).await.is_some());
        let mut read = 0;
        while heard(&mut lazy).await.is_some() {
            read += 1;
        }
        assert_eq!(read, PAGE_BUFFER);
    }

    #[tokio::test]
    async fn lost_signals_end_every_page_and_closed_pages_leave_nothing_behind() {
        let hub = Hub::default();
        let mut page = hub.open(GUEST).unwrap();
        hub.hear(Announcement::Lost);
        assert!(heard(&mut page).await.is_none());
        // Its person's refs may come late: they lead nowhere.
        page.own(&["group:default/late".into()]);
        let again = hub.open(GUEST).unwrap();
        drop((again, page));
        let pages = hub.pages();
        assert!(pages.open.is_empty() && pages.by_ref.is_empty() && pages.held == 0);
    }

    #[test]
    fn one_person_cannot_take_all_the_room() {
        let hub = Hub::default();
        let mut open: Vec<Page> = (0..PAGES_PER_PERSON_MAX)
            .map(|_| hub.open(GUEST).unwrap())
            .collect();
        assert_eq!(hub.open(GUEST).err(), Some(Refused::TooMany));
        assert!(hub.open("user:default/other").is_ok());
        open.pop();
        assert!(hub.open(GUEST).is_ok());
    }

    #[tokio::test]
    async fn a_shutdown_waits_for_pages_to_say_goodbye_and_lets_no_more_in() {
        let hub = Hub::default();
        let mut page = hub.open(GUEST).unwrap();
        hub.pages().closed = true;
        hub.let_go();
        assert!(heard(&mut page).await.is_none());
        assert_eq!(hub.open(GUEST).err(), Some(Refused::Closed));
        let empty = tokio::spawn({
            let hub = hub.clone();
            async move { hub.until_empty().await }
        });
        tokio::task::yield_now().await;
        assert!(!empty.is_finished());
        drop(page);
        empty.await.unwrap();
    }
}
