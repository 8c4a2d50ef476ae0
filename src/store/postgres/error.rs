//! What PostgreSQL's errors mean to the callers of the store.
//!
//! No error that leaves here carries content: of a database error only the message and the
//! SQLSTATE are kept, never the detail line, which quotes rows.

use std::error::Error as _;
use std::io;

use deadpool_postgres::PoolError;
use deadpool_postgres::TimeoutType;
use tokio_postgres::error::DbError;

use crate::store::StoreError;

/// Why a piece of work failed.
#[derive(Debug)]
pub(super) enum Fault {
    /// PostgreSQL or the connection to it.
    Postgres(tokio_postgres::Error),
    /// A row that this version cannot read or write.
    Row(String),
    /// A row was deleted between two statements.
    Gone,
}

impl From<tokio_postgres::Error> for Fault {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Postgres(error)
    }
}

impl From<serde_json::Error> for Fault {
    fn from(error: serde_json::Error) -> Self {
        Self::Row(format!("JSON in the store: {error}"))
    }
}

/// What can be done about a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Remedy {
    /// The transaction lost against another and left nothing behind: do it again.
    Again,
    /// The connection is of no use any more; whether the work was done is unknown.
    Reconnect,
    /// Nothing here.
    Nothing,
}

impl Fault {
    /// What can be done about it.
    pub(super) fn remedy(&self) -> Remedy {
        let error = match self {
            Self::Postgres(error) => error,
            Self::Row(_) => return Remedy::Nothing,
            Self::Gone => return Remedy::Again,
        };
        match error.code().map(|code| code.code()) {
            // The last: a mark on a broadcast that was being deleted.
            Some("40001" | "40P01" | "23503") => Remedy::Again,
            // Shut down or failed over; a pooler forgot the statement; a migration changed it.
            Some("57P01" | "57P02" | "57P03" | "25006" | "26000" | "0A000") => Remedy::Reconnect,
            Some(code) if code.starts_with("08") => Remedy::Reconnect,
            Some(_) => Remedy::Nothing,
            None if is_lost(error) => Remedy::Reconnect,
            None => Remedy::Nothing,
        }
    }
}

/// Whether the connection is gone.
fn is_lost(error: &tokio_postgres::Error) -> bool {
    error.is_closed()
        || error
            .source()
            .and_then(|cause| cause.downcast_ref::<io::Error>())
            // A message too large to be sent is the caller's fault, not the network's.
            .is_some_and(|cause| cause.kind() != io::ErrorKind::InvalidInput)
}

impl From<Fault> for StoreError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Row(detail) => Self::Refused(detail),
            Fault::Gone => Self::Unavailable("rows are being deleted".to_owned()),
            Fault::Postgres(error) => of_postgres(&error),
        }
    }
}

/// What an error means that came with or instead of an answer.
pub(super) fn of_postgres(error: &tokio_postgres::Error) -> StoreError {
    match error.as_db_error() {
        Some(db) => of_database(db),
        None if is_lost(error) => StoreError::Unavailable(describe(error)),
        None => StoreError::Refused(describe(error)),
    }
}

/// The meaning of an SQLSTATE. Source: PostgreSQL, appendix "Error Codes".
fn of_database(error: &DbError) -> StoreError {
    let code = error.code().code();
    let text = format!("{} (SQLSTATE {code})", error.message());
    match code {
        "42P01" | "42703" | "42883" | "3F000" => StoreError::Schema(format!(
            "the schema is missing or too old: {text}; run `tidings migrate`"
        )),
        "42501" => StoreError::Schema(format!(
            "the database role lacks a right: {text}; grant it as deploy/postgres/grants.sql does, after `tidings migrate`"
        )),
        "3D000" => StoreError::Schema(format!("{text}; create the database first")),
        _ if code.starts_with("28") => StoreError::Schema(format!(
            "{text}; mend user and password in tidings.store.url"
        )),
        _ if ["22", "23", "54"]
            .iter()
            .any(|class| code.starts_with(class)) =>
        {
            StoreError::Refused(text)
        }
        _ => StoreError::Unavailable(text),
    }
}

/// What a failed attempt to get a connection means; `place` is host and port.
pub(super) fn of_pool(error: &PoolError, place: &str) -> StoreError {
    let why = match error {
        PoolError::Timeout(TimeoutType::Wait) => {
            "all connections of the pool are busy; raise tidings.store.pool if it lasts".to_owned()
        }
        PoolError::Timeout(_) => format!("PostgreSQL at {place} did not answer in time"),
        PoolError::Backend(error) => match error.as_db_error().map(of_database) {
            Some(StoreError::Unavailable(text)) => format!("PostgreSQL at {place}: {text}"),
            Some(other) => return other,
            None => format!("PostgreSQL at {place}: {}", describe(error)),
        },
        other => format!("PostgreSQL at {place}: {other}"),
    };
    StoreError::Unavailable(why)
}

/// The error and its causes, in one line.
pub(super) fn describe(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let more = match inner.downcast_ref::<DbError>() {
            Some(db) => format!("{} (SQLSTATE {})", db.message(), db.code().code()),
            None => inner.to_string(),
        };
        // Some libraries repeat the cause in their own words.
        if !text.ends_with(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = inner.source();
    }
    text
}
