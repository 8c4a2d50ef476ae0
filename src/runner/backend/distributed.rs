//! The distributed back end: RabbitMQ and PostgreSQL.

use std::sync::Arc;
use std::time::Duration;

use crate::config::QueueSettings;
use crate::config::Settings;
use crate::config::StoreSettings;
use crate::queue::rabbitmq::RabbitQueue;
use crate::queue::rabbitmq::RabbitSettings;
use crate::queue::rabbitmq::probe;
use crate::runner::Backend;
use crate::runner::Finding;
use crate::runner::Roles;
use crate::runner::Services;
use crate::runner::StartError;
use crate::runner::look::within;
use crate::store::Store;
use crate::store::postgres::CONNECTIONS_DEFAULT;
use crate::store::postgres::PostgresStore;
use crate::topology::QueueSpec;

/// Between two tries to bring the schema up to date.
const PREPARE_EVERY: Duration = Duration::from_secs(1);

pub(super) fn open(
    settings: &Settings,
    services: &Services,
    roles: &Roles,
) -> Result<Backend, StartError> {
    let store = postgres(settings)?;
    let queue = rabbit(settings, services.queues(), &roles.describe());
    check(&queue)?;
    tokio::spawn(prepare_when_there(store.clone()));
    Ok(Backend {
        queue: RabbitQueue::start(queue),
        store: Arc::new(store),
        backup: None,
    })
}

/// Brings the schema up to date as soon as the database is there, if this role may; meanwhile
/// `/readyz` says what is missing.
async fn prepare_when_there(store: PostgresStore) {
    while store.prepare().await.is_err() {
        tokio::time::sleep(PREPARE_EVERY).await;
    }
}

pub(super) async fn migrate(settings: &Settings) -> Result<String, StartError> {
    let report = postgres(settings)?.migrate().await.map_err(|error| {
        StartError::new(
            error.to_string(),
            "tidings.store.url",
            "use a role that may create tables; see deploy/postgres",
        )
    })?;
    Ok(report.to_string())
}

/// The store alone.
pub(super) fn store(settings: &Settings) -> Result<Arc<dyn Store>, StartError> {
    Ok(Arc::new(postgres(settings)?))
}

/// The store alone, with its schema up to date.
pub(super) async fn prepared(settings: &Settings) -> Result<Arc<dyn Store>, StartError> {
    let store = postgres(settings)?;
    store.prepare().await.map_err(|error| {
        let place = settings.store.as_ref().map(StoreSettings::shown);
        let help = "use a role that may write all tables; see deploy/postgres";
        StartError::new(error.to_string(), place.unwrap_or_default(), help)
    })?;
    Ok(Arc::new(store))
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

/// What a process needs on the broker, under a name that the broker shows.
fn rabbit(settings: &Settings, queues: Vec<QueueSpec>, role: &str) -> RabbitSettings {
    let queue = settings.queue.as_ref();
    RabbitSettings {
        url: queue.map(|queue| queue.url.clone()).unwrap_or_default(),
        prefix: queue.map(|queue| queue.prefix.clone()).unwrap_or_default(),
        queues,
        steps: settings.steps(),
        name: format!("tidings {role}"),
    }
}

fn check(rabbit: &RabbitSettings) -> Result<(), StartError> {
    rabbit.check().map_err(|error| StartError {
        code: 3,
        ..StartError::new(
            error,
            "tidings.queue",
            "as in amqp://user:password@host:5672/vhost",
        )
    })
}

/// What is on the broker and in the database.
pub(super) async fn look(settings: &Settings, queues: Vec<QueueSpec>) -> Vec<Finding> {
    let (queue, store) = tokio::join!(look_at_queue(settings, queues), look_at_store(settings));
    let queue_at = settings.queue.as_ref().map(QueueSettings::shown);
    let store_at = settings.store.as_ref().map(StoreSettings::shown);
    vec![
        Finding::new("queue", queue_at.unwrap_or_default(), queue),
        Finding::new("store", store_at.unwrap_or_default(), store),
    ]
}

async fn look_at_queue(settings: &Settings, queues: Vec<QueueSpec>) -> Result<String, String> {
    let probe = within(probe(&rabbit(settings, queues, "check"))).await?;
    let all = probe.there + probe.missing.len();
    Ok(match (probe.there, probe.missing.first()) {
        (there, None) => format!("{there} queues, all there"),
        (0, _) => "no queues yet; the first process that may makes them".to_owned(),
        (there, Some(one)) => format!("{there} of {all} queues; `{one}` is missing"),
    })
}

async fn look_at_store(settings: &Settings) -> Result<String, String> {
    let postgres = postgres(settings).map_err(|error| error.message)?;
    within(postgres.describe()).await
}
