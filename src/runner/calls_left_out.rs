//! In place of calls to a Backstage, where the feature `backstage` is left out.

use std::sync::Arc;

use super::StartError;
use crate::catalog::Catalog;
use crate::config::Settings;
use crate::failure::Failure;

/// There are none.
#[derive(Clone, Debug)]
pub enum Calls {}

impl Calls {
    pub(super) fn of(_: &Settings) -> Result<Option<Self>, StartError> {
        Ok(None)
    }
}

pub(super) fn catalog(_: &Settings, _: Option<&Calls>) -> Result<Arc<dyn Catalog>, StartError> {
    Err(StartError::new(
        "this build cannot ask the catalog of Backstage",
        "tidings.catalog.source",
        "build it with the feature `backstage`",
    ))
}

pub(super) fn place(_: Option<&Calls>) -> String {
    String::new()
}

pub(super) async fn ask(_: Option<&Calls>, catalog: &Arc<dyn Catalog>) -> Result<String, Failure> {
    catalog.describe().await
}
