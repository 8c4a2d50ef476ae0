//! The catalog: who belongs to whom, and how to reach them.
//!
//! The entities are Backstage's. The variants are in `catalog/`.

#[cfg(feature = "backstage")]
pub mod backstage;
pub mod file;

use std::fmt;

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

    /// Whether it could answer now; says why not. Asked every few seconds.
    async fn ready(&self) -> Result<(), Failure> {
        Ok(())
    }
}

/// Users and groups, in words.
struct Counts((usize, usize));

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (users, groups) = self.0;
        let plural = |count: usize| if count == 1 { "" } else { "s" };
        write!(f, "{} user{}", thousands(users), plural(users))?;
        if groups > 0 {
            write!(f, ", {} group{}", thousands(groups), plural(groups))?;
        }
        Ok(())
    }
}

/// `8214` as `8,214`.
fn thousands(count: usize) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The ref among `refs` that `reference` was probably meant to be, if one is close enough.
pub fn closest(reference: &str, refs: &[String]) -> Option<String> {
    let wanted = reference.to_lowercase();
    // The kind and the namespace are mostly right, so the name alone says how far off is too far.
    let name = wanted.rsplit(['/', ':']).next().unwrap_or_default();
    let most = (name.chars().count() / 3).max(1);
    refs.iter()
        .map(|one| (strsim::damerau_levenshtein(&wanted, one), one))
        .filter(|(distance, _)| *distance <= most)
        .min()
        .map(|(_, one)| one.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_grouped_by_thousands() {
        assert_eq!(Counts((8_214, 1)).to_string(), "8,214 users, 1 group");
        assert_eq!(Counts((100_000, 0)).to_string(), "100,000 users");
        assert_eq!(Counts((1, 0)).to_string(), "1 user");
    }

    #[test]
    fn a_typo_finds_its_ref_and_another_name_finds_none() {
        let refs = [
            "group:default/a",
            "group:default/payments",
            "user:default/payer",
        ]
        .map(str::to_owned);
        let near = |text| closest(text, &refs);
        assert_eq!(near("group:default/paymens"), Some(refs[1].clone()));
        assert_eq!(near("Group:default/Paymetns"), Some(refs[1].clone()));
        assert_eq!(near("group:default/search"), None);
        assert_eq!(near("group:default/bc"), None);
    }
}
