//! Health and metrics: for orchestrators and scrapers, without credentials, on a port that is
//! not for the public.

use std::collections::BTreeMap;

use axum::Json;
use axum::Router;
use axum::extract::State;
use axum::response::IntoResponse;
use axum::response::Response;
use axum::routing::get;
use http::StatusCode;
use http::header::CONTENT_TYPE;
use metrics_exporter_prometheus::PrometheusHandle;
use serde_json::json;

use crate::telemetry::Readiness;

/// `/healthz` (alive), `/readyz` (which dependency is missing) and `/metrics`.
pub fn admin_routes(readiness: Readiness, metrics: PrometheusHandle) -> Router {
    Router::new()
        .route("/healthz", get(healthy))
        .route("/readyz", get(ready).with_state(readiness))
        .route("/metrics", get(render).with_state(metrics))
}

async fn healthy() -> Response {
    Json(json!({"status": "ok"})).into_response()
}

async fn ready(State(readiness): State<Readiness>) -> Response {
    let missing: BTreeMap<String, String> = readiness.troubles();
    let degraded = readiness.notes();
    if missing.is_empty() && degraded.is_empty() {
        return Json(json!({"status": "ready"})).into_response();
    }
    if missing.is_empty() {
        return Json(json!({"status": "ready", "degraded": degraded})).into_response();
    }
    let body = json!({"status": "not ready", "missing": missing});
    (StatusCode::SERVICE_UNAVAILABLE, Json(body)).into_response()
}

async fn render(State(metrics): State<PrometheusHandle>) -> Response {
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    ([(CONTENT_TYPE, kind)], metrics.render()).into_response()
}
