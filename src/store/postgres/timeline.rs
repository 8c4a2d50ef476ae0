//! The story of a submission.

use deadpool_postgres::Client;
use tokio_postgres::Row;
use tokio_postgres::types::Json;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::error::Fault;
use super::types::count;
use super::types::header;
use super::types::header_columns;
use super::types::large;
use super::types::word;
use crate::chunk::RefReport;
use crate::delivery::DeliveryState;
use crate::failure::Reason;
use crate::notification::keyed_submission_id;
use crate::store::ChunkLine;
use crate::store::DeliveryLine;
use crate::store::Find;
use crate::store::Tally;
use crate::store::Timeline;

/// The payload is told once, by the first chunk.
const HEAD: &str = concat!(
    "select ",
    header_columns!(),
    ", c.payload, c.broadcast,
 (select max(a.of) from submission_chunk a where a.submission = $1),
 (select coalesce(sum(cardinality(a.ignored)), 0)::bigint
  from submission_chunk a where a.submission = $1)
from submission_chunk c where c.submission = $1 order by c.no limit 1"
);

const BY_SUFFIX: &str = "select submission from submission_chunk
where right(submission::text, 8) = $1 order by accepted_at desc, submission desc limit 1";

const LINES: &str =
    "select no, started_at, stored_at, stored, superseded, muted, dropped, notes, refs
from submission_chunk where submission = $1 order by no";

const TALLY: &str = "select channel, state, reason, state = 'pending' and attempts > 0 as retrying,
 count(*), max(updated_at)
from delivery where submission = $1
group by 1, 2, 3, 4 order by 1, 2, 3 nulls first, 4";

/// What is not sent comes first.
const DELIVERIES: &str = r#"select id, channel, "user", target, state, attempts, reason, detail,
 provider_id, case when state = 'pending' and attempts > 0 then due_at end, doubtful, updated_at
from delivery where submission = $1 and ($2::text is null or "user" = $2)
order by state = 'sent', channel, "user" nulls first, target collate "C", id
limit $3"#;

const DEAD: &str = "select id from dead_letter where submission = $1 order by id";

/// See [`crate::store::Store::timeline`].
pub(super) async fn timeline(
    client: &Client,
    find: &Find,
    user: Option<&str>,
    deliveries: u32,
) -> Result<Option<Timeline>, Fault> {
    let Some(id) = submission(client, find).await? else {
        return Ok(None);
    };
    let head = client.prepare_cached(HEAD).await?;
    let Some(head) = client.query_opt(&head, &[&id]).await? else {
        return Ok(None);
    };
    let lines = client.prepare_cached(LINES).await?;
    let tally = client.prepare_cached(TALLY).await?;
    let listed = client.prepare_cached(DELIVERIES).await?;
    let dead = client.prepare_cached(DEAD).await?;
    let limit = i64::from(deliveries);
    let whole: [&(dyn ToSql + Sync); 1] = [&id];
    let some: [&(dyn ToSql + Sync); 3] = [&id, &user, &limit];
    let (lines, tally, listed, dead) = futures::try_join!(
        client.query(&lines, &whole),
        client.query(&tally, &whole),
        client.query(&listed, &some),
        client.query(&dead, &whole),
    )?;
    let Json(payload) = head.try_get(6)?;
    let mut refs = Vec::new();
    for row in &lines {
        let of_chunk: Option<Json<Vec<RefReport>>> = row.try_get(8)?;
        refs.extend(of_chunk.map(|Json(refs)| refs).unwrap_or_default());
    }
    Ok(Some(Timeline {
        header: header(&head, 0)?,
        payload,
        broadcast: head.try_get(7)?,
        refs,
        chunks: lines.iter().map(line).collect::<Result<_, _>>()?,
        of: count(head.try_get(8)?),
        ignored: u32::try_from(head.try_get::<_, i64>(9)?).unwrap_or(u32::MAX),
        tally: tally.iter().map(tallied).collect::<Result<_, _>>()?,
        deliveries: listed.iter().map(delivery).collect::<Result<_, _>>()?,
        dead: dead
            .iter()
            .map(|row| row.try_get(0))
            .collect::<Result<_, _>>()?,
    }))
}

async fn submission(client: &Client, find: &Find) -> Result<Option<Uuid>, Fault> {
    match find {
        Find::Id(id) => Ok(Some(*id)),
        Find::Key { origin, key } => Ok(Some(keyed_submission_id(origin, key))),
        Find::Suffix(suffix) => {
            let statement = client.prepare_cached(BY_SUFFIX).await?;
            let row = client
                .query_opt(&statement, &[&suffix.to_lowercase()])
                .await?;
            Ok(row.map(|row| row.try_get(0)).transpose()?)
        }
    }
}

fn line(row: &Row) -> Result<ChunkLine, Fault> {
    let notes: Option<Json<_>> = row.try_get(7)?;
    Ok(ChunkLine {
        no: count(row.try_get(0)?),
        started_at: row.try_get(1)?,
        stored_at: row.try_get(2)?,
        stored: count(row.try_get(3)?),
        superseded: count(row.try_get(4)?),
        muted: count(row.try_get(5)?),
        dropped: count(row.try_get(6)?),
        notes: notes.map(|Json(notes)| notes).unwrap_or_default(),
    })
}

fn tallied(row: &Row) -> Result<Tally, Fault> {
    Ok(Tally {
        channel: row.try_get(0)?,
        state: word(row, 1, DeliveryState::from_word)?,
        reason: reason(row, 2)?,
        retrying: row.try_get(3)?,
        count: large(row.try_get(4)?),
        at: row.try_get(5)?,
    })
}

fn delivery(row: &Row) -> Result<DeliveryLine, Fault> {
    Ok(DeliveryLine {
        id: row.try_get(0)?,
        channel: row.try_get(1)?,
        user: row.try_get(2)?,
        target: row.try_get(3)?,
        state: word(row, 4, DeliveryState::from_word)?,
        attempts: count(row.try_get(5)?),
        reason: reason(row, 6)?,
        detail: row.try_get(7)?,
        provider_id: row.try_get(8)?,
        next_at: row.try_get(9)?,
        doubtful: row.try_get(10)?,
        at: row.try_get(11)?,
    })
}

fn reason(row: &Row, at: usize) -> Result<Option<Reason>, Fault> {
    match row.try_get::<_, Option<&str>>(at)? {
        None => Ok(None),
        Some(_) => word(row, at, |text| text.parse().ok()).map(Some),
    }
}
