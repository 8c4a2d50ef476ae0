//! Serde over a located tree: an error keeps the place and the key of what it is about.
//!
//! Text is read as a number or a truth where one is wanted, as in Backstage, since substitutions
//! make text. No message repeats a value: it may be a secret.

use std::fmt;

use serde::Deserializer;
use serde::de;
use serde::de::DeserializeSeed;
use serde::de::Expected;
use serde::de::IntoDeserializer;
use serde::de::Unexpected;
use serde::de::Visitor;
use serde::forward_to_deserialize_any;

use super::error::ConfigError;
use super::source::Place;
use super::tree::Data;
use super::tree::Node;

/// What is wrong with a value.
#[derive(Clone, Debug)]
pub(super) enum Fault {
    /// A key that the struct does not have.
    Unknown {
        key: String,
        known: &'static [&'static str],
    },
    /// A word that is none of the choices.
    Choice { known: &'static [&'static str] },
    /// A key that must be there.
    Missing { key: &'static str },
    /// A value of another kind.
    Kind { found: String, wanted: String },
    /// What a type has to say: a sentence; what follows a line end is the help.
    Said(String),
    /// A substitution that failed.
    Broken(Box<ConfigError>),
}

/// A fault, and where it is.
#[derive(Clone, Debug)]
pub(super) struct Error {
    pub(super) fault: Fault,
    /// The keys down to it, innermost first.
    pub(super) path: Vec<String>,
    pub(super) place: Option<Place>,
}

impl Error {
    fn new(fault: Fault) -> Self {
        Self {
            fault,
            path: Vec::new(),
            place: None,
        }
    }

    fn at(mut self, place: &Place) -> Self {
        self.place.get_or_insert_with(|| place.clone());
        self
    }

    fn under(mut self, key: impl Into<String>) -> Self {
        self.path.push(key.into());
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.fault)
    }
}

impl std::error::Error for Error {}

impl de::Error for Error {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(Fault::Said(message.to_string()))
    }

    fn invalid_type(found: Unexpected<'_>, wanted: &dyn Expected) -> Self {
        Self::new(Fault::Kind {
            found: kind(found).to_owned(),
            wanted: plain(&wanted.to_string()),
        })
    }

    fn invalid_value(_: Unexpected<'_>, wanted: &dyn Expected) -> Self {
        Self::new(Fault::Kind {
            found: String::new(),
            wanted: plain(&wanted.to_string()),
        })
    }

    fn unknown_variant(_: &str, known: &'static [&'static str]) -> Self {
        Self::new(Fault::Choice { known })
    }

    fn unknown_field(field: &str, known: &'static [&'static str]) -> Self {
        Self::new(Fault::Unknown {
            key: field.to_owned(),
            known,
        })
    }

    fn missing_field(key: &'static str) -> Self {
        Self::new(Fault::Missing { key })
    }
}

/// What was found, in the words of YAML rather than of Rust.
const fn kind(found: Unexpected<'_>) -> &'static str {
    match found {
        Unexpected::Bool(_) => "true or false",
        Unexpected::Unsigned(_) | Unexpected::Signed(_) | Unexpected::Float(_) => "a number",
        Unexpected::Seq => "a list",
        Unexpected::Map | Unexpected::StructVariant => "an object",
        Unexpected::Unit | Unexpected::Option => "empty",
        _ => "text",
    }
}

/// What was wanted, likewise.
fn plain(wanted: &str) -> String {
    let word = match wanted {
        "a string" | "a borrowed string" | "a character" => "text",
        "a boolean" => "true or false",
        "u8" => "a whole number from 0 to 255",
        "u16" => "a whole number from 0 to 65535",
        "u32" | "u64" | "usize" => "a whole number, not negative",
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number",
        "f32" | "f64" => "a number",
        "a sequence" => "a list",
        "a map" => "an object",
        "unit" => "empty",
        other if other.starts_with("struct ") => "an object",
        other if other.starts_with("enum ") => "one of its words",
        other => other,
    };
    word.to_owned()
}

impl Node {
    fn wanted_number<'de, V: Visitor<'de>>(&self, visitor: V) -> Result<V::Value, Error> {
        match &self.data {
            Data::Text(text) => match (text.trim().parse::<i64>(), text.trim().parse::<f64>()) {
                (Ok(integer), _) => integer_to(visitor, integer),
                (_, Ok(float)) => visitor.visit_f64(float),
                _ => visitor.visit_str(text),
            },
            _ => self.deserialize_any(visitor),
        }
    }
}

fn integer_to<'de, V: Visitor<'de>>(visitor: V, integer: i64) -> Result<V::Value, Error> {
    match u64::try_from(integer) {
        Ok(positive) => visitor.visit_u64(positive),
        Err(_) => visitor.visit_i64(integer),
    }
}

/// Numbers, of whatever width.
macro_rules! numbers {
    ($($method:ident)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            self.wanted_number(visitor).map_err(|error| error.at(&self.place))
        })*
    };
}

impl<'de> Deserializer<'de> for &Node {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let made = match &self.data {
            Data::Null => visitor.visit_unit(),
            Data::Bool(truth) => visitor.visit_bool(*truth),
            Data::Integer(integer) => integer_to(visitor, *integer),
            Data::Float(float) => visitor.visit_f64(*float),
            Data::Text(text) => visitor.visit_str(text),
            Data::List(items) => visitor.visit_seq(Items { items, next: 0 }),
            Data::Map(entries) => visitor.visit_map(Entries::new(entries)),
            Data::Broken(error) => Err(Error::new(Fault::Broken(error.clone()))),
        };
        made.map_err(|error| error.at(&self.place))
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match &self.data {
            Data::Text(text) if text == "true" => visitor.visit_bool(true),
            Data::Text(text) if text == "false" => visitor.visit_bool(false),
            _ => self.deserialize_any(visitor),
        }
    }

    numbers! {
        deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_u8
        deserialize_u16 deserialize_u32 deserialize_u64 deserialize_f32 deserialize_f64
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.data {
            Data::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
        .map_err(|error| error.at(&self.place))
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor
            .visit_newtype_struct(self)
            .map_err(|error| error.at(&self.place))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let made = match &self.data {
            Data::Text(word) => visitor.visit_enum(word.as_str().into_deserializer()),
            Data::Map(entries) => de::value::MapAccessDeserializer::new(Entries::new(entries))
                .deserialize_enum(name, variants, visitor),
            Data::Broken(error) => Err(Error::new(Fault::Broken(error.clone()))),
            _ => Err(Error::new(Fault::Choice { known: variants })),
        };
        made.map_err(|error| error.at(&self.place))
    }

    /// An object alone; serde would take a list for one.
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self.data {
            Data::List(_) => {
                let error: Error = de::Error::invalid_type(Unexpected::Seq, &"an object");
                Err(error.at(&self.place))
            }
            _ => self.deserialize_any(visitor),
        }
    }

    /// What nobody reads may be broken.
    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        i128 u128 char str string bytes byte_buf unit unit_struct seq tuple tuple_struct map
        identifier
    }
}

/// The items of a list.
struct Items<'a> {
    items: &'a [Node],
    next: usize,
}

impl<'de> de::SeqAccess<'de> for Items<'_> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Error> {
        let Some(item) = self.items.get(self.next) else {
            return Ok(None);
        };
        let no = self.next;
        self.next += 1;
        seed.deserialize(item)
            .map(Some)
            .map_err(|error| error.at(&item.place).under(format!("[{no}]")))
    }
}

/// The entries of a map.
struct Entries<'a> {
    entries: &'a [(String, Node)],
    next: usize,
}

impl<'a> Entries<'a> {
    const fn new(entries: &'a [(String, Node)]) -> Self {
        Self { entries, next: 0 }
    }
}

impl<'de> de::MapAccess<'de> for Entries<'_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Error> {
        let Some((key, node)) = self.entries.get(self.next) else {
            return Ok(None);
        };
        seed.deserialize(key.as_str().into_deserializer())
            .map(Some)
            .map_err(|error: Error| error.at(node.mark()))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        let Some((key, node)) = self.entries.get(self.next) else {
            return Err(de::Error::custom("a value was asked for before its key"));
        };
        self.next += 1;
        seed.deserialize(node)
            .map_err(|error| error.at(&node.place).under(key.as_str()))
    }
}
