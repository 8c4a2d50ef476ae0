//! A secret of the configuration.

use std::fmt;

use serde::Deserialize;
use serde::Deserializer;
use serde::de::Error as _;

/// A secret: it can be used, and not printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The secret itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        // A derived error would print what it found in place of text.
        match serde_json::Value::deserialize(from)? {
            serde_json::Value::String(text) => Ok(Self(text)),
            _ => Err(D::Error::custom("must be text: put it in quotes")),
        }
    }
}
