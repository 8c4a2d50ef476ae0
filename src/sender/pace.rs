//! The rate of a channel: what is claimed is sent at the turns that it got.
//!
//! Turns are taken of one line in the store, for what is really to be sent, so that the rate holds
//! across loops and processes. A turn that is near is waited for in hand; what gets none goes to
//! the wait step, uncounted.

use std::time::Duration;

use tokio::time::Instant;

use super::Deliveries;
use super::claims::Turn;
use crate::delivery::DELIVERIES_PER_MESSAGE_MAX;
use crate::failure::Failure;

/// The part of the lease for which deliveries are held until their turn comes: by default 15 s,
/// longer than the first wait step, so that what comes back finds the line still moving, and
/// shorter than a drain.
const HELD: u32 = 4;

/// When each claimed delivery of a turn of the loop may begin.
pub(super) struct Starts {
    /// In the order of what is claimed; `None`: not in this turn of the loop.
    pub(super) at: Vec<Option<Instant>>,
    /// How long those wait that may not.
    pub(super) wait: Duration,
}

impl Deliveries {
    /// How many messages a turn of the loop takes, so that few are taken in vain.
    pub(super) fn messages(&self, most: usize) -> usize {
        let Some(gap) = self.rate else { return most };
        let fit = (self.lease / HELD).as_nanos() / gap.as_nanos().max(1);
        let fit = usize::try_from(fit).unwrap_or(usize::MAX);
        fit.div_ceil(DELIVERIES_PER_MESSAGE_MAX).clamp(1, most)
    }

    /// Takes a turn for each claimed delivery that is to be sent.
    pub(super) async fn starts(&self, turn: &Turn<'_>) -> Result<Starts, Failure> {
        let now = Instant::now();
        let Some(gap) = self.rate else {
            return Ok(Starts {
                at: vec![Some(now); turn.mine.len()],
                wait: Duration::ZERO,
            });
        };
        let held = self.lease / HELD;
        let sent = |item| !self.wants_targets(item);
        let wanted = turn.mine.iter().filter(|one| sent(one.item)).count();
        let wanted = u32::try_from(wanted).unwrap_or(u32::MAX);
        let turns = self
            .store
            .take_turns(self.sender.name(), wanted, gap, held)
            .await?;
        let mut starts = (0..turns.count).map(|no| now + turns.after + gap * no);
        let at = turn.mine.iter().map(|one| {
            if sent(one.item) {
                starts.next()
            } else {
                Some(now)
            }
        });
        Ok(Starts {
            at: at.collect(),
            wait: self.put_off(turns.after + gap * turns.count, held),
        })
    }

    /// How long those wait that got no turn, where the next one is `ahead`: until it is about
    /// within reach, and never a step of the schedule too long.
    fn put_off(&self, ahead: Duration, held: Duration) -> Duration {
        let wanted = ahead.saturating_sub(held / 2);
        let steps = self.schedule.steps();
        let within = steps.iter().rev().find(|step| **step <= wanted);
        within.or(steps.first()).copied().unwrap_or(wanted)
    }
}
