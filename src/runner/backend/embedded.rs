//! The embedded back end: one SQLite file.

use std::sync::Arc;

use crate::config::Settings;
use crate::inbox::Backup;
use crate::inbox::BackupFile;
use crate::queue::sqlite::SqliteQueue;
use crate::runner::Backend;
use crate::runner::Finding;
use crate::runner::Roles;
use crate::runner::Services;
use crate::runner::StartError;
use crate::sqlite::Sqlite;
use crate::sqlite::SqliteError;
use crate::store::Store;
use crate::store::StoreError;
use crate::store::sqlite::SqliteStore;
use crate::topology::QueueSpec;

pub(super) fn open(
    settings: &Settings,
    services: &Services,
    _: &Roles,
) -> Result<Backend, StartError> {
    let sqlite = open_file(settings)?;
    let queues = services.queues();
    Ok(Backend {
        backup: Some(backups(&sqlite, settings)),
        queue: Arc::new(SqliteQueue::new(Arc::clone(&sqlite), &queues)),
        store: Arc::new(SqliteStore::new(sqlite)),
    })
}

/// Opening is migrating.
pub(super) async fn migrate(settings: &Settings) -> Result<String, StartError> {
    open_file(settings)?;
    Ok(format!(
        "{}: the schema is up to date",
        settings.data.display()
    ))
}

/// The store alone.
pub(super) fn store(settings: &Settings) -> Result<Arc<dyn Store>, StartError> {
    Ok(Arc::new(SqliteStore::new(open_file(settings)?)))
}

/// What there is in the data directory.
pub(super) async fn look(settings: &Settings, _: Vec<QueueSpec>) -> Vec<Finding> {
    vec![look_at_file(settings)]
}

fn look_at_file(settings: &Settings) -> Finding {
    let asked = match Sqlite::look(&settings.data) {
        Ok(Some(bytes)) => Ok(format!("{} kB; not in use", bytes.div_ceil(1000))),
        Ok(None) => Ok("made at the first start".to_owned()),
        Err(SqliteError::InUse { holder, .. }) => {
            let process = holder.map_or_else(String::new, |pid| format!(" (process {pid})"));
            Ok(format!("in use by a running Tidings{process}"))
        }
        Err(error) => Err(error.to_string()),
    };
    Finding::new("data", settings.data.display().to_string(), asked)
}

fn open_file(settings: &Settings) -> Result<Arc<Sqlite>, StartError> {
    Sqlite::open(&settings.data).map_err(|error| {
        let place = settings.data.display().to_string();
        StartError::new(error.to_string(), place, error.help())
    })
}

/// Copies of the file go into a folder of the data directory, named by their time.
fn backups(sqlite: &Arc<Sqlite>, settings: &Settings) -> Backup {
    let (sqlite, folder) = (Arc::clone(sqlite), settings.data.join("backups"));
    // Whoever asks for a copy may stand somewhere else.
    let folder = std::path::absolute(&folder).unwrap_or(folder);
    Arc::new(move || {
        let (sqlite, folder) = (Arc::clone(&sqlite), folder.clone());
        Box::pin(async move {
            let away = |error: std::io::Error| {
                StoreError::Unavailable(format!("{}: {error}", folder.display()))
            };
            std::fs::create_dir_all(&folder).map_err(away)?;
            let time = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%S%3fZ");
            let file = folder.join(format!("tidings-{time}.sqlite"));
            sqlite.backup(&file).await?;
            let bytes = std::fs::metadata(&file).map_err(away)?.len();
            Ok(BackupFile { file, bytes })
        })
    })
}
