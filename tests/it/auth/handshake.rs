//! The whole way in: a house with a Backstage beside it, over HTTP and WebSocket.

use http::StatusCode;
use serde_json::Value;
use serde_json::json;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

use super::ANN;
use super::entry;
use super::jwks;
use super::stand_in::Pair;
use super::stand_in::StandIn;
use super::stand_in::limited;
use super::trust;
use crate::http::client;
use crate::http::house::House;
use crate::http::house::Plan;

struct Town {
    stand_in: StandIn,
    house: House,
    users: Pair,
    search: Pair,
}

impl Town {
    async fn build() -> Self {
        let stand_in = StandIn::start().await;
        let (users, search) = (Pair::es256("u"), Pair::es256("s"));
        stand_in.show("auth", &[&users]);
        stand_in.show("search", &[&search]);
        let mut trust = trust(&stand_in);
        trust
            .external
            .push(entry(jwks(&stand_in, "idp", None), Some(&["catalog"])));
        let plan = Plan {
            catalog: vec![
                json!({"kind": "User", "metadata": {"name": "ann"}, "spec": {"memberOf": ["ops"]}}),
                json!({"kind": "Group", "metadata": {"name": "ops"}, "spec": {"type": "team"}}),
            ],
            trust,
            ..Plan::default()
        };
        Self {
            house: House::build(plan).await,
            stand_in,
            users,
            search,
        }
    }

    /// As `DefaultNotificationService` posts.
    async fn send(&self, token: &str) -> (StatusCode, Value) {
        let body = json!({"recipients": {"type": "entity", "entityRef": "group:default/ops"},
            "payload": {"title": "Indexed"}});
        let request = client()
            .post(self.house.served.url("/api/notifications"))
            .header("Prefer", "wait=10")
            .bearer_auth(token)
            .json(&body);
        let answer = request.send().await.unwrap();
        (answer.status(), answer.json().await.unwrap())
    }

    async fn list(&self, token: &str) -> (StatusCode, Value) {
        let url = self.house.served.url("/api/notifications/notifications");
        let answer = client().get(url).bearer_auth(token).send().await.unwrap();
        (answer.status(), answer.json().await.unwrap())
    }

    /// As `SignalClient` connects.
    async fn socket(&self, token: &str) -> u16 {
        let address = self.house.served.address;
        let url = format!("ws://{address}/api/signals");
        let mut request = url.into_client_request().unwrap();
        let name = "sec-websocket-protocol";
        request.headers_mut().insert(name, token.parse().unwrap());
        let stream = TcpStream::connect(address).await.unwrap();
        match tokio_tungstenite::client_async(request, stream).await {
            Ok((_, answer)) => {
                assert_eq!(answer.headers()[name], token);
                answer.status().as_u16()
            }
            Err(tungstenite::Error::Http(answer)) => answer.status().as_u16(),
            Err(other) => panic!("{other}"),
        }
    }
}

#[tokio::test]
async fn what_a_plugin_sends_is_read_by_a_person_of_the_same_backstage() {
    let town = Town::build().await;
    let token = town.search.plugin_token("search", "notifications", None);
    let (status, sent) = town.send(&token).await;
    assert_eq!(status, StatusCode::OK, "{sent}");
    assert_eq!(sent[0]["origin"], "plugin:search");
    assert_eq!(sent[0]["user"], ANN);
    let (status, listed) = town.list(&town.users.user_token(ANN, &json!({}))).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(listed["notifications"][0]["origin"], "plugin:search");
}

#[tokio::test]
async fn a_plugin_that_acts_for_a_person_reads_as_they_do_and_does_not_send() {
    let town = Town::build().await;
    let full = town.users.user_token(ANN, &json!({}));
    let acting = town
        .search
        .plugin_token("search", "notifications", Some(&limited(&full)));
    let (status, listed) = town.list(&acting).await;
    assert_eq!((status, &listed["totalCount"]), (StatusCode::OK, &json!(0)));
    let (status, refused) = town.send(&acting).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    assert_eq!(
        refused["error"]["message"],
        "This endpoint does not allow 'user' credentials"
    );
}

#[tokio::test]
async fn refusals_over_http_are_in_the_peers_words() {
    let town = Town::build().await;
    let full = town.users.user_token(ANN, &json!({}));
    let idp = Pair::es256("i");
    town.stand_in.show("idp", &[&idp]);
    let claims = json!({"sub": "ci", "iss": "https://idp.example.com", "aud": "tidings"});
    for (token, status, name, message) in [
        (
            Pair::es256("u").user_token(ANN, &json!({})),
            401,
            "AuthenticationError",
            "Failed user token verification; caused by a wrong signature",
        ),
        (
            limited(&full),
            401,
            "AuthenticationError",
            "Illegal limited user token",
        ),
        (
            town.search.plugin_token("search", "catalog", None),
            401,
            "AuthenticationError",
            "Failed plugin token verification; caused by an audience that is not ours",
        ),
        (
            idp.sign("JWT", &claims),
            403,
            "NotAllowedError",
            "This token's access is restricted to plugin(s) 'catalog'",
        ),
        (
            "x.y.z".to_owned(),
            401,
            "AuthenticationError",
            "Illegal token",
        ),
    ] {
        let (answered, body) = town.list(&token).await;
        assert_eq!(answered.as_u16(), status, "{body}");
        assert_eq!(body["error"]["name"], name);
        assert_eq!(body["error"]["message"], message);
    }
}

#[tokio::test]
async fn an_issuer_that_is_away_is_no_fault_of_the_token() {
    let town = Town::build().await;
    town.stand_in.break_down(true);
    let url = town.house.served.url("/api/notifications/status");
    let token = town.users.user_token(ANN, &json!({}));
    let answer = client().get(url).bearer_auth(&token).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(answer.headers().contains_key("retry-after"));
    assert_eq!(town.socket(&token).await, 503);
}

#[tokio::test]
async fn a_socket_opens_for_a_person_alone() {
    let town = Town::build().await;
    let full = town.users.user_token(ANN, &json!({}));
    assert_eq!(town.socket(&full).await, 101);
    assert_eq!(town.socket(&limited(&full)).await, 401);
    let service = town.search.plugin_token("search", "signals", None);
    assert_eq!(town.socket(&service).await, 403);
    let elsewhere = town.search.plugin_token("search", "notifications", None);
    assert_eq!(town.socket(&elsewhere).await, 401);
    let acting = town
        .search
        .plugin_token("search", "signals", Some(&limited(&full)));
    assert_eq!(town.socket(&acting).await, 101);
}

#[tokio::test]
async fn what_others_may_not_know_is_in_no_answer() {
    let town = Town::build().await;
    let pair = Pair::es256("canary-kid");
    for token in [
        "canary-canary".to_owned(),
        pair.user_token("user:default/canary", &json!({})),
        pair.plugin_token("search", "canary", None),
    ] {
        let (_, body) = town.list(&token).await;
        assert!(!body.to_string().contains("canary"), "{body}");
    }
}
