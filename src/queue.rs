//! The queue: how bytes wait, durably, between one role and the next.
//!
//! It has never heard of notifications. Both back ends promise only what both keep:
//!
//! - what follows from a message is durable before the message is gone; after a crash both may
//!   exist, so work must be repeatable;
//! - order is not kept;
//! - a delayed message never comes earlier than asked, and at most one step of the schedule later;
//! - [`Queue::announce`] and [`Queue::answer`] may be lost, and never fail the work.

#[cfg(feature = "rabbitmq")]
pub mod rabbitmq;
#[cfg(feature = "sqlite")]
pub mod sqlite;

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::mpsc;

use crate::failure::Failure;
use crate::failure::Reason;
use crate::time::Timestamp;

/// Headers of a message: text to text.
pub type Headers = BTreeMap<String, String>;

/// Header: how often this message was tried and put back by us (not by the broker).
pub const HEADER_TRIES: &str = "tidings-tries";
/// Header of a dead letter: the queue where it died.
pub const HEADER_STAGE: &str = "tidings-stage";
/// Header of a dead letter: a [`Reason`].
pub const HEADER_REASON: &str = "tidings-reason";
/// Header of a dead letter: one sentence.
pub const HEADER_DETAIL: &str = "tidings-detail";
/// Header of a message that came through the producers' exchange: the broker user that published
/// it, as the broker vouches for it, or empty where it named none. The back end sets it on every
/// message from that exchange, whatever the producer wrote there, and on no other.
pub const HEADER_PRODUCER: &str = "tidings-producer";
/// Header of a message that was put back from the dead letters: how often.
pub const HEADER_REPLAYS: &str = "tidings-replays";

/// Header of a filed dead letter: the id it was published under, so that a producer's key is the
/// same when it is put back.
pub const HEADER_MESSAGE: &str = "tidings-message";

/// Most bytes of [`HEADER_DETAIL`]. All headers of a message share one frame with its properties
/// (128 KiB by default); a message that does not fit in could never be published, nor given up.
pub const DETAIL_BYTES_MAX: usize = 2 << 10;

/// The queue where dead letters wait to be filed.
pub const DEAD: &str = "dead";

/// After so many returns (crash, cut connection, drain) a message is parked among the dead.
/// Source: RabbitMQ, "Poison Message Handling" of quorum queues.
pub const DELIVERY_LIMIT: u32 = 20;

/// A message that came back this often is handled alone, so that a killer takes no company.
pub const ALONE_AFTER_RETURNS: u32 = 3;

/// Where an answer is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplyTo {
    /// The reply queue.
    pub address: String,
    /// Handed back with the answer.
    pub correlation: String,
}

/// A message to be published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The queue it is for, without the prefix.
    pub key: String,
    /// For people and logs; need not be unique.
    pub id: String,
    /// Carried along.
    pub headers: Headers,
    /// Opaque to the queue.
    pub body: Bytes,
    /// Not before this much later; rounded up to a step of the schedule.
    pub delay: Option<Duration>,
    /// The longest it lies on its queue before the broker hands it to where that queue's dead go.
    /// On RabbitMQ alone: only there are workers that may be missing.
    pub expires: Option<Duration>,
    /// Who wants to hear what came of it.
    pub reply: Option<ReplyTo>,
}

impl Message {
    /// A message for `key`, at once, with no headers.
    pub fn new(key: impl Into<String>, id: impl Into<String>, body: impl Into<Bytes>) -> Self {
        Self {
            key: key.into(),
            id: id.into(),
            headers: Headers::new(),
            body: body.into(),
            delay: None,
            expires: None,
            reply: None,
        }
    }
}

/// A message in hand. It is ended by one of its verbs, which consume it: nothing can be
/// acknowledged twice.
#[derive(Debug)]
pub struct Received {
    /// The queue it came from, without the prefix.
    pub key: String,
    /// As published.
    pub id: String,
    /// As published, plus what the broker knows of a dead letter.
    pub headers: Headers,
    /// As published.
    pub body: Bytes,
    /// Who wants an answer.
    pub reply: Option<ReplyTo>,
    /// How often the broker handed it out before.
    pub returns: u32,
    receipt: Receipt,
}

/// What a back end needs to acknowledge a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Receipt {
    /// Which lane of the consumer.
    pub lane: usize,
    /// The broker's tag, or the row.
    pub tag: u64,
}

/// A message that is dealt with: what follows is to be published, then it is to be acknowledged.
#[derive(Debug)]
pub struct Ended {
    /// For the back end.
    pub receipt: Receipt,
    /// Durable before the message is gone.
    pub next: Vec<Message>,
}

impl Received {
    /// For back ends: a message as it came.
    pub fn new(message: Message, receipt: Receipt, returns: u32) -> Self {
        Self {
            key: message.key,
            id: message.id,
            headers: message.headers,
            body: message.body,
            reply: message.reply,
            returns,
            receipt,
        }
    }

    /// The broker user of a producer on the queue; empty when it named none. `None`: it came from
    /// one of our own processes.
    pub fn producer(&self) -> Option<&str> {
        self.headers.get(HEADER_PRODUCER).map(String::as_str)
    }

    /// How often it was tried and put back by us.
    pub fn tries(&self) -> u32 {
        self.headers
            .get(HEADER_TRIES)
            .and_then(|tries| tries.parse().ok())
            .unwrap_or(0)
    }

    /// Done; `next` follows from it.
    pub fn complete(self, next: Vec<Message>) -> Ended {
        Ended {
            receipt: self.receipt,
            next,
        }
    }

    /// Again, not earlier than `after`; counted as a try.
    pub fn retry(mut self, after: Duration) -> Ended {
        let tries = self.tries() + 1;
        self.headers
            .insert(HEADER_TRIES.to_owned(), tries.to_string());
        self.wait(after)
    }

    /// Again, not earlier than `after`; not counted.
    pub fn wait(self, after: Duration) -> Ended {
        let receipt = self.receipt;
        let mut again = self.into_message();
        again.delay = Some(after);
        Ended {
            receipt,
            next: vec![again],
        }
    }

    /// Never again: to the dead letters, with its post-mortem in the headers.
    pub fn dead_letter(self, reason: Reason, detail: &str) -> Ended {
        let receipt = self.receipt;
        let tries = self.tries() + 1;
        let mut dead = self.into_message();
        dead.headers.insert(
            HEADER_STAGE.to_owned(),
            std::mem::replace(&mut dead.key, DEAD.to_owned()),
        );
        dead.headers
            .insert(HEADER_REASON.to_owned(), reason.as_str().to_owned());
        dead.headers
            .insert(HEADER_DETAIL.to_owned(), cut(detail, DETAIL_BYTES_MAX));
        dead.headers
            .insert(HEADER_TRIES.to_owned(), tries.to_string());
        dead.reply = None;
        Ended {
            receipt,
            next: vec![dead],
        }
    }

    fn into_message(self) -> Message {
        Message {
            key: self.key,
            id: self.id,
            headers: self.headers,
            body: self.body,
            delay: None,
            expires: None,
            reply: self.reply,
        }
    }
}

/// The beginning of a text that is longer than `limit` bytes, with a mark that it goes on.
fn cut(text: &str, limit: usize) -> String {
    if text.len() <= limit {
        return text.to_owned();
    }
    let mut end = limit.saturating_sub('…'.len_utf8());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}…", &text[..end])
}

/// Why the queue did not do what it was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum QueueError {
    /// The broker is away, or blocks publishers. Try again.
    #[error("the queue is not reachable: {0}")]
    Unavailable(String),
    /// The broker refused a message: its queue is full. Try later.
    #[error("queue `{key}` takes no more: {detail}")]
    Full {
        /// The queue.
        key: String,
        /// What the broker said.
        detail: String,
    },
    /// The topology is not as it must be, or a right is missing. An operator must act.
    #[error("{0}")]
    Topology(String),
}

impl From<QueueError> for Failure {
    fn from(error: QueueError) -> Self {
        Self::dependency(Reason::Network, error.to_string())
    }
}

/// What there is to know about a queue from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Depth {
    /// The queue, without the prefix.
    pub key: String,
    /// Messages waiting, not in anybody's hands.
    pub ready: u64,
    /// Consumers on it, where the back end can tell.
    pub consumers: u64,
    /// When the oldest waiting message was published, where the back end can tell.
    pub oldest: Option<Timestamp>,
}

/// What an inbox process hears on the signals exchange.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Announcement {
    /// A body that somebody announced.
    Body(Bytes),
    /// Some may have been missed: pages must reload.
    Lost,
}

/// A process's own reply queue.
#[derive(Debug)]
pub struct Replies {
    /// What to put into [`ReplyTo::address`]; changes when the connection is made anew.
    pub address: tokio::sync::watch::Receiver<String>,
    /// Correlation and body of each answer.
    pub inbox: mpsc::Receiver<(String, Bytes)>,
}

/// The door to the broker. Cheap to share behind an `Arc`.
#[async_trait]
pub trait Queue: Send + Sync + 'static {
    /// Publishes work: returns once every message is durable. On an error none, some or all may
    /// have been published; repeating is the caller's right and duty.
    async fn publish(&self, messages: Vec<Message>) -> Result<(), QueueError>;

    /// Tells every listening process; may be lost.
    async fn announce(&self, body: Bytes);

    /// Answers a [`ReplyTo`]; may be lost.
    async fn answer(&self, to: &ReplyTo, body: Bytes);

    /// Consumes `lanes`, each a queue; while several have work, the first gets four messages for
    /// every one of the others.
    async fn consumer(&self, lanes: Vec<String>) -> Result<Box<dyn Consumer>, QueueError>;

    /// Hears what is announced from now on, until the receiver is dropped.
    async fn announcements(&self) -> Result<mpsc::Receiver<Announcement>, QueueError>;

    /// Opens this process's reply queue.
    async fn replies(&self) -> Result<Replies, QueueError>;

    /// Every work queue that exists, by name.
    async fn depths(&self) -> Result<Vec<Depth>, QueueError>;

    /// Whether publishing and consuming would work now; says what is missing. For `/readyz`.
    async fn ready(&self) -> Result<(), QueueError>;

    /// Empties `key` and says how many messages were dropped. For tests and operators.
    async fn purge(&self, key: &str) -> Result<u64, QueueError>;
}

/// A stream of messages. Dropping it gives back what is in hand.
#[async_trait]
pub trait Consumer: Send {
    /// Waits for a message, then takes what is there: up to `max`, or what comes within 2 ms of
    /// the first. A lone message does not wait for company. Cancel-safe.
    async fn take(&mut self, max: usize) -> Result<Vec<Received>, QueueError>;

    /// Publishes what follows in one confirm window, then acknowledges.
    async fn finish(&mut self, ended: Vec<Ended>) -> Result<(), QueueError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_letter_never_outgrows_the_frame_of_its_headers() {
        let receipt = Receipt { lane: 0, tag: 1 };
        let message = Message::new("chunks", "one", "{}");
        let received = Received::new(message, receipt, 0);
        let ended = received.dead_letter(Reason::Invalid, &"é".repeat(1 << 20));
        let detail = &ended.next[0].headers[HEADER_DETAIL];
        assert!(
            detail.len() <= DETAIL_BYTES_MAX && detail.ends_with("é…"),
            "{detail}"
        );
        assert_eq!(cut("short", DETAIL_BYTES_MAX), "short");
    }
}
