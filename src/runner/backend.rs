//! Opening the back end that the configuration names: one SQLite file, or RabbitMQ and
//! PostgreSQL.

use std::sync::Arc;
use std::time::Duration;

use super::Backend;
use super::Roles;
use super::Services;
use super::StartError;
use crate::config::Settings;
use crate::inbox::Backup;
use crate::inbox::BackupFile;
use crate::queue::rabbitmq::RabbitQueue;
use crate::queue::rabbitmq::RabbitSettings;
use crate::queue::sqlite::SqliteQueue;
use crate::sqlite::Sqlite;
use crate::store::StoreError;
use crate::store::postgres::CONNECTIONS_DEFAULT;
use crate::store::postgres::PostgresStore;
use crate::store::sqlite::SqliteStore;
use crate::topology;

/// Opens the back end. The distributed one need not be up: what is missing is said by `/readyz`
/// and waited for.
///
/// # Errors
/// What keeps it from opening.
pub(super) async fn open(
    settings: &Settings,
    services: &Services,
    roles: &Roles,
) -> Result<Backend, StartError> {
    let queues = topology::queues(&services.sender_names());
    let steps = settings.steps();
    let (Some(queue), Some(_)) = (&settings.queue, &settings.store) else {
        let sqlite = open_file(settings)?;
        return Ok(Backend {
            backup: Some(backups(&sqlite, settings)),
            queue: Arc::new(SqliteQueue::new(Arc::clone(&sqlite), &queues)),
            store: Arc::new(SqliteStore::new(sqlite)),
        });
    };
    let rabbit = RabbitQueue::start(RabbitSettings {
        url: queue.url.clone(),
        prefix: queue.prefix.clone(),
        queues,
        steps,
        name: format!("tidings {}", roles.describe()),
    });
    let postgres = postgres(settings)?;
    tokio::spawn(prepare(postgres.clone()));
    Ok(Backend {
        queue: rabbit,
        store: Arc::new(postgres),
        backup: None,
    })
}

/// Between two tries to bring the schema up to date.
const PREPARE_EVERY: Duration = Duration::from_secs(1);

/// Brings the schema up to date as soon as the database is there, if this role may; meanwhile
/// `/readyz` says what is missing.
async fn prepare(postgres: PostgresStore) {
    while postgres.prepare().await.is_err() {
        tokio::time::sleep(PREPARE_EVERY).await;
    }
}

fn postgres(settings: &Settings) -> Result<PostgresStore, StartError> {
    let store = settings.store.as_ref();
    let url = store.map_or("", |store| store.url.as_str());
    let pool = store
        .and_then(|store| store.pool)
        .unwrap_or(CONNECTIONS_DEFAULT);
    PostgresStore::connect_with(url, pool).map_err(|error| StartError {
        code: 3,
        ..StartError::new(
            error.to_string(),
            "tidings.store.url",
            "as in postgres://user:password@host:5432/database",
        )
    })
}

/// Brings the schema up to date and says what was done.
///
/// # Errors
/// What keeps it from being done.
pub(super) async fn migrate(settings: &Settings) -> Result<String, StartError> {
    if settings.store.is_none() {
        open_file(settings)?;
        return Ok(format!(
            "{}: the schema is up to date",
            settings.data.display()
        ));
    }
    let report = postgres(settings)?.migrate().await.map_err(|error| {
        StartError::new(
            error.to_string(),
            "tidings.store.url",
            "use a role that may create tables; see deploy/postgres",
        )
    })?;
    Ok(report.to_string())
}

fn open_file(settings: &Settings) -> Result<Arc<Sqlite>, StartError> {
    Sqlite::open(&settings.data).map_err(|error| {
        StartError::new(
            error.to_string(),
            settings.data.display().to_string(),
            error.help(),
        )
    })
}

/// Copies of the file go into a folder of the data directory, named by their time.
fn backups(sqlite: &Arc<Sqlite>, settings: &Settings) -> Backup {
    let (sqlite, folder) = (Arc::clone(sqlite), settings.data.join("backups"));
    Arc::new(move || {
        let (sqlite, folder) = (Arc::clone(&sqlite), folder.clone());
        Box::pin(async move {
            let away = |error: std::io::Error| {
                StoreError::Unavailable(format!("{}: {error}", folder.display()))
            };
            std::fs::create_dir_all(&folder).map_err(away)?;
            let time = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%S%3fZ");
            let file = folder.join(format!("tidings-{time}.sqlite"));
            sqlite
                .backup(&file)
                .await
                .map_err(|error| StoreError::Unavailable(error.to_string()))?;
            let bytes = std::fs::metadata(&file).map_err(away)?.len();
            Ok(BackupFile { file, bytes })
        })
    })
}
