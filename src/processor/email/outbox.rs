//! The transport `outbox`: every mail a readable `.eml` file in a directory.
//!
//! For development and for small places without a relay. The name is made of the delivery, so
//! that the same delivery writes the same file again. It keeps itself from growing without end.

use std::fs;
use std::io;
use std::io::Write as _;
use std::path::Path;
use std::path::PathBuf;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::SystemTime;

use crate::failure::Failure;
use crate::failure::Reason;
use crate::processor::Outgoing;
use crate::time::Timestamp;

/// How mails end.
const SUFFIX: &str = ".eml";
/// How files begin that are not finished.
const UNFINISHED: &str = ".unfinished-";
/// An unfinished file of this age belongs to a process that is gone.
const FORGOTTEN: Duration = Duration::from_secs(3_600);

/// How many mails are written between two looks at how many there are.
const WRITES_PER_PRUNING: usize = 100;

/// A directory of mails.
#[derive(Debug)]
pub(super) struct Outbox {
    directory: PathBuf,
    /// How many mails stay.
    pub(super) keep: usize,
    written: AtomicUsize,
}

impl Outbox {
    pub(super) fn new(directory: PathBuf, keep: usize) -> Self {
        Self {
            directory,
            keep,
            written: AtomicUsize::new(0),
        }
    }

    /// Writes one mail, whole or not at all, and returns its path.
    pub(super) async fn write(
        &self,
        mail: &Outgoing<'_>,
        content: Vec<u8>,
    ) -> Result<String, Failure> {
        let (directory, name) = (self.directory.clone(), file_name(mail));
        let path = self
            .blocking(move || write(&directory, &name, &content))
            .await?;
        let written = self.written.fetch_add(1, Ordering::Relaxed);
        if written.is_multiple_of(WRITES_PER_PRUNING) {
            // What cannot be removed hinders no mail.
            if let Err(error) = prune(&self.directory, self.keep).await {
                tracing::warn!(%error, "old mails could not be removed from the outbox");
            }
        }
        Ok(path.display().to_string())
    }

    /// Whether mails can be written. A directory that is not there yet is made by the first mail,
    /// not by the question.
    pub(super) async fn probe(&self) -> Result<String, Failure> {
        let directory = self.directory.clone();
        self.blocking(move || {
            if !directory.exists() {
                return Ok(());
            }
            let probe = directory.join(format!("{UNFINISHED}probe"));
            create(&probe)?;
            fs::remove_file(&probe)
        })
        .await?;
        Ok(format!("files in {}", self.directory.display()))
    }

    async fn blocking<T: Send + 'static>(
        &self,
        doing: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> Result<T, Failure> {
        let done = tokio::task::spawn_blocking(doing).await;
        done.unwrap_or_else(|error| Err(io::Error::other(error)))
            .map_err(|error| {
                let directory = self.directory.display();
                let detail = format!("cannot write to the outbox {directory}: {error}");
                Failure::dependency(Reason::Internal, detail)
            })
    }
}

/// When it became visible, the submission's last eight digits, and the delivery's last twelve:
/// sorted by time, found by what `trace` takes, and one for each delivery.
fn file_name(mail: &Outgoing<'_>) -> String {
    let tail = |id: uuid::Uuid, digits: usize| {
        let id = id.simple().to_string();
        id[id.len() - digits..].to_owned()
    };
    format!(
        "{}-{}-{}{SUFFIX}",
        compact(mail.created),
        tail(mail.submission, 8),
        tail(mail.delivery, 12)
    )
}

/// `20261124T184207Z`.
fn compact(at: Timestamp) -> String {
    let text = at.to_string();
    let seconds = text.split('.').next().unwrap_or(&text);
    let digits: String = seconds.chars().filter(|c| !"-:".contains(*c)).collect();
    format!("{}Z", digits.trim_end_matches('Z'))
}

fn write(directory: &Path, name: &str, content: &[u8]) -> io::Result<PathBuf> {
    fs::create_dir_all(directory)?;
    let unfinished = directory.join(format!("{UNFINISHED}{name}"));
    let path = directory.join(name);
    let mut file = create(&unfinished)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&unfinished, &path)?;
    // The new name is on disk only when the directory is.
    fs::File::open(directory)?.sync_all()?;
    Ok(path)
}

/// A new file that only its owner reads: a mail is a letter.
fn create(path: &Path) -> io::Result<fs::File> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// Removes all mails but the newest `keep`, and what unfinished writes left. Returns how many
/// mails went. Files of other names stay. A directory that is not there is empty.
///
/// # Errors
/// When the directory cannot be read or a file cannot be removed.
pub async fn prune(directory: &Path, keep: usize) -> io::Result<usize> {
    let directory = directory.to_owned();
    tokio::task::spawn_blocking(move || prune_now(&directory, keep))
        .await
        .unwrap_or_else(|error| Err(io::Error::other(error)))
}

fn prune_now(directory: &Path, keep: usize) -> io::Result<usize> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(error),
    };
    let mut mails = Vec::new();
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        if name.starts_with(UNFINISHED) {
            if is_forgotten(&entry) {
                remove(&entry.path())?;
            }
        } else if name.ends_with(SUFFIX) && name.starts_with(|c: char| c.is_ascii_digit()) {
            mails.push(name.to_owned());
        }
    }
    // The names begin with the time.
    mails.sort_unstable();
    let gone = mails.len().saturating_sub(keep);
    for name in &mails[..gone] {
        remove(&directory.join(name))?;
    }
    Ok(gone)
}

fn is_forgotten(entry: &fs::DirEntry) -> bool {
    let modified = entry.metadata().and_then(|data| data.modified());
    modified.is_ok_and(|at| {
        SystemTime::now()
            .duration_since(at)
            .is_ok_and(|age| FORGOTTEN < age)
    })
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        // Somebody tidied up by hand meanwhile.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_compact_in_a_name() {
        let at = Timestamp::parse("2026-11-24T18:42:07.123Z").unwrap();
        assert_eq!(compact(at), "20261124T184207Z");
    }

    #[tokio::test]
    async fn the_newest_mails_stay_and_so_does_what_is_not_ours() {
        let dir = tempfile::tempdir().unwrap();
        for name in [
            "20261101T000000Z-a-b.eml",
            "20261103T000000Z-a-b.eml",
            "20261102T000000Z-a-b.eml",
        ] {
            write(dir.path(), name, b"mail").unwrap();
        }
        for name in ["notes.txt", "kept.eml", ".unfinished-new"] {
            fs::write(dir.path().join(name), "x").unwrap();
        }
        assert_eq!(prune(dir.path(), 2).await.unwrap(), 1);
        assert_eq!(prune(dir.path(), 2).await.unwrap(), 0);
        let mut left: Vec<_> = fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort_unstable();
        assert_eq!(
            left,
            [
                ".unfinished-new",
                "20261102T000000Z-a-b.eml",
                "20261103T000000Z-a-b.eml",
                "kept.eml",
                "notes.txt"
            ]
        );
        assert_eq!(prune(&dir.path().join("absent"), 1).await.unwrap(), 0);
    }
}
