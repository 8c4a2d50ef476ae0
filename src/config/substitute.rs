//! Backstage's substitutions: `${V}`, `${V:-default}`, `$${`, `$env`, `$file`, `$include`.
//!
//! Done for each file before the files are merged, and only under the keys that Tidings reads.
//! What cannot be made becomes a broken value, an error for whoever reads it and for nobody else.
//! Source: Backstage, "Includes and Dynamic Data".

use std::path::Path;

use super::environment::Environment;
use super::error::ConfigError;
use super::source::Place;
use super::tree;
use super::tree::Data;
use super::tree::Node;

/// How deep files may include each other.
const DEPTH_MAX: u8 = 10;

/// Substitutes in everything under `node`, which stands at `key`.
pub(super) fn substitute(node: Node, key: &str, environment: &Environment) -> Node {
    Substitution { environment }.node(node, key, 0)
}

/// Whether it is a map with one key and that key is a directive.
pub(super) fn is_directive(node: &Node) -> bool {
    directive(node).is_some()
}

struct Substitution<'a> {
    environment: &'a Environment,
}

impl Substitution<'_> {
    fn node(&self, mut node: Node, key: &str, depth: u8) -> Node {
        if let Some((directive, value)) = directive(&node) {
            return self
                .directive(&directive, value, key, depth)
                .map(|mut made| {
                    made.key_place.clone_from(&node.key_place);
                    made
                })
                .unwrap_or_else(|error| broken(&node, error));
        }
        node.data = match node.data {
            Data::Text(text) => match self.text(&text, key, &node.place) {
                Ok(text) => Data::Text(text),
                Err(error) => Data::Broken(Box::new(error)),
            },
            Data::List(items) => Data::List(
                items
                    .into_iter()
                    .enumerate()
                    .map(|(no, item)| self.node(item, &format!("{key}[{no}]"), depth))
                    .collect(),
            ),
            Data::Map(entries) => Data::Map(
                entries
                    .into_iter()
                    .map(|(name, value)| {
                        let value = self.node(value, &format!("{key}.{name}"), depth);
                        (name, value)
                    })
                    .collect(),
            ),
            other => other,
        };
        node
    }

    /// Fills in the variables of a text.
    fn text(&self, text: &str, key: &str, place: &Place) -> Result<String, ConfigError> {
        let mut made = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(at) = rest.find("${") {
            let Some(length) = rest[at..].find('}') else {
                break;
            };
            if rest[..at].ends_with('$') {
                // `$${` stands for `${`.
                made.push_str(&rest[..at - 1]);
                made.push_str(&rest[at..=at + length]);
            } else {
                made.push_str(&rest[..at]);
                made.push_str(&self.variable(&rest[at + 2..at + length], key, place)?);
            }
            rest = &rest[at + length + 1..];
        }
        made.push_str(rest);
        Ok(made)
    }

    /// The value of `NAME` or `NAME:-default`.
    fn variable(&self, text: &str, key: &str, place: &Place) -> Result<String, ConfigError> {
        let (name, default) = match text.split_once(":-") {
            Some((name, default)) => (name.trim(), Some(default.trim())),
            None => (text.trim(), None),
        };
        match (self.environment.get(name), default) {
            (Some(""), Some(default)) => Ok(default.to_owned()),
            (Some(value), _) => Ok(value.to_owned()),
            (None, Some(default)) => Ok(default.to_owned()),
            (None, None) => Err(ConfigError::new(
                format!("`{key}` needs the environment variable `{name}`, which is not set"),
                place.clone(),
                format!("set {name}, or give a default: ${{{name}:-…}}"),
            )),
        }
    }

    fn directive(
        &self,
        directive: &str,
        value: &Node,
        key: &str,
        depth: u8,
    ) -> Result<Node, ConfigError> {
        let Data::Text(text) = &value.data else {
            let what = if directive == "$env" {
                "a variable"
            } else {
                "a file"
            };
            return Err(ConfigError::new(
                format!("`{key}.{directive}` must be the name of {what}"),
                value.mark().clone(),
                "",
            ));
        };
        let text = self.text(text, key, &value.place)?;
        match directive {
            "$env" => {
                let made = self.variable(&text, key, &value.place)?;
                Ok(Node::new(Data::Text(made), value.place.clone()))
            }
            "$file" => file(&text, value, key),
            "$include" if depth < DEPTH_MAX => self.include(&text, value, key, depth),
            "$include" => Err(ConfigError::new(
                format!("`{key}`: files include each other more than {DEPTH_MAX} deep"),
                value.place.clone(),
                "does a file include itself?",
            )),
            _ => Err(ConfigError::new(
                format!("`{key}`: there is no directive `{directive}`"),
                value.mark().clone(),
                "known are $env, $file and $include",
            )),
        }
    }

    /// A file of YAML or JSON, or what stands in it under `file#dotted.key`.
    fn include(&self, text: &str, value: &Node, key: &str, depth: u8) -> Result<Node, ConfigError> {
        let (name, path) = text.split_once('#').unwrap_or((text, ""));
        let mut found = tree::read(&at(name, value)).map_err(|error| match &error.place {
            Some(place) if place.is_file() => unreadable(&error.message, value, key),
            _ => error,
        })?;
        for part in path.split('.').filter(|part| !part.is_empty()) {
            found = found.get(part).cloned().ok_or_else(|| {
                ConfigError::new(
                    format!("`{key}`: there is no `{path}` in {name}"),
                    value.place.clone(),
                    "after # stands the dotted key to take from the file",
                )
            })?;
        }
        Ok(self.node(found, key, depth + 1))
    }
}

/// The directive of a map that has one key and that key begins with `$`.
fn directive(node: &Node) -> Option<(String, &Node)> {
    match &node.data {
        Data::Map(entries) => match entries.as_slice() {
            [(key, value)] if key.starts_with('$') => Some((key.clone(), value)),
            _ => None,
        },
        _ => None,
    }
}

fn broken(node: &Node, error: ConfigError) -> Node {
    Node {
        data: Data::Broken(Box::new(error)),
        ..node.clone()
    }
}

/// The text of a file, without the line ends that editors add.
fn file(name: &str, value: &Node, key: &str) -> Result<Node, ConfigError> {
    let text = std::fs::read_to_string(at(name, value))
        .map_err(|error| unreadable(&error.to_string(), value, key))?;
    Ok(Node::new(
        Data::Text(text.trim_end().to_owned()),
        value.place.clone(),
    ))
}

fn unreadable(why: &str, value: &Node, key: &str) -> ConfigError {
    let why = why.trim_start_matches("cannot read the configuration: ");
    ConfigError::new(
        format!("`{key}` needs a file that cannot be read: {why}"),
        value.place.clone(),
        "relative paths start from the directory of the file they stand in",
    )
}

fn at(name: &str, value: &Node) -> std::path::PathBuf {
    value.place.directory().join(Path::new(name))
}
