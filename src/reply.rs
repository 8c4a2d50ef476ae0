//! The answer to a submission: what became of it, for a producer that asked.
//!
//! The decorator answers a queue message's `reply_to` with one; `ingest` turns one into the HTTP
//! answer that a caller waits for. See `schemas/reply.schema.json`.

use serde::Deserialize;
use serde::Serialize;
use serde_json::Map;
use serde_json::Value;
use uuid::Uuid;

use crate::chunk::RefReport;
use crate::submission::Fault;
use crate::submission::Invalid;

/// What became of a submission.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reply {
    /// The submission; absent when it was refused before it had an id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub submission: Option<Uuid>,
    /// In one word.
    pub status: ReplyStatus,
    /// With `stored`: the notifications, each in the shape that the peer's send answers with,
    /// in the order of the people. Empty when it reached nobody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notifications: Option<Vec<Value>>,
    /// With `stored`: what became of each recipient, so that a typo does not look like success.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refs: Vec<RefReport>,
    /// With `invalid`: why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ReplyError>,
    /// Fields this version does not know.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// What became of a submission, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReplyStatus {
    /// It is in the inboxes.
    Stored,
    /// It is under way: its audience is too large to wait for.
    Accepted,
    /// It is refused, and nothing of it was stored.
    Invalid,
}

/// Why a submission is refused, in the peer's words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplyError {
    /// The peer's name for the kind of error: `InputError`.
    pub name: String,
    /// One sentence for a person.
    pub message: String,
    /// Every fault found, by field.
    #[serde(default)]
    pub errors: Vec<Fault>,
}

impl From<Invalid> for ReplyError {
    fn from(invalid: Invalid) -> Self {
        Self {
            name: "InputError".to_owned(),
            message: invalid.message,
            errors: invalid.faults,
        }
    }
}

impl Reply {
    /// Everything is stored.
    pub fn stored(submission: Uuid, notifications: Vec<Value>, refs: Vec<RefReport>) -> Self {
        Self {
            submission: Some(submission),
            notifications: Some(notifications),
            refs,
            ..Self::new(ReplyStatus::Stored)
        }
    }

    /// It is under way; the timeline will tell.
    pub fn accepted(submission: Uuid) -> Self {
        Self {
            submission: Some(submission),
            ..Self::new(ReplyStatus::Accepted)
        }
    }

    /// It is refused.
    pub fn invalid(submission: Option<Uuid>, invalid: Invalid) -> Self {
        Self {
            submission,
            error: Some(invalid.into()),
            ..Self::new(ReplyStatus::Invalid)
        }
    }

    fn new(status: ReplyStatus) -> Self {
        Self {
            submission: None,
            status,
            notifications: None,
            refs: Vec::new(),
            error: None,
            extra: Map::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn each_status_carries_what_belongs_to_it() {
        let id = Uuid::from_u128(1);
        let text = |reply: Reply| serde_json::to_value(reply).unwrap();
        assert_eq!(
            text(Reply::stored(id, vec![], vec![])),
            json!({"submission": id, "status": "stored", "notifications": []})
        );
        assert_eq!(
            text(Reply::accepted(id)),
            json!({"submission": id, "status": "accepted"})
        );
        let refused = Invalid {
            message: "no".into(),
            faults: vec![Fault {
                pointer: "#/payload/title".into(),
                message: "is missing".into(),
            }],
        };
        assert_eq!(
            text(Reply::invalid(None, refused)),
            json!({"status": "invalid", "error": {"name": "InputError", "message": "no",
                "errors": [{"pointer": "#/payload/title", "message": "is missing"}]}})
        );
    }
}
