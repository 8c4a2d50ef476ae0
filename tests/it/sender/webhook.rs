//! The sender `webhook` and an endpoint.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::sync::Mutex;

use futures::future::BoxFuture;
use serde_json::Value;
use serde_json::json;
use tidings::delivery::DeliveryState;
use tidings::failure::Kind;
use tidings::failure::Reason;
use tidings::processor::Filter;
use tidings::processor::Outcome;
use tidings::processor::Sender;
use tidings::processor::webhook::EndpointConfig;
use tidings::processor::webhook::Lookup;
use tidings::processor::webhook::System;
use tidings::processor::webhook::Webhook;

use super::Means;
use super::Service;
use super::house;
use super::means;
use super::send;
use crate::http::client;
use crate::http::house::OPERATOR;
use crate::support::hook::Act;
use crate::support::hook::Hook;
use crate::support::hook::Request;

/// Base64 of 27 bytes that says what it is.
const OLD: &str = "whsec_canarycanarycanarycanarycanarycanary";
const NEW: &str = "whsec_CanaryCanaryCanaryCanaryCanaryCanary";

pub(crate) struct Posts(Hook);

fn webhook(endpoints: Value, lookup: Arc<dyn Lookup>) -> Webhook {
    let endpoints: Vec<EndpointConfig> = serde_json::from_value(endpoints).unwrap();
    Webhook::new(&endpoints, &lookup).unwrap()
}

fn endpoint(url: &str) -> Value {
    json!({"name": "one", "url": url, "secret": NEW, "secrets": [OLD], "timeout": "300ms",
        "allowPrivate": true})
}

impl Service for Posts {
    type Act = Act;

    async fn start() -> Self {
        Self(Hook::start().await)
    }

    fn sender(&self, filter: Filter) -> Arc<dyn Sender> {
        let endpoint = endpoint(&self.0.url("/canary?key=canary"));
        let mut endpoint: EndpointConfig = serde_json::from_value(endpoint).unwrap();
        endpoint.filter = filter;
        Arc::new(Webhook::new(&[endpoint], &(Arc::new(System) as Arc<dyn Lookup>)).unwrap())
    }

    fn target() -> &'static str {
        "one"
    }

    fn act(&self, act: Option<Act>) {
        self.0.act(act);
    }

    fn answers() -> Vec<(Act, Means)> {
        use Means::Later;
        use Means::Permanent;
        use Means::Sent;
        use Means::Transient;
        let answer = |code, means| (Act::Answer(code, "", "canary"), means);
        let asks = |code, means| (Act::Answer(code, "retry-after: 17\r\n", ""), means);
        vec![
            answer(200, Sent),
            answer(204, Sent),
            (Act::Endless, Sent),
            (
                Act::Answer(302, "location: http://127.0.0.1/canary\r\n", ""),
                Permanent(Reason::Rejected),
            ),
            answer(307, Permanent(Reason::Rejected)),
            answer(400, Permanent(Reason::Rejected)),
            answer(401, Permanent(Reason::Auth)),
            answer(403, Permanent(Reason::Auth)),
            answer(404, Permanent(Reason::Rejected)),
            answer(408, Transient(Reason::Timeout)),
            answer(410, Means::Gone),
            answer(425, Transient(Reason::Server)),
            answer(429, Transient(Reason::Rate)),
            asks(429, Later(Reason::Rate, 17)),
            answer(500, Transient(Reason::Server)),
            asks(503, Later(Reason::Server, 17)),
            (Act::Hang, Means::Waits(Reason::Timeout)),
            (Act::Close, Transient(Reason::Network)),
        ]
    }

    fn silences() -> Vec<Act> {
        vec![Act::Hang, Act::Close, Act::HalfClose]
    }

    fn keys(&self) -> Vec<String> {
        let requests = self.0.requests();
        requests
            .into_iter()
            .map(|one| one.headers["webhook-id"].clone())
            .collect()
    }
}

/// What a receiver of Standard Webhooks says of a request, by the specification's own library.
fn verify(secret: &str, request: &Request) -> bool {
    let python = std::env::var("TIDINGS_TEST_PYTHON")
        .expect("TIDINGS_TEST_PYTHON is not set: start the tests by tests/run");
    let script = "import json, sys; from standardwebhooks.webhooks import Webhook
Webhook(sys.argv[1]).verify(sys.argv[3].encode(), json.loads(sys.argv[2]))";
    let checked = Command::new(python)
        .args(["-c", script, secret])
        .arg(serde_json::to_string(&request.headers).unwrap())
        .arg(std::str::from_utf8(&request.body).unwrap())
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&checked.stderr);
    let refused = told.contains("WebhookVerificationError");
    assert!(checked.status.success() || refused, "{told}");
    checked.status.success()
}

#[tokio::test]
async fn a_distributed_receiver_verifies_with_the_old_key_and_with_the_new_one() {
    let posts = Posts::start().await;
    let outcome = send::<Posts>(posts.sender(Filter::ALL).as_ref(), 1).await;
    assert_eq!(means(&outcome), Means::Sent);
    let mut request = posts.0.requests().remove(0);
    assert_eq!(request.path, "/canary?key=canary");
    assert!(verify(OLD, &request) && verify(NEW, &request));
    assert!(!verify("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", &request));
    request.body.push(b' ');
    assert!(!verify(NEW, &request));
}

#[tokio::test]
async fn a_body_is_as_its_schema_says() {
    let posts = Posts::start().await;
    let _ = send::<Posts>(posts.sender(Filter::ALL).as_ref(), 1).await;
    let body: Value = serde_json::from_slice(&posts.0.requests()[0].body).unwrap();
    let schema = include_str!("../../../schemas/webhook.schema.json");
    let schema: Value = serde_json::from_str(schema).unwrap();
    jsonschema::validate(&schema, &body).unwrap();
    assert_eq!(body["data"]["origin"], "external:ci");
    assert_eq!(
        body["data"]["recipients"],
        json!({"type": "entity", "entityRefs": ["group:default/payments"]})
    );
    assert_eq!(body["data"]["payload"]["title"], "canary");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_endpoint_gets_once_what_its_filter_and_its_origins_let_pass() {
    let hook = Hook::start().await;
    let at = |name: &str, more: Value| {
        let mut endpoint = endpoint(&hook.url(&format!("/{name}")));
        let fields = endpoint.as_object_mut().unwrap();
        fields.insert("name".into(), name.into());
        fields.extend(more.as_object().unwrap().clone());
        endpoint
    };
    let sender = webhook(
        json!([
            at("all", json!({})),
            at(
                "deploys",
                json!({"filter": {"includedTopics": ["deploys"]}})
            ),
            at("urgent", json!({"filter": {"minSeverity": "critical"}})),
            at("ours", json!({"origins": ["external:ci"]})),
            at("theirs", json!({"origins": ["external:other"]})),
        ]),
        Arc::new(System),
    );
    let house = house(Arc::new(sender)).await;
    let payload = json!({"title": "t", "topic": "deploys"});
    // Two people, one post.
    let recipients =
        json!({"type": "entity", "entityRef": ["user:default/ann", "user:default/bo"]});
    house.story_of("external:ci", recipients, payload).await;
    let mut paths: Vec<_> = hook.requests().into_iter().map(|one| one.path).collect();
    paths.sort();
    assert_eq!(paths, ["/all", "/deploys", "/ours"]);
}

/// A resolver that gives another answer each time.
struct Rebinding(Mutex<Vec<&'static str>>);

impl Lookup for Rebinding {
    fn lookup(&self, _: String) -> BoxFuture<'static, std::io::Result<Vec<SocketAddr>>> {
        let mut answers = self.0.lock().unwrap();
        let answer = if answers.len() == 1 {
            answers[0]
        } else {
            answers.remove(0)
        };
        let found = answer.split_whitespace();
        let found: Vec<SocketAddr> = found
            .map(|ip| SocketAddr::new(ip.parse().unwrap(), 0))
            .collect();
        Box::pin(async move { Ok(found) })
    }
}

/// What comes of sending to a name of the hook's, with these answers to look-ups.
async fn resolved(hook: &Hook, allow: Value, answers: &[&'static str]) -> Vec<Outcome> {
    let mut endpoint = endpoint(&format!("http://hook.example.com:{}/", hook.port()));
    endpoint["allowPrivate"] = allow;
    let lookup = Rebinding(Mutex::new(answers.to_vec()));
    let sender = webhook(json!([endpoint]), Arc::new(lookup));
    let mut outcomes = Vec::new();
    for _ in answers {
        outcomes.push(send::<Posts>(&sender, 1).await);
    }
    outcomes
}

#[tokio::test]
async fn a_name_that_leads_inside_is_never_connected_to() {
    let hook = Hook::start().await;
    for inside in [
        "127.0.0.1",
        "::ffff:127.0.0.1",
        "64:ff9b::7f00:1",
        "10.0.0.1",
        "169.254.169.254",
        "100.64.0.1",
        "fd00::1",
        "127.0.0.1 ::1",
    ] {
        let outcomes = resolved(&hook, json!(false), &[inside]).await;
        let Outcome::Failed(failure) = &outcomes[0] else {
            panic!("{inside}: {outcomes:?}");
        };
        assert_eq!(failure.kind, Kind::Permanent, "{failure}");
        assert!(failure.detail.contains("allowPrivate"), "{failure}");
    }
    assert_eq!(hook.requests().len(), 0);
    let networks = json!(["127.0.0.0/8"]);
    let outcomes = resolved(&hook, networks, &["10.0.0.1 127.0.0.1"]).await;
    assert_eq!(means(&outcomes[0]), Means::Sent, "{outcomes:?}");
}

#[tokio::test]
async fn a_name_that_changes_its_mind_between_two_tries_gains_nothing() {
    let hook = Hook::start().await;
    // 203.0.113.1 leads nowhere, and neither look-up decides for the other.
    let answers = ["127.0.0.1", "203.0.113.1", "127.0.0.1"];
    let allow = json!(["203.0.113.0/24"]);
    let outcomes = resolved(&hook, allow, &answers).await;
    let refused = Means::Permanent(Reason::Config);
    assert_eq!(means(&outcomes[0]), refused, "{outcomes:?}");
    assert_ne!(means(&outcomes[1]), Means::Sent, "{outcomes:?}");
    assert_ne!(means(&outcomes[2]), Means::Sent, "{outcomes:?}");
    assert_eq!(hook.requests().len(), 0);
}

#[tokio::test]
async fn an_address_inside_is_not_posted_to_however_it_is_written() {
    let hook = Hook::start().await;
    for host in ["127.0.0.1", "0x7f.1", "2130706433", "[::ffff:127.0.0.1]"] {
        let mut endpoint = endpoint(&format!("http://{host}:{}/", hook.port()));
        endpoint["allowPrivate"] = json!(false);
        let sender = webhook(json!([endpoint]), Arc::new(System));
        let outcome = send::<Posts>(&sender, 1).await;
        assert_eq!(means(&outcome), Means::Permanent(Reason::Config), "{host}");
    }
    assert_eq!(hook.requests().len(), 0);
}

#[tokio::test]
async fn an_endpoint_that_is_down_waits_uncounted_and_is_left_alone() {
    let (hook, dead) = (Hook::start().await, Hook::start().await);
    let refused = dead.url("/");
    drop(dead);
    let mut down = endpoint(&refused);
    down["name"] = json!("down");
    let both = webhook(json!([down, endpoint(&hook.url("/"))]), Arc::new(System));
    for _ in 0..3 {
        let outcome = post(&both, "down").await;
        assert_eq!(
            means(&outcome),
            Means::Waits(Reason::Network),
            "{outcome:?}"
        );
        assert_eq!(means(&post(&both, "one").await), Means::Sent);
    }
    // One that hangs is asked once; then the breaker is open.
    hook.act(Some(Act::Hang));
    let hanging = webhook(json!([endpoint(&hook.url("/hang"))]), Arc::new(System));
    let _ = send::<Posts>(&hanging, 1).await;
    let _ = send::<Posts>(&hanging, 1).await;
    let asked = hook
        .requests()
        .into_iter()
        .filter(|one| one.path == "/hang");
    assert_eq!(asked.count(), 1);
}

async fn post(sender: &Webhook, target: &str) -> Outcome {
    let payload = super::payload();
    let outgoing = tidings::processor::Outgoing {
        delivery: uuid::Uuid::from_u128(1),
        notification: uuid::Uuid::from_u128(2),
        submission: uuid::Uuid::from_u128(3),
        origin: "external:ci",
        payload: &payload,
        link: "https://example.com/".parse().unwrap(),
        created: tidings::time::Timestamp::from_millis(0),
        user: None,
        person: None,
        recipients: &[],
        target,
        earlier: None,
        attempt: 1,
    };
    sender.send(&outgoing).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_that_is_gone_is_disabled_until_somebody_enables_it() {
    let hook = Hook::start().await;
    hook.act(Some(Act::Answer(410, "", "")));
    let sender = webhook(json!([endpoint(&hook.url("/"))]), Arc::new(System));
    let house = house(Arc::new(sender)).await;
    let send = async || {
        let recipients = json!({"type": "broadcast"});
        let story = house
            .story_of("external:ci", recipients, json!({"title": "t"}))
            .await;
        let told = story.deliveries.into_iter().find(|one| one.target == "one");
        told.unwrap()
    };
    assert_eq!(send().await.state, DeliveryState::Failed);
    hook.act(None);
    let skipped = send().await;
    assert_eq!(skipped.state, DeliveryState::Skipped);
    let detail = skipped.detail.unwrap();
    assert!(
        detail.contains("disabled") && detail.contains("410"),
        "{detail}"
    );
    assert_eq!(hook.requests().len(), 1);
    let operator = |request: reqwest::RequestBuilder| async {
        let answer = request.bearer_auth(OPERATOR).send().await.unwrap();
        assert!(answer.status().is_success(), "{answer:?}");
        answer.json::<Value>().await.unwrap()
    };
    let list = house.served.url("/api/tidings/v1/endpoints");
    let listed = operator(client().get(&list)).await;
    assert_eq!(listed["endpoints"][0]["name"], "one");
    let status = house.served.url("/api/tidings/v1/status");
    let status = operator(client().get(&status)).await;
    let troubles = status["degraded"].to_string();
    assert!(troubles.contains("webhook one is disabled"), "{troubles}");
    let enabled = operator(client().delete(format!("{list}/webhook/one"))).await;
    assert_eq!(enabled["enabled"], true);
    assert!(house.store.endpoints().await.unwrap().is_empty());
}
