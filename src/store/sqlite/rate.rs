//! The rate of a channel: one line of turns for all who send on it.

use std::time::Duration;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use rusqlite::Connection;
use rusqlite::OptionalExtension;
use rusqlite::params;

use crate::store::Turns;

/// See [`crate::store::Store::take_turns`].
pub(super) fn take_turns(
    to: &Connection,
    channel: &str,
    count: u32,
    gap: Duration,
    within: Duration,
) -> rusqlite::Result<Turns> {
    let now = SystemTime::now();
    let now = micros(now.duration_since(UNIX_EPOCH).unwrap_or_default());
    let next: Option<i64> = to
        .prepare_cached("select next_at from rate where channel = ?1")?
        .query_row([channel], |row| row.get(0))
        .optional()?;
    let first = next.unwrap_or(now).max(now);
    let after = Duration::from_micros((first - now).unsigned_abs());
    let turns = Turns::of(after, count, gap, within);
    let end = first.saturating_add(micros(gap.saturating_mul(turns.count)));
    to.prepare_cached(
        "insert into rate (channel, next_at) values (?1, ?2)
         on conflict (channel) do update set next_at = excluded.next_at",
    )?
    .execute(params![channel, end])?;
    Ok(turns)
}

fn micros(span: Duration) -> i64 {
    i64::try_from(span.as_micros()).unwrap_or(i64::MAX)
}
