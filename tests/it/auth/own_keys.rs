//! How we sign in elsewhere: with tokens that whoever fetches our keys can verify.

use std::sync::Arc;

use http::StatusCode;
use jsonwebtoken::Algorithm;
use jsonwebtoken::DecodingKey;
use jsonwebtoken::Validation;
use jsonwebtoken::jwk::JwkSet;
use serde_json::Value;
use tidings::auth::Auth;
use tidings::auth::Plugin;
use tidings::auth::PluginKeys;
use tidings::auth::Trust;
use tidings::backstage::Discovery;
use tidings::backstage::PluginTokens as _;
use tidings::config::BackstageSettings;
use tidings::config::Config;
use tidings::config::Environment;
use tidings::runner::Roles;
use tidings::runner::process::launch;

use super::service;
use super::stand_in::PLUGIN;
use super::stand_in::StandIn;
use crate::http::client;
use crate::http::house::House;
use crate::http::house::Plan;

/// Somebody who finds our plugins at the house, as Backstage does by discovery.
fn verifier(house: &House) -> Auth {
    let discovery = Discovery::new(&BackstageSettings {
        base_url: Some(house.served.url("").parse().unwrap()),
        endpoints: Vec::new(),
        token: None,
    });
    let trust = Trust {
        client: Some(tidings::client::builder().build().unwrap()),
        discovery: Some(discovery),
        ..Trust::default()
    };
    Auth::trusting(Vec::new(), None, &trust)
}

async fn shown(house: &House, plugin: &str) -> Value {
    let path = format!("/api/{plugin}/.backstage/auth/v1/jwks.json");
    let answer = client().get(house.served.url(&path)).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    answer.json().await.unwrap()
}

#[tokio::test]
async fn whoever_fetches_our_keys_believes_our_tokens() {
    let house = House::build(Plan::default()).await;
    let verifier = verifier(&house);
    let keys = &house.plugin_keys;
    for (speaking, audience, subject) in [
        (keys.clone(), Plugin::Signals, "plugin:notifications"),
        (
            keys.speaking_as(Plugin::Signals),
            Plugin::Notifications,
            "plugin:signals",
        ),
    ] {
        let token = speaking.token(audience.id()).await.unwrap();
        let found = verifier.authenticate_token(&token, audience).await;
        assert_eq!(found, service(subject));
        let elsewhere = speaking.token("catalog").await.unwrap();
        assert!(
            verifier
                .authenticate_token(&elsewhere, audience)
                .await
                .is_err()
        );
    }
}

#[tokio::test]
async fn a_token_is_used_again_for_its_audience() {
    let house = House::build(Plan::default()).await;
    let first = house.plugin_keys.token("catalog").await.unwrap();
    assert_eq!(house.plugin_keys.token("catalog").await.unwrap(), first);
    assert_ne!(house.plugin_keys.token("events").await.unwrap(), first);
    let signals = house.plugin_keys.speaking_as(Plugin::Signals);
    assert_ne!(signals.token("catalog").await.unwrap(), first);
    let claims = first.split('.').nth(1).unwrap();
    use base64::Engine as _;
    let claims = base64::engine::general_purpose::URL_SAFE_NO_PAD
        .decode(claims)
        .unwrap();
    let claims: Value = serde_json::from_slice(&claims).unwrap();
    let holds = claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap();
    assert!(0 < holds && holds <= 3600, "{holds}");
}

#[tokio::test]
async fn our_keys_are_shown_to_everybody_and_the_private_half_to_nobody() {
    let house = House::build(Plan::default()).await;
    assert_eq!(
        shown(&house, "notifications").await["keys"],
        Value::Array(vec![])
    );
    house.plugin_keys.token("catalog").await.unwrap();
    let set = shown(&house, "notifications").await;
    assert_eq!(shown(&house, "signals").await, set);
    let key = set["keys"][0].as_object().unwrap();
    let names: Vec<_> = key.keys().map(String::as_str).collect();
    let mut sorted = names.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, ["alg", "crv", "kid", "kty", "use", "x", "y"]);
    // It is one path of one method; beside it the barrier stands.
    for (method, path) in [
        (
            http::Method::POST,
            "/api/notifications/.backstage/auth/v1/jwks.json",
        ),
        (
            http::Method::GET,
            "/api/notifications/.backstage/auth/v1/other",
        ),
        (
            http::Method::GET,
            "/api/tidings/.backstage/auth/v1/jwks.json",
        ),
    ] {
        let request = client().request(method, house.served.url(path));
        assert_eq!(
            request.send().await.unwrap().status(),
            StatusCode::UNAUTHORIZED,
            "{path}"
        );
    }
    let text = format!("{:?}", house.plugin_keys);
    assert_eq!(text, "PluginKeys(notifications)");
}

#[tokio::test]
async fn every_process_shows_the_keys_of_all() {
    let house = House::build(Plan::default()).await;
    house.plugin_keys.token("catalog").await.unwrap();
    let other = PluginKeys::new(Arc::clone(&house.store));
    let running = tokio::spawn(other.clone().run(std::time::Duration::ZERO));
    other.token("catalog").await.unwrap();
    let third = PluginKeys::new(Arc::clone(&house.store));
    let set = third.public().await.unwrap();
    assert_eq!(set["keys"].as_array().unwrap().len(), 2);
    // One that has stopped is remembered: its tokens still hold.
    running.abort();
    let fourth = PluginKeys::new(Arc::clone(&house.store));
    assert_eq!(
        fourth.public().await.unwrap()["keys"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
}

#[tokio::test]
async fn a_whole_process_signs_in_at_its_backstage_with_the_key_that_it_shows() {
    let stand_in = StandIn::start().await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("tidings.yaml");
    let config = format!(
        "backend: {{ baseUrl: \"{}\" }}\n\
         events: {{ useEventBus: never }}\n\
         tidings: {{ listen: \"127.0.0.1:0\", data: data, catalog: {{ source: backstage }} }}\n",
        stand_in.served.url("")
    );
    std::fs::write(&file, config).unwrap();
    let config = Config::load(&[file], &[], &Environment::default()).unwrap();
    let settings = config.settings().unwrap();
    let roles = Roles::everything(Vec::new());
    let (running, _) = launch(&config, &settings, roles).await.unwrap();
    let token = stand_in.shown().await;

    let url = format!(
        "http://{}/api/notifications/.backstage/auth/v1/jwks.json",
        running.address
    );
    let set: JwkSet = client()
        .get(url)
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    let kid = jsonwebtoken::decode_header(&token).unwrap().kid.unwrap();
    let key = DecodingKey::from_jwk(set.find(&kid).unwrap()).unwrap();
    let mut rules = Validation::new(Algorithm::ES256);
    rules.set_audience(&["catalog"]);
    let claims = jsonwebtoken::decode::<Value>(&token, &key, &rules).unwrap();
    assert_eq!(claims.claims["sub"], "notifications");
    assert_eq!(claims.header.typ.as_deref(), Some(PLUGIN));
    running.drain(std::time::Duration::from_secs(5)).await;
}

/// A store that goes away: a database that is dropped.
#[cfg(feature = "postgres")]
mod postgres {
    use super::*;
    use crate::support::postgres::Database;
    use std::time::Duration;
    use tidings::failure::Kind;
    use tidings::store::Store;
    use tidings::store::postgres::PostgresStore;

    #[tokio::test]
    async fn no_token_is_given_out_whose_key_was_not_kept_and_what_was_kept_serves_on() {
        let database = Database::create().await;
        let store = PostgresStore::connect(&database.url()).unwrap();
        store.migrate().await.unwrap();
        let store: Arc<dyn Store> = Arc::new(store);
        let keys = PluginKeys::new(Arc::clone(&store));
        let running = tokio::spawn(keys.clone().run(Duration::ZERO));
        let token = keys.token("catalog").await.unwrap();
        let set = keys.public().await.unwrap();
        drop(database);

        assert_eq!(keys.token("catalog").await.unwrap(), token);
        assert!(
            keys.token("events").await.is_ok(),
            "its key is kept for hours"
        );
        assert_eq!(keys.public().await.unwrap(), set);

        let late = PluginKeys::new(Arc::clone(&store));
        let also = tokio::spawn(late.clone().run(Duration::ZERO));
        let failure = late.token("catalog").await.unwrap_err();
        assert_eq!(failure.kind, Kind::Dependency);
        let failure = late.public().await.unwrap_err();
        assert_eq!(failure.kind, Kind::Dependency);
        running.abort();
        also.abort();
    }
}
