//! What a reader does with notifications: read, unread, saved, and all read at once.

use rusqlite::Connection;
use rusqlite::OptionalExtension;
use rusqlite::params;
use uuid::Uuid;

use super::counts;
use super::inbox;
use crate::notification::Notification;
use crate::store::Mark;
use crate::time::Timestamp;

/// How many are marked in one transaction.
pub(super) const IDS_AT_ONCE: usize = 5_000;

/// See [`crate::store::Store::mark`]. `ids` are sorted, each once; the answer is in their order.
pub(super) fn mark(
    to: &Connection,
    user: &str,
    ids: &[Uuid],
    mark: Mark,
) -> rusqlite::Result<Vec<Notification>> {
    let now = Timestamp::now();
    let mut change = counts::Change::default();
    let mut marked = Vec::with_capacity(ids.len());
    for &id in ids {
        if mark != Mark::default() && !own(to, user, id, mark, now, &mut change)? {
            broadcast(to, user, id, mark, now, &mut change)?;
        }
        marked.extend(inbox::get(to, user, id)?);
    }
    counts::add(to, user, change)?;
    Ok(marked)
}

/// Marks a row of the person's own; says whether there is one.
fn own(
    to: &Connection,
    user: &str,
    id: Uuid,
    mark: Mark,
    now: Timestamp,
    change: &mut counts::Change,
) -> rusqlite::Result<bool> {
    let was_read = to
        .prepare_cached("select read is not null from notification where id = ?1 and user = ?2")?
        .query_row(params![id, user], |row| row.get::<_, bool>(0))
        .optional()?;
    let Some(was_read) = was_read else {
        return Ok(false);
    };
    to.prepare_cached(
        "update notification set read = iif(?3 is null, read, iif(?3, ?5, null)),
           saved = iif(?4 is null, saved, iif(?4, ?5, null))
         where id = ?1 and user = ?2",
    )?
    .execute(params![id, user, mark.read, mark.saved, now])?;
    change.unread -= turned(was_read, mark.read);
    Ok(true)
}

/// Marks a broadcast for this person, if there is one.
fn broadcast(
    to: &Connection,
    user: &str,
    id: Uuid,
    mark: Mark,
    now: Timestamp,
    change: &mut counts::Change,
) -> rusqlite::Result<()> {
    let was_read = to
        .prepare_cached(
            "select m.read is not null from broadcast b
             left join broadcast_mark m on m.broadcast = b.id and m.user = ?2
             where b.id = ?1",
        )?
        .query_row(params![id, user], |row| row.get::<_, bool>(0))
        .optional()?;
    let Some(was_read) = was_read else {
        return Ok(());
    };
    to.prepare_cached(
        "insert into broadcast_mark (user, broadcast, read, saved)
         values (?2, ?1, iif(?3, ?5, null), iif(?4, ?5, null))
         on conflict (user, broadcast) do update set
           read = iif(?3 is null, read, excluded.read),
           saved = iif(?4 is null, saved, excluded.saved)",
    )?
    .execute(params![id, user, mark.read, mark.saved, now])?;
    change.broadcasts_read += turned(was_read, mark.read);
    Ok(())
}

/// What a mark does to the number of those read.
fn turned(was_read: bool, mark: Option<bool>) -> i64 {
    i64::from(mark.unwrap_or(was_read)) - i64::from(was_read)
}

/// See [`crate::store::Store::mark_all_read`].
pub(super) fn all_read(to: &Connection, user: &str) -> rusqlite::Result<u64> {
    let now = Timestamp::now();
    let own = to
        .prepare_cached("update notification set read = ?2 where user = ?1 and read is null")?
        .execute(params![user, now])?;
    let broadcasts = to
        .prepare_cached(
            "insert into broadcast_mark (user, broadcast, read)
             select ?1, b.id, ?2 from broadcast b
             left join broadcast_mark m on m.broadcast = b.id and m.user = ?1
             where m.read is null
             on conflict (user, broadcast) do update set read = excluded.read",
        )?
        .execute(params![user, now])?;
    let signed = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    let change = counts::Change {
        unread: -signed(own),
        total: 0,
        broadcasts_read: signed(broadcasts),
    };
    counts::add(to, user, change)?;
    Ok(own as u64 + broadcasts as u64)
}
