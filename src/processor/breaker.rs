//! Breakers: an endpoint that is down is left alone for a while, and its neighbours are not slowed.
//!
//! A sender whose endpoints have fates of their own keeps one [`Breakers`]. Before it sends, it
//! [asks](Breakers::ask); what may not go now it answers with [`Outcome::Waits`]: the delivery waits
//! and that counts as no try. After it sent, it says how the endpoint was: [well](Pass::well) when
//! it answered at all, whatever the answer, or [down](Pass::down) when it could not be reached.
//! Pure: the time is an argument.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;
use std::time::Instant;

use super::Outcome;
use crate::failure::Failure;

/// How long an endpoint is left alone at first; doubles with every probe that fails. As long as the
/// first step of the default schedule, since nothing that waits on the queue comes back earlier.
pub const OPEN_MIN: Duration = Duration::from_secs(10);
/// The longest that it is left alone.
pub const OPEN_MAX: Duration = Duration::from_secs(300);
/// A probe that has not said how it went after this long never will: its send was cancelled.
const PROBE_MAX: Duration = Duration::from_secs(60);

/// The breaker of one endpoint.
#[derive(Clone, Copy, Debug, Default)]
struct Breaker {
    state: State,
    /// How often it answered.
    answers: u64,
}

#[derive(Clone, Copy, Debug, Default)]
enum State {
    /// It is up, as far as we know.
    #[default]
    Closed,
    /// It is down: nothing is sent before `until`.
    Open { until: Instant, wait: Duration },
    /// One send is under way to see whether it is back.
    HalfOpen { since: Instant, wait: Duration },
}

/// The breakers of a sender's endpoints, by name.
#[derive(Debug, Default)]
pub struct Breakers(Mutex<HashMap<String, Breaker>>);

/// Leave to send once to an endpoint; to be given back with what came of it.
#[derive(Debug)]
#[must_use = "say how the endpoint was"]
pub struct Pass<'a> {
    breakers: &'a Breakers,
    endpoint: &'a str,
    probe: bool,
    answers: u64,
}

impl Breakers {
    /// Whether something may be sent to `endpoint` now.
    ///
    /// # Errors
    /// It is down: how long to wait before asking again.
    pub fn ask<'a>(&'a self, endpoint: &'a str, now: Instant) -> Result<Pass<'a>, Duration> {
        let mut all = self.all();
        let breaker = match all.get_mut(endpoint) {
            Some(breaker) => breaker,
            None => all.entry(endpoint.to_owned()).or_default(),
        };
        let wait = match breaker.state {
            State::Closed => None,
            State::Open { until, .. } if now < until => return Err(until - now),
            State::HalfOpen { since, .. } if now < since + PROBE_MAX => return Err(OPEN_MIN),
            State::Open { wait, .. } | State::HalfOpen { wait, .. } => Some(wait),
        };
        if let Some(wait) = wait {
            breaker.state = State::HalfOpen { since: now, wait };
        }
        Ok(Pass {
            breakers: self,
            endpoint,
            probe: wait.is_some(),
            answers: breaker.answers,
        })
    }

    fn all(&self) -> MutexGuard<'_, HashMap<String, Breaker>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pass<'_> {
    /// The endpoint answered: it is up, whatever it said.
    pub fn well(self) {
        if let Some(breaker) = self.breakers.all().get_mut(self.endpoint) {
            breaker.state = State::Closed;
            breaker.answers = breaker.answers.wrapping_add(1);
        }
    }

    /// The endpoint could not be reached, or did not answer: it is left alone, after each probe for
    /// longer. Returns what to answer for the delivery: it waits, uncounted; or it failed, where
    /// the endpoint answered others meanwhile.
    pub fn down(self, why: Failure, now: Instant) -> Outcome {
        let mut all = self.breakers.all();
        let Some(breaker) = all.get_mut(self.endpoint) else {
            return waits(OPEN_MIN, why);
        };
        if breaker.answers != self.answers {
            return Outcome::Failed(why);
        }
        let wait = match breaker.state {
            // Of many that were under way when it went down, the first opened it.
            State::Open { until, .. } if now < until => return waits(until - now, why),
            State::HalfOpen { .. } if !self.probe => return waits(OPEN_MIN, why),
            State::Closed => OPEN_MIN,
            State::Open { wait, .. } | State::HalfOpen { wait, .. } => {
                wait.saturating_mul(2).min(OPEN_MAX)
            }
        };
        let until = now + wait;
        breaker.state = State::Open { until, wait };
        waits(wait, why)
    }
}

/// The answer for a delivery whose endpoint is down for `after` longer.
pub fn waits(after: Duration, why: Failure) -> Outcome {
    Outcome::Waits {
        after,
        reason: why.reason,
        detail: why.detail,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Reason;

    fn refused() -> Failure {
        Failure::transient(Reason::Network, "connection refused")
    }

    fn down(breakers: &Breakers, endpoint: &str, now: Instant) -> Duration {
        wait(breakers.ask(endpoint, now).unwrap().down(refused(), now))
    }

    fn wait(outcome: Outcome) -> Duration {
        let Outcome::Waits { after, reason, .. } = outcome else {
            panic!("{outcome:?} does not wait");
        };
        assert_eq!(reason, Reason::Network);
        after
    }

    #[test]
    fn an_endpoint_that_is_down_is_left_alone_and_its_neighbours_are_not() {
        let (breakers, now) = (Breakers::default(), Instant::now());
        assert_eq!(down(&breakers, "a", now), OPEN_MIN);
        let later = now + OPEN_MIN / 2;
        assert_eq!(breakers.ask("a", later).unwrap_err(), OPEN_MIN / 2);
        breakers.ask("b", later).unwrap().well();
    }

    #[test]
    fn one_probe_alone_sees_whether_it_is_back() {
        let (breakers, now) = (Breakers::default(), Instant::now());
        let _ = down(&breakers, "a", now);
        let later = now + OPEN_MIN;
        let probe = breakers.ask("a", later).unwrap();
        assert_eq!(breakers.ask("a", later).unwrap_err(), OPEN_MIN);
        probe.well();
        let (one, two) = (breakers.ask("a", later), breakers.ask("a", later));
        one.unwrap().well();
        two.unwrap().well();
    }

    #[test]
    fn every_probe_that_fails_doubles_the_wait_up_to_its_limit() {
        let (breakers, mut now) = (Breakers::default(), Instant::now());
        let mut waits = Vec::new();
        for _ in 0..7 {
            let wait = down(&breakers, "a", now);
            now += wait;
            waits.push(wait.as_secs());
        }
        assert_eq!(waits, [10, 20, 40, 80, 160, 300, 300]);
        breakers.ask("a", now).unwrap().well();
        assert_eq!(down(&breakers, "a", now), OPEN_MIN);
    }

    #[test]
    fn many_that_were_under_way_when_it_went_down_count_as_one_fall() {
        let (breakers, now) = (Breakers::default(), Instant::now());
        let passes: Vec<_> = (0..8).map(|_| breakers.ask("a", now).unwrap()).collect();
        let late = breakers.ask("a", now).unwrap();
        for pass in passes {
            assert_eq!(wait(pass.down(refused(), now)), OPEN_MIN);
        }
        // One of them comes back only when the probe is out: the probe decides.
        let later = now + OPEN_MIN;
        let probe = breakers.ask("a", later).unwrap();
        assert_eq!(wait(late.down(refused(), later)), OPEN_MIN);
        assert_eq!(wait(probe.down(refused(), later)), OPEN_MIN * 2);
    }

    #[test]
    fn where_others_are_answered_meanwhile_the_failure_is_the_deliverys_own() {
        let (breakers, now) = (Breakers::default(), Instant::now());
        let (poison, other) = (breakers.ask("a", now), breakers.ask("a", now));
        other.unwrap().well();
        let outcome = poison.unwrap().down(refused(), now);
        assert_eq!(outcome, Outcome::Failed(refused()));
        breakers.ask("a", now).unwrap().well();
    }

    #[test]
    fn a_probe_that_was_cancelled_holds_nobody_up_for_ever() {
        let (breakers, now) = (Breakers::default(), Instant::now());
        let _ = down(&breakers, "a", now);
        let later = now + OPEN_MIN;
        let _cancelled = breakers.ask("a", later).unwrap();
        assert!(breakers.ask("a", later + PROBE_MAX / 2).is_err());
        assert_eq!(down(&breakers, "a", later + PROBE_MAX), OPEN_MIN * 2);
    }
}
