//! A signal: "tell these people's open pages". A hint only; what is true is in the store.
//!
//! The shape is that of the peer's signals plugin (its event topic `signals`).

use serde::Deserialize;
use serde::Serialize;
use serde_json::Value;
use serde_json::json;
use uuid::Uuid;

/// The channel of everything about notifications.
pub const NOTIFICATIONS_CHANNEL: &str = "notifications";

/// A message for open pages.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Signal {
    /// Whose pages.
    pub recipients: SignalRecipients,
    /// What pages subscribe to.
    pub channel: String,
    /// An object with an `action`.
    pub message: Value,
}

/// Whose pages a signal is for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum SignalRecipients {
    /// The pages of people who own one of these refs.
    User {
        /// Exact refs.
        #[serde(rename = "entityRef")]
        refs: Vec<String>,
    },
    /// Every page.
    Broadcast,
}

impl Signal {
    /// A notification was stored or updated; `None` is a broadcast.
    pub fn new_notification(user: Option<&str>, id: Uuid) -> Self {
        Self::about(
            user,
            json!({"action": "new_notification", "notification_id": id}),
        )
    }

    /// The reader marked notifications read or unread.
    pub fn marked(user: &str, ids: &[String], read: bool) -> Self {
        let action = if read {
            "notification_read"
        } else {
            "notification_unread"
        };
        Self::about(
            Some(user),
            json!({"action": action, "notification_ids": ids}),
        )
    }

    fn about(user: Option<&str>, message: Value) -> Self {
        let recipients = match user {
            Some(user) => SignalRecipients::User {
                refs: vec![user.to_owned()],
            },
            None => SignalRecipients::Broadcast,
        };
        Self {
            recipients,
            channel: NOTIFICATIONS_CHANNEL.to_owned(),
            message,
        }
    }

    /// Whether somebody who owns `refs` should see it.
    pub fn concerns(&self, refs: &[String]) -> bool {
        match &self.recipients {
            SignalRecipients::Broadcast => true,
            SignalRecipients::User { refs: wanted } => wanted.iter().any(|one| refs.contains(one)),
        }
    }
}
