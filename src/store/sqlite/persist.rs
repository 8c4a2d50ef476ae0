//! Persisting chunks: what is new becomes rows, counters, a line of the timeline and deliveries.
//!
//! Nobody else writes meanwhile, so each chunk is done on its own, in order: was it persisted
//! before? If not, its rows, then its deliveries, then its line. Whatever fails undoes all of them.

mod earlier;
mod moved;
mod rows;

use std::collections::HashSet;

use rusqlite::Connection;
use rusqlite::OptionalExtension;
use rusqlite::Statement;
use rusqlite::params;
use serde_json::Map;
use serde_json::Value;
use uuid::Uuid;

use super::types::Ids;
use super::types::Json;
use super::types::int;
use crate::delivery::DeliveryState;
use crate::notification::Payload;
use crate::store::Change;
use crate::store::ChunkRows;
use crate::store::ChunkStored;
use crate::store::NewDelivery;
use crate::store::RowStored;
use crate::time::Timestamp;

/// A chunk with its documents written, which is done before the writing thread has it.
pub(super) struct Sheet {
    chunk: ChunkRows,
    payload: String,
    patches: Option<String>,
    refs: String,
    notes: String,
    metadata: Option<String>,
}

impl Sheet {
    pub(super) fn all(chunks: &[ChunkRows]) -> Vec<Self> {
        chunks.iter().map(Self::of).collect()
    }

    fn of(chunk: &ChunkRows) -> Self {
        let patches: Map<String, Value> = chunk
            .rows
            .iter()
            .filter_map(|row| {
                let patch = chunk.payload.patch_to(row.payload.as_ref()?);
                (!patch.is_empty()).then(|| (row.id.to_string(), Value::Object(patch)))
            })
            .collect();
        Self {
            payload: Json(&chunk.payload).text(),
            patches: (!patches.is_empty()).then(|| Json(patches).text()),
            refs: Json(&chunk.refs).text(),
            notes: Json(&chunk.notes).text(),
            metadata: metadata(&chunk.payload),
            chunk: chunk.clone(),
        }
    }
}

fn metadata(payload: &Payload) -> Option<String> {
    payload.metadata.as_ref().map(|map| Json(map).text())
}

/// See [`crate::store::Store::persist`].
pub(super) fn persist(to: &Connection, sheets: &[Sheet]) -> rusqlite::Result<Vec<ChunkStored>> {
    let now = Timestamp::now();
    sheets
        .iter()
        .map(|sheet| match judge(to, &sheet.chunk)? {
            Verdict::Fresh => write(to, sheet, now),
            Verdict::Repeat => earlier::again(to, &sheet.chunk),
            Verdict::OtherBody => earlier::other_body(to, &sheet.chunk),
        })
        .collect()
}

/// What is to be done with a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// Persist it.
    Fresh,
    /// It was persisted before.
    Repeat,
    /// Its submission was persisted from another body.
    OtherBody,
}

fn judge(to: &Connection, chunk: &ChunkRows) -> rusqlite::Result<Verdict> {
    let first = to
        .prepare_cached("select digest from submission_chunk where submission = ?1 limit 1")?
        .query_row([chunk.header.id], |row| row.get::<_, String>(0))
        .optional()?;
    match first {
        None => return Ok(Verdict::Fresh),
        Some(digest) if digest != chunk.header.digest => return Ok(Verdict::OtherBody),
        Some(_) => {}
    }
    let there = to
        .prepare_cached("select 1 from submission_chunk where submission = ?1 and no = ?2")?
        .exists(params![chunk.header.id, chunk.no])?;
    Ok(if there {
        Verdict::Repeat
    } else {
        Verdict::Fresh
    })
}

/// Persists a chunk for the first time.
fn write(to: &Connection, sheet: &Sheet, now: Timestamp) -> rusqlite::Result<ChunkStored> {
    let chunk = &sheet.chunk;
    let mut rows = Vec::with_capacity(chunk.rows.len());
    let mut overtaken = HashSet::new();
    for row in chunk.rows.iter().filter(|row| row.stored) {
        let stored = rows::write(to, sheet, row, now)?;
        if stored.change == Change::Superseded {
            overtaken.insert(row.id);
        }
        rows.push(stored);
    }
    let mut pending = Vec::new();
    let mut insert = insert_delivery(to)?;
    for row in chunk.rows.iter().filter(|row| !overtaken.contains(&row.id)) {
        for delivery in &row.deliveries {
            let origin = Origin {
                submission: chunk.header.id,
                chunk: chunk.no,
                notification: row.id,
                user: row.user.as_deref(),
                parent: None,
            };
            let made = origin.insert(&mut insert, delivery, now)?;
            if made && delivery.state == DeliveryState::Pending {
                pending.push(delivery.id);
            }
        }
    }
    write_line(to, sheet, &rows, now)?;
    Ok(ChunkStored {
        first: true,
        other_body: false,
        rows,
        pending,
    })
}

/// What a delivery belongs to.
pub(super) struct Origin<'a> {
    pub(super) submission: Uuid,
    pub(super) chunk: u32,
    pub(super) notification: Uuid,
    pub(super) user: Option<&'a str>,
    pub(super) parent: Option<Uuid>,
}

/// The statement for [`Origin::insert`].
pub(super) fn insert_delivery(to: &Connection) -> rusqlite::Result<rusqlite::CachedStatement<'_>> {
    to.prepare_cached(
        "insert into delivery
           (id, submission, chunk, notification, user, parent, channel, target, state, reason,
            detail, due_at, sweep_at, created_at, updated_at)
         values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?12, ?12, ?12)
         on conflict (id) do nothing",
    )
}

impl Origin<'_> {
    /// Inserts a delivery, due now, unless it is there; says whether it did.
    pub(super) fn insert(
        &self,
        statement: &mut Statement<'_>,
        delivery: &NewDelivery,
        now: Timestamp,
    ) -> rusqlite::Result<bool> {
        let made = statement.execute(params![
            delivery.id,
            self.submission,
            self.chunk,
            self.notification,
            self.user,
            self.parent,
            delivery.channel,
            delivery.target,
            delivery.state,
            delivery.reason,
            delivery.detail,
            now,
        ])?;
        Ok(0 < made)
    }
}

/// The chunk's line of the timeline.
fn write_line(
    to: &Connection,
    sheet: &Sheet,
    rows: &[RowStored],
    now: Timestamp,
) -> rusqlite::Result<()> {
    let chunk = &sheet.chunk;
    let header = &chunk.header;
    let is_applied = |row: &&RowStored| row.change != Change::Superseded;
    let applied = rows.iter().filter(is_applied);
    let many = |wanted: &[Change]| {
        let of_them = rows.iter().filter(|row| wanted.contains(&row.change));
        int(of_them.count() as u64)
    };
    to.prepare_cached(
        "insert into submission_chunk
           (submission, no, of, origin, key, via, digest, accepted_at, started_at, stored_at,
            broadcast, payload, patches, notifications, stored, superseded, muted, dropped, refs,
            notes)
         values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18,
            ?19, ?20)",
    )?
    .execute(params![
        header.id,
        chunk.no,
        chunk.of,
        header.origin,
        header.key,
        header.via,
        header.digest,
        header.accepted_at,
        chunk.started_at,
        now,
        chunk.broadcast,
        sheet.payload,
        sheet.patches,
        Ids(applied.map(|row| row.notification.id).collect()),
        many(&[Change::New, Change::Updated]),
        many(&[Change::Superseded]),
        chunk.muted,
        chunk.dropped,
        sheet.refs,
        sheet.notes,
    ])
    .map(|_| ())
}
