//! `concurrencyLimit` in each `throttleInterval`: messages begin no faster, in this process, and
//! nobody waits long for a turn: what is over the limit comes again.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use tokio::time::Instant;

/// The longest that a message waits for its turn in hand.
const WAIT_MAX: Duration = Duration::from_secs(2);

/// Hands out moments, evenly spaced.
#[derive(Debug)]
pub(super) struct Pace {
    gap: Duration,
    line: Mutex<Line>,
}

#[derive(Clone, Copy, Debug)]
struct Line {
    /// The next turn that nobody has.
    next: Instant,
    /// When the last of those is to come again who found no turn.
    end: Instant,
}

impl Pace {
    pub(super) fn new(gap: Duration) -> Self {
        let now = Instant::now();
        Self {
            gap,
            line: Mutex::new(Line {
                next: now,
                end: now,
            }),
        }
    }

    /// Waits for a turn, if one is near.
    ///
    /// # Errors
    /// How much later to ask again. Those who are sent away are told times as evenly spaced as the
    /// turns, so that they do not all come back at once.
    pub(super) async fn turn(&self) -> Result<(), Duration> {
        let at = self.next_turn(Instant::now())?;
        tokio::time::sleep_until(at).await;
        Ok(())
    }

    fn next_turn(&self, now: Instant) -> Result<Instant, Duration> {
        let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        let at = now.max(line.next);
        if at <= now + WAIT_MAX {
            line.next = at + self.gap;
            return Ok(at);
        }
        line.end = at.max(line.end + self.gap);
        Err(line.end - now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_near_turn_is_waited_for_and_who_finds_none_comes_again_in_line() {
        let pace = Pace::new(Duration::from_secs(1));
        let now = Instant::now() + Duration::from_secs(5);
        let turns: Vec<_> = (0..3).map(|_| pace.next_turn(now).unwrap() - now).collect();
        assert_eq!(turns, [0, 1, 2].map(Duration::from_secs));
        let away: Vec<_> = (0..3).map(|_| pace.next_turn(now).unwrap_err()).collect();
        assert_eq!(away, [3, 4, 5].map(Duration::from_secs));
        // They find the turns that were not given to others.
        let later = now + Duration::from_secs(3);
        assert_eq!(pace.next_turn(later), Ok(later));
        assert_eq!(
            pace.next_turn(later + Duration::from_secs(9)).unwrap(),
            later + Duration::from_secs(9)
        );
    }

    #[test]
    fn no_limit_is_no_wait() {
        let pace = Pace::new(Duration::ZERO);
        let now = Instant::now() + Duration::from_secs(1);
        for _ in 0..1_000 {
            assert_eq!(pace.next_turn(now), Ok(now));
        }
    }
}
