//! Deliveries between their being stored and their end: claims, records, the sweep.
//!
//! Times are the database's: a lease is as long for every sender, whatever its clock says.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::collections::HashSet;
use std::time::Duration;

use deadpool_postgres::Client;
use serde_json::Map;
use serde_json::Value;
use tokio_postgres::Row;
use tokio_postgres::types::Json;
use uuid::Uuid;

use super::dead;
use super::error::Fault;
use super::types::clean;
use super::types::count;
use super::types::header;
use super::types::header_columns;
use super::types::now;
use super::types::word;
use crate::chunk::RefReport;
use crate::delivery::Attempt;
use crate::delivery::DELIVERIES_PER_MESSAGE_MAX;
use crate::delivery::DeliveryBatch;
use crate::delivery::DeliveryItem;
use crate::delivery::DeliveryState;
use crate::store::Claim;
use crate::store::DeadLetter;
use crate::store::Earlier;
use crate::store::NewDelivery;
use crate::time::Timestamp;

/// Looks at the deliveries under a lock, sorted, and takes those that are due, or that the same
/// token took before, so that a claim whose answer was lost may be repeated. `attempts` counts the
/// tries that ended; a holder that vanished made one too.
const CLAIM: &str = concat!(
    "with held as materialized (
 select id, state, due_at, claim_token is not distinct from $2 as again
 from delivery where id = any($1) order by id for no key update
), now as materialized (
 select ",
    now!(),
    " as at
), mine as (
 update delivery d set state = 'claimed', claim_token = $2,
  attempts = d.attempts + (held.state = 'claimed' and not held.again)::integer,
  doubtful = d.doubtful or (held.state = 'claimed' and not held.again),
  due_at = now.at + make_interval(secs => $3), sweep_at = now.at + make_interval(secs => $3),
  updated_at = now.at
 from held, now
 where d.id = held.id and (held.state in ('pending', 'claimed') and held.due_at <= now.at
  or held.state = 'claimed' and held.again)
 returning d.id, d.attempts, d.doubtful, d.due_at
)
select held.id, held.state, coalesce(mine.due_at, held.due_at), mine.attempts, mine.doubtful
from held left join mine using (id)"
);

/// See [`crate::store::Store::claim`].
pub(super) async fn claim(
    client: &Client,
    ids: &[Uuid],
    token: Uuid,
    lease: Duration,
) -> Result<Vec<Claim>, Fault> {
    let statement = client.prepare_cached(CLAIM).await?;
    let rows = client
        .query(&statement, &[&ids, &token, &lease.as_secs_f64()])
        .await?;
    let mut claims: HashMap<Uuid, (Claim, Timestamp)> = HashMap::with_capacity(rows.len());
    for row in rows {
        let state = word(&row, 1, DeliveryState::from_word)?;
        let due = row.try_get(2)?;
        let claim = match row.try_get::<_, Option<i32>>(3)? {
            Some(attempts) => Claim::Mine {
                attempt: count(attempts).saturating_add(1),
                doubtful: row.try_get(4)?,
            },
            None if state.is_final() => Claim::Done,
            None => Claim::NotBefore(due),
        };
        claims.insert(row.try_get(0)?, (claim, due));
    }
    // Whoever asks for one delivery twice at once gets it once.
    let mut given = HashSet::new();
    Ok(ids
        .iter()
        .map(|id| match claims.get(id) {
            None => Claim::Done,
            Some((Claim::Mine { .. }, due)) if !given.insert(id) => Claim::NotBefore(*due),
            Some((claim, _)) => *claim,
        })
        .collect())
}

/// `$8`: this is the second try after a lost connection, and the first may have been recorded.
const RECORD: &str = concat!(
    "with held as materialized (
 select id from delivery
 where id = any($2) and claim_token = $1 and (state = 'claimed' or $8)
 order by id for no key update
), now as materialized (
 select ",
    now!(),
    " as at
)
update delivery d set state = t.state, reason = t.reason, detail = t.detail,
 provider_id = coalesce(t.provider_id, d.provider_id),
 attempts = d.attempts + (d.state = 'claimed' and not t.uncounted)::integer,
 due_at = coalesce(t.next_at, now.at), sweep_at = coalesce(t.next_at, now.at),
 failed_at = case when t.state in ('pending', 'failed') and not t.uncounted
  then now.at else d.failed_at end,
 failure = case when t.state in ('pending', 'failed') and not t.uncounted
  then t.detail else d.failure end,
 updated_at = now.at
from held, now, unnest($2::uuid[], $3::text[], $4::text[], $5::text[], $6::text[],
 $7::timestamptz[], $9::boolean[])
 as t(id, state, reason, detail, provider_id, next_at, uncounted)
where d.id = held.id and t.id = held.id and (d.state = 'claimed' or d.state = t.state)
returning d.id"
);

/// See [`crate::store::Store::record`]. `again`: an earlier try of the same may have been
/// committed before its connection was lost.
pub(super) async fn record(
    client: &mut Client,
    token: Uuid,
    attempts: &[Attempt],
    letters: &[DeadLetter],
    again: bool,
) -> Result<Vec<Uuid>, Fault> {
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

    let tx = client.transaction().await?;
    let statement = tx.prepare_cached(RECORD).await?;
    let rows = tx
        .query(
            &statement,
            &[
                &token, &ids, &states, &reasons, &details, &providers, &next, &again, &uncounted,
            ],
        )
        .await?;
    let recorded: HashSet<Uuid> = rows
        .iter()
        .map(|row| row.try_get(0))
        .collect::<Result<_, _>>()?;
    // What came of a delivery that somebody else holds now is theirs to tell.
    let mine: Vec<&DeadLetter> = letters
        .iter()
        .filter(|letter| {
            letter.deliveries.is_empty() || letter.deliveries.iter().any(|id| recorded.contains(id))
        })
        .collect();
    dead::file(&tx, &mine).await?;
    tx.commit().await?;
    Ok(ids.into_iter().filter(|id| recorded.contains(id)).collect())
}

const EARLIER: &str = "select e.provider_id, e.submission, e.accepted_at
from unnest($1::uuid[]) with ordinality as t(id, no)
left join delivery d on d.id = t.id
left join lateral (
 select p.provider_id, c.submission, c.accepted_at
 from delivery p join submission_chunk c on c.submission = p.submission and c.no = p.chunk
 where p.notification = d.notification and p.channel = d.channel and p.target = d.target
  and p.id <> d.id and p.state = 'sent' and p.provider_id is not null
 order by p.updated_at desc limit 1
) e on true
order by t.no";

/// See [`crate::store::Store::earlier`].
pub(super) async fn earlier(client: &Client, ids: &[Uuid]) -> Result<Vec<Option<Earlier>>, Fault> {
    let statement = client.prepare_cached(EARLIER).await?;
    let rows = client.query(&statement, &[&ids]).await?;
    rows.iter()
        .map(|row| {
            let Some(provider_id) = row.try_get(0)? else {
                return Ok(None);
            };
            Ok(Some(Earlier {
                provider_id,
                submission: row.try_get(1)?,
                accepted_at: row.try_get(2)?,
            }))
        })
        .collect()
}

const RELEASE: &str = concat!(
    "with held as materialized (
 select id from delivery where id = any($2) and claim_token = $1 and state = 'claimed'
 order by id for no key update
), now as materialized (
 select ",
    now!(),
    " as at
)
update delivery d set state = 'pending', claim_token = null,
 due_at = now.at, sweep_at = now.at, updated_at = now.at
from held, now where d.id = held.id"
);

/// See [`crate::store::Store::release`].
pub(super) async fn release(client: &Client, token: Uuid, ids: &[Uuid]) -> Result<(), Fault> {
    let statement = client.prepare_cached(RELEASE).await?;
    client.execute(&statement, &[&token, &ids]).await?;
    Ok(())
}

const EXPAND: &str = concat!(
    "with now as materialized (
 select ",
    now!(),
    r#" as at
), parent as (
 update delivery set state = 'expanded', updated_at = now.at from now
 where id = $2 and claim_token = $1 and state = 'claimed'
 returning id, submission, chunk, notification, "user"
)
insert into delivery (id, submission, chunk, notification, "user", channel, target, parent, state,
 reason, detail, due_at, sweep_at, created_at, updated_at)
select t.id, parent.submission, parent.chunk, parent.notification, parent."user", t.channel,
 t.target, parent.id, t.state, t.reason, t.detail, now.at, now.at, now.at, now.at
from parent, now, unnest($3::uuid[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[])
 as t(id, channel, target, state, reason, detail)
order by t.id
on conflict do nothing"#
);

/// See [`crate::store::Store::expand`].
pub(super) async fn expand(
    client: &Client,
    token: Uuid,
    parent: Uuid,
    children: &[NewDelivery],
) -> Result<(), Fault> {
    let ids: Vec<Uuid> = children.iter().map(|one| one.id).collect();
    let channels: Vec<&str> = children.iter().map(|one| &*one.channel).collect();
    let targets: Vec<&str> = children.iter().map(|one| &*one.target).collect();
    let states: Vec<&str> = children.iter().map(|one| one.state.as_str()).collect();
    let reasons: Vec<Option<&str>> = children
        .iter()
        .map(|one| one.reason.map(|reason| reason.as_str()))
        .collect();
    let details: Vec<Option<&str>> = children.iter().map(|one| one.detail.as_deref()).collect();
    let statement = client.prepare_cached(EXPAND).await?;
    client
        .execute(
            &statement,
            &[
                &token, &parent, &ids, &channels, &targets, &states, &reasons, &details,
            ],
        )
        .await?;
    Ok(())
}

/// What several sweeps at once take is shared between them; what is taken counts as due from now.
/// Whose inbox is switched off has no row; then the delivery's own age serves.
const STRANDED: &str = concat!(
    "with due as materialized (
 select id from delivery
 where channel = $1 and state in ('pending', 'claimed') and sweep_at < $2
  and due_at <= clock_timestamp()
 order by sweep_at limit $3
 for no key update skip locked
), taken as (
 update delivery d set sweep_at = greatest($2, ",
    now!(),
    r#")
 from due where d.id = due.id
 returning d.id, d.submission, d.chunk, d.notification, d."user", d.target, d.created_at
)
select "#,
    header_columns!(),
    r#", c.no, c.payload, t.id, t.notification, t."user", t.target,
 c.patches -> t.notification::text, coalesce(n.created, b.created, t.created_at), c.refs
from taken t
join submission_chunk c on c.submission = t.submission and c.no = t.chunk
left join notification n on n.id = t.notification
left join broadcast b on b.id = t.notification
order by c.submission, c.no, t."user", t.target, t.id"#
);

/// See [`crate::store::Store::stranded`].
pub(super) async fn stranded(
    client: &Client,
    channel: &str,
    due_before: Timestamp,
    limit: u32,
) -> Result<Vec<DeliveryBatch>, Fault> {
    let statement = client.prepare_cached(STRANDED).await?;
    let rows = client
        .query(&statement, &[&channel, &due_before, &i64::from(limit)])
        .await?;
    // The payload of a chunk is its own, and so are the messages made of it.
    let mut batches: BTreeMap<(Uuid, i32), Vec<DeliveryBatch>> = BTreeMap::new();
    for row in rows {
        let alone = alone(&row, channel)?;
        let chunk = batches
            .entry((alone.header.id, row.try_get(6)?))
            .or_default();
        match chunk.last_mut() {
            Some(batch) if batch.items.len() < DELIVERIES_PER_MESSAGE_MAX => {
                batch.items.extend(alone.items);
                if batch.recipients.is_empty() {
                    batch.recipients = alone.recipients;
                }
            }
            _ => chunk.push(alone),
        }
    }
    Ok(batches.into_values().flatten().collect())
}

/// A message that carries the delivery of a row alone: the columns of a header, `no`, `payload`,
/// `id`, `notification`, `user`, `target`, its patch, `created` and the chunk's refs.
pub(super) fn alone(row: &Row, channel: &str) -> Result<DeliveryBatch, Fault> {
    let Json(payload) = row.try_get(7)?;
    let patch: Option<Json<Map<String, Value>>> = row.try_get(12)?;
    let item = DeliveryItem {
        id: row.try_get(8)?,
        notification: row.try_get(9)?,
        user: row.try_get(10)?,
        target: row.try_get(11)?,
        person: None,
        tries: 0,
        patch: patch.map(|Json(fields)| fields),
        created: row.try_get(13)?,
    };
    let mut recipients = Vec::new();
    if item.user.is_none() {
        let refs: Option<Json<Vec<RefReport>>> = row.try_get(14)?;
        let refs = refs.into_iter().flat_map(|Json(refs)| refs);
        recipients.extend(refs.map(|one| one.entity));
    }
    Ok(DeliveryBatch {
        header: header(row, 0)?,
        channel: channel.to_owned(),
        payload,
        recipients,
        items: vec![item],
        extra: Map::new(),
    })
}
