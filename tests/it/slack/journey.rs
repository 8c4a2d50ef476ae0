//! From a submission to Slack and back, through the whole pipeline.

use std::sync::Arc;

use serde_json::Value;
use serde_json::json;
use tidings::delivery::DeliveryState;

use super::entities;
use super::slack;
use crate::http::house::House;
use crate::http::house::Plan;
use crate::support::slack::Slack;

async fn house(server: &Slack) -> House {
    House::build(Plan {
        subjects: vec!["ci".into()],
        catalog: entities(),
        senders: vec![Arc::new(slack(
            json!([{"apiUrl": server.url(), "broadcastChannels": ["C0ALL"]}]),
        ))],
        ..Plan::default()
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn named_people_get_messages_and_members_of_groups_do_not() {
    let server = Slack::start().await;
    server.knows("ann@example.com", "U0ANN");
    let house = house(&server).await;
    let refs = json!({"type": "entity",
        "entityRef": ["user:default/ann", "group:default/payments", "component:default/ledger"]});
    let story = house.story(refs, json!({"title": "t"})).await;
    assert_eq!(server.channels(), ["C0LEDGER", "C0PAY", "U0ANN"]);
    let sent = story
        .deliveries
        .iter()
        .filter(|one| one.state == DeliveryState::Sent);
    assert!(sent.clone().all(|one| one.provider_id.is_some()));
    let targets: Vec<_> = sent.map(|one| one.target.as_str()).collect();
    assert_eq!(targets.len(), 3, "{targets:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scope_changes_its_message_and_a_group_gets_another() {
    let server = Slack::start().await;
    server.knows("ann@example.com", "U0ANN");
    let house = house(&server).await;
    let everybody = json!({"type": "broadcast"});
    let refs =
        json!({"type": "entity", "entityRef": ["user:default/ann", "group:default/payments"]});
    for title in ["one", "two", "three"] {
        let content = json!({"title": title, "scope": "s"});
        house.story(refs.clone(), content.clone()).await;
        house.story(everybody.clone(), content).await;
    }
    assert_eq!(
        server.channels(),
        ["C0ALL", "C0PAY", "C0PAY", "C0PAY", "U0ANN"]
    );
    let updates = server.calls("chat.update");
    let seen = |channel: &str| -> Vec<Value> {
        let of_channel = updates.iter().filter(|one| one["channel"] == channel);
        of_channel.map(|one| one["text"].clone()).collect()
    };
    assert_eq!(seen("D0ANN"), ["two", "three"]);
    assert_eq!(seen("C0ALL"), ["two", "three"]);
    let ts: std::collections::BTreeSet<_> =
        updates.iter().map(|one| one["ts"].to_string()).collect();
    assert_eq!(ts.len(), 2, "each message keeps its name");
}
