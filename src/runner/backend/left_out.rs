//! Stands where a back end was left out of the build.

use std::sync::Arc;

use crate::config::Settings;
use crate::runner::Backend;
use crate::runner::Finding;
use crate::runner::Roles;
use crate::runner::Services;
use crate::runner::StartError;
use crate::store::Store;
use crate::topology::QueueSpec;

pub(super) fn open(_: &Settings, _: &Services, _: &Roles) -> Result<Backend, StartError> {
    Err(left_out())
}

pub(super) async fn look(settings: &Settings, _: Vec<QueueSpec>) -> Vec<Finding> {
    let place = settings.data.display().to_string();
    vec![Finding::new("back end", place, Err(left_out().message))]
}

pub(super) fn store(_: &Settings) -> Result<Arc<dyn Store>, StartError> {
    Err(left_out())
}

#[cfg(all(feature = "postgres", not(feature = "rabbitmq")))]
pub(super) async fn prepared(_: &Settings) -> Result<Arc<dyn Store>, StartError> {
    Err(left_out())
}

pub(super) async fn migrate(_: &Settings) -> Result<String, StartError> {
    Err(left_out())
}

fn left_out() -> StartError {
    StartError::new(
        "this program was built without the back end that is configured",
        "tidings.store.url",
        "build it with the features sqlite, or rabbitmq and postgres",
    )
}
