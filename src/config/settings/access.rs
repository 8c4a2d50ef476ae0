//! `backend.auth.externalAccess`: tokens of producers. Source: contract 8.1.

use std::fmt;

use serde::Deserialize;

use super::read::list;
use crate::config::error::ConfigError;
use crate::config::section::Section;

/// The shortest token, as in the peer.
const TOKEN_MIN: usize = 8;

/// A token of type `static`.
#[derive(Clone, PartialEq, Eq)]
pub struct ExternalAccess {
    /// The secret.
    pub token: String,
    /// The origin of what its bearer sends.
    pub subject: String,
    /// The plugins of `accessRestrictions`; `None` is no restriction.
    pub restricted_to: Option<Vec<String>>,
}

impl fmt::Debug for ExternalAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExternalAccess")
            .field("subject", &self.subject)
            .field("restricted_to", &self.restricted_to)
            .finish_non_exhaustive()
    }
}

/// What all types have.
#[derive(Deserialize)]
struct Kind {
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Deserialize)]
struct Options {
    token: String,
    subject: String,
}

#[derive(Deserialize)]
struct Restriction {
    plugin: String,
}

/// Reads those of type `static`.
pub(super) fn read(section: &Section) -> Result<Vec<ExternalAccess>, ConfigError> {
    let mut found = Vec::new();
    for item in list(section)? {
        if item.read::<Kind>()?.kind == "static" {
            found.push(one(&item)?);
        }
    }
    Ok(found)
}

fn one(item: &Section) -> Result<ExternalAccess, ConfigError> {
    let options = item.get("options");
    let Options { token, subject } = options.read()?;
    if token.len() < TOKEN_MIN || token.contains(char::is_whitespace) {
        let field = options.get("token");
        return Err(field.error(
            format!(
                "`{}` must be {TOKEN_MIN} characters or more, without spaces",
                field.key()
            ),
            "make one with: openssl rand -hex 24",
        ));
    }
    if subject.is_empty() || subject.contains(char::is_whitespace) {
        let field = options.get("subject");
        return Err(field.error(
            format!("`{}` must be a word without spaces", field.key()),
            "it is the origin that people see and switch off, as in external:ci",
        ));
    }
    let restrictions: Option<Vec<Restriction>> = item.get("accessRestrictions").read_if_set()?;
    Ok(ExternalAccess {
        token,
        subject,
        restricted_to: restrictions.map(|all| all.into_iter().map(|one| one.plugin).collect()),
    })
}

/// A warning for each token of a type that is not served.
pub(in crate::config) fn warnings(section: &Section) -> Vec<ConfigError> {
    let unserved = |item: Section| {
        let kind = item.read::<Kind>().ok()?.kind;
        (kind != "static").then(|| {
            item.get("type").error(
                format!("tokens of type `{kind}` are not served yet; they will be refused"),
                "use type `static`, or make a token with: tidings token create",
            )
        })
    };
    section.items().into_iter().filter_map(unserved).collect()
}
