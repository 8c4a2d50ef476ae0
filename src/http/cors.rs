//! Pages of other origins: which of them may call the APIs, and what a preflight is answered.

use axum::Router;
use axum::extract::Request;
use axum::middleware::Next;
use axum::middleware::from_fn;
use axum::response::Response;
use http::HeaderValue;
use http::Method;
use http::StatusCode;
use http::header::ACCESS_CONTROL_REQUEST_METHOD;
use http::request::Parts;
use tower_http::cors::AllowHeaders;
use tower_http::cors::AllowOrigin;
use tower_http::cors::CorsLayer;

use crate::config::CorsSettings;

/// Lets pages of the configured origins call what is under `/api`.
pub fn with_cors(app: Router, settings: &CorsSettings) -> Router {
    let patterns = settings.origins.clone();
    let allowed = move |origin: &HeaderValue, parts: &Parts| {
        let origin = origin.to_str().unwrap_or_default();
        let api = parts.uri.path().starts_with("/api/");
        api && patterns.iter().any(|pattern| fits(pattern, origin))
    };
    let headers = if settings.allowed_headers.is_empty() {
        AllowHeaders::mirror_request()
    } else {
        AllowHeaders::list(settings.allowed_headers.clone())
    };
    let mut layer = CorsLayer::new()
        .allow_origin(AllowOrigin::predicate(allowed))
        .allow_methods(settings.methods.clone())
        .allow_headers(headers)
        .expose_headers(settings.exposed_headers.clone())
        .allow_credentials(settings.credentials);
    if let Some(age) = settings.max_age {
        layer = layer.max_age(age);
    }
    app.layer(layer).layer(from_fn(empty_preflight))
}

/// A preflight is answered 204, as in the peer; some caches in between insist on it.
async fn empty_preflight(request: Request, next: Next) -> Response {
    let preflight = request.method() == Method::OPTIONS
        && request
            .headers()
            .contains_key(ACCESS_CONTROL_REQUEST_METHOD);
    let mut response = next.run(request).await;
    if preflight && response.status() == StatusCode::OK {
        *response.status_mut() = StatusCode::NO_CONTENT;
    }
    response
}

/// Whether an origin fits a pattern, in which `*` stands for anything but a slash. `*` alone is
/// every origin.
fn fits(pattern: &str, origin: &str) -> bool {
    if pattern == "*" {
        return true;
    }
    let Some((head, rest)) = pattern.split_once('*') else {
        return pattern == origin;
    };
    let Some(left) = origin.strip_prefix(head) else {
        return false;
    };
    let within = left.find('/').unwrap_or(left.len());
    (0..=within)
        .filter(|end| left.is_char_boundary(*end))
        .any(|end| fits_rest(rest, &left[end..]))
}

/// The same, where a pattern of nothing but `*` no longer stands for slashes.
fn fits_rest(pattern: &str, origin: &str) -> bool {
    if pattern == "*" {
        return !origin.contains('/');
    }
    fits(pattern, origin)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_anything_within_a_name() {
        assert!(fits("https://a.example.com", "https://a.example.com"));
        assert!(!fits("https://a.example.com", "https://a.example.com.evil"));
        assert!(fits("https://*.example.com", "https://a.example.com"));
        assert!(!fits(
            "https://*.example.com",
            "https://evil.com/.example.com"
        ));
        assert!(!fits("https://*.example.com", "http://a.example.com"));
        assert!(fits("http://localhost:*", "http://localhost:3000"));
        assert!(fits("*://*.example.com", "https://a.example.com"));
        assert!(fits("*", "https://anything"));
    }
}
