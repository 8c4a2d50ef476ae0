//! From entity refs to people: a walk over the catalog that does no I/O of its own.

use serde::Deserialize;
use serde::Serialize;

/// A relation of an entity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Relation {
    /// `hasMember`, `parentOf`, `ownedBy`, …
    #[serde(rename = "type")]
    pub kind: String,
    /// The other entity, canonical.
    pub target_ref: String,
}

/// What the walk over recipients needs of an entity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entity {
    /// Its canonical ref.
    pub reference: String,
    /// As written: `User`, `Group`, …
    pub kind: String,
    /// In the catalog's order.
    pub relations: Vec<Relation>,
}
