//! Answers about what was persisted earlier, under the same body or another.

use rusqlite::Connection;
use rusqlite::params;
use uuid::Uuid;

use super::rows::stands;
use crate::store::Change;
use crate::store::ChunkRows;
use crate::store::ChunkStored;
use crate::store::RowStored;
use crate::store::sqlite::types::Ids;

/// The answer for a chunk that was persisted before: its rows and deliveries as they stand.
pub(super) fn again(from: &Connection, chunk: &ChunkRows) -> rusqlite::Result<ChunkStored> {
    let rows = chunk.rows.iter().filter(|row| row.stored);
    let rows = rows.map(|row| (row.id, row.user.is_none()));
    let pending = from
        .prepare_cached(
            "select id from delivery where submission = ?1 and chunk = ?2 and state = 'pending'
             order by id",
        )?
        .query_map(params![chunk.header.id, chunk.no], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    Ok(ChunkStored {
        first: false,
        other_body: false,
        rows: standing(from, rows, chunk.header.id)?,
        pending,
    })
}

/// The answer for another body under the same key: the rows that the first one made. It is noted
/// once, however often it comes.
pub(super) fn other_body(to: &Connection, chunk: &ChunkRows) -> rusqlite::Result<ChunkStored> {
    let submission = chunk.header.id;
    let digest = &chunk.header.digest;
    to.prepare_cached(
        "update submission_chunk set ignored = json_insert(ignored, '$[#]', ?2)
         where submission = ?1
           and no = (select min(no) from submission_chunk where submission = ?1)
           and not exists (select 1 from json_each(ignored) where value = ?2)",
    )?
    .execute(params![submission, digest])?;
    let mut statement = to.prepare_cached(
        "select notifications, broadcast from submission_chunk where submission = ?1 order by no",
    )?;
    let made: Vec<(Ids, bool)> = statement
        .query_map([submission], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<_, _>>()?;
    let rows = made
        .into_iter()
        .flat_map(|(Ids(ids), broadcast)| ids.into_iter().map(move |id| (id, broadcast)));
    Ok(ChunkStored {
        first: false,
        other_body: true,
        rows: standing(to, rows, submission)?,
        pending: Vec::new(),
    })
}

/// Those of these rows that exist. What another submission has changed since is superseded.
fn standing(
    from: &Connection,
    rows: impl Iterator<Item = (Uuid, bool)>,
    submission: Uuid,
) -> rusqlite::Result<Vec<RowStored>> {
    let mut standing = Vec::new();
    for (id, is_broadcast) in rows {
        if let Some(notification) = stands(from, id, is_broadcast)? {
            let change = if notification.submission == submission {
                Change::Same
            } else {
                Change::Superseded
            };
            standing.push(RowStored {
                notification,
                change,
            });
        }
    }
    Ok(standing)
}
