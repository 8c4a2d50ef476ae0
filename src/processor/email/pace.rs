//! `throttleInterval`: mails begin no faster than configured, in this process.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use tokio::time::Instant;

use super::config::Fault;

/// The longest that a mail may wait for its turn: the sender role's half minute is running.
pub(super) const WAIT_MAX: Duration = Duration::from_secs(4);

/// Hands out moments, evenly spaced.
#[derive(Debug)]
pub(super) struct Pace {
    gap: Duration,
    next: Mutex<Instant>,
}

impl Pace {
    /// `count` turns in each `interval`; `None` where that is no limit.
    ///
    /// # Errors
    /// When a single mail would have to wait too long.
    pub(super) fn new(interval: Duration, count: usize) -> Result<Option<Self>, Fault> {
        let gap = interval / u32::try_from(count.max(1)).unwrap_or(u32::MAX);
        if WAIT_MAX < gap {
            return Err(Fault::new(
                "throttleInterval",
                "is too long for `concurrencyLimit`: fewer than one mail in 4 s",
                "at most `concurrencyLimit` mails begin in each interval, evenly spaced",
            ));
        }
        Ok((!gap.is_zero()).then(|| Self {
            gap,
            next: Mutex::new(Instant::now()),
        }))
    }

    /// How many may wait in line without one waiting too long.
    pub(super) fn line(&self) -> usize {
        let turns = WAIT_MAX.as_nanos() / self.gap.as_nanos();
        usize::try_from(turns).unwrap_or(usize::MAX).max(1)
    }

    /// Waits for one's turn. A turn that is given up stays unused.
    pub(super) async fn turn(&self) {
        tokio::time::sleep_until(self.next_turn(Instant::now())).await;
    }

    /// When the next turn is, for who asks now.
    fn next_turn(&self, now: Instant) -> Instant {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let at = now.max(*next);
        *next = at + self.gap;
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_are_spaced_by_the_interval_over_the_count() {
        let pace = Pace::new(Duration::from_secs(1), 2).unwrap().unwrap();
        assert_eq!(pace.line(), 8);
        let now = Instant::now() + Duration::from_secs(1);
        let waits: Vec<_> = (0..3).map(|_| pace.next_turn(now) - now).collect();
        assert_eq!(waits, [0, 500, 1_000].map(Duration::from_millis));
        // Turns that nobody took are not saved up.
        let later = now + Duration::from_secs(60);
        assert_eq!(pace.next_turn(later), later);
        assert_eq!(pace.next_turn(later) - later, Duration::from_millis(500));
        assert!(Pace::new(Duration::ZERO, 2).unwrap().is_none());
        assert!(Pace::new(Duration::from_secs(60), 10).is_err());
    }
}
