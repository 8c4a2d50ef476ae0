//! The inbox rows of chunks: inserted, or updated where a scope met an older submission.

use std::collections::HashMap;

use deadpool_postgres::Transaction;
use serde_json::Map;
use serde_json::Value;
use tokio_postgres::types::Json;
use uuid::Uuid;

use crate::notification::Notification;
use crate::notification::Payload;
use crate::store::Change;
use crate::store::ChunkRows;
use crate::store::RowStored;
use crate::store::postgres::counts::Counts;
use crate::store::postgres::error::Fault;
use crate::store::postgres::types::notification;
use crate::store::postgres::types::now;
use crate::store::postgres::types::own_columns;
use crate::store::postgres::types::unmarked_columns;
use crate::submission::Header;
use crate::time::Timestamp;

/// What became of the rows.
#[derive(Debug, Default)]
pub(super) struct Written {
    /// Every row, by notification id.
    pub(super) rows: HashMap<Uuid, RowStored>,
    /// What it does to the counters.
    pub(super) counts: Counts,
}

/// The statements of one table.
struct Table {
    insert: &'static str,
    lock: &'static str,
    update: &'static str,
}

/// `$1` to `$3`: the rows and which content each has; `$4` to `$14`: the contents, each once.
macro_rules! incoming {
    () => {
        r#"unnest($1::uuid[], $2::text[], $3::bigint[]) as r(id, "user", content)
 join unnest($4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::smallint[],
             $10::text[], $11::text[], $12::json[], $13::uuid[], $14::timestamptz[])
      with ordinality as c(origin, scope, topic, title, description, severity,
                           link, icon, metadata, submission, accepted_at, no)
   on c.no = r.content"#
    };
}

/// No conflict target: every unique index counts. Whoever inserted the id first has made the row.
macro_rules! insert {
    ($table:literal, $user:literal, $from:literal) => {
        concat!(
            "insert into ",
            $table,
            " (id, ",
            $user,
            "origin, scope, topic, title, description,
 severity, link, icon, metadata, created, submission, accepted_at)
select r.id, ",
            $from,
            "c.origin, c.scope, c.topic, c.title, c.description,
 c.severity, c.link, c.icon, c.metadata, (select ",
            now!(),
            "), c.submission, c.accepted_at
from ",
            incoming!(),
            "
order by r.id
on conflict do nothing
returning id, created"
        )
    };
}

/// Title, severity and metadata are replaced; description, link and topic only if given; icon
/// never. Source: contract 2.1.
macro_rules! update {
    ($table:literal, $read:literal) => {
        concat!(
            "update ",
            $table,
            " n set
 title = c.title, severity = c.severity, metadata = c.metadata,
 description = coalesce(c.description, n.description),
 link = coalesce(c.link, n.link),
 topic = coalesce(c.topic, n.topic),
 updated = (select ",
            now!(),
            "), ",
            $read,
            "
 submission = c.submission, accepted_at = c.accepted_at
from ",
            incoming!(),
            "
where n.id = r.id
returning "
        )
    };
}

const NOTIFICATION: Table = Table {
    insert: insert!("notification", r#""user", "#, r#"r."user", "#),
    lock: concat!(
        "select ",
        own_columns!(),
        ", n.accepted_at from notification n where n.id = any($1) order by n.id for no key update"
    ),
    update: concat!(update!("notification", "read = null,"), own_columns!()),
};

/// Who has read a broadcast has read it, whatever becomes of it later: marks stay.
const BROADCAST: Table = Table {
    insert: insert!("broadcast", "", ""),
    lock: concat!(
        "select ",
        unmarked_columns!(),
        ", n.accepted_at from broadcast n where n.id = any($1) order by n.id for no key update"
    ),
    update: concat!(update!("broadcast", ""), unmarked_columns!()),
};

/// Writes the rows of chunks that were not persisted before.
pub(super) async fn write(tx: &Transaction<'_>, chunks: &[&ChunkRows]) -> Result<Written, Fault> {
    let mut written = Written::default();
    for (broadcast, table) in [(true, &BROADCAST), (false, &NOTIFICATION)] {
        let chunks = chunks.iter().filter(|chunk| chunk.broadcast == broadcast);
        let sheet = Sheet::of(chunks.copied());
        if !sheet.rows.is_empty() {
            write_table(tx, table, &sheet, &mut written).await?;
        }
    }
    Ok(written)
}

async fn write_table(
    tx: &Transaction<'_>,
    table: &Table,
    sheet: &Sheet<'_>,
    written: &mut Written,
) -> Result<(), Fault> {
    let mut made: HashMap<Uuid, Timestamp> = HashMap::with_capacity(sheet.rows.len());
    for row in sheet.run(tx, table.insert, &sheet.rows).await? {
        made.insert(row.try_get(0)?, row.try_get(1)?);
    }
    let mut met = Vec::new();
    for line in &sheet.rows {
        match made.get(&line.id) {
            Some(created) => {
                written.counts.created(line.user);
                let stored = sheet.stored(line, *created);
                written.rows.insert(line.id, stored);
            }
            None => met.push(*line),
        }
    }
    if met.is_empty() {
        return Ok(());
    }
    meet(tx, table, sheet, met, written).await
}

/// Decides on the rows that were there already, under a lock on each.
async fn meet(
    tx: &Transaction<'_>,
    table: &Table,
    sheet: &Sheet<'_>,
    met: Vec<Line<'_>>,
    written: &mut Written,
) -> Result<(), Fault> {
    let ids: Vec<Uuid> = met.iter().map(|line| line.id).collect();
    let statement = tx.prepare_cached(table.lock).await?;
    let mut before: HashMap<Uuid, (Notification, Timestamp)> = HashMap::new();
    for row in tx.query(&statement, &[&ids]).await? {
        let stands = notification(&row, 0)?;
        before.insert(stands.id, (stands, row.try_get(16)?));
    }
    let mut newer = Vec::new();
    for line in met {
        let Some((stands, accepted_at)) = before.get(&line.id) else {
            return Err(Fault::Gone);
        };
        let header = sheet.contents[line.content].header;
        let change = match (header.accepted_at, header.id).cmp(&(*accepted_at, stands.submission)) {
            std::cmp::Ordering::Greater => {
                newer.push(line);
                continue;
            }
            std::cmp::Ordering::Equal => Change::Same,
            std::cmp::Ordering::Less => Change::Superseded,
        };
        let notification = stands.clone();
        written.rows.insert(
            line.id,
            RowStored {
                notification,
                change,
            },
        );
    }
    if newer.is_empty() {
        return Ok(());
    }
    for row in sheet.run(tx, table.update, &newer).await? {
        let notification = notification(&row, 0)?;
        if let Some((stands, _)) = before.get(&notification.id)
            && stands.read.is_some()
            && let Some(user) = &notification.user
        {
            written.counts.unread(user, 1);
        }
        let change = Change::Updated;
        written.rows.insert(
            notification.id,
            RowStored {
                notification,
                change,
            },
        );
    }
    Ok(())
}

/// One row to be written.
#[derive(Clone, Copy, Debug)]
struct Line<'a> {
    id: Uuid,
    user: Option<&'a str>,
    /// Which of the sheet's contents it has.
    content: usize,
}

/// What rows share.
#[derive(Clone, Copy, Debug)]
struct Content<'a> {
    header: &'a Header,
    payload: &'a Payload,
}

/// The rows of many chunks, sorted by id, and their contents, each once.
#[derive(Debug)]
struct Sheet<'a> {
    rows: Vec<Line<'a>>,
    contents: Vec<Content<'a>>,
}

impl<'a> Sheet<'a> {
    fn of(chunks: impl Iterator<Item = &'a ChunkRows>) -> Self {
        let (mut rows, mut contents) = (Vec::new(), Vec::new());
        for chunk in chunks {
            let header = &chunk.header;
            let shared = contents.len();
            contents.push(Content {
                header,
                payload: &chunk.payload,
            });
            for row in chunk.rows.iter().filter(|row| row.stored) {
                let content = match &row.payload {
                    None => shared,
                    Some(payload) => {
                        contents.push(Content { header, payload });
                        contents.len() - 1
                    }
                };
                rows.push(Line {
                    id: row.id,
                    user: row.user.as_deref(),
                    content,
                });
            }
        }
        rows.sort_unstable_by_key(|line| line.id);
        Self { rows, contents }
    }

    /// Runs an insert or update with these of the sheet's rows.
    async fn run(
        &self,
        tx: &Transaction<'_>,
        sql: &str,
        rows: &[Line<'a>],
    ) -> Result<Vec<tokio_postgres::Row>, Fault> {
        let ids: Vec<Uuid> = rows.iter().map(|line| line.id).collect();
        let users: Vec<Option<&str>> = rows.iter().map(|line| line.user).collect();
        // Ordinality counts from 1.
        let numbers: Vec<i64> = rows.iter().map(|line| line.content as i64 + 1).collect();
        let all = &self.contents;
        let text = |field: fn(&'a Payload) -> Option<&'a str>| -> Vec<Option<&'a str>> {
            all.iter().map(|one| field(one.payload)).collect()
        };
        let origins: Vec<&str> = all.iter().map(|one| one.header.origin.as_str()).collect();
        let severities: Vec<i16> = all
            .iter()
            .map(|one| one.payload.severity().rank())
            .collect();
        let metadata: Vec<Option<Json<&Map<String, Value>>>> = all
            .iter()
            .map(|one| one.payload.metadata.as_ref().map(Json))
            .collect();
        let submissions: Vec<Uuid> = all.iter().map(|one| one.header.id).collect();
        let accepted: Vec<Timestamp> = all.iter().map(|one| one.header.accepted_at).collect();
        let statement = tx.prepare_cached(sql).await?;
        let rows = tx
            .query(
                &statement,
                &[
                    &ids,
                    &users,
                    &numbers,
                    &origins,
                    &text(|payload| payload.scope.as_deref()),
                    &text(|payload| payload.topic.as_deref()),
                    &text(|payload| Some(&payload.title)),
                    &text(|payload| payload.description.as_deref()),
                    &severities,
                    &text(|payload| payload.link.as_deref()),
                    &text(|payload| payload.icon.as_deref()),
                    &metadata,
                    &submissions,
                    &accepted,
                ],
            )
            .await?;
        Ok(rows)
    }

    /// A row that was made now, as it stands.
    fn stored(&self, line: &Line<'_>, created: Timestamp) -> RowStored {
        let Content { header, payload } = self.contents[line.content];
        RowStored {
            notification: Notification {
                id: line.id,
                user: line.user.map(str::to_owned),
                origin: header.origin.clone(),
                created,
                updated: None,
                read: None,
                saved: None,
                payload: Payload {
                    severity: Some(payload.severity()),
                    extra: Map::new(),
                    ..payload.clone()
                },
                submission: header.id,
            },
            change: Change::New,
        }
    }
}
