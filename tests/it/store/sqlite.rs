//! The store in the SQLite file, under the suite.

use std::sync::Arc;

use tempfile::TempDir;
use tidings::sqlite::Sqlite;
use tidings::store::Store;
use tidings::store::sqlite::SqliteStore;

use super::Harness;

/// A store in a directory of its own.
struct Embedded {
    _dir: TempDir,
    store: Arc<SqliteStore>,
}

impl Harness for Embedded {
    const STORIES: u32 = 48;

    async fn start() -> Self {
        let dir = TempDir::new().unwrap();
        let sqlite = Sqlite::open(dir.path()).unwrap();
        Self {
            store: Arc::new(SqliteStore::new(sqlite)),
            _dir: dir,
        }
    }

    fn store(&self) -> Arc<dyn Store> {
        Arc::clone(&self.store) as Arc<dyn Store>
    }

    async fn stop(self) {}
}

super::conformance!(Embedded);
