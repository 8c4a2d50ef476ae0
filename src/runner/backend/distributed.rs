//! The distributed back end: RabbitMQ and PostgreSQL.

use std::sync::Arc;
use std::time::Duration;

use crate::config::Settings;
use crate::queue::rabbitmq::RabbitQueue;
use crate::queue::rabbitmq::RabbitSettings;
use crate::runner::Backend;
use crate::runner::Roles;
use crate::runner::Services;
use crate::runner::StartError;
use crate::store::postgres::CONNECTIONS_DEFAULT;
use crate::store::postgres::PostgresStore;
use crate::topology;

/// Between two tries to bring the schema up to date.
const PREPARE_EVERY: Duration = Duration::from_secs(1);

pub(super) fn open(
    settings: &Settings,
    services: &Services,
    roles: &Roles,
    prepare: bool,
) -> Result<Backend, StartError> {
    let store = postgres(settings)?;
    let queue = rabbit(settings, services, roles)?;
    if prepare {
        tokio::spawn(prepare_when_there(store.clone()));
    }
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

fn rabbit(
    settings: &Settings,
    services: &Services,
    roles: &Roles,
) -> Result<RabbitSettings, StartError> {
    let queue = settings.queue.as_ref();
    let rabbit = RabbitSettings {
        url: queue.map(|queue| queue.url.clone()).unwrap_or_default(),
        prefix: queue.map(|queue| queue.prefix.clone()).unwrap_or_default(),
        queues: topology::queues(&services.sender_names()),
        steps: settings.steps(),
        name: format!("tidings {}", roles.describe()),
    };
    rabbit.check().map_err(|error| StartError {
        code: 3,
        ..StartError::new(
            error,
            "tidings.queue",
            "as in amqp://user:password@host:5672/vhost",
        )
    })?;
    Ok(rabbit)
}
