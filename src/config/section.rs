//! A part of the configuration: whoever it belongs to reads it into a struct of their own.

use std::path::Component;
use std::path::Path;
use std::path::PathBuf;

use serde::de::DeserializeOwned;

use super::de::Error;
use super::de::Fault;
use super::error::ConfigError;
use super::keys;
use super::source::At;
use super::source::Place;
use super::tree::Data;
use super::tree::Node;

/// A part of the configuration that knows where it was written; also one that nobody wrote.
#[derive(Clone)]
pub struct Section {
    pub(super) key: String,
    pub(super) node: Option<Node>,
    /// The nearest key above that was written.
    pub(super) above: Option<Place>,
}

impl std::fmt::Debug for Section {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Section({} at {})", self.key, self.place())
    }
}

impl Section {
    /// Whether somebody wrote it.
    pub fn exists(&self) -> bool {
        self.node.is_some()
    }

    /// Its dotted key, as in `tidings.retry[2]`.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The part under a key; where there is none, a part that does not exist.
    pub fn get(&self, key: &str) -> Self {
        let node = self.node.as_ref().and_then(|node| match &node.data {
            // What could not be substituted is an error for whoever looks into it.
            Data::Broken(_) => Some(node),
            _ => node.get(key),
        });
        self.below(format!("{}.{key}", self.key), node)
    }

    fn below(&self, key: String, node: Option<&Node>) -> Self {
        let above = self.node.as_ref().map(|node| node.mark().clone());
        Self {
            key,
            node: node.cloned(),
            above: above.or_else(|| self.above.clone()),
        }
    }

    /// The items of a list; none where it is no list.
    pub fn items(&self) -> Vec<Self> {
        let Some(Data::List(items)) = self.node.as_ref().map(|node| &node.data) else {
            return Vec::new();
        };
        let item = |(no, item)| self.below(format!("{}[{no}]", self.key), Some(item));
        items.iter().enumerate().map(item).collect()
    }

    /// The entries of an object, in the order written; none where it is no object.
    pub fn entries(&self) -> Vec<(String, Self)> {
        let Some(Data::Map(entries)) = self.node.as_ref().map(|node| &node.data) else {
            return Vec::new();
        };
        entries
            .iter()
            .map(|(key, node)| {
                let section = self.below(format!("{}.{key}", self.key), Some(node));
                (key.clone(), section)
            })
            .collect()
    }

    /// Reads it. With `deny_unknown_fields` an unknown key is an error with a suggestion. A part
    /// that nobody wrote reads as an empty object; read an `Option` where that differs.
    ///
    /// # Errors
    /// What does not fit, at its place. A type's own message may give help after a line end.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, ConfigError> {
        let absent;
        let node = match &self.node {
            Some(node) => node,
            None => {
                absent = Node::new(Data::Map(Vec::new()), self.mark());
                &absent
            }
        };
        T::deserialize(node).map_err(|error| self.explain(error))
    }

    /// Reads it if somebody wrote it.
    ///
    /// # Errors
    /// As [`Section::read`].
    pub fn read_if_set<T: DeserializeOwned>(&self) -> Result<Option<T>, ConfigError> {
        if self.exists() {
            self.read().map(Some)
        } else {
            Ok(None)
        }
    }

    /// This object without some of its keys.
    pub(super) fn without(&self, keys: &[&str]) -> Self {
        let mut rest = self.clone();
        if let Some(Data::Map(entries)) = rest.node.as_mut().map(|node| &mut node.data) {
            entries.retain(|(key, _)| !keys.contains(&key.as_str()));
        }
        rest
    }

    /// A path written here: relative ones start from the directory of the file they stand in.
    pub fn resolve(&self, path: &Path) -> PathBuf {
        match &self.node {
            Some(node) => plain(&node.place.directory().join(path)),
            None => path.to_owned(),
        }
    }

    /// A fault in it that no type finds. Say nothing that may be secret.
    pub fn error(&self, message: impl Into<String>, help: impl Into<String>) -> ConfigError {
        // What is wrong with a value is shown at the value, and with an object at its key.
        let place = match &self.node {
            Some(node) if matches!(node.data, Data::Map(_) | Data::List(_)) => node.mark().clone(),
            Some(node) => node.place.clone(),
            None => self.mark(),
        };
        ConfigError::new(message, place, help).about(&self.key)
    }

    /// `file:line:column`, the variable, or the key where nobody wrote it.
    pub fn place(&self) -> String {
        match &self.node {
            Some(node) => node.mark().to_string(),
            None => self.key.clone(),
        }
    }

    fn mark(&self) -> Place {
        match (&self.node, &self.above) {
            (Some(node), _) => node.mark().clone(),
            (None, Some(above)) => above.clone(),
            (None, None) => Place::new(At::Absent(self.key.clone())),
        }
    }

    fn explain(&self, error: Error) -> ConfigError {
        let mut key = self.key.clone();
        for part in error.path.iter().rev() {
            if !part.starts_with('[') {
                key.push('.');
            }
            key.push_str(part);
        }
        let (message, help) = match error.fault {
            Fault::Broken(error) => return error.about(&key),
            Fault::Unknown {
                key: unknown,
                known,
            } => {
                let help = keys::help(&key, &unknown, known);
                key = format!("{key}.{unknown}");
                (format!("unknown key `{key}`"), help)
            }
            Fault::Choice { known } => {
                let words: Vec<String> = known.iter().map(|word| format!("`{word}`")).collect();
                let words = words.join(", ");
                (format!("`{key}` must be one of {words}"), String::new())
            }
            Fault::Missing { key: missing } => {
                let meaning = keys::meaning(&format!("{key}.{missing}"));
                let help = meaning.map(|meaning| format!("add it: {meaning}"));
                (
                    format!("`{key}.{missing}` is missing"),
                    help.unwrap_or_default(),
                )
            }
            Fault::Kind { found, wanted } => {
                let help = match (found.as_str(), wanted.as_str()) {
                    ("a number" | "true or false", "text") => "put it in quotes",
                    _ => "",
                };
                let not = if found.is_empty() || found == "text" {
                    String::new()
                } else {
                    format!(", not {found}")
                };
                (format!("`{key}` must be {wanted}{not}"), help.to_owned())
            }
            Fault::Said(said) => {
                let (said, help) = said.split_once('\n').unwrap_or((&said, ""));
                (format!("`{key}` {said}"), help.to_owned())
            }
        };
        let place = error.place.unwrap_or_else(|| self.mark());
        ConfigError::new(message, place, help).about(&key)
    }
}

/// The path without its `.` components, as a person would write it.
fn plain(path: &Path) -> PathBuf {
    let parts = path.components().filter(|part| *part != Component::CurDir);
    let plain: PathBuf = parts.collect();
    if plain.as_os_str().is_empty() {
        return PathBuf::from(".");
    }
    plain
}
