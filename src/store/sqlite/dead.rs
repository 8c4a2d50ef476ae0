//! Dead letters: filed once, listed, settled.

use rusqlite::Connection;
use rusqlite::params;
use rusqlite::params_from_iter;
use rusqlite::types::Value;

use super::types::Ids;
use super::types::Json;
use crate::store::DeadFilter;
use crate::store::DeadLetter;
use crate::store::Settle;
use crate::time::Timestamp;

/// See [`crate::store::Store::file_dead`].
pub(super) fn file(to: &Connection, letters: &[DeadLetter]) -> rusqlite::Result<()> {
    let now = Timestamp::now();
    let mut give_up = to.prepare_cached(
        "update delivery set state = 'failed', reason = ?2, detail = ?3, claim_token = null,
           failed_at = ?4, failure = ?3, updated_at = ?4
         where id = ?1 and (state = 'pending' or (state = 'claimed' and due_at <= ?4))",
    )?;
    for letter in letters {
        if !insert(to, letter)? {
            continue;
        }
        for id in &letter.deliveries {
            give_up.execute(params![id, letter.reason, letter.detail, now])?;
        }
    }
    Ok(())
}

/// Files a letter unless this death was filed before; says whether it did.
pub(super) fn insert(to: &Connection, letter: &DeadLetter) -> rusqlite::Result<bool> {
    let filed = to
        .prepare_cached(
            "insert into dead_letter
               (message, stage, reason, detail, tries, died_at, submission, origin, deliveries,
                headers, body, replayed_at)
             values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)
             on conflict (message) do nothing",
        )?
        .execute(params![
            letter.message,
            letter.stage,
            letter.reason,
            letter.detail,
            letter.tries,
            letter.died_at,
            letter.submission,
            letter.origin,
            Ids(letter.deliveries.clone()),
            Json(&letter.headers),
            letter.body,
            letter.replayed_at,
        ])?;
    Ok(0 < filed)
}

/// See [`crate::store::Store::dead_letters`].
pub(super) fn list(from: &Connection, filter: &DeadFilter) -> rusqlite::Result<Vec<DeadLetter>> {
    let mut sql = "select id, message, stage, reason, detail, tries, died_at, submission, origin, \
                   deliveries, headers, body, replayed_at from dead_letter where true"
        .to_owned();
    let mut values: Vec<Value> = Vec::new();
    let mut and = |condition: &str, value: Option<Value>| {
        if let Some(value) = value {
            values.push(value);
            sql.push_str(&format!(" and {condition} ?{}", values.len()));
        }
    };
    and(
        "reason =",
        filter.reason.map(|one| one.as_str().to_owned().into()),
    );
    and("stage =", filter.stage.clone().map(Value::from));
    and("died_at <", filter.before.map(|at| at.as_millis().into()));
    and("died_at >=", filter.after.map(|at| at.as_millis().into()));
    if !filter.ids.is_empty() {
        values.push(Json(&filter.ids).text().into());
        sql.push_str(&format!(
            " and id in (select value from json_each(?{}))",
            values.len()
        ));
    }
    if !filter.replayed {
        sql.push_str(" and replayed_at is null");
    }
    sql.push_str(" order by died_at desc, id desc");
    if filter.limit != 0 {
        sql.push_str(&format!(" limit {}", filter.limit));
    }
    from.prepare_cached(&sql)?
        .query_map(params_from_iter(&values), |row| {
            let Ids(deliveries) = row.get(9)?;
            let Json(headers) = row.get(10)?;
            Ok(DeadLetter {
                id: row.get(0)?,
                message: row.get(1)?,
                stage: row.get(2)?,
                reason: row.get(3)?,
                detail: row.get(4)?,
                tries: row.get(5)?,
                died_at: row.get(6)?,
                submission: row.get(7)?,
                origin: row.get(8)?,
                deliveries,
                headers,
                body: row.get(11)?,
                replayed_at: row.get(12)?,
            })
        })?
        .collect()
}

/// See [`crate::store::Store::settle_dead`].
pub(super) fn settle(to: &Connection, ids: &[i64], how: Settle) -> rusqlite::Result<u64> {
    let now = Timestamp::now();
    let mut settled = 0;
    for id in ids {
        settled += match how {
            Settle::Reopen => reopen(to, *id, now)?,
            Settle::Replayed => to
                .prepare_cached("update dead_letter set replayed_at = ?2 where id = ?1")?
                .execute(params![id, now])?,
            Settle::Discard => to
                .prepare_cached("delete from dead_letter where id = ?1")?
                .execute([id])?,
        };
    }
    Ok(settled as u64)
}

/// Makes the failed deliveries of a letter pending, with the whole retry schedule before them.
fn reopen(to: &Connection, id: i64, now: Timestamp) -> rusqlite::Result<usize> {
    let mut statement = to.prepare_cached("select deliveries from dead_letter where id = ?1")?;
    let letters: Vec<Ids> = statement
        .query_map([id], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    let mut update = to.prepare_cached(
        "update delivery set state = 'pending', attempts = 0, due_at = ?2, sweep_at = ?2,
           reason = null, detail = null, updated_at = ?2
         where id = ?1 and state = 'failed'",
    )?;
    for Ids(deliveries) in &letters {
        for delivery in deliveries {
            update.execute(params![delivery, now])?;
        }
    }
    Ok(letters.len())
}
