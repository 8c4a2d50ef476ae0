//! A fault in the configuration: what is wrong, where, and what to do.

use std::fmt;

use super::source::Place;

/// A fault in the configuration. Its text never shows a secret.
#[derive(Clone, Debug)]
pub struct ConfigError {
    /// What is wrong.
    pub message: String,
    /// Where it was written, or which key is missing.
    pub place: Option<Place>,
    /// What to do.
    pub help: Option<String>,
    /// The dotted key that it is about, where there is one.
    pub key: Option<String>,
    /// Nothing is kept from starting: it is only said.
    pub warning: bool,
}

impl ConfigError {
    pub(super) fn new(message: impl Into<String>, place: Place, help: impl Into<String>) -> Self {
        let help = help.into();
        Self {
            message: message.into(),
            place: Some(place),
            help: (!help.is_empty()).then_some(help),
            key: None,
            warning: false,
        }
    }

    pub(super) fn about(self, key: &str) -> Self {
        Self {
            key: Some(key.to_owned()),
            ..self
        }
    }

    pub(super) fn into_warning(self) -> Self {
        Self {
            warning: true,
            ..self
        }
    }

    /// The line it stands in, underlined, without its secrets.
    pub fn excerpt(&self) -> Option<String> {
        self.place.as_ref().and_then(Place::excerpt)
    }

    /// The fault in one line, for warnings in a log or a list.
    pub fn line(&self) -> String {
        match &self.place {
            Some(place) => format!("{place}: {}", self.message),
            None => self.message.clone(),
        }
    }
}

impl fmt::Display for ConfigError {
    /// `error:` or `warning:`, `-->` with the line it stands in, `help:`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = if self.warning { "warning" } else { "error" };
        write!(f, "{what}: {}", self.message)?;
        if let Some(place) = &self.place {
            write!(f, "\n  --> {place}")?;
            if let Some(excerpt) = self.excerpt() {
                write!(f, "\n{excerpt}")?;
            }
        }
        if let Some(help) = &self.help {
            write!(f, "\nhelp: {help}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}
