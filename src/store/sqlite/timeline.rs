//! The story of one submission: its chunks, its deliveries, and what died of it.

use std::collections::HashSet;

use rusqlite::Connection;
use rusqlite::OptionalExtension;
use rusqlite::Row;
use rusqlite::params;
use uuid::Uuid;

use super::types::Json;
use super::types::count;
use super::types::header;
use super::types::header_columns;
use crate::chunk::RefReport;
use crate::delivery::DeliveryState;
use crate::store::ChunkLine;
use crate::store::DeliveryLine;
use crate::store::Find;
use crate::store::Tally;
use crate::store::Timeline;

/// See [`crate::store::Store::timeline`].
pub(super) fn timeline(
    from: &Connection,
    find: &Find,
    user: Option<&str>,
    deliveries: u32,
) -> rusqlite::Result<Option<Timeline>> {
    let Some(submission) = found(from, find)? else {
        return Ok(None);
    };
    let Some(mut timeline) = head(from, submission)? else {
        return Ok(None);
    };
    chunks(from, submission, &mut timeline)?;
    timeline.tally = tally(from, submission)?;
    timeline.deliveries = lines(from, submission, user, deliveries)?;
    timeline.dead = from
        .prepare_cached("select id from dead_letter where submission = ?1 order by id")?
        .query_map([submission], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    Ok(Some(timeline))
}

/// Which submission is meant.
fn found(from: &Connection, find: &Find) -> rusqlite::Result<Option<Uuid>> {
    let first = |row: &Row<'_>| row.get(0);
    match find {
        Find::Id(id) => Ok(Some(*id)),
        Find::Suffix(suffix) => from
            .prepare_cached(
                "select submission from submission_chunk
                 where substr(hex(submission), 25) = upper(?1)
                 order by accepted_at desc, submission desc limit 1",
            )?
            .query_row([suffix], first)
            .optional(),
        Find::Key { origin, key } => {
            let id = crate::notification::keyed_submission_id(origin, key);
            from.prepare_cached(
                "select submission from submission_chunk
                 where submission = ?1 and origin = ?2 limit 1",
            )?
            .query_row(params![id, origin], first)
            .optional()
        }
    }
}

/// What the first chunk says of the whole.
fn head(from: &Connection, submission: Uuid) -> rusqlite::Result<Option<Timeline>> {
    let sql = concat!(
        "select ",
        header_columns!(),
        ", c.payload, c.broadcast, c.of from submission_chunk c
         where c.submission = ?1 order by c.no limit 1"
    );
    from.prepare_cached(sql)?
        .query_row([submission], |row| {
            let Json(payload) = row.get(6)?;
            Ok(Timeline {
                header: header(row)?,
                payload,
                broadcast: row.get(7)?,
                refs: Vec::new(),
                chunks: Vec::new(),
                of: row.get(8)?,
                ignored: 0,
                tally: Vec::new(),
                deliveries: Vec::new(),
                dead: Vec::new(),
            })
        })
        .optional()
}

/// Fills in what each chunk says for itself.
fn chunks(from: &Connection, submission: Uuid, timeline: &mut Timeline) -> rusqlite::Result<()> {
    let mut statement = from.prepare_cached(
        "select no, started_at, stored_at, stored, superseded, muted, dropped, notes, refs, ignored
         from submission_chunk where submission = ?1 order by no",
    )?;
    let mut rows = statement.query([submission])?;
    let mut ignored: HashSet<String> = HashSet::new();
    while let Some(row) = rows.next()? {
        let Json(notes) = row.get(7)?;
        let Json(refs): Json<Vec<RefReport>> = row.get(8)?;
        let Json(others): Json<Vec<String>> = row.get(9)?;
        timeline.chunks.push(ChunkLine {
            no: row.get(0)?,
            started_at: row.get(1)?,
            stored_at: row.get(2)?,
            stored: row.get(3)?,
            superseded: row.get(4)?,
            muted: row.get(5)?,
            dropped: row.get(6)?,
            notes,
        });
        timeline.refs.extend(refs);
        ignored.extend(others);
    }
    timeline.ignored = u32::try_from(ignored.len()).unwrap_or(u32::MAX);
    Ok(())
}

fn tally(from: &Connection, submission: Uuid) -> rusqlite::Result<Vec<Tally>> {
    from.prepare_cached(
        "select channel, state, reason, state = 'pending' and 0 < attempts as retrying, count(*),
           max(updated_at)
         from delivery where submission = ?1
         group by channel, state, reason, retrying
         order by channel, state, reason, retrying",
    )?
    .query_map([submission], |row| {
        Ok(Tally {
            channel: row.get(0)?,
            state: row.get(1)?,
            reason: row.get(2)?,
            retrying: row.get(3)?,
            count: count(row, 4)?,
            at: row.get(5)?,
        })
    })?
    .collect()
}

/// Deliveries, those not sent first.
fn lines(
    from: &Connection,
    submission: Uuid,
    user: Option<&str>,
    limit: u32,
) -> rusqlite::Result<Vec<DeliveryLine>> {
    from.prepare_cached(
        "select id, channel, user, target, state, attempts, reason, detail, provider_id, due_at,
           doubtful, updated_at
         from delivery where submission = ?1 and (?2 is null or user = ?2)
         order by state = 'sent', channel, user, target, id limit ?3",
    )?
    .query_map(params![submission, user, limit], |row| {
        let state: DeliveryState = row.get(4)?;
        let attempts: u32 = row.get(5)?;
        // Before its first try it is simply due.
        let waits = state == DeliveryState::Pending && 0 < attempts;
        Ok(DeliveryLine {
            id: row.get(0)?,
            channel: row.get(1)?,
            user: row.get(2)?,
            target: row.get(3)?,
            state,
            attempts,
            reason: row.get(6)?,
            detail: row.get(7)?,
            provider_id: row.get(8)?,
            next_at: if waits { Some(row.get(9)?) } else { None },
            doubtful: row.get(10)?,
            at: row.get(11)?,
        })
    })?
    .collect()
}
