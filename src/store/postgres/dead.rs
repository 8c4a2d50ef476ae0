//! Dead letters: filed once, listed, settled.

use deadpool_postgres::Client;
use deadpool_postgres::Transaction;
use tokio_postgres::Row;
use tokio_postgres::types::Json;

use super::error::Fault;
use super::types::clean;
use super::types::count;
use super::types::int;
use super::types::now;
use super::types::word;
use crate::store::DeadFilter;
use crate::store::DeadLetter;
use crate::store::Settle;

/// Looked for first, so that a letter that comes again takes no number.
const FILE: &str = "insert into dead_letter (message, stage, reason, detail, tries, died_at,
 submission, origin, deliveries, headers, body, replayed_at)
select $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12
where not exists (select from dead_letter where message = $1)
on conflict (message) do nothing";

/// Files letters in a transaction; there are few, and each may be large. Returns those that had
/// not been filed before.
pub(super) async fn file<'a>(
    tx: &Transaction<'_>,
    letters: &[&'a DeadLetter],
) -> Result<Vec<&'a DeadLetter>, Fault> {
    let mut new = Vec::new();
    if letters.is_empty() {
        return Ok(new);
    }
    let mut letters = letters.to_vec();
    letters.sort_unstable_by(|one, other| one.message.cmp(&other.message));
    let statement = tx.prepare_cached(FILE).await?;
    for letter in letters {
        let filed = tx
            .execute(
                &statement,
                &[
                    &clean(&letter.message),
                    &clean(&letter.stage),
                    &letter.reason.as_str(),
                    &clean(&letter.detail),
                    &int(letter.tries),
                    &letter.died_at,
                    &letter.submission,
                    &letter.origin.as_deref().map(clean),
                    &letter.deliveries,
                    &Json(&letter.headers),
                    &letter.body,
                    &letter.replayed_at,
                ],
            )
            .await?;
        if filed > 0 {
            new.push(letter);
        }
    }
    Ok(new)
}

/// Deliveries whose message died will not be sent, unless somebody holds them.
const GIVE_UP: &str = concat!(
    "with now as materialized (
 select ",
    now!(),
    " as at
), held as materialized (
 select id from delivery, now where id = any($1)
  and (state = 'pending' or state = 'claimed' and due_at <= now.at)
 order by id for no key update of delivery
)
update delivery d set state = 'failed', reason = t.reason, detail = t.detail, claim_token = null,
 failed_at = now.at, failure = t.detail, updated_at = now.at
from held, now, unnest($1::uuid[], $2::text[], $3::text[]) as t(id, reason, detail)
where d.id = held.id and t.id = held.id"
);

/// See [`crate::store::Store::file_dead`].
pub(super) async fn file_dead(client: &mut Client, letters: &[DeadLetter]) -> Result<(), Fault> {
    let tx = client.transaction().await?;
    let new = file(&tx, &letters.iter().collect::<Vec<_>>()).await?;
    let (mut ids, mut reasons, mut details) = (Vec::new(), Vec::new(), Vec::new());
    for letter in new {
        for id in &letter.deliveries {
            ids.push(*id);
            reasons.push(letter.reason.as_str());
            details.push(clean(&letter.detail));
        }
    }
    if !ids.is_empty() {
        let statement = tx.prepare_cached(GIVE_UP).await?;
        tx.execute(&statement, &[&ids, &reasons, &details]).await?;
    }
    tx.commit().await?;
    Ok(())
}

const LIST: &str = "select id, message, stage, reason, detail, tries, died_at, submission, origin,
 deliveries, headers, body, replayed_at
from dead_letter
where ($1::bigint[] is null or id = any($1))
 and ($2::text is null or reason = $2)
 and ($3::text is null or stage = $3)
 and ($4::timestamptz is null or died_at < $4)
 and ($5::timestamptz is null or died_at >= $5)
 and ($6 or replayed_at is null)
order by died_at desc, id desc
limit $7";

/// See [`crate::store::Store::dead_letters`].
pub(super) async fn dead_letters(
    client: &Client,
    filter: &DeadFilter,
) -> Result<Vec<DeadLetter>, Fault> {
    let statement = client.prepare_cached(LIST).await?;
    let ids = (!filter.ids.is_empty()).then_some(&filter.ids);
    let limit = (filter.limit > 0).then_some(i64::from(filter.limit));
    let rows = client
        .query(
            &statement,
            &[
                &ids,
                &filter.reason.map(|reason| reason.as_str()),
                &filter.stage,
                &filter.before,
                &filter.after,
                &filter.replayed,
                &limit,
            ],
        )
        .await?;
    rows.iter().map(letter).collect()
}

fn letter(row: &Row) -> Result<DeadLetter, Fault> {
    let Json(headers) = row.try_get(10)?;
    Ok(DeadLetter {
        id: row.try_get(0)?,
        message: row.try_get(1)?,
        stage: row.try_get(2)?,
        reason: word(row, 3, |text| text.parse().ok())?,
        detail: row.try_get(4)?,
        tries: count(row.try_get(5)?),
        died_at: row.try_get(6)?,
        submission: row.try_get(7)?,
        origin: row.try_get(8)?,
        deliveries: row.try_get(9)?,
        headers,
        body: row.try_get(11)?,
        replayed_at: row.try_get(12)?,
    })
}

/// The schedule begins anew.
const REOPEN: &str = concat!(
    "with held as materialized (
 select id from delivery
 where id in (select unnest(deliveries) from dead_letter where id = any($1)) and state = 'failed'
 order by id for no key update
), now as materialized (
 select ",
    now!(),
    " as at
)
update delivery d set state = 'pending', attempts = 0, claim_token = null,
 reason = null, detail = null, due_at = now.at, sweep_at = now.at, updated_at = now.at
from held, now where d.id = held.id"
);

const COUNT: &str = "select count(*) from dead_letter where id = any($1)";

const REPLAYED: &str = concat!(
    "update dead_letter set replayed_at = ",
    now!(),
    " where id = any($1)"
);

const DISCARD: &str = "delete from dead_letter where id = any($1)";

/// See [`crate::store::Store::settle_dead`].
pub(super) async fn settle(client: &mut Client, ids: &[i64], how: Settle) -> Result<u64, Fault> {
    let tx = client.transaction().await?;
    let sql = match how {
        Settle::Reopen => REOPEN,
        Settle::Replayed => REPLAYED,
        Settle::Discard => DISCARD,
    };
    let statement = tx.prepare_cached(sql).await?;
    let mut settled = tx.execute(&statement, &[&ids]).await?;
    if how == Settle::Reopen {
        let row = tx.query_one(COUNT, &[&ids]).await?;
        settled = super::types::large(row.try_get(0)?);
    }
    tx.commit().await?;
    Ok(settled)
}
