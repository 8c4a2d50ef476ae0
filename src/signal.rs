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

    /// A signal as plugins publish it on the peer's events bus, where one ref needs no list; `None`
    /// for what is no signal, or has no channel or message.
    pub fn of_bus(mut payload: Value) -> Option<Self> {
        let refs = payload.pointer_mut("/recipients/entityRef");
        if let Some(one) = refs
            && one.is_string()
        {
            *one = Value::Array(vec![one.take()]);
        }
        let signal: Self = serde_json::from_value(payload).ok()?;
        let empty = signal.channel.is_empty() || !signal.message.is_object();
        (!empty).then_some(signal)
    }

    /// Whether somebody who owns `refs` should see it.
    pub fn concerns(&self, refs: &[String]) -> bool {
        match &self.recipients {
            SignalRecipients::Broadcast => true,
            SignalRecipients::User { refs: wanted } => wanted.iter().any(|one| refs.contains(one)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_plugins_publish_is_read_and_nonsense_is_not() {
        let of = |recipients: Value, channel: &str, message: Value| {
            let payload = json!({"recipients": recipients, "channel": channel, "message": message});
            Signal::of_bus(payload)
        };
        let message = json!({"a": 1});
        let group = "group:default/payments";
        let one = of(
            json!({"type": "user", "entityRef": group}),
            "x",
            message.clone(),
        );
        let list = of(
            json!({"type": "user", "entityRef": [group]}),
            "x",
            message.clone(),
        );
        assert_eq!(one, list);
        let refs = vec![group.to_owned()];
        assert_eq!(one.unwrap().recipients, SignalRecipients::User { refs });
        let all = json!({"type": "broadcast"});
        assert!(of(all.clone(), "x", message.clone()).is_some());
        for nonsense in [
            of(all.clone(), "", message.clone()),
            of(all, "x", Value::Null),
            of(json!({"type": "user"}), "x", message.clone()),
            of(
                json!({"type": "user", "entityRef": [1]}),
                "x",
                message.clone(),
            ),
            of(Value::Null, "x", message),
            Signal::of_bus(json!("x")),
        ] {
            assert_eq!(nonsense, None);
        }
    }
}
