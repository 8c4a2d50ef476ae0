//! The store on PostgreSQL 15 and later, for Tidings that run as several processes.
//!
//! `bins/` opens it and calls [`PostgresStore::prepare`]; everybody else sees [`Store`]. It keeps
//! a pool of connections that is filled when they are needed, so a process starts while its
//! database is away and says so in `/readyz`. It takes no decision; see `schemas/sql/postgres` for
//! the tables and `deploy/postgres` for the rights that each process needs.

mod counts;
mod dead;
mod delivery;
mod endpoint;
mod error;
mod expire;
mod foreign;
mod import;
mod inbox;
mod marks;
mod operator;
mod passfile;
pub mod peer;
mod persist;
#[macro_use]
mod pool;
mod rate;
mod schema;
mod timeline;
mod tls;
mod types;

use std::time::Duration;

use async_trait::async_trait;
use tokio::time::timeout;
use uuid::Uuid;

use self::expire::What;
use self::pool::Connections;
use self::pool::UPKEEP_TIMEOUT;
use self::pool::WORK_TIMEOUT;
pub use self::schema::MigrationReport;
pub use self::schema::SCHEMA_VERSION;
use crate::delivery::Attempt;
use crate::delivery::DeliveryBatch;
use crate::notification::Notification;
use crate::settings::wire::Known;
use crate::store::ChunkRows;
use crate::store::ChunkStored;
use crate::store::Claim;
use crate::store::Counts;
use crate::store::DeadFilter;
use crate::store::DeadLetter;
use crate::store::Earlier;
use crate::store::EndpointFailed;
use crate::store::EndpointState;
use crate::store::Find;
use crate::store::ImportRows;
use crate::store::ImportStand;
use crate::store::Mark;
use crate::store::NewDelivery;
use crate::store::Page;
use crate::store::Pause;
use crate::store::PluginKey;
use crate::store::Process;
use crate::store::Query;
use crate::store::Reported;
use crate::store::Retention;
use crate::store::Setting;
use crate::store::Settle;
use crate::store::Store;
use crate::store::StoreError;
use crate::store::Summary;
use crate::store::Timeline;
use crate::store::Token;
use crate::store::Turns;
use crate::time::Timestamp;

/// Connections of a process, unless it is told otherwise.
pub const CONNECTIONS_DEFAULT: usize = 8;

/// The first keys of the advisory locks, so that Tidings' own do not meet.
#[derive(Clone, Copy, Debug)]
enum LockClass {
    /// One process migrates at a time.
    Migration = 0x7469_0001,
    /// One body under one idempotency key.
    Submission = 0x7469_0002,
    /// The marks and settings of one person.
    Person = 0x7469_0003,
    /// One process empties inboxes at a time.
    Expiry = 0x7469_0004,
}

/// The store on PostgreSQL. Cheap to clone: clones share the pool.
#[derive(Clone, Debug)]
pub struct PostgresStore {
    connections: Connections,
}

impl PostgresStore {
    /// A store at `url`, with [`CONNECTIONS_DEFAULT`] connections. The database need not be up:
    /// nothing is connected until it is used.
    ///
    /// `url` is `postgres://user:password@host:port/database`, with the parameters of libpq that
    /// tokio-postgres knows, `sslmode` with all its values, and `sslrootcert`.
    ///
    /// # Errors
    /// [`StoreError::Schema`] says what is wrong with the URL, without repeating it.
    pub fn connect(url: &str) -> Result<Self, StoreError> {
        Self::connect_with(url, CONNECTIONS_DEFAULT)
    }

    /// The same with at most `connections` at once, at least one.
    ///
    /// # Errors
    /// As [`PostgresStore::connect`].
    pub fn connect_with(url: &str, connections: usize) -> Result<Self, StoreError> {
        let connections = Connections::open(url, connections)?;
        Ok(Self { connections })
    }

    /// Brings the schema up to date. Several may do so at once: one works, the others wait and
    /// find it done.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when there is no database, [`StoreError::Schema`] when this
    /// role may not change it or somebody else has.
    pub async fn migrate(&self) -> Result<MigrationReport, StoreError> {
        // The connection holds the lock and is closed at the end, whatever happens.
        let mut client = self.connections.take().await?;
        timeout(UPKEEP_TIMEOUT, schema::migrate(&mut client))
            .await
            .map_err(|_| self.connections.silent(UPKEEP_TIMEOUT))?
    }

    /// Migrates if this role may create tables; otherwise checks that somebody has. For the start
    /// of a process, to be repeated while it fails.
    ///
    /// # Errors
    /// As [`PostgresStore::migrate`] and [`Store::ready`].
    pub async fn prepare(&self) -> Result<(), StoreError> {
        let state = self.state().await?;
        if state.version < SCHEMA_VERSION && state.may_migrate && !state.read_only {
            let report = self.migrate().await?;
            tracing::info!(from = report.from, to = report.to, "schema migrated");
            return Ok(());
        }
        state.check()
    }

    /// What the database is, as in `PostgreSQL 15.4, TLS, schema 1 of 1`; changes nothing.
    ///
    /// # Errors
    /// That it does not answer, takes no writes, or needs `tidings migrate`.
    pub async fn describe(&self) -> Result<String, StoreError> {
        let server = self.server().await?;
        let state = self.state().await?;
        state.check()?;
        let version = state.version;
        Ok(format!("{server}, schema {version} of {SCHEMA_VERSION}"))
    }

    /// Closes all connections; what is under way finishes.
    pub fn close(&self) {
        self.connections.close();
    }

    async fn server(&self) -> Result<String, StoreError> {
        work!(self, |client, _| schema::server(client))
    }

    async fn expire_batch(
        &self,
        what: What,
        before: Timestamp,
        batch: u32,
    ) -> Result<u64, StoreError> {
        work!(self, |client, _| expire::batch(client, what, before, batch))
    }

    async fn state(&self) -> Result<schema::State, StoreError> {
        work!(self, |client, _| schema::state(client))
    }
}

#[async_trait]
impl Store for PostgresStore {
    async fn persist(&self, chunks: &[ChunkRows]) -> Result<Vec<ChunkStored>, StoreError> {
        if chunks.is_empty() {
            return Ok(Vec::new());
        }
        work!(self, |client, _| persist::persist(client, chunks))
    }

    async fn claim(
        &self,
        ids: &[Uuid],
        token: Uuid,
        lease: Duration,
    ) -> Result<Vec<Claim>, StoreError> {
        work!(self, |client, _| delivery::claim(client, ids, token, lease))
    }

    async fn record(
        &self,
        token: Uuid,
        attempts: &[Attempt],
        dead: &[DeadLetter],
    ) -> Result<Vec<Uuid>, StoreError> {
        work!(self, |client, again| delivery::record(
            client, token, attempts, dead, again
        ))
    }

    async fn earlier(&self, ids: &[Uuid]) -> Result<Vec<Option<Earlier>>, StoreError> {
        work!(self, |client, _| delivery::earlier(client, ids))
    }

    async fn take_turns(
        &self,
        channel: &str,
        count: u32,
        gap: Duration,
        within: Duration,
    ) -> Result<Turns, StoreError> {
        work!(self, |client, _| rate::take_turns(
            client, channel, count, gap, within
        ))
    }

    async fn endpoints(&self) -> Result<Vec<EndpointState>, StoreError> {
        work!(self, |client, _| endpoint::all(client))
    }

    async fn endpoint_failed(&self, failed: &EndpointFailed) -> Result<EndpointState, StoreError> {
        work!(self, |client, _| endpoint::failed(client, failed))
    }

    async fn endpoint_well(&self, channel: &str, name: &str) -> Result<bool, StoreError> {
        work!(self, |client, _| endpoint::well(client, channel, name))
    }

    async fn release(&self, token: Uuid, ids: &[Uuid]) -> Result<(), StoreError> {
        work!(self, |client, _| delivery::release(client, token, ids))
    }

    async fn expand(
        &self,
        token: Uuid,
        parent: Uuid,
        children: &[NewDelivery],
    ) -> Result<(), StoreError> {
        work!(self, |client, _| delivery::expand(
            client, token, parent, children
        ))
    }

    async fn stranded(
        &self,
        channel: &str,
        due_before: Timestamp,
        limit: u32,
    ) -> Result<Vec<DeliveryBatch>, StoreError> {
        work!(self, |client, _| delivery::stranded(
            client, channel, due_before, limit
        ))
    }

    async fn report(
        &self,
        channels: &[String],
        attempts: &[Attempt],
    ) -> Result<Vec<Reported>, StoreError> {
        work!(self, |client, _| foreign::report(
            client, channels, attempts
        ))
    }

    async fn overdue(
        &self,
        channel: &str,
        due_before: Timestamp,
        limit: u32,
    ) -> Result<u64, StoreError> {
        work!(self, |client, _| foreign::overdue(
            client, channel, due_before, limit
        ))
    }

    async fn secret(&self, name: &str) -> Result<Vec<u8>, StoreError> {
        work!(self, |client, _| operator::secret(client, name))
    }

    async fn file_dead(&self, letters: &[DeadLetter]) -> Result<(), StoreError> {
        work!(self, |client, _| dead::file_dead(client, letters))
    }

    async fn list(&self, user: &str, query: &Query) -> Result<Page, StoreError> {
        work!(self, |client, _| inbox::list(client, user, query))
    }

    async fn get(&self, user: &str, id: Uuid) -> Result<Option<Notification>, StoreError> {
        work!(self, |client, _| inbox::get(client, user, id))
    }

    async fn counts(&self, user: &str) -> Result<Counts, StoreError> {
        work!(self, |client, _| counts::read(client, user))
    }

    async fn topics(&self, user: &str, query: &Query) -> Result<Vec<String>, StoreError> {
        work!(self, |client, _| inbox::topics(client, user, query))
    }

    async fn mark(
        &self,
        user: &str,
        ids: &[Uuid],
        mark: Mark,
    ) -> Result<Vec<Notification>, StoreError> {
        work!(self, |client, _| marks::mark(client, user, ids, mark))
    }

    async fn mark_all_read(&self, user: &str) -> Result<u64, StoreError> {
        work!(self, |client, _| marks::mark_all_read(client, user))
    }

    async fn settings(&self, users: &[String]) -> Result<Vec<Setting>, StoreError> {
        work!(self, |client, _| marks::settings(client, users))
    }

    async fn origins(&self, user: &str) -> Result<Known, StoreError> {
        work!(self, |client, _| marks::origins(client, user))
    }

    async fn save_settings(&self, user: &str, settings: &[Setting]) -> Result<(), StoreError> {
        work!(self, |client, _| marks::save_settings(
            client, user, settings
        ))
    }

    async fn timeline(
        &self,
        find: &Find,
        user: Option<&str>,
        deliveries: u32,
    ) -> Result<Option<Timeline>, StoreError> {
        work!(self, |client, _| timeline::timeline(
            client, find, user, deliveries
        ))
    }

    async fn dead_letters(&self, filter: &DeadFilter) -> Result<Vec<DeadLetter>, StoreError> {
        work!(self, |client, _| dead::dead_letters(client, filter))
    }

    async fn settle_dead(&self, ids: &[i64], how: Settle) -> Result<u64, StoreError> {
        work!(self, |client, _| dead::settle(client, ids, how))
    }

    async fn tokens(&self) -> Result<Vec<Token>, StoreError> {
        work!(self, |client, _| operator::tokens(client))
    }

    async fn add_token(&self, token: &Token) -> Result<(), StoreError> {
        work!(self, |client, _| operator::add_token(client, token))
    }

    async fn revoke_token(&self, hash: &str) -> Result<u64, StoreError> {
        work!(self, |client, _| operator::revoke_token(client, hash))
    }

    async fn touch_tokens(&self, hashes: &[String]) -> Result<(), StoreError> {
        work!(self, |client, _| operator::touch_tokens(client, hashes))
    }

    async fn add_plugin_key(&self, key: &PluginKey) -> Result<(), StoreError> {
        work!(self, |client, _| operator::add_plugin_key(client, key))
    }

    async fn plugin_keys(&self, limit: u32) -> Result<Vec<PluginKey>, StoreError> {
        work!(self, |client, _| operator::plugin_keys(client, limit))
    }

    async fn pause(&self, channel: &str, by: &str) -> Result<(), StoreError> {
        work!(self, |client, _| operator::pause(client, channel, by))
    }

    async fn resume(&self, channel: &str) -> Result<bool, StoreError> {
        work!(self, |client, _| operator::resume(client, channel))
    }

    async fn pauses(&self) -> Result<Vec<Pause>, StoreError> {
        work!(self, |client, _| operator::pauses(client))
    }

    async fn heartbeat(&self, process: &Process) -> Result<(), StoreError> {
        work!(self, |client, _| operator::heartbeat(client, process))
    }

    async fn farewell(&self, process: Uuid) -> Result<(), StoreError> {
        work!(self, |client, _| operator::farewell(client, process))
    }

    async fn processes(&self) -> Result<Vec<Process>, StoreError> {
        work!(self, |client, _| operator::processes(client))
    }

    async fn summary(&self) -> Result<Summary, StoreError> {
        work!(self, |client, _| operator::summary(client))
    }

    async fn recount(&self, mend: bool) -> Result<u64, StoreError> {
        work!(self within UPKEEP_TIMEOUT, |client, _| counts::recount(client, mend))
    }

    async fn prune(&self, retention: &Retention, batch: u32) -> Result<u64, StoreError> {
        work!(self within UPKEEP_TIMEOUT, |client, _| operator::prune(client, retention, batch))
    }

    async fn expire(&self, before: Timestamp, saved: bool, batch: u32) -> Result<u64, StoreError> {
        let mut gone = 0;
        for what in [What::Own, What::OwnSaved, What::Broadcast(saved)] {
            if what == What::OwnSaved && !saved {
                continue;
            }
            loop {
                let rows = self.expire_batch(what, before, batch).await?;
                gone += rows;
                if rows == 0 {
                    break;
                }
            }
        }
        Ok(gone)
    }

    async fn import(
        &self,
        source: &str,
        rows: &ImportRows,
        stand: Option<&ImportStand>,
    ) -> Result<u64, StoreError> {
        work!(self, |client, _| import::import(
            client, source, rows, stand
        ))
    }

    async fn import_stand(&self, source: &str) -> Result<Option<ImportStand>, StoreError> {
        work!(self, |client, _| import::stand(client, source))
    }

    async fn ready(&self) -> Result<(), StoreError> {
        self.state().await?.check()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_url_that_is_none_is_refused_without_being_repeated() {
        for (url, why) in [
            ("mysql://u:secret@h/db", "not a PostgreSQL URL"),
            ("postgres://u:secret@h/db?sslmode=perhaps", "sslmode"),
            ("postgres://u:secret@h/db?colour=red", "colour"),
            ("postgres://h:port/db", "port"),
            ("postgres:///db", "no host"),
        ] {
            let error = PostgresStore::connect(url).unwrap_err().to_string();
            assert!(error.contains(why), "{url}: {error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[tokio::test]
    async fn a_database_that_is_not_there_is_named_and_is_no_fault_of_the_start() {
        // Port 1 is nobody's.
        let store = PostgresStore::connect("postgres://u:secret@127.0.0.1:1/db").unwrap();
        let error = store.ready().await.unwrap_err();
        assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");
        let text = error.to_string();
        assert!(text.contains("127.0.0.1:1"), "{text}");
        assert!(!text.contains("secret"), "{text}");
    }
}
