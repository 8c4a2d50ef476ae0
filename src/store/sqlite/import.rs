//! Rows of another system: inserted where they are not there yet, never changed.

use std::collections::BTreeMap;

use rusqlite::CachedStatement;
use rusqlite::Connection;
use rusqlite::OptionalExtension;
use rusqlite::ToSql;
use rusqlite::params;

use super::counts;
use super::types::Json;
use super::types::count;
use super::types::int;
use crate::notification::Notification;
use crate::notification::notification_id;
use crate::store::ImportMark;
use crate::store::ImportPart;
use crate::store::ImportRows;
use crate::store::ImportStand;
use crate::store::Setting;
use crate::time::Timestamp;

/// See [`crate::store::Store::import`].
pub(super) fn import(
    to: &Connection,
    source: &str,
    rows: &ImportRows,
    stand: Option<&ImportStand>,
) -> rusqlite::Result<u64> {
    let new = match rows {
        ImportRows::Broadcasts(rows) | ImportRows::Notifications(rows) => notifications(to, rows)?,
        ImportRows::Marks(rows) => marks(to, rows)?,
        ImportRows::Settings(rows) => settings(to, rows)?,
    };
    remember(to, source, stand)?;
    Ok(new)
}

/// A row of a scope that was sent here since is there already, under the id of the scope.
///
/// What is there is asked for beforehand: a statement that inserts what another selects keeps a
/// journal of its own, and with many rows that takes most of the time.
fn notifications(to: &Connection, rows: &[Notification]) -> rusqlite::Result<u64> {
    let mut own = Table {
        exists: to.prepare_cached("select 1 from notification where id = ?1")?,
        insert: to.prepare_cached(
            "insert into notification
               (id, user, origin, scope, topic, title, description, severity, link, icon,
                metadata, created, updated, submission, accepted_at, read, saved)
             values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?1, ifnull(?13, ?12),
                ?14, ?15)
             on conflict (id) do nothing",
        )?,
    };
    let mut everybody = Table {
        exists: to.prepare_cached("select 1 from broadcast where id = ?1")?,
        insert: to.prepare_cached(
            "insert into broadcast
               (id, origin, scope, topic, title, description, severity, link, icon,
                metadata, created, updated, submission, accepted_at)
             values (?1, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?1, ifnull(?13, ?12))
             on conflict (id) do nothing",
        )?,
    };
    let mut people: BTreeMap<&str, counts::Change> = BTreeMap::new();
    let mut new = 0;
    for row in rows {
        let table = if row.user.is_some() {
            &mut own
        } else {
            &mut everybody
        };
        if table.take(row)? {
            let user = row.user.as_deref();
            let change = people.entry(user.unwrap_or(counts::EVERYBODY)).or_default();
            change.unread += i64::from(user.is_some() && row.read.is_none());
            change.total += 1;
            new += 1;
        }
    }
    count_all(to, people)?;
    Ok(new)
}

/// The statements of a table.
struct Table<'a> {
    exists: CachedStatement<'a>,
    insert: CachedStatement<'a>,
}

impl Table<'_> {
    /// Inserts a row unless it is there; says whether it did.
    fn take(&mut self, row: &Notification) -> rusqlite::Result<bool> {
        let user = row.user.as_deref();
        let payload = &row.payload;
        if let Some(scope) = payload.scope() {
            let of_scope = notification_id(&row.origin, Some(scope), row.submission, user);
            if self.exists.exists([of_scope])? {
                return Ok(false);
            }
        }
        let metadata = payload.metadata.as_ref().map(|map| Json(map).text());
        let severity = payload.severity();
        let own: [&dyn ToSql; 15] = [
            &row.id,
            &user,
            &row.origin,
            &payload.scope,
            &payload.topic,
            &payload.title,
            &payload.description,
            &severity,
            &payload.link,
            &payload.icon,
            &metadata,
            &row.created,
            &row.updated,
            &row.read,
            &row.saved,
        ];
        // A broadcast has no marks of its own.
        let params = &own[..self.insert.parameter_count()];
        Ok(self.insert.execute(params)? > 0)
    }
}

/// Counts what became of everybody's rows.
fn count_all(to: &Connection, people: BTreeMap<&str, counts::Change>) -> rusqlite::Result<()> {
    for (user, change) in people {
        counts::add(to, user, change)?;
    }
    Ok(())
}

/// What was done with a broadcast that is not here is nothing.
fn marks(to: &Connection, rows: &[ImportMark]) -> rusqlite::Result<u64> {
    let mut exists = to.prepare_cached("select 1 from broadcast where id = ?1")?;
    let mut insert = to.prepare_cached(
        "insert into broadcast_mark (user, broadcast, read, saved) values (?1, ?2, ?3, ?4)
         on conflict (user, broadcast) do nothing",
    )?;
    let mut people: BTreeMap<&str, counts::Change> = BTreeMap::new();
    let mut new = 0;
    for row in rows {
        let mark = params![row.user, row.broadcast, row.read, row.saved];
        if exists.exists([row.broadcast])? && insert.execute(mark)? > 0 {
            let change = people.entry(&row.user).or_default();
            change.broadcasts_read += i64::from(row.read.is_some());
            new += 1;
        }
    }
    count_all(to, people)?;
    Ok(new)
}

fn settings(to: &Connection, rows: &[Setting]) -> rusqlite::Result<u64> {
    let mut insert = to.prepare_cached(
        "insert into setting (user, channel, origin, topic, enabled) values (?1, ?2, ?3, ?4, ?5)
         on conflict do nothing",
    )?;
    let mut new = 0;
    for row in rows {
        let made = insert.execute(params![
            row.user,
            row.channel,
            row.origin,
            row.topic,
            row.enabled
        ])?;
        new += made as u64;
    }
    Ok(new)
}

fn remember(to: &Connection, source: &str, stand: Option<&ImportStand>) -> rusqlite::Result<()> {
    let Some(stand) = stand else {
        return to
            .prepare_cached("delete from import_progress where source = ?1")?
            .execute([source])
            .map(|_| ());
    };
    to.prepare_cached(
        "insert into import_progress (source, part, after, rows, at) values (?1, ?2, ?3, ?4, ?5)
         on conflict (source) do update set
           part = excluded.part, after = excluded.after, rows = excluded.rows, at = excluded.at",
    )?
    .execute(params![
        source,
        stand.part.as_str(),
        Json(&stand.after),
        int(stand.rows),
        Timestamp::now(),
    ])
    .map(|_| ())
}

/// See [`crate::store::Store::import_stand`].
pub(super) fn stand(from: &Connection, source: &str) -> rusqlite::Result<Option<ImportStand>> {
    from.prepare_cached("select part, after, rows from import_progress where source = ?1")?
        .query_row([source], |row| {
            let part = ImportPart::from_word(row.get_ref(0)?.as_str()?);
            let Json(after) = row.get(1)?;
            let rows = count(row, 2)?;
            // What only another version knows begins anew: nothing doubles.
            Ok(part.map(|part| ImportStand { part, after, rows }))
        })
        .optional()
        .map(Option::flatten)
}
