//! Signals to open pages: the peer's WebSocket, and a stream of server-sent events of our own.
//! They come from the queue, and from the events bus of a Backstage where there is one.
//!
//! A hint only: REST is the truth. Whoever may have missed one is told to reload: its stream ends
//! with `reload`, its socket closes with 1012, and the page comes back. Every page has a bounded
//! buffer; one that does not read loses its place and nobody else's.

#[cfg(feature = "backstage")]
mod bus;
mod handshake;
mod hub;
mod socket;
mod stream;

use axum::Json;
use axum::Router;
use axum::routing::any;
use axum::routing::get;
use serde_json::Value;
use serde_json::json;

#[cfg(feature = "backstage")]
pub use self::bus::Bus;
pub use self::hub::Hub;
pub use self::stream::events;

use crate::auth::Auth;

/// What the signal routes work with.
#[derive(Clone)]
struct Parts {
    hub: Hub,
    auth: Auth,
}

/// `/api/signals` as the peer has it, and `/api/tidings/v1/stream`.
pub fn routes(hub: Hub, auth: Auth) -> Router {
    Router::new()
        .route("/api/signals", any(handshake::connect))
        .route("/api/signals/health", get(healthy))
        .route("/api/tidings/v1/stream", get(stream::stream))
        .with_state(Parts { hub, auth })
}

/// `GET /api/signals/health`, as the peer has it.
async fn healthy() -> Json<Value> {
    Json(json!({"status": "ok"}))
}
