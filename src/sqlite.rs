//! The one SQLite file of the embedded back end, shared by queue and store.
//!
//! One thread owns the only connection that writes. It gathers the jobs that wait into one
//! transaction, each in a savepoint of its own, and answers after the commit: an answer means
//! that the work is on disk. Readers have connections of their own and never wait for it.

use std::fs::File;
use std::fs::TryLockError;
use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use rusqlite::Connection;
use rusqlite::ErrorCode;
use rusqlite::OpenFlags;
use tokio::sync::oneshot;

/// The file, in the data directory.
const FILE: &str = "tidings.sqlite";
/// Held while a process uses the directory.
const LOCK: &str = "lock";
/// Most jobs in one transaction.
const JOBS_PER_COMMIT: usize = 512;
/// Most jobs that wait; whoever brings more waits too.
const JOBS_WAITING_MAX: usize = 4_096;
/// Connections that read.
const READERS: usize = 4;
/// Prepared statements kept on each connection.
const STATEMENTS_KEPT: usize = 64;

mod migrations {
    refinery::embed_migrations!("schemas/sql/sqlite");
}

/// Why the file did not do what it was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SqliteError {
    /// Another process uses the directory.
    #[error("the data directory {0} is in use by another Tidings")]
    InUse(String),
    /// The file cannot be used as it is: damaged, or of a newer version.
    #[error("{0}")]
    Unusable(String),
    /// It cannot be read or written now: disk full, no permission, shutting down.
    #[error("the data file cannot be used: {0}")]
    Unavailable(String),
    /// A row breaks a rule of the schema.
    #[error("{0}")]
    Refused(String),
}

impl SqliteError {
    /// What to do about it.
    pub fn help(&self) -> String {
        match self {
            Self::InUse(_) => {
                "stop the other one, or choose another directory with tidings.data".to_owned()
            }
            Self::Unusable(_) => {
                "restore it from a backup, or move the directory away to start over".to_owned()
            }
            Self::Unavailable(_) => {
                "look at the disk's free space and the directory's permissions".to_owned()
            }
            Self::Refused(_) => "this is a fault of Tidings: please report it".to_owned(),
        }
    }

    fn opening(path: &Path, error: &rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => {
                Self::Unusable(format!("{} is damaged: {error}", path.display()))
            }
            _ => Self::Unavailable(format!("{}: {error}", path.display())),
        }
    }
}

impl From<rusqlite::Error> for SqliteError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::ConstraintViolation | ErrorCode::TooBig | ErrorCode::TypeMismatch) => {
                Self::Refused(error.to_string())
            }
            Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => {
                Self::Unusable(format!("the data file is damaged: {error}"))
            }
            Some(_) => Self::Unavailable(error.to_string()),
            None => Self::Refused(error.to_string()),
        }
    }
}

/// Work for the writer. `None`: it failed, and whoever brought it knows.
type Job = Box<dyn FnOnce(&Connection) -> Option<Answer> + Send>;
/// Tells the one who brought the job; called after the commit, or with why there was none.
type Answer = Box<dyn FnOnce(Result<(), SqliteError>) + Send>;

/// The open file.
#[derive(Debug)]
pub struct Sqlite {
    path: PathBuf,
    jobs: mpsc::SyncSender<Job>,
    readers: tokio::sync::Semaphore,
    idle: std::sync::Mutex<Vec<Connection>>,
    // Held until the process ends; the operating system lets go of it even after a crash.
    _lock: File,
}

impl Sqlite {
    /// Opens the file in `dir`, making both where they are missing, and brings the schema up to
    /// date.
    ///
    /// # Errors
    /// [`SqliteError`]: in use, damaged, of a newer version, or not writable.
    pub fn open(dir: &Path) -> Result<Arc<Self>, SqliteError> {
        let unavailable =
            |error: std::io::Error| SqliteError::Unavailable(format!("{}: {error}", dir.display()));
        std::fs::create_dir_all(dir).map_err(unavailable)?;
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(dir.join(LOCK))
            .map_err(unavailable)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(SqliteError::InUse(dir.display().to_string()));
            }
            Err(TryLockError::Error(error)) => return Err(unavailable(error)),
        }
        let path = dir.join(FILE);
        let mut writer =
            Connection::open(&path).map_err(|error| SqliteError::opening(&path, &error))?;
        prepare(&writer).map_err(|error| SqliteError::opening(&path, &error))?;
        migrate(&mut writer, &path)?;
        let (jobs, waiting) = mpsc::sync_channel(JOBS_WAITING_MAX);
        std::thread::Builder::new()
            .name("sqlite writer".to_owned())
            .spawn(move || write_all(&writer, &waiting))
            .map_err(unavailable)?;
        Ok(Arc::new(Self {
            path,
            jobs,
            readers: tokio::sync::Semaphore::new(READERS),
            idle: std::sync::Mutex::new(Vec::new()),
            _lock: lock,
        }))
    }

    /// Runs `job` in a transaction, together with whatever else waits, and returns once it is on
    /// disk. When `job` fails, nothing of it stays.
    ///
    /// # Errors
    /// The job's own, or that the commit failed.
    pub async fn write<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, SqliteError> {
        let (tell, told) = oneshot::channel();
        let work: Job = Box::new(move |connection| {
            let result = catch_unwind(AssertUnwindSafe(|| job(connection)))
                .map_err(|_| SqliteError::Refused("the work on the data file panicked".to_owned()))
                .and_then(|result| result.map_err(SqliteError::from));
            // Whoever asked may have gone away, so that nobody is told.
            match result {
                Ok(value) => Some(Box::new(move |committed: Result<(), SqliteError>| {
                    let _ = tell.send(committed.map(|()| value));
                })),
                Err(error) => {
                    let _ = tell.send(Err(error));
                    None
                }
            }
        });
        self.hand_over(work).await?;
        told.await.unwrap_or_else(|_| Err(closed()))
    }

    /// Puts a job before the writer; waits without blocking the runtime while too many do.
    async fn hand_over(&self, mut job: Job) -> Result<(), SqliteError> {
        loop {
            match self.jobs.try_send(job) {
                Ok(()) => return Ok(()),
                Err(mpsc::TrySendError::Full(back)) => {
                    job = back;
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                Err(mpsc::TrySendError::Disconnected(_)) => return Err(closed()),
            }
        }
    }

    /// Runs `job` on a connection that reads what is committed.
    ///
    /// # Errors
    /// The job's own, or that the file cannot be read.
    pub async fn read<T: Send + 'static>(
        self: &Arc<Self>,
        job: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, SqliteError> {
        let this = Arc::clone(self);
        let _turn = self.readers.acquire().await.map_err(|_| closed())?;
        let work = tokio::task::spawn_blocking(move || {
            let idle = this
                .idle
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner)
                .pop();
            let connection = match idle {
                Some(connection) => connection,
                None => reader(&this.path)?,
            };
            let result = job(&connection).map_err(SqliteError::from);
            let mut idle = this
                .idle
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            idle.push(connection);
            result
        });
        work.await.unwrap_or_else(|_| Err(closed()))
    }

    /// Writes a copy of everything to `to`, while all else goes on.
    ///
    /// # Errors
    /// When `to` exists already or cannot be written.
    pub async fn backup(self: &Arc<Self>, to: &Path) -> Result<(), SqliteError> {
        let to = to.to_string_lossy().into_owned();
        self.read(move |connection| connection.execute("vacuum into ?1", [to]).map(|_| ()))
            .await
    }
}

fn closed() -> SqliteError {
    SqliteError::Unavailable("the process is stopping".to_owned())
}

fn prepare(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(Duration::from_secs(5))?;
    connection.pragma_update(None, "journal_mode", "wal")?;
    connection.pragma_update(None, "synchronous", "full")?;
    connection.pragma_update(None, "foreign_keys", "on")?;
    connection.pragma_update(None, "temp_store", "memory")?;
    connection.pragma_update(None, "cache_size", -65_536)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_KEPT);
    Ok(())
}

fn reader(path: &Path) -> Result<Connection, SqliteError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)
        .map_err(|error| SqliteError::opening(path, &error))?;
    connection.busy_timeout(Duration::from_secs(5))?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_KEPT);
    Ok(connection)
}

fn migrate(writer: &mut Connection, path: &Path) -> Result<(), SqliteError> {
    let runner = migrations::migrations::runner()
        .set_abort_divergent(true)
        .set_abort_missing(true);
    runner.run(writer).map(|_| ()).map_err(|error| {
        SqliteError::Unusable(format!(
            "{} does not fit this version of Tidings ({error}); a newer version made it, or it is damaged",
            path.display()
        ))
    })
}

/// The writer's life: take what waits, commit it together, answer.
fn write_all(connection: &Connection, waiting: &mpsc::Receiver<Job>) {
    while let Ok(first) = waiting.recv() {
        let mut answers = Vec::new();
        let mut run = || -> rusqlite::Result<()> {
            connection.execute_batch("begin immediate")?;
            let more = waiting.try_iter().take(JOBS_PER_COMMIT - 1);
            for job in std::iter::once(first).chain(more) {
                connection.execute_batch("savepoint job")?;
                match job(connection) {
                    Some(answer) => answers.push(answer),
                    None => connection.execute_batch("rollback to job")?,
                }
                connection.execute_batch("release job")?;
            }
            connection.execute_batch("commit")
        };
        let committed = run().map_err(SqliteError::from);
        if committed.is_err() {
            // A failed commit leaves the transaction open.
            let _ = connection.execute_batch("rollback");
        }
        for answer in answers {
            answer(committed.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(connection: &Connection) -> rusqlite::Result<i64> {
        connection.query_row("select count(*) from inbox_count", [], |row| row.get(0))
    }

    fn insert(user: &str) -> impl FnOnce(&Connection) -> rusqlite::Result<usize> + Send + 'static {
        let user = user.to_owned();
        move |connection| connection.execute("insert into inbox_count (user) values (?1)", [user])
    }

    #[tokio::test]
    async fn a_job_that_fails_or_panics_takes_nothing_else_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let sqlite = Sqlite::open(dir.path()).unwrap();
        let (a, twice, panics, b) = tokio::join!(
            sqlite.write(insert("a")),
            sqlite.write(|connection| {
                insert("half")(connection)?;
                insert("half")(connection)
            }),
            sqlite.write(|connection| -> rusqlite::Result<()> {
                insert("lost")(connection)?;
                panic!("on purpose")
            }),
            sqlite.write(insert("b")),
        );
        assert!(a.is_ok() && b.is_ok());
        assert!(matches!(twice, Err(SqliteError::Refused(_))), "{twice:?}");
        assert!(matches!(panics, Err(SqliteError::Refused(_))), "{panics:?}");
        assert_eq!(sqlite.read(count).await.unwrap(), 2);
    }

    #[tokio::test]
    async fn a_directory_in_use_a_damaged_and_a_newer_file_are_refused_with_help() {
        let dir = tempfile::tempdir().unwrap();
        let sqlite = Sqlite::open(dir.path()).unwrap();
        let error = Sqlite::open(dir.path()).unwrap_err();
        assert!(matches!(error, SqliteError::InUse(_)), "{error}");
        sqlite
            .write(|connection| {
                let newer =
                    "insert into refinery_schema_history values (99, 'later', '2026-01-01T00:00:00Z', '1')";
                connection.execute(newer, [])
            })
            .await
            .unwrap();
        drop(sqlite);
        let error = Sqlite::open(dir.path()).unwrap_err();
        assert!(error.to_string().contains("newer version"), "{error}");

        let damaged = tempfile::tempdir().unwrap();
        std::fs::write(
            damaged.path().join(FILE),
            "this is no database, however you read it",
        )
        .unwrap();
        let error = Sqlite::open(damaged.path()).unwrap_err();
        assert!(matches!(error, SqliteError::Unusable(_)), "{error}");
        assert!(error.help().contains("backup"));
    }

    #[tokio::test]
    async fn a_backup_holds_everything_and_overwrites_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let sqlite = Sqlite::open(&dir.path().join("data")).unwrap();
        sqlite.write(insert("a")).await.unwrap();
        let copy = dir.path().join("copy.sqlite");
        sqlite.backup(&copy).await.unwrap();
        assert_eq!(count(&Connection::open(&copy).unwrap()).unwrap(), 1);
        assert!(sqlite.backup(&copy).await.is_err());
    }
}
