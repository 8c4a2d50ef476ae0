//! Environment variables: for substitution, and `APP_CONFIG_<key_with_underscores>`.

use std::collections::BTreeMap;

use serde_json::Value;

use super::source::At;
use super::source::Place;
use super::tree::Node;

/// What begins the name of a variable that sets a key. Source: Backstage.
const PREFIX: &str = "APP_CONFIG_";

/// A copy of the environment variables.
#[derive(Clone, Default)]
pub struct Environment(BTreeMap<String, String>);

impl std::fmt::Debug for Environment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Values may be secrets.
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Environment {
    /// The variables of this process; those that are not UTF-8 are left out.
    pub fn process() -> Self {
        std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect()
    }

    /// The value of a variable.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// What the `APP_CONFIG_` variables set, each a tree of its own; `_` separates keys.
    pub(super) fn settings(&self) -> Vec<Node> {
        let set = self.0.iter().filter_map(|(name, value)| {
            let keys: Vec<&str> = name.strip_prefix(PREFIX)?.split('_').collect();
            if keys.iter().any(|key| key.is_empty()) {
                return None;
            }
            let value = value_of(value);
            let place = Place::new(At::Variable(name.clone()));
            Some(Node::from_json(value, &place).under(&keys))
        });
        set.collect()
    }
}

/// JSON as such, all else as text. Numbers and truths stay text too, which is read as either where
/// one is wanted: a password may be `12345678`.
fn value_of(text: &str) -> Value {
    match serde_json::from_str(text) {
        Ok(Value::Number(_) | Value::Bool(_)) | Err(_) => Value::from(text),
        Ok(value) => value,
    }
}

impl<N: Into<String>, V: Into<String>> FromIterator<(N, V)> for Environment {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(variables: I) -> Self {
        Self(
            variables
                .into_iter()
                .map(|(name, value)| (name.into(), value.into()))
                .collect(),
        )
    }
}
