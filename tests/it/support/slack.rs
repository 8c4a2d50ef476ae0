//! A small Slack inside a test: it keeps every call, knows who has which address, and fails where
//! the script says so.

use std::collections::HashMap;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::SystemTime;

use axum::Router;
use axum::body::Body;
use axum::body::Bytes;
use axum::extract::Path;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::http::Response;
use axum::routing::post;
use futures::StreamExt as _;
use futures::stream;
use serde_json::Value;
use serde_json::json;

use crate::http::Served;

/// The bot token that it accepts.
pub(crate) const TOKEN: &str = "xoxb-canary-token";

/// A call that it got.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) method: String,
    /// The fields of a form are text.
    pub(crate) body: Value,
}

/// What goes wrong with a call.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// `ok: false` with this error.
    Says(&'static str),
    /// This status, with these headers and nothing else.
    Answers(u16, &'static [(&'static str, &'static str)]),
    /// Never an answer.
    Hangs,
    /// Half an answer, then the end.
    Breaks,
    /// Something that is no JSON.
    Babbles,
}

#[derive(Default)]
struct Room {
    calls: Vec<Call>,
    people: HashMap<String, String>,
    /// By method, each for one call.
    faults: HashMap<&'static str, VecDeque<Fault>>,
    /// By channel, for every call.
    closed: HashMap<&'static str, Fault>,
    posted: u32,
    scopes: Option<&'static str>,
}

/// The server. It ends when it is dropped.
pub(crate) struct Slack {
    served: Served,
    room: Arc<Mutex<Room>>,
}

impl Slack {
    pub(crate) async fn start() -> Self {
        let room = Arc::new(Mutex::new(Room::default()));
        let app = Router::new()
            .route("/api/{method}", post(answer))
            .with_state(Arc::clone(&room));
        let served = Served::start(app).await;
        Self { served, room }
    }

    /// What `apiUrl` is to be.
    pub(crate) fn url(&self) -> String {
        self.served.url("/api/")
    }

    /// Somebody with this address has this id.
    pub(crate) fn knows(&self, email: &str, id: &str) {
        let people = &mut self.room.lock().unwrap().people;
        people.insert(email.to_owned(), id.to_owned());
    }

    /// The next call of this method goes wrong.
    pub(crate) fn fails(&self, method: &'static str, fault: Fault) {
        let faults = &mut self.room.lock().unwrap().faults;
        faults.entry(method).or_default().push_back(fault);
    }

    /// Every message to this channel goes wrong.
    pub(crate) fn closes(&self, channel: &'static str, fault: Fault) {
        self.room.lock().unwrap().closed.insert(channel, fault);
    }

    /// It tells what the token may do.
    pub(crate) fn allows(&self, scopes: &'static str) {
        self.room.lock().unwrap().scopes = Some(scopes);
    }

    /// The calls of a method, in order.
    pub(crate) fn calls(&self, method: &str) -> Vec<Value> {
        let calls = &self.room.lock().unwrap().calls;
        let of_method = calls.iter().filter(|one| one.method == method);
        of_method.map(|one| one.body.clone()).collect()
    }

    /// Where messages were posted, sorted.
    pub(crate) fn channels(&self) -> Vec<String> {
        let posted = self.calls("chat.postMessage");
        let channel = |body: &Value| body["channel"].as_str().unwrap().to_owned();
        let mut channels: Vec<String> = posted.iter().map(channel).collect();
        channels.sort();
        channels
    }
}

async fn answer(
    State(room): State<Arc<Mutex<Room>>>,
    Path(method): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response<Body> {
    let body: Value = match headers["content-type"].to_str().unwrap() {
        "application/json" => serde_json::from_slice(&body).unwrap(),
        _ => url::form_urlencoded::parse(&body)
            .into_owned()
            .collect::<HashMap<_, _>>()
            .into_iter()
            .map(|(key, value)| (key, Value::String(value)))
            .collect::<serde_json::Map<_, _>>()
            .into(),
    };
    let channel = body["channel"].as_str().unwrap_or_default().to_owned();
    let (fault, answer, scopes) = {
        let mut room = room.lock().unwrap();
        room.calls.push(Call {
            method: method.clone(),
            body: body.clone(),
        });
        let fault = room
            .faults
            .get_mut(method.as_str())
            .and_then(VecDeque::pop_front)
            .or_else(|| room.closed.get(channel.as_str()).cloned());
        let authorized = headers["authorization"] == format!("Bearer {TOKEN}");
        let answer = if authorized {
            room.answer(&method, &body)
        } else {
            json!({"ok": false, "error": "invalid_auth"})
        };
        (fault, answer, room.scopes)
    };
    let mut response = Response::builder().header("content-type", "application/json");
    if let Some(scopes) = scopes {
        response = response.header("x-oauth-scopes", scopes);
    }
    let body = match fault {
        None => Body::from(answer.to_string()),
        Some(Fault::Says(error)) => Body::from(json!({"ok": false, "error": error}).to_string()),
        Some(Fault::Answers(status, headers)) => {
            response = response.status(status);
            for (name, value) in headers {
                response = response.header(*name, *value);
            }
            Body::empty()
        }
        Some(Fault::Hangs) => std::future::pending().await,
        Some(Fault::Breaks) => {
            let half = stream::iter([Ok(Bytes::from_static(b"{\"ok\":")), Err("the end")]);
            Body::from_stream(half.boxed())
        }
        Some(Fault::Babbles) => Body::from("<html>"),
    };
    response.body(body).unwrap()
}

impl Room {
    fn answer(&mut self, method: &str, body: &Value) -> Value {
        match method {
            "users.lookupByEmail" => match self.people.get(body["email"].as_str().unwrap()) {
                Some(id) => json!({"ok": true, "user": {"id": id, "name": "somebody"}}),
                None => json!({"ok": false, "error": "users_not_found"}),
            },
            "chat.postMessage" => {
                self.posted += 1;
                // A direct message lies in a channel of its own.
                let channel = body["channel"].as_str().unwrap().replacen('U', "D", 1);
                let now = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
                let ts = format!("{now}.{:06}", self.posted);
                json!({"ok": true, "channel": channel, "ts": ts})
            }
            "chat.update" => json!({"ok": true, "channel": body["channel"], "ts": body["ts"]}),
            "auth.test" => json!({"ok": true, "team": "Acme", "user": "tidings"}),
            other => panic!("there is no method {other}"),
        }
    }
}
