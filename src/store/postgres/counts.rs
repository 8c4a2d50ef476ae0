//! The counters of inboxes: the one place that changes them, in the transaction that changed the
//! rows, sorted by user.

use std::collections::BTreeMap;

use deadpool_postgres::Client;
use deadpool_postgres::Transaction;

use super::error::Fault;
use super::types::large;
use crate::store;

/// The row that counts broadcasts, in `total`.
pub(super) const EVERYBODY: &str = "*";

/// What a transaction did, by person.
#[derive(Debug, Default)]
pub(super) struct Counts(BTreeMap<String, Delta>);

#[derive(Debug, Default)]
struct Delta {
    unread: i64,
    total: i64,
    broadcasts_read: i64,
}

impl Counts {
    /// A row was made: `user`'s, or the broadcast's.
    pub(super) fn created(&mut self, user: Option<&str>) {
        match user {
            None => self.of(EVERYBODY).total += 1,
            Some(user) => {
                let delta = self.of(user);
                delta.unread += 1;
                delta.total += 1;
            }
        }
    }

    /// So many rows more of `user`, so many of them unread; or broadcasts, of [`EVERYBODY`]. Fewer
    /// than none were deleted.
    pub(super) fn rows(&mut self, user: &str, unread: i64, total: i64) {
        let delta = self.of(user);
        delta.unread += unread;
        delta.total += total;
    }

    /// So many of `user`'s own became unread; fewer than none became read.
    pub(super) fn unread(&mut self, user: &str, more: i64) {
        self.of(user).unread += more;
    }

    /// So many broadcasts became read by `user`.
    pub(super) fn broadcasts_read(&mut self, user: &str, more: i64) {
        self.of(user).broadcasts_read += more;
    }

    fn of(&mut self, user: &str) -> &mut Delta {
        self.0.entry(user.to_owned()).or_default()
    }
}

const ADD: &str = r#"insert into inbox_count as c ("user", unread, total, broadcasts_read)
select * from unnest($1::text[], $2::bigint[], $3::bigint[], $4::bigint[])
on conflict ("user") do update set
 unread = c.unread + excluded.unread,
 total = c.total + excluded.total,
 broadcasts_read = c.broadcasts_read + excluded.broadcasts_read"#;

/// Applies what was counted.
pub(super) async fn add(tx: &Transaction<'_>, counts: &Counts) -> Result<(), Fault> {
    let changed: Vec<(&String, &Delta)> = counts
        .0
        .iter()
        .filter(|(_, delta)| (delta.unread, delta.total, delta.broadcasts_read) != (0, 0, 0))
        .collect();
    if changed.is_empty() {
        return Ok(());
    }
    let users: Vec<&str> = changed.iter().map(|(user, _)| user.as_str()).collect();
    let of = |field: fn(&Delta) -> i64| -> Vec<i64> {
        changed.iter().map(|(_, delta)| field(delta)).collect()
    };
    let statement = tx.prepare_cached(ADD).await?;
    tx.execute(
        &statement,
        &[
            &users,
            &of(|delta| delta.unread),
            &of(|delta| delta.total),
            &of(|delta| delta.broadcasts_read),
        ],
    )
    .await?;
    Ok(())
}

const READ: &str = r#"select
 coalesce(sum(unread) filter (where "user" = $1), 0)::bigint,
 coalesce(sum(total) filter (where "user" = $1), 0)::bigint,
 coalesce(sum(broadcasts_read) filter (where "user" = $1), 0)::bigint,
 coalesce(sum(total) filter (where "user" = '*'), 0)::bigint
from inbox_count where "user" in ($1, '*')"#;

/// See [`crate::store::Store::counts`].
pub(super) async fn read(client: &Client, user: &str) -> Result<store::Counts, Fault> {
    let statement = client.prepare_cached(READ).await?;
    let row = client.query_one(&statement, &[&user]).await?;
    let at = |index| row.try_get::<_, i64>(index);
    let (unread, total, broadcasts_read, broadcasts) = (at(0)?, at(1)?, at(2)?, at(3)?);
    Ok(store::Counts {
        unread: large(unread + broadcasts - broadcasts_read),
        read: large(total - unread + broadcasts_read),
    })
}

/// What the rows say, beside what the counters say where they differ.
macro_rules! wrong {
    () => {
        r#"with own as (
 select "user", count(*) filter (where read is null) as unread, count(*) as total
 from notification group by 1
), marks as (
 select "user", count(*) as broadcasts_read from broadcast_mark where read is not null group by 1
), truth as (
 select "user", coalesce(unread, 0) as unread, coalesce(total, 0) as total,
  coalesce(broadcasts_read, 0) as broadcasts_read
 from own full join marks using ("user")
 union all select '*', 0, count(*), 0 from broadcast
), wrong as (
 select "user", coalesce(t.unread, 0) as unread, coalesce(t.total, 0) as total,
  coalesce(t.broadcasts_read, 0) as broadcasts_read
 from truth t full join inbox_count c using ("user")
 where (coalesce(t.unread, 0), coalesce(t.total, 0), coalesce(t.broadcasts_read, 0))
  is distinct from (coalesce(c.unread, 0), coalesce(c.total, 0), coalesce(c.broadcasts_read, 0))
)
"#
    };
}

const MEND: &str = concat!(
    wrong!(),
    r#"insert into inbox_count ("user", unread, total, broadcasts_read)
select "user", unread, total, broadcasts_read from wrong order by "user"
on conflict ("user") do update set unread = excluded.unread, total = excluded.total,
 broadcasts_read = excluded.broadcasts_read"#
);

const COUNT_WRONG: &str = concat!(wrong!(), "select count(*) from wrong");

/// See [`crate::store::Store::recount`].
pub(super) async fn recount(client: &mut Client, mend: bool) -> Result<u64, Fault> {
    if !mend {
        // One statement sees one moment, in which rows and counters agree.
        return Ok(large(client.query_one(COUNT_WRONG, &[]).await?.try_get(0)?));
    }
    let tx = client.transaction().await?;
    // Waits for everybody who has counted and not yet committed; whoever has not counted yet will
    // add to what is written here.
    tx.batch_execute("lock table inbox_count in share row exclusive mode")
        .await?;
    let wrong = tx.execute(MEND, &[]).await?;
    tx.commit().await?;
    Ok(wrong)
}
