//! What never leaves the process: announcements to all who listen, and answers to those who asked.
//!
//! Both may be lost and neither ever waits: whoever reads too slowly misses some. The work goes on.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::PoisonError;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::sync::watch;
use uuid::Uuid;

use crate::queue::Announcement;
use crate::queue::Replies;
use crate::queue::ReplyTo;

/// Announcements that wait for one listener, as many as on RabbitMQ: a group of thousands is
/// announced in a moment, and must not send every page away.
const ANNOUNCEMENTS_WAITING_MAX: usize = 10_000;
/// Answers that wait for one asker.
const ANSWERS_WAITING_MAX: usize = 1_024;

/// All who hear announcements.
#[derive(Debug, Default)]
pub(super) struct Listeners(Mutex<Vec<Listener>>);

#[derive(Debug)]
struct Listener {
    to: mpsc::Sender<Announcement>,
    /// [`Announcement::Lost`] is the last that waits for it: what it misses now is covered.
    behind: bool,
}

impl Listeners {
    /// Another one, from now on, until it drops what it gets.
    pub(super) fn join(&self) -> mpsc::Receiver<Announcement> {
        // One place more: for the word that some were lost.
        let (to, heard) = mpsc::channel(ANNOUNCEMENTS_WAITING_MAX + 1);
        self.lock().push(Listener { to, behind: false });
        heard
    }

    /// Tells them all.
    pub(super) fn tell(&self, body: &Bytes) {
        self.lock().retain_mut(|listener| listener.tell(body));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Listener>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Listener {
    /// Tells this one; false once it is gone.
    fn tell(&mut self, body: &Bytes) -> bool {
        if self.to.is_closed() {
            return false;
        }
        if 1 < self.to.capacity() {
            self.behind = false;
            // Nobody else sends, so there is room; if it closed just now, the next round sees it.
            let _ = self.to.try_send(Announcement::Body(body.clone()));
        } else if !self.behind {
            self.behind = true;
            let _ = self.to.try_send(Announcement::Lost);
        }
        true
    }
}

/// The reply queues of this process, by address.
#[derive(Debug, Default)]
pub(super) struct Mailboxes(Mutex<HashMap<String, Mailbox>>);

#[derive(Debug)]
struct Mailbox {
    to: mpsc::Sender<(String, Bytes)>,
    /// Kept so that whoever watches the address sees it unchanged, not gone.
    _address: watch::Sender<String>,
}

impl Mailboxes {
    /// A new one, at an address that no process had before.
    pub(super) fn open(&self) -> Replies {
        let name = format!("reply.{}", Uuid::now_v7().simple());
        let (to, inbox) = mpsc::channel(ANSWERS_WAITING_MAX);
        let (_address, address) = watch::channel(name.clone());
        let mut boxes = self.lock();
        boxes.retain(|_, one| !one.to.is_closed());
        boxes.insert(name, Mailbox { to, _address });
        Replies { address, inbox }
    }

    /// Puts an answer into the box it is for, if there is one with room.
    pub(super) fn deliver(&self, to: &ReplyTo, body: Bytes) {
        if let Some(one) = self.lock().get(&to.address) {
            // Full or closed: an answer may be lost.
            let _ = one.to.try_send((to.correlation.clone(), body));
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Mailbox>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(n: usize) -> Bytes {
        Bytes::from(n.to_string())
    }

    #[test]
    fn a_slow_listener_hears_once_that_it_missed_some_and_then_goes_on() {
        let listeners = Listeners::default();
        let mut slow = listeners.join();
        for n in 0..ANNOUNCEMENTS_WAITING_MAX + 10 {
            listeners.tell(&body(n));
        }
        for n in 0..ANNOUNCEMENTS_WAITING_MAX {
            assert_eq!(slow.try_recv(), Ok(Announcement::Body(body(n))));
        }
        assert_eq!(slow.try_recv(), Ok(Announcement::Lost));
        assert!(slow.try_recv().is_err());

        listeners.tell(&body(7));
        assert_eq!(slow.try_recv(), Ok(Announcement::Body(body(7))));
        assert!(slow.try_recv().is_err());
    }

    #[test]
    fn a_slow_listener_holds_up_nobody_else() {
        let listeners = Listeners::default();
        let _slow = listeners.join();
        let mut quick = listeners.join();
        for n in 0..ANNOUNCEMENTS_WAITING_MAX * 2 {
            listeners.tell(&body(n));
            assert_eq!(quick.try_recv(), Ok(Announcement::Body(body(n))));
        }
    }

    #[test]
    fn who_no_longer_listens_is_forgotten() {
        let listeners = Listeners::default();
        drop(listeners.join());
        listeners.tell(&body(1));
        assert!(listeners.lock().is_empty());

        let mailboxes = Mailboxes::default();
        drop(mailboxes.open());
        let _open = mailboxes.open();
        assert_eq!(mailboxes.lock().len(), 1);
    }

    #[test]
    fn the_address_of_a_mailbox_does_not_change() {
        let mailboxes = Mailboxes::default();
        let replies = mailboxes.open();
        assert!(!replies.address.has_changed().unwrap());
    }
}
