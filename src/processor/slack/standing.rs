//! Whether a workspace takes messages now: each has a fate of its own, and one that is away or
//! full is left alone for a while, so that the others go on.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use tokio::time::Instant;

use super::api::Fault;
use super::api::Means;
use crate::failure::Reason;

/// So many failures in a row that may pass make a workspace count as away.
const FAILURES_MAX: u32 = 3;
/// How long a workspace is left alone at first; doubles up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_secs(15);
/// The longest that it is left alone, unless it asks for more itself.
const PAUSE_MAX: Duration = Duration::from_secs(300);

/// What the last calls to a workspace say of it.
#[derive(Debug, Default)]
pub(super) struct Standing(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    failures: u32,
    /// How often in a row it was found away.
    pauses: u32,
    closed: Option<(Instant, Closed)>,
}

/// Why a workspace is left alone, and for how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Closed {
    pub(super) after: Duration,
    pub(super) reason: Reason,
    pub(super) detail: String,
    /// It works, and takes no more for now.
    pub(super) limited: bool,
}

impl Standing {
    /// Why nothing is to be sent to it now.
    pub(super) fn closed(&self) -> Option<Closed> {
        self.closed_at(Instant::now())
    }

    fn closed_at(&self, now: Instant) -> Option<Closed> {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (until, closed) = state.closed.as_ref()?;
        let after = until.checked_duration_since(now)?;
        (!after.is_zero()).then(|| Closed {
            after,
            ..closed.clone()
        })
    }

    /// It answered as it should.
    pub(super) fn well(&self) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.failures = 0;
        state.pauses = 0;
    }

    /// It did not.
    pub(super) fn failed(&self, fault: &Fault) {
        self.failed_at(fault, Instant::now());
    }

    fn failed_at(&self, fault: &Fault, now: Instant) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let after = match fault.means {
            Means::Refused => return,
            Means::Limited(after) => after,
            Means::MayPass if state.failures + 1 < FAILURES_MAX => {
                state.failures += 1;
                return;
            }
            // Calls that were under way together say the same thing once.
            _ if state.closed.as_ref().is_some_and(|(until, _)| now < *until) => return,
            _ => {
                let pause = PAUSE_MIN.saturating_mul(1 << state.pauses.min(8));
                state.pauses += 1;
                pause.min(PAUSE_MAX)
            }
        };
        let until = now + after;
        if state
            .closed
            .as_ref()
            .is_none_or(|(known, _)| *known < until)
        {
            let closed = Closed {
                after,
                reason: fault.reason,
                detail: fault.detail.clone(),
                limited: matches!(fault.means, Means::Limited(_)),
            };
            state.closed = Some((until, closed));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(means: Means) -> Fault {
        Fault {
            means,
            reason: Reason::Server,
            detail: "it said so".to_owned(),
            code: String::new(),
        }
    }

    fn closed(standing: &Standing, now: Instant) -> Option<(Duration, bool)> {
        let closed = standing.closed_at(now)?;
        Some((closed.after, closed.limited))
    }

    #[test]
    fn a_limit_holds_as_long_as_it_says_and_the_longest_counts() {
        let (standing, now) = (Standing::default(), Instant::now());
        let s = Duration::from_secs;
        standing.failed_at(&fault(Means::Limited(s(60))), now);
        standing.failed_at(&fault(Means::Limited(s(5))), now);
        standing.failed_at(&fault(Means::Refused), now);
        assert_eq!(closed(&standing, now), Some((s(60), true)));
        assert_eq!(closed(&standing, now + s(60)), None);
    }

    #[test]
    fn what_may_pass_must_happen_in_a_row_and_pauses_grow_until_it_is_well() {
        let (standing, now) = (Standing::default(), Instant::now());
        let may_pass = fault(Means::MayPass);
        for _ in 0..FAILURES_MAX - 1 {
            standing.failed_at(&may_pass, now);
        }
        standing.well();
        standing.failed_at(&may_pass, now);
        assert_eq!(closed(&standing, now), None);
        for _ in 0..FAILURES_MAX {
            standing.failed_at(&may_pass, now);
        }
        assert_eq!(closed(&standing, now), Some((PAUSE_MIN, false)));
        let then = now + PAUSE_MIN;
        standing.failed_at(&fault(Means::Away), then);
        assert_eq!(closed(&standing, then), Some((PAUSE_MIN * 2, false)));
        let long = then + PAUSE_MAX;
        for n in 0..20 {
            standing.failed_at(&fault(Means::Closed), long + PAUSE_MAX * n);
        }
        assert_eq!(
            closed(&standing, long + PAUSE_MAX * 19),
            Some((PAUSE_MAX, false))
        );
        standing.well();
        let end = long + PAUSE_MAX * 20;
        standing.failed_at(&fault(Means::Away), end);
        assert_eq!(closed(&standing, end), Some((PAUSE_MIN, false)));
    }
}
