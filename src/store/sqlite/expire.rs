//! Deleting what is too old from inboxes, oldest first, in batches.

use std::collections::BTreeMap;

use rusqlite::Connection;
use rusqlite::OptionalExtension;
use rusqlite::params;
use uuid::Uuid;

use super::counts;
use crate::time::Timestamp;

/// Which rows a batch is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// Of people, not saved.
    Own,
    /// Of people, saved.
    OwnSaved,
    /// For everybody; the flag says that it does not matter whether somebody has saved it.
    Broadcast(bool),
}

/// `?1` is the last moment that is too old, `?2` the size of a batch.
macro_rules! own {
    ($saved:literal) => {
        concat!(
            "delete from notification where id in (
               select id from notification
               where ifnull(updated, created) <= ?1 and saved is ",
            $saved,
            "
               order by ifnull(updated, created) limit ?2)
             returning user, read is null"
        )
    };
}

/// One batch; says how many rows went.
pub(super) fn batch(
    to: &Connection,
    what: What,
    before: Timestamp,
    batch: u32,
) -> rusqlite::Result<u64> {
    match what {
        What::Own => own(to, own!("null"), before, batch),
        What::OwnSaved => own(to, own!("not null"), before, batch),
        What::Broadcast(saved) => broadcast(to, before, saved),
    }
}

fn own(to: &Connection, sql: &str, before: Timestamp, batch: u32) -> rusqlite::Result<u64> {
    let mut people: BTreeMap<String, counts::Change> = BTreeMap::new();
    let mut gone = 0;
    // A batch of nothing would never end.
    let mut delete = to.prepare_cached(sql)?;
    let mut rows = delete.query(params![before, batch.max(1)])?;
    while let Some(row) = rows.next()? {
        let change = people.entry(row.get(0)?).or_default();
        change.unread -= row.get::<_, i64>(1)?;
        change.total -= 1;
        gone += 1;
    }
    for (user, change) in people {
        counts::add(to, &user, change)?;
    }
    Ok(gone)
}

/// A broadcast goes with all its marks: without them it would look unread.
fn broadcast(to: &Connection, before: Timestamp, saved: bool) -> rusqlite::Result<u64> {
    let oldest: Option<Uuid> = to
        .prepare_cached(
            "select id from broadcast b
             where ifnull(updated, created) <= ?1 and (?2 or not exists (
               select 1 from broadcast_mark m where m.broadcast = b.id and m.saved is not null))
             order by ifnull(updated, created) limit 1",
        )?
        .query_row(params![before, saved], |row| row.get(0))
        .optional()?;
    let Some(id) = oldest else {
        return Ok(0);
    };
    let readers: Vec<String> = to
        .prepare_cached(
            "delete from broadcast_mark where broadcast = ?1
             returning iif(read is null, null, user)",
        )?
        .query_map([id], |row| row.get::<_, Option<String>>(0))?
        .filter_map(Result::transpose)
        .collect::<Result<_, _>>()?;
    for user in readers {
        let change = counts::Change {
            broadcasts_read: -1,
            ..counts::Change::default()
        };
        counts::add(to, &user, change)?;
    }
    to.prepare_cached("delete from broadcast where id = ?1")?
        .execute([id])?;
    let change = counts::Change {
        total: -1,
        ..counts::Change::default()
    };
    counts::add(to, counts::EVERYBODY, change)?;
    Ok(1)
}
