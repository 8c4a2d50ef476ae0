//! The peer's WebSocket (contract 7): the token is a subprotocol, pages subscribe to channels.

use std::collections::BTreeSet;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::extract::WebSocketUpgrade;
use axum::extract::ws::CloseFrame;
use axum::extract::ws::Message;
use axum::extract::ws::WebSocket;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::response::IntoResponse;
use axum::response::Response;
use http::HeaderMap;
use http::HeaderValue;
use http::StatusCode;
use http::header::CONNECTION;
use http::header::SEC_WEBSOCKET_PROTOCOL;
use serde::Deserialize;
use serde_json::Value;
use serde_json::json;
use tokio::time::Instant;
use tokio::time::MissedTickBehavior;

use super::Page;
use super::Parts;
use crate::auth::Auth;
use crate::auth::AuthError;
use crate::auth::Plugin;
use crate::auth::Principal;
use crate::http::HttpError;

/// How often a socket is asked whether it lives; one that did not answer by the next time is cut.
const PING_EVERY: Duration = Duration::from_secs(30);

/// How long one frame may take to leave.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);

/// Most tokens that one handshake may offer. Source: the peer.
const CANDIDATES_MAX: usize = 5;

/// Largest message of a client.
const MESSAGE_BYTES_MAX: usize = 64 << 10;

/// Most channels of one socket.
const CHANNELS_MAX: usize = 256;

/// Longest name of a channel, in bytes.
const CHANNEL_BYTES_MAX: usize = 255;

/// Close code "service restart". The peer's client comes back after it, but never after 1000 or
/// 1001.
const SERVICE_RESTART: u16 = 1012;

/// `GET /api/signals/health`, as the peer has it.
pub(super) async fn healthy() -> Json<Value> {
    Json(json!({"status": "ok"}))
}

/// `GET /api/signals` with an upgrade.
pub(super) async fn connect(
    State(parts): State<Parts>,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, HttpError> {
    let Ok(mut upgrade) = upgrade else {
        // A plain request falls under the usual barrier, behind which nothing is.
        parts.auth.authenticate(&headers, Plugin::Signals).await?;
        return Ok(StatusCode::NOT_FOUND.into_response());
    };
    let (reference, protocol) = match identify(&parts.auth, &headers).await {
        Ok(found) => found,
        Err(status) => return Ok((status, [(CONNECTION, "close")]).into_response()),
    };
    if let Some(protocol) = protocol {
        upgrade.set_selected_protocol(protocol);
    }
    let page = parts.hub.open(&reference);
    Ok(upgrade
        .max_message_size(MESSAGE_BYTES_MAX)
        .on_upgrade(|socket| serve(socket, page)))
}

/// The first candidate that is somebody: subprotocols, then the header. A subprotocol is handed
/// back, since browsers hang up otherwise.
async fn identify(
    auth: &Auth,
    headers: &HeaderMap,
) -> Result<(String, Option<HeaderValue>), StatusCode> {
    let offered: Vec<&str> = headers
        .get_all(SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|token| !token.is_empty())
        .collect();
    let by_header = auth.authenticate(headers, Plugin::Signals).await;
    let others = usize::from(by_header != Err(AuthError::Missing));
    if offered.len() + others > CANDIDATES_MAX {
        return Err(StatusCode::UNAUTHORIZED);
    }
    let mut by_protocol = None;
    for token in offered {
        if let Ok(principal) = auth.authenticate_token(token, Plugin::Signals).await {
            by_protocol = Some((principal, HeaderValue::from_str(token).ok()));
            break;
        }
    }
    let (principal, protocol) = match (by_protocol, by_header) {
        (Some(found), _) => found,
        (None, Ok(principal)) => (principal, None),
        (None, Err(error)) if error.is_forbidden() => return Err(StatusCode::FORBIDDEN),
        (None, Err(_)) => return Err(StatusCode::UNAUTHORIZED),
    };
    match principal {
        Principal::User { reference } => Ok((reference, protocol)),
        Principal::Service { .. } => Err(StatusCode::FORBIDDEN),
    }
}

/// What a client may say; anything else is ignored.
#[derive(Debug, Deserialize)]
#[serde(tag = "action", rename_all = "lowercase")]
enum Wish {
    Subscribe { channel: String },
    Unsubscribe { channel: String },
}

async fn serve(mut socket: WebSocket, mut page: Page) {
    let mut channels = BTreeSet::new();
    let mut tick = tokio::time::interval_at(Instant::now() + PING_EVERY, PING_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut lives = true;
    loop {
        let frame = tokio::select! {
            beat = page.beats.recv() => match beat {
                Some(beat) if channels.contains(&*beat.channel) => Message::Text(beat.envelope),
                Some(_) => continue,
                None => break,
            },
            message = socket.recv() => match message {
                Some(Ok(message)) => {
                    lives |= matches!(message, Message::Ping(_) | Message::Pong(_));
                    if let Message::Text(text) = message {
                        subscribe(&mut channels, text.as_str());
                    }
                    continue;
                }
                Some(Err(_)) | None => return,
            },
            _ = tick.tick() => {
                if !std::mem::take(&mut lives) {
                    return;
                }
                Message::Ping(bytes::Bytes::new())
            }
        };
        if !send(&mut socket, frame).await {
            return;
        }
    }
    let goodbye = CloseFrame {
        code: SERVICE_RESTART,
        reason: "come again".into(),
    };
    send(&mut socket, Message::Close(Some(goodbye))).await;
}

async fn send(socket: &mut WebSocket, frame: Message) -> bool {
    let sent = tokio::time::timeout(SEND_TIMEOUT, socket.send(frame)).await;
    matches!(sent, Ok(Ok(())))
}

fn subscribe(channels: &mut BTreeSet<String>, text: &str) {
    match serde_json::from_str(text) {
        Ok(Wish::Subscribe { channel })
            if channels.len() < CHANNELS_MAX && channel.len() <= CHANNEL_BYTES_MAX =>
        {
            channels.insert(channel);
        }
        Ok(Wish::Unsubscribe { channel }) => {
            channels.remove(&channel);
        }
        Ok(Wish::Subscribe { .. }) | Err(_) => {
            tracing::debug!("a socket's message was ignored");
        }
    }
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
        let (reference, protocol) = identify(&auth, &headers).await.unwrap();
        assert_eq!(reference, "user:default/guest");
        assert_eq!(protocol.unwrap(), token.as_str());
        assert_eq!(status(&auth, "", Some(&token)).await, None);
    }

    #[tokio::test]
    async fn strangers_get_401_and_services_403() {
        let (auth, token) = auth();
        let no = Some(StatusCode::UNAUTHORIZED);
        assert_eq!(status(&auth, "", None).await, no);
        assert_eq!(status(&auth, "x", Some("y")).await, no);
        assert_eq!(status(&auth, &format!("a,b,c,d,e,{token}"), None).await, no);
        let services = Some(StatusCode::FORBIDDEN);
        assert_eq!(status(&auth, "secret-of-ci", None).await, services);
    }

    #[test]
    fn nonsense_from_a_client_is_ignored() {
        let mut channels = BTreeSet::new();
        for text in ["{", "[]", r#"{"action":"x"}"#, r#"{"action":"subscribe"}"#] {
            subscribe(&mut channels, text);
        }
        assert!(channels.is_empty());
        subscribe(
            &mut channels,
            r#"{"action":"subscribe","channel":"notifications"}"#,
        );
        subscribe(&mut channels, r#"{"action":"subscribe","channel":"x"}"#);
        subscribe(&mut channels, r#"{"action":"unsubscribe","channel":"x"}"#);
        assert_eq!(channels.into_iter().collect::<Vec<_>>(), ["notifications"]);
    }
}
