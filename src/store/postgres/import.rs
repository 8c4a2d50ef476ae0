//! Rows of another system: inserted where they are not there yet, never changed.

use deadpool_postgres::Client;
use deadpool_postgres::Transaction;
use serde_json::Map;
use serde_json::Value;
use tokio_postgres::types::Json;
use uuid::Uuid;

use super::counts;
use super::counts::Counts;
use super::counts::EVERYBODY;
use super::error::Fault;
use super::types::large;
use super::types::now;
use crate::notification::Notification;
use crate::notification::Payload;
use crate::notification::notification_id;
use crate::store::ImportMark;
use crate::store::ImportPart;
use crate::store::ImportRows;
use crate::store::ImportStand;
use crate::store::Setting;
use crate::time::Timestamp;

/// `$16` is the id of the row's scope: one that was sent here since is there already.
macro_rules! insert {
    ($table:literal, $more:literal, $from:literal, $returning:literal) => {
        concat!(
            "insert into ",
            $table,
            " (id, origin, scope, topic, title, description, severity, link, icon, metadata,
 created, updated, submission, accepted_at",
            $more,
            r#")
select id, origin, scope, topic, title, description, severity, link, icon, metadata,
 created, updated, id, coalesce(updated, created)"#,
            $from,
            r#"
from unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[],
 $8::smallint[], $9::text[], $10::text[], $11::json[], $12::timestamptz[], $13::timestamptz[],
 $14::timestamptz[], $15::timestamptz[], $16::uuid[])
 as r(id, "user", origin, scope, topic, title, description, severity, link, icon, metadata,
 created, updated, read, saved, of_scope)
where not exists (select from "#,
            $table,
            " s where s.id = r.of_scope)
order by id
on conflict do nothing
returning ",
            $returning
        )
    };
}

const NOTIFICATIONS: &str = insert!(
    "notification",
    r#", "user", read, saved"#,
    r#", "user", read, saved"#,
    r#""user", read is null"#
);
const BROADCASTS: &str = insert!("broadcast", "", "", "null::text, false");

/// Who marks something meanwhile waits, so that each mark is counted once.
const ALONE: &str = "lock table broadcast_mark, setting in share row exclusive mode";

/// What was done with a broadcast that is not here is nothing.
const MARKS: &str = r#"insert into broadcast_mark ("user", broadcast, read, saved)
select r."user", r.broadcast, r.read, r.saved
from unnest($1::text[], $2::uuid[], $3::timestamptz[], $4::timestamptz[])
 as r("user", broadcast, read, saved)
where exists (select from broadcast b where b.id = r.broadcast)
order by 1, 2
on conflict do nothing
returning "user", read is not null"#;

const SETTINGS: &str = r#"insert into setting ("user", channel, origin, topic, enabled)
select * from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::boolean[])
order by 1, 2, 3, 4
on conflict do nothing"#;

/// See [`crate::store::Store::import`].
pub(super) async fn import(
    client: &mut Client,
    source: &str,
    rows: &ImportRows,
    stand: Option<&ImportStand>,
) -> Result<u64, Fault> {
    let tx = client.transaction().await?;
    let mut counts = Counts::default();
    let new = match rows {
        ImportRows::Broadcasts(rows) => notifications(&tx, BROADCASTS, rows, &mut counts).await?,
        ImportRows::Notifications(rows) => {
            notifications(&tx, NOTIFICATIONS, rows, &mut counts).await?
        }
        ImportRows::Marks(rows) => marks(&tx, rows, &mut counts).await?,
        ImportRows::Settings(rows) => settings(&tx, rows).await?,
    };
    counts::add(&tx, &counts).await?;
    remember(&tx, source, stand).await?;
    tx.commit().await?;
    Ok(new)
}

async fn notifications(
    tx: &Transaction<'_>,
    sql: &str,
    rows: &[Notification],
    counts: &mut Counts,
) -> Result<u64, Fault> {
    let ids: Vec<Uuid> = rows.iter().map(|row| row.id).collect();
    let users: Vec<Option<&str>> = rows.iter().map(|row| row.user.as_deref()).collect();
    let origins: Vec<&str> = rows.iter().map(|row| &*row.origin).collect();
    let text = |field: fn(&Payload) -> Option<&str>| -> Vec<Option<&str>> {
        rows.iter().map(|row| field(&row.payload)).collect()
    };
    let severities: Vec<i16> = rows
        .iter()
        .map(|row| row.payload.severity().rank())
        .collect();
    let metadata: Vec<Option<Json<&Map<String, Value>>>> = rows
        .iter()
        .map(|row| row.payload.metadata.as_ref().map(Json))
        .collect();
    let created: Vec<Timestamp> = rows.iter().map(|row| row.created).collect();
    let date = |field: fn(&Notification) -> Option<Timestamp>| -> Vec<Option<Timestamp>> {
        rows.iter().map(field).collect()
    };
    let of_scope: Vec<Option<Uuid>> = rows
        .iter()
        .map(|row| {
            let scope = row.payload.scope()?;
            let user = row.user.as_deref();
            Some(notification_id(
                &row.origin,
                Some(scope),
                row.submission,
                user,
            ))
        })
        .collect();
    let statement = tx.prepare_cached(sql).await?;
    let made = tx
        .query(
            &statement,
            &[
                &ids,
                &users,
                &origins,
                &text(|payload| payload.scope.as_deref()),
                &text(|payload| payload.topic.as_deref()),
                &text(|payload| Some(&payload.title)),
                &text(|payload| payload.description.as_deref()),
                &severities,
                &text(|payload| payload.link.as_deref()),
                &text(|payload| payload.icon.as_deref()),
                &metadata,
                &created,
                &date(|row| row.updated),
                &date(|row| row.read),
                &date(|row| row.saved),
                &of_scope,
            ],
        )
        .await?;
    for row in &made {
        let user: Option<&str> = row.try_get(0)?;
        let unread: bool = row.try_get(1)?;
        counts.rows(user.unwrap_or(EVERYBODY), i64::from(unread), 1);
    }
    Ok(made.len() as u64)
}

async fn marks(
    tx: &Transaction<'_>,
    rows: &[ImportMark],
    counts: &mut Counts,
) -> Result<u64, Fault> {
    tx.batch_execute(ALONE).await?;
    let users: Vec<&str> = rows.iter().map(|row| &*row.user).collect();
    let broadcasts: Vec<Uuid> = rows.iter().map(|row| row.broadcast).collect();
    let read: Vec<Option<Timestamp>> = rows.iter().map(|row| row.read).collect();
    let saved: Vec<Option<Timestamp>> = rows.iter().map(|row| row.saved).collect();
    let statement = tx.prepare_cached(MARKS).await?;
    let made = tx
        .query(&statement, &[&users, &broadcasts, &read, &saved])
        .await?;
    for row in &made {
        counts.broadcasts_read(row.try_get(0)?, i64::from(row.try_get::<_, bool>(1)?));
    }
    Ok(made.len() as u64)
}

async fn settings(tx: &Transaction<'_>, rows: &[Setting]) -> Result<u64, Fault> {
    tx.batch_execute(ALONE).await?;
    let users: Vec<&str> = rows.iter().map(|row| &*row.user).collect();
    let channels: Vec<&str> = rows.iter().map(|row| &*row.channel).collect();
    let origins: Vec<&str> = rows.iter().map(|row| &*row.origin).collect();
    let topics: Vec<Option<&str>> = rows.iter().map(|row| row.topic.as_deref()).collect();
    let enabled: Vec<bool> = rows.iter().map(|row| row.enabled).collect();
    let statement = tx.prepare_cached(SETTINGS).await?;
    let made = tx
        .execute(
            &statement,
            &[&users, &channels, &origins, &topics, &enabled],
        )
        .await?;
    Ok(made)
}

const REMEMBER: &str = concat!(
    "insert into import_progress (source, part, after, rows, at)
values ($1, $2, $3, $4, ",
    now!(),
    ")
on conflict (source) do update set
 part = excluded.part, after = excluded.after, rows = excluded.rows, at = excluded.at"
);

async fn remember(
    tx: &Transaction<'_>,
    source: &str,
    stand: Option<&ImportStand>,
) -> Result<(), Fault> {
    let Some(stand) = stand else {
        let forget = tx
            .prepare_cached("delete from import_progress where source = $1")
            .await?;
        tx.execute(&forget, &[&source]).await?;
        return Ok(());
    };
    let rows = i64::try_from(stand.rows).unwrap_or(i64::MAX);
    let statement = tx.prepare_cached(REMEMBER).await?;
    tx.execute(
        &statement,
        &[&source, &stand.part.as_str(), &stand.after, &rows],
    )
    .await?;
    Ok(())
}

/// See [`crate::store::Store::import_stand`].
pub(super) async fn stand(client: &Client, source: &str) -> Result<Option<ImportStand>, Fault> {
    let statement = client
        .prepare_cached("select part, after, rows from import_progress where source = $1")
        .await?;
    let Some(row) = client.query_opt(&statement, &[&source]).await? else {
        return Ok(None);
    };
    // What only another version knows begins anew: nothing doubles.
    let Some(part) = ImportPart::from_word(row.try_get(0)?) else {
        return Ok(None);
    };
    Ok(Some(ImportStand {
        part,
        after: row.try_get(1)?,
        rows: large(row.try_get(2)?),
    }))
}
