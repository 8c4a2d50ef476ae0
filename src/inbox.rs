//! The reading side: people's inboxes as the peer serves them, and what operators look at.
//!
//! Under `/api/notifications` stands only what the peer has; ours is under `/api/tidings/v1`.
//! Reads and marks go straight to the store; marks are signalled to the person's other pages.

mod backup;
mod channels;
mod dead;
mod endpoints;
mod operate;
mod query;
mod rest;
pub mod settings;
mod submissions;
mod tokens;

use std::sync::Arc;

use axum::Router;
use axum::routing::delete;
use axum::routing::get;
use axum::routing::post;
use bytes::Bytes;

pub use self::backup::Backup;
pub use self::backup::BackupFile;
pub use self::channels::Processor;

use crate::auth::Auth;
use crate::catalog::Catalog;
use crate::queue::Queue;
use crate::settings::Switchboard;
use crate::signal::Signal;
use crate::store::Store;
use crate::telemetry::Readiness;

/// What the inbox works with.
#[derive(Clone)]
pub struct InboxParts {
    /// What is kept.
    pub store: Arc<dyn Store>,
    /// Where signals are announced, and where dead letters go when they are replayed.
    pub queue: Arc<dyn Queue>,
    /// For suggestions when a ref is unknown.
    pub catalog: Arc<dyn Catalog>,
    /// Whose copy of the tokens is refreshed when the table changes.
    pub auth: Auth,
    /// What this process misses, for `status`.
    pub readiness: Readiness,
    /// What people may switch on and off.
    pub board: Switchboard,
    /// What is configured, for `processors`.
    pub processors: Arc<Vec<Processor>>,
    /// Saves a copy of everything; `None` where the store is a server with tools of its own.
    pub backup: Option<Backup>,
}

impl InboxParts {
    /// Tells the pages of `user` what changed. May be lost.
    pub(crate) async fn signal(&self, signal: &Signal) {
        match serde_json::to_vec(signal) {
            Ok(body) => self.queue.announce(Bytes::from(body)).await,
            Err(error) => tracing::warn!(%error, "a signal that cannot be written"),
        }
    }
}

/// All routes of the inbox, to be merged with others and wrapped by [`crate::http::app`].
pub fn routes(parts: InboxParts) -> Router {
    peer().merge(ours()).with_state(Arc::new(parts))
}

type Parts = Arc<InboxParts>;

fn peer() -> Router<Parts> {
    Router::new()
        .route("/api/notifications", get(rest::list))
        .route("/api/notifications/notifications", get(rest::list))
        .route("/api/notifications/notifications/{id}", get(rest::one))
        .route("/api/notifications/{id}", get(rest::one))
        .route("/api/notifications/status", get(rest::status))
        .route("/api/notifications/topics", get(rest::topics))
        .route(
            "/api/notifications/settings",
            get(settings::get).post(settings::post),
        )
        .route("/api/notifications/openapi.json", get(rest::openapi))
        .route("/api/notifications/update", post(rest::update))
        .route(
            "/api/notifications/notifications/update",
            post(rest::update),
        )
}

fn ours() -> Router<Parts> {
    const V1: &str = "/api/tidings/v1";
    let at = |path: &str| format!("{V1}/{path}");
    Router::new()
        .route(&at("mark-all-read"), post(rest::mark_all_read))
        .route(&at("inbox"), get(operate::inbox))
        .route(&at("status"), get(operate::status))
        .route(&at("endpoints"), get(endpoints::list))
        .route(&at("endpoints/{channel}/{name}"), delete(endpoints::enable))
        .route(&at("submissions"), get(submissions::by_key))
        .route(&at("submissions/{id}"), get(submissions::by_id))
        .route(&at("dead-letters"), get(dead::list))
        .route(&at("dead-letters/{id}"), get(dead::show))
        .route(&at("dead-letters/replay"), post(dead::replay))
        .route(&at("dead-letters/discard"), post(dead::discard))
        .route(&at("tokens"), get(tokens::list).post(tokens::create))
        .route(&at("tokens/{hash}"), delete(tokens::revoke))
        .route(&at("backup"), post(backup::take))
        .route(&at("processors"), get(channels::processors))
        .route(&at("channels/{name}/pause"), post(channels::pause))
        .route(&at("channels/{name}/resume"), post(channels::resume))
}
