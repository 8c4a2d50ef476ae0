//! An open page, as the peer's client has one: a WebSocket whose only subprotocol is the token.

use futures::SinkExt as _;
use futures::StreamExt as _;
use serde_json::Value;
use serde_json::json;
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::client_async_with_config;
use tokio_tungstenite::tungstenite;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

/// A WebSocket that is subscribed.
pub(crate) struct Page {
    pub(crate) socket: WebSocketStream<TcpStream>,
}

impl Page {
    /// Opens one at `address` (host and port).
    pub(crate) async fn open(address: &str, token: &str) -> Result<Self, tungstenite::Error> {
        let mut request = format!("ws://{address}/api/signals").into_client_request()?;
        let name = "sec-websocket-protocol";
        request.headers_mut().insert(name, token.parse().unwrap());
        let stream = TcpStream::connect(address).await?;
        // Thousands of these share one process.
        let small = WebSocketConfig::default().read_buffer_size(1 << 10);
        let (socket, answer) = client_async_with_config(request, stream, Some(small)).await?;
        assert_eq!(answer.headers()[name], token);
        Ok(Self { socket })
    }

    /// Subscribes to a channel. The server has seen it: it answers in order.
    pub(crate) async fn subscribe(&mut self, channel: &str) {
        let wish = json!({"action": "subscribe", "channel": channel});
        self.say(Message::text(wish.to_string())).await;
        self.say(Message::Ping("seen?".into())).await;
        loop {
            if let Message::Pong(_) = self.socket.next().await.unwrap().unwrap() {
                return;
            }
        }
    }

    async fn say(&mut self, message: Message) {
        self.socket.send(message).await.unwrap();
    }

    /// The next signal; `None` when the socket is closed so that the client comes again.
    pub(crate) async fn next(&mut self) -> Option<Value> {
        loop {
            match self.socket.next().await {
                Some(Ok(Message::Text(text))) => return Some(serde_json::from_str(&text).unwrap()),
                Some(Ok(Message::Close(Some(frame)))) => {
                    assert_eq!(u16::from(frame.code), 1012);
                    return None;
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return None,
            }
        }
    }

    /// Reads until a signal's text contains `word`.
    pub(crate) async fn until(&mut self, word: &str) -> Value {
        loop {
            let signal = self.next().await.expect("the socket was closed");
            if signal.to_string().contains(word) {
                return signal;
            }
        }
    }
}
