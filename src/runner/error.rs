//! Why a process does not start: what, where, and what to do.

use std::fmt;

use crate::config::ConfigError;

/// Why a process does not start, in the form that every command prints.
#[derive(Debug)]
pub struct StartError {
    /// What was wrong.
    pub message: String,
    /// Where: a config key, a file, an address.
    pub place: Option<String>,
    /// The lines of a file that it is about, underlined.
    pub excerpt: Option<String>,
    /// What to do.
    pub help: Option<String>,
    /// The exit code: 3 for configuration, else 1.
    pub code: u8,
}

impl StartError {
    /// Something that is not the configuration's fault.
    pub fn new(
        message: impl Into<String>,
        place: impl Into<String>,
        help: impl Into<String>,
    ) -> Self {
        Self {
            message: message.into(),
            place: Some(place.into()),
            excerpt: None,
            help: Some(help.into()),
            code: 1,
        }
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.message)?;
        if let Some(place) = &self.place {
            write!(f, "\n  --> {place}")?;
        }
        if let Some(excerpt) = &self.excerpt {
            write!(f, "\n{excerpt}")?;
        }
        if let Some(help) = &self.help {
            write!(f, "\nhelp: {help}")?;
        }
        Ok(())
    }
}

impl std::error::Error for StartError {}

impl From<ConfigError> for StartError {
    fn from(error: ConfigError) -> Self {
        Self {
            place: error.place.as_ref().map(ToString::to_string),
            excerpt: error.excerpt(),
            message: error.message,
            help: error.help,
            code: 3,
        }
    }
}
