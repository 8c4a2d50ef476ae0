//! From entity refs to people: a breadth-first walk over the catalog that does no I/O of its own.
//!
//! The decorator asks the [`Walk`] which entities it wants, fetches them, and hands them in, until
//! it wants no more. A user ref stands for itself and is never looked up; a group for its members
//! and those of its descendants; anything else for its first owner. Source: contract 2.2.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::collections::HashSet;
use std::collections::VecDeque;

use serde::Deserialize;
use serde::Serialize;

use crate::chunk::RefOutcome;
use crate::chunk::RefReport;
use crate::notification::EntityRef;

/// A relation of an entity.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Relation {
    /// `hasMember`, `parentOf`, `ownedBy`, …
    #[serde(rename = "type")]
    pub kind: String,
    /// The other entity, canonical.
    pub target_ref: String,
}

/// What Tidings needs of an entity.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entity {
    /// Its canonical ref.
    pub reference: String,
    /// As written: `User`, `Group`, …
    pub kind: String,
    /// In the catalog's order.
    pub relations: Vec<Relation>,
    /// `metadata.annotations`; for senders, the walk does not need them.
    pub annotations: BTreeMap<String, String>,
}

/// The people that a submission reaches, and what became of each of its refs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Audience {
    /// Distinct by exact string, in the order of resolution.
    pub users: Vec<String>,
    /// One for each distinct ref, in the order of the submission.
    pub refs: Vec<RefReport>,
}

/// A walk from refs to people.
///
/// ```text
/// loop { let refs = walk.wanted(100); if refs.is_empty() { break }
///        walk.found(&refs, catalog.entities(&refs).await?) }
/// ```
#[derive(Debug)]
pub struct Walk {
    exclude: HashSet<String>,
    roots: Vec<(String, Root)>,
    people: People,
    nodes: Vec<Node>,
    by_ref: HashMap<String, usize>,
    /// Entities of this level that were not found yet, in order.
    level: VecDeque<usize>,
    /// Entities of the next level.
    next: Vec<usize>,
    /// People who are children of an entity; they come first in the next level.
    next_people: Vec<(usize, String)>,
}

/// What a ref of the submission turned out to be.
#[derive(Debug)]
enum Root {
    Person(usize),
    Entity(usize),
    Excluded,
    Malformed,
}

/// An entity on the way.
#[derive(Debug, Default)]
struct Node {
    reference: String,
    state: NodeState,
    people: Vec<usize>,
    children: Vec<usize>,
    /// Something that belongs to it was excluded before it was looked at.
    excluded: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum NodeState {
    #[default]
    Unseen,
    Known,
    Unknown,
}

impl Walk {
    /// A walk from `refs`, leaving out what is in `exclude` (compared as exact strings with refs
    /// as written, with canonical refs of entities, and with the people found).
    pub fn new(refs: &[String], exclude: &[String]) -> Self {
        let mut walk = Self {
            exclude: exclude.iter().cloned().collect(),
            roots: Vec::new(),
            people: People::default(),
            nodes: Vec::new(),
            by_ref: HashMap::new(),
            level: VecDeque::new(),
            next: Vec::new(),
            next_people: Vec::new(),
        };
        let mut seen = HashSet::new();
        for reference in refs.iter().filter(|one| seen.insert(one.as_str())) {
            let root = match reference.parse::<EntityRef>() {
                Err(_) => Root::Malformed,
                Ok(parsed) if parsed.is_user() => Root::Person(walk.person(reference.clone())),
                Ok(parsed) => walk
                    .entity(reference, &parsed)
                    .map_or(Root::Excluded, Root::Entity),
            };
            walk.roots.push((reference.clone(), root));
        }
        walk
    }

    /// The entities to fetch now: at most `limit` canonical refs, the same ones until they are
    /// [`found`](Self::found). Empty means that the walk is done.
    pub fn wanted(&mut self, limit: usize) -> Vec<String> {
        if self.level.is_empty() {
            for (parent, person) in std::mem::take(&mut self.next_people) {
                let person = self.person(person);
                self.nodes[parent].people.push(person);
            }
            self.level.extend(self.next.drain(..));
        }
        self.level
            .iter()
            .take(limit.max(1))
            .map(|&node| self.nodes[node].reference.clone())
            .collect()
    }

    /// Takes what the catalog answered to `asked`, in any order; what is left out does not exist.
    pub fn found(&mut self, asked: &[String], entities: Vec<Entity>) {
        let mut entities: HashMap<String, Entity> = entities
            .into_iter()
            .map(|entity| (entity.reference.clone(), entity))
            .collect();
        for reference in asked {
            let Some(&node) = self.by_ref.get(reference) else {
                continue;
            };
            if self.nodes[node].state == NodeState::Unseen {
                self.look_at(node, entities.remove(reference));
            }
        }
        let nodes = &self.nodes;
        while self
            .level
            .pop_front_if(|node| nodes[*node].state != NodeState::Unseen)
            .is_some()
        {}
    }

    /// Ends the walk.
    pub fn finish(self) -> Audience {
        let refs = Reports::new(&self).all();
        Audience {
            users: self.people.wanted(),
            refs,
        }
    }

    fn look_at(&mut self, node: usize, entity: Option<Entity>) {
        let Some(entity) = entity else {
            self.nodes[node].state = NodeState::Unknown;
            return;
        };
        self.nodes[node].state = NodeState::Known;
        if entity.kind.eq_ignore_ascii_case("user") {
            let person = self.person(entity.reference);
            self.nodes[node].people.push(person);
        } else if entity.kind.eq_ignore_ascii_case("group") {
            for relation in entity.relations {
                match relation.kind.as_str() {
                    "hasMember" => self.member(node, relation.target_ref),
                    "parentOf" => self.child(node, relation.target_ref),
                    _ => {}
                }
            }
        } else if let Some(owner) = entity
            .relations
            .into_iter()
            .find(|relation| relation.kind == "ownedBy")
        {
            self.child(node, owner.target_ref);
        }
    }

    /// A member of a group: taken if it is a person, else passed over.
    fn member(&mut self, node: usize, reference: String) {
        if reference
            .parse::<EntityRef>()
            .is_ok_and(|parsed| parsed.is_user())
        {
            let person = self.person(reference);
            self.nodes[node].people.push(person);
        }
    }

    /// What stands below an entity: it is of the next level, unless it was met before.
    fn child(&mut self, node: usize, reference: String) {
        let Ok(parsed) = reference.parse::<EntityRef>() else {
            return;
        };
        if parsed.is_user() {
            self.next_people.push((node, reference));
        } else {
            match self.entity(&reference, &parsed) {
                Some(child) => self.nodes[node].children.push(child),
                None => self.nodes[node].excluded = true,
            }
        }
    }

    /// The node of an entity, of the next level if it is new; `None` if it is excluded.
    fn entity(&mut self, reference: &str, parsed: &EntityRef) -> Option<usize> {
        let canonical = parsed.canonical();
        if self.exclude.contains(reference) || self.exclude.contains(&canonical) {
            return None;
        }
        if let Some(&node) = self.by_ref.get(&canonical) {
            return Some(node);
        }
        let node = self.nodes.len();
        self.nodes.push(Node {
            reference: canonical.clone(),
            ..Node::default()
        });
        self.by_ref.insert(canonical, node);
        self.next.push(node);
        Some(node)
    }

    fn person(&mut self, reference: String) -> usize {
        let excluded = self.exclude.contains(&reference);
        self.people.number(reference, excluded)
    }
}

/// Everybody met on the way, each with a number, so that the graph holds no strings.
#[derive(Debug, Default)]
struct People {
    numbers: HashMap<String, usize>,
    excluded: Vec<bool>,
}

impl People {
    fn number(&mut self, reference: String, excluded: bool) -> usize {
        let next = self.excluded.len();
        let number = *self.numbers.entry(reference).or_insert(next);
        if number == next {
            self.excluded.push(excluded);
        }
        number
    }

    /// Those who are not excluded, in the order in which they were met.
    fn wanted(self) -> Vec<String> {
        let mut all = vec![String::new(); self.excluded.len()];
        for (reference, number) in self.numbers {
            all[number] = reference;
        }
        let wanted = all.into_iter().zip(self.excluded);
        wanted
            .filter(|(_, excluded)| !excluded)
            .map(|(reference, _)| reference)
            .collect()
    }
}

/// Counts the people below each ref of a submission.
struct Reports<'a> {
    walk: &'a Walk,
    /// The round in which a node or person was last counted.
    node_round: Vec<usize>,
    person_round: Vec<usize>,
    round: usize,
    /// Reports of entities that were asked for before, under another spelling.
    done: HashMap<usize, (RefOutcome, u32)>,
}

impl<'a> Reports<'a> {
    fn new(walk: &'a Walk) -> Self {
        Self {
            walk,
            node_round: vec![0; walk.nodes.len()],
            person_round: vec![0; walk.people.excluded.len()],
            round: 0,
            done: HashMap::new(),
        }
    }

    fn all(mut self) -> Vec<RefReport> {
        let walk = self.walk;
        let report = |(reference, root): &(String, Root)| {
            let (outcome, people) = match *root {
                Root::Excluded => (RefOutcome::Excluded, 0),
                Root::Malformed => (RefOutcome::Unknown, 0),
                Root::Person(person) if walk.people.excluded[person] => (RefOutcome::Excluded, 0),
                Root::Person(_) => (RefOutcome::Expanded, 1),
                Root::Entity(node) => self.entity(node),
            };
            RefReport {
                entity: reference.clone(),
                outcome,
                people,
            }
        };
        walk.roots.iter().map(report).collect()
    }

    fn entity(&mut self, node: usize) -> (RefOutcome, u32) {
        if self.walk.nodes[node].state != NodeState::Known {
            return (RefOutcome::Unknown, 0);
        }
        if let Some(&done) = self.done.get(&node) {
            return done;
        }
        let (people, excluded) = self.count(node);
        let outcome = match people {
            0 if excluded => RefOutcome::Excluded,
            0 => RefOutcome::Empty,
            _ => RefOutcome::Expanded,
        };
        self.done.insert(node, (outcome, people));
        (outcome, people)
    }

    /// How many people are below `root`, and whether somebody or something was left out.
    fn count(&mut self, root: usize) -> (u32, bool) {
        self.round += 1;
        self.node_round[root] = self.round;
        let mut todo = vec![root];
        let (mut people, mut left_out) = (0_u32, false);
        while let Some(node) = todo.pop() {
            let node = &self.walk.nodes[node];
            left_out |= node.excluded;
            for &person in &node.people {
                if std::mem::replace(&mut self.person_round[person], self.round) != self.round {
                    let excluded = self.walk.people.excluded[person];
                    left_out |= excluded;
                    people += u32::from(!excluded);
                }
            }
            for &child in &node.children {
                if std::mem::replace(&mut self.node_round[child], self.round) != self.round {
                    todo.push(child);
                }
            }
        }
        (people, left_out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// `kind:name` with `type>target` relations, as in `group:a hasMember>user:default/x`.
    fn entity(text: &str) -> Entity {
        let mut words = text.split(' ');
        let parsed: EntityRef = words.next().unwrap().parse().unwrap();
        Entity {
            reference: parsed.canonical(),
            kind: parsed.kind,
            relations: words
                .map(|word| word.split_once('>').unwrap())
                .map(|(kind, target)| Relation {
                    kind: kind.to_owned(),
                    target_ref: target.to_owned(),
                })
                .collect(),
            ..Entity::default()
        }
    }

    fn strings(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    /// Walks, and counts the lookups.
    fn walk(
        catalog: &[Entity],
        refs: &[String],
        exclude: &[String],
        limit: usize,
    ) -> (Audience, usize) {
        let by_ref: HashMap<&str, &Entity> = catalog
            .iter()
            .map(|entity| (entity.reference.as_str(), entity))
            .collect();
        let mut walk = Walk::new(refs, exclude);
        let mut lookups = 0;
        loop {
            let asked = walk.wanted(limit);
            if asked.is_empty() {
                return (walk.finish(), lookups);
            }
            lookups += asked.len();
            // The door promises no order.
            let found = asked
                .iter()
                .rev()
                .filter_map(|one| by_ref.get(one.as_str()));
            walk.found(&asked, found.map(|one| (*one).clone()).collect());
        }
    }

    fn reach(catalog: &[&str], refs: &str, exclude: &str) -> (String, String) {
        let catalog: Vec<Entity> = catalog.iter().map(|text| entity(text)).collect();
        let (audience, _) = walk(&catalog, &strings(refs), &strings(exclude), 2);
        let reports: Vec<String> = audience
            .refs
            .iter()
            .map(|one| format!("{} {:?} {}", one.entity, one.outcome, one.people))
            .collect();
        (audience.users.join(" "), reports.join(", "))
    }

    #[test]
    fn people_are_taken_as_written_without_a_lookup() {
        let refs = strings("user:foo User:default/Foo user:foo user:ignored");
        let (audience, lookups) = walk(&[], &refs, &strings("user:ignored"), 10);
        assert_eq!(audience.users, ["user:foo", "User:default/Foo"]);
        assert_eq!(lookups, 0);
        let outcomes: Vec<_> = audience.refs.iter().map(|one| one.outcome).collect();
        assert_eq!(
            outcomes,
            [
                RefOutcome::Expanded,
                RefOutcome::Expanded,
                RefOutcome::Excluded
            ]
        );
    }

    #[test]
    fn a_group_stands_for_its_members_and_those_of_its_descendants_even_in_a_circle() {
        let catalog = [
            "Group:a hasMember>user:default/ua hasMember>group:default/x parentOf>group:default/b childOf>group:default/c",
            "Group:b hasMember>user:default/ub hasMember>user:default/ua parentOf>group:default/a",
            "Group:c hasMember>user:default/uc",
        ];
        let (users, reports) = reach(&catalog, "group:A group:default/b", "");
        assert_eq!(users, "user:default/ua user:default/ub");
        assert_eq!(reports, "group:A Expanded 2, group:default/b Expanded 2");
    }

    #[test]
    fn anything_else_stands_for_its_first_owner() {
        let catalog = [
            "Component:x dependsOn>component:y ownedBy>group:default/g ownedBy>user:default/o2",
            "Group:g hasMember>user:default/o1",
            "Component:own ownedBy>component:own",
        ];
        let (users, reports) = reach(&catalog, "component:x component:own", "");
        assert_eq!(users, "user:default/o1");
        assert_eq!(reports, "component:x Expanded 1, component:own Empty 0");
    }

    #[test]
    fn refs_that_reach_nobody_are_told_apart() {
        let catalog = [
            "Group:empty",
            "Group:out hasMember>user:default/a",
            "Group:top parentOf>group:default/out",
            "Group:lost parentOf>group:default/gone",
        ];
        let (users, reports) = reach(
            &catalog,
            "group:empty group:typo group:out group:top group:lost",
            "group:default/out user:default/a",
        );
        assert_eq!(users, "");
        assert_eq!(
            reports,
            "group:empty Empty 0, group:typo Unknown 0, group:out Excluded 0, \
             group:top Excluded 0, group:lost Empty 0"
        );
    }

    #[test]
    fn excluded_people_are_dropped_by_exact_string_and_the_rest_stays() {
        let catalog = ["Group:g hasMember>user:default/a hasMember>user:default/b"];
        let (users, reports) = reach(&catalog, "group:g", "user:default/a user:b");
        assert_eq!(users, "user:default/b");
        assert_eq!(reports, "group:g Expanded 1");
    }

    #[test]
    fn large_groups_and_deep_chains_are_walked_in_linear_time_without_recursion() {
        let members = (0..100_000).map(|n| Relation {
            kind: "hasMember".into(),
            target_ref: format!("user:default/u{n}"),
        });
        let mut catalog = vec![Entity {
            reference: "group:default/g0".into(),
            kind: "Group".into(),
            relations: members.collect(),
            ..Entity::default()
        }];
        for n in 1..20_000 {
            catalog.push(entity(&format!("Group:g{n} parentOf>group:g{}", n - 1)));
        }
        let (audience, lookups) = walk(&catalog, &strings("group:g19999"), &[], 100);
        assert_eq!(audience.users.len(), 100_000);
        assert_eq!(audience.refs[0].people, 100_000);
        assert_eq!(lookups, 20_000);
    }

    /// The contract, read literally, without batches and without a graph.
    fn model(catalog: &[Entity], refs: &[String], exclude: &[String]) -> Vec<String> {
        let is_user = |text: &str| text.parse::<EntityRef>().unwrap().is_user();
        let mut users: Vec<String> = Vec::new();
        let mut seen: Vec<String> = refs.to_vec();
        let mut todo = refs.to_vec();
        while !todo.is_empty() {
            let (people, others): (Vec<String>, Vec<String>) =
                todo.drain(..).partition(|one| is_user(one));
            users.extend(people);
            for reference in others.iter().filter(|one| !exclude.contains(one)) {
                let canonical = reference.parse::<EntityRef>().unwrap().canonical();
                let Some(entity) = catalog.iter().find(|one| one.reference == canonical) else {
                    continue;
                };
                if exclude.contains(&entity.reference) {
                    continue;
                }
                let group = entity.kind.eq_ignore_ascii_case("group");
                let owner = entity
                    .relations
                    .iter()
                    .position(|one| one.kind == "ownedBy");
                for (at, relation) in entity.relations.iter().enumerate() {
                    let target = &relation.target_ref;
                    if group && relation.kind == "hasMember" && is_user(target) {
                        users.push(target.clone());
                    }
                    let below = group && relation.kind == "parentOf" || !group && owner == Some(at);
                    if below && !seen.contains(target) {
                        seen.push(target.clone());
                        todo.push(target.clone());
                    }
                }
            }
        }
        let mut distinct = HashSet::new();
        users.retain(|one| !exclude.contains(one) && distinct.insert(one.clone()));
        users
    }

    const NAMES: [&str; 12] = [
        "user:default/a",
        "user:default/b",
        "User:default/A",
        "user:c",
        "group:default/a",
        "group:default/b",
        "Group:A",
        "group:c",
        "group:default/d",
        "component:default/x",
        "component:y",
        "system:default/z",
    ];

    fn some_refs(most: usize) -> impl Strategy<Value = Vec<String>> {
        let name = proptest::sample::select(&NAMES[..]).prop_map(str::to_owned);
        proptest::collection::vec(name, 0..most)
    }

    fn some_catalog() -> impl Strategy<Value = Vec<Entity>> {
        let kinds = ["hasMember", "parentOf", "ownedBy", "childOf"];
        let relation = (
            proptest::sample::select(kinds.to_vec()),
            proptest::sample::select(&NAMES[..]),
        )
            .prop_map(|(kind, target)| Relation {
                kind: kind.to_owned(),
                target_ref: target.to_owned(),
            });
        let named = proptest::sample::subsequence(&NAMES[4..], 0..=8);
        (
            named,
            proptest::collection::vec(proptest::collection::vec(relation, 0..6), 8),
        )
            .prop_map(|(names, relations)| {
                let mut distinct = HashSet::new();
                names
                    .into_iter()
                    .zip(relations)
                    .map(|(name, relations)| Entity {
                        relations,
                        ..entity(name)
                    })
                    .filter(|entity| distinct.insert(entity.reference.clone()))
                    .collect()
            })
    }

    proptest! {
        #[test]
        fn the_walk_equals_the_contract_read_literally(
            catalog in some_catalog(),
            refs in some_refs(5),
            exclude in some_refs(3),
            limit in 1_usize..4,
        ) {
            let (audience, _) = walk(&catalog, &refs, &exclude, limit);
            prop_assert_eq!(&audience.users, &model(&catalog, &refs, &exclude));
            for report in &audience.refs {
                let alone = model(&catalog, std::slice::from_ref(&report.entity), &exclude);
                prop_assert_eq!(report.people as usize, alone.len());
                prop_assert_eq!(report.outcome == RefOutcome::Expanded, !alone.is_empty());
            }
        }
    }
}
