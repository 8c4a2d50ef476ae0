//! What Tidings tells of itself: logs, metrics, and the events that the terminal shows.
//!
//! Logs and metrics carry ids, refs, counts and reasons, never title, text, link, metadata or
//! address. Events may carry a title, since they reach only the terminal of the person who
//! started `tidings up`.

use tokio::sync::broadcast;
use uuid::Uuid;

use crate::failure::Reason;

/// Something that happened to a notification, for the terminal.
#[derive(Clone, Debug)]
pub enum Event {
    /// A submission was accepted.
    Accepted {
        /// The submission.
        submission: Uuid,
        /// Its title.
        title: String,
        /// Who sent it.
        origin: String,
    },
    /// A chunk of it was stored.
    Stored {
        /// The submission.
        submission: Uuid,
        /// Inbox rows made or updated.
        people: u64,
        /// For everybody.
        broadcast: bool,
    },
    /// Nobody received it.
    NoRecipients {
        /// The submission.
        submission: Uuid,
        /// The refs that reached nobody.
        refs: Vec<String>,
    },
    /// A delivery was sent.
    Sent {
        /// The submission.
        submission: Uuid,
        /// The sender's name.
        channel: String,
        /// To whom, for a person to read.
        to: String,
        /// Where it lies, if that is known (the file of a mail).
        at: Option<String>,
    },
    /// Something failed; `next` says what happens now, `help` what to do.
    Failed {
        /// The submission, if it has one.
        submission: Option<Uuid>,
        /// The sender's name or the stage.
        stage: String,
        /// To whom, for a person to read.
        to: String,
        /// The word.
        reason: Reason,
        /// One sentence.
        detail: String,
        /// What happens now: "again in 10 s", "dead letter".
        next: String,
    },
}

/// The stream of events of this process. Nobody needs to listen.
#[derive(Clone, Debug)]
pub struct Events(broadcast::Sender<Event>);

impl Default for Events {
    fn default() -> Self {
        Self(broadcast::channel(1024).0)
    }
}

impl Events {
    /// Tells whoever listens.
    pub fn tell(&self, event: Event) {
        // No listener is the normal case: only a terminal listens.
        let _ = self.0.send(event);
    }

    /// Whether somebody listens, so that the words need not be made in vain.
    pub fn is_heard(&self) -> bool {
        self.0.receiver_count() > 0
    }

    /// Listens from now on.
    pub fn listen(&self) -> broadcast::Receiver<Event> {
        self.0.subscribe()
    }
}

/// Names of the metrics, with their labels. One list, so that dashboards and code agree.
pub mod metric {
    /// Counter, by `origin` and `outcome` (`accepted`, `repeated`, `invalid`, `refused`,
    /// `unavailable`, `no_recipients`).
    pub const SUBMISSIONS: &str = "tidings_submissions_total";
    /// Histogram of seconds, by `stage` (`accept`, `intake`, `persist`, `deliver.<channel>`).
    pub const STAGE_SECONDS: &str = "tidings_stage_seconds";
    /// Counter, by `channel`, `outcome` and `reason`.
    pub const DELIVERIES: &str = "tidings_deliveries_total";
    /// Gauge of seconds, by `queue`: the age of the oldest message that waits.
    pub const QUEUE_OLDEST_SECONDS: &str = "tidings_queue_oldest_seconds";
    /// Gauge, by `queue`: messages that wait.
    pub const QUEUE_READY: &str = "tidings_queue_ready";
    /// Counter, by `stage` and `reason`.
    pub const DEAD_LETTERS: &str = "tidings_dead_letters_total";
    /// Counter, by `decorator` and `outcome` (`kept`, `changed`, `dropped`, `failed`).
    pub const DECORATIONS: &str = "tidings_decorations_total";
    /// Counter: inbox rows, by `change`.
    pub const ROWS: &str = "tidings_inbox_rows_total";
    /// Gauge: open pages.
    pub const STREAMS: &str = "tidings_streams_open";
}
