//! The table `message`, one function for each thing that is done to it.
//!
//! All but [`waiting`] run on the writing connection, one after the other: what a job reads is
//! still so when it writes. Each finds its rows through one of two keys, the row number or
//! (`holder`, `queue`, `available_at`); none looks at more rows than it is about.

use std::time::Duration;

use bytes::Bytes;
use rusqlite::Connection;
use rusqlite::OptionalExtension as _;
use rusqlite::Row;
use rusqlite::params;
use rusqlite::types::Type;

use crate::queue::Headers;
use crate::queue::Message;
use crate::queue::Receipt;
use crate::queue::Received;
use crate::queue::ReplyTo;
use crate::time::Timestamp;

/// The holder of what is in nobody's hands.
///
/// Like the first hundred holders it takes one byte in the record, where 0 and 1 would take none:
/// a row that changes hands keeps its length, and SQLite overwrites it in place, without moving
/// a long body.
pub(super) const FREE: i64 = -1;

/// The number of the first consumer of a process.
pub(super) const HOLDER_FIRST: i64 = 2;

/// A message that is not in the table yet.
#[derive(Debug)]
pub(super) struct NewRow {
    message: Message,
    headers: String,
    available: Timestamp,
}

impl NewRow {
    /// `message`, published at `now`.
    pub(super) fn new(message: Message, now: Timestamp) -> Self {
        let headers = serde_json::Value::from_iter(
            message
                .headers
                .iter()
                .map(|(name, value)| (name.clone(), value.clone())),
        );
        // Both are cut to whole milliseconds, and a wait must not end early for that.
        let cut = Duration::from_millis(2);
        let available = match message.delay {
            Some(delay) => now.plus(delay).plus(cut),
            None => now,
        };
        Self {
            headers: headers.to_string(),
            message,
            available,
        }
    }

    /// Whether it is to wait.
    pub(super) fn is_delayed(&self) -> bool {
        self.message.delay.is_some()
    }

    pub(super) fn insert(&self, connection: &Connection) -> rusqlite::Result<()> {
        let reply = self.message.reply.as_ref();
        connection
            .prepare_cached(
                "insert into message
                 (queue, holder, handed, available_at, message_id, reply_address,
                  reply_correlation, headers, body)
                 values (?1, ?2, 0, ?3, ?4, ?5, ?6, ?7, ?8)",
            )?
            .execute(params![
                self.message.key,
                FREE,
                self.available.as_millis(),
                self.message.id,
                reply.map(|to| &to.address),
                reply.map(|to| &to.correlation),
                self.headers,
                &self.message.body[..],
            ])
            .map(|_| ())
    }
}

/// Up to `max` messages of queue `key` that nobody holds and whose time has come, oldest first;
/// no more once their bodies come to `bytes`.
pub(super) fn candidates(
    connection: &Connection,
    key: &str,
    lane: usize,
    now: Timestamp,
    max: usize,
    mut bytes: usize,
) -> rusqlite::Result<Vec<Received>> {
    let mut statement = connection.prepare_cached(
        "select id, handed, message_id, reply_address, reply_correlation, headers, body
         from message
         where holder = ?1 and queue = ?2 and available_at <= ?3
         order by available_at, id limit ?4",
    )?;
    let limit = i64::try_from(max).unwrap_or(i64::MAX);
    let mut rows = statement.query(params![FREE, key, now.as_millis(), limit])?;
    let mut found = Vec::new();
    while 0 < bytes
        && let Some(row) = rows.next()?
    {
        let one = received(row, key, lane)?;
        bytes = bytes.saturating_sub(one.body.len());
        found.push(one);
    }
    Ok(found)
}

fn received(row: &Row<'_>, key: &str, lane: usize) -> rusqlite::Result<Received> {
    let tag = u64::try_from(row.get::<_, i64>(0)?).unwrap_or_default();
    let headers: Headers = serde_json::from_str(row.get_ref(5)?.as_str()?)
        .map_err(|error| rusqlite::Error::FromSqlConversionFailure(5, Type::Text, error.into()))?;
    let address: Option<String> = row.get(3)?;
    let correlation: Option<String> = row.get(4)?;
    let message = Message {
        headers,
        reply: address
            .zip(correlation)
            .map(|(address, correlation)| ReplyTo {
                address,
                correlation,
            }),
        ..Message::new(
            key,
            row.get::<_, String>(2)?,
            Bytes::copy_from_slice(row.get_ref(6)?.as_blob()?),
        )
    };
    Ok(Received::new(message, Receipt { lane, tag }, row.get(1)?))
}

/// Gives a row to a holder and counts that it was handed out.
pub(super) fn hold(connection: &Connection, id: u64, holder: i64) -> rusqlite::Result<()> {
    connection
        .prepare_cached("update message set holder = ?2, handed = handed + 1 where id = ?1")?
        .execute(params![number(id), holder])
        .map(|_| ())
}

/// Removes a row, if `holder` still holds it.
pub(super) fn remove(connection: &Connection, id: u64, holder: i64) -> rusqlite::Result<()> {
    connection
        .prepare_cached("delete from message where id = ?1 and holder = ?2")?
        .execute(params![number(id), holder])
        .map(|_| ())
}

/// Gives back all that `holder` has in hand, and says how much it was.
pub(super) fn give_back(connection: &Connection, holder: i64) -> rusqlite::Result<usize> {
    connection
        .prepare_cached("update message set holder = ?2 where holder = ?1")?
        .execute(params![holder, FREE])
}

/// Gives back all that anybody has in hand.
pub(super) fn free_all(connection: &Connection) -> rusqlite::Result<()> {
    connection
        .execute("update message set holder = ?1 where holder > ?1", [FREE])
        .map(|_| ())
}

/// When the next message of `key` that nobody holds is to be handed out.
pub(super) fn next_due(connection: &Connection, key: &str) -> rusqlite::Result<Option<Timestamp>> {
    connection
        .prepare_cached(
            "select available_at from message where holder = ?1 and queue = ?2
             order by available_at limit 1",
        )?
        .query_row(params![FREE, key], |row| row.get(0))
        .optional()
        .map(|at| at.map(Timestamp::from_millis))
}

/// How many messages of `key` nobody holds; stops counting at `most`.
pub(super) fn count(connection: &Connection, key: &str, most: u64) -> rusqlite::Result<u64> {
    connection
        .prepare_cached(
            "select count(*) from
             (select 1 from message where holder = ?1 and queue = ?2 limit ?3)",
        )?
        .query_row(params![FREE, key, number(most)], |row| row.get::<_, i64>(0))
        .map(|count| u64::try_from(count).unwrap_or_default())
}

/// Of each queue that has any: how many messages wait that could be handed out at `now`, and since
/// when the oldest of them could.
pub(super) fn waiting(
    connection: &Connection,
    now: Timestamp,
) -> rusqlite::Result<Vec<(String, u64, Timestamp)>> {
    connection
        .prepare_cached(
            "select queue, count(*), min(available_at) from message
             where holder = ?1 and available_at <= ?2 group by queue",
        )?
        .query_map(params![FREE, now.as_millis()], |row| {
            let ready = u64::try_from(row.get::<_, i64>(1)?).unwrap_or_default();
            Ok((row.get(0)?, ready, Timestamp::from_millis(row.get(2)?)))
        })?
        .collect()
}

/// Drops what waits in `key`, also what waits for its time, and says how much it was.
pub(super) fn purge(connection: &Connection, key: &str) -> rusqlite::Result<u64> {
    connection
        .execute(
            "delete from message where holder = ?1 and queue = ?2",
            params![FREE, key],
        )
        .map(|dropped| u64::try_from(dropped).unwrap_or(u64::MAX))
}

/// Does nothing that the table would notice.
pub(super) fn probe(connection: &Connection) -> rusqlite::Result<()> {
    connection
        .prepare_cached("select 1 from message limit 1")?
        .exists([])
        .map(|_| ())
}

fn number(id: u64) -> i64 {
    i64::try_from(id).unwrap_or(i64::MAX)
}
