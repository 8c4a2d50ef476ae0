//! What operators and processes keep: tokens, heartbeats, the summary, retention.

use deadpool_postgres::Client;
use uuid::Uuid;

use super::error::Fault;
use super::types::large;
use super::types::now;
use super::types::word;
use crate::store::ChannelSummary;
use crate::store::Pause;
use crate::store::PluginKey;
use crate::store::Process;
use crate::store::Retention;
use crate::store::SECRET_BYTES;
use crate::store::Summary;
use crate::store::Token;

const TOKENS: &str = "select hash, subject, scopes, created, expires, last_used from token
order by created, hash";

/// See [`crate::store::Store::tokens`].
pub(super) async fn tokens(client: &Client) -> Result<Vec<Token>, Fault> {
    let statement = client.prepare_cached(TOKENS).await?;
    let rows = client.query(&statement, &[]).await?;
    rows.iter()
        .map(|row| {
            Ok(Token {
                hash: row.try_get(0)?,
                subject: row.try_get(1)?,
                scopes: row.try_get(2)?,
                created: row.try_get(3)?,
                expires: row.try_get(4)?,
                last_used: row.try_get(5)?,
            })
        })
        .collect()
}

const ADD_TOKEN: &str = "insert into token (hash, subject, scopes, created, expires, last_used)
values ($1, $2, $3, $4, $5, $6)
on conflict (hash) do update set
 subject = excluded.subject, scopes = excluded.scopes, expires = excluded.expires";

/// See [`crate::store::Store::add_token`].
pub(super) async fn add_token(client: &Client, token: &Token) -> Result<(), Fault> {
    let statement = client.prepare_cached(ADD_TOKEN).await?;
    client
        .execute(
            &statement,
            &[
                &token.hash,
                &token.subject,
                &token.scopes,
                &token.created,
                &token.expires,
                &token.last_used,
            ],
        )
        .await?;
    Ok(())
}

/// See [`crate::store::Store::revoke_token`].
pub(super) async fn revoke_token(client: &Client, hash: &str) -> Result<u64, Fault> {
    let statement = client
        .prepare_cached("delete from token where $1 <> '' and starts_with(hash, $1)")
        .await?;
    Ok(client.execute(&statement, &[&hash]).await?)
}

/// A token that is in use all the time is written once a minute.
const TOUCH_TOKENS: &str = concat!(
    "with now as materialized (
 select ",
    now!(),
    " as at
), held as materialized (
 select hash from token, now
 where hash = any($1) and coalesce(last_used <= now.at - interval '1 minute', true)
 order by hash for no key update of token
)
update token t set last_used = now.at from held, now where t.hash = held.hash"
);

/// See [`crate::store::Store::touch_tokens`].
pub(super) async fn touch_tokens(client: &Client, hashes: &[String]) -> Result<(), Fault> {
    let statement = client.prepare_cached(TOUCH_TOKENS).await?;
    client.execute(&statement, &[&hashes]).await?;
    Ok(())
}

/// What has ended is deleted by whoever comes first; nobody waits for it.
const ADD_PLUGIN_KEY: &str = concat!(
    "with ended as materialized (
 select kid from plugin_key where ends < ",
    now!(),
    " and kid <> $1 order by kid for update skip locked
), gone as (
 delete from plugin_key k using ended where k.kid = ended.kid
)
insert into plugin_key (kid, jwk, ends) values ($1, $2, $3)
on conflict (kid) do update set ends = excluded.ends"
);

/// See [`crate::store::Store::add_plugin_key`].
pub(super) async fn add_plugin_key(client: &Client, key: &PluginKey) -> Result<(), Fault> {
    let statement = client.prepare_cached(ADD_PLUGIN_KEY).await?;
    client
        .execute(&statement, &[&key.kid, &key.jwk, &key.ends])
        .await?;
    Ok(())
}

const PLUGIN_KEYS: &str = concat!(
    "select kid, jwk, ends from plugin_key where ",
    now!(),
    " <= ends order by ends desc, kid limit $1"
);

/// See [`crate::store::Store::plugin_keys`].
pub(super) async fn plugin_keys(client: &Client, limit: u32) -> Result<Vec<PluginKey>, Fault> {
    let statement = client.prepare_cached(PLUGIN_KEYS).await?;
    let rows = client.query(&statement, &[&i64::from(limit)]).await?;
    rows.iter()
        .map(|row| {
            Ok(PluginKey {
                kid: row.try_get(0)?,
                jwk: row.try_get(1)?,
                ends: row.try_get(2)?,
            })
        })
        .collect()
}

const SECRET: &str = "insert into secret (name, value) values ($1, $2) on conflict do nothing";

/// See [`crate::store::Store::secret`].
pub(super) async fn secret(client: &Client, name: &str) -> Result<Vec<u8>, Fault> {
    let value = rand::random::<[u8; SECRET_BYTES]>();
    let make = client.prepare_cached(SECRET).await?;
    client.execute(&make, &[&name, &value.as_slice()]).await?;
    let read = "select value from secret where name = $1";
    let read = client.prepare_cached(read).await?;
    Ok(client.query_one(&read, &[&name]).await?.try_get(0)?)
}

const PAUSE: &str = concat!(
    "insert into channel_pause (channel, paused_at, paused_by) values ($1, ",
    now!(),
    ", $2) on conflict do nothing"
);

/// See [`crate::store::Store::pause`].
pub(super) async fn pause(client: &Client, channel: &str, by: &str) -> Result<(), Fault> {
    let statement = client.prepare_cached(PAUSE).await?;
    client.execute(&statement, &[&channel, &by]).await?;
    Ok(())
}

/// See [`crate::store::Store::resume`].
pub(super) async fn resume(client: &Client, channel: &str) -> Result<bool, Fault> {
    let statement = "delete from channel_pause where channel = $1";
    let statement = client.prepare_cached(statement).await?;
    Ok(0 < client.execute(&statement, &[&channel]).await?)
}

/// See [`crate::store::Store::pauses`].
pub(super) async fn pauses(client: &Client) -> Result<Vec<Pause>, Fault> {
    let statement = "select channel, paused_at, paused_by from channel_pause order by channel";
    let statement = client.prepare_cached(statement).await?;
    let rows = client.query(&statement, &[]).await?;
    rows.iter()
        .map(|row| {
            Ok(Pause {
                channel: row.try_get(0)?,
                since: row.try_get(1)?,
                by: row.try_get(2)?,
            })
        })
        .collect()
}

const HEARTBEAT: &str = concat!(
    "insert into process
 (id, role, host, pid, version, admin, trouble, started_at, seen_at)
values ($1, $2, $3, $4, $5, $6, $7, $8, ",
    now!(),
    ")
on conflict (id) do update set role = excluded.role, host = excluded.host, pid = excluded.pid,
 version = excluded.version, admin = excluded.admin, trouble = excluded.trouble,
 started_at = excluded.started_at, seen_at = excluded.seen_at"
);

/// See [`crate::store::Store::heartbeat`].
pub(super) async fn heartbeat(client: &Client, process: &Process) -> Result<(), Fault> {
    let statement = client.prepare_cached(HEARTBEAT).await?;
    client
        .execute(
            &statement,
            &[
                &process.id,
                &process.role,
                &process.host,
                &i64::from(process.pid),
                &process.version,
                &process.admin,
                &process.trouble,
                &process.started_at,
            ],
        )
        .await?;
    Ok(())
}

/// See [`crate::store::Store::farewell`].
pub(super) async fn farewell(client: &Client, process: Uuid) -> Result<(), Fault> {
    let statement = client
        .prepare_cached("delete from process where id = $1")
        .await?;
    client.execute(&statement, &[&process]).await?;
    Ok(())
}

const PROCESSES: &str = "select id, role, host, pid, version, admin, trouble, started_at, seen_at
from process order by role, started_at, id";

/// See [`crate::store::Store::processes`]; [`prune`] forgets those not heard of for long.
pub(super) async fn processes(client: &Client) -> Result<Vec<Process>, Fault> {
    let statement = client.prepare_cached(PROCESSES).await?;
    let rows = client.query(&statement, &[]).await?;
    rows.iter()
        .map(|row| {
            Ok(Process {
                id: row.try_get(0)?,
                role: row.try_get(1)?,
                host: row.try_get(2)?,
                pid: u32::try_from(row.try_get::<_, i64>(3)?).unwrap_or(0),
                version: row.try_get(4)?,
                admin: row.try_get(5)?,
                trouble: row.try_get(6)?,
                started_at: row.try_get(7)?,
                seen_at: row.try_get(8)?,
            })
        })
        .collect()
}

/// By index alone where the table is vacuumed.
const CHANNELS: &str = "select c.channel, c.sent, c.pending, c.failed, c.last_sent,
 f.failed_at, f.failure
from (select channel,
  count(*) filter (where state = 'sent') as sent,
  count(*) filter (where state in ('pending', 'claimed')) as pending,
  count(*) filter (where state = 'failed') as failed,
  max(updated_at) filter (where state = 'sent') as last_sent
 from delivery group by channel) c
left join lateral (select d.failed_at, d.failure from delivery d
 where d.channel = c.channel and d.failed_at is not null
 order by d.failed_at desc limit 1) f on true
order by c.channel";

const DEAD: &str = "select reason, count(*), min(died_at) from dead_letter
where replayed_at is null group by reason order by reason";

/// See [`crate::store::Store::summary`].
pub(super) async fn summary(client: &Client) -> Result<Summary, Fault> {
    const NOTIFICATIONS: &str = "select coalesce(sum(total), 0)::bigint from inbox_count";
    let notifications = client.prepare_cached(NOTIFICATIONS).await?;
    let channels = client.prepare_cached(CHANNELS).await?;
    let dead = client.prepare_cached(DEAD).await?;
    let (notifications, channels, dead) = futures::try_join!(
        client.query_one(&notifications, &[]),
        client.query(&channels, &[]),
        client.query(&dead, &[]),
    )?;
    let mut summary = Summary {
        notifications: large(notifications.try_get(0)?),
        ..Summary::default()
    };
    for row in &channels {
        summary.channels.push(ChannelSummary {
            channel: row.try_get(0)?,
            sent: large(row.try_get(1)?),
            pending: large(row.try_get(2)?),
            failed: large(row.try_get(3)?),
            last_sent: row.try_get(4)?,
            last_failed: row.try_get(5)?,
            last_failure: row.try_get(6)?,
        });
    }
    for row in &dead {
        let reason = word(row, 0, |text| text.parse().ok())?;
        summary.dead.push((reason, large(row.try_get(1)?)));
        let oldest = row.try_get(2)?;
        summary.dead_oldest = Some(
            summary
                .dead_oldest
                .map_or(oldest, |other| other.min(oldest)),
        );
    }
    Ok(summary)
}

/// The statements of retention: each deletes at most `$2` rows older than `$1`. What is still
/// open is kept, and with it every chunk of its submission: the rest would look unfinished.
const PRUNE_DELIVERIES: &str = "with old as materialized (
 select d.id from submission_chunk c
 join delivery d on d.submission = c.submission and d.chunk = c.no
 where c.accepted_at < $1 and d.state not in ('pending', 'claimed')
 order by d.id limit $2 for update of d skip locked
)
delete from delivery d using old where d.id = old.id";

const PRUNE_CHUNKS: &str = "with old as materialized (
 select c.submission, c.no from submission_chunk c
 where c.accepted_at < $1
  and not exists (select from delivery d where d.submission = c.submission)
 order by 1, 2 limit $2 for update skip locked
)
delete from submission_chunk c using old where c.submission = old.submission and c.no = old.no";

const PRUNE_DEAD_LETTERS: &str = "delete from dead_letter where id in (
 select id from dead_letter where died_at < $1 order by id limit $2 for update skip locked)";

const PRUNE_PROCESSES: &str = "delete from process where id in (
 select id from process where seen_at < $1 order by id limit $2 for update skip locked)";

/// See [`crate::store::Store::prune`]. Each statement is a transaction of its own.
pub(super) async fn prune(
    client: &Client,
    retention: &Retention,
    batch: u32,
) -> Result<u64, Fault> {
    let batch = i64::from(batch.max(1));
    let mut gone = 0;
    for (sql, before) in [
        (PRUNE_DELIVERIES, retention.submissions),
        (PRUNE_CHUNKS, retention.submissions),
        (PRUNE_DEAD_LETTERS, retention.dead_letters),
        (PRUNE_PROCESSES, retention.processes),
    ] {
        let statement = client.prepare_cached(sql).await?;
        loop {
            let rows = client.execute(&statement, &[&before, &batch]).await?;
            gone += rows;
            if rows == 0 {
                break;
            }
        }
    }
    Ok(gone)
}
