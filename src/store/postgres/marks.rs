//! What people change themselves: read and saved marks, and their settings.
//!
//! The changes of one person wait for each other, so that every change of a mark is counted once.

use deadpool_postgres::Client;
use deadpool_postgres::Transaction;
use uuid::Uuid;

use super::LockClass;
use super::counts;
use super::counts::Counts;
use super::error::Fault;
use super::inbox;
use super::types::notification;
use super::types::now;
use crate::notification::Notification;
use crate::settings::wire::Known;
use crate::store::Mark;
use crate::store::ORIGINS;
use crate::store::Setting;

/// Waits for other changes of the same person, until the transaction ends.
async fn alone(tx: &Transaction<'_>, user: &str) -> Result<(), Fault> {
    let statement = tx
        .prepare_cached("select pg_advisory_xact_lock($1, hashtext($2))")
        .await?;
    tx.query(&statement, &[&(LockClass::Person as i32), &user])
        .await?;
    Ok(())
}

/// As in the peer, a date that is set again is the new one.
macro_rules! marked {
    ($old:literal, $mark:literal) => {
        concat!(
            "case when ",
            $mark,
            " then now.at when not ",
            $mark,
            " then null else ",
            $old,
            " end"
        )
    };
}

/// How many became read, minus how many became unread.
macro_rules! became_read {
    () => {
        "select coalesce(sum((is_read)::int - (was_read)::int), 0)::bigint from changed"
    };
}

const MARK_OWN: &str = concat!(
    r#"with held as materialized (
 select id, read, saved from notification where "user" = $1 and id = any($2)
 order by id for no key update
), now as materialized (
 select "#,
    now!(),
    " as at
), changed as (
 update notification n set
  read = ",
    marked!("held.read", "$3::boolean"),
    ",
  saved = ",
    marked!("held.saved", "$4::boolean"),
    "
 from held, now where n.id = held.id
 returning held.read is not null as was_read, n.read is not null as is_read
)
",
    became_read!()
);

const MARK_BROADCASTS: &str = concat!(
    r#"with held as materialized (
 select b.id, m.read, m.saved from broadcast b
 left join broadcast_mark m on m.broadcast = b.id and m."user" = $1
 where b.id = any($2)
), now as materialized (
 select "#,
    now!(),
    r#" as at
), written as (
 insert into broadcast_mark ("user", broadcast, read, saved)
 select $1, held.id, "#,
    marked!("held.read", "$3::boolean"),
    ", ",
    marked!("held.saved", "$4::boolean"),
    r#"
 from held, now order by held.id
 on conflict ("user", broadcast) do update set read = excluded.read, saved = excluded.saved
 returning broadcast, read
), changed as (
 select held.read is not null as was_read, written.read is not null as is_read
 from held join written on written.broadcast = held.id
)
"#,
    became_read!()
);

/// See [`crate::store::Store::mark`].
pub(super) async fn mark(
    client: &mut Client,
    user: &str,
    ids: &[Uuid],
    mark: Mark,
) -> Result<Vec<Notification>, Fault> {
    let tx = client.transaction().await?;
    if mark != Mark::default() {
        alone(&tx, user).await?;
        let mut counts = Counts::default();
        let own = tx.prepare_cached(MARK_OWN).await?;
        let broadcasts = tx.prepare_cached(MARK_BROADCASTS).await?;
        let Mark { read, saved } = mark;
        let own = tx.query_one(&own, &[&user, &ids, &read, &saved]).await?;
        counts.unread(user, -own.try_get::<_, i64>(0)?);
        let broadcasts = tx
            .query_one(&broadcasts, &[&user, &ids, &read, &saved])
            .await?;
        counts.broadcasts_read(user, broadcasts.try_get(0)?);
        counts::add(&tx, &counts).await?;
    }
    let statement = tx.prepare_cached(inbox::VISIBLE).await?;
    let rows = tx.query(&statement, &[&user, &ids]).await?;
    let marked = rows
        .iter()
        .map(|row| notification(row, 0))
        .collect::<Result<_, _>>()?;
    tx.commit().await?;
    Ok(marked)
}

const READ_OWN: &str = concat!(
    r#"with held as materialized (
 select id from notification where "user" = $1 and read is null order by id for no key update
), now as materialized (
 select "#,
    now!(),
    " as at
)
update notification n set read = now.at from held, now where n.id = held.id"
);

const READ_BROADCASTS: &str = concat!(
    r#"insert into broadcast_mark as o ("user", broadcast, read)
select $1, b.id, (select "#,
    now!(),
    r#") from broadcast b
where not exists (select from broadcast_mark m
 where m."user" = $1 and m.broadcast = b.id and m.read is not null)
order by b.id
on conflict ("user", broadcast) do update set read = excluded.read where o.read is null"#
);

/// See [`crate::store::Store::mark_all_read`].
pub(super) async fn mark_all_read(client: &mut Client, user: &str) -> Result<u64, Fault> {
    let tx = client.transaction().await?;
    alone(&tx, user).await?;
    let own = tx.prepare_cached(READ_OWN).await?;
    let own = tx.execute(&own, &[&user]).await?;
    let broadcasts = tx.prepare_cached(READ_BROADCASTS).await?;
    let broadcasts = tx.execute(&broadcasts, &[&user]).await?;
    let mut counts = Counts::default();
    counts.unread(user, -i64::try_from(own).unwrap_or(i64::MAX));
    counts.broadcasts_read(user, i64::try_from(broadcasts).unwrap_or(i64::MAX));
    counts::add(&tx, &counts).await?;
    tx.commit().await?;
    Ok(own + broadcasts)
}

const SETTINGS: &str = r#"select s."user", s.channel, s.origin, s.topic, s.enabled
from unnest($1::text[]) with ordinality as asked("user", no)
join setting s on s."user" = asked."user"
order by asked.no, s.channel, s.origin, s.topic nulls first"#;

/// See [`crate::store::Store::settings`].
pub(super) async fn settings(client: &Client, users: &[String]) -> Result<Vec<Setting>, Fault> {
    let statement = client.prepare_cached(SETTINGS).await?;
    let rows = client.query(&statement, &[&users]).await?;
    rows.iter()
        .map(|row| {
            Ok(Setting {
                user: row.try_get(0)?,
                channel: row.try_get(1)?,
                origin: row.try_get(2)?,
                topic: row.try_get(3)?,
                enabled: row.try_get(4)?,
            })
        })
        .collect()
}

/// See [`crate::store::Store::origins`].
pub(super) async fn origins(client: &Client, user: &str) -> Result<Known, Fault> {
    let statement = client.prepare_cached(ORIGINS).await?;
    let mut known = Known::new();
    for row in client.query(&statement, &[&user]).await? {
        let topics = known.entry(row.try_get(0)?).or_default();
        topics.extend(row.try_get::<_, Option<String>>(1)?);
    }
    Ok(known)
}

const SAVE_SETTINGS: &str = r#"insert into setting ("user", channel, origin, topic, enabled)
select $1, * from unnest($2::text[], $3::text[], $4::text[], $5::boolean[])"#;

/// See [`crate::store::Store::save_settings`].
pub(super) async fn save_settings(
    client: &mut Client,
    user: &str,
    settings: &[Setting],
) -> Result<(), Fault> {
    let channels: Vec<&str> = settings.iter().map(|one| &*one.channel).collect();
    let origins: Vec<&str> = settings.iter().map(|one| &*one.origin).collect();
    let topics: Vec<Option<&str>> = settings.iter().map(|one| one.topic.as_deref()).collect();
    let enabled: Vec<bool> = settings.iter().map(|one| one.enabled).collect();
    let tx = client.transaction().await?;
    alone(&tx, user).await?;
    let clear = tx
        .prepare_cached(r#"delete from setting where "user" = $1"#)
        .await?;
    tx.execute(&clear, &[&user]).await?;
    let save = tx.prepare_cached(SAVE_SETTINGS).await?;
    tx.execute(&save, &[&user, &channels, &origins, &topics, &enabled])
        .await?;
    tx.commit().await?;
    Ok(())
}
