//! Deliveries in the hands of foreign senders, who claim nothing and report what they did.

use deadpool_postgres::Client;
use uuid::Uuid;

use super::delivery::alone;
use super::error::Fault;
use super::types::clean;
use super::types::count;
use super::types::header_columns;
use super::types::now;
use crate::delivery::Attempt;
use crate::store::NOBODY_REPORTED;
use crate::store::Reported;
use crate::time::Timestamp;

const REPORT: &str = concat!(
    "with held as materialized (
 select id from delivery
 where id = any($2) and channel = any($1) and state in ('pending', 'claimed', 'unknown')
 order by id for no key update
), now as materialized (
 select ",
    now!(),
    " as at
)
update delivery d set state = t.state, reason = t.reason, detail = t.detail,
 provider_id = coalesce(t.provider_id, d.provider_id), claim_token = null,
 attempts = d.attempts + (not t.uncounted)::integer,
 due_at = coalesce(t.next_at, now.at), sweep_at = coalesce(t.next_at, now.at),
 failed_at = case when t.state in ('pending', 'failed') then now.at else d.failed_at end,
 failure = case when t.state in ('pending', 'failed') then t.detail else d.failure end,
 updated_at = now.at
from held, now, unnest($2::uuid[], $3::text[], $4::text[], $5::text[], $6::text[],
 $7::timestamptz[], $8::bool[])
 as t(id, state, reason, detail, provider_id, next_at, uncounted)
where d.id = held.id and t.id = held.id"
);

/// Whose inbox is switched off has no row; then the delivery's own age serves.
const STANDS: &str = concat!(
    "select ",
    header_columns!(),
    r#", c.no, c.payload, d.id, d.notification, d."user", d.target,
 c.patches -> d.notification::text, coalesce(n.created, b.created, d.created_at), c.refs,
 d.attempts,
 d.channel
from unnest($2::uuid[], $3::text[]) as t(id, state)
join delivery d on d.id = t.id and d.state = t.state and d.channel = any($1)
join submission_chunk c on c.submission = d.submission and c.no = d.chunk
left join notification n on n.id = d.notification
left join broadcast b on b.id = d.notification"#
);

/// See [`crate::store::Store::report`].
pub(super) async fn report(
    client: &Client,
    channels: &[String],
    attempts: &[Attempt],
) -> Result<Vec<Reported>, Fault> {
    let ids: Vec<Uuid> = attempts.iter().map(|one| one.delivery).collect();
    let states: Vec<&str> = attempts.iter().map(|one| one.state.as_str()).collect();
    let reasons: Vec<Option<&str>> = attempts
        .iter()
        .map(|one| one.reason.map(|reason| reason.as_str()))
        .collect();
    let details: Vec<_> = attempts
        .iter()
        .map(|one| one.detail.as_deref().map(clean))
        .collect();
    let providers: Vec<_> = attempts
        .iter()
        .map(|one| one.provider_id.as_deref().map(clean))
        .collect();
    let next: Vec<Option<Timestamp>> = attempts.iter().map(|one| one.next_at).collect();
    let uncounted: Vec<bool> = attempts.iter().map(|one| one.uncounted).collect();
    let report = client.prepare_cached(REPORT).await?;
    client
        .execute(
            &report,
            &[
                &channels, &ids, &states, &reasons, &details, &providers, &next, &uncounted,
            ],
        )
        .await?;
    let stands = client.prepare_cached(STANDS).await?;
    let rows = client.query(&stands, &[&channels, &ids, &states]).await?;
    rows.iter()
        .map(|row| {
            let channel: String = row.try_get(16)?;
            Ok(Reported {
                delivery: row.try_get(8)?,
                tries: count(row.try_get(15)?),
                batch: alone(row, &channel)?,
            })
        })
        .collect()
}

const OVERDUE: &str = concat!(
    "with due as materialized (
 select id from delivery
 where channel = $1 and state in ('pending', 'claimed') and sweep_at < $2 and due_at < $2
 order by sweep_at limit $3
 for no key update skip locked
)
update delivery d set state = 'unknown', reason = 'timeout', detail = $4, updated_at = ",
    now!(),
    " from due where d.id = due.id"
);

/// See [`crate::store::Store::overdue`].
pub(super) async fn overdue(
    client: &Client,
    channel: &str,
    due_before: Timestamp,
    limit: u32,
) -> Result<u64, Fault> {
    let statement = client.prepare_cached(OVERDUE).await?;
    let rows = client
        .execute(
            &statement,
            &[&channel, &due_before, &i64::from(limit), &NOBODY_REPORTED],
        )
        .await?;
    Ok(rows)
}
