//! Opening the back end that the configuration names: one SQLite file, or RabbitMQ and
//! PostgreSQL. The only place that names either.

#[cfg(all(feature = "rabbitmq", feature = "postgres"))]
mod distributed;
#[cfg(feature = "sqlite")]
mod embedded;
#[cfg(not(all(feature = "rabbitmq", feature = "postgres", feature = "sqlite")))]
mod left_out;

use std::sync::Arc;

#[cfg(not(all(feature = "rabbitmq", feature = "postgres")))]
use self::left_out as distributed;
#[cfg(not(feature = "sqlite"))]
use self::left_out as embedded;
use super::Backend;
use super::Finding;
use super::Roles;
use super::Services;
use super::StartError;
use crate::config::Settings;
use crate::store::Store;
use crate::topology::QueueSpec;

/// Opens the back end. The distributed one need not be up: what is missing is said by `/readyz`
/// and waited for; the schema is brought up to date where this role may.
///
/// # Errors
/// What keeps it from opening.
pub(super) fn open(
    settings: &Settings,
    services: &Services,
    roles: &Roles,
) -> Result<Backend, StartError> {
    if is_distributed(settings) {
        distributed::open(settings, services, roles)
    } else {
        embedded::open(settings, services, roles)
    }
}

/// What there is, and whether these queues are; makes nothing.
pub(super) async fn look(settings: &Settings, queues: Vec<QueueSpec>) -> Vec<Finding> {
    if is_distributed(settings) {
        distributed::look(settings, queues).await
    } else {
        embedded::look(settings, queues).await
    }
}

/// The store alone, for a command; the file must not be in use.
///
/// # Errors
/// What keeps it from opening.
pub(super) fn store(settings: &Settings) -> Result<Arc<dyn Store>, StartError> {
    if is_distributed(settings) {
        distributed::store(settings)
    } else {
        embedded::store(settings)
    }
}

/// The same, with its schema up to date.
///
/// # Errors
/// What keeps it from opening, or from being brought up to date.
#[cfg(feature = "postgres")]
pub(super) async fn prepared(settings: &Settings) -> Result<Arc<dyn Store>, StartError> {
    if is_distributed(settings) {
        distributed::prepared(settings).await
    } else {
        embedded::store(settings)
    }
}

/// Brings the schema up to date and says what was done.
///
/// # Errors
/// What keeps it from being done.
pub(super) async fn migrate(settings: &Settings) -> Result<String, StartError> {
    if is_distributed(settings) {
        distributed::migrate(settings).await
    } else {
        embedded::migrate(settings).await
    }
}

/// `queue.url` and `store.url` come together; the configuration sees to that.
fn is_distributed(settings: &Settings) -> bool {
    settings.queue.is_some() && settings.store.is_some()
}
