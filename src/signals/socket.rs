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
    use super::super::hub::Hub;
    use super::*;
    use crate::signal::Signal;
    use axum::Router;
    use axum::extract::WebSocketUpgrade;
    use axum::routing::get;
    use futures::FutureExt as _;
    use futures::SinkExt as _;
    use futures::StreamExt as _;
    use tokio::io::AsyncReadExt as _;
    use tokio::net::TcpListener;
    use tokio::net::TcpStream;
    use tokio::sync::oneshot;
    use tokio_tungstenite::WebSocketStream;
    use tokio_tungstenite::tungstenite::Message as Frame;
    use uuid::Uuid;

    const GUEST: &str = "user:default/guest";

    /// A socket of the guest at `hub`, subscribed; whose groups come when the sender says.
    async fn socket(hub: &Hub) -> (WebSocketStream<TcpStream>, oneshot::Sender<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (groups, come) = oneshot::channel();
        let page = hub.open(GUEST).unwrap();
        let late: Late = come.map(Result::unwrap_or_default).boxed();
        let once = std::sync::Mutex::new(Some((page, late)));
        let once = std::sync::Arc::new(once);
        let app = Router::new().route(
            "/",
            get(move |upgrade: WebSocketUpgrade| async move {
                let (page, late) = once.lock().unwrap().take().unwrap();
                upgrade.on_upgrade(|socket| serve(socket, page, Some(late)))
            }),
        );
        tokio::spawn(async move { axum::serve(listener, app).await });
        let stream = TcpStream::connect(address).await.unwrap();
        let asked = tokio_tungstenite::client_async(format!("ws://{address}/"), stream);
        let mut socket = asked.await.unwrap().0;
        let wish = r#"{"action":"subscribe","channel":"notifications"}"#;
        socket.send(Frame::text(wish)).await.unwrap();
        socket.send(Frame::Ping("seen?".into())).await.unwrap();
        assert!(socket.next().await.unwrap().unwrap().is_pong());
        (socket, groups)
    }

    async fn next_frame(socket: &mut WebSocketStream<TcpStream>) -> Option<Frame> {
        socket.next().await?.ok()
    }

    #[tokio::test]
    async fn a_socket_that_answers_lives() {
        let hub = Hub::default();
        let (mut socket, _groups) = socket(&hub).await;
        for _ in 0..3 {
            hub.tick();
            assert!(next_frame(&mut socket).await.unwrap().is_ping());
            // The library has answered; this one shows that the server has seen it.
            socket.send(Frame::Ping("seen?".into())).await.unwrap();
            assert!(next_frame(&mut socket).await.unwrap().is_pong());
        }
    }

    #[tokio::test]
    async fn a_socket_that_does_not_answer_is_cut() {
        let hub = Hub::default();
        let (socket, _groups) = socket(&hub).await;
        // Without the library nobody answers.
        let mut silent = socket.into_inner();
        hub.tick();
        hub.tick();
        let mut heard = Vec::new();
        let read = silent.read_to_end(&mut heard).await;
        // One ping, and no close frame.
        assert_eq!((read.unwrap(), heard), (2, vec![0x89, 0]));
    }

    #[tokio::test]
    async fn groups_that_come_late_are_heard_from_then_on() {
        let hub = Hub::default();
        let (mut socket, groups) = socket(&hub).await;
        let to = |reference| Signal::new_notification(Some(reference), Uuid::nil());
        hub.tell(&to(GUEST));
        assert!(next_frame(&mut socket).await.unwrap().is_text());
        groups.send(vec!["group:default/payments".into()]).unwrap();
        while hub.pages_of("group:default/payments") == 0 {
            tokio::task::yield_now().await;
        }
        hub.tell(&to("group:default/payments"));
        assert!(next_frame(&mut socket).await.unwrap().is_text());
    }

    #[tokio::test]
    async fn a_client_that_says_too_much_is_sent_away() {
        let hub = Hub::default();
        let (mut socket, _groups) = socket(&hub).await;
        for _ in 0..FRAMES_MAX {
            socket.feed(Frame::text("{}")).await.unwrap();
        }
        socket.flush().await.unwrap();
        let Frame::Close(Some(frame)) = next_frame(&mut socket).await.unwrap() else {
            panic!("it may go on");
        };
        assert_eq!(u16::from(frame.code), POLICY_VIOLATION);
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
