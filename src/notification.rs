//! What a notification is: its content, whom it is for, and how it is named.
//!
//! The words and rules are those of Backstage's notifications plugin, so that its clients can
//! read what Tidings stores. Identity is derived, never drawn: working twice on one submission
//! makes the same ids.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;
use serde::Serialize;
use serde_json::Map;
use serde_json::Value;
use uuid::Uuid;

use crate::time::Timestamp;

/// How urgent a notification is. The order is of urgency: `Critical` is the smallest.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Act now.
    Critical,
    /// Act soon.
    High,
    /// What a notification has when the producer names none.
    #[default]
    Normal,
    /// For information.
    Low,
}

impl Severity {
    /// All of them, most severe first.
    pub const ALL: [Self; 4] = [Self::Critical, Self::High, Self::Normal, Self::Low];

    /// The word on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::High => "high",
            Self::Normal => "normal",
            Self::Low => "low",
        }
    }

    /// The number in the store: 0 is critical, 3 is low.
    pub const fn rank(self) -> i16 {
        self as i16
    }

    /// The severity of a stored number; an unknown one is `Normal`.
    pub fn from_rank(rank: i16) -> Self {
        usize::try_from(rank)
            .ok()
            .and_then(|at| Self::ALL.get(at).copied())
            .unwrap_or_default()
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Severity {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|one| one.as_str() == text)
            .ok_or_else(|| format!("`{text}` is not one of critical, high, normal, low"))
    }
}

/// The content of a notification, as its producer wrote it and decorators changed it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Payload {
    /// One line; 1 to 255 characters.
    pub title: String,
    /// Free text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Where it leads: http(s), or a path of the app.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<String>,
    /// How urgent; absent means normal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub severity: Option<Severity>,
    /// What people filter and mute by; at most 255 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic: Option<String>,
    /// Sends of one origin with the same scope update one notification; at most 255 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// Name of an icon; at most 255 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icon: Option<String>,
    /// Anything the producer wants kept beside it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Map<String, Value>>,
    /// Fields this version does not know: carried along, not stored.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl Payload {
    /// The severity, `normal` when none was given.
    pub fn severity(&self) -> Severity {
        self.severity.unwrap_or_default()
    }

    /// The scope that names a row to update; an empty one names none.
    pub fn scope(&self) -> Option<&str> {
        self.scope.as_deref().filter(|scope| !scope.is_empty())
    }

    /// This payload with the fields of `patch` laid over it; `null` removes a field.
    ///
    /// # Errors
    /// Says what is wrong when the result is no payload (a title that is a number, say).
    pub fn patched(&self, patch: &Map<String, Value>) -> Result<Self, String> {
        let Ok(Value::Object(mut fields)) = serde_json::to_value(self) else {
            return Err("the payload is not an object".to_owned());
        };
        for (key, value) in patch {
            if value.is_null() {
                fields.remove(key);
            } else {
                fields.insert(key.clone(), value.clone());
            }
        }
        serde_json::from_value(Value::Object(fields)).map_err(|error| error.to_string())
    }

    /// The patch that turns `self` into `changed`; empty when they are equal.
    pub fn patch_to(&self, changed: &Self) -> Map<String, Value> {
        let (Ok(Value::Object(old)), Ok(Value::Object(new))) =
            (serde_json::to_value(self), serde_json::to_value(changed))
        else {
            return Map::new();
        };
        let mut patch: Map<String, Value> = new
            .iter()
            .filter(|(key, value)| old.get(*key) != Some(value))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        for key in old.keys().filter(|key| !new.contains_key(*key)) {
            patch.insert(key.clone(), Value::Null);
        }
        patch
    }
}

/// Whom a submission is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Recipients {
    /// People, groups and owners, by entity ref.
    Entity {
        /// Who; a group stands for its members, any other entity for its owner.
        #[serde(rename = "entityRef", with = "one_or_many")]
        refs: Vec<String>,
        /// Who not.
        #[serde(
            rename = "excludeEntityRef",
            with = "one_or_many",
            default,
            skip_serializing_if = "Vec::is_empty"
        )]
        exclude: Vec<String>,
    },
    /// Everybody, now and later.
    Broadcast,
}

/// Backstage writes a single ref as a string and several as an array.
mod one_or_many {
    use serde::Deserialize;
    use serde::Deserializer;
    use serde::Serialize;
    use serde::Serializer;

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum OneOrMany {
        One(String),
        Many(Vec<String>),
    }

    pub(super) fn serialize<S: Serializer>(refs: &[String], to: S) -> Result<S::Ok, S::Error> {
        refs.serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
        Ok(match OneOrMany::deserialize(from)? {
            OneOrMany::One(one) => vec![one],
            OneOrMany::Many(many) => many,
        })
    }
}

/// A parsed entity ref, `kind:namespace/name`.
/// Source: Backstage `parseEntityRef` (catalog-model).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EntityRef {
    /// As written; compared without case.
    pub kind: String,
    /// `default` when not written.
    pub namespace: String,
    /// As written.
    pub name: String,
}

impl EntityRef {
    /// Lower case, with the namespace: the form that the catalog uses as a key.
    /// Source: Backstage `stringifyEntityRef`.
    pub fn canonical(&self) -> String {
        format!("{}:{}/{}", self.kind, self.namespace, self.name).to_lowercase()
    }

    /// Whether this names a person.
    pub fn is_user(&self) -> bool {
        self.kind.eq_ignore_ascii_case("user")
    }
}

impl FromStr for EntityRef {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fault = |why: &str| {
            format!(
                "`{text}` is not an entity ref: {why} (expected kind:namespace/name, as in user:default/guest)"
            )
        };
        let (kind, rest) = text
            .split_once(':')
            .ok_or_else(|| fault("it has no kind"))?;
        let (namespace, name) = rest.split_once('/').unwrap_or(("default", rest));
        if kind.is_empty() || kind.contains('/') {
            return Err(fault("its kind is empty or contains `/`"));
        }
        if namespace.is_empty() {
            return Err(fault("its namespace is empty"));
        }
        if name.is_empty() || name.contains('/') || rest.contains(':') {
            return Err(fault("its name is empty or contains `/` or `:`"));
        }
        if text.chars().any(char::is_whitespace) {
            return Err(fault("it contains a space"));
        }
        Ok(Self {
            kind: kind.to_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        })
    }
}

/// A notification as it lies in an inbox.
#[derive(Clone, Debug, PartialEq)]
pub struct Notification {
    /// Derived by [`notification_id`].
    pub id: Uuid,
    /// Whose inbox; `None` is a broadcast.
    pub user: Option<String>,
    /// Who sent it.
    pub origin: String,
    /// When it became visible, by the database's clock.
    pub created: Timestamp,
    /// When a later send of the same scope changed it.
    pub updated: Option<Timestamp>,
    /// When the reader marked it read.
    pub read: Option<Timestamp>,
    /// When the reader saved it.
    pub saved: Option<Timestamp>,
    /// The content, without unknown fields.
    pub payload: Payload,
    /// The submission that last made it: its revision.
    pub submission: Uuid,
}

/// The space of all ids that Tidings derives.
const NAMESPACE: Uuid = Uuid::from_u128(0x7469_6469_6e67_734e_a1b2_c3d4_e5f6_0718);

/// A UUID (version 5) of length-prefixed parts, so that no two lists of parts run together.
fn derive(kind: &str, parts: &[&str]) -> Uuid {
    let mut name = String::from(kind);
    for part in parts {
        name.push_str(&format!("|{}:{part}", part.len()));
    }
    Uuid::new_v5(&NAMESPACE, name.as_bytes())
}

/// How the key begins that repeats a submission whose acceptance was in doubt: its id follows.
pub const REPEAT_PREFIX: &str = "submission:";

/// The id of the submission that `origin` named with its idempotency `key`. A key of
/// [`REPEAT_PREFIX`] and an id, which is what a 503 advises, names that very id.
pub fn keyed_submission_id(origin: &str, key: &str) -> Uuid {
    if let Some(id) = key.strip_prefix(REPEAT_PREFIX)
        && let Ok(id) = Uuid::try_parse(id)
    {
        return id;
    }
    derive("submission", &[origin, key])
}

/// The id of the notification that a submission makes for `user` (`None`: the broadcast).
///
/// With a scope it is the same for every submission of that origin and scope, so that a later
/// one updates the row; without, it is the submission's own.
pub fn notification_id(
    origin: &str,
    scope: Option<&str>,
    submission: Uuid,
    user: Option<&str>,
) -> Uuid {
    let user = user.unwrap_or("*");
    match scope {
        Some(scope) => derive("scoped", &[origin, scope, user]),
        None => derive("notification", &[origin, &submission.to_string(), user]),
    }
}

/// The id of one delivery, and the left part of its `Message-ID`.
pub fn delivery_id(notification: Uuid, revision: Uuid, channel: &str, target: &str) -> Uuid {
    derive(
        "delivery",
        &[
            &notification.to_string(),
            &revision.to_string(),
            channel,
            target,
        ],
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_the_same_for_the_same_parts_and_differ_where_parts_run_together() {
        let submission = Uuid::from_u128(7);
        let id = |scope, user| notification_id("ci", scope, submission, user);
        assert_eq!(id(None, Some("a")), id(None, Some("a")));
        assert_ne!(id(None, Some("a")), id(None, None));
        assert_ne!(id(Some("ab"), Some("c")), id(Some("a"), Some("bc")));
        let other = notification_id("ci", Some("s"), Uuid::from_u128(8), Some("a"));
        assert_eq!(id(Some("s"), Some("a")), other);
    }

    #[test]
    fn a_submission_in_doubt_can_be_repeated_under_its_id() {
        let id = Uuid::from_u128(7);
        let repeat = keyed_submission_id("ci", &format!("{REPEAT_PREFIX}{id}"));
        assert_eq!(repeat, id);
        assert_ne!(keyed_submission_id("ci", &id.to_string()), id);
        assert_ne!(keyed_submission_id("a", "k"), keyed_submission_id("b", "k"));
    }

    #[test]
    fn a_ref_takes_the_default_namespace_and_needs_a_kind() {
        let user: EntityRef = "User:Guest".parse().unwrap();
        assert!(user.is_user());
        assert_eq!(user.canonical(), "user:default/guest");
        for bad in [
            "guest",
            ":a",
            "user:",
            "user:/a",
            "user:a/b/c",
            "user:a b",
            "a:b:c",
            "a/b:c",
        ] {
            assert!(bad.parse::<EntityRef>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_patch_leads_from_one_payload_to_the_other() {
        let old: Payload =
            serde_json::from_str(r#"{"title":"a","link":"/x","later":{"field":1}}"#).unwrap();
        let new = Payload {
            title: "b".into(),
            link: None,
            icon: Some("i".into()),
            ..old.clone()
        };
        assert_eq!(old.patched(&old.patch_to(&new)).unwrap(), new);
        assert!(old.patch_to(&old).is_empty());
        let title = serde_json::from_str(r#"{"title":1}"#).unwrap();
        assert!(old.patched(&title).is_err());
    }
}
