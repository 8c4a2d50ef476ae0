//! Endpoints that fail, and those that were disabled for it.

use deadpool_postgres::Client;
use tokio_postgres::Row;

use super::error::Fault;
use super::types::clean;
use super::types::now;
use super::types::word;
use crate::store::EndpointFailed;
use crate::store::EndpointState;

macro_rules! columns {
    () => {
        "select channel, name, version, failing_since, failed_at, reason, detail, disabled_at
from endpoint"
    };
}

fn state(row: &Row) -> Result<EndpointState, Fault> {
    Ok(EndpointState {
        channel: row.try_get(0)?,
        name: row.try_get(1)?,
        version: row.try_get(2)?,
        failing_since: row.try_get(3)?,
        failed_at: row.try_get(4)?,
        reason: word(row, 5, |word| word.parse().ok())?,
        detail: row.try_get(6)?,
        disabled_at: row.try_get(7)?,
    })
}

/// See [`crate::store::Store::endpoints`].
pub(super) async fn all(client: &Client) -> Result<Vec<EndpointState>, Fault> {
    let statement = concat!(columns!(), " order by channel, name");
    let statement = client.prepare_cached(statement).await?;
    let rows = client.query(&statement, &[]).await?;
    rows.iter().map(state).collect()
}

const EARLIER: &str = concat!(
    columns!(),
    " where channel = $1 and name = $2 for no key update"
);

const NOW: &str = concat!("select ", now!());

const KEEP: &str = "insert into endpoint
 (channel, name, version, failing_since, failed_at, reason, detail, disabled_at)
values ($1, $2, $3, $4, $5, $6, $7, $8)
on conflict (channel, name) do update set version = excluded.version,
 failing_since = excluded.failing_since, failed_at = excluded.failed_at,
 reason = excluded.reason, detail = excluded.detail, disabled_at = excluded.disabled_at";

/// See [`crate::store::Store::endpoint_failed`].
pub(super) async fn failed(
    client: &mut Client,
    failed: &EndpointFailed,
) -> Result<EndpointState, Fault> {
    let tx = client.transaction().await?;
    let earlier = tx.prepare_cached(EARLIER).await?;
    let earlier = tx
        .query_opt(&earlier, &[&failed.channel, &failed.name])
        .await?;
    let earlier = earlier.as_ref().map(state).transpose()?;
    let clock = tx.prepare_cached(NOW).await?;
    let clock = tx.query_one(&clock, &[]).await?.try_get(0)?;
    let now = failed.clone().after(earlier, clock);
    let keep = tx.prepare_cached(KEEP).await?;
    tx.execute(
        &keep,
        &[
            &now.channel,
            &now.name,
            &now.version,
            &now.failing_since,
            &now.failed_at,
            &now.reason.as_str(),
            &clean(&now.detail),
            &now.disabled_at,
        ],
    )
    .await?;
    tx.commit().await?;
    Ok(now)
}

/// See [`crate::store::Store::endpoint_well`].
pub(super) async fn well(client: &Client, channel: &str, name: &str) -> Result<bool, Fault> {
    let statement = "delete from endpoint where channel = $1 and name = $2";
    let statement = client.prepare_cached(statement).await?;
    Ok(0 < client.execute(&statement, &[&channel, &name]).await?)
}
