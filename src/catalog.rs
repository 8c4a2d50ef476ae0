//! The catalog: who belongs to whom, and how to reach them.
//!
//! The entities are Backstage's. The variants are in `catalog/`.

pub mod file;

use async_trait::async_trait;
use serde::Deserialize;
use serde::Serialize;

use crate::failure::Failure;
pub use crate::recipients::Entity;
pub use crate::recipients::Relation;

/// What senders need of a person.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CatalogUser {
    /// The canonical ref.
    pub reference: String,
    /// `spec.profile.displayName`.
    pub display_name: Option<String>,
    /// `spec.profile.email`.
    pub email: Option<String>,
    /// `metadata.annotations`.
    pub annotations: std::collections::BTreeMap<String, String>,
}

/// The door to the catalog. A failure is one of a dependency.
#[async_trait]
pub trait Catalog: Send + Sync + 'static {
    /// The entities of these refs, in any order; those it does not have are left out. Refs are
    /// looked up without case and with the default namespace.
    async fn entities(&self, refs: &[String]) -> Result<Vec<Entity>, Failure>;

    /// The people of these refs, in the order asked; `None` for one it does not have.
    async fn people(&self, refs: &[String]) -> Result<Vec<Option<CatalogUser>>, Failure>;

    /// Every e-mail address of a person, distinct and sorted.
    async fn addresses(&self) -> Result<Vec<String>, Failure>;

    /// Every ref it has of people and groups, for suggestions; `None` where that is too many.
    async fn refs(&self) -> Option<Vec<String>>;

    /// How many people it has and how many groups, in words, for the first screen and `check`.
    async fn describe(&self) -> Result<String, Failure>;
}
