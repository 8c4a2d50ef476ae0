//! The endpoint for producers, with the real queue behind it and the test as its decorator.

use std::sync::Arc;
use std::time::Duration;

use reqwest::RequestBuilder;
use serde_json::Value;
use serde_json::json;
use tempfile::TempDir;
use tidings::auth::Auth;
use tidings::auth::Scopes;
use tidings::auth::StaticToken;
use tidings::auth::UserKey;
use tidings::http::app;
use tidings::ingest;
use tidings::ingest::IngestParts;
use tidings::ingest::Waiter;
use tidings::queue::Queue;
use tidings::queue::sqlite::SqliteQueue;
use tidings::reply::Reply;
use tidings::sqlite::Sqlite;
use tidings::submission::Invalid;
use tidings::submission::Submission;
use tidings::telemetry::Event;
use tidings::telemetry::Events;
use tidings::topology;
use tokio_util::sync::CancellationToken;

use super::Served;
use super::client;

const SEND: &str = "/api/notifications/notifications";
const BODY_LIMIT: usize = 4096;

struct Ingest {
    served: Served,
    queue: Arc<dyn Queue>,
    events: Events,
    key: UserKey,
    stop: CancellationToken,
    _dir: TempDir,
}

impl Drop for Ingest {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Ingest {
    async fn start() -> Self {
        Self::with_limit(1_000_000).await
    }

    /// With a queue that takes so many submissions.
    async fn with_limit(limit: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let sqlite = Sqlite::open(dir.path()).unwrap();
        let queue = SqliteQueue::with_limit(sqlite, &topology::queues(&[]), limit);
        let queue: Arc<dyn Queue> = Arc::new(queue);
        let stop = CancellationToken::new();
        let waiter = Waiter::default();
        tokio::spawn(waiter.clone().run(Arc::clone(&queue), stop.clone()));
        while !waiter.is_open() {
            tokio::task::yield_now().await;
        }
        let ci = StaticToken {
            token: "token-of-ci".into(),
            subject: "external:ci".into(),
            scopes: Scopes::SEND,
            plugins: None,
        };
        let key = UserKey::from_bytes(&[3; 32]);
        let events = Events::default();
        let parts = IngestParts {
            queue: Arc::clone(&queue),
            waiter,
            events: events.clone(),
            base_url: "http://localhost:3000".parse().unwrap(),
            body_limit: BODY_LIMIT,
            wait: Duration::ZERO,
            deadline: Duration::from_millis(300),
            defer_content: false,
        };
        let auth = Auth::new(vec![ci], Some(key.clone()));
        let served = Served::start(app(ingest::routes(parts), &auth)).await;
        Self {
            served,
            queue,
            events,
            key,
            stop,
            _dir: dir,
        }
    }

    fn post(&self, path: &str) -> RequestBuilder {
        client()
            .post(self.served.url(path))
            .bearer_auth("token-of-ci")
    }

    /// What is on the queue, decoded, and answered with what `answer` makes of it.
    async fn take(&self, answer: impl Fn(&Submission) -> Reply) -> Vec<Submission> {
        let lanes = vec![topology::SUBMISSIONS.to_owned()];
        let mut consumer = self.queue.consumer(lanes).await.unwrap();
        let taken = consumer.take(10).await.unwrap();
        let mut submissions = Vec::new();
        let mut ended = Vec::new();
        for message in taken {
            let submission: Submission = serde_json::from_slice(&message.body).unwrap();
            if let Some(to) = &message.reply {
                let reply = serde_json::to_vec(&answer(&submission)).unwrap();
                self.queue.answer(to, reply.into()).await;
            }
            submissions.push(submission);
            ended.push(message.complete(vec![]));
        }
        consumer.finish(ended).await.unwrap();
        submissions
    }

    async fn waiting(&self) -> u64 {
        let depths = self.queue.depths().await.unwrap();
        depths
            .iter()
            .filter(|depth| depth.key == topology::SUBMISSIONS)
            .map(|depth| depth.ready)
            .sum()
    }
}

fn hello() -> Value {
    json!({"recipients": {"type": "entity", "entityRef": "user:default/guest"},
        "payload": {"title": "Hello", "later": 1}, "origin": "forged"})
}

/// Status and body of an answer; an empty body is null.
async fn answer(request: RequestBuilder) -> (u16, Value) {
    let answer = request.send().await.unwrap();
    let status = answer.status().as_u16();
    let text = answer.text().await.unwrap();
    (status, serde_json::from_str(&text).unwrap_or(Value::Null))
}

#[tokio::test]
async fn what_is_accepted_is_on_the_queue_with_the_callers_origin() {
    let ingest = Ingest::start().await;
    let mut heard = ingest.events.listen();
    let request = ingest
        .post(SEND)
        .header("idempotency-key", "build-42")
        .json(&hello());
    let answer = request.send().await.unwrap();
    assert_eq!(answer.status(), 202);
    let location = answer.headers()["location"].to_str().unwrap().to_owned();
    let body: Value = answer.json().await.unwrap();
    assert_eq!(body["status"], "accepted");
    let taken = ingest.take(|one| Reply::accepted(one.header.id)).await;
    let [submission] = &taken[..] else {
        panic!("{taken:?}");
    };
    assert_eq!(body["submission"], submission.header.id.to_string());
    assert!(location.ends_with(&format!("/submissions/{}", submission.header.id)));
    assert_eq!(submission.header.origin, "external:ci");
    assert_eq!(submission.header.key.as_deref(), Some("build-42"));
    assert_eq!(submission.payload.extra["later"], 1);
    assert!(matches!(heard.recv().await, Ok(Event::Accepted { title, .. }) if title == "Hello"));
}

#[tokio::test]
async fn the_same_key_is_the_same_submission_on_every_path() {
    let ingest = Ingest::start().await;
    let mut ids = Vec::new();
    for path in [SEND, "/api/notifications", "/API/Notifications/"] {
        let request = ingest.post(path).header("idempotency-key", "\"k-1\"");
        let (status, body) = answer(request.json(&hello())).await;
        assert_eq!(status, 202, "{body}");
        ids.push(body["submission"].clone());
    }
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
}

#[tokio::test]
async fn who_waits_hears_what_was_stored_or_why_not() {
    let ingest = Ingest::start().await;
    let stored = json!([{"id": "x", "payload": {"title": "Hello"}}]);
    let request = || {
        ingest
            .post(SEND)
            .header("prefer", "wait=30")
            .json(&hello())
            .send()
    };
    let (sent, _) = tokio::join!(
        request(),
        ingest.take(|one| Reply::stored(one.header.id, stored.as_array().unwrap().clone(), vec![]))
    );
    let sent = sent.unwrap();
    assert_eq!(sent.status(), 200);
    assert_eq!(sent.headers()["preference-applied"], "wait=30");
    assert_eq!(sent.json::<Value>().await.unwrap(), stored);
    let refusal = Invalid::at("#/recipients/entityRef", "is no ref");
    let (sent, _) = tokio::join!(
        request(),
        ingest.take(|one| Reply::invalid(Some(one.header.id), refusal.clone()))
    );
    let sent = sent.unwrap();
    assert_eq!(sent.status(), 400);
    let body: Value = sent.json().await.unwrap();
    assert_eq!(
        body["error"]["errors"][0]["pointer"],
        "#/recipients/entityRef"
    );
    let (sent, _) = tokio::join!(request(), ingest.take(|one| Reply::accepted(one.header.id)));
    assert_eq!(sent.unwrap().status(), 202);
}

#[tokio::test]
async fn who_does_not_wait_long_enough_is_answered_202() {
    let ingest = Ingest::start().await;
    let request = ingest.post(SEND).header("prefer", "wait=1").json(&hello());
    let (status, body) = answer(request).await;
    assert_eq!((status, &body["status"]), (202, &json!("accepted")));
}

#[tokio::test]
async fn strangers_learn_nothing_and_services_find_an_empty_404() {
    let ingest = Ingest::start().await;
    let http = client();
    for (method, path) in [
        ("POST", SEND),
        ("GET", "/api/notifications/no/such/path"),
        ("OPTIONS", SEND),
        ("GET", "/api/tidings/v1/status"),
    ] {
        let url = ingest.served.url(path);
        let request = || http.request(method.parse().unwrap(), &url);
        let (status, body) = answer(request()).await;
        assert_eq!(status, 401, "{method} {path}");
        assert_eq!(body["error"]["message"], "Missing credentials");
        assert_eq!(body["error"]["name"], "AuthenticationError");
        let (status, body) = answer(request().bearer_auth("nonsense")).await;
        assert_eq!(
            (status, &body["error"]["message"]),
            (401, &json!("Illegal token"))
        );
    }
    let request = http.get(ingest.served.url(SEND)).bearer_auth("token-of-ci");
    let sent = request.send().await.unwrap();
    assert_eq!(sent.status(), 404);
    assert!(sent.headers().contains_key("x-request-id"));
    assert_eq!(sent.text().await.unwrap(), "");
}

#[tokio::test]
async fn the_body_is_judged_before_the_kind_of_caller_and_its_content_after() {
    let ingest = Ingest::start().await;
    let user = ingest
        .key
        .sign("user:default/guest", Duration::from_secs(60))
        .unwrap();
    let url = ingest.served.url(SEND);
    let as_user = |body: Value| answer(client().post(&url).bearer_auth(&user).json(&body));
    let (status, body) = as_user(json!({})).await;
    assert_eq!(
        (status, &body["request"]["url"]),
        (400, &json!("/notifications"))
    );
    let (status, body) = as_user(hello()).await;
    assert_eq!(status, 403);
    assert_eq!(
        body["error"]["message"],
        "This endpoint does not allow 'user' credentials"
    );
    let untitled = json!({"recipients": {"type": "broadcast"}, "payload": {"title": ""}});
    assert_eq!(as_user(untitled.clone()).await.0, 403);
    let (status, body) = answer(ingest.post(SEND).json(&untitled)).await;
    assert_eq!(status, 400);
    assert_eq!(body["error"]["errors"][0]["pointer"], "#/payload/title");
}

#[tokio::test]
async fn bad_input_is_refused_in_the_peers_shape_and_nothing_is_published() {
    let ingest = Ingest::start().await;
    let json_type = ("content-type", "application/json");
    let post = || ingest.post(SEND);
    let link = json!({"recipients": {"type": "broadcast"},
        "payload": {"title": "t", "link": "javascript:alert(1)"}});
    for (request, words) in [
        (post().header(json_type.0, json_type.1).body("{"), "JSON"),
        (post().body("{}"), "unsupported media type"),
        (
            post().header("content-type", "text/plain").body("{}"),
            "text/plain",
        ),
        (
            post()
                .header(json_type.0, json_type.1)
                .body("x".repeat(BODY_LIMIT + 1)),
            "request entity too large",
        ),
        (
            post()
                .header(json_type.0, json_type.1)
                .body("x".repeat(3 << 20)),
            "request entity too large",
        ),
        (
            post().json(&hello()).header("idempotency-key", "a b"),
            "Idempotency-Key",
        ),
        (post().json(&link), "Invalid link provided"),
        (
            ingest.post(&format!("{SEND}?x=1")).json(&hello()),
            "Unknown query parameter 'x'",
        ),
    ] {
        let (status, body) = answer(request).await;
        let message = body["error"]["message"].as_str().unwrap_or_default();
        assert_eq!(status, 400, "{words}: {body}");
        assert_eq!(body["error"]["name"], "InputError");
        assert_eq!(body["response"]["statusCode"], 400);
        assert!(message.contains(words), "{words}: {message}");
    }
    assert_eq!(ingest.waiting().await, 0);
}

#[tokio::test]
async fn a_full_queue_is_503_with_the_key_to_repeat_under() {
    let ingest = Ingest::with_limit(1).await;
    assert_eq!(answer(ingest.post(SEND).json(&hello())).await.0, 202);
    let sent = ingest.post(SEND).json(&hello()).send().await.unwrap();
    assert_eq!(sent.status(), 503);
    assert_eq!(sent.headers()["retry-after"], "5");
    let body: Value = sent.json().await.unwrap();
    let key = body["error"]["idempotencyKey"].as_str().unwrap();
    ingest.take(|one| Reply::accepted(one.header.id)).await;
    let again = ingest.post(SEND).header("idempotency-key", key);
    let (status, repeated) = answer(again.json(&hello())).await;
    assert_eq!(status, 202);
    assert_eq!(repeated["submission"], body["error"]["submission"]);
}

#[tokio::test]
async fn a_drain_answers_what_is_in_hand() {
    let mut ingest = Ingest::start().await;
    let request = ingest.post(SEND).header("prefer", "wait=30").json(&hello());
    let sent = tokio::spawn(request.send());
    let taken = ingest
        .queue
        .consumer(vec![topology::SUBMISSIONS.to_owned()]);
    let message = taken.await.unwrap().take(1).await.unwrap().remove(0);
    let to = message.reply.clone().unwrap();
    ingest.served.stop.cancel();
    let reply = serde_json::to_vec(&Reply::accepted(uuid::Uuid::nil())).unwrap();
    ingest.queue.answer(&to, reply.into()).await;
    assert_eq!(sent.await.unwrap().unwrap().status(), 202);
    ingest.served.drain().await;
}
