//! The schema of the file: which version this code knows, and how a file gets there.
//!
//! Migrations add, so that the version before works on the file of this one; `user_version` in the
//! file is the lowest schema that a program must know to use it.

use std::path::Path;

use refinery::Migration;
use refinery::Runner;
use refinery::error::Kind;
use rusqlite::Connection;

use super::SqliteError;

/// Every migration, oldest first.
const MIGRATIONS: &[(&str, &str)] = &[
    (
        "V1__tables",
        include_str!("../../schemas/sql/sqlite/V1__tables.sql"),
    ),
    (
        "V2__plugin_key",
        include_str!("../../schemas/sql/sqlite/V2__plugin_key.sql"),
    ),
    (
        "V3__keeping",
        include_str!("../../schemas/sql/sqlite/V3__keeping.sql"),
    ),
    (
        "V4__secret",
        include_str!("../../schemas/sql/sqlite/V4__secret.sql"),
    ),
    (
        "V5__topics",
        include_str!("../../schemas/sql/sqlite/V5__topics.sql"),
    ),
    (
        "V6__earlier",
        include_str!("../../schemas/sql/sqlite/V6__earlier.sql"),
    ),
    (
        "V7__channel",
        include_str!("../../schemas/sql/sqlite/V7__channel.sql"),
    ),
    (
        "V8__rate",
        include_str!("../../schemas/sql/sqlite/V8__rate.sql"),
    ),
    (
        "V9__endpoint",
        include_str!("../../schemas/sql/sqlite/V9__endpoint.sql"),
    ),
];

/// Brings the file to this version's schema.
pub(super) fn migrate(mut connection: Connection, path: &Path) -> Result<Connection, SqliteError> {
    let at = |error: &SqliteError| SqliteError::opening(path, error);
    let needed: u32 = connection
        .pragma_query_value(None, "user_version", |row| row.get(0))
        .map_err(|error| at(&error.into()))?;
    if known() < needed {
        return Err(SqliteError::Newer {
            path: path.to_owned(),
            needed,
            known: known(),
        });
    }
    runner()
        .and_then(|runner| runner.run(&mut connection))
        .map_err(|error| at(&of_refinery(&error)))?;
    Ok(connection)
}

fn known() -> u32 {
    MIGRATIONS.len() as u32
}

fn runner() -> Result<Runner, refinery::Error> {
    let migrations = MIGRATIONS
        .iter()
        .map(|(name, sql)| Migration::unapplied(name, sql))
        .collect::<Result<Vec<_>, _>>()?;
    // Versions that only a newer Tidings knows are no fault: `user_version` says what is.
    let mut runner = Runner::new(&migrations).set_abort_missing(false);
    runner.set_migration_table_name("schema_history");
    Ok(runner)
}

fn of_refinery(error: &refinery::Error) -> SqliteError {
    if let Kind::Connection(_, cause) = error.kind()
        && let Some(rusqlite::Error::SqliteFailure(failure, message)) = cause.downcast_ref()
    {
        return rusqlite::Error::SqliteFailure(*failure, message.clone()).into();
    }
    SqliteError::Unusable(format!("its schema was changed by other means ({error})"))
}
