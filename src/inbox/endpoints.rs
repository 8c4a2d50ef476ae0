//! Endpoints that fail, for operators: list them, enable one that was disabled.

use axum::Json;
use axum::extract::Path;
use axum::extract::State;
use serde_json::Value;
use serde_json::json;

use super::Parts;
use crate::http::Caller;
use crate::http::HttpError;

pub(super) async fn list(
    State(parts): State<Parts>,
    caller: Caller,
) -> Result<Json<Value>, HttpError> {
    caller.operator()?;
    let endpoints = parts.store.endpoints().await?;
    Ok(Json(json!({"endpoints": endpoints})))
}

/// Forgets that it failed: senders take it up again within seconds.
pub(super) async fn enable(
    State(parts): State<Parts>,
    caller: Caller,
    Path((channel, name)): Path<(String, String)>,
) -> Result<Json<Value>, HttpError> {
    caller.operator()?;
    let enabled = parts.store.endpoint_well(&channel, &name).await?;
    Ok(Json(json!({"enabled": enabled})))
}
