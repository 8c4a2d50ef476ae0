//! The catalog kept in YAML files: users and groups as Backstage writes them.
//!
//! The files are looked at whenever somebody asks, and read again when they were saved. A broken
//! save changes nothing: the last good version stays in use, and a warning and
//! [`Catalog::describe`] say which line to mend.

mod entities;

use std::collections::BTreeSet;
use std::fs::Metadata;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::SystemTime;

use async_trait::async_trait;

use self::entities::Entities;
use crate::catalog::Catalog;
use crate::catalog::CatalogUser;
use crate::catalog::Counts;
use crate::catalog::Entity;
use crate::failure::Failure;
use crate::failure::Reason;

/// A fault in a catalog file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct FileError {
    /// Which file.
    pub file: PathBuf,
    /// Line and column, from 1, where there is one.
    pub place: Option<(usize, usize)>,
    /// What is wrong and what would be right.
    pub message: String,
}

impl FileError {
    /// `file:line:column`.
    pub fn at(&self) -> String {
        let file = self.file.display();
        match self.place {
            Some((line, column)) => format!("{file}:{line}:{column}"),
            None => file.to_string(),
        }
    }
}

/// A catalog of YAML files. Cheap to share behind an `Arc`.
#[derive(Debug)]
pub struct FileCatalog {
    files: Vec<PathBuf>,
    current: Mutex<Arc<Version>>,
    /// One reader at a time; whoever finds the files changed meanwhile waits for what is read.
    reading: tokio::sync::Mutex<()>,
}

/// What the files said when they were last read well, and what they look like now.
#[derive(Debug)]
struct Version {
    entities: Arc<Entities>,
    stamps: Vec<Option<Stamp>>,
    trouble: Option<FileError>,
}

/// What changes when a file is saved, whether it is overwritten or replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    modified: Option<SystemTime>,
    bytes: u64,
    inode: u64,
}

impl FileCatalog {
    /// Reads the files. None is allowed, and then the catalog is empty.
    ///
    /// # Errors
    /// Names the file that is missing or broken, with the line.
    pub fn open(files: Vec<PathBuf>) -> Result<Self, FileError> {
        // The stamps come first: a save between the two is then read again.
        let stamps = stamps(&files);
        let entities = Arc::new(read(&files)?);
        Ok(Self {
            files,
            current: Mutex::new(Arc::new(Version {
                entities,
                stamps,
                trouble: None,
            })),
            reading: tokio::sync::Mutex::new(()),
        })
    }

    /// The entities of now.
    async fn entities_now(&self) -> Result<Arc<Entities>, Failure> {
        Ok(Arc::clone(&self.look().await?.entities))
    }

    /// The version of now: reads the files again if they were saved since.
    async fn look(&self) -> Result<Arc<Version>, Failure> {
        if let Some(version) = self.unchanged() {
            return Ok(version);
        }
        let _reading = self.reading.lock().await;
        if let Some(version) = self.unchanged() {
            return Ok(version);
        }
        let stamps = stamps(&self.files);
        let files = self.files.clone();
        let read = tokio::task::spawn_blocking(move || read(&files))
            .await
            .map_err(|_| Failure::dependency(Reason::Internal, "reading the catalog broke off"))?;
        let before = Arc::clone(&self.lock());
        let version = Arc::new(
            match read.and_then(|read| self.refuse_empty(&before, read)) {
                Ok(entities) => {
                    let (users, groups) = entities.counts();
                    tracing::info!(users, groups, "the catalog files were read again");
                    Version {
                        entities: Arc::new(entities),
                        stamps,
                        trouble: None,
                    }
                }
                Err(trouble) => {
                    tracing::warn!(
                        file = %trouble.at(),
                        "the catalog was not read again, its last good version stays in use: {trouble}"
                    );
                    Version {
                        entities: Arc::clone(&before.entities),
                        stamps,
                        trouble: Some(trouble),
                    }
                }
            },
        );
        *self.lock() = Arc::clone(&version);
        Ok(version)
    }

    /// Many editors empty a file before they write it: nobody must be lost in between.
    fn refuse_empty(&self, before: &Version, now: Entities) -> Result<Entities, FileError> {
        match self.files.first() {
            Some(file) if now.is_empty() && !before.entities.is_empty() => Err(FileError {
                file: file.clone(),
                place: None,
                message: "it holds nobody any more; if that is meant, start anew".to_owned(),
            }),
            _ => Ok(now),
        }
    }

    fn unchanged(&self) -> Option<Arc<Version>> {
        let version = Arc::clone(&self.lock());
        (version.stamps == stamps(&self.files)).then_some(version)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Arc<Version>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Catalog for FileCatalog {
    async fn entities(&self, refs: &[String]) -> Result<Vec<Entity>, Failure> {
        let entities = self.entities_now().await?;
        let found = refs.iter().filter_map(|one| entities.entity(one));
        Ok(found.cloned().collect())
    }

    async fn people(&self, refs: &[String]) -> Result<Vec<Option<CatalogUser>>, Failure> {
        let entities = self.entities_now().await?;
        Ok(refs
            .iter()
            .map(|one| entities.person(one).cloned())
            .collect())
    }

    async fn addresses(&self) -> Result<Vec<String>, Failure> {
        let entities = self.entities_now().await?;
        let emails = entities.people().filter_map(|one| one.email.clone());
        Ok(emails.collect::<BTreeSet<_>>().into_iter().collect())
    }

    async fn refs(&self) -> Option<Vec<String>> {
        let entities = self.entities_now().await.ok()?;
        Some(entities.refs())
    }

    async fn describe(&self) -> Result<String, Failure> {
        let version = self.look().await?;
        let counts = Counts(version.entities.counts());
        Ok(match &version.trouble {
            None => counts.to_string(),
            Some(trouble) => format!(
                "{counts}, as before the last save, which is broken: {}: {trouble}",
                trouble.at()
            ),
        })
    }
}

fn stamps(files: &[PathBuf]) -> Vec<Option<Stamp>> {
    let stamp = |file: &PathBuf| {
        let metadata = std::fs::metadata(file).ok()?;
        Some(Stamp {
            modified: metadata.modified().ok(),
            bytes: metadata.len(),
            inode: inode(&metadata),
        })
    };
    files.iter().map(stamp).collect()
}

#[cfg(unix)]
fn inode(metadata: &Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::ino(metadata)
}

#[cfg(not(unix))]
fn inode(_: &Metadata) -> u64 {
    0
}

fn read(files: &[PathBuf]) -> Result<Entities, FileError> {
    let mut texts: Vec<(&Path, String)> = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(file).map_err(|error| FileError {
            file: file.clone(),
            place: None,
            message: format!("the catalog file cannot be read: {error}"),
        })?;
        texts.push((file, text));
    }
    Entities::parse(&texts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    const PEOPLE: &str = "\
kind: User
metadata: {name: Guest, namespace: development, annotations: {slack.com/user-id: U1}}
spec: {profile: {displayName: Guest, email: guest@example.com}, memberOf: [team]}
---
kind: Group
metadata: {name: team, namespace: development}
spec: {type: team, children: []}
";

    fn catalog(text: &str) -> (tempfile::TempDir, PathBuf, FileCatalog) {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("people.yaml");
        fs::write(&file, text).unwrap();
        let catalog = FileCatalog::open(vec![file.clone()]).unwrap();
        (dir, file, catalog)
    }

    /// Saves as most editors do: a new file takes the place of the old one.
    fn save(file: &Path, text: &str) {
        let new = file.with_extension("new");
        fs::write(&new, text).unwrap();
        fs::rename(new, file).unwrap();
    }

    #[tokio::test]
    async fn people_and_entities_are_found_without_case_and_in_the_order_asked() {
        let (_dir, _, catalog) = catalog(PEOPLE);
        let refs = ["user:x", "User:Development/GUEST", "nonsense"].map(str::to_owned);
        let people = catalog.people(&refs).await.unwrap();
        let guest = people[1].as_ref().unwrap();
        assert_eq!(guest.reference, "user:development/guest");
        assert_eq!(guest.email.as_deref(), Some("guest@example.com"));
        assert_eq!(guest.display_name.as_deref(), Some("Guest"));
        assert_eq!(guest.annotations["slack.com/user-id"], "U1");
        assert_eq!((&people[0], &people[2]), (&None, &None));
        let groups = ["Group:development/Team".to_owned()];
        let found = catalog.entities(&groups).await.unwrap();
        assert_eq!(found[0].relations[0].target_ref, "user:development/guest");
        assert_eq!(catalog.addresses().await.unwrap(), ["guest@example.com"]);
        assert_eq!(catalog.describe().await.unwrap(), "1 user, 1 group");
        assert_eq!(
            catalog.refs().await.unwrap(),
            ["group:development/team", "user:development/guest"]
        );
    }

    #[tokio::test]
    async fn a_save_is_read_at_the_next_question() {
        let (_dir, file, catalog) = catalog(PEOPLE);
        save(&file, "kind: User\nmetadata: {name: other}\n");
        assert_eq!(catalog.describe().await.unwrap(), "1 user");
        save(&file, PEOPLE);
        assert_eq!(catalog.describe().await.unwrap(), "1 user, 1 group");
    }

    #[tokio::test]
    async fn a_broken_save_keeps_the_last_good_version_and_says_which_line() {
        let (_dir, file, catalog) = catalog(PEOPLE);
        for (broken, place) in [
            ("kind: User\nmetadata: {name: a\n", "people.yaml:3:1"),
            ("kind: User\n\nmetadata: {}\n", "people.yaml:3:11"),
            ("", "people.yaml: it holds nobody"),
        ] {
            save(&file, broken);
            let described = catalog.describe().await.unwrap();
            assert!(described.starts_with("1 user, 1 group, as before"));
            assert!(described.contains(place), "{described}");
            let guest = ["user:development/guest".to_owned()];
            assert!(catalog.people(&guest).await.unwrap()[0].is_some());
        }
        fs::remove_file(&file).unwrap();
        let described = catalog.describe().await.unwrap();
        assert!(described.contains("cannot be read"), "{described}");
        save(&file, "kind: User\nmetadata: {name: other}\n");
        assert_eq!(catalog.describe().await.unwrap(), "1 user");
    }

    #[test]
    fn a_missing_file_is_an_error_that_names_it() {
        let error = FileCatalog::open(vec!["/nowhere/people.yaml".into()]).unwrap_err();
        assert_eq!(error.at(), "/nowhere/people.yaml");
        assert!(error.message.contains("No such file"));
    }
}
