//! The writing thread: whatever waits goes into one transaction, each job in a savepoint of its
//! own, and nobody hears a word before the commit.

use std::fmt;
use std::fs::File;
use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::thread::JoinHandle;

use rusqlite::Connection;
use tokio::sync::mpsc;
use tokio::sync::oneshot;

use super::SqliteError;

/// Jobs that may wait; more wait with their callers.
const WAITING: usize = 1024;
/// Most jobs in one transaction: the first must not wait long for the last.
const TOGETHER: usize = 256;

/// The handle of the writing thread.
pub(super) struct Writer {
    /// `None` only while it is dropped.
    jobs: Option<mpsc::Sender<Box<dyn Job>>>,
    thread: Option<JoinHandle<()>>,
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Writer")
    }
}

impl Writer {
    /// Starts the thread. It holds `lock` until the connection is closed.
    pub(super) fn start(connection: Connection, lock: File) -> Result<Self, SqliteError> {
        let (jobs, waiting) = mpsc::channel(WAITING);
        let thread = std::thread::Builder::new()
            .name("sqlite-writer".to_owned())
            .spawn(move || {
                run(&connection, waiting);
                drop(connection);
                drop(lock);
            })
            .map_err(|error| SqliteError::Unavailable(format!("no thread to write: {error}")))?;
        Ok(Self {
            jobs: Some(jobs),
            thread: Some(thread),
        })
    }

    pub(super) async fn write<T, F>(&self, job: F) -> Result<T, SqliteError>
    where
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
        T: Send + 'static,
    {
        let gone = || SqliteError::Unavailable("the writing thread has stopped".to_owned());
        let (answer, hear) = oneshot::channel();
        let task = Box::new(Task {
            job: Some(job),
            done: None,
            answer,
        });
        let jobs = self.jobs.as_ref().ok_or_else(gone)?;
        jobs.send(task).await.map_err(|_| gone())?;
        hear.await.map_err(|_| gone())?
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        drop(self.jobs.take());
        let Some(thread) = self.thread.take() else {
            return;
        };
        // The last handle may be dropped by a job: a thread cannot wait for itself.
        if thread.thread().id() != std::thread::current().id() {
            let _ = thread.join();
        }
    }
}

/// Work for the thread.
trait Job: Send {
    /// Does it; says whether it worked.
    fn run(&mut self, connection: &Connection) -> bool;

    /// Tells the caller: its own error, else how the commit went.
    fn answer(self: Box<Self>, committed: Result<(), SqliteError>);
}

struct Task<T, F> {
    job: Option<F>,
    done: Option<Result<T, SqliteError>>,
    answer: oneshot::Sender<Result<T, SqliteError>>,
}

impl<T, F> Job for Task<T, F>
where
    F: FnOnce(&Connection) -> rusqlite::Result<T> + Send,
    T: Send,
{
    fn run(&mut self, connection: &Connection) -> bool {
        let Some(job) = self.job.take() else {
            return true;
        };
        // A panic must not take the thread with it: it is undone like any other failure.
        let done = match catch_unwind(AssertUnwindSafe(|| job(connection))) {
            Ok(done) => done.map_err(SqliteError::from),
            Err(_) => Err(SqliteError::Refused("the write panicked".to_owned())),
        };
        self.done.insert(done).is_ok()
    }

    fn answer(self: Box<Self>, committed: Result<(), SqliteError>) {
        let answer = match (self.done, committed) {
            (Some(Err(own)), _) => Err(own),
            (_, Err(error)) => Err(error),
            (Some(done), Ok(())) => done,
            (None, Ok(())) => return,
        };
        // Whoever does not wait any more does not mind.
        let _ = self.answer.send(answer);
    }
}

fn run(connection: &Connection, mut waiting: mpsc::Receiver<Box<dyn Job>>) {
    while let Some(first) = waiting.blocking_recv() {
        let mut jobs = vec![first];
        while jobs.len() < TOGETHER
            && let Ok(next) = waiting.try_recv()
        {
            jobs.push(next);
        }
        let committed = together(connection, &mut jobs).map_err(|error| undone(error.into()));
        if committed.is_err() && !connection.is_autocommit() {
            // If this fails too, the next `begin` says so.
            let _ = connection.execute_batch("rollback");
        }
        for job in jobs {
            job.answer(committed.clone());
        }
    }
}

/// What a failed transaction means to a job that did nothing wrong: it may come again.
fn undone(error: SqliteError) -> SqliteError {
    match error {
        SqliteError::Refused(why) => SqliteError::Unavailable(format!(
            "the transaction was undone with another write in it ({why})"
        )),
        other => other,
    }
}

/// Runs the jobs in one transaction. An error concerns all of them.
fn together(connection: &Connection, jobs: &mut [Box<dyn Job>]) -> rusqlite::Result<()> {
    step(connection, "begin immediate")?;
    for job in jobs {
        step(connection, "savepoint job")?;
        if job.run(connection) {
            step(connection, "release job")?;
        } else {
            // A full disk has already undone the whole transaction: then this fails, and all
            // others hear of it.
            step(connection, "rollback to job")?;
            step(connection, "release job")?;
        }
    }
    step(connection, "commit")
}

fn step(connection: &Connection, sql: &str) -> rusqlite::Result<()> {
    connection.prepare_cached(sql)?.execute([]).map(|_| ())
}
