//! A real HTTP server inside a test: it takes requests on a port of its own, keeps what it took, and
//! fails where the script says so. By hand, since a library would not hang up in the middle.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;

use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

/// A request that came.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) path: String,
    /// By lower-case name.
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

/// What the server does with a request.
#[derive(Clone, Debug)]
pub(crate) enum Act {
    /// Answers with this status, these header lines and this body.
    Answer(u16, &'static str, &'static str),
    /// Never answers.
    Hang,
    /// Closes the connection without an answer.
    Close,
    /// Answers half a line, and closes its side alone.
    HalfClose,
    /// Answers 200 and a body that never ends.
    Endless,
}

/// The server. It stops when this is dropped.
pub(crate) struct Hook {
    address: SocketAddr,
    accepting: JoinHandle<()>,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    act: Option<Act>,
    requests: Vec<Request>,
    connections: Vec<JoinHandle<()>>,
}

impl Hook {
    /// A server that answers 200 to everything.
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, state) = (
            listener.local_addr().unwrap(),
            Arc::<Mutex<State>>::default(),
        );
        let shared = Arc::clone(&state);
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let serving = tokio::spawn(serve(stream, Arc::clone(&shared)));
                shared.lock().unwrap().connections.push(serving);
            }
        });
        Self {
            address,
            accepting,
            state,
        }
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// An address of it.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// What it does from now on; `None`: answers 200.
    pub(crate) fn act(&self, act: Option<Act>) {
        self.state.lock().unwrap().act = act;
    }

    /// What came so far.
    pub(crate) fn requests(&self) -> Vec<Request> {
        self.state.lock().unwrap().requests.clone()
    }
}

impl Drop for Hook {
    fn drop(&mut self) {
        self.accepting.abort();
        for one in &self.state.lock().unwrap().connections {
            one.abort();
        }
    }
}

async fn serve(mut stream: TcpStream, state: Arc<Mutex<State>>) {
    let mut read = Vec::new();
    while let Some(request) = request(&mut stream, &mut read).await {
        let act = {
            let mut state = state.lock().unwrap();
            state.requests.push(request);
            state.act.clone()
        };
        let written = match act {
            None => {
                stream
                    .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
                    .await
            }
            Some(Act::Answer(code, headers, body)) => {
                let length = body.len();
                let answer = format!(
                    "HTTP/1.1 {code} So\r\ncontent-length: {length}\r\n{headers}\r\n{body}"
                );
                stream.write_all(answer.as_bytes()).await
            }
            Some(Act::Hang) => std::future::pending().await,
            Some(Act::Close) => return,
            Some(Act::HalfClose) => {
                let _ = stream.write_all(b"HTTP/1.1 20").await;
                let _ = stream.shutdown().await;
                std::future::pending().await
            }
            Some(Act::Endless) => {
                let head = b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n";
                let mut written = stream.write_all(head).await;
                while written.is_ok() {
                    written = stream.write_all(&[b'x'; 4096]).await;
                }
                written
            }
        };
        if written.is_err() {
            return;
        }
    }
}

/// The next request of a connection.
async fn request(stream: &mut TcpStream, read: &mut Vec<u8>) -> Option<Request> {
    let end = loop {
        if let Some(at) = read.windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 4;
        }
        more(stream, read).await?;
    };
    let head = String::from_utf8(read[..end].to_vec()).unwrap();
    let mut lines = head.lines();
    let path = lines.next()?.split(' ').nth(1)?.to_owned();
    let headers: BTreeMap<String, String> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
        .collect();
    let length: usize = headers
        .get("content-length")
        .map_or(0, |length| length.parse().unwrap());
    while read.len() < end + length {
        more(stream, read).await?;
    }
    let body = read[end..end + length].to_vec();
    read.drain(..end + length);
    Some(Request {
        path,
        headers,
        body,
    })
}

async fn more(stream: &mut TcpStream, read: &mut Vec<u8>) -> Option<()> {
    let mut part = [0; 4096];
    match stream.read(&mut part).await {
        Ok(0) | Err(_) => None,
        Ok(count) => {
            read.extend(&part[..count]);
            Some(())
        }
    }
}
