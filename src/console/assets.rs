//! The page's own style, script and icon, from the binary.

use axum::extract::Path;
use axum::response::IntoResponse;
use axum::response::Response;
use http::StatusCode;
use http::header::CACHE_CONTROL;
use http::header::CONTENT_TYPE;

/// Sent with every address, so that a new version's files are fetched anew.
const VERSION: &str = env!("CARGO_PKG_VERSION");

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");
const ICON: &str = include_str!("icon.svg");

/// The address of an asset.
pub(super) fn href(name: &str) -> String {
    format!("/assets/{name}?{VERSION}")
}

/// `GET /assets/{name}`
pub(super) async fn serve(Path(name): Path<String>) -> Response {
    let (kind, text) = match name.as_str() {
        "page.css" => ("text/css; charset=utf-8", STYLE),
        "page.js" => ("text/javascript; charset=utf-8", SCRIPT),
        "icon.svg" => ("image/svg+xml", ICON),
        _ => return StatusCode::NOT_FOUND.into_response(),
    };
    let cache = if cfg!(debug_assertions) {
        "no-cache"
    } else {
        "public, max-age=86400"
    };
    ([(CONTENT_TYPE, kind), (CACHE_CONTROL, cache)], text).into_response()
}
