//! An open WebSocket (contract 7): pages subscribe to channels, and hear what concerns them.

use std::collections::BTreeSet;
use std::time::Duration;

use axum::extract::ws::CloseFrame;
use axum::extract::ws::Message;
use axum::extract::ws::WebSocket;
use serde::Deserialize;

use super::handshake::Late;
use super::handshake::waited;
use super::hub::Beat;
use super::hub::Page;

/// How long one frame may take to leave.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);

/// Most frames that a client may send between two ticks; it has a few channels to name and one
/// ping to answer.
const FRAMES_MAX: u32 = 1_000;

/// Most channels of one socket.
const CHANNELS_MAX: usize = 256;

/// Longest name of a channel, in bytes.
const CHANNEL_BYTES_MAX: usize = 255;

/// Close code "service restart". The peer's client comes back after it, but never after 1000 or
/// 1001.
const SERVICE_RESTART: u16 = 1012;

/// Close code "policy violation": too many frames.
const POLICY_VIOLATION: u16 = 1008;

/// What a client may say; anything else is ignored.
#[derive(Debug, Deserialize)]
#[serde(tag = "action", rename_all = "lowercase")]
enum Wish {
    Subscribe { channel: String },
    Unsubscribe { channel: String },
}

/// How a socket ended.
enum End {
    /// The client has gone, or does not answer, or does not read.
    Cut,
    /// We end it, with this code and word.
    Close(u16, &'static str),
}

/// Serves a socket until its client or this process is through with it.
pub(super) async fn serve(mut socket: WebSocket, mut page: Page, late: Option<Late>) {
    if let End::Close(code, reason) = talk(&mut socket, &mut page, late).await {
        let frame = CloseFrame {
            code,
            reason: reason.into(),
        };
        send(&mut socket, Message::Close(Some(frame))).await;
    }
}

async fn talk(socket: &mut WebSocket, page: &mut Page, mut late: Option<Late>) -> End {
    let mut channels = BTreeSet::new();
    let mut lives = true;
    let mut frames = 0;
    loop {
        let frame = tokio::select! {
            beat = page.beats.recv() => match beat {
                Some(Beat::Signal(news)) if channels.contains(&news.channel) => {
                    Message::Text(news.envelope.clone())
                }
                Some(Beat::Signal(_)) => continue,
                Some(Beat::Tick) => {
                    if !std::mem::take(&mut lives) {
                        return End::Cut;
                    }
                    frames = 0;
                    Message::Ping(bytes::Bytes::new())
                }
                None => return End::Close(SERVICE_RESTART, "come again"),
            },
            message = socket.recv() => {
                let Some(Ok(message)) = message else {
                    return End::Cut;
                };
                frames += 1;
                if FRAMES_MAX < frames {
                    return End::Close(POLICY_VIOLATION, "too many messages");
                }
                lives |= matches!(message, Message::Ping(_) | Message::Pong(_));
                if let Message::Text(text) = message {
                    subscribe(&mut channels, text.as_str());
                }
                continue;
            }
            refs = waited(&mut late) => {
                page.own(&refs);
                late = None;
                continue;
            }
        };
        if !send(socket, frame).await {
            return End::Cut;
        }
    }
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
