//! The schema: which version this code needs, how it is made, and how it is checked.
//!
//! Migrations only ever add, so that version N−1 of the code works on the schema of version N; a
//! schema newer than the code is therefore fine.

use std::fmt;

use deadpool_postgres::ClientWrapper;
use refinery::Migration;
use refinery::Runner;
use refinery::error::Kind;
use tokio_postgres::error::SqlState;

use super::LockClass;
use super::error::Fault;
use crate::store::StoreError;

/// Every migration, oldest first.
const MIGRATIONS: &[(&str, &str)] = &[
    (
        "V1__tables",
        include_str!("../../../schemas/sql/postgres/V1__tables.sql"),
    ),
    (
        "V2__plugin_key",
        include_str!("../../../schemas/sql/postgres/V2__plugin_key.sql"),
    ),
    (
        "V3__keeping",
        include_str!("../../../schemas/sql/postgres/V3__keeping.sql"),
    ),
    (
        "V4__secret",
        include_str!("../../../schemas/sql/postgres/V4__secret.sql"),
    ),
    (
        "V5__topics",
        include_str!("../../../schemas/sql/postgres/V5__topics.sql"),
    ),
    (
        "V6__earlier",
        include_str!("../../../schemas/sql/postgres/V6__earlier.sql"),
    ),
    (
        "V7__channel",
        include_str!("../../../schemas/sql/postgres/V7__channel.sql"),
    ),
    (
        "V8__rate",
        include_str!("../../../schemas/sql/postgres/V8__rate.sql"),
    ),
    (
        "V9__endpoint",
        include_str!("../../../schemas/sql/postgres/V9__endpoint.sql"),
    ),
];

/// The version this code needs.
pub const SCHEMA_VERSION: u32 = MIGRATIONS.len() as u32;

/// Where the migrations that were applied are listed.
const HISTORY: &str = "schema_history";

/// What a migration did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MigrationReport {
    /// The version before; 0 is an empty database.
    pub from: u32,
    /// The version now.
    pub to: u32,
    /// What was applied, by name.
    pub applied: Vec<String>,
}

impl fmt::Display for MigrationReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.applied.is_empty() {
            write!(f, "schema {} is up to date", self.to)
        } else {
            write!(
                f,
                "schema {} -> {} ({})",
                self.from,
                self.to,
                self.applied.join(", ")
            )
        }
    }
}

/// What the database says about itself.
pub(super) struct State {
    /// The schema's version; 0 where there is none.
    pub(super) version: u32,
    /// Whether it takes no writes: a standby, or set so.
    pub(super) read_only: bool,
    /// Whether this role may create tables.
    pub(super) may_migrate: bool,
}

impl State {
    /// Whether this code can work on it.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        if self.read_only {
            return Err(StoreError::Unavailable(
                "the database takes no writes (a standby, or default_transaction_read_only)"
                    .to_owned(),
            ));
        }
        match self.version {
            0 => Err(StoreError::Schema(
                "the database has no schema of Tidings; run `tidings migrate`".to_owned(),
            )),
            old if old < SCHEMA_VERSION => Err(StoreError::Schema(format!(
                "schema {old} of {SCHEMA_VERSION}; run `tidings migrate`"
            ))),
            _ => Ok(()),
        }
    }
}

/// Asks the database about itself, in one round trip, or two while there is no schema.
pub(super) async fn state(client: &ClientWrapper) -> Result<State, Fault> {
    const ABOUT: &str = "current_setting('transaction_read_only')::boolean, \
        coalesce(has_schema_privilege(current_schema(), 'create'), false)";
    // Not prepared: the table may come into being later, and the statement must see it then.
    let known = format!("select coalesce((select max(version) from {HISTORY}), 0), {ABOUT}");
    let row = match client.query_typed(&known, &[]).await {
        Ok(rows) => rows,
        Err(error) if error.code() == Some(&SqlState::UNDEFINED_TABLE) => {
            client
                .query_typed(&format!("select 0, {ABOUT}"), &[])
                .await?
        }
        Err(error) => return Err(error.into()),
    };
    let Some(row) = row.first() else {
        return Err(Fault::Row("no answer about the schema".to_owned()));
    };
    let version: i32 = row.try_get(0)?;
    Ok(State {
        version: u32::try_from(version).unwrap_or(0),
        read_only: row.try_get(1)?,
        may_migrate: row.try_get(2)?,
    })
}

/// What the server is and how the connection is protected, as in `PostgreSQL 15.4, TLS`.
pub(super) async fn server(client: &ClientWrapper) -> Result<String, Fault> {
    const ABOUT: &str = "select current_setting('server_version'), \
        coalesce((select ssl from pg_stat_ssl where pid = pg_backend_pid()), false)";
    let rows = client.query_typed(ABOUT, &[]).await?;
    let Some(row) = rows.first() else {
        return Err(Fault::Row("no answer about the server".to_owned()));
    };
    let version: String = row.try_get(0)?;
    // Distributions add their own name after the number.
    let version = version.split(' ').next().unwrap_or(&version);
    let tls = if row.try_get(1)? { "TLS" } else { "no TLS" };
    Ok(format!("PostgreSQL {version}, {tls}"))
}

/// Brings the schema up to date. Others that start at the same time wait their turn.
///
/// The lock belongs to the connection, which the caller must not use again.
pub(super) async fn migrate(client: &mut ClientWrapper) -> Result<MigrationReport, StoreError> {
    client
        .execute(
            "select pg_advisory_lock($1, 0)",
            &[&(LockClass::Migration as i32)],
        )
        .await
        .map_err(Fault::from)?;
    let state = state(client).await?;
    if state.version >= SCHEMA_VERSION {
        return Ok(MigrationReport {
            from: state.version,
            to: state.version,
            applied: Vec::new(),
        });
    }
    let report = runner()?
        .run_async(&mut **client)
        .await
        .map_err(of_refinery)?;
    let applied: Vec<String> = report
        .applied_migrations()
        .iter()
        .map(|one| one.name().to_owned())
        .collect();
    Ok(MigrationReport {
        from: state.version,
        to: SCHEMA_VERSION,
        applied,
    })
}

fn runner() -> Result<Runner, StoreError> {
    let migrations = MIGRATIONS
        .iter()
        .map(|(name, sql)| Migration::unapplied(name, sql))
        .collect::<Result<Vec<_>, _>>()
        .map_err(of_refinery)?;
    // Everything in one transaction; versions that only a newer Tidings knows are no fault.
    let mut runner = Runner::new(&migrations)
        .set_grouped(true)
        .set_abort_missing(false);
    runner.set_migration_table_name(HISTORY);
    Ok(runner)
}

fn of_refinery(error: refinery::Error) -> StoreError {
    let text = error.to_string();
    match error.kind() {
        Kind::Connection(_, cause) => match cause.downcast_ref::<tokio_postgres::Error>() {
            Some(cause) => super::error::of_postgres(cause),
            None => StoreError::Unavailable(text),
        },
        _ => StoreError::Schema(format!(
            "the schema was changed by other means than `tidings migrate`: {text}"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_migrations_are_numbered_in_order() {
        let runner = runner().unwrap();
        let versions: Vec<_> = runner
            .get_migrations()
            .iter()
            .map(|one| one.version())
            .collect();
        assert_eq!(versions, (1..=SCHEMA_VERSION as i32).collect::<Vec<_>>());
    }

    #[test]
    fn an_old_or_missing_schema_says_what_to_run() {
        let state = |version, read_only| State {
            version,
            read_only,
            may_migrate: false,
        };
        let why = state(0, false).check().unwrap_err().to_string();
        assert!(why.contains("tidings migrate"), "{why}");
        assert!(state(SCHEMA_VERSION + 1, false).check().is_ok());
        assert!(matches!(
            state(SCHEMA_VERSION, true).check(),
            Err(StoreError::Unavailable(_))
        ));
    }
}
