//! The names of the queues, and which of them a configuration needs.
//!
//! Names here have no prefix; `queue/rabbitmq.rs` puts `tidings.queue.prefix` before each.

use crate::queue::DEAD;

/// Where producers' submissions arrive.
pub const SUBMISSIONS: &str = "submissions";
/// The slow lane of submissions: origins above their share.
pub const SUBMISSIONS_BULK: &str = "submissions.bulk";
/// Parts of large audiences, and what foreign decorators hand back.
pub const CHUNKS: &str = "chunks";

/// What foreign senders report.
pub const ATTEMPTS: &str = "attempts";

/// What the queue of a foreign decorator begins with.
const DECORATE: &str = "decorate.";

/// Audiences over this many people take the slow lane.
pub const BULK_PEOPLE: usize = 100;

/// The queue of a sender, in one of its two lanes.
pub fn deliver(sender: &str, bulk: bool) -> String {
    if bulk {
        format!("deliver.{sender}.bulk")
    } else {
        format!("deliver.{sender}")
    }
}

/// The queue of a foreign decorator.
pub fn decorate(decorator: &str) -> String {
    format!("{DECORATE}{decorator}")
}

/// The decorator of such a queue.
pub fn decorator(key: &str) -> Option<&str> {
    key.strip_prefix(DECORATE)
}

/// A work queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueSpec {
    /// Its name, without the prefix.
    pub key: String,
    /// Producers write to it, so it may be full and say so. A limit on a queue that our own
    /// workers write to would deadlock them.
    pub limited: bool,
    /// Where what is rejected, returned too often or taken too late goes.
    pub after: &'static str,
}

impl QueueSpec {
    /// A queue that our own workers write to.
    pub fn of(key: &str) -> Self {
        Self {
            key: key.to_owned(),
            limited: false,
            after: if decorator(key).is_some() {
                CHUNKS
            } else {
                DEAD
            },
        }
    }
}

/// Every work queue for these senders.
pub fn queues(senders: &[String]) -> Vec<QueueSpec> {
    let fixed = [
        (SUBMISSIONS, true),
        (SUBMISSIONS_BULK, true),
        (CHUNKS, false),
        (ATTEMPTS, false),
        (DEAD, false),
    ];
    let mut all: Vec<QueueSpec> = fixed
        .into_iter()
        .map(|(key, limited)| QueueSpec {
            limited,
            ..QueueSpec::of(key)
        })
        .collect();
    for sender in senders {
        all.extend([false, true].map(|bulk| QueueSpec::of(&deliver(sender, bulk))));
    }
    all
}

/// The queues of foreign decorators. What such a worker misses goes on without it: our own
/// workers decide how.
pub fn decorate_queues<'a>(decorators: impl Iterator<Item = &'a str>) -> Vec<QueueSpec> {
    decorators
        .map(|name| QueueSpec::of(&decorate(name)))
        .collect()
}
