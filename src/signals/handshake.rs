//! The handshake of the peer's WebSocket (contract 7): the token is a subprotocol.
//!
//! The peer's client gives up unless the socket is open within one second. So whoever knows a
//! person's groups gets half of that; should it take longer or be away, the socket opens for the
//! person alone and learns of the groups later. What a person waits for most, their own
//! notifications, needs no group.

use std::time::Duration;

use axum::extract::State;
use axum::extract::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::response::IntoResponse;
use axum::response::Response;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::HeaderMap;
use http::HeaderValue;
use http::StatusCode;
use http::header::CONNECTION;
use http::header::SEC_WEBSOCKET_PROTOCOL;

use super::Parts;
use super::hub::Refused;
use super::socket;
use crate::auth::Auth;
use crate::auth::Plugin;
use crate::auth::Principal;
use crate::auth::bearer;
use crate::failure::Kind;
use crate::http::HttpError;
use crate::http::asks_for_socket;

/// Most tokens that one handshake may offer. Source: the peer.
const CANDIDATES_MAX: usize = 5;

/// How long a socket waits to open until its person's groups are known.
const OWNERSHIP_TIMEOUT: Duration = Duration::from_millis(500);

/// Between two questions for a person's groups, at first; each time twice as long.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(200);

/// Between two questions for a person's groups, at most.
const ASK_AGAIN_AFTER_MAX: Duration = Duration::from_secs(60);

/// Largest message of a client, and largest frame.
const MESSAGE_BYTES_MAX: usize = 64 << 10;

/// What is read at once. Each socket has a buffer of this size all its life, and clients say
/// little.
const READ_BUFFER: usize = 1 << 10;

/// Most bytes that wait for one client to read them. More than the largest signal (the bus takes
/// up to 5 MB).
const WRITE_BUFFER_MAX: usize = 16 << 20;

/// The refs that come late, if they do.
pub(super) type Late = BoxFuture<'static, Vec<String>>;

/// `GET /api/signals` with an upgrade. Every refusal is plain: a status and no body.
pub(super) async fn connect(
    State(parts): State<Parts>,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    if !asks_for_socket(&headers) {
        // Behind the barrier, which the request has passed, nothing is.
        return StatusCode::NOT_FOUND.into_response();
    }
    match open(&parts, &headers, upgrade).await {
        Ok(response) => response,
        Err(status) => (status, [(CONNECTION, "close")]).into_response(),
    }
}

async fn open(
    parts: &Parts,
    headers: &HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, StatusCode> {
    if parts.hub.is_closed() {
        return Err(StatusCode::SERVICE_UNAVAILABLE);
    }
    let visitor = identify(&parts.auth, headers).await?;
    let mut upgrade = upgrade.map_err(|refused| refused.into_response().status())?;
    let page = parts
        .hub
        .open(&visitor.person)
        .map_err(|refused| match refused {
            Refused::Closed => StatusCode::SERVICE_UNAVAILABLE,
            Refused::TooMany => StatusCode::TOO_MANY_REQUESTS,
        })?;
    let mut late = ownership(parts.auth.clone(), visitor.token).boxed();
    let late = match tokio::time::timeout(OWNERSHIP_TIMEOUT, &mut late).await {
        Ok(refs) => {
            page.own(&refs);
            None
        }
        Err(_) => Some(late),
    };
    if let Some(protocol) = visitor.protocol {
        upgrade.set_selected_protocol(protocol);
    }
    Ok(upgrade
        .read_buffer_size(READ_BUFFER)
        .max_write_buffer_size(WRITE_BUFFER_MAX)
        .max_frame_size(MESSAGE_BYTES_MAX)
        .max_message_size(MESSAGE_BYTES_MAX)
        .on_upgrade(|socket| socket::serve(socket, page, late)))
}

/// The refs that a token's person acts for; asked for until somebody knows.
pub(super) async fn ownership(auth: Auth, token: String) -> Vec<String> {
    let mut pause = ASK_AGAIN_AFTER;
    loop {
        match auth.ownership(&token).await {
            Ok(refs) => return refs,
            Err(failure) if failure.kind == Kind::Permanent => {
                tracing::debug!(%failure, "a page hears what is for its person alone");
                return Vec::new();
            }
            Err(failure) => tracing::debug!(%failure, "a page's groups are asked for again"),
        }
        // Pages that opened together do not ask together.
        tokio::time::sleep(pause.mul_f64(rand::random_range(0.5..1.0))).await;
        pause = ASK_AGAIN_AFTER_MAX.min(pause * 2);
    }
}

/// The refs that come late; never, where nothing is late.
pub(super) async fn waited(late: &mut Option<Late>) -> Vec<String> {
    match late {
        Some(late) => late.await,
        None => std::future::pending().await,
    }
}

/// Whoever wants a socket.
#[derive(Debug)]
struct Visitor {
    person: String,
    token: String,
    /// The subprotocol to hand back: browsers hang up otherwise.
    protocol: Option<HeaderValue>,
}

/// The first candidate that is somebody: subprotocols, then the header.
async fn identify(auth: &Auth, headers: &HeaderMap) -> Result<Visitor, StatusCode> {
    let offered = headers
        .get_all(SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|token| !token.is_empty())
        .map(|token| (token, HeaderValue::from_str(token).ok()));
    let by_header = bearer(headers).map(|token| (token, None));
    let candidates: Vec<(&str, Option<HeaderValue>)> = offered.chain(by_header).collect();
    if candidates.len() > CANDIDATES_MAX {
        return Err(StatusCode::UNAUTHORIZED);
    }
    let mut refusal = StatusCode::UNAUTHORIZED;
    for (token, protocol) in candidates {
        match auth.authenticate_token(token, Plugin::Signals).await {
            Ok(Principal::User { reference }) => {
                return Ok(Visitor {
                    person: reference,
                    token: token.to_owned(),
                    protocol,
                });
            }
            Ok(Principal::Service { .. }) => return Err(StatusCode::FORBIDDEN),
            // Of several refusals, one that is not about the token says more.
            Err(error) => {
                let status = HttpError::from(error).status();
                if status != StatusCode::UNAUTHORIZED {
                    refusal = status;
                }
            }
        }
    }
    Err(refusal)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::Scopes;
    use crate::auth::StaticToken;
    use crate::auth::UserKey;
    use http::header::AUTHORIZATION;

    fn auth() -> (Auth, String) {
        let key = UserKey::from_bytes(&[1; 32]);
        let token = key
            .sign("user:default/guest", Duration::from_secs(60))
            .unwrap();
        let ci = StaticToken {
            token: "secret-of-ci".into(),
            subject: "ci".into(),
            scopes: Scopes::SEND,
            plugins: None,
        };
        (Auth::new(vec![ci], Some(key)), token)
    }

    async fn status(auth: &Auth, protocols: &str, bearer: Option<&str>) -> Option<StatusCode> {
        let mut headers = HeaderMap::new();
        if !protocols.is_empty() {
            headers.insert(SEC_WEBSOCKET_PROTOCOL, protocols.parse().unwrap());
        }
        if let Some(token) = bearer {
            let value = format!("Bearer {token}").parse().unwrap();
            headers.insert(AUTHORIZATION, value);
        }
        identify(auth, &headers).await.err()
    }

    #[tokio::test]
    async fn the_token_is_a_subprotocol_and_is_handed_back() {
        let (auth, token) = auth();
        let mut headers = HeaderMap::new();
        let value = format!("other, {token}").parse().unwrap();
        headers.insert(SEC_WEBSOCKET_PROTOCOL, value);
        let visitor = identify(&auth, &headers).await.unwrap();
        assert_eq!(visitor.person, "user:default/guest");
        assert_eq!(visitor.protocol.unwrap(), token.as_str());
        assert_eq!(status(&auth, "", Some(&token)).await, None);
    }

    #[tokio::test]
    async fn strangers_get_401_and_services_403() {
        let (auth, token) = auth();
        let no = Some(StatusCode::UNAUTHORIZED);
        assert_eq!(status(&auth, "", None).await, no);
        assert_eq!(status(&auth, "x", Some("y")).await, no);
        let services = Some(StatusCode::FORBIDDEN);
        assert_eq!(status(&auth, "secret-of-ci", None).await, services);
        assert_eq!(status(&auth, "secret-of-ci", Some(&token)).await, services);
    }

    #[tokio::test]
    async fn five_candidates_are_looked_at_and_six_are_refused() {
        let (auth, token) = auth();
        let no = Some(StatusCode::UNAUTHORIZED);
        assert_eq!(status(&auth, "a,b,c,d", Some(&token)).await, None);
        assert_eq!(status(&auth, &format!("a,b,c,d,{token}"), None).await, None);
        assert_eq!(status(&auth, "a,b,c,d,e", Some(&token)).await, no);
        assert_eq!(status(&auth, &format!("{token},b,c,d,e,f"), None).await, no);
    }
}
