//! Rows that were moved over from another system and whose scope is sent again: they get the id of
//! their scope, and from then on are rows like any other.
//!
//! Of several rows of one scope, which there may be elsewhere, the newest is continued.

use rusqlite::Connection;
use rusqlite::OptionalExtension;
use rusqlite::params;
use uuid::Uuid;

/// Looks for a row that `id` continues, by an index that holds what was moved and not yet
/// continued, and nothing else.
pub(super) fn adopt(
    to: &Connection,
    id: Uuid,
    user: Option<&str>,
    origin: &str,
    scope: &str,
) -> rusqlite::Result<()> {
    let Some(user) = user else {
        return broadcast(to, id, origin, scope);
    };
    let old: Option<Uuid> = to
        .prepare_cached(
            "select id from notification
             where user = ?2 and origin = ?3 and scope = ?4
               and scope is not null and submission = id
               and not exists (select 1 from notification where id = ?1)
             order by created desc limit 1",
        )?
        .query_row(params![id, user, origin, scope], |row| row.get(0))
        .optional()?;
    let Some(old) = old else {
        return Ok(());
    };
    to.prepare_cached("update notification set id = ?1 where id = ?2")?
        .execute(params![id, old])
        .map(|_| ())
}

/// Marks point at a broadcast, so it is copied before they are moved.
fn broadcast(to: &Connection, id: Uuid, origin: &str, scope: &str) -> rusqlite::Result<()> {
    let old: Option<Uuid> = to
        .prepare_cached(
            "select id from broadcast
             where origin = ?2 and scope = ?3 and scope is not null and submission = id
               and not exists (select 1 from broadcast where id = ?1)
             order by created desc limit 1",
        )?
        .query_row(params![id, origin, scope], |row| row.get(0))
        .optional()?;
    let Some(old) = old else {
        return Ok(());
    };
    for sql in [
        "insert into broadcast
           (id, origin, scope, topic, title, description, severity, link, icon, metadata,
            created, updated, submission, accepted_at)
         select ?1, origin, scope, topic, title, description, severity, link, icon, metadata,
            created, updated, submission, accepted_at
         from broadcast where id = ?2",
        "update broadcast_mark set broadcast = ?1 where broadcast = ?2",
    ] {
        to.prepare_cached(sql)?.execute(params![id, old])?;
    }
    to.prepare_cached("delete from broadcast where id = ?1")?
        .execute([old])
        .map(|_| ())
}
