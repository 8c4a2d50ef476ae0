//! The suite on the SQLite file.

use std::path::Path;
use std::sync::Arc;

use tempfile::TempDir;
use tidings::queue::Consumer;
use tidings::queue::Queue;
use tidings::queue::sqlite::SqliteQueue;
use tidings::sqlite::Sqlite;

use super::Harness;
use super::conformance;
use super::specs;

struct OneFile {
    queue: Arc<dyn Queue>,
    data: TempDir,
}

fn open(data: &Path) -> Arc<dyn Queue> {
    let sqlite = Sqlite::open(data).unwrap();
    Arc::new(SqliteQueue::new(sqlite, &specs()))
}

impl Harness for OneFile {
    async fn start() -> Self {
        let data = tempfile::tempdir().unwrap();
        let queue = open(data.path());
        Self { queue, data }
    }

    fn queue(&self) -> Arc<dyn Queue> {
        Arc::clone(&self.queue)
    }

    /// Goes on with a copy of what is on disk at this moment: the file that a killed process
    /// leaves, whatever the living one writes afterwards.
    async fn restart(&mut self, consumers: Vec<Box<dyn Consumer>>) {
        let left = tempfile::tempdir().unwrap();
        for file in std::fs::read_dir(self.data.path()).unwrap() {
            let file = file.unwrap();
            let shared_memory = file.file_name().to_string_lossy().ends_with("-shm");
            if !shared_memory {
                std::fs::copy(file.path(), left.path().join(file.file_name())).unwrap();
            }
        }
        self.queue = open(left.path());
        self.data = left;
        drop(consumers);
    }

    async fn stop(self) {}
}

conformance!(OneFile);
