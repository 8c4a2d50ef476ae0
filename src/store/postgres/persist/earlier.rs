//! The answers for chunks that had been persisted before, read as things stand.

use std::collections::HashMap;

use deadpool_postgres::Transaction;
use uuid::Uuid;

use super::ChunkKey;
use super::key;
use crate::chunk::CHUNK_PEOPLE_MAX;
use crate::notification::Notification;
use crate::store::Change;
use crate::store::ChunkRows;
use crate::store::ChunkStored;
use crate::store::RowStored;
use crate::store::postgres::error::Fault;
use crate::store::postgres::types::notification;
use crate::store::postgres::types::own_columns;
use crate::store::postgres::types::unmarked_columns;

/// Those of these notifications that there are, of people and of everybody.
const STANDING: &str = concat!(
    "select ",
    own_columns!(),
    " from notification n where n.id = any($1) union all select ",
    unmarked_columns!(),
    " from broadcast n where n.id = any($1)"
);

/// The deliveries of these chunks that are pending; not those that a sender made of one, which
/// have messages of their own.
const PENDING: &str = "select d.submission, d.chunk, d.id
from unnest($1::uuid[], $2::integer[]) as c(submission, no)
join delivery d on d.submission = c.submission and d.chunk = c.no
where d.state = 'pending' and d.parent is null
order by d.id";

/// What is there of chunks that were persisted before.
#[derive(Debug, Default)]
pub(super) struct Repeats {
    rows: HashMap<Uuid, Notification>,
    pending: HashMap<ChunkKey, Vec<Uuid>>,
}

impl Repeats {
    /// The answer for one of them.
    pub(super) fn answer(&mut self, chunk: &ChunkRows) -> ChunkStored {
        let rows = chunk.rows.iter().filter(|row| row.stored);
        ChunkStored {
            first: false,
            other_body: false,
            rows: rows
                .filter_map(|row| self.rows.get(&row.id))
                .map(|row| as_it_stands(row.clone(), chunk.header.id))
                .collect(),
            pending: self.pending.get(&key(chunk)).cloned().unwrap_or_default(),
        }
    }
}

/// A row that was not touched now.
fn as_it_stands(notification: Notification, submission: Uuid) -> RowStored {
    let change = if notification.submission == submission {
        Change::Same
    } else {
        Change::Superseded
    };
    RowStored {
        notification,
        change,
    }
}

/// Reads what there is of these chunks.
pub(super) async fn repeats(tx: &Transaction<'_>, chunks: &[&ChunkRows]) -> Result<Repeats, Fault> {
    let mut repeats = Repeats::default();
    if chunks.is_empty() {
        return Ok(repeats);
    }
    let rows = chunks.iter().flat_map(|chunk| &chunk.rows);
    let ids: Vec<Uuid> = rows.filter(|row| row.stored).map(|row| row.id).collect();
    for one in standing(tx, &ids).await? {
        repeats.rows.insert(one.id, one);
    }
    let (submissions, numbers): (Vec<Uuid>, Vec<i32>) =
        chunks.iter().map(|chunk| key(chunk)).unzip();
    let statement = tx.prepare_cached(PENDING).await?;
    for row in tx.query(&statement, &[&submissions, &numbers]).await? {
        let chunk = (row.try_get(0)?, row.try_get(1)?);
        repeats
            .pending
            .entry(chunk)
            .or_default()
            .push(row.try_get(2)?);
    }
    Ok(repeats)
}

async fn standing(tx: &Transaction<'_>, ids: &[Uuid]) -> Result<Vec<Notification>, Fault> {
    let statement = tx.prepare_cached(STANDING).await?;
    let rows = tx.query(&statement, &[&ids]).await?;
    rows.iter().map(|row| notification(row, 0)).collect()
}

/// Remembers, once for each, that another body came.
const IGNORED: &str = "update submission_chunk c set ignored = array_append(c.ignored, $2)
where c.submission = $1
 and c.no = (select min(f.no) from submission_chunk f where f.submission = $1)
 and not $2 = any(c.ignored)";

/// What the first body made.
const FIRST_BODY: &str =
    "select notifications from submission_chunk where submission = $1 order by no";

/// The answer for a chunk whose submission stands with another body: what the first one made, as
/// much as one chunk can hold.
pub(super) async fn other_body(
    tx: &Transaction<'_>,
    chunk: &ChunkRows,
) -> Result<ChunkStored, Fault> {
    let submission = chunk.header.id;
    let ignored = tx.prepare_cached(IGNORED).await?;
    tx.execute(&ignored, &[&submission, &chunk.header.digest])
        .await?;
    let statement = tx.prepare_cached(FIRST_BODY).await?;
    let mut ids: Vec<Uuid> = Vec::new();
    for row in tx.query(&statement, &[&submission]).await? {
        ids.extend(row.try_get::<_, Vec<Uuid>>(0)?);
    }
    ids.truncate(CHUNK_PEOPLE_MAX);
    let mut found: HashMap<Uuid, Notification> = standing(tx, &ids)
        .await?
        .into_iter()
        .map(|one| (one.id, one))
        .collect();
    Ok(ChunkStored {
        first: false,
        other_body: true,
        rows: ids
            .iter()
            .filter_map(|id| found.remove(id))
            .map(|row| as_it_stands(row, submission))
            .collect(),
        pending: Vec::new(),
    })
}
