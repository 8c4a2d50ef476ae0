//! Several workspaces, each with a fate of its own.

use serde_json::json;
use tidings::failure::Reason;
use tidings::processor::Outcome;
use tidings::processor::Outgoing;
use tidings::processor::Sender as _;
use tidings::time::Timestamp;

use super::payload;
use super::person;
use super::post;
use super::slack;
use super::to_channel;
use super::to_person;
use crate::support::slack::Fault;
use crate::support::slack::Slack;

#[tokio::test]
async fn a_workspace_that_is_closed_waits_and_the_other_goes_on() {
    let (first, second) = (Slack::start().await, Slack::start().await);
    let config = json!([{"apiUrl": first.url(), "token": "xoxb-revoked"},
        {"apiUrl": second.url(), "name": "acme"}]);
    let slack = slack(config);
    for _ in 0..4 {
        let outcome = post(&slack, "1/C1").await;
        let Outcome::Waits { reason, .. } = outcome else {
            panic!("{outcome:?}");
        };
        assert_eq!(reason, Reason::Auth);
        let outcome = post(&slack, "acme/C2").await;
        assert!(matches!(outcome, Outcome::Sent { .. }), "{outcome:?}");
    }
    // It was asked once, and then left alone.
    assert_eq!(first.channels(), ["C1"]);
    assert_eq!(second.channels().len(), 4);
}

#[tokio::test]
async fn a_workspace_that_keeps_failing_is_left_alone() {
    let (first, second) = (Slack::start().await, Slack::start().await);
    first.closes("C1", Fault::Answers(500, &[]));
    let slack = slack(json!([{"apiUrl": first.url()}, {"apiUrl": second.url()}]));
    let mut waits = 0;
    for _ in 0..5 {
        waits += u32::from(matches!(post(&slack, "1/C1").await, Outcome::Waits { .. }));
    }
    assert_eq!((first.channels().len(), waits), (3, 2));
}

#[tokio::test]
async fn what_waits_is_given_up_when_it_is_too_old() {
    let server = Slack::start().await;
    let config =
        json!([{"apiUrl": server.url(), "token": "xoxb-revoked"}, {"apiUrl": server.url()}]);
    let slack = slack(config);
    let content = payload(json!({"title": "t"}));
    let four_days = 4 * 86_400_000;
    let old = Outgoing {
        created: Timestamp::from_millis(Timestamp::now().as_millis() - four_days),
        ..to_channel(&content, "1/C1")
    };
    let outcome = slack.send(&old).await;
    let Outcome::Failed(failure) = outcome else {
        panic!("{outcome:?}");
    };
    assert_eq!(failure.reason, Reason::Auth);
    assert!(failure.detail.contains("waited for 3 days"), "{failure}");
}

#[tokio::test]
async fn a_channel_of_the_other_workspace_and_a_workspace_that_is_gone_are_skipped() {
    let server = Slack::start().await;
    server.closes("C9", Fault::Says("channel_not_found"));
    let slack = slack(json!([{"apiUrl": server.url()}, {"apiUrl": server.url()}]));
    let outcome = post(&slack, "2/C9").await;
    assert!(matches!(outcome, Outcome::Skipped { .. }), "{outcome:?}");
    let (content, bo) = (
        payload(json!({"title": "t"})),
        person("bo", None, Some("U0BO")),
    );
    let gone = Outgoing {
        target: "gone",
        ..to_person(&content, &bo)
    };
    let outcome = slack.send(&gone).await;
    let Outcome::Skipped { reason, .. } = outcome else {
        panic!("{outcome:?}");
    };
    assert_eq!(reason, Reason::Config);
    // A target from when there was one workspace.
    assert!(matches!(post(&slack, "C1").await, Outcome::Sent { .. }));
}
