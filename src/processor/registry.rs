//! The processors that are built in, and how the configuration makes them.

use std::path::PathBuf;
use std::sync::Arc;

use url::Url;

use crate::catalog::Catalog;

/// What a processor may be given when it is made.
#[derive(Clone)]
pub struct Services {
    /// Who belongs to whom, and how to reach them.
    pub catalog: Arc<dyn Catalog>,
    /// `app.baseUrl`: where links lead.
    pub app_base_url: Url,
    /// `tidings.data`: where it may keep files.
    pub data: PathBuf,
    /// Development mode: nothing needs to be configured.
    pub development: bool,
    /// One process on one file: what would need a service of its own may use a folder instead.
    pub embedded: bool,
}
