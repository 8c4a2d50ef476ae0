//! One consumer: takes from its lanes by turns, waits without asking again and again, and gives
//! back what it holds when it is dropped.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use futures::future::select_all;
use rusqlite::Connection;
use tokio::sync::futures::OwnedNotified;

use super::Line;
use super::Shared;
use super::insert_and_wake;
use super::rows;
use crate::failure::Reason;
use crate::queue::ALONE_AFTER_RETURNS;
use crate::queue::Consumer;
use crate::queue::DEAD;
use crate::queue::DELIVERY_LIMIT;
use crate::queue::Ended;
use crate::queue::QueueError;
use crate::queue::Received;
use crate::time::Timestamp;

/// So many bodies' bytes are handed out at once, or a single message: 256 chunks of the largest
/// kind would be a quarter of a gigabyte.
const BYTES_PER_TAKE: usize = 16 << 20;

/// The longest sleep until a delayed message is due: the monotonic clock, which sleeps are measured
/// by, stands still while a laptop is closed.
const SLEEP_MAX: Duration = Duration::from_secs(30);

/// Most messages in one claim, whatever was asked for.
const MESSAGES_PER_TAKE: usize = 1_024;

/// For every turn of another lane the first has this many.
const FIRST_LANE_TURNS: usize = 4;

/// A claim on its way through the writer.
type Claiming = Pin<Box<dyn Future<Output = Result<Claim, QueueError>> + Send>>;

pub(super) struct SqliteConsumer {
    shared: Arc<Shared>,
    lanes: Arc<[Arc<Line>]>,
    holder: i64,
    turn: Turn,
    /// Kept here and not in `take`, so that a cancelled take loses nothing: the next goes on.
    claiming: Option<Claiming>,
    /// Claimed for a take that was cancelled and that asked for more than the next.
    spare: VecDeque<Received>,
}

/// What a claim brought.
#[derive(Debug, Default)]
struct Claim {
    taken: Vec<Received>,
    /// There may be more to take at once.
    more: bool,
    /// When to look again, if nothing was taken.
    due: Option<Timestamp>,
    turn: Turn,
}

impl SqliteConsumer {
    pub(super) fn new(shared: Arc<Shared>, lanes: Vec<Arc<Line>>) -> Self {
        let holder = shared.next_holder.fetch_add(1, Ordering::Relaxed);
        for line in &lanes {
            line.consumers.fetch_add(1, Ordering::Relaxed);
        }
        Self {
            shared,
            turn: Turn::default(),
            lanes: lanes.into(),
            holder,
            claiming: None,
            spare: VecDeque::new(),
        }
    }

    /// Goes on with the claim that a cancelled take left, or makes one.
    async fn claim(&mut self, max: usize) -> Result<Claim, QueueError> {
        let (shared, lanes) = (&self.shared, &self.lanes);
        let (holder, turn) = (self.holder, self.turn);
        let claiming = self.claiming.get_or_insert_with(|| {
            let (shared, lanes) = (Arc::clone(shared), Arc::clone(lanes));
            let claim = move |connection: &Connection| {
                Claimer::new(connection, &shared, &lanes, holder, max).claim(turn)
            };
            let shared = Arc::clone(&self.shared);
            Box::pin(async move { shared.write(claim).await })
        });
        let claim = claiming.await;
        self.claiming = None;
        let claim = claim?;
        self.turn = claim.turn;
        Ok(claim)
    }

    /// Listens for new work in any lane, from now on.
    fn listen(&self) -> Vec<Pin<Box<OwnedNotified>>> {
        let listen = |line: &Arc<Line>| {
            let mut notified = Box::pin(Arc::clone(&line.work).notified_owned());
            notified.as_mut().enable();
            notified
        };
        self.lanes.iter().map(listen).collect()
    }

    fn take_spare(&mut self, max: usize) -> Vec<Received> {
        self.spare.drain(..max.min(self.spare.len())).collect()
    }
}

#[async_trait]
impl Consumer for SqliteConsumer {
    async fn take(&mut self, max: usize) -> Result<Vec<Received>, QueueError> {
        let max = max.clamp(1, MESSAGES_PER_TAKE);
        loop {
            if !self.spare.is_empty() {
                return Ok(self.take_spare(max));
            }
            // Before looking, so that nothing comes unheard in between.
            let work = self.listen();
            let claim = self.claim(max).await?;
            if claim.more {
                // One word wakes one consumer: whoever leaves something passes it on.
                self.lanes.iter().for_each(|line| line.work.notify_one());
            }
            self.spare = claim.taken.into();
            if !self.spare.is_empty() || claim.more {
                continue;
            }
            let sleep = claim
                .due
                .map(|due| due.since(Timestamp::now()).min(SLEEP_MAX));
            match sleep {
                Some(sleep) => drop(tokio::time::timeout(sleep, select_all(work)).await),
                None => drop(select_all(work).await),
            }
        }
    }

    async fn finish(&mut self, ended: Vec<Ended>) -> Result<(), QueueError> {
        let mut done = Vec::with_capacity(ended.len());
        let mut next = Vec::new();
        for one in ended {
            done.push(one.receipt.tag);
            next.extend(one.next);
        }
        if done.is_empty() {
            return Ok(());
        }
        // In the order of the table, whatever the order of the work was.
        done.sort_unstable();
        // A full queue does not refuse what follows: that would stop the work that empties it.
        let next = self.shared.rows(next)?;
        let holder = self.holder;
        let finish = move |connection: &Connection| {
            insert_and_wake(connection, &next)?;
            done.into_iter()
                .try_for_each(|id| rows::remove(connection, id, holder))
        };
        self.shared.write(finish).await
    }
}

impl Drop for SqliteConsumer {
    fn drop(&mut self) {
        for line in self.lanes.iter() {
            line.consumers.fetch_sub(1, Ordering::Relaxed);
        }
        // Without a runtime the process is ending; the next one frees what is held.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        let (shared, lanes, holder) = (
            Arc::clone(&self.shared),
            Arc::clone(&self.lanes),
            self.holder,
        );
        // A claim that is on its way comes before this, and is given back with the rest.
        runtime.spawn(async move {
            let give_back = move |connection: &Connection| {
                if 0 < rows::give_back(connection, holder)? {
                    lanes.iter().for_each(|line| line.work.notify_one());
                }
                Ok(())
            };
            if let Err(error) = shared.write(give_back).await {
                tracing::warn!(%error, "messages in hand stay there until the next start");
            }
        });
    }
}

/// Whose turn it is: a place in the round of the lanes, in which the first has
/// [`FIRST_LANE_TURNS`] places and each other one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Turn(usize);

impl Turn {
    /// The lane whose turn it is.
    fn lane(self) -> usize {
        (self.0 + 1).saturating_sub(FIRST_LANE_TURNS)
    }

    /// The first turn of this lane.
    fn of(lane: usize) -> Self {
        match lane {
            0 => Self(0),
            other => Self(other + FIRST_LANE_TURNS - 1),
        }
    }

    /// The turn `steps` later.
    fn after(self, steps: usize, lanes: usize) -> Self {
        Self((self.0 + steps) % (FIRST_LANE_TURNS + lanes - 1))
    }

    /// How many of the next `max` turns each lane has.
    fn quotas(self, max: usize, lanes: usize) -> Vec<usize> {
        let mut quotas = vec![0; lanes];
        for step in 0..max {
            quotas[self.after(step, lanes).lane()] += 1;
        }
        quotas
    }
}

/// One claim, while it is made: a job of the writer.
struct Claimer<'a> {
    connection: &'a Connection,
    shared: &'a Shared,
    lanes: &'a [Arc<Line>],
    holder: i64,
    max: usize,
    now: Timestamp,
    taken: Vec<Received>,
    bytes: usize,
    /// Of each lane, whether nothing more of it is due.
    drained: Vec<bool>,
    /// A suspect was taken: it stays alone.
    alone: bool,
    /// A lane whose next message is a suspect, which could not join the others.
    suspect: Option<usize>,
}

impl<'a> Claimer<'a> {
    fn new(
        connection: &'a Connection,
        shared: &'a Shared,
        lanes: &'a [Arc<Line>],
        holder: i64,
        max: usize,
    ) -> Self {
        Self {
            connection,
            shared,
            lanes,
            holder,
            max,
            now: Timestamp::now(),
            taken: Vec::new(),
            bytes: 0,
            drained: vec![false; lanes.len()],
            alone: false,
            suspect: None,
        }
    }

    /// Takes from each lane what it has turns for, then whatever else there is.
    fn claim(mut self, turn: Turn) -> rusqlite::Result<Claim> {
        let count = self.lanes.len();
        let quotas = turn.quotas(self.max, count);
        let order = (0..count).map(|n| (turn.lane() + n) % count);
        for lane in order.clone() {
            self.claim_from(lane, quotas[lane])?;
        }
        for lane in order {
            if !self.drained[lane] {
                self.claim_from(lane, self.max)?;
            }
        }
        // A suspect has the next turn, or it would wait as long as the others have work.
        let next = match self.suspect {
            Some(lane) => Turn::of(lane),
            None => turn.after(self.taken.len(), count),
        };
        Ok(Claim {
            due: self.next_due()?,
            more: self.drained.iter().any(|drained| !drained),
            taken: self.taken,
            turn: next,
        })
    }

    /// Takes up to `max` from one lane, as far as there is room, and buries those that came back
    /// too often.
    fn claim_from(&mut self, lane: usize, max: usize) -> rusqlite::Result<()> {
        let max = max.min(self.max - self.taken.len());
        let bytes = BYTES_PER_TAKE.saturating_sub(self.bytes);
        if max == 0 || bytes == 0 || self.alone {
            return Ok(());
        }
        let key = self.lanes[lane].key.as_str();
        let found = rows::candidates(self.connection, key, lane, self.now, max, bytes)?;
        self.drained[lane] = found.is_empty();
        for one in found {
            if DELIVERY_LIMIT < one.returns && one.key != DEAD {
                self.bury(one)?;
                continue;
            }
            let suspect = ALONE_AFTER_RETURNS <= one.returns;
            if self.alone || (suspect && !self.taken.is_empty()) {
                self.suspect = self.suspect.or(suspect.then_some(lane));
                break;
            }
            rows::hold(self.connection, one.receipt.tag, self.holder)?;
            self.bytes += one.body.len();
            self.alone = suspect;
            self.taken.push(one);
        }
        Ok(())
    }

    /// Puts a message that came back too often among the dead, who are never refused.
    fn bury(&self, spent: Received) -> rusqlite::Result<()> {
        let (id, returns) = (spent.receipt.tag, spent.returns);
        tracing::warn!(
            queue = spent.key,
            message = spent.id,
            returns,
            "came back too often: a dead letter"
        );
        let detail = format!(
            "it came back {returns} times: its worker died, or was stopped, each time it had it"
        );
        let dead = spent.dead_letter(Reason::DeliveryLimit, &detail).next;
        // A topology without the dead would be a fault of ours; the message then stays as it is.
        if let Ok(dead) = self.shared.rows(dead) {
            insert_and_wake(self.connection, &dead)?;
            rows::remove(self.connection, id, rows::FREE)?;
        }
        Ok(())
    }

    /// When a claim that brought nothing is to be repeated.
    fn next_due(&self) -> rusqlite::Result<Option<Timestamp>> {
        let mut soonest = None;
        if self.taken.is_empty() {
            for line in self.lanes {
                let due = rows::next_due(self.connection, &line.key)?;
                soonest = soonest.into_iter().chain(due).min();
            }
        }
        Ok(soonest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_lane_has_four_turns_for_each_of_the_others() {
        assert_eq!(Turn(0).quotas(256, 1), [256]);
        assert_eq!(Turn(0).quotas(10, 2), [8, 2]);
        assert_eq!(Turn(0).quotas(12, 3), [8, 2, 2]);
        assert_eq!(Turn(0).quotas(4, 2), [4, 0]);
        assert_eq!(Turn(4).quotas(4, 2), [3, 1]);
    }

    #[test]
    fn one_at_a_time_goes_round_all_turns() {
        let mut turn = Turn::default();
        let mut lanes = Vec::new();
        for _ in 0..12 {
            lanes.push(turn.lane());
            turn = turn.after(1, 3);
        }
        assert_eq!(lanes, [0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 1, 2]);
    }

    #[test]
    fn a_lane_is_on_at_its_own_turn() {
        for lane in 0..4 {
            assert_eq!(Turn::of(lane).lane(), lane);
        }
    }
}
