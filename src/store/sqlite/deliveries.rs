//! Deliveries in the hands of senders: claimed under a token, recorded, given back, expanded.
//!
//! `due_at` of a pending delivery is its next try, of a claimed one the end of the lease;
//! `attempts` counts the tries that ended, among them those whose holder vanished.

use std::collections::HashSet;
use std::time::Duration;

use rusqlite::Connection;
use rusqlite::OptionalExtension;
use rusqlite::params;
use uuid::Uuid;

use super::dead;
use super::persist::Origin;
use super::persist::insert_delivery;
use crate::delivery::Attempt;
use crate::delivery::DeliveryState;
use crate::store::Claim;
use crate::store::DeadLetter;
use crate::store::Earlier;
use crate::store::NewDelivery;
use crate::time::Timestamp;

/// A delivery as a claim finds it.
struct Held {
    state: DeliveryState,
    attempts: u32,
    due_at: Timestamp,
    token: Option<Uuid>,
    doubtful: bool,
}

/// See [`crate::store::Store::claim`].
pub(super) fn claim(
    to: &Connection,
    ids: &[Uuid],
    token: Uuid,
    lease: Duration,
) -> rusqlite::Result<Vec<Claim>> {
    let now = Timestamp::now();
    let end = now.plus(lease);
    let mut seen = HashSet::new();
    let mut look = to.prepare_cached(
        "select state, attempts, due_at, claim_token, doubtful from delivery where id = ?1",
    )?;
    let mut take = to.prepare_cached(
        "update delivery set state = 'claimed', claim_token = ?2, due_at = ?3, sweep_at = ?3,
           attempts = ?4, doubtful = ?5, updated_at = ?6
         where id = ?1",
    )?;
    let mut claims = Vec::with_capacity(ids.len());
    for id in ids {
        let held = look
            .query_row([id], |row| {
                Ok(Held {
                    state: row.get(0)?,
                    attempts: row.get(1)?,
                    due_at: row.get(2)?,
                    token: row.get(3)?,
                    doubtful: row.get(4)?,
                })
            })
            .optional()?;
        let first_time = seen.insert(id);
        let claim = match held {
            None => Claim::Done,
            Some(held) => held.judge(first_time.then_some(token), now),
        };
        if let Claim::Mine { attempt, doubtful } = claim {
            take.execute(params![id, token, end, attempt - 1, doubtful, now])?;
        }
        claims.push(claim);
    }
    Ok(claims)
}

impl Held {
    /// What `token` gets. Whoever asks for one delivery twice at once gets it once: for the second
    /// time there is no token.
    fn judge(&self, token: Option<Uuid>, now: Timestamp) -> Claim {
        let mine = |attempts: u32, doubtful| Claim::Mine {
            attempt: attempts.saturating_add(1),
            doubtful,
        };
        match self.state {
            DeliveryState::Pending if self.due_at <= now => mine(self.attempts, self.doubtful),
            DeliveryState::Claimed if token.is_some() && self.token == token => {
                mine(self.attempts, self.doubtful)
            }
            // Its holder vanished: that was a try too, and nobody knows how it went.
            DeliveryState::Claimed if self.due_at <= now => {
                mine(self.attempts.saturating_add(1), true)
            }
            DeliveryState::Pending | DeliveryState::Claimed => Claim::NotBefore(self.due_at),
            _ => Claim::Done,
        }
    }
}

/// See [`crate::store::Store::record`].
pub(super) fn record(
    to: &Connection,
    token: Uuid,
    attempts: &[Attempt],
    letters: &[DeadLetter],
) -> rusqlite::Result<Vec<Uuid>> {
    let now = Timestamp::now();
    let mut update = to.prepare_cached(
        "update delivery set
           state = ?3, reason = ?4, detail = ?5, provider_id = ifnull(?6, provider_id),
           due_at = ifnull(?7, ?8), sweep_at = ifnull(?7, ?8), claim_token = null,
           attempts = attempts + not ?9, updated_at = ?8,
           failed_at = iif(?3 in ('pending', 'failed') and not ?9, ?8, failed_at),
           failure = iif(?3 in ('pending', 'failed') and not ?9, ?5, failure)
         where id = ?1 and state = 'claimed' and claim_token = ?2",
    )?;
    let mut recorded = Vec::with_capacity(attempts.len());
    for attempt in attempts {
        let changed = update.execute(params![
            attempt.delivery,
            token,
            attempt.state,
            attempt.reason,
            attempt.detail,
            attempt.provider_id,
            attempt.next_at,
            now,
            attempt.uncounted,
        ])?;
        if 0 < changed {
            recorded.push(attempt.delivery);
        }
    }
    // A letter about deliveries that went to another holder is that one's to write.
    let ours: HashSet<&Uuid> = recorded.iter().collect();
    for letter in letters {
        let about = &letter.deliveries;
        if about.is_empty() || about.iter().any(|id| ours.contains(id)) {
            dead::insert(to, letter)?;
        }
    }
    Ok(recorded)
}

/// See [`crate::store::Store::earlier`].
pub(super) fn earlier(from: &Connection, ids: &[Uuid]) -> rusqlite::Result<Vec<Option<Earlier>>> {
    let mut look = from.prepare_cached(
        "select p.provider_id, c.submission, c.accepted_at
         from delivery d
         join delivery p on p.notification = d.notification and p.channel = d.channel
           and p.target = d.target and p.id <> d.id
           and p.state = 'sent' and p.provider_id is not null
         join submission_chunk c on c.submission = p.submission and c.no = p.chunk
         where d.id = ?1 order by p.updated_at desc limit 1",
    )?;
    let mut one = |id: &Uuid| {
        look.query_row([id], |row| {
            Ok(Earlier {
                provider_id: row.get(0)?,
                submission: row.get(1)?,
                accepted_at: row.get(2)?,
            })
        })
        .optional()
    };
    ids.iter().map(&mut one).collect()
}

/// See [`crate::store::Store::release`].
pub(super) fn release(to: &Connection, token: Uuid, ids: &[Uuid]) -> rusqlite::Result<()> {
    let now = Timestamp::now();
    let mut update = to.prepare_cached(
        "update delivery set state = 'pending', claim_token = null, due_at = ?3, sweep_at = ?3,
           updated_at = ?3
         where id = ?1 and state = 'claimed' and claim_token = ?2",
    )?;
    for id in ids {
        update.execute(params![id, token, now])?;
    }
    Ok(())
}

/// See [`crate::store::Store::expand`].
pub(super) fn expand(
    to: &Connection,
    token: Uuid,
    parent: Uuid,
    children: &[NewDelivery],
) -> rusqlite::Result<()> {
    let now = Timestamp::now();
    let held = to
        .prepare_cached(
            "update delivery set state = 'expanded', claim_token = null, updated_at = ?3
             where id = ?1 and state = 'claimed' and claim_token = ?2
             returning submission, chunk, notification, user",
        )?
        .query_row(params![parent, token, now], |row| {
            let user: Option<String> = row.get(3)?;
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, user))
        })
        .optional()?;
    // Expanded before, or in other hands: whoever has it makes the same children.
    let Some((submission, chunk, notification, user)) = held else {
        return Ok(());
    };
    let origin = Origin {
        submission,
        chunk,
        notification,
        user: user.as_deref(),
        parent: Some(parent),
    };
    let mut insert = insert_delivery(to)?;
    for child in children {
        origin.insert(&mut insert, child, now)?;
    }
    Ok(())
}
