//! The counters of inboxes: changed with the rows they count, read in one look, counted again on
//! demand.

use rusqlite::Connection;
use rusqlite::OptionalExtension;
use rusqlite::params;

use crate::store::Counts;

/// The row that holds, in `total`, how many broadcasts there are. No ref of a user is like it.
pub(super) const EVERYBODY: &str = "*";

/// What a change of rows does to somebody's counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) unread: i64,
    pub(super) total: i64,
    pub(super) broadcasts_read: i64,
}

/// Applies a change, in the transaction that changed the rows.
pub(super) fn add(to: &Connection, user: &str, change: Change) -> rusqlite::Result<()> {
    if change == Change::default() {
        return Ok(());
    }
    to.prepare_cached(
        "insert into inbox_count (user, unread, total, broadcasts_read) values (?1, ?2, ?3, ?4)
         on conflict (user) do update set
           unread = unread + excluded.unread,
           total = total + excluded.total,
           broadcasts_read = broadcasts_read + excluded.broadcasts_read",
    )?
    .execute(params![
        user,
        change.unread,
        change.total,
        change.broadcasts_read
    ])
    .map(|_| ())
}

/// See [`crate::store::Store::counts`].
pub(super) fn of(from: &Connection, user: &str) -> rusqlite::Result<Counts> {
    let row = |user: &str| {
        from.prepare_cached(
            "select unread, total, broadcasts_read from inbox_count where user = ?1",
        )?
        .query_row([user], |row| {
            Ok(Change {
                unread: row.get(0)?,
                total: row.get(1)?,
                broadcasts_read: row.get(2)?,
            })
        })
        .optional()
        .map(Option::unwrap_or_default)
    };
    let (own, all) = (row(user)?, row(EVERYBODY)?);
    let natural = |count: i64| u64::try_from(count).unwrap_or(0);
    Ok(Counts {
        unread: natural(own.unread + all.total - own.broadcasts_read),
        read: natural(own.total - own.unread + own.broadcasts_read),
    })
}

/// What the counters should be.
macro_rules! counted {
    () => {
        "select user, sum(unread) as unread, sum(total) as total, sum(marks) as broadcasts_read
         from (
           select user, count(*) filter (where read is null) as unread, count(*) as total,
             0 as marks
           from notification group by user
           union all
           select user, 0, 0, count(*) from broadcast_mark where read is not null group by user
           union all
           select '*', 0, count(*), 0 from broadcast
         ) group by user"
    };
}

/// For how many people the counters are wrong.
pub(super) fn wrong(from: &Connection) -> rusqlite::Result<u64> {
    // A person without rows may have a counter of zeros, or none.
    let sql = concat!(
        "with counted as (",
        counted!(),
        ")
         select count(*) from counted c full join inbox_count k on k.user = c.user
         where ifnull(c.unread, 0) <> ifnull(k.unread, 0)
            or ifnull(c.total, 0) <> ifnull(k.total, 0)
            or ifnull(c.broadcasts_read, 0) <> ifnull(k.broadcasts_read, 0)"
    );
    from.query_row(sql, [], |row| super::types::count(row, 0))
}

/// The same, and puts them right.
pub(super) fn mend(to: &Connection) -> rusqlite::Result<u64> {
    let wrong = wrong(to)?;
    if 0 < wrong {
        to.execute("delete from inbox_count", [])?;
        let count = concat!(
            "insert into inbox_count (user, unread, total, broadcasts_read) ",
            counted!()
        );
        to.execute(count, [])?;
    }
    Ok(wrong)
}
