//! Rows that were moved over from another system and whose scope is sent again: they get the id of
//! their scope, and from then on are rows like any other.
//!
//! Of several rows of one scope, which there may be elsewhere, the newest is continued.

use deadpool_postgres::Transaction;
use uuid::Uuid;

use crate::store::ChunkRows;
use crate::store::postgres::error::Fault;

/// `$1` to `$4`: the rows of scopes that are being sent. By an index that holds what was moved and
/// not yet continued, and nothing else.
const NOTIFICATIONS: &str = r#"update notification n set id = m.wanted
from (
 select r.id as wanted, old.id
 from unnest($1::uuid[], $2::text[], $3::text[], $4::text[]) as r(id, "user", origin, scope)
 cross join lateral (
  select o.id from notification o
  where o."user" = r."user" and o.origin = r.origin and o.scope = r.scope
   and o.scope is not null and o.submission = o.id
  order by o.created desc limit 1) old
 where not exists (select from notification t where t.id = r.id)
) m
where n.id = m.id"#;

/// The same of broadcasts; `$2` is ignored.
const BROADCASTS: &str = r#"select r.id, old.id
from unnest($1::uuid[], $2::text[], $3::text[], $4::text[]) as r(id, "user", origin, scope)
cross join lateral (
 select o.id from broadcast o
 where o.origin = r.origin and o.scope = r.scope and o.scope is not null and o.submission = o.id
 order by o.created desc limit 1 for update) old
where not exists (select from broadcast t where t.id = r.id)"#;

/// Marks point at a broadcast, so it is copied before they are moved.
const COPY: &str = "insert into broadcast (id, origin, scope, topic, title, description, severity,
 link, icon, metadata, created, updated, submission, accepted_at)
select $1, origin, scope, topic, title, description, severity,
 link, icon, metadata, created, updated, submission, accepted_at
from broadcast where id = $2
on conflict do nothing";

const MARKS: &str = "update broadcast_mark set broadcast = $1 where broadcast = $2";

/// Looks for rows that these chunks continue.
pub(super) async fn adopt(tx: &Transaction<'_>, chunks: &[&ChunkRows]) -> Result<(), Fault> {
    for broadcast in [true, false] {
        let mut sheet = Sheet::default();
        for chunk in chunks.iter().filter(|chunk| chunk.broadcast == broadcast) {
            sheet.add(chunk);
        }
        match (sheet.ids.is_empty(), broadcast) {
            (true, _) => {}
            (false, true) => broadcasts(tx, &sheet).await?,
            (false, false) => {
                let statement = tx.prepare_cached(NOTIFICATIONS).await?;
                tx.execute(
                    &statement,
                    &[&sheet.ids, &sheet.users, &sheet.origins, &sheet.scopes],
                )
                .await?;
            }
        }
    }
    Ok(())
}

async fn broadcasts(tx: &Transaction<'_>, sheet: &Sheet<'_>) -> Result<(), Fault> {
    let statement = tx.prepare_cached(BROADCASTS).await?;
    let found = tx
        .query(
            &statement,
            &[&sheet.ids, &sheet.users, &sheet.origins, &sheet.scopes],
        )
        .await?;
    for row in &found {
        let (wanted, old): (Uuid, Uuid) = (row.try_get(0)?, row.try_get(1)?);
        for sql in [COPY, MARKS] {
            let statement = tx.prepare_cached(sql).await?;
            tx.execute(&statement, &[&wanted, &old]).await?;
        }
        let delete = tx
            .prepare_cached("delete from broadcast where id = $1")
            .await?;
        tx.execute(&delete, &[&old]).await?;
    }
    Ok(())
}

/// The rows of scopes.
#[derive(Debug, Default)]
struct Sheet<'a> {
    ids: Vec<Uuid>,
    users: Vec<Option<&'a str>>,
    origins: Vec<&'a str>,
    scopes: Vec<&'a str>,
}

impl<'a> Sheet<'a> {
    fn add(&mut self, chunk: &'a ChunkRows) {
        for row in chunk.rows.iter().filter(|row| row.stored) {
            let payload = row.payload.as_ref().unwrap_or(&chunk.payload);
            if let Some(scope) = payload.scope() {
                self.ids.push(row.id);
                self.users.push(row.user.as_deref());
                self.origins.push(&chunk.header.origin);
                self.scopes.push(scope);
            }
        }
    }
}
