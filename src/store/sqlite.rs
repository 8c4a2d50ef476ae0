//! The store in the SQLite file of the embedded mode.
//!
//! Every sentence of [`Store`] is one job on the shared file: one that writes runs on its writing
//! thread, alone at any moment, so that what it reads still holds when it writes; one that reads
//! sees one state of the file. `bins/` opens it; roles know it as a [`Store`].

mod counts;
mod dead;
mod deliveries;
mod endpoint;
mod expire;
mod foreign;
mod import;
mod inbox;
mod marks;
mod operate;
mod people;
mod persist;
mod prune;
mod rate;
mod stranded;
mod timeline;
mod types;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rusqlite::Connection;
use uuid::Uuid;

use self::expire::What;
use super::ChunkRows;
use super::ChunkStored;
use super::Claim;
use super::Counts;
use super::DeadFilter;
use super::DeadLetter;
use super::Earlier;
use super::EndpointFailed;
use super::EndpointState;
use super::Find;
use super::ImportRows;
use super::ImportStand;
use super::Mark;
use super::NewDelivery;
use super::Page;
use super::Pause;
use super::PluginKey;
use super::Process;
use super::Query;
use super::Reported;
use super::Retention;
use super::Setting;
use super::Settle;
use super::Store;
use super::StoreError;
use super::Summary;
use super::Timeline;
use super::Token;
use super::Turns;
use crate::delivery::Attempt;
use crate::delivery::DeliveryBatch;
use crate::notification::Notification;
use crate::settings::wire::Known;
use crate::sqlite::Sqlite;
use crate::sqlite::SqliteError;
use crate::time::Timestamp;

/// The store in the shared file.
#[derive(Clone, Debug)]
pub struct SqliteStore(Arc<Sqlite>);

impl SqliteStore {
    /// The store in this file. Does no I/O.
    pub fn new(sqlite: Arc<Sqlite>) -> Self {
        Self(sqlite)
    }

    async fn write<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        Ok(self.0.write(job).await?)
    }

    async fn read<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        Ok(self.0.read(job).await?)
    }
}

impl From<SqliteError> for StoreError {
    fn from(error: SqliteError) -> Self {
        match error {
            SqliteError::Unavailable(why) => Self::Unavailable(why),
            SqliteError::Refused(why) => Self::Refused(why),
            broken => Self::Schema(format!("{broken}; {}", broken.help())),
        }
    }
}

#[async_trait]
impl Store for SqliteStore {
    async fn persist(&self, chunks: &[ChunkRows]) -> Result<Vec<ChunkStored>, StoreError> {
        let sheets = persist::Sheet::all(chunks);
        self.write(move |to| persist::persist(to, &sheets)).await
    }

    async fn claim(
        &self,
        ids: &[Uuid],
        token: Uuid,
        lease: Duration,
    ) -> Result<Vec<Claim>, StoreError> {
        let ids = ids.to_vec();
        self.write(move |to| deliveries::claim(to, &ids, token, lease))
            .await
    }

    async fn record(
        &self,
        token: Uuid,
        attempts: &[Attempt],
        dead: &[DeadLetter],
    ) -> Result<Vec<Uuid>, StoreError> {
        let (attempts, dead) = (attempts.to_vec(), dead.to_vec());
        self.write(move |to| deliveries::record(to, token, &attempts, &dead))
            .await
    }

    async fn earlier(&self, ids: &[Uuid]) -> Result<Vec<Option<Earlier>>, StoreError> {
        let ids = ids.to_vec();
        self.read(move |from| deliveries::earlier(from, &ids)).await
    }

    async fn take_turns(
        &self,
        channel: &str,
        count: u32,
        gap: Duration,
        within: Duration,
    ) -> Result<Turns, StoreError> {
        let channel = channel.to_owned();
        self.write(move |to| rate::take_turns(to, &channel, count, gap, within))
            .await
    }

    async fn endpoints(&self) -> Result<Vec<EndpointState>, StoreError> {
        self.read(endpoint::all).await
    }

    async fn endpoint_failed(&self, failed: &EndpointFailed) -> Result<EndpointState, StoreError> {
        let failed = failed.clone();
        self.write(move |to| endpoint::failed(to, &failed)).await
    }

    async fn endpoint_well(&self, channel: &str, name: &str) -> Result<bool, StoreError> {
        let (channel, name) = (channel.to_owned(), name.to_owned());
        self.write(move |to| endpoint::well(to, &channel, &name))
            .await
    }

    async fn release(&self, token: Uuid, ids: &[Uuid]) -> Result<(), StoreError> {
        let ids = ids.to_vec();
        self.write(move |to| deliveries::release(to, token, &ids))
            .await
    }

    async fn expand(
        &self,
        token: Uuid,
        parent: Uuid,
        children: &[NewDelivery],
    ) -> Result<(), StoreError> {
        let children = children.to_vec();
        self.write(move |to| deliveries::expand(to, token, parent, &children))
            .await
    }

    async fn stranded(
        &self,
        channel: &str,
        due_before: Timestamp,
        limit: u32,
    ) -> Result<Vec<DeliveryBatch>, StoreError> {
        let channel = channel.to_owned();
        self.write(move |to| stranded::stranded(to, &channel, due_before, limit))
            .await
    }

    async fn report(
        &self,
        channels: &[String],
        attempts: &[Attempt],
    ) -> Result<Vec<Reported>, StoreError> {
        let (channels, attempts) = (channels.to_vec(), attempts.to_vec());
        self.write(move |to| foreign::report(to, &channels, &attempts))
            .await
    }

    async fn overdue(
        &self,
        channel: &str,
        due_before: Timestamp,
        limit: u32,
    ) -> Result<u64, StoreError> {
        let channel = channel.to_owned();
        self.write(move |to| foreign::overdue(to, &channel, due_before, limit))
            .await
    }

    async fn secret(&self, name: &str) -> Result<Vec<u8>, StoreError> {
        let name = name.to_owned();
        self.write(move |to| people::secret(to, &name)).await
    }

    async fn file_dead(&self, letters: &[DeadLetter]) -> Result<(), StoreError> {
        let letters = letters.to_vec();
        self.write(move |to| dead::file(to, &letters)).await
    }

    async fn list(&self, user: &str, query: &Query) -> Result<Page, StoreError> {
        let (user, query) = (user.to_owned(), query.clone());
        self.read(move |from| inbox::list(from, &user, &query))
            .await
    }

    async fn get(&self, user: &str, id: Uuid) -> Result<Option<Notification>, StoreError> {
        let user = user.to_owned();
        self.read(move |from| inbox::get(from, &user, id)).await
    }

    async fn counts(&self, user: &str) -> Result<Counts, StoreError> {
        let user = user.to_owned();
        self.read(move |from| counts::of(from, &user)).await
    }

    async fn topics(&self, user: &str, query: &Query) -> Result<Vec<String>, StoreError> {
        let (user, query) = (user.to_owned(), query.clone());
        self.read(move |from| inbox::topics(from, &user, &query))
            .await
    }

    async fn mark(
        &self,
        user: &str,
        ids: &[Uuid],
        mark: Mark,
    ) -> Result<Vec<Notification>, StoreError> {
        let mut ids = ids.to_vec();
        ids.sort_unstable();
        ids.dedup();
        let mut marked = Vec::with_capacity(ids.len());
        // The file has one writer: others get their turn between the parts.
        for part in ids.chunks(marks::IDS_AT_ONCE) {
            let (user, part) = (user.to_owned(), part.to_vec());
            let work = move |to: &Connection| marks::mark(to, &user, &part, mark);
            marked.extend(self.write(work).await?);
        }
        marked.sort_by_key(|one| std::cmp::Reverse((one.created, one.id)));
        Ok(marked)
    }

    async fn mark_all_read(&self, user: &str) -> Result<u64, StoreError> {
        let user = user.to_owned();
        self.write(move |to| marks::all_read(to, &user)).await
    }

    async fn settings(&self, users: &[String]) -> Result<Vec<Setting>, StoreError> {
        let users = users.to_vec();
        self.read(move |from| people::settings(from, &users)).await
    }

    async fn origins(&self, user: &str) -> Result<Known, StoreError> {
        let user = user.to_owned();
        self.read(move |from| people::origins(from, &user)).await
    }

    async fn save_settings(&self, user: &str, settings: &[Setting]) -> Result<(), StoreError> {
        let (user, settings) = (user.to_owned(), settings.to_vec());
        self.write(move |to| people::save_settings(to, &user, &settings))
            .await
    }

    async fn timeline(
        &self,
        find: &Find,
        user: Option<&str>,
        deliveries: u32,
    ) -> Result<Option<Timeline>, StoreError> {
        let (find, user) = (find.clone(), user.map(str::to_owned));
        self.read(move |from| timeline::timeline(from, &find, user.as_deref(), deliveries))
            .await
    }

    async fn dead_letters(&self, filter: &DeadFilter) -> Result<Vec<DeadLetter>, StoreError> {
        let filter = filter.clone();
        self.read(move |from| dead::list(from, &filter)).await
    }

    async fn settle_dead(&self, ids: &[i64], how: Settle) -> Result<u64, StoreError> {
        let ids = ids.to_vec();
        self.write(move |to| dead::settle(to, &ids, how)).await
    }

    async fn tokens(&self) -> Result<Vec<Token>, StoreError> {
        self.read(people::tokens).await
    }

    async fn add_token(&self, token: &Token) -> Result<(), StoreError> {
        let token = token.clone();
        self.write(move |to| people::add_token(to, &token)).await
    }

    async fn revoke_token(&self, hash: &str) -> Result<u64, StoreError> {
        let hash = hash.to_owned();
        self.write(move |to| people::revoke_token(to, &hash)).await
    }

    async fn touch_tokens(&self, hashes: &[String]) -> Result<(), StoreError> {
        let hashes = hashes.to_vec();
        self.write(move |to| people::touch_tokens(to, &hashes))
            .await
    }

    async fn add_plugin_key(&self, key: &PluginKey) -> Result<(), StoreError> {
        let key = key.clone();
        self.write(move |to| people::add_plugin_key(to, &key)).await
    }

    async fn plugin_keys(&self, limit: u32) -> Result<Vec<PluginKey>, StoreError> {
        self.read(move |from| people::plugin_keys(from, limit))
            .await
    }

    async fn pause(&self, channel: &str, by: &str) -> Result<(), StoreError> {
        let (channel, by) = (channel.to_owned(), by.to_owned());
        self.write(move |to| operate::pause(to, &channel, &by))
            .await
    }

    async fn resume(&self, channel: &str) -> Result<bool, StoreError> {
        let channel = channel.to_owned();
        self.write(move |to| operate::resume(to, &channel)).await
    }

    async fn pauses(&self) -> Result<Vec<Pause>, StoreError> {
        self.read(operate::pauses).await
    }

    async fn heartbeat(&self, process: &Process) -> Result<(), StoreError> {
        let process = process.clone();
        self.write(move |to| operate::heartbeat(to, &process)).await
    }

    async fn farewell(&self, process: Uuid) -> Result<(), StoreError> {
        self.write(move |to| operate::farewell(to, process)).await
    }

    async fn processes(&self) -> Result<Vec<Process>, StoreError> {
        self.read(operate::processes).await
    }

    async fn summary(&self) -> Result<Summary, StoreError> {
        self.read(operate::summary).await
    }

    async fn recount(&self, mend: bool) -> Result<u64, StoreError> {
        if mend {
            self.write(counts::mend).await
        } else {
            self.read(counts::wrong).await
        }
    }

    async fn prune(&self, retention: &Retention, batch: u32) -> Result<u64, StoreError> {
        let mut gone = 0;
        for what in prune::What::ALL {
            loop {
                let retention = *retention;
                let rows = self
                    .write(move |to| prune::prune(to, what, &retention, batch))
                    .await?;
                gone += rows;
                if rows == 0 {
                    break;
                }
            }
        }
        Ok(gone)
    }

    async fn expire(&self, before: Timestamp, saved: bool, batch: u32) -> Result<u64, StoreError> {
        let mut gone = 0;
        for what in [What::Own, What::OwnSaved, What::Broadcast(saved)] {
            if what == What::OwnSaved && !saved {
                continue;
            }
            loop {
                let rows = self
                    .write(move |to| expire::batch(to, what, before, batch))
                    .await?;
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
        let (source, rows, stand) = (source.to_owned(), rows.clone(), stand.cloned());
        self.write(move |to| import::import(to, &source, &rows, stand.as_ref()))
            .await
    }

    async fn import_stand(&self, source: &str) -> Result<Option<ImportStand>, StoreError> {
        let source = source.to_owned();
        self.read(move |from| import::stand(from, &source)).await
    }

    async fn ready(&self) -> Result<(), StoreError> {
        // Through the writing thread: a file that can only be read is not ready.
        self.write(operate::probe).await
    }
}
