//! The one SQLite file of the embedded mode: opened, migrated, locked, written by one thread.
//!
//! The store and the queue share it, so that both can commit together. All writes go through one
//! thread that owns the only writing connection and puts whatever waits into one transaction;
//! reads have connections of their own and never wait for a write. Nothing here knows what the
//! tables mean.

mod error;
mod schema;
mod writer;

use std::fs;
use std::fs::File;
use std::fs::OpenOptions;
use std::fs::TryLockError;
use std::io::Read;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use rusqlite::Connection;
use rusqlite::OpenFlags;
use rusqlite::TransactionBehavior;
use rusqlite::functions::FunctionFlags;
use tokio::sync::Semaphore;

pub use self::error::SqliteError;
use self::writer::Writer;

/// The file, in the data directory.
const FILE: &str = "tidings.sqlite";
/// What is locked while a process uses the directory; it holds the process's number.
const LOCK: &str = "lock";
/// Connections that read, so many reads at once.
const READERS: usize = 4;
/// How long a statement waits for another connection's lock: a backup or a checkpoint at most.
const BUSY: Duration = Duration::from_secs(10);
/// Prepared statements that a connection keeps.
const STATEMENTS: usize = 256;

/// The shared file. Dropping it commits what was handed in, then closes it.
#[derive(Debug)]
pub struct Sqlite {
    path: PathBuf,
    writer: Writer,
    readers: Arc<Readers>,
}

impl Sqlite {
    /// Opens `<dir>/tidings.sqlite`, which is made if need be and brought to this version's
    /// schema. No other process can open it until this is dropped.
    ///
    /// # Errors
    /// [`SqliteError::InUse`] when another process holds the directory, [`SqliteError::Unusable`]
    /// or [`SqliteError::Newer`] when the file is not for this version; all name the place, and
    /// [`SqliteError::help`] says what to do.
    pub fn open(dir: &Path) -> Result<Arc<Self>, SqliteError> {
        make_directory(dir)?;
        let lock = lock(dir)?;
        let path = dir.join(FILE);
        let connection =
            open_writing(&path).map_err(|error| SqliteError::opening(&path, &error))?;
        let connection = schema::migrate(connection, &path)?;
        Ok(Arc::new(Self {
            readers: Arc::new(Readers::new(path.clone())),
            writer: Writer::start(connection, lock)?,
            path,
        }))
    }

    /// What there is in `dir`, without making, locking or changing anything.
    ///
    /// # Errors
    /// [`SqliteError::InUse`] when another process holds the directory.
    pub fn look(dir: &Path) -> Result<Option<u64>, SqliteError> {
        let Ok(lock) = File::open(dir.join(LOCK)) else {
            return Ok(None);
        };
        if let Err(TryLockError::WouldBlock) = lock.try_lock_shared() {
            return Err(in_use(dir, lock));
        }
        Ok(fs::metadata(dir.join(FILE)).ok().map(|file| file.len()))
    }

    /// Runs `job` on the writing connection, inside a transaction that others may share, and
    /// answers once it is on the disk. A job that fails is undone alone. Once accepted it is done
    /// even if nobody waits for the answer any more.
    ///
    /// # Errors
    /// Those of the job, and [`SqliteError::Unavailable`] when the commit failed.
    pub(crate) async fn write<T, F>(&self, job: F) -> Result<T, SqliteError>
    where
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
        T: Send + 'static,
    {
        self.writer.write(job).await
    }

    /// Runs `job` on a reading connection; all its statements see one state of the file.
    ///
    /// # Errors
    /// Those of the job.
    pub(crate) async fn read<T, F>(&self, job: F) -> Result<T, SqliteError>
    where
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
        T: Send + 'static,
    {
        let closed = |_| SqliteError::Unavailable("the file is being closed".to_owned());
        let readers = Arc::clone(&self.readers);
        let permit = Arc::clone(&readers.free).acquire_owned().await;
        let permit = permit.map_err(closed)?;
        tokio::task::spawn_blocking(move || {
            let answer = readers.read(job);
            drop(permit);
            answer
        })
        .await
        .map_err(|_| SqliteError::Refused("the read panicked".to_owned()))?
    }

    /// Writes a copy of the file, as it stands now, to `to`, which must not exist. The copy is
    /// complete or not there; work goes on meanwhile.
    ///
    /// # Errors
    /// Says why the copy could not be made.
    pub async fn backup(&self, to: &Path) -> Result<(), SqliteError> {
        let (from, to) = (self.path.clone(), to.to_owned());
        tokio::task::spawn_blocking(move || copy(&from, &to))
            .await
            .map_err(|_| SqliteError::Refused("the backup panicked".to_owned()))?
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// The reading connections, opened when they are first needed.
#[derive(Debug)]
struct Readers {
    path: PathBuf,
    free: Arc<Semaphore>,
    idle: Mutex<Vec<Connection>>,
}

impl Readers {
    fn new(path: PathBuf) -> Self {
        Self {
            path,
            free: Arc::new(Semaphore::new(READERS)),
            idle: Mutex::new(Vec::new()),
        }
    }

    fn read<T>(
        &self,
        job: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, SqliteError> {
        let idle = self.idle().pop();
        let mut connection = match idle {
            Some(connection) => connection,
            None => open_reading(&self.path)?,
        };
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Deferred)?;
        let answer = job(&transaction)?;
        transaction.commit()?;
        // After an error the connection is dropped: a new one is cheap, a strange state is not.
        self.idle().push(connection);
        Ok(answer)
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn make_directory(dir: &Path) -> Result<(), SqliteError> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::DirBuilderExt;
        builder.mode(0o700);
    }
    builder.create(dir).map_err(|error| {
        SqliteError::Unavailable(format!(
            "the data directory {} cannot be made: {error}",
            dir.display()
        ))
    })
}

/// Takes the directory for this process.
fn lock(dir: &Path) -> Result<File, SqliteError> {
    let path = dir.join(LOCK);
    let fault = |error: std::io::Error| {
        SqliteError::Unavailable(format!("{} cannot be locked: {error}", path.display()))
    };
    let mut file = private(OpenOptions::new().read(true).write(true).create(true))
        .open(&path)
        .map_err(fault)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            return Err(in_use(dir, file));
        }
        Err(TryLockError::Error(error)) => return Err(fault(error)),
    }
    file.set_len(0).map_err(fault)?;
    writeln!(file, "{}", std::process::id()).map_err(fault)?;
    Ok(file)
}

fn in_use(dir: &Path, lock: File) -> SqliteError {
    let mut holder = String::new();
    // Without the number the message is still of use.
    let _ = lock.take(20).read_to_string(&mut holder);
    SqliteError::InUse {
        dir: dir.to_owned(),
        holder: holder.trim().parse().ok(),
    }
}

/// What is kept concerns people: nobody else on the machine may read it.
fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(0o600);
    }
    options.truncate(false)
}

fn open_writing(path: &Path) -> Result<Connection, SqliteError> {
    // SQLite gives the files beside it (-wal, -shm) the same mode.
    private(OpenOptions::new().write(true).create(true))
        .open(path)
        .map_err(|error| SqliteError::Unavailable(error.to_string()))?;
    let connection = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    settle(&connection)?;
    let mode: String =
        connection.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get(0))?;
    if mode != "wal" {
        return Err(SqliteError::Unavailable(
            "the file system has no shared memory, as on a network share; use a local disk"
                .to_owned(),
        ));
    }
    connection.pragma_update(None, "synchronous", "full")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.pragma_update(None, "journal_size_limit", 64 << 20)?;
    Ok(connection)
}

fn open_reading(path: &Path) -> Result<Connection, SqliteError> {
    let connection = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    settle(&connection)?;
    Ok(connection)
}

fn settle(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(BUSY)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    connection.pragma_update(None, "temp_store", "memory")?;
    connection.pragma_update(None, "cache_size", -16_384)?;
    // SQLite's own `lower` and `like` know the letters of English alone.
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC;
    connection.create_scalar_function("lowercase", 1, flags, |arguments| {
        let text: Option<String> = arguments.get(0)?;
        Ok(text.map(|text| text.to_lowercase()))
    })
}

fn copy(from: &Path, to: &Path) -> Result<(), SqliteError> {
    let fault = |error: std::io::Error| {
        SqliteError::Unavailable(format!("the backup {} failed: {error}", to.display()))
    };
    if to.exists() {
        return Err(SqliteError::Refused(format!(
            "{} exists; name a file that does not",
            to.display()
        )));
    }
    let mut partial = to.as_os_str().to_owned();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    // An empty file may be vacuumed into: so it has the right mode from the first byte.
    private(OpenOptions::new().write(true).create(true))
        .truncate(true)
        .open(&partial)
        .map_err(fault)?;
    let copied = open_reading(from).and_then(|connection| {
        connection.execute("vacuum into ?1", [partial.to_string_lossy()])?;
        Ok(())
    });
    let kept = copied.and_then(|()| {
        File::open(&partial)
            .and_then(|file| file.sync_all())
            .map_err(fault)?;
        fs::rename(&partial, to).map_err(fault)
    });
    if kept.is_err() {
        // What is left of it is of no use to anybody.
        let _ = fs::remove_file(&partial);
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory of its own for each test, and a table to play with.
    async fn playground() -> (tempfile::TempDir, Arc<Sqlite>) {
        let dir = tempfile::tempdir().unwrap();
        let file = Sqlite::open(dir.path()).unwrap();
        let table = "create table play (n integer primary key, text text not null)";
        file.write(|to| to.execute(table, [])).await.unwrap();
        (dir, file)
    }

    async fn insert(file: &Sqlite, n: i64) -> Result<usize, SqliteError> {
        file.write(move |to| to.execute("insert into play values (?1, 'x')", [n]))
            .await
    }

    async fn count(file: &Sqlite) -> i64 {
        file.read(|from| from.query_row("select count(*) from play", [], |row| row.get(0)))
            .await
            .unwrap()
    }

    #[tokio::test]
    async fn a_write_that_fails_or_panics_is_undone_alone() {
        let (_dir, file) = playground().await;
        let mut writes = Vec::new();
        for n in 0..100 {
            let file = Arc::clone(&file);
            writes.push(tokio::spawn(async move { insert(&file, n % 50).await }));
        }
        let panic = file.write(|to| -> rusqlite::Result<()> {
            to.execute("insert into play values (1000, 'x')", [])?;
            panic!("on purpose")
        });
        assert!(matches!(panic.await, Err(SqliteError::Refused(_))));
        let mut refused = 0;
        for write in writes {
            if let Err(error) = write.await.unwrap() {
                assert!(matches!(error, SqliteError::Refused(_)), "{error}");
                refused += 1;
            }
        }
        assert_eq!((refused, count(&file).await), (50, 50));
    }

    #[tokio::test]
    async fn a_full_disk_is_no_fault_of_the_row() {
        let (_dir, file) = playground().await;
        let full = file.write(|to| {
            let pages: i64 = to.pragma_query_value(None, "page_count", |row| row.get(0))?;
            to.pragma_update(None, "max_page_count", pages)?;
            to.execute("insert into play values (1, hex(zeroblob(100000)))", [])
        });
        let full = full.await.unwrap_err();
        assert!(matches!(full, SqliteError::Unavailable(_)), "{full}");
        let room = file.write(|to| to.pragma_update(None, "max_page_count", 1 << 30));
        room.await.unwrap();
        insert(&file, 1).await.unwrap();
        assert_eq!(count(&file).await, 1);
    }

    #[tokio::test]
    async fn a_directory_has_one_process_and_keeps_what_was_written() {
        let (dir, file) = playground().await;
        insert(&file, 1).await.unwrap();
        let second = Sqlite::open(dir.path()).unwrap_err().to_string();
        assert!(
            second.contains(&dir.path().display().to_string()),
            "{second}"
        );
        assert!(second.contains(&std::process::id().to_string()), "{second}");
        drop(file);
        let file = Sqlite::open(dir.path()).unwrap();
        assert_eq!(count(&file).await, 1);
    }

    #[tokio::test]
    async fn a_backup_is_a_file_that_can_be_opened() {
        let (dir, file) = playground().await;
        insert(&file, 1).await.unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        let to = elsewhere.path().join(FILE);
        file.backup(&to).await.unwrap();
        let again = file.backup(&to).await.unwrap_err();
        assert!(matches!(again, SqliteError::Refused(_)), "{again}");
        assert!(file.backup(&dir.path().join("no/such")).await.is_err());
        let copy = Sqlite::open(elsewhere.path()).unwrap();
        assert_eq!(count(&copy).await, 1);
        assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 4);
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn nobody_else_on_the_machine_can_read_it() {
        use std::os::unix::fs::PermissionsExt;
        let (dir, file) = playground().await;
        let backup = dir.path().join("backup");
        file.backup(&backup).await.unwrap();
        for entry in fs::read_dir(dir.path()).unwrap() {
            let entry = entry.unwrap();
            let mode = entry.metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o077, 0, "{:?}", entry.path());
        }
    }

    #[tokio::test]
    async fn a_file_that_is_broken_or_newer_says_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(FILE), "this is no database ".repeat(100)).unwrap();
        let broken = Sqlite::open(dir.path()).unwrap_err();
        assert!(matches!(broken, SqliteError::Unusable(_)), "{broken}");
        assert!(broken.to_string().contains(FILE), "{broken}");

        let (dir, file) = playground().await;
        let later = file.write(|to| to.pragma_update(None, "user_version", 99));
        later.await.unwrap();
        drop(file);
        let newer = Sqlite::open(dir.path()).unwrap_err();
        assert!(
            matches!(newer, SqliteError::Newer { needed: 99, .. }),
            "{newer}"
        );
    }
}
