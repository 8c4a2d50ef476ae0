//! Backstage catalog YAML read into entities, with the relations that Backstage's own processors
//! derive from `spec`.
//!
//! Source: Backstage, "Descriptor Format of Catalog Entities" and `BuiltinKindsEntityProcessor`:
//! `memberOf`, `members`, `children`, `parent` and `owner` make a relation on either side, where
//! the other side is in the catalog. Explicit `relations` are kept as written, before those.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::collections::HashSet;
use std::path::Path;

use saphyr::LoadableYamlNode;
use saphyr::MarkedYaml;
use saphyr::Marker;
use saphyr::Scalar;
use saphyr::YamlData;

use super::FileError;
use crate::catalog::CatalogUser;
use crate::catalog::Entity;
use crate::catalog::Relation;
use crate::notification::EntityRef;

/// Everything that some files say.
#[derive(Debug, Default)]
pub(super) struct Entities {
    all: HashMap<String, Record>,
}

#[derive(Debug)]
struct Record {
    entity: Entity,
    person: Option<CatalogUser>,
}

impl Entities {
    /// Reads files, each with any number of documents, each an entity or a list of entities.
    pub(super) fn parse(files: &[(&Path, String)]) -> Result<Self, FileError> {
        let mut reader = Reader::default();
        for (file, text) in files {
            reader.file(file, text)?;
        }
        Ok(reader.finish())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    pub(super) fn entity(&self, reference: &str) -> Option<&Entity> {
        self.record(reference).map(|record| &record.entity)
    }

    pub(super) fn person(&self, reference: &str) -> Option<&CatalogUser> {
        self.record(reference)?.person.as_ref()
    }

    pub(super) fn people(&self) -> impl Iterator<Item = &CatalogUser> {
        self.all
            .values()
            .filter_map(|record| record.person.as_ref())
    }

    /// The refs of people and groups, sorted.
    pub(super) fn refs(&self) -> Vec<String> {
        let mut refs: Vec<String> = self
            .all
            .iter()
            .filter(|(_, record)| record.person.is_some() || record.is_group())
            .map(|(reference, _)| reference.clone())
            .collect();
        refs.sort_unstable();
        refs
    }

    /// How many users and how many groups.
    pub(super) fn counts(&self) -> (usize, usize) {
        let groups = self.all.values().filter(|record| record.is_group());
        (self.people().count(), groups.count())
    }

    fn record(&self, reference: &str) -> Option<&Record> {
        let parsed: EntityRef = reference.parse().ok()?;
        self.all.get(&parsed.canonical())
    }
}

impl Record {
    fn is_group(&self) -> bool {
        self.entity.kind.eq_ignore_ascii_case("group")
    }
}

/// What a field of `spec` relates: `(field, kind of a ref without one, relation, its inverse)`.
const DERIVED: [(&str, &str, &str, &str); 5] = [
    ("memberOf", "Group", "memberOf", "hasMember"),
    ("members", "User", "hasMember", "memberOf"),
    ("children", "Group", "parentOf", "childOf"),
    ("parent", "Group", "childOf", "parentOf"),
    ("owner", "Group", "ownedBy", "ownerOf"),
];

/// Collects entities and the relations between them.
#[derive(Default)]
struct Reader {
    all: HashMap<String, Record>,
    /// Where each was found, to name the first when there is a second.
    places: HashMap<String, String>,
    /// `(from, relation, to)`.
    derived: Vec<(String, &'static str, String)>,
}

impl Reader {
    fn file(&mut self, file: &Path, text: &str) -> Result<(), FileError> {
        let documents = MarkedYaml::load_from_str(text)
            .map_err(|error| fault(file, error.marker(), error.info().to_owned()))?;
        for document in &documents {
            match &document.data {
                YamlData::Sequence(entities) => {
                    for entity in entities {
                        self.entity(Node { file, yaml: entity })?;
                    }
                }
                data if data.is_null() => {}
                _ => self.entity(Node {
                    file,
                    yaml: document,
                })?,
            }
        }
        Ok(())
    }

    fn entity(&mut self, node: Node<'_>) -> Result<(), FileError> {
        if !matches!(node.yaml.data, YamlData::Mapping(_)) {
            return Err(node.fault("an entity must be a mapping with `kind` and `metadata`"));
        }
        let kind = node.needed("kind")?;
        let metadata = node.child("metadata").ok_or_else(|| {
            node.fault("an entity needs `metadata` with a `name`, as in metadata: { name: guest }")
        })?;
        let name = metadata.needed("name")?;
        let namespace = metadata
            .text("namespace")?
            .unwrap_or_else(|| "default".to_owned());
        let reference = format!("{kind}:{namespace}/{name}")
            .parse::<EntityRef>()
            .map_err(|why| metadata.fault(why))?
            .canonical();
        let spec = node.child("spec");
        if let Some(spec) = spec {
            self.derive(spec, &reference, &namespace)?;
        }
        let person = if kind.eq_ignore_ascii_case("user") {
            Some(person(&reference, metadata, spec)?)
        } else {
            None
        };
        if let Some(first) = self.places.insert(reference.clone(), node.place()) {
            return Err(node.fault(format!("{reference} is there twice, first at {first}")));
        }
        let entity = Entity {
            reference: reference.clone(),
            kind,
            relations: explicit(node)?,
            annotations: annotations(metadata)?,
        };
        self.all.insert(reference, Record { entity, person });
        Ok(())
    }

    fn derive(
        &mut self,
        spec: Node<'_>,
        reference: &str,
        namespace: &str,
    ) -> Result<(), FileError> {
        for (field, kind, relation, inverse) in DERIVED {
            let Some(value) = spec.child(field) else {
                continue;
            };
            let targets = match field {
                "parent" | "owner" => vec![value],
                _ => value.items(field)?,
            };
            for target in targets {
                let text = target.string(field)?;
                let target = full(&text, kind, namespace).map_err(|why| target.fault(why))?;
                let target = target.canonical();
                self.derived
                    .push((target.clone(), inverse, reference.to_owned()));
                self.derived.push((reference.to_owned(), relation, target));
            }
        }
        Ok(())
    }

    /// Gives every entity its derived relations, in Backstage's order: by type, then by target.
    fn finish(mut self) -> Entities {
        self.derived.sort_unstable();
        self.derived.dedup();
        let mut explicit: HashMap<String, HashSet<Relation>> = HashMap::new();
        for (from, kind, to) in self.derived {
            let Some(record) = self.all.get_mut(&from) else {
                continue;
            };
            let relations = &mut record.entity.relations;
            let written = explicit
                .entry(from)
                .or_insert_with(|| relations.iter().cloned().collect());
            let relation = Relation {
                kind: kind.to_owned(),
                target_ref: to,
            };
            if !written.contains(&relation) {
                relations.push(relation);
            }
        }
        Entities { all: self.all }
    }
}

fn person(
    reference: &str,
    metadata: Node<'_>,
    spec: Option<Node<'_>>,
) -> Result<CatalogUser, FileError> {
    let profile = spec.and_then(|spec| spec.child("profile"));
    let field = |name: &str| match profile {
        Some(profile) => Ok(profile.text(name)?.filter(|text| !text.is_empty())),
        None => Ok(None),
    };
    Ok(CatalogUser {
        reference: reference.to_owned(),
        display_name: field("displayName")?,
        email: field("email")?,
        annotations: annotations(metadata)?,
    })
}

fn annotations(metadata: Node<'_>) -> Result<BTreeMap<String, String>, FileError> {
    let mut annotations = BTreeMap::new();
    if let Some(YamlData::Mapping(fields)) = metadata
        .child("annotations")
        .map(|annotations| &annotations.yaml.data)
    {
        for (key, value) in fields {
            let key = metadata.with(key).string("annotations")?;
            annotations.insert(key, metadata.with(value).scalar("annotations")?);
        }
    }
    Ok(annotations)
}

/// The relations that are written out, as in entities that come from a catalog's API.
fn explicit(node: Node<'_>) -> Result<Vec<Relation>, FileError> {
    let Some(relations) = node.child("relations") else {
        return Ok(Vec::new());
    };
    let read = |relation: Node<'_>| {
        let target = relation.needed("targetRef")?;
        target
            .parse::<EntityRef>()
            .map_err(|why| relation.fault(why))?;
        Ok(Relation {
            kind: relation.needed("type")?,
            target_ref: target,
        })
    };
    relations
        .items("relations")?
        .into_iter()
        .map(read)
        .collect()
}

/// A ref that may leave out its kind and namespace.
fn full(text: &str, kind: &str, namespace: &str) -> Result<EntityRef, String> {
    let (kind, rest) = text.split_once(':').unwrap_or((kind, text));
    if rest.contains('/') {
        format!("{kind}:{rest}").parse()
    } else {
        format!("{kind}:{namespace}/{rest}").parse()
    }
}

fn fault(file: &Path, marker: &Marker, message: impl Into<String>) -> FileError {
    FileError {
        file: file.to_owned(),
        place: Some((marker.line(), marker.col() + 1)),
        message: message.into(),
    }
}

/// A node of a file, which knows how to complain.
#[derive(Clone, Copy)]
struct Node<'a> {
    file: &'a Path,
    yaml: &'a MarkedYaml<'a>,
}

impl<'a> Node<'a> {
    fn with(self, yaml: &'a MarkedYaml<'a>) -> Self {
        Self { yaml, ..self }
    }

    fn fault(self, message: impl Into<String>) -> FileError {
        fault(self.file, &self.yaml.span.start, message)
    }

    fn place(self) -> String {
        self.fault("").at()
    }

    /// The value of a field, unless it is absent or null.
    fn child(self, field: &str) -> Option<Self> {
        let value = self.yaml.data.as_mapping_get(field)?;
        (!value.data.is_null()).then(|| self.with(value))
    }

    fn items(self, field: &str) -> Result<Vec<Self>, FileError> {
        match &self.yaml.data {
            YamlData::Sequence(items) => Ok(items.iter().map(|item| self.with(item)).collect()),
            _ => Err(self.fault(format!("`{field}` must be a list, as in {field}: [a, b]"))),
        }
    }

    fn needed(self, field: &str) -> Result<String, FileError> {
        self.text(field)?
            .ok_or_else(|| self.fault(format!("`{field}` is missing")))
    }

    fn text(self, field: &str) -> Result<Option<String>, FileError> {
        self.child(field)
            .map(|child| child.string(field))
            .transpose()
    }

    fn string(self, field: &str) -> Result<String, FileError> {
        match self.yaml.data.as_str() {
            Some(text) => Ok(text.to_owned()),
            None => Err(self.fault(format!(
                "`{field}` must be text here; put it in quotes if it looks like a number"
            ))),
        }
    }

    /// Text, or a number or boolean as text.
    fn scalar(self, field: &str) -> Result<String, FileError> {
        match &self.yaml.data {
            YamlData::Value(Scalar::Integer(number)) => Ok(number.to_string()),
            YamlData::Value(Scalar::FloatingPoint(number)) => Ok(number.to_string()),
            YamlData::Value(Scalar::Boolean(truth)) => Ok(truth.to_string()),
            _ => self.string(field),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Entities, FileError> {
        Entities::parse(&[(Path::new("people.yaml"), text.to_owned())])
    }

    fn relations(entities: &Entities, reference: &str) -> String {
        let entity = entities.entity(reference).unwrap();
        let words: Vec<String> = entity
            .relations
            .iter()
            .map(|one| format!("{}>{}", one.kind, one.target_ref))
            .collect();
        words.join(" ")
    }

    #[test]
    fn relations_are_derived_on_both_sides_as_backstage_does() {
        let entities = parse(
            "
kind: User
metadata: {name: Ann}
spec: {memberOf: [ops, other/Guild, gone]}
---
kind: Group
metadata: {name: Ops}
spec: {members: [bob, ann, user:x/cy], children: [night], parent: all}
---
kind: Group
metadata: {name: guild, namespace: other}
---
- kind: Group
  metadata: {name: night}
- kind: Group
  metadata: {name: all}
- kind: Component
  metadata: {name: shop}
  spec: {owner: ops}
- kind: System
  metadata: {name: site}
  spec: {owner: user:ann}
",
        )
        .unwrap();
        assert_eq!(
            relations(&entities, "group:ops"),
            "childOf>group:default/all hasMember>user:default/ann hasMember>user:default/bob \
             hasMember>user:x/cy ownerOf>component:default/shop parentOf>group:default/night"
        );
        assert_eq!(
            relations(&entities, "group:other/guild"),
            "hasMember>user:default/ann"
        );
        assert_eq!(
            relations(&entities, "group:all"),
            "parentOf>group:default/ops"
        );
        assert_eq!(
            relations(&entities, "group:night"),
            "childOf>group:default/ops"
        );
        assert_eq!(
            relations(&entities, "component:shop"),
            "ownedBy>group:default/ops"
        );
        assert_eq!(
            relations(&entities, "system:site"),
            "ownedBy>user:default/ann"
        );
        assert_eq!(entities.counts(), (1, 4));
    }

    #[test]
    fn explicit_relations_come_first_and_as_written() {
        let entities = parse(
            r#"{"kind": "Component", "metadata": {"name": "x"}, "spec": {"owner": "o1"},
                "relations": [{"type": "ownedBy", "targetRef": "user:default/o2"},
                              {"type": "ownedBy", "targetRef": "group:default/o1"}]}"#,
        )
        .unwrap();
        assert_eq!(
            relations(&entities, "component:x"),
            "ownedBy>user:default/o2 ownedBy>group:default/o1"
        );
    }

    #[test]
    fn a_fault_names_its_line_and_what_would_be_right() {
        for (text, place, words) in [
            ("kind: [a\n", (2, 1), "flow sequence"),
            ("\nmetadata: {name: a}\n", (2, 1), "`kind` is missing"),
            ("kind: User\n", (1, 1), "needs `metadata`"),
            ("kind: User\nmetadata:\n  name: 12\n", (3, 9), "quotes"),
            ("kind: User\nmetadata:\n  name: a b\n", (3, 3), "space"),
            (
                "kind: User\nmetadata: {name: a}\nspec: {memberOf: ops}\n",
                (3, 18),
                "must be a list",
            ),
            (
                "kind: User\nmetadata: {name: a}\n---\nkind: user\nmetadata: {name: A}\n",
                (4, 1),
                "user:default/a is there twice, first at people.yaml:1:1",
            ),
            ("- just text\n", (1, 3), "must be a mapping"),
        ] {
            let error = parse(text).unwrap_err();
            assert_eq!(error.place, Some(place), "{text}: {error}");
            assert!(error.message.contains(words), "{text}: {error}");
        }
    }

    #[test]
    fn a_group_of_a_hundred_thousand_is_read() {
        let mut text = String::from("kind: Group\nmetadata: {name: all}\nspec:\n  members:\n");
        for n in 0..100_000 {
            text.push_str(&format!("  - u{n}\n"));
        }
        let entities = parse(&text).unwrap();
        let group = entities.entity("group:default/all").unwrap();
        assert_eq!(group.relations.len(), 100_000);
    }
}
