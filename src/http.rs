//! What every HTTP answer has in common: the peer's error body, request ids, who is calling.
//!
//! Roles give plain routers; [`app`] wraps them all. It lets nobody under `/api` past without
//! credentials, makes paths match as the peer's do, and turns every [`HttpError`] into the peer's
//! shape. It never logs a query, a body or a header.

mod admin;
mod cors;
mod error;
mod guard;
#[cfg(feature = "backstage")]
mod keys;

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::FromRequestParts;
use axum::extract::Request;
use axum::serve::ListenerExt as _;
use bytes::Bytes;
use bytes::BytesMut;
use futures::StreamExt as _;
use http::HeaderMap;
use http::header::CONTENT_LENGTH;
use http::header::CONTENT_TYPE;
use http::request::Parts;
use serde_json::Value;
use socket2::SockRef;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

pub use self::admin::admin_routes;
pub use self::cors::with_cors;
pub use self::error::HttpError;
pub use self::guard::app;
pub use self::guard::asks_for_socket;
#[cfg(feature = "backstage")]
pub use self::keys::key_routes;

use crate::auth::Principal;

/// Largest body that is read to its end before it is refused, so that the caller hears why; a
/// larger one is cut off.
const DRAIN_BYTES_MAX: usize = 16 << 20;

/// How long a body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a client may leave what was sent to it unread or unconfirmed before it is cut; else
/// a page that does not read, or a machine that has vanished, is kept for hours.
const UNREAD_TIMEOUT: Duration = Duration::from_secs(60);

/// Who is calling, as [`app`] found out.
#[derive(Clone, Debug)]
pub struct Caller(pub Principal);

impl Caller {
    /// The caller's ref, if it is a person.
    ///
    /// # Errors
    /// 403 in the peer's words.
    pub fn user(self) -> Result<String, HttpError> {
        match self.0 {
            Principal::User { reference } => Ok(reference),
            Principal::Service { .. } => Err(HttpError::wrong_kind("service")),
        }
    }

    /// The caller's subject, if it is a service that may send.
    ///
    /// # Errors
    /// 403 in the peer's words.
    pub fn sender(self) -> Result<String, HttpError> {
        match self.0 {
            Principal::User { .. } => Err(HttpError::wrong_kind("user")),
            Principal::Service {
                subject, scopes, ..
            } if scopes.send => Ok(subject),
            Principal::Service { .. } => Err(HttpError::missing_scope("send")),
        }
    }

    /// Whether it is a service that may operate.
    ///
    /// # Errors
    /// 403 in the peer's words.
    pub fn operator(self) -> Result<String, HttpError> {
        match self.0 {
            Principal::User { .. } => Err(HttpError::wrong_kind("user")),
            Principal::Service {
                subject, scopes, ..
            } if scopes.operate => Ok(subject),
            Principal::Service { .. } => Err(HttpError::missing_scope("operate")),
        }
    }
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = HttpError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, HttpError> {
        parts
            .extensions
            .get::<Self>()
            .cloned()
            .ok_or_else(HttpError::missing_credentials)
    }
}

/// Refuses a query: the route takes no parameters.
///
/// # Errors
/// 400 in the peer's words.
pub fn no_query(uri: &http::Uri) -> Result<(), HttpError> {
    let query = uri.query().unwrap_or("").as_bytes();
    match url::form_urlencoded::parse(query).next() {
        None => Ok(()),
        Some((name, _)) => Err(HttpError::unknown_parameter(&name)),
    }
}

/// Reads a JSON body of at most `limit` bytes.
///
/// # Errors
/// 400 in the peer's words: another media type, too large, broken JSON.
pub async fn read_json(request: Request, limit: usize) -> Result<Value, HttpError> {
    let (parts, body) = request.into_parts();
    check_media_type(&parts.headers)?;
    let bytes = read_body(&parts.headers, body, limit).await?;
    serde_json::from_slice(&bytes)
        .map_err(|error| HttpError::input(format!("the body is not valid JSON: {error}")))
}

fn check_media_type(headers: &HeaderMap) -> Result<(), HttpError> {
    let given = headers
        .get(CONTENT_TYPE)
        .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    let essence = given
        .as_deref()
        .and_then(|value| value.split(';').next())
        .map(|value| value.trim().to_ascii_lowercase());
    if essence.as_deref() == Some("application/json") {
        return Ok(());
    }
    let given = essence.as_deref().unwrap_or("(none)");
    Err(HttpError::input(format!(
        "unsupported media type {given}; send Content-Type: application/json"
    )))
}

/// Reads a body of at most `limit` bytes.
///
/// # Errors
/// 400 in the peer's words when it is larger, does not come to its end, or takes too long.
pub async fn read_body(headers: &HeaderMap, body: Body, limit: usize) -> Result<Bytes, HttpError> {
    let announced = headers
        .get(CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.parse::<usize>().ok())
        .unwrap_or(0);
    if announced > DRAIN_BYTES_MAX.max(limit) {
        return Err(HttpError::too_large(limit));
    }
    let reading = async {
        let mut stream = body.into_data_stream();
        let mut bytes = BytesMut::with_capacity(announced.min(limit));
        let mut size = 0_usize;
        while let Some(frame) = stream.next().await {
            let frame = frame.map_err(|_| HttpError::input("the body ended too early"))?;
            size = size.saturating_add(frame.len());
            if size > DRAIN_BYTES_MAX.max(limit) {
                break;
            }
            if size <= limit {
                bytes.extend_from_slice(&frame);
            }
        }
        if size > limit {
            return Err(HttpError::too_large(limit));
        }
        Ok(bytes.freeze())
    };
    tokio::time::timeout(BODY_TIMEOUT, reading)
        .await
        .unwrap_or_else(|_| Err(HttpError::input("the body took too long to arrive")))
}

/// Serves `app` until `shutdown`, then finishes the requests in hand; streams end by themselves
/// at `shutdown`.
///
/// # Errors
/// When the listener fails.
pub async fn serve(
    listener: TcpListener,
    app: Router,
    shutdown: CancellationToken,
) -> std::io::Result<()> {
    axum::serve(listener.tap_io(prepare), app)
        .with_graceful_shutdown(async move { shutdown.cancelled().await })
        .await
}

/// Makes small messages leave at once, and a client that takes nothing end.
fn prepare(stream: &mut TcpStream) {
    let told = stream.set_nodelay(true);
    #[cfg(target_os = "linux")]
    let told =
        told.and_then(|()| SockRef::from(&*stream).set_tcp_user_timeout(Some(UNREAD_TIMEOUT)));
    if let Err(error) = told {
        // The client has gone already.
        tracing::debug!(%error, "a connection was not prepared");
    }
}
