//! What a message looks like, and when one is changed in place.

use serde_json::Value;
use serde_json::json;
use tidings::notification::Payload;
use tidings::processor::Outcome;
use tidings::processor::Outgoing;
use tidings::processor::Sender as _;
use tidings::time::Timestamp;

use super::payload;
use super::slack;
use super::to_channel;
use crate::support::slack::Fault;
use crate::support::slack::Slack;

/// The body of the message that a payload makes.
async fn posted(config: Value, content: &Payload) -> Value {
    let server = Slack::start().await;
    let mut config = config;
    config["apiUrl"] = json!(server.url());
    let outcome = slack(json!([config]))
        .send(&to_channel(content, "C1"))
        .await;
    assert!(matches!(outcome, Outcome::Sent { .. }), "{outcome:?}");
    server.calls("chat.postMessage").remove(0)
}

#[tokio::test]
async fn a_message_has_the_peers_form() {
    let content = payload(
        json!({"title": "Payments is down", "description": "*Since* 18:42",
        "link": "https://portal.example.com/x", "severity": "critical", "topic": "incident"}),
    );
    let expected = json!({"channel": "C1", "text": "Payments is down", "username": "Portal",
        "attachments": [{"color": "#FF0000", "fallback": "Payments is down", "blocks": [
            {"type": "section", "text": {"type": "mrkdwn", "text": "*Since* 18:42"},
                "accessory": {"type": "button", "action_id": "button-action",
                    "text": {"type": "plain_text", "text": "View More"},
                    "url": "https://portal.example.com/x"}},
            {"type": "context", "elements": [
                {"type": "plain_text", "text": "Severity: critical", "emoji": true},
                {"type": "plain_text", "text": "Topic: incident", "emoji": true}]}]}]});
    assert_eq!(
        posted(json!({"username": "Portal"}), &content).await,
        expected
    );
}

#[tokio::test]
async fn what_is_missing_is_said_and_the_colour_tells_the_severity() {
    for (severity, colour) in [
        ("high", "#FFA500"),
        ("normal", "#00A699"),
        ("low", "#00A699"),
    ] {
        let content = payload(json!({"title": "t", "severity": severity, "description": " "}));
        let body = posted(json!({}), &content).await;
        let attachment = &body["attachments"][0];
        assert_eq!(attachment["color"], colour);
        let blocks = &attachment["blocks"];
        assert_eq!(blocks[0]["text"]["text"], "No description provided");
        assert_eq!(blocks[0]["accessory"].get("url"), None);
        assert_eq!(
            blocks[1]["elements"][0]["text"],
            format!("Severity: {severity}")
        );
        assert_eq!(blocks[1]["elements"][1]["text"], "Topic: N/A");
        assert_eq!(body.get("username"), None);
    }
}

#[tokio::test]
async fn long_texts_and_links_keep_to_slacks_limits() {
    let link = format!("https://portal.example.com/{}", "x".repeat(3_000));
    let content = payload(json!({"title": "t", "description": "ü".repeat(5_000), "link": link}));
    let body = posted(json!({}), &content).await;
    let section = &body["attachments"][0]["blocks"][0];
    assert_eq!(
        section["text"]["text"].as_str().unwrap().chars().count(),
        3_000
    );
    assert_eq!(section["accessory"].get("url"), None);
}

#[tokio::test]
async fn people_who_are_mentioned_are_called_by_their_id() {
    let server = Slack::start().await;
    server.knows("ann@example.com", "U0ANN");
    let slack = slack(json!([{"apiUrl": server.url()}]));
    let content = payload(json!({"title": "t",
        "description": "<@user:default/ann>, <@USER:bo>, <@user:default/cy>, <@user:default/zoe>"}));
    slack.send(&to_channel(&content, "C1")).await;
    let body = server.calls("chat.postMessage").remove(0);
    assert_eq!(
        body["attachments"][0]["blocks"][0]["text"]["text"],
        "<@U0ANN>, <@U0BO>, <@user:default/cy>, <@user:default/zoe>"
    );
}

#[tokio::test]
async fn a_message_of_a_scope_is_changed_in_place_for_a_day() {
    let server = Slack::start().await;
    let slack = slack(json!([{"apiUrl": server.url(), "username": "Portal"}]));
    let content = payload(json!({"title": "again", "scope": "s"}));
    let now = Timestamp::now().as_millis() / 1_000;
    let id = |age: i64| format!("D0ANN/{}.000100", now - age);
    let (young, old) = (id(86_000), id(86_500));
    let one = |earlier| Outgoing {
        earlier: Some(earlier),
        ..to_channel(&content, "U0ANN")
    };
    let outcome = slack.send(&one(&young)).await;
    // It keeps its name, so that the day is counted from the first message.
    let provider_id = Some(young.clone());
    assert_eq!(outcome, Outcome::Sent { provider_id });
    let update = server.calls("chat.update").remove(0);
    assert_eq!(
        (&update["channel"], &update["text"]),
        (&json!("D0ANN"), &json!("again"))
    );
    assert_eq!(update["ts"], young.split_once('/').unwrap().1);
    assert!(update["attachments"][0]["blocks"].is_array());
    assert!(server.channels().is_empty());

    slack.send(&one(&old)).await;
    assert_eq!(server.channels(), ["U0ANN"]);
    // Somebody deleted it.
    server.fails("chat.update", Fault::Says("message_not_found"));
    slack.send(&one(&young)).await;
    assert_eq!(server.channels(), ["U0ANN", "U0ANN"]);
    // A group's channel gets a new message each time.
    let recipients = ["group:default/payments".to_owned()];
    let group = Outgoing {
        recipients: &recipients,
        ..one(&young)
    };
    slack.send(&group).await;
    assert_eq!(server.calls("chat.update").len(), 2);
    assert_eq!(server.channels().len(), 3);
}
