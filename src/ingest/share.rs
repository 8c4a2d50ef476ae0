//! Each origin's share of the fast lane, so that one that floods delays the others by nothing.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;
use std::time::Instant;

/// What an origin may send at once into the fast lane.
const BURST: f64 = 500.0;

/// What it may send there each second in the long run.
const PER_SECOND: f64 = 100.0;

/// Origins that are remembered; beyond that, those whose buckets are full are forgotten.
const ORIGINS_MAX: usize = 10_000;

/// A token bucket for each origin.
#[derive(Debug, Default)]
pub(super) struct Shares(Mutex<HashMap<String, Bucket>>);

#[derive(Clone, Copy, Debug)]
struct Bucket {
    tokens: f64,
    at: Instant,
}

impl Bucket {
    /// What it holds at `now`.
    fn refilled(self, now: Instant) -> f64 {
        let since = now.saturating_duration_since(self.at);
        (self.tokens + since.as_secs_f64() * PER_SECOND).min(BURST)
    }
}

impl Shares {
    /// Takes one from the share of `origin`; says whether there was one.
    pub(super) fn take(&self, origin: &str, now: Instant) -> bool {
        let mut buckets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bucket) = buckets.get_mut(origin) {
            let tokens = bucket.refilled(now);
            let within = tokens >= 1.0;
            *bucket = Bucket {
                tokens: if within { tokens - 1.0 } else { tokens },
                at: now,
            };
            return within;
        }
        if buckets.len() >= ORIGINS_MAX {
            let full = Duration::from_secs_f64(BURST / PER_SECOND);
            buckets.retain(|_, bucket| now.saturating_duration_since(bucket.at) < full);
        }
        let bucket = Bucket {
            tokens: BURST - 1.0,
            at: now,
        };
        buckets.insert(origin.to_owned(), bucket);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_uses_up_its_own_share_alone_and_gets_it_back() {
        let shares = Shares::default();
        let now = Instant::now();
        let taken = (0..1_000).filter(|_| shares.take("flood", now)).count();
        assert_eq!(taken, 500);
        assert!(shares.take("other", now));
        let later = now + Duration::from_millis(105);
        let taken = (0..1_000).filter(|_| shares.take("flood", later)).count();
        assert_eq!(taken, 10);
    }
}
