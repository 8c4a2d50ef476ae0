//! How our types lie in PostgreSQL's, and how rows are read back.

use std::borrow::Cow;
use std::error::Error;

use bytes::BytesMut;
use serde_json::Map;
use serde_json::Value;
use tokio_postgres::Row;
use tokio_postgres::types::FromSql;
use tokio_postgres::types::IsNull;
use tokio_postgres::types::Json;
use tokio_postgres::types::ToSql;
use tokio_postgres::types::Type;
use tokio_postgres::types::accepts;
use tokio_postgres::types::to_sql_checked;

use super::error::Fault;
use crate::notification::Notification;
use crate::notification::Payload;
use crate::notification::Severity;
use crate::submission::Header;
use crate::submission::Via;
use crate::time::Timestamp;

/// 2000-01-01, where PostgreSQL begins to count, in milliseconds since 1970.
const POSTGRES_EPOCH_MS: i64 = 946_684_800_000;

/// 4713 BC and AD 294276, the ends of `timestamptz`, in microseconds since 2000.
const TIMESTAMP_MICROS: (i64, i64) = (-211_813_488_000_000_000, 9_223_371_331_199_999_999);

impl ToSql for Timestamp {
    fn to_sql(
        &self,
        ty: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        self.as_millis()
            .saturating_sub(POSTGRES_EPOCH_MS)
            .saturating_mul(1000)
            .clamp(TIMESTAMP_MICROS.0, TIMESTAMP_MICROS.1)
            .to_sql(ty, out)
    }

    accepts!(TIMESTAMPTZ);
    to_sql_checked!();
}

impl<'a> FromSql<'a> for Timestamp {
    fn from_sql(ty: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        let micros = i64::from_sql(ty, raw)?;
        Ok(Self::from_millis(
            micros.div_euclid(1000).saturating_add(POSTGRES_EPOCH_MS),
        ))
    }

    accepts!(TIMESTAMPTZ);
}

/// PostgreSQL takes no U+0000 in text. What others wrote about a failure must be kept all the
/// same.
pub(super) fn clean(text: &str) -> Cow<'_, str> {
    if text.contains('\0') {
        Cow::Owned(text.replace('\0', "\u{fffd}"))
    } else {
        Cow::Borrowed(text)
    }
}

/// A count for an `integer` column.
pub(super) fn int(count: u32) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

/// A count out of an `integer` column.
pub(super) fn count(number: i32) -> u32 {
    u32::try_from(number).unwrap_or(0)
}

/// A count out of a `bigint` column.
pub(super) fn large(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

/// A word of a closed set out of a column.
pub(super) fn word<T>(row: &Row, at: usize, read: impl Fn(&str) -> Option<T>) -> Result<T, Fault> {
    let text: &str = row.try_get(at)?;
    read(text).ok_or_else(|| Fault::Row(format!("`{text}` is not known to this version")))
}

/// Reads a notification whose columns begin at `at`, in the order of the macros below.
pub(super) fn notification(row: &Row, at: usize) -> Result<Notification, Fault> {
    let metadata: Option<Json<Map<String, Value>>> = row.try_get(at + 10)?;
    Ok(Notification {
        id: row.try_get(at)?,
        user: row.try_get(at + 1)?,
        origin: row.try_get(at + 2)?,
        payload: Payload {
            scope: row.try_get(at + 3)?,
            topic: row.try_get(at + 4)?,
            title: row.try_get(at + 5)?,
            description: row.try_get(at + 6)?,
            severity: Some(Severity::from_rank(row.try_get(at + 7)?)),
            link: row.try_get(at + 8)?,
            icon: row.try_get(at + 9)?,
            metadata: metadata.map(|Json(fields)| fields),
            extra: Map::new(),
        },
        created: row.try_get(at + 11)?,
        updated: row.try_get(at + 12)?,
        read: row.try_get(at + 13)?,
        saved: row.try_get(at + 14)?,
        submission: row.try_get(at + 15)?,
    })
}

/// The columns of a notification of a person; `n` is the table.
macro_rules! own_columns {
    () => {
        r#"n.id, n."user", n.origin, n.scope, n.topic, n.title, n.description, n.severity, n.link,
 n.icon, n.metadata, n.created, n.updated, n.read, n.saved, n.submission"#
    };
}

/// The same of a broadcast; `n` is the table, `m` the reader's mark.
macro_rules! broadcast_columns {
    () => {
        r#"n.id, null::text as "user", n.origin, n.scope, n.topic, n.title, n.description, n.severity,
 n.link, n.icon, n.metadata, n.created, n.updated, m.read, m.saved, n.submission"#
    };
}

/// The same of a broadcast as nobody's; `n` is the table.
macro_rules! unmarked_columns {
    () => {
        r#"n.id, null::text, n.origin, n.scope, n.topic, n.title, n.description, n.severity, n.link,
 n.icon, n.metadata, n.created, n.updated, null::timestamptz, null::timestamptz, n.submission"#
    };
}

/// The database's clock, to the millisecond.
macro_rules! now {
    () => {
        "date_trunc('milliseconds', clock_timestamp())"
    };
}

/// The columns of a submission's header; `c` is the chunk.
macro_rules! header_columns {
    () => {
        "c.submission, c.origin, c.key, c.accepted_at, c.via, c.digest"
    };
}

pub(super) use broadcast_columns;
pub(super) use header_columns;
pub(super) use now;
pub(super) use own_columns;
pub(super) use unmarked_columns;

/// Reads the six columns of a header, beginning at `at`.
pub(super) fn header(row: &Row, at: usize) -> Result<Header, Fault> {
    Ok(Header {
        id: row.try_get(at)?,
        origin: row.try_get(at + 1)?,
        key: row.try_get(at + 2)?,
        accepted_at: row.try_get(at + 3)?,
        via: word(row, at + 4, via_of)?,
        digest: row.try_get(at + 5)?,
    })
}

/// The word of a way in.
pub(super) fn via_word(via: Via) -> &'static str {
    match via {
        Via::Http => "http",
        Via::Queue => "queue",
    }
}

fn via_of(word: &str) -> Option<Via> {
    match word {
        "http" => Some(Via::Http),
        "queue" => Some(Via::Queue),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_keeps_its_milliseconds_and_stays_within_what_postgres_can_hold() {
        for (ms, micros) in [
            (POSTGRES_EPOCH_MS, 0),
            (0, -946_684_800_000_000),
            (1_795_000_000_120, 848_315_200_120_000),
            (i64::MIN, TIMESTAMP_MICROS.0),
            (i64::MAX, TIMESTAMP_MICROS.1),
        ] {
            let mut out = BytesMut::new();
            let at = Timestamp::from_millis(ms);
            at.to_sql(&Type::TIMESTAMPTZ, &mut out).unwrap();
            assert_eq!(out[..], i64::to_be_bytes(micros), "{ms}");
        }
        let late = i64::to_be_bytes(-1);
        let read = Timestamp::from_sql(&Type::TIMESTAMPTZ, &late).unwrap();
        assert_eq!(read.as_millis(), POSTGRES_EPOCH_MS - 1);
    }

    #[test]
    fn a_null_character_is_replaced() {
        assert_eq!(clean("a\0b"), "a\u{fffd}b");
        assert_eq!(clean("ab"), "ab");
    }
}
