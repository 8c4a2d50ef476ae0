//! Opening the back end that the configuration names: one SQLite file, or RabbitMQ and
//! PostgreSQL. The only place that names either.

#[cfg(all(feature = "rabbitmq", feature = "postgres"))]
mod distributed;
#[cfg(feature = "sqlite")]
mod embedded;

use std::sync::Arc;

use super::Backend;
use super::Finding;
use super::Roles;
use super::Services;
use super::StartError;
use crate::config::Settings;
use crate::store::Store;

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
        #[cfg(all(feature = "rabbitmq", feature = "postgres"))]
        return distributed::open(settings, services, roles);
    } else {
        #[cfg(feature = "sqlite")]
        return embedded::open(settings, services);
    }
    #[expect(
        unreachable_code,
        reason = "unless a back end was left out of the build"
    )]
    {
        let _ = (services, roles);
        Err(left_out())
    }
}

/// What there is, for senders of these names; makes nothing.
pub(super) async fn look(settings: &Settings, senders: &[String]) -> Vec<Finding> {
    if is_distributed(settings) {
        #[cfg(all(feature = "rabbitmq", feature = "postgres"))]
        return distributed::look(settings, senders).await;
    } else {
        #[cfg(feature = "sqlite")]
        return vec![embedded::look(settings)];
    }
    #[expect(
        unreachable_code,
        reason = "unless a back end was left out of the build"
    )]
    {
        let _ = senders;
        let place = settings.data.display().to_string();
        vec![Finding::new("data", place, Err(left_out().message))]
    }
}

/// The store alone, for a command; the file must not be in use.
///
/// # Errors
/// What keeps it from opening.
pub(super) fn store(settings: &Settings) -> Result<Arc<dyn Store>, StartError> {
    if is_distributed(settings) {
        #[cfg(all(feature = "rabbitmq", feature = "postgres"))]
        return Ok(Arc::new(distributed::postgres(settings)?));
    } else {
        #[cfg(feature = "sqlite")]
        return embedded::store(settings);
    }
    #[expect(
        unreachable_code,
        reason = "unless a back end was left out of the build"
    )]
    Err(left_out())
}

/// Brings the schema up to date and says what was done.
///
/// # Errors
/// What keeps it from being done.
pub(super) async fn migrate(settings: &Settings) -> Result<String, StartError> {
    if is_distributed(settings) {
        #[cfg(all(feature = "rabbitmq", feature = "postgres"))]
        return distributed::migrate(settings).await;
    } else {
        #[cfg(feature = "sqlite")]
        return embedded::migrate(settings);
    }
    #[expect(
        unreachable_code,
        reason = "unless a back end was left out of the build"
    )]
    Err(left_out())
}

/// `queue.url` and `store.url` come together; the configuration sees to that.
fn is_distributed(settings: &Settings) -> bool {
    settings.queue.is_some() && settings.store.is_some()
}

fn left_out() -> StartError {
    StartError::new(
        "this program was built without the back end that is configured",
        "tidings.store.url",
        "build it with the features sqlite, or rabbitmq and postgres",
    )
}
