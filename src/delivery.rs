//! A delivery: one (notification, revision, channel, target) to be sent once.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::Serialize;
use serde_json::Map;
use serde_json::Value;
use uuid::Uuid;

use crate::failure::Reason;
use crate::notification::Payload;
use crate::submission::Header;
use crate::time::Timestamp;

/// Most deliveries in one queue message.
pub const DELIVERIES_PER_MESSAGE_MAX: usize = 50;

/// Deliveries of one submission and channel, with the content once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeliveryBatch {
    /// The submission's identity.
    #[serde(flatten)]
    pub header: Header,
    /// The sender's name: the queue's suffix.
    pub channel: String,
    /// The content, unless an item's patch says otherwise.
    pub payload: Payload,
    /// Where the deliveries are not for one person each: the refs of the submission. Absent for a
    /// broadcast.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub recipients: Vec<String>,
    /// At most [`DELIVERIES_PER_MESSAGE_MAX`].
    pub items: Vec<DeliveryItem>,
    /// Fields this version does not know.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl DeliveryBatch {
    /// The same with other deliveries.
    pub fn with(&self, items: Vec<DeliveryItem>) -> Self {
        Self {
            header: self.header.clone(),
            channel: self.channel.clone(),
            payload: self.payload.clone(),
            recipients: self.recipients.clone(),
            items,
            extra: self.extra.clone(),
        }
    }
}

/// One delivery in a queue message.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeliveryItem {
    /// Derived by [`crate::notification::delivery_id`].
    pub id: Uuid,
    /// The notification it tells of.
    pub notification: Uuid,
    /// The person; absent for a broadcast and for senders that send once per submission.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Empty for a person, whose address is looked up when it is sent; explicit where one
    /// notification has many (addresses of a broadcast, channels, endpoints).
    #[serde(default)]
    pub target: String,
    /// How to reach the person; for foreign senders, which have no catalog.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub person: Option<Contact>,
    /// What a decorator changed for this person alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub patch: Option<Map<String, Value>>,
    /// When the notification became visible.
    pub created: Timestamp,
    /// How often a foreign sender tried it before.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub tries: u32,
}

#[allow(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde asks for a reference"
)]
fn is_zero(count: &u32) -> bool {
    *count == 0
}

/// How to reach a person.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contact {
    /// `spec.profile.email` of the catalog.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    /// `spec.profile.displayName` of the catalog.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// Those of `metadata.annotations` that the sender was configured to get.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// Where a delivery stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeliveryState {
    /// To be sent, now or at its next time.
    Pending,
    /// A sender holds it under a lease.
    Claimed,
    /// Done.
    Sent,
    /// Not to be sent: switched off, no address, superseded.
    Skipped,
    /// Given up; a dead letter says why.
    Failed,
    /// Nobody said in time what became of it; never sent again by itself.
    Unknown,
    /// Replaced by deliveries of its own, one for each target.
    Expanded,
}

impl DeliveryState {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Pending,
        Self::Claimed,
        Self::Sent,
        Self::Skipped,
        Self::Failed,
        Self::Unknown,
        Self::Expanded,
    ];

    /// The word in the store and on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Claimed => "claimed",
            Self::Sent => "sent",
            Self::Skipped => "skipped",
            Self::Failed => "failed",
            Self::Unknown => "unknown",
            Self::Expanded => "expanded",
        }
    }

    /// The state of a stored word.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == word)
    }

    /// Whether nothing more will happen to it.
    pub const fn is_final(self) -> bool {
        !matches!(self, Self::Pending | Self::Claimed)
    }
}

/// One try at a delivery and what came of it; see `schemas/attempt.schema.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// The delivery.
    pub delivery: Uuid,
    /// Its state after this try: `sent`, `skipped`, `failed`, or `pending` when it will be tried
    /// again.
    pub state: DeliveryState,
    /// Why it was not sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// One sentence for a person; no secret, no address, no content.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// The id that the service gave it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider_id: Option<String>,
    /// When it will be tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_at: Option<Timestamp>,
    /// It was not tried, only put off (`pending`): it does not count.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub uncounted: bool,
}
