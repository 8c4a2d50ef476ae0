//! Sockets and streams of open pages, with the real queue between announcer and page.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::SinkExt as _;
use futures::StreamExt as _;
use serde_json::Value;
use serde_json::json;
use tempfile::TempDir;
use tidings::auth::Auth;
use tidings::auth::Scopes;
use tidings::auth::StaticToken;
use tidings::auth::UserKey;
use tidings::http::app;
use tidings::queue::Queue;
use tidings::queue::sqlite::SqliteQueue;
use tidings::signal::Signal;
use tidings::signals;
use tidings::signals::Hub;
use tidings::sqlite::Sqlite;
use tidings::topology;
use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::Served;
use super::client;

const GUEST: &str = "user:default/guest";

struct Pages {
    served: Served,
    queue: Arc<dyn Queue>,
    key: UserKey,
    stop: CancellationToken,
    _dir: TempDir,
}

impl Drop for Pages {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Pages {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let sqlite = Sqlite::open(dir.path()).unwrap();
        let queue: Arc<dyn Queue> = Arc::new(SqliteQueue::new(sqlite, &topology::queues(&[])));
        let stop = CancellationToken::new();
        let hub = Hub::default();
        tokio::spawn(hub.clone().run(Arc::clone(&queue), stop.clone()));
        let ci = StaticToken {
            token: "token-of-ci".into(),
            subject: "external:ci".into(),
            scopes: Scopes::SEND,
            plugins: None,
        };
        let key = UserKey::from_bytes(&[3; 32]);
        let auth = Auth::new(vec![ci], Some(key.clone()));
        let served = Served::start(app(signals::routes(hub, auth.clone()), &auth)).await;
        Self {
            served,
            queue,
            key,
            stop,
            _dir: dir,
        }
    }

    fn token(&self, reference: &str) -> String {
        self.key.sign(reference, Duration::from_secs(60)).unwrap()
    }

    async fn announce(&self, signal: &Signal) {
        let body = serde_json::to_vec(signal).unwrap();
        self.queue.announce(Bytes::from(body)).await;
    }

    /// Connects as the peer's client does: the token is the only subprotocol.
    async fn connect(
        &self,
        protocol: &str,
    ) -> Result<WebSocketStream<TcpStream>, tungstenite::Error> {
        let url = format!("ws://{}/api/signals", self.served.address);
        let mut request = url.into_client_request().unwrap();
        let name = "sec-websocket-protocol";
        request
            .headers_mut()
            .insert(name, protocol.parse().unwrap());
        let stream = TcpStream::connect(self.served.address).await.unwrap();
        let (socket, answer) = tokio_tungstenite::client_async(request, stream).await?;
        assert_eq!(answer.headers()[name], protocol);
        Ok(socket)
    }

    /// What a handshake is answered, as bytes: all of it when the server hangs up, else the head.
    async fn shake(&self, path: &str, protocols: &str, version: &str) -> String {
        let mut stream = TcpStream::connect(self.served.address).await.unwrap();
        let protocols = match protocols {
            "" => String::new(),
            offered => format!("Sec-WebSocket-Protocol: {offered}\r\n"),
        };
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: tidings\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: {version}\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             {protocols}\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        while stream.read_buf(&mut answer).await.unwrap() > 0 {
            if answer.starts_with(b"HTTP/1.1 101") && answer.ends_with(b"\r\n\r\n") {
                break;
            }
        }
        String::from_utf8(answer).unwrap()
    }

    /// A socket that is subscribed for certain: it has heard a signal.
    async fn subscribed(&self, reference: &str) -> WebSocketStream<TcpStream> {
        let mut socket = self.connect(&self.token(reference)).await.unwrap();
        let wish = json!({"action": "subscribe", "channel": "notifications"});
        socket.send(text(&wish)).await.unwrap();
        loop {
            self.announce(&Signal::new_notification(Some(reference), Uuid::nil()))
                .await;
            let heard = tokio::time::timeout(Duration::from_millis(100), socket.next()).await;
            if heard.is_ok() {
                return socket;
            }
        }
    }
}

fn text(value: &Value) -> Message {
    Message::text(value.to_string())
}

/// The next signal that is not about the nil notification, which only woke the socket.
async fn next(socket: &mut WebSocketStream<TcpStream>) -> Value {
    loop {
        let message = socket.next().await.unwrap().unwrap();
        if let Message::Text(text) = message
            && !text.contains(&Uuid::nil().to_string())
        {
            return serde_json::from_str(&text).unwrap();
        }
    }
}

fn status<T>(refused: Result<T, tungstenite::Error>) -> u16 {
    match refused {
        Err(tungstenite::Error::Http(answer)) => answer.status().as_u16(),
        Err(other) => panic!("{other}"),
        Ok(_) => 101,
    }
}

#[tokio::test]
async fn a_page_hears_what_concerns_it_on_the_channels_it_subscribed_to() {
    let pages = Pages::start().await;
    let mut guest = pages.subscribed(GUEST).await;
    let id = Uuid::from_u128(7);
    pages
        .announce(&Signal::new_notification(Some("user:default/other"), id))
        .await;
    let elsewhere = Signal {
        channel: "elsewhere".into(),
        ..Signal::new_notification(None, id)
    };
    pages.announce(&elsewhere).await;
    pages.announce(&Signal::new_notification(None, id)).await;
    assert_eq!(
        next(&mut guest).await,
        json!({"channel": "notifications",
            "message": {"action": "new_notification", "notification_id": id}})
    );
    pages
        .announce(&Signal::marked(GUEST, &["a".into()], true))
        .await;
    assert_eq!(
        next(&mut guest).await["message"],
        json!({"action": "notification_read", "notification_ids": ["a"]})
    );
}

#[tokio::test]
async fn nobody_connects_without_a_users_token() {
    let pages = Pages::start().await;
    assert_eq!(status(pages.connect("nonsense").await), 401);
    assert_eq!(status(pages.connect("token-of-ci").await), 403);
    let plain = client().get(pages.served.url("/api/signals"));
    assert_eq!(plain.send().await.unwrap().status(), 401);
    let health = client().get(pages.served.url("/api/signals/health"));
    let health: Value = health.send().await.unwrap().json().await.unwrap();
    assert_eq!(health, json!({"status": "ok"}));
}

#[tokio::test]
async fn what_is_refused_is_answered_plainly_and_hung_up() {
    let pages = Pages::start().await;
    let token = pages.token(GUEST);
    let six = format!("{token}, b, c, d, e, f");
    for (path, protocols, wanted) in [
        ("/api/signals", "nonsense", "401 Unauthorized"),
        ("/api/signals", "", "401 Unauthorized"),
        ("/api/signals", six.as_str(), "401 Unauthorized"),
        ("/api/signals", "token-of-ci", "403 Forbidden"),
        // The path is this one exactly, whoever asks.
        ("/api/signals/", token.as_str(), "404 Not Found"),
        ("/API/signals", token.as_str(), "404 Not Found"),
        ("/api/signals/health", token.as_str(), "404 Not Found"),
        ("/api/notifications", token.as_str(), "404 Not Found"),
        ("/", "", "404 Not Found"),
    ] {
        let answer = pages.shake(path, protocols, "13").await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let head = head.to_lowercase();
        let status = format!("http/1.1 {}\r\n", wanted.to_lowercase());
        assert!(head.starts_with(&status), "{path} {protocols}: {head}");
        assert!(head.contains("\r\nconnection: close"), "{head}");
        assert!(head.contains("\r\ncontent-length: 0"), "{head}");
        assert!(body.is_empty(), "{body}");
    }
    let old = pages.shake("/api/signals", &token, "7").await;
    assert!(old.starts_with("HTTP/1.1 400 "), "{old}");
    let open = pages.shake("/api/signals?page=1", &token, "13").await;
    assert!(open.starts_with("HTTP/1.1 101 "), "{open}");
    pages.stop.cancel();
    while pages
        .shake("/api/signals", &token, "13")
        .await
        .contains(" 101 ")
    {}
    let late = pages.shake("/api/signals", &token, "13").await;
    assert!(late.starts_with("HTTP/1.1 503 "), "{late}");
}

#[tokio::test]
async fn plain_requests_below_signals_fall_under_the_usual_barrier() {
    let pages = Pages::start().await;
    let token = pages.token(GUEST);
    for path in ["/api/signals", "/api/signals/", "/api/signals/nothing"] {
        let get = || client().get(pages.served.url(path));
        let stranger = get().send().await.unwrap();
        assert_eq!(stranger.status(), 401, "{path}");
        let body: Value = stranger.json().await.unwrap();
        assert_eq!(body["error"]["message"], "Missing credentials");
        let person = get().bearer_auth(&token).send().await.unwrap();
        assert_eq!(person.status(), 404, "{path}");
        assert_eq!(person.text().await.unwrap(), "");
    }
    let health = client().post(pages.served.url("/api/signals/health"));
    assert_eq!(health.send().await.unwrap().status(), 401);
}

#[tokio::test]
async fn a_shutdown_closes_sockets_so_that_they_come_back() {
    let pages = Pages::start().await;
    let mut socket = pages.subscribed(GUEST).await;
    pages.stop.cancel();
    loop {
        match socket.next().await.unwrap().unwrap() {
            Message::Close(Some(frame)) => {
                assert_eq!(u16::from(frame.code), 1012);
                break;
            }
            Message::Text(_) => {}
            other => panic!("{other}"),
        }
    }
}

#[tokio::test]
async fn a_stream_gives_hints_to_its_person() {
    let pages = Pages::start().await;
    let url = pages.served.url("/api/tidings/v1/stream");
    let refused = client().get(&url).bearer_auth("token-of-ci");
    assert_eq!(refused.send().await.unwrap().status(), 403);
    let request = client().get(&url).bearer_auth(pages.token(GUEST));
    let answer = request.send().await.unwrap();
    assert_eq!(answer.headers()["content-type"], "text/event-stream");
    let mut events = answer.bytes_stream();
    let mut heard = String::new();
    while !heard.contains("event: hint") {
        pages
            .announce(&Signal::new_notification(Some(GUEST), Uuid::nil()))
            .await;
        let wait = Duration::from_millis(100);
        if let Ok(part) = tokio::time::timeout(wait, events.next()).await {
            heard.push_str(std::str::from_utf8(&part.unwrap().unwrap()).unwrap());
        }
    }
    assert!(heard.starts_with("event: hello"), "{heard}");
    assert!(heard.contains("new_notification"), "{heard}");
    pages.stop.cancel();
    while let Some(part) = events.next().await {
        part.unwrap();
    }
}

#[tokio::test]
async fn frames_that_are_too_large_end_their_socket_alone() {
    let pages = Pages::start().await;
    let mut good = pages.subscribed(GUEST).await;
    let mut long = pages.subscribed(GUEST).await;
    let text = Message::text("x".repeat((64 << 10) + 1));
    long.send(text).await.unwrap();
    while let Some(Ok(message)) = long.next().await {
        assert!(matches!(message, Message::Text(_)), "{message}");
    }
    // What a frame announces is judged before any of it is waited for.
    let long = pages.subscribed(GUEST).await;
    let mut long = long.into_inner();
    let mut head = vec![0x81, 0xff];
    head.extend((1_u64 << 40).to_be_bytes());
    head.extend([0; 4]);
    long.write_all(&head).await.unwrap();
    let mut heard = Vec::new();
    // Cut, however it was cut.
    let _ = long.read_to_end(&mut heard).await;
    pages
        .announce(&Signal::marked(GUEST, &["still".into()], true))
        .await;
    assert_eq!(
        next(&mut good).await["message"]["notification_ids"][0],
        "still"
    );
}

#[tokio::test]
async fn a_client_that_does_not_read_is_bounded_and_delays_nobody() {
    const SIGNALS: usize = 600;
    let pages = Pages::start().await;
    let mut good = pages.subscribed(GUEST).await;
    let mut lazy = pages.subscribed(GUEST).await;
    let ids = ["x".repeat(64 << 10)];
    for _ in 0..SIGNALS {
        pages.announce(&Signal::marked(GUEST, &ids, true)).await;
        next(&mut good).await;
    }
    let mut read = 0;
    while let Some(Ok(message)) = lazy.next().await {
        read += usize::from(message.is_text() && message.len() > 64 << 10);
    }
    assert!(read < SIGNALS, "{read} were kept for it");
    pages
        .announce(&Signal::marked(GUEST, &["last".into()], true))
        .await;
    assert_eq!(
        next(&mut good).await["message"]["notification_ids"][0],
        "last"
    );
}
