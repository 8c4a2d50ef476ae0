//! How the store's values lie in columns, and how they come back.
//!
//! A moment is milliseconds, an id 16 bytes, a word of a closed set its text, a document JSON.

use rusqlite::Row;
use rusqlite::ToSql;
use rusqlite::types::FromSql;
use rusqlite::types::FromSqlError;
use rusqlite::types::FromSqlResult;
use rusqlite::types::ToSqlOutput;
use rusqlite::types::ValueRef;
use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use crate::delivery::DeliveryState;
use crate::failure::Reason;
use crate::notification::Notification;
use crate::notification::Payload;
use crate::notification::Severity;
use crate::submission::Header;
use crate::submission::Via;
use crate::time::Timestamp;

impl ToSql for Timestamp {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(self.as_millis().into())
    }
}

impl FromSql for Timestamp {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        value.as_i64().map(Self::from_millis)
    }
}

impl ToSql for DeliveryState {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(self.as_str().into())
    }
}

impl FromSql for DeliveryState {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        Self::from_word(value.as_str()?).ok_or(FromSqlError::InvalidType)
    }
}

impl ToSql for Reason {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(self.as_str().into())
    }
}

impl FromSql for Reason {
    /// A word that only a newer version knows is not worth failing for.
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        Ok(value.as_str()?.parse().unwrap_or(Self::Internal))
    }
}

impl ToSql for Severity {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(self.rank().into())
    }
}

impl FromSql for Severity {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        i16::column_result(value).map(Self::from_rank)
    }
}

impl ToSql for Via {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(match self {
            Self::Http => "http",
            Self::Queue => "queue",
        }
        .into())
    }
}

impl FromSql for Via {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        match value.as_str()? {
            "http" => Ok(Self::Http),
            "queue" => Ok(Self::Queue),
            _ => Err(FromSqlError::InvalidType),
        }
    }
}

/// A document, kept as JSON.
pub(super) struct Json<T>(pub(super) T);

impl<T: Serialize> Json<T> {
    /// The JSON of a value that was JSON before, or whose keys are text: it cannot fail.
    pub(super) fn text(&self) -> String {
        serde_json::to_string(&self.0).unwrap_or_else(|_| "null".to_owned())
    }
}

impl<T: Serialize> ToSql for Json<T> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(self.text().into())
    }
}

impl<T: DeserializeOwned> FromSql for Json<T> {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        serde_json::from_str(value.as_str()?)
            .map(Self)
            .map_err(FromSqlError::other)
    }
}

/// Ids, one after the other in one blob.
pub(super) struct Ids(pub(super) Vec<Uuid>);

impl ToSql for Ids {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        let bytes: Vec<u8> = self.0.iter().flat_map(|id| *id.as_bytes()).collect();
        Ok(bytes.into())
    }
}

impl FromSql for Ids {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let (ids, rest) = value.as_blob()?.as_chunks::<16>();
        if !rest.is_empty() {
            return Err(FromSqlError::InvalidType);
        }
        Ok(Self(ids.iter().copied().map(Uuid::from_bytes).collect()))
    }
}

/// A count, which is never negative.
pub(super) fn count(row: &Row<'_>, at: usize) -> rusqlite::Result<u64> {
    Ok(u64::try_from(row.get::<_, i64>(at)?).unwrap_or(0))
}

/// A number as SQLite can hold it.
pub(super) fn int(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// The columns of a notification of a person; `n` is the table.
macro_rules! own_columns {
    () => {
        "n.id, n.user, n.origin, n.scope, n.topic, n.title, n.description, n.severity, n.link, \
         n.icon, n.metadata, n.created, n.updated, n.read, n.saved, n.submission"
    };
}

/// The same of a broadcast; `n` is the table, `m` the reader's mark.
macro_rules! broadcast_columns {
    () => {
        "n.id, null as user, n.origin, n.scope, n.topic, n.title, n.description, n.severity, \
         n.link, n.icon, n.metadata, n.created, n.updated, m.read, m.saved, n.submission"
    };
}

pub(super) use broadcast_columns;
pub(super) use own_columns;

/// Reads the sixteen columns of a notification.
pub(super) fn notification(row: &Row<'_>) -> rusqlite::Result<Notification> {
    let metadata: Option<Json<_>> = row.get(10)?;
    Ok(Notification {
        id: row.get(0)?,
        user: row.get(1)?,
        origin: row.get(2)?,
        created: row.get(11)?,
        updated: row.get(12)?,
        read: row.get(13)?,
        saved: row.get(14)?,
        payload: Payload {
            title: row.get(5)?,
            description: row.get(6)?,
            link: row.get(8)?,
            severity: Some(row.get(7)?),
            topic: row.get(4)?,
            scope: row.get(3)?,
            icon: row.get(9)?,
            metadata: metadata.map(|Json(metadata)| metadata),
            extra: serde_json::Map::new(),
        },
        submission: row.get(15)?,
    })
}

/// The columns of a submission's header; `c` is the chunk.
macro_rules! header_columns {
    () => {
        "c.submission, c.origin, c.key, c.accepted_at, c.via, c.digest"
    };
}

pub(super) use header_columns;

/// Reads the six columns of a header.
pub(super) fn header(row: &Row<'_>) -> rusqlite::Result<Header> {
    Ok(Header {
        id: row.get(0)?,
        origin: row.get(1)?,
        key: row.get(2)?,
        accepted_at: row.get(3)?,
        via: row.get(4)?,
        digest: row.get(5)?,
    })
}
