//! Endpoints that fail, and those that were disabled for it.

use rusqlite::Connection;
use rusqlite::OptionalExtension;
use rusqlite::Row;
use rusqlite::params;

use crate::store::EndpointFailed;
use crate::store::EndpointState;
use crate::time::Timestamp;

macro_rules! columns {
    () => {
        "select channel, name, version, failing_since, failed_at, reason, detail, disabled_at
         from endpoint"
    };
}

fn state(row: &Row<'_>) -> rusqlite::Result<EndpointState> {
    Ok(EndpointState {
        channel: row.get(0)?,
        name: row.get(1)?,
        version: row.get(2)?,
        failing_since: row.get(3)?,
        failed_at: row.get(4)?,
        reason: row.get(5)?,
        detail: row.get(6)?,
        disabled_at: row.get(7)?,
    })
}

/// See [`crate::store::Store::endpoints`].
pub(super) fn all(from: &Connection) -> rusqlite::Result<Vec<EndpointState>> {
    from.prepare_cached(concat!(columns!(), " order by channel, name"))?
        .query_map([], state)?
        .collect()
}

/// See [`crate::store::Store::endpoint_failed`].
pub(super) fn failed(to: &Connection, failed: &EndpointFailed) -> rusqlite::Result<EndpointState> {
    let earlier = to
        .prepare_cached(concat!(columns!(), " where channel = ?1 and name = ?2"))?
        .query_row([&failed.channel, &failed.name], state)
        .optional()?;
    let now = failed.clone().after(earlier, Timestamp::now());
    to.prepare_cached(
        "insert or replace into endpoint
           (channel, name, version, failing_since, failed_at, reason, detail, disabled_at)
         values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    )?
    .execute(params![
        now.channel,
        now.name,
        now.version,
        now.failing_since,
        now.failed_at,
        now.reason,
        now.detail,
        now.disabled_at,
    ])?;
    Ok(now)
}

/// See [`crate::store::Store::endpoint_well`].
pub(super) fn well(to: &Connection, channel: &str, name: &str) -> rusqlite::Result<bool> {
    let gone = to
        .prepare_cached("delete from endpoint where channel = ?1 and name = ?2")?
        .execute([channel, name])?;
    Ok(0 < gone)
}
