//! Our public keys: for the plugins of a Backstage, without credentials (contract 8.4).

use axum::Json;
use axum::Router;
use axum::extract::State;
use axum::response::IntoResponse;
use axum::response::Response;
use axum::routing::get;

use super::HttpError;
use super::guard::KEYS;
use crate::auth::PluginKeys;

/// The keys, to be merged with other routes and wrapped by [`super::app`]. Both plugins show the
/// same: each of our keys may sign for either.
pub fn key_routes(keys: PluginKeys) -> Router {
    let mut routes = Router::new();
    for path in KEYS {
        routes = routes.route(path, get(show));
    }
    routes.with_state(keys)
}

async fn show(State(keys): State<PluginKeys>) -> Response {
    match keys.public().await {
        Ok(keys) => Json(keys).into_response(),
        Err(failure) => HttpError::unavailable(failure.detail).into_response(),
    }
}
