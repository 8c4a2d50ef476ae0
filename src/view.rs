//! Notifications as JSON, in the two shapes that the peer's clients know. Source: contract 2.

use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use crate::notification::Notification;
use crate::notification::Payload;

/// The shape of reads: every optional field is there, `null` where unset; `metadata` is absent
/// where unset.
pub fn read(notification: &Notification) -> Value {
    let payload = &notification.payload;
    let mut content = json!({
        "title": payload.title,
        "description": payload.description,
        "link": payload.link,
        "severity": payload.severity(),
        "topic": payload.topic,
        "scope": payload.scope,
        "icon": payload.icon,
    });
    if let Some(metadata) = &payload.metadata {
        content["metadata"] = Value::Object(metadata.clone());
    }
    json!({
        "id": notification.id,
        "user": notification.user,
        "created": notification.created,
        "read": notification.read,
        "saved": notification.saved,
        "updated": notification.updated,
        "origin": notification.origin,
        "payload": content,
    })
}

/// The shape of a send's answer for a new row: what was given, as it was given, unknown fields
/// included, and a severity.
pub fn sent(notification: &Notification, given: &Payload) -> Value {
    let mut content = match serde_json::to_value(given) {
        Ok(Value::Object(fields)) => fields,
        _ => Map::new(),
    };
    content.insert("severity".to_owned(), json!(given.severity()));
    json!({
        "id": notification.id,
        "user": notification.user,
        "created": notification.created,
        "origin": notification.origin,
        "payload": content,
    })
}
