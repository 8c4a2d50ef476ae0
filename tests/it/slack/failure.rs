//! What comes of Slack's errors, and of a Slack that is not there.

use std::time::Duration;

use serde_json::json;
use tidings::failure::Failure;
use tidings::failure::Kind;
use tidings::failure::Reason;
use tidings::processor::Outcome;
use tidings::processor::Sender as _;

use super::payload;
use super::person;
use super::post;
use super::slack;
use super::to_person;
use crate::support::slack::Fault;
use crate::support::slack::Slack;
use crate::support::slack::TOKEN;

/// A failure that tells neither the token, nor an address, nor content.
fn failure(outcome: Outcome) -> Failure {
    let Outcome::Failed(failure) = outcome else {
        panic!("{outcome:?} is no failure");
    };
    let told = format!("{failure} {failure:?}");
    for canary in [TOKEN, "canary", "@"] {
        assert!(!told.contains(canary), "tells too much: {told}");
    }
    failure
}

#[tokio::test]
async fn every_failure_is_of_its_kind() {
    let transient = Kind::Transient { after: None };
    let in_seconds = |seconds| Kind::Transient {
        after: Some(Duration::from_secs(seconds)),
    };
    for (fault, kind, reason) in [
        (
            Fault::Says("channel_not_found"),
            Kind::Permanent,
            Reason::Rejected,
        ),
        (
            Fault::Says("is_archived"),
            Kind::Permanent,
            Reason::Rejected,
        ),
        (
            Fault::Says("brand_new_error"),
            Kind::Permanent,
            Reason::Rejected,
        ),
        (Fault::Says("invalid_auth"), Kind::Dependency, Reason::Auth),
        (Fault::Says("token_revoked"), Kind::Dependency, Reason::Auth),
        (Fault::Says("missing_scope"), Kind::Dependency, Reason::Auth),
        (Fault::Says("fatal_error"), transient, Reason::Server),
        (Fault::Says("ratelimited"), in_seconds(30), Reason::Rate),
        (
            Fault::Answers(429, &[("retry-after", "42")]),
            in_seconds(42),
            Reason::Rate,
        ),
        (Fault::Answers(429, &[]), in_seconds(30), Reason::Rate),
        (Fault::Answers(503, &[]), transient, Reason::Server),
        (Fault::Answers(404, &[]), Kind::Dependency, Reason::Config),
        (
            Fault::Answers(302, &[("location", "http://127.0.0.1:9/")]),
            Kind::Dependency,
            Reason::Config,
        ),
        (Fault::Breaks, transient, Reason::Network),
        (Fault::Babbles, transient, Reason::Server),
    ] {
        let server = Slack::start().await;
        let slack = slack(json!([{"apiUrl": server.url()}]));
        server.fails("chat.postMessage", fault.clone());
        let failure = failure(post(&slack, "C1").await);
        assert_eq!(
            (failure.kind, failure.reason),
            (kind, reason),
            "{fault:?}: {failure}"
        );
    }
}

#[tokio::test]
async fn where_nothing_listens_the_dependency_is_away_and_is_not_asked_again_at_once() {
    let server = Slack::start().await;
    let url = server.url();
    drop(server);
    let slack = slack(json!([{"apiUrl": url}]));
    for _ in 0..3 {
        let failure = failure(post(&slack, "C1").await);
        assert_eq!(
            (failure.kind, failure.reason),
            (Kind::Dependency, Reason::Network)
        );
    }
}

#[tokio::test]
async fn a_server_that_says_nothing_is_not_waited_for_beyond_the_limit() {
    let server = Slack::start().await;
    let slack = slack(json!([{"apiUrl": server.url(), "timeout": "1s"}]));
    server.fails("chat.postMessage", Fault::Hangs);
    let failure = failure(post(&slack, "C1").await);
    let transient = Kind::Transient { after: None };
    assert_eq!((failure.kind, failure.reason), (transient, Reason::Timeout));
}

#[tokio::test]
async fn a_limit_is_obeyed_by_all_that_follows_without_asking() {
    let server = Slack::start().await;
    let slack = slack(json!([{"apiUrl": server.url()}]));
    server.fails(
        "users.lookupByEmail",
        Fault::Answers(429, &[("retry-after", "60")]),
    );
    let (content, ann) = (
        payload(json!({"title": "t"})),
        person("ann", Some("a@b.c"), None),
    );
    let failure = failure(slack.send(&to_person(&content, &ann)).await);
    assert_eq!(failure.reason, Reason::Rate);
    let outcome = post(&slack, "C1").await;
    let Outcome::Waits {
        after,
        reason,
        detail,
    } = outcome
    else {
        panic!("{outcome:?}");
    };
    assert!(Duration::from_secs(50) < after, "{after:?}");
    assert_eq!(
        (reason, &*detail),
        (Reason::Rate, "Slack takes no more for 60 s")
    );
    assert!(server.channels().is_empty());
}

#[tokio::test]
async fn what_is_over_the_configured_limit_comes_again_later() {
    let server = Slack::start().await;
    let config = json!([{"apiUrl": server.url(), "concurrencyLimit": 2, "throttleInterval": "1m"}]);
    let slack = slack(config);
    let mut waits = Vec::new();
    for _ in 0..3 {
        if let Outcome::Waits { after, .. } = post(&slack, "C1").await {
            waits.push(after.as_secs_f64().round());
        }
    }
    assert_eq!(server.channels(), ["C1"]);
    assert_eq!(waits, [30.0, 60.0]);
}

#[tokio::test]
async fn the_probe_says_who_the_app_is_and_what_it_lacks() {
    let server = Slack::start().await;
    let probe = async |config| {
        slack(config)
            .probe()
            .await
            .map_err(|failure| failure.to_string())
    };
    let config = || json!([{"apiUrl": server.url()}]);
    assert_eq!(probe(config()).await.unwrap(), "Acme as tidings");
    server.allows("chat:write,users:read.email");
    assert_eq!(probe(config()).await.unwrap(), "Acme as tidings");
    server.allows("chat:write");
    assert!(
        probe(config())
            .await
            .unwrap()
            .contains("without the scope users:read.email")
    );
    server.allows("users:read.email");
    let said = probe(config()).await.unwrap_err();
    assert!(said.contains("lacks the scope chat:write"), "{said}");
    let two =
        json!([{"apiUrl": server.url(), "token": "xoxb-canary-wrong"}, {"apiUrl": server.url()}]);
    let said = probe(two).await.unwrap_err();
    assert_eq!(said, "auth: workspace 1: Slack says invalid_auth");
}
