//! What is posted: `schemas/webhook.schema.json`.

use serde::Deserialize;
use serde::Serialize;
use url::Url;
use uuid::Uuid;

use crate::notification::Payload;
use crate::processor::Outgoing;
use crate::time::Timestamp;

/// What happened. The only kind so far.
const KIND: &str = "notification";

/// The body of a webhook.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Body {
    /// What happened: `notification`.
    #[serde(rename = "type")]
    pub kind: String,
    /// When the notification became visible.
    pub timestamp: Timestamp,
    /// The notification.
    pub data: Data,
}

/// A notification, once for a submission.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Data {
    /// The submission that made it.
    pub submission: Uuid,
    /// Which notification: the same for every submission of one scope.
    pub notification: Uuid,
    /// Who sent it.
    pub origin: String,
    /// For whom, as the producer said.
    pub recipients: To,
    /// The content, after decoration.
    pub payload: Payload,
    /// The link as an absolute address; the inbox's own where the payload has none.
    pub link: Url,
}

/// For whom.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(
    tag = "type",
    rename_all = "lowercase",
    rename_all_fields = "camelCase"
)]
pub enum To {
    /// These, each a ref.
    Entity {
        /// As the producer wrote them, each once.
        entity_refs: Vec<String>,
    },
    /// Everybody.
    Broadcast,
}

impl Body {
    /// The same for every endpoint and on every try.
    pub(super) fn of(outgoing: &Outgoing<'_>) -> Self {
        let recipients = if outgoing.recipients.is_empty() {
            To::Broadcast
        } else {
            To::Entity {
                entity_refs: outgoing.recipients.to_vec(),
            }
        };
        Self {
            kind: KIND.to_owned(),
            timestamp: outgoing.created,
            data: Data {
                submission: outgoing.submission,
                notification: outgoing.notification,
                origin: outgoing.origin.to_owned(),
                recipients,
                payload: outgoing.payload.clone(),
                link: outgoing.link.clone(),
            },
        }
    }
}
