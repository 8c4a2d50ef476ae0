//! Persisting chunks: one transaction over everything the caller has in hand.
//!
//! 1. What of it was persisted before? (`judge`)
//! 2. Rows that were moved over from elsewhere get the id of their scope (`moved`). Then the inbox
//!    rows: inserted, or updated where a scope met an older one (`rows`).
//! 3. Together: counters, the chunks' timeline rows, their deliveries (`ledger`).
//! 4. What stood there already is read for the answer (`earlier`).
//!
//! Locks are taken in one order by everybody: submission, broadcasts, notifications, counters,
//! chunks, deliveries, each sorted by its key. Working twice on a chunk changes nothing, so the
//! whole may be repeated after a lost connection.

mod earlier;
mod judge;
mod ledger;
mod moved;
mod rows;

use std::collections::HashMap;
use std::collections::HashSet;

use deadpool_postgres::Client;
use uuid::Uuid;

use self::judge::Verdict;
use super::counts;
use super::error::Fault;
use crate::delivery::DeliveryState;
use crate::store::Change;
use crate::store::ChunkRows;
use crate::store::ChunkStored;
use crate::store::NewDelivery;
use crate::store::Row;
use crate::store::RowStored;

/// A chunk's key.
type ChunkKey = (Uuid, i32);

fn key(chunk: &ChunkRows) -> ChunkKey {
    (chunk.header.id, super::types::int(chunk.no))
}

/// See [`crate::store::Store::persist`].
pub(super) async fn persist(
    client: &mut Client,
    chunks: &[ChunkRows],
) -> Result<Vec<ChunkStored>, Fault> {
    let tx = client.transaction().await?;
    let verdicts = judge::judge(&tx, chunks).await?;
    let mut fresh: Vec<&ChunkRows> = chunks
        .iter()
        .zip(&verdicts)
        .filter(|(_, verdict)| **verdict == Verdict::Fresh)
        .map(|(chunk, _)| chunk)
        .collect();
    fresh.sort_by_key(|chunk| key(chunk));

    moved::adopt(&tx, &fresh).await?;
    let written = rows::write(&tx, &fresh).await?;
    let (_, first, ()) = futures::try_join!(
        counts::add(&tx, &written.counts),
        ledger::chunks(&tx, &fresh, &written.rows),
        ledger::deliveries(&tx, &fresh, &written.rows),
    )?;
    let again: Vec<&ChunkRows> = chunks
        .iter()
        .zip(&verdicts)
        .filter(|(chunk, verdict)| match verdict {
            // Somebody else persisted it while we did.
            Verdict::Fresh => !first.contains(&key(chunk)),
            Verdict::Repeat => true,
            Verdict::OtherBody => false,
        })
        .map(|(chunk, _)| chunk)
        .collect();
    let mut repeated = earlier::repeats(&tx, &again).await?;
    let mut answers = Vec::with_capacity(chunks.len());
    for (chunk, verdict) in chunks.iter().zip(&verdicts) {
        answers.push(match verdict {
            Verdict::OtherBody => earlier::other_body(&tx, chunk).await?,
            Verdict::Fresh if first.contains(&key(chunk)) => answer(chunk, &written.rows),
            Verdict::Fresh | Verdict::Repeat => repeated.answer(chunk),
        });
    }
    tx.commit().await?;
    Ok(answers)
}

/// The answer for a chunk that was persisted now.
fn answer(chunk: &ChunkRows, rows: &HashMap<Uuid, RowStored>) -> ChunkStored {
    ChunkStored {
        first: true,
        other_body: false,
        rows: chunk
            .rows
            .iter()
            .filter(|row| row.stored)
            .filter_map(|row| rows.get(&row.id).cloned())
            .collect(),
        pending: wanted(chunk, rows)
            .map(|(_, delivery)| delivery)
            .filter(|delivery| delivery.state == DeliveryState::Pending)
            .map(|delivery| delivery.id)
            .collect(),
    }
}

/// The deliveries to be made: all but those of rows that a later submission had overtaken.
fn wanted<'a>(
    chunk: &'a ChunkRows,
    rows: &HashMap<Uuid, RowStored>,
) -> impl Iterator<Item = (&'a Row, &'a NewDelivery)> {
    let overtaken: HashSet<Uuid> = chunk
        .rows
        .iter()
        .filter(|row| {
            row.stored
                && rows
                    .get(&row.id)
                    .is_some_and(|stored| stored.change == Change::Superseded)
        })
        .map(|row| row.id)
        .collect();
    chunk
        .rows
        .iter()
        .filter(move |row| !overtaken.contains(&row.id))
        .flat_map(|row| row.deliveries.iter().map(move |delivery| (row, delivery)))
}
