//! A copy of everything while it runs, where the store is a file of our own.

use std::path::PathBuf;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use futures::future::BoxFuture;
use serde::Serialize;

use super::Parts;
use crate::http::Caller;
use crate::http::HttpError;
use crate::store::StoreError;

/// A copy that was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BackupFile {
    /// Where it lies, on the server.
    pub file: PathBuf,
    /// How large it is.
    pub bytes: u64,
}

/// Makes a copy at a place of its own choosing: callers cannot write where they like.
pub type Backup = Arc<dyn Fn() -> BoxFuture<'static, Result<BackupFile, StoreError>> + Send + Sync>;

pub(super) async fn take(
    State(parts): State<Parts>,
    caller: Caller,
) -> Result<Json<BackupFile>, HttpError> {
    caller.operator()?;
    let Some(backup) = &parts.backup else {
        return Err(HttpError::not_implemented(
            "the store is PostgreSQL: back it up with pg_dump or your provider's tools",
        ));
    };
    Ok(Json(backup().await?))
}
