//! When keys are fetched, and when not.

use serde_json::json;
use tidings::auth::Auth;
use tidings::auth::AuthError;
use tidings::auth::Plugin;
use tidings::auth::Trust;

use super::ANN;
use super::OURS;
use super::ann;
use super::auth;
use super::refusal;
use super::stand_in::Pair;
use super::stand_in::StandIn;
use super::trust;

#[tokio::test]
async fn keys_that_were_rotated_are_found_and_those_that_went_are_not_believed() {
    let stand_in = StandIn::start().await;
    let (old, new) = (Pair::es256("old"), Pair::es256("new"));
    stand_in.show("auth", &[&old]);
    let auth = auth(&stand_in);
    let (before, after) = (
        old.user_token(ANN, &json!({})),
        new.user_token(ANN, &json!({})),
    );
    assert_eq!(auth.authenticate_token(&before, OURS).await, ann());
    stand_in.show("auth", &[&old, &new]);
    assert_eq!(auth.authenticate_token(&after, OURS).await, ann());
    assert_eq!(auth.authenticate_token(&before, OURS).await, ann());
    assert_eq!(stand_in.asked("auth"), 2);
    // The old one is withdrawn: any reload forgets it.
    stand_in.show("auth", &[&new]);
    let unknown = Pair::es256("unknown").user_token(ANN, &json!({}));
    assert!(auth.authenticate_token(&unknown, OURS).await.is_err());
    let said = refusal(&auth, &before).await;
    assert!(said.contains("a key id that its issuer"), "{said}");
}

#[tokio::test]
async fn however_many_tokens_name_keys_that_are_nowhere_the_issuer_is_asked_rarely() {
    let stand_in = StandIn::start().await;
    let pair = Pair::es256("a");
    stand_in.show("auth", &[&pair]);
    let auth = auth(&stand_in);
    let good = pair.user_token(ANN, &json!({}));
    for n in 0..100 {
        let forged = Pair::es256(&format!("k{n}")).user_token(ANN, &json!({}));
        assert!(auth.authenticate_token(&forged, OURS).await.is_err());
        assert_eq!(auth.authenticate_token(&good, OURS).await, ann());
    }
    let asked = stand_in.asked("auth");
    assert!((2..=11).contains(&asked), "{asked}");
}

#[tokio::test]
async fn a_crowd_that_comes_at_once_asks_once() {
    let stand_in = StandIn::start().await;
    let pair = Pair::es256("a");
    stand_in.show("auth", &[&pair]);
    let auth = auth(&stand_in);
    let token = pair.user_token(ANN, &json!({}));
    let crowd = (0..50).map(|_| auth.authenticate_token(&token, OURS));
    for one in futures::future::join_all(crowd).await {
        assert_eq!(one, ann());
    }
    assert_eq!(stand_in.asked("auth"), 1);
}

#[tokio::test]
async fn keys_that_are_held_serve_on_while_their_issuer_is_away() {
    let stand_in = StandIn::start().await;
    let pair = Pair::es256("a");
    stand_in.show("auth", &[&pair]);
    let auth = auth(&stand_in);
    let token = pair.user_token(ANN, &json!({}));
    assert_eq!(auth.authenticate_token(&token, OURS).await, ann());
    stand_in.break_down(true);
    assert_eq!(auth.authenticate_token(&token, OURS).await, ann());
    // Of another key nothing is known then: it may be a new one.
    let other = Pair::es256("b").user_token(ANN, &json!({}));
    let refused = auth.authenticate_token(&other, OURS).await;
    assert_eq!(refused, Err(AuthError::Unavailable));
    assert_eq!(auth.authenticate_token(&token, OURS).await, ann());
}

#[tokio::test]
async fn an_issuer_that_says_nothing_keeps_a_page_no_longer_than_it_waits() {
    let stand_in = StandIn::start().await;
    let auth = auth(&stand_in);
    stand_in.fall_silent();
    let token = Pair::es256("a").user_token(ANN, &json!({}));
    // The test would not end otherwise: the stand-in never answers.
    let refused = auth.authenticate_token(&token, Plugin::Signals).await;
    assert_eq!(refused, Err(AuthError::Unavailable));
    assert!(AuthError::Unavailable.is_unavailable());
    assert_eq!(stand_in.asked("auth"), 1);
}

#[tokio::test]
async fn an_issuer_that_is_away_is_told_of_until_it_is_back() {
    let stand_in = StandIn::start().await;
    stand_in.break_down(true);
    let pair = Pair::es256("a");
    let auth = auth(&stand_in);
    let why = auth.prepare().await.unwrap_err();
    assert!(
        why.contains("/api/auth/.well-known/jwks.json") && why.contains("500"),
        "{why}"
    );
    stand_in.show("auth", &[&pair]);
    stand_in.break_down(false);
    while auth.prepare().await.is_err() {
        tokio::task::yield_now().await;
    }
    let asked = stand_in.asked("auth");
    let token = pair.user_token(ANN, &json!({}));
    assert_eq!(auth.authenticate_token(&token, OURS).await, ann());
    assert_eq!(
        stand_in.asked("auth"),
        asked,
        "nobody waits for keys that were prepared"
    );
}

#[tokio::test]
async fn names_of_plugins_that_are_none_do_not_push_out_those_that_are() {
    let stand_in = StandIn::start().await;
    let pair = Pair::es256("a");
    stand_in.show("catalog", &[&pair]);
    let auth = auth(&stand_in);
    let good = pair.plugin_token("catalog", "notifications", None);
    assert!(auth.authenticate_token(&good, OURS).await.is_ok());
    for n in 0..200 {
        let forged = pair.plugin_token(&format!("plugin-{n}"), "notifications", None);
        assert!(auth.authenticate_token(&forged, OURS).await.is_err());
    }
    assert!(auth.authenticate_token(&good, OURS).await.is_ok());
    assert_eq!(stand_in.asked("catalog"), 1);
    let asked = stand_in.asked_in_all();
    assert!(asked <= 60, "{asked}");
}

#[tokio::test]
async fn what_an_issuer_answers_beside_keys_does_no_harm() {
    let stand_in = StandIn::start().await;
    let pair = Pair::es256("a");
    let mut keys: Vec<_> = (0..3)
        .map(|n| json!({"kty": "EC", "kid": n, "junk": [[]]}))
        .collect();
    keys.push(json!("not even a key"));
    keys.push(pair.public.clone());
    stand_in.show_raw("auth", keys);
    let token = pair.user_token(ANN, &json!({}));
    assert_eq!(
        auth(&stand_in).authenticate_token(&token, OURS).await,
        ann()
    );

    // More than keys would take is not read to its end.
    let flood = json!({"kty": "EC", "x": "x".repeat(300 << 10)});
    stand_in.show_raw("auth", vec![flood, pair.public.clone()]);
    let refused = auth(&stand_in).authenticate_token(&token, OURS).await;
    assert_eq!(refused, Err(AuthError::Unavailable));
}

#[tokio::test]
async fn a_configured_issuer_stands_in_for_backstages() {
    let (stand_in, other) = (StandIn::start().await, StandIn::start().await);
    let pair = Pair::es256("a");
    other.show("auth", &[&pair]);
    let auth = Auth::trusting(
        Vec::new(),
        None,
        &Trust {
            user_issuers: vec![stand_in.user_keys(), other.user_keys()],
            ..trust(&stand_in)
        },
    );
    stand_in.show("auth", &[&Pair::es256("b")]);
    let token = pair.user_token(ANN, &json!({}));
    assert_eq!(auth.authenticate_token(&token, OURS).await, ann());
}
