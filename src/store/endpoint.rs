//! Endpoints that fail, and those that were disabled for it.

use std::time::Duration;

use serde::Deserialize;
use serde::Serialize;

use crate::failure::Reason;
use crate::time::Timestamp;

/// An endpoint that fails now, or was disabled. Of one that is well nothing is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointState {
    /// The sender's name.
    pub channel: String,
    /// The endpoint's.
    pub name: String,
    /// Of its configuration; another one is another endpoint.
    pub version: String,
    /// Since when nothing has come through.
    pub failing_since: Timestamp,
    /// When it failed last.
    pub failed_at: Timestamp,
    /// The word for how.
    pub reason: Reason,
    /// One sentence.
    pub detail: String,
    /// When it was disabled.
    pub disabled_at: Option<Timestamp>,
}

/// An endpoint failed just now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointFailed {
    /// The sender's name.
    pub channel: String,
    /// The endpoint's.
    pub name: String,
    /// Of its configuration.
    pub version: String,
    /// The word for how.
    pub reason: Reason,
    /// One sentence.
    pub detail: String,
    /// How long it may fail before it is disabled; zero: at once.
    pub patience: Duration,
}

#[cfg(any(feature = "sqlite", feature = "postgres"))]
impl EndpointFailed {
    /// What is kept of it from now on. A failure after long silence begins anew: nobody knows that
    /// it failed all the while.
    pub(super) fn after(self, earlier: Option<EndpointState>, now: Timestamp) -> EndpointState {
        let calm = self.patience / 2;
        let earlier = earlier.filter(|one| {
            let same = one.version == self.version;
            same && (one.disabled_at.is_some() || now.since(one.failed_at) <= calm)
        });
        let since = earlier.as_ref().map_or(now, |one| one.failing_since);
        let disabled = earlier.and_then(|one| one.disabled_at);
        let over = self.patience <= now.since(since);
        EndpointState {
            channel: self.channel,
            name: self.name,
            version: self.version,
            failing_since: since,
            failed_at: now,
            reason: self.reason,
            detail: self.detail,
            disabled_at: disabled.or(over.then_some(now)),
        }
    }
}

#[cfg(all(test, any(feature = "sqlite", feature = "postgres")))]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    fn failed(version: &str, patience: Duration) -> EndpointFailed {
        EndpointFailed {
            channel: "webhook".to_owned(),
            name: "one".to_owned(),
            version: version.to_owned(),
            reason: Reason::Network,
            detail: "no connection could be made".to_owned(),
            patience,
        }
    }

    #[test]
    fn an_endpoint_that_fails_for_days_on_end_is_disabled() {
        let start = Timestamp::from_millis(0);
        let mut state = failed("1", DAY * 5).after(None, start);
        for day in 1..=5 {
            assert_eq!(state.disabled_at, None, "day {day}");
            state = failed("1", DAY * 5).after(Some(state), start.plus(DAY * day));
        }
        assert_eq!(state.disabled_at, Some(start.plus(DAY * 5)));
        assert_eq!(state.failing_since, start);
        // It stays so, until it is configured anew.
        let later = start.plus(DAY * 60);
        let still = failed("1", DAY * 5).after(Some(state.clone()), later);
        assert_eq!(still.disabled_at, state.disabled_at);
        let anew = failed("2", DAY * 5).after(Some(state), later);
        assert_eq!((anew.disabled_at, anew.failing_since), (None, later));
    }

    #[test]
    fn failures_far_apart_are_not_one_and_one_that_is_gone_is_disabled_at_once() {
        let start = Timestamp::from_millis(0);
        let state = failed("1", DAY * 5).after(None, start);
        let later = failed("1", DAY * 5).after(Some(state), start.plus(DAY * 6));
        assert_eq!(later.disabled_at, None);
        let gone = failed("1", Duration::ZERO).after(None, start);
        assert_eq!(gone.disabled_at, Some(start));
    }
}
