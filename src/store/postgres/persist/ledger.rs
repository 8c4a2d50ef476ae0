//! What is written beside the inbox rows: the chunks themselves and their deliveries.

use std::collections::HashMap;
use std::collections::HashSet;

use deadpool_postgres::Transaction;
use serde_json::Map;
use serde_json::Value;
use tokio_postgres::types::Json;
use uuid::Uuid;

use super::ChunkKey;
use super::key;
use super::wanted;
use crate::chunk::Note;
use crate::chunk::RefReport;
use crate::notification::Payload;
use crate::store::Change;
use crate::store::ChunkRows;
use crate::store::RowStored;
use crate::store::postgres::error::Fault;
use crate::store::postgres::types::int;
use crate::store::postgres::types::now;
use crate::store::postgres::types::via_word;
use crate::time::Timestamp;

/// `$20` holds the notifications of all chunks, one after the other; `first` and `last` say which
/// are a chunk's own, since PostgreSQL has no arrays of arrays of different lengths.
const CHUNKS: &str = concat!(
    "insert into submission_chunk (submission, no, of, origin, key, via, digest, accepted_at,
 started_at, stored_at, broadcast, payload, patches, notifications, stored, superseded, muted,
 dropped, refs, notes)
select submission, no, of, origin, key, via, digest, accepted_at, started_at, (select ",
    now!(),
    "), broadcast, payload, patches, ($20::uuid[])[first:last], stored, superseded, muted,
 dropped, refs, notes
from unnest($1::uuid[], $2::integer[], $3::integer[], $4::text[], $5::text[], $6::text[],
 $7::text[], $8::timestamptz[], $9::timestamptz[], $10::boolean[], $11::json[], $12::json[],
 $13::integer[], $14::integer[], $15::integer[], $16::integer[], $17::json[], $18::json[],
 $19::integer[], $21::integer[])
 as t(submission, no, of, origin, key, via, digest, accepted_at, started_at, broadcast, payload,
 patches, stored, superseded, muted, dropped, refs, notes, first, last)
order by submission, no
on conflict do nothing
returning submission, no"
);

/// Writes the chunks, which must be sorted; returns those that were not there before.
pub(super) async fn chunks(
    tx: &Transaction<'_>,
    chunks: &[&ChunkRows],
    rows: &HashMap<Uuid, RowStored>,
) -> Result<HashSet<ChunkKey>, Fault> {
    if chunks.is_empty() {
        return Ok(HashSet::new());
    }
    let of = |field: fn(&ChunkRows) -> u32| -> Vec<i32> {
        chunks.iter().map(|chunk| int(field(chunk))).collect()
    };
    let changed = |wanted: &[Change]| -> Vec<i32> {
        let mine = |chunk: &ChunkRows| {
            let stored = chunk.rows.iter().filter(|row| row.stored);
            stored
                .filter_map(|row| rows.get(&row.id))
                .filter(|row| wanted.contains(&row.change))
                .count()
        };
        chunks
            .iter()
            .map(|chunk| i32::try_from(mine(chunk)).unwrap_or(i32::MAX))
            .collect()
    };
    let notifications = Slices::of(chunks, rows)?;
    let submissions: Vec<Uuid> = chunks.iter().map(|chunk| chunk.header.id).collect();
    let origins: Vec<&str> = chunks.iter().map(|chunk| &*chunk.header.origin).collect();
    let keys: Vec<Option<&str>> = chunks
        .iter()
        .map(|chunk| chunk.header.key.as_deref())
        .collect();
    let vias: Vec<&str> = chunks
        .iter()
        .map(|chunk| via_word(chunk.header.via))
        .collect();
    let digests: Vec<&str> = chunks.iter().map(|chunk| &*chunk.header.digest).collect();
    let accepted: Vec<Timestamp> = chunks
        .iter()
        .map(|chunk| chunk.header.accepted_at)
        .collect();
    let started: Vec<Timestamp> = chunks.iter().map(|chunk| chunk.started_at).collect();
    let broadcast: Vec<bool> = chunks.iter().map(|chunk| chunk.broadcast).collect();
    let payloads: Vec<Json<&Payload>> = chunks.iter().map(|chunk| Json(&chunk.payload)).collect();
    let patches: Vec<Option<Json<Patches>>> = chunks.iter().map(|chunk| patches(chunk)).collect();
    let refs: Vec<Option<Json<&Vec<RefReport>>>> =
        chunks.iter().map(|chunk| filled(&chunk.refs)).collect();
    let notes: Vec<Option<Json<&Vec<Note>>>> =
        chunks.iter().map(|chunk| filled(&chunk.notes)).collect();
    let statement = tx.prepare_cached(CHUNKS).await?;
    let made = tx
        .query(
            &statement,
            &[
                &submissions,
                &of(|chunk| chunk.no),
                &of(|chunk| chunk.of),
                &origins,
                &keys,
                &vias,
                &digests,
                &accepted,
                &started,
                &broadcast,
                &payloads,
                &patches,
                &changed(&[Change::New, Change::Updated]),
                &changed(&[Change::Superseded]),
                &of(|chunk| chunk.muted),
                &of(|chunk| chunk.dropped),
                &refs,
                &notes,
                &notifications.first,
                &notifications.all,
                &notifications.last,
            ],
        )
        .await?;
    made.iter()
        .map(|row| Ok((row.try_get(0)?, row.try_get(1)?)))
        .collect()
}

/// What differs for a person from the chunk's payload, by notification.
type Patches = HashMap<Uuid, Map<String, Value>>;

/// The patches that the chunk's deliveries need; see [`Payload::patched`].
fn patches(chunk: &ChunkRows) -> Option<Json<Patches>> {
    let patches: Patches = chunk
        .rows
        .iter()
        .filter(|row| !row.deliveries.is_empty())
        .filter_map(|row| Some((row.id, chunk.payload.patch_to(row.payload.as_ref()?))))
        .filter(|(_, patch)| !patch.is_empty())
        .collect();
    (!patches.is_empty()).then_some(Json(patches))
}

fn filled<T>(list: &Vec<T>) -> Option<Json<&Vec<T>>> {
    (!list.is_empty()).then_some(Json(list))
}

/// Lists of different lengths, one after the other.
#[derive(Default)]
struct Slices {
    all: Vec<Uuid>,
    /// Where each begins, from 1, and ends; an empty one ends before it begins.
    first: Vec<i32>,
    last: Vec<i32>,
}

impl Slices {
    /// The rows that each chunk made or updated, or had.
    fn of(chunks: &[&ChunkRows], rows: &HashMap<Uuid, RowStored>) -> Result<Self, Fault> {
        let is_applied = |id: &Uuid| {
            rows.get(id)
                .is_some_and(|row| row.change != Change::Superseded)
        };
        let mut slices = Self::default();
        for chunk in chunks {
            let begin = slices.all.len() + 1;
            let stored = chunk.rows.iter().filter(|row| row.stored);
            slices
                .all
                .extend(stored.map(|row| row.id).filter(is_applied));
            let at = |index| {
                i32::try_from(index).map_err(|_| Fault::Row("too many rows at once".to_owned()))
            };
            slices.first.push(at(begin)?);
            slices.last.push(at(slices.all.len())?);
        }
        Ok(slices)
    }
}

const DELIVERIES: &str = concat!(
    r#"insert into delivery (id, submission, chunk, notification, "user", channel, target, state,
 reason, detail, due_at, sweep_at, created_at, updated_at)
select t.*, now.at, now.at, now.at, now.at
from unnest($1::uuid[], $2::uuid[], $3::integer[], $4::uuid[], $5::text[], $6::text[], $7::text[],
 $8::text[], $9::text[], $10::text[]) as t, (select "#,
    now!(),
    " as at) as now
order by 1
on conflict do nothing"
);

/// Writes the deliveries of the chunks, but not of rows that were overtaken.
pub(super) async fn deliveries(
    tx: &Transaction<'_>,
    chunks: &[&ChunkRows],
    rows: &HashMap<Uuid, RowStored>,
) -> Result<(), Fault> {
    let mut lines: Vec<_> = chunks
        .iter()
        .flat_map(|chunk| {
            let key = key(chunk);
            wanted(chunk, rows).map(move |(row, delivery)| (key, row, delivery))
        })
        .collect();
    if lines.is_empty() {
        return Ok(());
    }
    lines.sort_unstable_by_key(|(_, _, delivery)| delivery.id);
    let ids: Vec<Uuid> = lines.iter().map(|(_, _, delivery)| delivery.id).collect();
    let submissions: Vec<Uuid> = lines.iter().map(|((id, _), _, _)| *id).collect();
    let numbers: Vec<i32> = lines.iter().map(|((_, no), _, _)| *no).collect();
    let notifications: Vec<Uuid> = lines.iter().map(|(_, row, _)| row.id).collect();
    let users: Vec<Option<&str>> = lines
        .iter()
        .map(|(_, row, _)| row.user.as_deref())
        .collect();
    let channels: Vec<&str> = lines.iter().map(|(_, _, one)| &*one.channel).collect();
    let targets: Vec<&str> = lines.iter().map(|(_, _, one)| &*one.target).collect();
    let states: Vec<&str> = lines.iter().map(|(_, _, one)| one.state.as_str()).collect();
    let reasons: Vec<Option<&str>> = lines
        .iter()
        .map(|(_, _, one)| one.reason.map(|reason| reason.as_str()))
        .collect();
    let details: Vec<Option<&str>> = lines
        .iter()
        .map(|(_, _, one)| one.detail.as_deref())
        .collect();
    let statement = tx.prepare_cached(DELIVERIES).await?;
    tx.execute(
        &statement,
        &[
            &ids,
            &submissions,
            &numbers,
            &notifications,
            &users,
            &channels,
            &targets,
            &states,
            &reasons,
            &details,
        ],
    )
    .await?;
    Ok(())
}
