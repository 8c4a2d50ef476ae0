//! Whom messages go to.

use serde_json::Value;
use serde_json::json;
use tidings::failure::Reason;
use tidings::processor::Outcome;
use tidings::processor::Outgoing;
use tidings::processor::Sender as _;

use super::payload;
use super::person;
use super::slack;
use super::to_channel;
use super::to_person;
use crate::support::slack::Fault;
use crate::support::slack::Slack;

#[tokio::test]
async fn a_person_is_found_by_annotation_else_by_address_and_asked_for_once() {
    let server = Slack::start().await;
    server.knows("ann@example.com", "U0ANN");
    let slack = slack(json!([{"apiUrl": server.url()}]));
    let content = payload(json!({"title": "t"}));
    let bo = person("bo", Some("bo@example.com"), Some("U0BO"));
    slack.send(&to_person(&content, &bo)).await;
    assert!(server.calls("users.lookupByEmail").is_empty());
    let ann = person("ann", Some("ann@example.com"), None);
    let outcome = slack.send(&to_person(&content, &ann)).await;
    let Outcome::Sent {
        provider_id: Some(id),
    } = outcome
    else {
        panic!("{outcome:?}");
    };
    // The message lies in the channel of the two, not in the person.
    assert!(id.starts_with("D0ANN/"), "{id}");
    slack.send(&to_person(&content, &ann)).await;
    assert_eq!(
        server.calls("users.lookupByEmail"),
        [json!({"email": "ann@example.com"})]
    );
    assert_eq!(server.channels(), ["U0ANN", "U0ANN", "U0BO"]);
}

#[tokio::test]
async fn who_cannot_be_found_is_skipped_and_that_is_remembered() {
    let server = Slack::start().await;
    let slack = slack(json!([{"apiUrl": server.url()}]));
    let content = payload(json!({"title": "t"}));
    let stranger = person("zoe", Some("zoe@example.com"), None);
    let nameless = person("cy", None, None);
    let unknown = Outgoing {
        person: None,
        ..to_person(&content, &nameless)
    };
    for (one, says) in [
        (to_person(&content, &stranger), "nobody with their address"),
        (to_person(&content, &stranger), "nobody with their address"),
        (to_person(&content, &nameless), "slack.com/bot-notify"),
        (unknown, "not in the catalog"),
    ] {
        let outcome = slack.send(&one).await;
        let Outcome::Skipped { reason, detail } = outcome else {
            panic!("{outcome:?}");
        };
        assert_eq!(reason, Reason::NoAddress);
        assert!(detail.contains(says) && !detail.contains('@'), "{detail}");
    }
    assert_eq!(server.calls("users.lookupByEmail").len(), 1);
    assert!(server.channels().is_empty());
}

#[tokio::test]
async fn an_app_that_may_not_look_people_up_finds_those_with_an_annotation() {
    let server = Slack::start().await;
    server.fails("users.lookupByEmail", Fault::Says("missing_scope"));
    let slack = slack(json!([{"apiUrl": server.url()}]));
    let content = payload(json!({"title": "t"}));
    let ann = person("ann", Some("ann@example.com"), None);
    let outcome = slack.send(&to_person(&content, &ann)).await;
    assert!(matches!(outcome, Outcome::Skipped { .. }), "{outcome:?}");
    let bo = person("bo", None, Some("U0BO"));
    slack.send(&to_person(&content, &bo)).await;
    assert_eq!(server.channels(), ["U0BO"]);
}

/// The targets of a submission to these refs; none of them: of a broadcast.
async fn targets(config: Value, refs: &[&str], content: Value) -> Vec<String> {
    let refs: Vec<String> = refs.iter().map(|one| (*one).to_owned()).collect();
    let content = payload(content);
    let one = Outgoing {
        recipients: &refs,
        ..to_channel(&content, "")
    };
    let mut targets = slack(config).targets(&one).await.unwrap();
    targets.sort();
    targets
}

#[tokio::test]
async fn groups_and_components_have_the_channel_of_their_annotation_or_of_the_metadata() {
    let one = || json!([{"broadcastChannels": ["C0ALL"]}]);
    let title = || json!({"title": "t"});
    let refs = [
        "user:default/bo",
        "Group:Payments",
        "component:default/ledger",
        "group:quiet",
        "group:unknown",
    ];
    assert_eq!(targets(one(), &refs, title()).await, ["C0LEDGER", "C0PAY"]);
    let named = json!({"title": "t", "metadata": {"slackChannel": "C9"}});
    assert_eq!(targets(one(), &refs, named.clone()).await, ["C9"]);
    // People have no channel.
    assert!(targets(one(), &["user:default/bo"], named).await.is_empty());
}

#[tokio::test]
async fn a_broadcast_goes_by_its_route() {
    let config = || {
        json!([{"broadcastChannels": ["C0"], "broadcastRoutes": [
            {"topic": "incident", "channel": ["C1", "C2"]},
            {"origin": "external:ci", "topic": "deploy", "channel": "C3"}]}])
    };
    for (content, channels) in [
        (json!({"title": "t"}), vec!["C0"]),
        (json!({"title": "t", "topic": "incident"}), vec!["C1", "C2"]),
        (json!({"title": "t", "topic": "deploy"}), vec!["C3"]),
        // Of broadcasts, the routes alone say where they go.
        (
            json!({"title": "t", "metadata": {"slackChannel": "C9"}}),
            vec!["C0"],
        ),
    ] {
        assert_eq!(targets(config(), &[], content).await, channels);
    }
    assert!(
        targets(json!([{}]), &[], json!({"title": "t"}))
            .await
            .is_empty()
    );
}

#[tokio::test]
async fn with_several_workspaces_a_target_says_which() {
    let config =
        || json!([{"broadcastChannels": ["C0"]}, {"name": "acme", "broadcastChannels": ["C1"]}]);
    let title = || json!({"title": "t"});
    assert_eq!(targets(config(), &[], title()).await, ["1/C0", "acme/C1"]);
    let group = ["group:payments"];
    assert_eq!(
        targets(config(), &group, title()).await,
        ["1/C0PAY", "acme/C0PAY"]
    );
    let named = json!({"title": "t", "metadata": {"slackChannel": "acme/C9"}});
    assert_eq!(targets(config(), &group, named).await, ["acme/C9"]);
    let content = payload(title());
    let bo = person("bo", None, Some("U0BO"));
    let slack = slack(config());
    assert!(slack.fans_out());
    assert_eq!(
        slack.targets(&to_person(&content, &bo)).await.unwrap(),
        ["1", "acme"]
    );
}
