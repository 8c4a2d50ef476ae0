//! The sender `apprise`: against a server that answers as the test wants, and against the real
//! Apprise.
#![cfg(feature = "apprise")]

use std::io::BufRead as _;
use std::io::BufReader;
use std::path::Path;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::http::StatusCode;
use axum::http::Uri;
use serde_json::Value;
use serde_json::json;
use tidings::failure::Failure;
use tidings::failure::Kind;
use tidings::failure::Reason;
use tidings::notification::Payload;
use tidings::processor::Outcome;
use tidings::processor::Outgoing;
use tidings::processor::Sender as _;
use tidings::processor::apprise::Apprise;
use tidings::processor::apprise::config::AppriseConfig;
use tidings::time::Timestamp;
use uuid::Uuid;

use crate::http::Served;

/// What a server got: path, headers, body.
type Call = (String, HeaderMap, Value);

/// A server that keeps what it gets and answers as it is told.
struct Recorder {
    served: Served,
    calls: Arc<Mutex<Vec<Call>>>,
}

type Shared = (Arc<Mutex<Vec<Call>>>, u16);

impl Recorder {
    async fn start(status: u16) -> Self {
        let calls = Arc::new(Mutex::default());
        let state: Shared = (Arc::clone(&calls), status);
        let app = Router::new().fallback(record).with_state(state);
        let served = Served::start(app).await;
        Self { served, calls }
    }

    fn calls(&self) -> Vec<Call> {
        self.calls.lock().unwrap().clone()
    }
}

async fn record(
    State((calls, status)): State<Shared>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> (StatusCode, [(&'static str, &'static str); 2]) {
    let body = serde_json::from_slice(&body).unwrap_or_default();
    calls
        .lock()
        .unwrap()
        .push((uri.path().to_owned(), headers, body));
    if status == 0 {
        std::future::pending::<()>().await;
    }
    let headers = [("retry-after", "42"), ("location", "/elsewhere")];
    (StatusCode::from_u16(status).unwrap(), headers)
}

fn apprise(url: &str, more: Value) -> Apprise {
    let mut config = json!({"url": url});
    config
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    let config: AppriseConfig = serde_json::from_value(config).unwrap();
    Apprise::new(config).unwrap()
}

fn payload(json: Value) -> Payload {
    serde_json::from_value(json).unwrap()
}

fn outgoing<'a>(payload: &'a Payload, recipients: &'a [String], target: &'a str) -> Outgoing<'a> {
    let link = payload
        .link
        .as_deref()
        .unwrap_or("http://localhost:3000/notifications");
    Outgoing {
        delivery: Uuid::from_u128(0xd1),
        notification: Uuid::from_u128(0xa0),
        submission: Uuid::from_u128(0x50),
        origin: "external:ci",
        payload,
        link: link.parse().unwrap(),
        created: Timestamp::now(),
        user: None,
        person: None,
        recipients,
        target,
        earlier: None,
        attempt: 1,
    }
}

/// Hands a notification over that must not be told in errors.
async fn send(apprise: &Apprise, target: &str) -> Outcome {
    apprise
        .send(&outgoing(&payload(json!({"title": "canary"})), &[], target))
        .await
}

fn failure(outcome: Outcome) -> Failure {
    let Outcome::Failed(failure) = outcome else {
        panic!("{outcome:?} is no failure");
    };
    let told = format!("{failure:?}");
    assert!(!told.contains("canary"), "tells too much: {told}");
    failure
}

#[tokio::test]
async fn a_notification_is_handed_over_with_its_type_its_link_and_its_recipients() {
    let server = Recorder::start(200).await;
    let config = json!({"key": "tidings", "tags": "ops", "username": "u", "password": "p"});
    let apprise = apprise(&server.served.url("/sub/"), config);
    let content = payload(
        json!({"title": "Payments is down", "description": "Since 18:42",
        "link": "https://portal.example.com/x", "severity": "critical"}),
    );
    let refs = ["group:default/payments", "user:default/ann"].map(str::to_owned);
    let outcome = apprise.send(&outgoing(&content, &refs, "")).await;
    assert_eq!(outcome, Outcome::Sent { provider_id: None });
    let (path, headers, body) = server.calls().remove(0);
    assert_eq!(path, "/sub/notify/tidings");
    assert_eq!(headers["authorization"], "Basic dTpw");
    assert_eq!(
        headers["idempotency-key"],
        Uuid::from_u128(0xd1).to_string()
    );
    let text = "Since 18:42\n\nhttps://portal.example.com/x\n\nFor group:default/payments, user:default/ann";
    assert_eq!(
        body,
        json!({"title": "Payments is down", "body": text, "type": "failure",
        "format": "text", "tag": ["ops"]})
    );
}

#[tokio::test]
async fn services_of_the_configuration_travel_with_it_and_the_severity_gives_the_type() {
    let server = Recorder::start(200).await;
    let apprise = apprise(
        &server.served.url(""),
        json!({"urls": ["json://a", "json://b"]}),
    );
    for (severity, kind) in [("high", "warning"), ("normal", "info"), ("low", "info")] {
        let content = payload(json!({"title": "t", "severity": severity}));
        apprise.send(&outgoing(&content, &[], "")).await;
        let (path, _, body) = server.calls().pop().unwrap();
        assert_eq!((path.as_str(), &body["type"]), ("/notify", &json!(kind)));
        assert_eq!(body["urls"], json!(["json://a", "json://b"]));
        assert_eq!(body["body"], "For everybody");
    }
}

#[tokio::test]
async fn routes_are_targets_of_their_own() {
    let server = Recorder::start(200).await;
    let routes = json!({"key": "tidings", "routes": [
        {"name": "oncall", "tags": "oncall", "filter": {"minSeverity": "critical"}},
        {"origin": "external:ci", "urls": "json://ci"},
        {"origin": "other", "tags": "other"}]});
    let apprise = apprise(&server.served.url(""), routes);
    let targets = async |severity: &str| {
        let content = payload(json!({"title": "t", "severity": severity}));
        apprise.targets(&outgoing(&content, &[], "")).await.unwrap()
    };
    assert_eq!(targets("critical").await, ["oncall", "2"]);
    assert_eq!(targets("low").await, ["2"]);
    send(&apprise, "oncall").await;
    send(&apprise, "2").await;
    let calls = server.calls();
    assert_eq!(
        (calls[0].0.as_str(), &calls[0].2["tag"]),
        ("/notify/tidings", &json!(["oncall"]))
    );
    assert_eq!(
        (calls[1].0.as_str(), &calls[1].2["urls"]),
        ("/notify", &json!(["json://ci"]))
    );
    let outcome = send(&apprise, "gone").await;
    let Outcome::Skipped {
        reason: Reason::Config,
        ..
    } = outcome
    else {
        panic!("{outcome:?}");
    };
}

#[tokio::test]
async fn what_no_route_takes_goes_nowhere_unless_there_are_services_for_all() {
    let server = Recorder::start(200).await;
    let routes = json!([{"origin": "other", "key": "k"}]);
    let outcome = send(
        &apprise(&server.served.url(""), json!({"routes": routes})),
        "",
    )
    .await;
    let Outcome::Skipped {
        reason: Reason::Muted,
        ..
    } = outcome
    else {
        panic!("{outcome:?}");
    };
    send(
        &apprise(
            &server.served.url(""),
            json!({"routes": routes, "key": "all"}),
        ),
        "",
    )
    .await;
    let paths: Vec<String> = server.calls().into_iter().map(|one| one.0).collect();
    assert_eq!(paths, ["/notify/all"]);
}

#[tokio::test]
async fn every_answer_has_its_meaning() {
    let transient = Kind::Transient { after: None };
    let later = Kind::Transient {
        after: Some(Duration::from_secs(42)),
    };
    let key = json!({"key": "canary-key", "timeout": "1s"});
    let one = json!({"urls": ["json://canary"]});
    for (status, config, kind, reason) in [
        (204, &key, Kind::Permanent, Reason::Config),
        (424, &key, Kind::Permanent, Reason::Rejected),
        (424, &one, transient, Reason::Rejected),
        (400, &key, Kind::Permanent, Reason::Rejected),
        (401, &key, Kind::Dependency, Reason::Auth),
        (404, &key, Kind::Dependency, Reason::Config),
        (302, &key, Kind::Dependency, Reason::Config),
        (429, &key, later, Reason::Rate),
        (500, &key, transient, Reason::Server),
        // It never answers.
        (0, &key, transient, Reason::Timeout),
    ] {
        let server = Recorder::start(status).await;
        let apprise = apprise(&server.served.url(""), config.clone());
        let failure = failure(send(&apprise, "").await);
        assert_eq!(
            (failure.kind, failure.reason),
            (kind, reason),
            "{status}: {failure}"
        );
        assert_eq!(server.calls().len(), 1);
    }
}

#[tokio::test]
async fn where_nothing_listens_everything_waits() {
    let server = Recorder::start(200).await;
    let url = server.served.url("");
    drop(server);
    let apprise = apprise(&url, json!({"key": "k"}));
    let failure = failure(send(&apprise, "").await);
    assert_eq!(
        (failure.kind, failure.reason),
        (Kind::Dependency, Reason::Network)
    );
    assert_eq!(apprise.probe().await.unwrap_err().kind, Kind::Dependency);
}

/// The real Apprise behind a server of the test's own: the library is a package, its server is not.
struct Real {
    child: Child,
    url: String,
}

impl Real {
    fn start(keys: &Value) -> Self {
        let python = std::env::var("TIDINGS_TEST_PYTHON")
            .expect("TIDINGS_TEST_PYTHON is not set: start the tests by tests/run");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/apprise/server.py");
        let mut child = Command::new(python)
            .arg(script)
            .arg(keys.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut port = String::new();
        let out = child.stdout.take().unwrap();
        BufReader::new(out).read_line(&mut port).unwrap();
        let url = format!("http://127.0.0.1:{}", port.trim());
        Self { child, url }
    }
}

impl Drop for Real {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn distributed_the_real_apprise_hands_it_to_its_services() {
    let service = Recorder::start(200).await;
    let broken = Recorder::start(500).await;
    let json_of = |server: &Recorder, path: &str| format!("json://{}{path}", server.served.address);
    let keys = json!({"tidings": [[json_of(&service, "/ops"), "ops"], [json_of(&service, "/dev"), "dev"]],
        "broken": [[json_of(&broken, "/"), "x"]]});
    let real = tokio::task::block_in_place(|| Real::start(&keys));
    let content = payload(
        json!({"title": "Payments is down", "description": "Since 18:42",
        "severity": "high"}),
    );
    let hand = async |config: Value| {
        let apprise = apprise(&real.url, config);
        apprise.send(&outgoing(&content, &[], "")).await
    };
    assert_eq!(
        apprise(&real.url, json!({"key": "k"}))
            .probe()
            .await
            .unwrap(),
        "it is well"
    );

    let sent = Outcome::Sent { provider_id: None };
    assert_eq!(hand(json!({"key": "tidings", "tags": "ops"})).await, sent);
    let (path, _, body) = service.calls().remove(0);
    assert_eq!(path, "/ops");
    assert_eq!(
        (&body["title"], &body["type"]),
        (&json!("Payments is down"), &json!("warning"))
    );
    assert_eq!(body["message"], "Since 18:42\n\nFor everybody");
    assert_eq!(hand(json!({"key": "tidings"})).await, sent);
    assert_eq!(service.calls().len(), 3);
    assert_eq!(
        hand(json!({"urls": json_of(&service, "/direct")})).await,
        sent
    );
    assert_eq!(service.calls()[3].0, "/direct");

    let outcome = hand(json!({"key": "broken"})).await;
    assert_eq!(failure(outcome).reason, Reason::Rejected);
    let outcome = hand(json!({"key": "unknown"})).await;
    assert_eq!(failure(outcome).reason, Reason::Config);
}
