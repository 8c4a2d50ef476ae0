//! `backend.cors`: which pages of other origins may call, in Backstage's keys. Source: contract 9.4.

use std::time::Duration;

use http::HeaderName;
use http::Method;
use serde::Deserialize;

use crate::config::error::ConfigError;
use crate::config::section::Section;

/// The methods that are allowed where none are named, as in the peer.
const METHODS: [Method; 6] = [
    Method::GET,
    Method::HEAD,
    Method::PUT,
    Method::PATCH,
    Method::POST,
    Method::DELETE,
];

/// `backend.cors`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CorsSettings {
    /// Patterns of origins; `*` stands for anything but a slash.
    pub origins: Vec<String>,
    /// What they may do.
    pub methods: Vec<Method>,
    /// Headers that they may send; empty: whichever they ask for.
    pub allowed_headers: Vec<HeaderName>,
    /// Headers that they may read.
    pub exposed_headers: Vec<HeaderName>,
    /// Whether they may send cookies.
    pub credentials: bool,
    /// How long a browser need not ask again.
    pub max_age: Option<Duration>,
}

/// As it is written. What else the peer reads there changes nothing for callers.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    #[serde(default)]
    origin: Option<OneOrMany>,
    #[serde(default)]
    methods: Option<OneOrMany>,
    #[serde(default)]
    allowed_headers: Option<OneOrMany>,
    #[serde(default)]
    exposed_headers: Option<OneOrMany>,
    #[serde(default)]
    credentials: bool,
    #[serde(default)]
    max_age: Option<u64>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
    Flag(bool),
}

impl OneOrMany {
    /// The words; a text may hold several, parted by commas.
    fn words(&self) -> Vec<String> {
        let parted = |text: &str| -> Vec<String> {
            let words = text.split(',').map(str::trim);
            words
                .filter(|word| !word.is_empty())
                .map(str::to_owned)
                .collect()
        };
        match self {
            Self::One(text) => parted(text),
            Self::Many(many) => many.iter().flat_map(|text| parted(text)).collect(),
            Self::Flag(true) => vec!["*".to_owned()],
            Self::Flag(false) => Vec::new(),
        }
    }
}

/// Reads the section; `None` where there is none, or it allows no origin.
pub(super) fn read(section: &Section) -> Result<Option<CorsSettings>, ConfigError> {
    // `false` switches it off, as in the peer.
    if matches!(section.read::<bool>(), Ok(false)) {
        return Ok(None);
    }
    let Some(raw) = section.read_if_set::<Raw>()? else {
        return Ok(None);
    };
    let words = |given: &Option<OneOrMany>| given.as_ref().map(OneOrMany::words);
    let origins = words(&raw.origin).unwrap_or_else(|| vec!["*".to_owned()]);
    if origins.is_empty() {
        return Ok(None);
    }
    let methods = words(&raw.methods).map_or(Ok(METHODS.to_vec()), |words| {
        let parse = |word: &String| {
            word.to_ascii_uppercase().parse().map_err(|_| {
                section.get("methods").error(
                    format!("`{word}` is no HTTP method"),
                    "write them as [GET, POST]",
                )
            })
        };
        words.iter().map(parse).collect()
    })?;
    let headers = |key: &str, given: &Option<OneOrMany>| {
        let parse = |word: &String| {
            word.parse().map_err(|_| {
                section.get(key).error(
                    format!("`{word}` is no header name"),
                    "write them as [Authorization, Content-Type]",
                )
            })
        };
        let words = words(given).unwrap_or_default();
        words
            .iter()
            .map(parse)
            .collect::<Result<Vec<HeaderName>, _>>()
    };
    Ok(Some(CorsSettings {
        origins,
        methods,
        allowed_headers: headers("allowedHeaders", &raw.allowed_headers)?,
        exposed_headers: headers("exposedHeaders", &raw.exposed_headers)?,
        credentials: raw.credentials,
        max_age: raw.max_age.map(Duration::from_secs),
    }))
}
