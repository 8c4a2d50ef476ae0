//! The catalog's answers, as far as they are read.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::Deserializer;
use serde_json::Map;
use serde_json::Value;

use super::cache::Size;
use crate::catalog::CatalogUser;
use crate::catalog::Entity;
use crate::catalog::Relation;
use crate::notification::EntityRef;

/// The relations that say who belongs to whom. Others are left out: what a group owns may be
/// thousands of things.
const RELATIONS: [&str; 5] = ["hasMember", "memberOf", "parentOf", "childOf", "ownedBy"];

/// The answer of `POST /entities/by-refs`: an item for each ref, `null` for one that is nowhere.
#[derive(Deserialize)]
pub(super) struct Batch {
    pub(super) items: Vec<Option<Item>>,
}

/// The answer of `GET /entities/by-query`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Page {
    pub(super) items: Vec<Item>,
    #[serde(default)]
    pub(super) total_items: usize,
    #[serde(default)]
    pub(super) page_info: PageInfo,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PageInfo {
    pub(super) next_cursor: Option<String>,
}

/// An entity, as far as it was asked for.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Item {
    #[serde(deserialize_with = "text")]
    kind: Option<String>,
    metadata: Metadata,
    spec: Spec,
    relations: Vec<Link>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Metadata {
    #[serde(deserialize_with = "text")]
    name: Option<String>,
    #[serde(deserialize_with = "text")]
    namespace: Option<String>,
    annotations: Map<String, Value>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Spec {
    profile: Profile,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Profile {
    #[serde(deserialize_with = "text")]
    display_name: Option<String>,
    #[serde(deserialize_with = "text")]
    email: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Link {
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    target_ref: String,
}

/// Text, or nothing where something else stands: people write all sorts of things.
fn text<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    Ok(match Value::deserialize(from)? {
        Value::String(text) if !text.is_empty() => Some(text),
        _ => None,
    })
}

impl Item {
    /// The entity with its ref; `None` for what has none.
    pub(super) fn entity(self) -> Option<(String, Entity)> {
        let reference = self.reference()?;
        let relations = self
            .relations
            .into_iter()
            .filter(|link| RELATIONS.contains(&link.kind.as_str()))
            .map(|link| Relation {
                kind: link.kind,
                target_ref: link.target_ref,
            });
        let entity = Entity {
            reference: reference.clone(),
            kind: self.kind?,
            relations: relations.collect(),
            annotations: annotations(self.metadata.annotations),
        };
        Some((reference, entity))
    }

    /// The person with their ref; `None` for what is none.
    pub(super) fn person(self) -> Option<(String, CatalogUser)> {
        let reference = self.reference()?;
        let person = CatalogUser {
            reference: reference.clone(),
            display_name: self.spec.profile.display_name,
            email: self.spec.profile.email,
            annotations: annotations(self.metadata.annotations),
        };
        Some((reference, person))
    }

    /// The person's address.
    pub(super) fn email(self) -> Option<String> {
        self.spec.profile.email
    }

    fn reference(&self) -> Option<String> {
        let namespace = self.metadata.namespace.as_deref().unwrap_or("default");
        let reference = EntityRef {
            kind: self.kind.clone()?,
            namespace: namespace.to_owned(),
            name: self.metadata.name.clone()?,
        };
        Some(reference.canonical())
    }
}

fn annotations(written: Map<String, Value>) -> BTreeMap<String, String> {
    let text = |(key, value)| match value {
        Value::String(text) => Some((key, text)),
        _ => None,
    };
    written.into_iter().filter_map(text).collect()
}

/// What a string or an entry of a map takes beside its letters, roughly.
const ENTRY: usize = 32;

fn size(annotations: &BTreeMap<String, String>) -> usize {
    let entries = annotations.iter();
    entries
        .map(|(key, value)| key.len() + value.len() + 2 * ENTRY)
        .sum()
}

impl Size for Entity {
    fn bytes(&self) -> usize {
        let relations = self.relations.iter();
        let relations = relations.map(|one| one.kind.len() + one.target_ref.len() + 2 * ENTRY);
        self.reference.len() + relations.sum::<usize>() + size(&self.annotations)
    }
}

impl Size for CatalogUser {
    fn bytes(&self) -> usize {
        let optional = [&self.display_name, &self.email].into_iter().flatten();
        self.reference.len()
            + optional.map(|one| one.len() + ENTRY).sum::<usize>()
            + size(&self.annotations)
    }
}

impl Size for Vec<String> {
    fn bytes(&self) -> usize {
        self.iter().map(|one| one.len() + ENTRY).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn item(value: Value) -> Item {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn an_entity_keeps_who_belongs_to_whom_in_the_catalogs_order() {
        let (reference, entity) = item(json!({
            "kind": "Group",
            "metadata": {"name": "Team", "annotations": {"a": "1", "b": 2}},
            "relations": [
                {"type": "ownerOf", "targetRef": "component:default/x"},
                {"type": "hasMember", "targetRef": "user:default/b"},
                {"type": "hasMember", "targetRef": "user:default/a", "target": {"name": "a"}},
                {"type": "parentOf", "targetRef": "group:default/c"},
            ],
        }))
        .entity()
        .unwrap();
        assert_eq!(reference, "group:default/team");
        assert_eq!(
            (entity.kind.as_str(), entity.annotations.len()),
            ("Group", 1)
        );
        let targets: Vec<&str> = entity
            .relations
            .iter()
            .map(|one| one.target_ref.as_str())
            .collect();
        assert_eq!(
            targets,
            ["user:default/b", "user:default/a", "group:default/c"]
        );
    }

    #[test]
    fn a_person_without_a_profile_or_with_a_strange_one_is_still_a_person() {
        let person = |spec: Value| {
            let metadata = json!({"name": "X", "namespace": "N"});
            item(json!({"kind": "User", "metadata": metadata, "spec": spec}))
                .person()
                .unwrap()
                .1
        };
        let whole = person(json!({"profile": {"displayName": "X Y", "email": "x@y.z"}}));
        assert_eq!(whole.reference, "user:n/x");
        assert_eq!(whole.email.as_deref(), Some("x@y.z"));
        assert_eq!(whole.display_name.as_deref(), Some("X Y"));
        for spec in [
            json!({}),
            json!({"profile": {"email": 7, "displayName": ""}}),
        ] {
            let strange = person(spec);
            assert_eq!((strange.email, strange.display_name), (None, None));
        }
        assert!(
            item(json!({"kind": "User", "metadata": {}}))
                .person()
                .is_none()
        );
    }
}
