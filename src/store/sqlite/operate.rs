//! What operators see: which processes live, and everything at a glance.

use rusqlite::Connection;
use rusqlite::OptionalExtension;
use rusqlite::params;
use uuid::Uuid;

use super::types::Json;
use super::types::count;
use crate::store::ChannelSummary;
use crate::store::Pause;
use crate::store::Process;
use crate::store::Summary;
use crate::time::Timestamp;

/// See [`crate::store::Store::heartbeat`].
pub(super) fn heartbeat(to: &Connection, process: &Process) -> rusqlite::Result<()> {
    to.prepare_cached(
        "insert into process
           (id, role, host, pid, version, admin, trouble, started_at, seen_at)
         values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
         on conflict (id) do update set role = excluded.role, host = excluded.host,
           pid = excluded.pid, version = excluded.version, admin = excluded.admin,
           trouble = excluded.trouble, started_at = excluded.started_at,
           seen_at = excluded.seen_at",
    )?
    .execute(params![
        process.id,
        process.role,
        process.host,
        process.pid,
        process.version,
        process.admin,
        Json(&process.trouble),
        process.started_at,
        Timestamp::now(),
    ])
    .map(|_| ())
}

/// See [`crate::store::Store::farewell`].
pub(super) fn farewell(to: &Connection, process: Uuid) -> rusqlite::Result<()> {
    to.prepare_cached("delete from process where id = ?1")?
        .execute([process])
        .map(|_| ())
}

/// See [`crate::store::Store::processes`].
pub(super) fn processes(from: &Connection) -> rusqlite::Result<Vec<Process>> {
    from.prepare_cached(
        "select id, role, host, pid, version, admin, trouble, started_at, seen_at from process
         order by role, started_at, id",
    )?
    .query_map([], |row| {
        let Json(trouble) = row.get(6)?;
        Ok(Process {
            id: row.get(0)?,
            role: row.get(1)?,
            host: row.get(2)?,
            pid: row.get(3)?,
            version: row.get(4)?,
            admin: row.get(5)?,
            trouble,
            started_at: row.get(7)?,
            seen_at: row.get(8)?,
        })
    })?
    .collect()
}

/// See [`crate::store::Store::summary`].
pub(super) fn summary(from: &Connection) -> rusqlite::Result<Summary> {
    let notifications = from
        .prepare_cached("select ifnull(sum(total), 0) from inbox_count")?
        .query_row([], |row| count(row, 0))?;
    let mut channels: Vec<ChannelSummary> = from
        .prepare_cached(
            "select channel,
               count(*) filter (where state = 'sent'),
               count(*) filter (where state in ('pending', 'claimed')),
               count(*) filter (where state = 'failed'),
               max(iif(state = 'sent', updated_at, null))
             from delivery group by channel order by channel",
        )?
        .query_map([], |row| {
            Ok(ChannelSummary {
                channel: row.get(0)?,
                sent: count(row, 1)?,
                pending: count(row, 2)?,
                failed: count(row, 3)?,
                last_sent: row.get(4)?,
                last_failed: None,
                last_failure: None,
            })
        })?
        .collect::<Result<_, _>>()?;
    let mut last = from.prepare_cached(
        "select failed_at, failure from delivery where channel = ?1 and failed_at is not null
         order by failed_at desc limit 1",
    )?;
    for channel in &mut channels {
        let failed = last
            .query_row([&channel.channel], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        (channel.last_failed, channel.last_failure) = failed.unwrap_or_default();
    }
    let dead = from
        .prepare_cached(
            "select reason, count(*) from dead_letter where replayed_at is null
             group by reason order by reason",
        )?
        .query_map([], |row| Ok((row.get(0)?, count(row, 1)?)))?
        .collect::<Result<_, _>>()?;
    let dead_oldest = from
        .prepare_cached("select min(died_at) from dead_letter where replayed_at is null")?
        .query_row([], |row| row.get(0))?;
    Ok(Summary {
        notifications,
        channels,
        dead,
        dead_oldest,
    })
}

/// Reads, on whichever connection it is given.
pub(super) fn probe(from: &Connection) -> rusqlite::Result<()> {
    from.prepare_cached("select 1 from inbox_count limit 1")?
        .exists([])
        .map(|_| ())
}

/// See [`crate::store::Store::pause`].
pub(super) fn pause(to: &Connection, channel: &str, by: &str) -> rusqlite::Result<()> {
    to.prepare_cached(
        "insert into channel_pause (channel, paused_at, paused_by) values (?1, ?2, ?3)
         on conflict do nothing",
    )?
    .execute(params![channel, Timestamp::now(), by])
    .map(|_| ())
}

/// See [`crate::store::Store::resume`].
pub(super) fn resume(to: &Connection, channel: &str) -> rusqlite::Result<bool> {
    let ended = to
        .prepare_cached("delete from channel_pause where channel = ?1")?
        .execute([channel])?;
    Ok(0 < ended)
}

/// See [`crate::store::Store::pauses`].
pub(super) fn pauses(from: &Connection) -> rusqlite::Result<Vec<Pause>> {
    from.prepare_cached("select channel, paused_at, paused_by from channel_pause order by channel")?
        .query_map([], |row| {
            Ok(Pause {
                channel: row.get(0)?,
                since: row.get(1)?,
                by: row.get(2)?,
            })
        })?
        .collect()
}
