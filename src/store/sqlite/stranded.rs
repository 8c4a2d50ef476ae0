//! Deliveries that no message carries: found by their age, made into messages from what was kept
//! beside their chunk.

use std::collections::BTreeMap;

use rusqlite::Connection;
use rusqlite::OptionalExtension;
use rusqlite::Row;
use rusqlite::params;
use serde_json::Map;
use serde_json::Value;
use uuid::Uuid;

use super::types::Json;
use super::types::header;
use super::types::header_columns;
use crate::chunk::RefReport;
use crate::delivery::DELIVERIES_PER_MESSAGE_MAX;
use crate::delivery::DeliveryBatch;
use crate::delivery::DeliveryItem;
use crate::time::Timestamp;

/// A delivery and the chunk it belongs to.
type Found = ((Uuid, u32), DeliveryItem);

/// Deliveries, as [`item`] reads them.
macro_rules! select_items {
    () => {
        "select d.submission, d.chunk, d.id, d.notification, d.user, d.target, d.created_at,
           n.created, b.created
         from delivery d
         left join notification n on n.id = d.notification
         left join broadcast b on b.id = d.notification"
    };
}

/// See [`crate::store::Store::stranded`].
pub(super) fn stranded(
    to: &Connection,
    channel: &str,
    due_before: Timestamp,
    limit: u32,
) -> rusqlite::Result<Vec<DeliveryBatch>> {
    let now = Timestamp::now();
    let found: Vec<Found> = to
        .prepare_cached(concat!(
            select_items!(),
            "
             where d.channel = ?1 and d.state in ('pending', 'claimed')
               and d.sweep_at < ?2 and d.due_at <= ?3
             order by d.sweep_at, d.id limit ?4"
        ))?
        .query_map(params![channel, due_before, now, limit], item)?
        .collect::<Result<_, _>>()?;
    // It counts as due from now on.
    let mut seen = to.prepare_cached("update delivery set sweep_at = ?2 where id = ?1")?;
    let mut chunks: BTreeMap<(Uuid, u32), Vec<DeliveryItem>> = BTreeMap::new();
    for (chunk, item) in found {
        seen.execute(params![item.id, now.max(due_before)])?;
        chunks.entry(chunk).or_default().push(item);
    }
    let mut batches = Vec::new();
    for ((submission, no), items) in chunks {
        batches.extend(of_chunk(to, channel, submission, no, items)?);
    }
    Ok(batches)
}

/// A message that carries one delivery; `None` where its chunk is not kept any more.
pub(super) fn alone(
    from: &Connection,
    channel: &str,
    delivery: Uuid,
) -> rusqlite::Result<Option<DeliveryBatch>> {
    let ((submission, no), item) = from
        .prepare_cached(concat!(select_items!(), " where d.id = ?1"))?
        .query_row([delivery], item)?;
    Ok(of_chunk(from, channel, submission, no, vec![item])?.pop())
}

fn item(row: &Row<'_>) -> rusqlite::Result<Found> {
    let of_row: Option<Timestamp> = row.get(7)?;
    let of_broadcast: Option<Timestamp> = row.get(8)?;
    let item = DeliveryItem {
        id: row.get(2)?,
        notification: row.get(3)?,
        user: row.get(4)?,
        target: row.get(5)?,
        person: None,
        tries: 0,
        patch: None,
        // Whose inbox is switched off has no row; then the delivery's own age serves.
        created: match of_row.or(of_broadcast) {
            Some(created) => created,
            None => row.get(6)?,
        },
    };
    Ok(((row.get(0)?, row.get(1)?), item))
}

/// Puts deliveries of one chunk into messages.
fn of_chunk(
    from: &Connection,
    channel: &str,
    submission: Uuid,
    no: u32,
    mut items: Vec<DeliveryItem>,
) -> rusqlite::Result<Vec<DeliveryBatch>> {
    let sql = concat!(
        "select ",
        header_columns!(),
        ", c.payload, c.patches, c.refs from submission_chunk c where c.submission = ?1 and c.no = ?2"
    );
    let chunk = from
        .prepare_cached(sql)?
        .query_row(params![submission, no], |row| {
            let Json(payload) = row.get(6)?;
            let patches: Option<Json<BTreeMap<Uuid, Map<String, Value>>>> = row.get(7)?;
            let Json::<Vec<RefReport>>(refs) = row.get(8)?;
            Ok((header(row)?, payload, patches, refs))
        })
        .optional()?;
    // A chunk is kept as long as one of its deliveries is open.
    let Some((header, payload, patches, refs)) = chunk else {
        return Ok(Vec::new());
    };
    if let Some(Json(patches)) = patches {
        for item in &mut items {
            item.patch = patches.get(&item.notification).cloned();
        }
    }
    let refs: Vec<String> = refs.into_iter().map(|one| one.entity).collect();
    let personal = |items: &[DeliveryItem]| items.iter().all(|item| item.user.is_some());
    let batches = items.chunks(DELIVERIES_PER_MESSAGE_MAX);
    Ok(batches
        .map(|items| DeliveryBatch {
            header: header.clone(),
            channel: channel.to_owned(),
            payload: Clone::clone(&payload),
            recipients: if personal(items) {
                Vec::new()
            } else {
                refs.clone()
            },
            items: items.to_vec(),
            extra: Map::new(),
        })
        .collect())
}
