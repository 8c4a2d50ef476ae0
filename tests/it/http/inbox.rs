//! What people and operators ask of the inbox, beyond the cases of the peer.

use std::time::Duration;

use reqwest::Method;
use serde_json::Value;
use serde_json::json;
use tidings::failure::Reason;
use tidings::store::DeadLetter;
use tidings::time::Timestamp;
use tidings::topology;
use uuid::Uuid;

use super::client;
use super::house::House;
use super::house::OPERATOR;
use super::house::Plan;

const SEND: &str = "/api/notifications/notifications";
const GUEST: &str = "user:default/guest";

/// A house with one producer, and a catalog with one group.
async fn house() -> House {
    let user = json!({"apiVersion": "backstage.io/v1alpha1", "kind": "User",
        "metadata": {"name": "guest"}, "spec": {"memberOf": ["payments"]}});
    let group = json!({"apiVersion": "backstage.io/v1alpha1", "kind": "Group",
        "metadata": {"name": "payments"}, "spec": {"type": "team", "children": []}});
    House::build(Plan {
        subjects: vec!["ci".into(), "other".into()],
        catalog: vec![user, group],
        ..Plan::default()
    })
    .await
}

impl House {
    /// Asks with a token; an empty body is null.
    async fn ask(&self, method: Method, path: &str, token: &str, body: Value) -> (u16, Value) {
        let mut request = client()
            .request(method, self.served.url(path))
            .bearer_auth(token);
        if !body.is_null() {
            request = request.json(&body);
        }
        if path == SEND {
            request = request.header("prefer", "wait=10");
        }
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        let text = answer.text().await.unwrap();
        (status, serde_json::from_str(&text).unwrap_or(Value::Null))
    }

    async fn get(&self, path: &str, token: &str) -> (u16, Value) {
        self.ask(Method::GET, path, token, Value::Null).await
    }

    /// Sends as `ci`, and returns the submission's id.
    async fn send(&self, to: &str, key: &str) -> String {
        let body = json!({"recipients": {"type": "entity", "entityRef": to},
            "payload": {"title": "Hello"}});
        let request = client()
            .post(self.served.url(SEND))
            .bearer_auth(House::token("ci"))
            .header("prefer", "wait=10")
            .header("idempotency-key", key)
            .json(&body);
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 200);
        let location = answer.headers()["location"].to_str().unwrap();
        location.rsplit('/').next().unwrap().to_owned()
    }
}

#[tokio::test]
async fn a_producer_sees_what_became_of_its_own_submissions_alone() {
    let house = house().await;
    let id = house.send("group:default/payments", "k-1").await;
    let at = |what: &str| format!("/api/tidings/v1/submissions{what}");
    let (mine, other) = (House::token("ci"), House::token("other"));
    for path in [
        at(&format!("/{id}")),
        at(&format!("/{}?wait=5", &id[28..])),
        at("?key=k-1"),
        at("?key=k-1&origin=ci"),
    ] {
        let (status, body) = house.get(&path, &mine).await;
        assert_eq!(status, 200, "{path}: {body}");
        assert_eq!(body["submission"], id);
        assert_eq!(body["status"], "stored");
        assert_eq!(body["chunks"][0]["stored"], 1);
        assert_eq!(body["refs"][0]["outcome"], "expanded");
        let (status, body) = house.get(&path, &other).await;
        assert_eq!(
            (status, &body["error"]["name"]),
            (404, &json!("NotFoundError"))
        );
    }
    let (status, _) = house.get(&at(&format!("/{id}")), OPERATOR).await;
    assert_eq!(status, 200);
    let user = house.user_token(GUEST);
    assert_eq!(house.get(&at(&format!("/{id}")), &user).await.0, 403);
    assert_eq!(house.get(&at("/nonsense"), &mine).await.0, 400);
}

#[tokio::test]
async fn a_typo_in_a_group_does_not_look_like_success() {
    let house = house().await;
    let id = house.send("group:default/paymens", "k-1").await;
    let path = format!("/api/tidings/v1/submissions/{id}?wait=5");
    let (_, body) = house.get(&path, &House::token("ci")).await;
    assert_eq!(body["status"], "no_recipients");
    assert_eq!(
        body["suggestions"],
        json!({"group:default/paymens": "group:default/payments"})
    );
}

#[tokio::test]
async fn who_waits_for_a_submission_hears_as_soon_as_it_is_stored() {
    let house = house().await;
    let path = "/api/tidings/v1/submissions?key=later&origin=ci&wait=20";
    let token = House::token("ci");
    let own = house.get(path, &token);
    let sending = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        house.send(GUEST, "later").await
    };
    let (id, (status, body)) = tokio::join!(sending, own);
    assert_eq!((status, body["submission"].as_str()), (200, Some(&*id)));
    // Without an origin it is the caller's own, and the operator sent nothing.
    let (status, _) = house
        .get("/api/tidings/v1/submissions?key=later", OPERATOR)
        .await;
    assert_eq!(status, 404);
}

#[tokio::test]
async fn the_operator_sees_everything_and_nobody_else_does() {
    let house = house().await;
    house.send(GUEST, "k-1").await;
    let (sender, user) = (House::token("ci"), house.user_token(GUEST));
    for path in [
        "/api/tidings/v1/status",
        "/api/tidings/v1/dead-letters",
        "/api/tidings/v1/dead-letters/1",
        "/api/tidings/v1/tokens",
        "/api/tidings/v1/inbox?user=user:default/guest",
    ] {
        assert_eq!(house.get(path, &sender).await.0, 403, "{path}");
        assert_eq!(house.get(path, &user).await.0, 403, "{path}");
    }
    let (status, body) = house.get("/api/tidings/v1/status", OPERATOR).await;
    assert_eq!(status, 200);
    assert_eq!(body["degraded"], json!([]));
    assert_eq!(body["summary"]["notifications"], 1);
    let queues = body["queues"].as_array().unwrap();
    assert!(
        queues
            .iter()
            .any(|one| one["queue"] == "submissions" && one["ready"] == 0)
    );
    let (_, body) = house
        .get(
            "/api/tidings/v1/inbox?user=user:default/guest&read=false",
            OPERATOR,
        )
        .await;
    assert_eq!(body["totalCount"], 1);
    let (status, _) = house.get("/api/tidings/v1/inbox", OPERATOR).await;
    assert_eq!(status, 400);
    let backup = house.ask(
        Method::POST,
        "/api/tidings/v1/backup",
        OPERATOR,
        Value::Null,
    );
    assert_eq!(backup.await.0, 501);
}

#[tokio::test]
async fn a_token_is_made_listed_used_and_revoked() {
    let house = house().await;
    const TOKENS: &str = "/api/tidings/v1/tokens";
    let wanted = json!({"subject": "external:new", "scopes": ["send"]});
    let (status, made) = house.ask(Method::POST, TOKENS, OPERATOR, wanted).await;
    assert_eq!(status, 201);
    let secret = made["token"].as_str().unwrap();
    let body = json!({"recipients": {"type": "broadcast"}, "payload": {"title": "t"}});
    let (status, sent) = house.ask(Method::POST, SEND, secret, body.clone()).await;
    assert_eq!((status, &sent[0]["origin"]), (200, &json!("external:new")));
    assert_eq!(house.get(TOKENS, secret).await.0, 403);
    let (_, listed) = house.get(TOKENS, OPERATOR).await;
    assert_eq!(listed["tokens"][0]["subject"], "external:new");
    assert!(!listed.to_string().contains(secret));
    let id = made["id"].as_str().unwrap();
    let path = format!("{TOKENS}/{id}");
    let (status, body_) = house
        .ask(Method::DELETE, &path, OPERATOR, Value::Null)
        .await;
    assert_eq!((status, body_), (200, json!({"revoked": 1})));
    assert_eq!(house.ask(Method::POST, SEND, secret, body).await.0, 401);
    let again = house.ask(Method::DELETE, &path, OPERATOR, Value::Null);
    assert_eq!(again.await.0, 404);
    let short = format!("{TOKENS}/abc");
    let short = house.ask(Method::DELETE, &short, OPERATOR, Value::Null);
    assert_eq!(short.await.0, 400);
}

/// A submission that died because it could not be read, and the same in order.
fn letter(message: &str, reason: Reason, body: &Value) -> DeadLetter {
    DeadLetter {
        id: 0,
        message: message.to_owned(),
        stage: topology::SUBMISSIONS.to_owned(),
        reason,
        detail: "as the test wants it".to_owned(),
        tries: 1,
        died_at: Timestamp::now().minus(Duration::from_secs(60)),
        submission: Some(Uuid::from_u128(7)),
        origin: Some("ci".to_owned()),
        deliveries: Vec::new(),
        headers: Default::default(),
        body: body.to_string().into_bytes(),
        replayed_at: None,
    }
}

#[tokio::test]
async fn dead_letters_are_looked_at_replayed_and_dropped() {
    let house = house().await;
    const DEAD: &str = "/api/tidings/v1/dead-letters";
    let body = json!({"id": Uuid::from_u128(7), "origin": "ci", "via": "http", "digest": "d",
        "accepted_at": "2026-11-24T18:42:26.104Z",
        "recipients": {"type": "entity", "entityRef": [GUEST]}, "payload": {"title": "Late"}});
    let letters = [
        letter("a", Reason::Server, &body),
        letter("b", Reason::Invalid, &json!("nonsense")),
    ];
    house.store.file_dead(&letters).await.unwrap();
    let (_, listed) = house.get(DEAD, OPERATOR).await;
    assert_eq!(listed["deadLetters"].as_array().unwrap().len(), 2);
    assert!(!listed.to_string().contains("Late"), "a list has no bodies");
    let (_, listed) = house.get(&format!("{DEAD}?reason=server"), OPERATOR).await;
    let id = listed["deadLetters"][0]["id"].as_i64().unwrap();
    let (_, shown) = house.get(&format!("{DEAD}/{id}"), OPERATOR).await;
    assert!(shown["body"].as_str().unwrap().contains("Late"));
    let path = "/api/tidings/v1/submissions/00000000-0000-0000-0000-000000000007";
    let (_, told) = house.get(path, OPERATOR).await;
    assert_eq!(told["status"], "dead");

    let house = &house;
    let post =
        |path: String, body| async move { house.ask(Method::POST, &path, OPERATOR, body).await };
    let replay = format!("{DEAD}/replay");
    assert_eq!(post(replay.clone(), json!({})).await.0, 400);
    let (_, counted) = post(replay.clone(), json!({"reason": "server", "dryRun": true})).await;
    assert_eq!(counted, json!({"count": 1, "ids": [id], "dryRun": true}));
    let (_, done) = post(replay, json!({"ids": [id]})).await;
    assert_eq!(done["count"], 1);
    let (_, told) = house.get(&format!("{path}?wait=10"), OPERATOR).await;
    assert_eq!(told["status"], "stored", "{told}");
    let (status, done) = post(format!("{DEAD}/discard"), json!({"all": true})).await;
    assert_eq!((status, &done["count"]), (200, &json!(1)));
    let (_, listed) = house.get(DEAD, OPERATOR).await;
    assert_eq!(listed["deadLetters"], json!([]));
    assert_eq!(house.get(&format!("{DEAD}/999"), OPERATOR).await.0, 404);
}

#[tokio::test]
async fn everything_is_marked_read_at_once() {
    let house = house().await;
    for key in ["a", "b", "c"] {
        house.send(GUEST, key).await;
    }
    let user = house.user_token(GUEST);
    let mark = "/api/tidings/v1/mark-all-read";
    let (status, body) = house.ask(Method::POST, mark, &user, Value::Null).await;
    assert_eq!((status, body), (200, json!({"count": 3})));
    let (_, counts) = house.get("/api/notifications/status", &user).await;
    assert_eq!(counts, json!({"unread": 0, "read": 3}));
}

#[tokio::test]
async fn faults_of_the_peer_are_answered_better() {
    let house = house().await;
    let user = house.user_token(GUEST);
    let (status, _) = house
        .get("/api/notifications/notifications/abc", &user)
        .await;
    assert_eq!(status, 404);
    let (status, _) = house
        .get("/api/notifications/notifications?orderField=colour", &user)
        .await;
    assert_eq!(status, 400);
    let update = "/api/notifications/update";
    let (status, body) = house
        .ask(
            Method::POST,
            update,
            &user,
            json!({"ids": ["x"], "read": true}),
        )
        .await;
    assert_eq!(status, 400);
    assert_eq!(body["error"]["errors"][0]["pointer"], "#/ids/0");
    let many: Vec<Uuid> = (0..5_000).map(Uuid::from_u128).collect();
    let (status, body) = house
        .ask(
            Method::POST,
            update,
            &user,
            json!({"ids": many, "read": true}),
        )
        .await;
    assert_eq!((status, body), (200, json!([])));
    let long = json!({"recipients": {"type": "entity", "entityRef": GUEST},
        "payload": {"title": "x".repeat(256)}});
    let token = House::token("ci");
    let (status, body) = house.ask(Method::POST, SEND, &token, long).await;
    assert_eq!(status, 400);
    assert_eq!(body["error"]["errors"][0]["pointer"], "#/payload/title");
}

#[tokio::test]
async fn health_needs_no_credentials_and_names_what_is_missing() {
    use tidings::http::admin_routes;
    use tidings::telemetry::Readiness;
    use tidings::telemetry::metrics_handle;
    let readiness = Readiness::default();
    let admin = admin_routes(readiness.clone(), metrics_handle());
    let served = super::Served::start(admin).await;
    let get = |path: &'static str| client().get(served.url(path)).send();
    assert_eq!(get("/healthz").await.unwrap().status(), 200);
    assert_eq!(get("/readyz").await.unwrap().status(), 200);
    readiness.trouble("store", "connection refused");
    let answer = get("/readyz").await.unwrap();
    assert_eq!(answer.status(), 503);
    let body: Value = answer.json().await.unwrap();
    assert_eq!(body["missing"], json!({"store": "connection refused"}));
    assert_eq!(get("/metrics").await.unwrap().status(), 200);
}
