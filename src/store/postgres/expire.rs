//! Deleting what is too old from inboxes, oldest first, in batches by one process at a time.
//!
//! Rows that somebody is changing are left for the next time: nothing waits for them, and so
//! nothing can deadlock. A broadcast goes with all its marks, since without them it would look
//! unread.

use deadpool_postgres::Client;
use deadpool_postgres::Transaction;
use uuid::Uuid;

use super::LockClass;
use super::counts;
use super::counts::Counts;
use super::counts::EVERYBODY;
use super::error::Fault;
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

/// `n` is the table; `$1` is the last moment that is too old, `$2` the size of a batch.
macro_rules! own {
    ($saved:literal) => {
        concat!(
            r#"with old as materialized (
 select id from notification
 where coalesce(updated, created) <= $1 and saved is "#,
            $saved,
            r#"
 order by coalesce(updated, created) limit $2 for update skip locked
), gone as (
 delete from notification n using old where n.id = old.id
 returning n."user", n.read is null as unread
)
select "user", count(*) filter (where unread), count(*) from gone group by 1"#
        )
    };
}

const OWN: &str = own!("null");
const OWN_SAVED: &str = own!("not null");

/// Once it is locked, nobody can mark it any more, and every mark there is can be seen.
const BROADCAST: &str = "select id from broadcast b
where coalesce(updated, created) <= $1 and ($2 or not exists (
 select from broadcast_mark m where m.broadcast = b.id and m.saved is not null))
order by coalesce(updated, created) limit 1 for update skip locked";

const MARKS: &str = r#"delete from broadcast_mark where broadcast = $1
returning "user", read is not null"#;

/// One batch; says how many rows went. Nothing went when another process is at it.
pub(super) async fn batch(
    client: &mut Client,
    what: What,
    before: Timestamp,
    batch: u32,
) -> Result<u64, Fault> {
    let tx = client.transaction().await?;
    let alone = tx
        .prepare_cached("select pg_try_advisory_xact_lock($1, 0)")
        .await?;
    let alone: bool = tx
        .query_one(&alone, &[&(LockClass::Expiry as i32)])
        .await?
        .try_get(0)?;
    if !alone {
        return Ok(0);
    }
    let mut counts = Counts::default();
    let gone = match what {
        What::Own => own(&tx, OWN, before, batch, &mut counts).await?,
        What::OwnSaved => own(&tx, OWN_SAVED, before, batch, &mut counts).await?,
        What::Broadcast(saved) => broadcast(&tx, before, saved, &mut counts).await?,
    };
    counts::add(&tx, &counts).await?;
    tx.commit().await?;
    Ok(gone)
}

async fn own(
    tx: &Transaction<'_>,
    sql: &str,
    before: Timestamp,
    batch: u32,
    counts: &mut Counts,
) -> Result<u64, Fault> {
    let statement = tx.prepare_cached(sql).await?;
    let mut gone = 0;
    // A batch of nothing would never end.
    let batch = i64::from(batch.max(1));
    for row in tx.query(&statement, &[&before, &batch]).await? {
        let (unread, total): (i64, i64) = (row.try_get(1)?, row.try_get(2)?);
        counts.rows(row.try_get(0)?, -unread, -total);
        gone += total;
    }
    Ok(super::types::large(gone))
}

async fn broadcast(
    tx: &Transaction<'_>,
    before: Timestamp,
    saved: bool,
    counts: &mut Counts,
) -> Result<u64, Fault> {
    let statement = tx.prepare_cached(BROADCAST).await?;
    let Some(row) = tx.query_opt(&statement, &[&before, &saved]).await? else {
        return Ok(0);
    };
    let id: Uuid = row.try_get(0)?;
    let marks = tx.prepare_cached(MARKS).await?;
    for row in tx.query(&marks, &[&id]).await? {
        if row.try_get(1)? {
            counts.broadcasts_read(row.try_get(0)?, -1);
        }
    }
    let delete = tx
        .prepare_cached("delete from broadcast where id = $1")
        .await?;
    tx.execute(&delete, &[&id]).await?;
    counts.rows(EVERYBODY, 0, -1);
    Ok(1)
}
