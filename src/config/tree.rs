//! The configuration as a tree in which every value knows where it was written.

use std::path::Path;
use std::sync::Arc;

use saphyr::LoadableYamlNode as _;
use saphyr::MarkedYaml;
use saphyr::Scalar;
use saphyr::YamlData;
use serde_json::Value;

use super::error::ConfigError;
use super::source::At;
use super::source::Place;
use super::source::SourceFile;
use super::source::Span;
use super::source::is_secret;

/// A value and where it was written.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) data: Data,
    /// Where the value stands.
    pub(super) place: Place,
    /// Where its key stands, if it has one.
    pub(super) key_place: Option<Place>,
}

#[derive(Clone)]
pub(super) enum Data {
    Null,
    Bool(bool),
    Integer(i64),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    /// In the order written.
    Map(Vec<(String, Node)>),
    /// What a substitution could not make; it matters only to whoever reads it.
    Broken(Box<ConfigError>),
}

impl std::fmt::Debug for Data {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Any value may be a secret.
        f.write_str(match self {
            Self::Null => "null",
            Self::Bool(_) => "a truth",
            Self::Integer(_) | Self::Float(_) => "a number",
            Self::Text(_) => "text",
            Self::List(_) => "a list",
            Self::Map(_) => "an object",
            Self::Broken(_) => "broken",
        })
    }
}

impl Node {
    pub(super) fn new(data: Data, place: Place) -> Self {
        Self {
            data,
            place,
            key_place: None,
        }
    }

    /// The value of a key; `None` too where this is no map.
    pub(super) fn get(&self, key: &str) -> Option<&Self> {
        match &self.data {
            Data::Map(entries) => entries
                .iter()
                .find(|(name, _)| name == key)
                .map(|(_, node)| node),
            _ => None,
        }
    }

    /// The best place to point at: the key, else the value.
    pub(super) fn mark(&self) -> &Place {
        self.key_place.as_ref().unwrap_or(&self.place)
    }

    /// A value from outside any file.
    pub(super) fn from_json(value: Value, place: &Place) -> Self {
        let data = match value {
            Value::Null => Data::Null,
            Value::Bool(truth) => Data::Bool(truth),
            Value::Number(number) => match (number.as_i64(), number.as_f64()) {
                (Some(integer), _) => Data::Integer(integer),
                (None, float) => Data::Float(float.unwrap_or(f64::NAN)),
            },
            Value::String(text) => Data::Text(text),
            Value::Array(items) => Data::List(
                items
                    .into_iter()
                    .map(|item| Self::from_json(item, place))
                    .collect(),
            ),
            Value::Object(entries) => Data::Map(
                entries
                    .into_iter()
                    .map(|(key, value)| (key, Self::from_json(value, place)))
                    .collect(),
            ),
        };
        Self::new(data, place.clone())
    }

    /// This value under a path of keys.
    pub(super) fn under(self, keys: &[&str]) -> Self {
        let place = self.place.clone();
        keys.iter().rev().fold(self, |node, key| {
            Self::new(Data::Map(vec![((*key).to_owned(), node)]), place.clone())
        })
    }

    /// Lays a later value over this one: maps deeply, all else is replaced.
    pub(super) fn merge(&mut self, later: Self) {
        match (&mut self.data, later) {
            (
                Data::Map(entries),
                Self {
                    data: Data::Map(over),
                    ..
                },
            ) => {
                for (key, value) in over {
                    match entries.iter_mut().find(|(name, _)| *name == key) {
                        Some((_, node)) => node.merge(value),
                        None => entries.push((key, value)),
                    }
                }
            }
            (_, later) => *self = later,
        }
    }

    /// Takes out what stands at a dotted key with `[n]` for items; says whether it was there.
    pub(super) fn cut(&mut self, key: &str) -> bool {
        let (first, rest) = match key.find(['.', '[']) {
            Some(0) => return false,
            Some(end) => (&key[..end], key[end..].trim_start_matches('.')),
            None => (key, ""),
        };
        let Data::Map(entries) = &mut self.data else {
            return false;
        };
        let Some(at) = entries.iter().position(|(name, _)| name == first) else {
            return false;
        };
        match rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((no, below)) => entries[at].1.cut_item(no, below.trim_start_matches('.')),
            None if rest.is_empty() => {
                entries.remove(at);
                true
            }
            None => entries[at].1.cut(rest),
        }
    }

    fn cut_item(&mut self, no: &str, below: &str) -> bool {
        let (Data::List(items), Ok(no)) = (&mut self.data, no.parse::<usize>()) else {
            return false;
        };
        if items.len() <= no {
            return false;
        }
        // What a list's item lacks cannot be taken away; the item can.
        if below.is_empty() || !items[no].cut(below) {
            items.remove(no);
        }
        true
    }

    /// Takes out every key whose value is `null`: it is absent.
    pub(super) fn drop_nulls(&mut self) {
        match &mut self.data {
            Data::Map(entries) => {
                entries.retain(|(_, node)| !matches!(node.data, Data::Null));
                entries.iter_mut().for_each(|(_, node)| node.drop_nulls());
            }
            Data::List(items) => items.iter_mut().for_each(Self::drop_nulls),
            _ => {}
        }
    }
}

/// Reads a file of one YAML (or JSON) document.
///
/// # Errors
/// That it cannot be read, or is not YAML, with the line.
pub(super) fn read(path: &Path) -> Result<Node, ConfigError> {
    let whole = Place::new(At::File(path.to_owned()));
    let text = std::fs::read_to_string(path).map_err(|error| {
        let why = match error.kind() {
            std::io::ErrorKind::NotFound => "there is no such file".to_owned(),
            std::io::ErrorKind::InvalidData => "it is not UTF-8 text".to_owned(),
            _ => error.to_string(),
        };
        let help = "name a readable YAML file";
        ConfigError::new(
            format!("cannot read the configuration: {why}"),
            whole.clone(),
            help,
        )
    })?;
    let documents = MarkedYaml::load_from_str(&text).map_err(|error| {
        let (line, column) = (error.marker().line(), error.marker().col() + 1);
        let span = Span {
            start: (line, column),
            end: (line, column + 1),
        };
        let file = Arc::new(SourceFile::new(path, &text, Vec::new()));
        ConfigError::new(
            format!("this is not valid YAML: {}", error.info()),
            Place::new(At::Span(file, span)),
            "often a missing space after a colon, a tab, or a wrong indent just above",
        )
    })?;
    let mut secrets = Vec::new();
    for document in &documents {
        find_secrets(document, false, &mut secrets);
    }
    let file = Arc::new(SourceFile::new(path, &text, secrets));
    match documents.as_slice() {
        [] => Ok(Node::new(Data::Null, whole)),
        [document] => Ok(node(document, &file)),
        [_, second, ..] => Err(ConfigError::new(
            "a configuration file holds one document",
            Place::new(At::Span(file, span(second))),
            "put the second document into a file of its own and name both: --config A --config B",
        )),
    }
}

/// Where the values stand that no line may show: scalars under a key that names a secret.
fn find_secrets(yaml: &MarkedYaml<'_>, secret: bool, found: &mut Vec<Span>) {
    match &yaml.data {
        YamlData::Mapping(entries) => {
            for (key, value) in entries {
                let named = key.data.as_str().is_some_and(is_secret);
                find_secrets(value, secret || named, found);
            }
        }
        YamlData::Sequence(items) => {
            for item in items {
                find_secrets(item, secret, found);
            }
        }
        YamlData::Tagged(_, inner) => find_secrets(inner, secret, found),
        _ if secret => found.push(span(yaml)),
        _ => {}
    }
}

fn node(yaml: &MarkedYaml<'_>, file: &Arc<SourceFile>) -> Node {
    let place = Place::new(At::Span(Arc::clone(file), span(yaml)));
    let data = match &yaml.data {
        YamlData::Tagged(_, inner) => return node(inner, file),
        YamlData::Value(scalar) => match scalar {
            Scalar::Null => Data::Null,
            Scalar::Boolean(truth) => Data::Bool(*truth),
            Scalar::Integer(integer) => Data::Integer(*integer),
            Scalar::FloatingPoint(float) => Data::Float(float.into_inner()),
            Scalar::String(text) => Data::Text(text.to_string()),
        },
        YamlData::Sequence(items) => {
            Data::List(items.iter().map(|item| node(item, file)).collect())
        }
        YamlData::Mapping(entries) => Data::Map(
            entries
                .iter()
                .map(|(key, value)| entry(key, value, file))
                .collect(),
        ),
        // An empty document, or a scalar whose tag does not fit it.
        _ => Data::Null,
    };
    Node::new(data, place)
}

fn entry(key: &MarkedYaml<'_>, value: &MarkedYaml<'_>, file: &Arc<SourceFile>) -> (String, Node) {
    let name = match &key.data {
        YamlData::Value(Scalar::String(text)) => text.to_string(),
        YamlData::Value(Scalar::Integer(integer)) => integer.to_string(),
        YamlData::Value(Scalar::Boolean(truth)) => truth.to_string(),
        YamlData::Value(Scalar::FloatingPoint(float)) => float.to_string(),
        _ => "null".to_owned(),
    };
    let mut node = node(value, file);
    node.key_place = Some(Place::new(At::Span(Arc::clone(file), span(key))));
    (name, node)
}

fn span(yaml: &MarkedYaml<'_>) -> Span {
    let at = |marker: &saphyr::Marker| (marker.line(), marker.col() + 1);
    Span {
        start: at(&yaml.span.start),
        end: at(&yaml.span.end),
    }
}
