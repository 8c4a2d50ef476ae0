//! Which chunks are new, which were persisted before, and which come from another body.

use std::collections::HashMap;
use std::collections::HashSet;

use deadpool_postgres::Transaction;
use uuid::Uuid;

use super::key;
use crate::store::ChunkRows;
use crate::store::postgres::LockClass;
use crate::store::postgres::error::Fault;

/// What is to be done with a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Persist it.
    Fresh,
    /// It was persisted before.
    Repeat,
    /// Its submission was persisted from another body.
    OtherBody,
}

/// The chunks of these submissions that were persisted before.
const LOOK: &str = "select submission, no, digest from submission_chunk where submission = any($1)";

/// Waits for others that persist a first chunk under the same key.
const LOCK: &str = "select pg_advisory_xact_lock($1, k) from unnest($2::integer[]) as k";

/// Judges every chunk. Two bodies under one key exclude each other: whoever finds nothing of a
/// keyed submission looks again under a lock that lasts as long as the transaction. Once a chunk
/// is there, the question is settled for good and nobody waits.
pub(super) async fn judge(
    tx: &Transaction<'_>,
    chunks: &[ChunkRows],
) -> Result<Vec<Verdict>, Fault> {
    let mut ids: Vec<Uuid> = chunks.iter().map(|chunk| chunk.header.id).collect();
    ids.sort_unstable();
    ids.dedup();
    let mut known = look(tx, &ids).await?;

    let mut unsettled: Vec<Uuid> = chunks
        .iter()
        .filter(|chunk| chunk.header.key.is_some() && !known.contains_key(&chunk.header.id))
        .map(|chunk| chunk.header.id)
        .collect();
    if !unsettled.is_empty() {
        unsettled.sort_unstable();
        unsettled.dedup();
        lock(tx, &unsettled).await?;
        known.extend(look(tx, &unsettled).await?);
    }
    Ok(chunks
        .iter()
        .map(|chunk| decide(&mut known, chunk))
        .collect())
}

/// What is known of a submission.
#[derive(Debug)]
struct Known {
    digest: String,
    chunks: HashSet<i32>,
}

/// Decides on one chunk, and remembers it for those that follow in the same call.
fn decide(known: &mut HashMap<Uuid, Known>, chunk: &ChunkRows) -> Verdict {
    let (submission, no) = key(chunk);
    let entry = known.entry(submission).or_insert_with(|| Known {
        digest: chunk.header.digest.clone(),
        chunks: HashSet::new(),
    });
    if entry.digest != chunk.header.digest {
        Verdict::OtherBody
    } else if entry.chunks.insert(no) {
        Verdict::Fresh
    } else {
        Verdict::Repeat
    }
}

async fn look(tx: &Transaction<'_>, ids: &[Uuid]) -> Result<HashMap<Uuid, Known>, Fault> {
    let statement = tx.prepare_cached(LOOK).await?;
    let mut known: HashMap<Uuid, Known> = HashMap::new();
    for row in tx.query(&statement, &[&ids]).await? {
        let digest: String = row.try_get(2)?;
        known
            .entry(row.try_get(0)?)
            .or_insert_with(|| Known {
                digest,
                chunks: HashSet::new(),
            })
            .chunks
            .insert(row.try_get(1)?);
    }
    Ok(known)
}

async fn lock(tx: &Transaction<'_>, ids: &[Uuid]) -> Result<(), Fault> {
    let mut keys: Vec<i32> = ids.iter().map(lock_key).collect();
    keys.sort_unstable();
    keys.dedup();
    let statement = tx.prepare_cached(LOCK).await?;
    tx.query(&statement, &[&(LockClass::Submission as i32), &keys])
        .await?;
    Ok(())
}

/// The last 32 bits of an id; two submissions with the same ones wait for each other, no more.
fn lock_key(id: &Uuid) -> i32 {
    let bytes = id.as_bytes();
    i32::from_be_bytes([bytes[12], bytes[13], bytes[14], bytes[15]])
}
