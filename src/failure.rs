//! How things fail: the closed set of reasons, the two kinds of failure, and the retry schedule.
//!
//! A processor says what went wrong; the loop in `worker.rs` decides when to try again.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::Deserialize;
use serde::Serialize;

/// Why something failed: the same words in metrics, timeline and dead letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// Credentials were refused.
    Auth,
    /// Too many in too short a time.
    Rate,
    /// The other side will never take it: unknown recipient, forbidden content.
    Rejected,
    /// The other side failed.
    Server,
    /// It took too long.
    Timeout,
    /// The name did not resolve.
    Dns,
    /// No connection could be made or kept.
    Network,
    /// The message breaks its schema or a rule.
    Invalid,
    /// A producer on the queue that cannot be told who it is.
    Unidentified,
    /// No address for this person.
    NoAddress,
    /// The person switched it off, or a filter excludes it.
    Muted,
    /// A later submission of the same scope came first.
    Superseded,
    /// The processor panicked or broke its contract.
    Panic,
    /// The broker returned it too often: it kills whoever takes it.
    DeliveryLimit,
    /// Configuration is missing or wrong.
    Config,
    /// Something of our own, described in the detail.
    Internal,
}

impl Reason {
    /// All of them, for `--reason` and the schema.
    pub const ALL: [Self; 16] = [
        Self::Auth,
        Self::Rate,
        Self::Rejected,
        Self::Server,
        Self::Timeout,
        Self::Dns,
        Self::Network,
        Self::Invalid,
        Self::Unidentified,
        Self::NoAddress,
        Self::Muted,
        Self::Superseded,
        Self::Panic,
        Self::DeliveryLimit,
        Self::Config,
        Self::Internal,
    ];

    /// The word on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auth => "auth",
            Self::Rate => "rate",
            Self::Rejected => "rejected",
            Self::Server => "server",
            Self::Timeout => "timeout",
            Self::Dns => "dns",
            Self::Network => "network",
            Self::Invalid => "invalid",
            Self::Unidentified => "unidentified",
            Self::NoAddress => "no_address",
            Self::Muted => "muted",
            Self::Superseded => "superseded",
            Self::Panic => "panic",
            Self::DeliveryLimit => "delivery_limit",
            Self::Config => "config",
            Self::Internal => "internal",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Reason {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|one| one.as_str() == text)
            .ok_or_else(|| {
                let all: Vec<_> = Self::ALL.iter().map(|one| one.as_str()).collect();
                format!("`{text}` is not a reason; one of {}", all.join(", "))
            })
    }
}

/// What kind of failure it is, which decides what the loop does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Of this message, may pass: the retry schedule, counted. `after` is what the other side
    /// asked for; it is rounded up to a step of the schedule.
    Transient {
        /// The shortest wait the other side allows.
        after: Option<Duration>,
    },
    /// Of this message, will not pass: dead letter.
    Permanent,
    /// Of a dependency (store, catalog, broker, relay): nothing is counted, everything waits.
    Dependency,
}

/// A failure, with words for a person. Never holds a secret, an address or content.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}: {detail}")]
pub struct Failure {
    /// What to do about it.
    pub kind: Kind,
    /// The word for metrics and lists.
    pub reason: Reason,
    /// One sentence.
    pub detail: String,
}

impl Failure {
    /// May pass: try again by the schedule.
    pub fn transient(reason: Reason, detail: impl Into<String>) -> Self {
        Self {
            kind: Kind::Transient { after: None },
            reason,
            detail: detail.into(),
        }
    }

    /// May pass, and the other side said when.
    pub fn later(reason: Reason, after: Duration, detail: impl Into<String>) -> Self {
        Self {
            kind: Kind::Transient { after: Some(after) },
            reason,
            detail: detail.into(),
        }
    }

    /// Will not pass.
    pub fn permanent(reason: Reason, detail: impl Into<String>) -> Self {
        Self {
            kind: Kind::Permanent,
            reason,
            detail: detail.into(),
        }
    }

    /// Something everybody depends on is away.
    pub fn dependency(reason: Reason, detail: impl Into<String>) -> Self {
        Self {
            kind: Kind::Dependency,
            reason,
            detail: detail.into(),
        }
    }
}

/// The waits between attempts: one list in the configuration, a pure function here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetrySchedule(Vec<Duration>);

impl Default for RetrySchedule {
    /// 10 s, 1 min, 5 min, 30 min, 2 h, 6 h, 12 h, 24 h, 24 h: 2.9 days.
    fn default() -> Self {
        Self(
            [10, 60, 300, 1_800, 7_200, 21_600, 43_200, 86_400, 86_400]
                .map(Duration::from_secs)
                .to_vec(),
        )
    }
}

impl RetrySchedule {
    /// A schedule of these waits, at least one, each at least a millisecond.
    ///
    /// # Errors
    /// Says what is wrong with the list.
    pub fn new(waits: Vec<Duration>) -> Result<Self, String> {
        if waits.is_empty() {
            return Err("needs at least one wait, as in [10s, 1m, 5m]".to_owned());
        }
        if waits.iter().any(|wait| wait.as_millis() == 0) {
            return Err("every wait must be longer than zero".to_owned());
        }
        Ok(Self(waits))
    }

    /// How many times something is tried in all.
    pub fn attempts(&self) -> u32 {
        u32::try_from(self.0.len())
            .unwrap_or(u32::MAX)
            .saturating_add(1)
    }

    /// The wait after attempt `attempt` (the first is 1); `None` when it was the last. A longer
    /// wait that the other side asked for is rounded up to a step, or is the longest step.
    pub fn wait_after(&self, attempt: u32, asked: Option<Duration>) -> Option<Duration> {
        let index = usize::try_from(attempt.max(1) - 1).ok()?;
        let planned = *self.0.get(index)?;
        Some(match asked {
            Some(asked) if planned < asked => self.step(asked),
            _ => planned,
        })
    }

    /// The shortest step that is not shorter than `wait`; the longest if none is.
    pub fn step(&self, wait: Duration) -> Duration {
        let steps = self.steps();
        let longest = steps.last().copied().unwrap_or(wait);
        steps
            .into_iter()
            .find(|step| wait <= *step)
            .unwrap_or(longest)
    }

    /// The distinct waits, shortest first: one wait queue each.
    pub fn steps(&self) -> Vec<Duration> {
        let mut steps = self.0.clone();
        steps.sort_unstable();
        steps.dedup();
        steps
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schedule_ends_and_a_wait_that_was_asked_for_is_rounded_up_to_a_step() {
        let s = Duration::from_secs;
        let schedule = RetrySchedule::new(vec![s(10), s(60), s(60)]).unwrap();
        assert_eq!(schedule.attempts(), 4);
        assert_eq!(schedule.wait_after(1, None), Some(s(10)));
        assert_eq!(schedule.wait_after(1, Some(s(11))), Some(s(60)));
        assert_eq!(schedule.wait_after(1, Some(s(3600))), Some(s(60)));
        assert_eq!(schedule.wait_after(2, Some(s(1))), Some(s(60)));
        assert_eq!(schedule.wait_after(4, None), None);
        assert_eq!(schedule.steps(), [s(10), s(60)]);
        assert!(RetrySchedule::new(vec![]).is_err());
    }

    #[test]
    fn every_reason_reads_back_from_its_word() {
        for reason in Reason::ALL {
            assert_eq!(reason.as_str().parse(), Ok(reason));
            assert_eq!(serde_json::to_value(reason).unwrap(), reason.as_str());
        }
    }
}
