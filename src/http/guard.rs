//! What every request passes: its id, its path's form, its caller, and the shape of a refusal.

use std::time::Instant;

use axum::Router;
use axum::extract::Request;
use axum::extract::State;
use axum::middleware::Next;
use axum::middleware::from_fn_with_state;
use axum::response::IntoResponse;
use axum::response::Response;
use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use http::Method;
use http::StatusCode;
use http::Uri;
use http::header::CACHE_CONTROL;
use http::header::CONNECTION;
use http::header::UPGRADE;
use http::header::X_CONTENT_TYPE_OPTIONS;
use http::uri::PathAndQuery;
use tracing::Instrument as _;
use uuid::Uuid;

use super::Caller;
use super::HttpError;
use crate::auth::Auth;
use crate::auth::Plugin;

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Longest request id that is taken over from the caller.
const REQUEST_ID_BYTES_MAX: usize = 128;

/// Where an API begins; errors name the path below.
const MOUNTS: [&str; 3] = ["/api/notifications", "/api/tidings/v1", SIGNALS];

/// The API of signals, and its socket: an upgrade must name exactly this path.
const SIGNALS: &str = "/api/signals";

/// The one path of the API of signals that needs no credentials.
const SIGNALS_HEALTH: &str = "/api/signals/health";

/// Where our public keys are, without credentials: they are for everybody.
pub(super) const KEYS: [&str; 2] = [
    "/api/notifications/.backstage/auth/v1/jwks.json",
    "/api/signals/.backstage/auth/v1/jwks.json",
];

/// Wraps the roles' routes: nobody under `/api` passes without credentials (signals have a
/// handshake of their own), paths match without case and with a trailing slash, what is not
/// routed is an empty 404, and refusals have the peer's shape.
pub fn app(routes: Router, auth: &Auth) -> Router {
    let routes = routes
        .fallback(nothing_here)
        .method_not_allowed_fallback(nothing_here);
    // The outer router has no routes: its layer sees a request before the inner one routes it.
    Router::new()
        .fallback_service(routes)
        .layer(from_fn_with_state(auth.clone(), guard))
}

async fn nothing_here() -> StatusCode {
    StatusCode::NOT_FOUND
}

/// Whether these headers ask for a WebSocket.
pub fn asks_for_socket(headers: &HeaderMap) -> bool {
    let names = |header, wanted: &str| {
        headers
            .get_all(header)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .any(|word| word.trim().eq_ignore_ascii_case(wanted))
    };
    names(UPGRADE, "websocket") && names(CONNECTION, "upgrade")
}

async fn guard(State(auth): State<Auth>, mut request: Request, next: Next) -> Response {
    let id = request_id(request.headers());
    let method = request.method().clone();
    let original = request.uri().clone();
    let mount = mount(original.path());
    if let Some(uri) = normal(&original) {
        *request.uri_mut() = uri;
    }
    // Of paths outside the API some are secrets (a login code), so they are not logged.
    let path = if mount.is_some() {
        request.uri().path().to_owned()
    } else {
        "(page)".to_owned()
    };
    let span = tracing::info_span!("request", id = id.to_str().unwrap_or("-"), %method, path);
    let started = Instant::now();
    let socket = asks_for_socket(request.headers());
    let mut response = async {
        if socket {
            // The handshake asks for credentials itself. Elsewhere there is no socket, for nobody.
            if original.path() == SIGNALS {
                return next.run(request).await;
            }
            return (StatusCode::NOT_FOUND, [(CONNECTION, "close")]).into_response();
        }
        match identify(&auth, &mut request).await {
            Ok(()) => next.run(request).await,
            Err(error) => error.into_response(),
        }
    }
    .instrument(span.clone())
    .await;
    if let Some(error) = response.extensions_mut().remove::<HttpError>() {
        response = error.render(method.as_str(), &relative(&original, mount));
    }
    finish(&mut response, &id, mount.is_some());
    let status = response.status().as_u16();
    let ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    span.in_scope(|| tracing::debug!(status, ms, "answered"));
    response
}

/// Notes who is calling in the request, or says why it may not pass.
async fn identify(auth: &Auth, request: &mut Request) -> Result<(), HttpError> {
    let path = request.uri().path();
    let open = (path == SIGNALS_HEALTH || KEYS.contains(&path))
        && matches!(*request.method(), Method::GET | Method::HEAD);
    if !path.starts_with("/api/") || open {
        return Ok(());
    }
    let plugin = match mount(path) {
        Some(SIGNALS) => Plugin::Signals,
        _ => Plugin::Notifications,
    };
    let principal = auth.authenticate(request.headers(), plugin).await?;
    request.extensions_mut().insert(Caller(principal));
    Ok(())
}

fn request_id(headers: &HeaderMap) -> HeaderValue {
    headers
        .get(&X_REQUEST_ID)
        .filter(|id| {
            (1..=REQUEST_ID_BYTES_MAX).contains(&id.len())
                && id.as_bytes().iter().all(u8::is_ascii_graphic)
        })
        .cloned()
        .unwrap_or_else(|| {
            let id = Uuid::now_v7().to_string();
            HeaderValue::try_from(id).unwrap_or_else(|_| HeaderValue::from_static("-"))
        })
}

/// The API that a path belongs to, in any case.
fn mount(path: &str) -> Option<&'static str> {
    MOUNTS.into_iter().find(|mount| {
        path.get(..mount.len())
            .is_some_and(|head| head.eq_ignore_ascii_case(mount))
            && path[mount.len()..]
                .bytes()
                .next()
                .is_none_or(|next| next == b'/')
    })
}

/// The path as routes are written: under an API in lower case, without a trailing slash.
fn normal(uri: &Uri) -> Option<Uri> {
    mount(uri.path())?;
    let path = uri.path().to_ascii_lowercase();
    let path = path.strip_suffix('/').unwrap_or(&path);
    let text = match uri.query() {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    };
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(text).ok()?);
    Uri::from_parts(parts).ok()
}

/// What the peer calls the request's URL: path and query below the mount.
fn relative(uri: &Uri, mount: Option<&str>) -> String {
    let whole = uri.path_and_query().map_or("/", PathAndQuery::as_str);
    let below = &whole[mount.map_or(0, str::len)..];
    if below.starts_with('/') {
        below.to_owned()
    } else {
        format!("/{below}")
    }
}

fn finish(response: &mut Response, id: &HeaderValue, api: bool) {
    let headers = response.headers_mut();
    headers.insert(X_REQUEST_ID, id.clone());
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if api && !headers.contains_key(CACHE_CONTROL) {
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_match_as_the_peers_do() {
        let of = |text: &str| normal(&text.parse().unwrap()).map(|uri| uri.to_string());
        assert_eq!(
            of("/API/Notifications/STATUS/?Q=A").as_deref(),
            Some("/api/notifications/status?Q=A")
        );
        assert_eq!(
            of("/api/notifications/").as_deref(),
            Some("/api/notifications")
        );
        assert_eq!(of("/login/AbC"), None);
        assert_eq!(of("/api/notificationsX"), None);
    }

    #[test]
    fn errors_name_the_url_below_the_mount() {
        let of = |text: &str| {
            let uri: Uri = text.parse().unwrap();
            relative(&uri, mount(uri.path()))
        };
        assert_eq!(
            of("/api/notifications/notifications?limit=-1"),
            "/notifications?limit=-1"
        );
        assert_eq!(of("/api/notifications"), "/");
        assert_eq!(of("/api/Notifications?x"), "/?x");
        assert_eq!(of("/api/tidings/v1/status"), "/status");
    }

    #[test]
    fn a_request_id_of_the_caller_is_kept_if_it_is_harmless() {
        let mut headers = HeaderMap::new();
        headers.insert(&X_REQUEST_ID, HeaderValue::from_static("abc-1"));
        assert_eq!(request_id(&headers), "abc-1");
        headers.insert(&X_REQUEST_ID, HeaderValue::from_static("a b"));
        assert_eq!(request_id(&headers).len(), 36);
    }
}
