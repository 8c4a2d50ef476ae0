//! The sender `slack` against a server that answers as Slack does.
#![cfg(feature = "slack")]

mod failure;
#[cfg(feature = "sqlite")]
mod journey;
mod message;
mod people;
mod workspaces;

use std::sync::Arc;

use serde_json::Value;
use serde_json::json;
use tidings::catalog::CatalogUser;
use tidings::catalog::file::FileCatalog;
use tidings::notification::Payload;
use tidings::processor::Outcome;
use tidings::processor::Outgoing;
use tidings::processor::Sender as _;
use tidings::processor::slack::Slack;
use tidings::processor::slack::config::WorkspaceConfig;
use tidings::time::Timestamp;
use uuid::Uuid;

use crate::support::slack::TOKEN;

/// The entities of these tests.
pub(super) fn entities() -> Vec<Value> {
    let entity = |kind: &str, name: &str, annotation: Option<&str>, spec: Value| {
        let mut metadata = json!({"name": name});
        if let Some(channel) = annotation {
            metadata["annotations"] = json!({"slack.com/bot-notify": channel});
        }
        json!({"apiVersion": "backstage.io/v1alpha1", "kind": kind, "metadata": metadata,
            "spec": spec})
    };
    let user = |email: &str| json!({"profile": {"email": email}, "memberOf": ["payments"]});
    vec![
        entity("User", "ann", None, user("ann@example.com")),
        entity("User", "bo", Some("U0BO"), user("bo@example.com")),
        entity("User", "cy", None, json!({"memberOf": ["payments"]})),
        entity(
            "Group",
            "payments",
            Some("C0PAY"),
            json!({"type": "team", "children": []}),
        ),
        entity(
            "Group",
            "quiet",
            None,
            json!({"type": "team", "children": []}),
        ),
        entity(
            "Component",
            "ledger",
            Some("C0LEDGER"),
            json!({"owner": "quiet"}),
        ),
    ]
}

/// A sender to these workspaces; each entry gets the server's token unless it has one.
fn slack(config: Value) -> Slack {
    let mut config = config;
    for one in config.as_array_mut().unwrap() {
        let fields = one.as_object_mut().unwrap();
        fields.entry("token").or_insert(json!(TOKEN));
        fields.entry("throttleInterval").or_insert(json!(0));
    }
    let workspaces: Vec<WorkspaceConfig> = serde_json::from_value(config).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("people.yaml");
    // JSON is YAML.
    let documents: Vec<String> = entities().iter().map(Value::to_string).collect();
    std::fs::write(&file, documents.join("\n---\n")).unwrap();
    Slack::new(workspaces, Arc::new(FileCatalog::open(vec![file]).unwrap())).unwrap()
}

fn payload(json: Value) -> Payload {
    serde_json::from_value(json).unwrap()
}

/// A notification to a channel.
fn to_channel<'a>(payload: &'a Payload, target: &'a str) -> Outgoing<'a> {
    let link = payload.link.as_deref().filter(|link| !link.is_empty());
    Outgoing {
        delivery: Uuid::from_u128(0xd1),
        notification: Uuid::from_u128(0xa0),
        submission: Uuid::from_u128(0x50),
        origin: "external:ci",
        payload,
        link: link
            .unwrap_or("http://localhost:3000/notifications")
            .parse()
            .unwrap(),
        created: Timestamp::now(),
        user: None,
        person: None,
        recipients: &[],
        target,
        earlier: None,
        attempt: 1,
    }
}

/// A notification to a person.
fn to_person<'a>(payload: &'a Payload, person: &'a CatalogUser) -> Outgoing<'a> {
    Outgoing {
        user: Some(&person.reference),
        person: Some(person),
        ..to_channel(payload, "")
    }
}

fn person(name: &str, email: Option<&str>, annotation: Option<&str>) -> CatalogUser {
    let annotation = annotation.map(|id| ("slack.com/bot-notify".to_owned(), id.to_owned()));
    CatalogUser {
        reference: format!("user:default/{name}"),
        display_name: None,
        email: email.map(str::to_owned),
        annotations: annotation.into_iter().collect(),
    }
}

/// What came of a message to a channel.
async fn post(slack: &Slack, channel: &str) -> Outcome {
    slack
        .send(&to_channel(
            &payload(json!({"title": "canary-title"})),
            channel,
        ))
        .await
}
