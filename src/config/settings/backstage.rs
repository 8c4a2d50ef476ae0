//! `backend.baseUrl`, `discovery.endpoints` and `tidings.backstage`: where the parts of a
//! Backstage are, and how Tidings signs in there. Source: contract 9.4.

use std::fmt;

use serde::Deserialize;
use url::Url;

use super::read::list;
use crate::config::error::ConfigError;
use crate::config::section::Section;

/// The plugins that Tidings itself stands in for: it never calls them.
const OURS: [&str; 2] = ["notifications", "signals"];

/// The shortest token, as in the peer.
const TOKEN_MIN: usize = 8;

/// Where a Backstage is, and how to sign in there.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct BackstageSettings {
    /// `backend.baseUrl`.
    pub base_url: Option<Url>,
    /// `discovery.endpoints`, in the order written.
    pub endpoints: Vec<DiscoveryEndpoint>,
    /// `tidings.backstage.token`: a static token instead of signed ones; a secret.
    pub token: Option<String>,
}

/// An item of `discovery.endpoints`. The targets may hold `{{pluginId}}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiscoveryEndpoint {
    /// The root of the plugin for other services.
    pub internal: Option<String>,
    /// The root of the plugin for browsers.
    pub external: Option<String>,
    /// Which plugins; `*` is all that no other item names.
    pub plugins: Vec<String>,
}

impl BackstageSettings {
    /// Whether it is said where a plugin is.
    pub fn names(&self, plugin: &str) -> bool {
        let with_us = self.endpoints.iter().filter(|one| one.internal.is_some());
        let mut named = with_us.flat_map(|one| &one.plugins);
        self.base_url.is_some() || named.any(|one| one == plugin || one == "*")
    }
}

impl fmt::Debug for BackstageSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BackstageSettings")
            .field("base_url", &self.base_url.as_ref().map(Url::as_str))
            .field("endpoints", &self.endpoints)
            .field("token", &self.token.as_ref().map(|_| "****"))
            .finish()
    }
}

#[derive(Deserialize)]
struct Item {
    plugins: Vec<String>,
}

#[derive(Deserialize)]
struct Sides {
    internal: Option<String>,
    external: Option<String>,
}

/// Reads all three.
pub(super) fn read(
    base_url: &Section,
    endpoints: &Section,
    token: &Section,
) -> Result<BackstageSettings, ConfigError> {
    let base_url = match base_url.read_if_set::<String>()? {
        Some(text) => Some(backend(base_url, &text)?),
        None => None,
    };
    Ok(BackstageSettings {
        base_url,
        endpoints: list(endpoints)?
            .iter()
            .map(endpoint)
            .collect::<Result<_, _>>()?,
        token: secret(token)?,
    })
}

fn backend(section: &Section, text: &str) -> Result<Url, ConfigError> {
    match Url::parse(text) {
        Ok(url) if is_http(&url) => Ok(url),
        _ => Err(section.error(
            format!("`{}` must be an http or https address", section.key()),
            "write it as http://localhost:7007",
        )),
    }
}

fn endpoint(item: &Section) -> Result<DiscoveryEndpoint, ConfigError> {
    let Item { plugins } = item.read()?;
    let target = item.get("target");
    let (internal, external, place) = if target.entries().is_empty() {
        let both: String = target.read()?;
        (Some(both.clone()), Some(both), target)
    } else {
        let Sides { internal, external } = target.read()?;
        (internal, external, target.get("internal"))
    };
    if let Some(internal) = &internal {
        check(&place, internal, &plugins)?;
    }
    Ok(DiscoveryEndpoint {
        internal,
        external,
        plugins,
    })
}

/// Checks the side that Tidings calls.
fn check(section: &Section, target: &str, plugins: &[String]) -> Result<(), ConfigError> {
    // Nobody here calls ourselves.
    if plugins.iter().all(|one| OURS.contains(&one.as_str())) {
        return Ok(());
    }
    if target.starts_with("http+srv:") {
        return Err(section.error(
            format!(
                "`{}` is found by SRV records, which Tidings does not look up",
                section.key()
            ),
            "in a file for Tidings alone, name a host: http://backstage:7007/api/{{pluginId}}",
        ));
    }
    let sample = with_plugin(target, "catalog");
    match Url::parse(&sample) {
        Ok(url) if is_http(&url) && url.query().is_none() && url.fragment().is_none() => Ok(()),
        _ => Err(section.error(
            format!(
                "`{}` must be an http or https address without query or hash",
                section.key()
            ),
            "write it as http://backstage:7007/api/{{pluginId}}",
        )),
    }
}

fn is_http(url: &Url) -> bool {
    matches!(url.scheme(), "http" | "https") && url.has_host()
}

fn secret(section: &Section) -> Result<Option<String>, ConfigError> {
    let Some(token) = section.read_if_set::<String>()? else {
        return Ok(None);
    };
    if token.len() < TOKEN_MIN || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(section.error(
            format!(
                "`{}` must be {TOKEN_MIN} visible ASCII characters or more",
                section.key()
            ),
            "the token of an entry of type `static` in `backend.auth.externalAccess` of Backstage",
        ));
    }
    Ok(Some(token))
}

/// The target with `{{pluginId}}` replaced, also where spaces stand inside the braces.
pub(crate) fn with_plugin(target: &str, plugin: &str) -> String {
    let mut made = String::with_capacity(target.len());
    let mut rest = target;
    while let Some(open) = rest.find("{{") {
        let (before, inside) = rest.split_at(open);
        made.push_str(before);
        match inside.find("}}") {
            Some(close) if inside[2..close].trim() == "pluginId" => {
                made.push_str(plugin);
                rest = &inside[close + 2..];
            }
            _ => {
                made.push_str("{{");
                rest = &inside[2..];
            }
        }
    }
    made.push_str(rest);
    made
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plugin_is_put_in_wherever_it_is_named_with_or_without_spaces() {
        for (target, made) in [
            ("http://b/api/{{pluginId}}", "http://b/api/catalog"),
            ("http://b/api/{{ pluginId }}", "http://b/api/catalog"),
            (
                "http://{{pluginId}}.b/{{ pluginId}}",
                "http://catalog.b/catalog",
            ),
            ("http://b/api/catalog", "http://b/api/catalog"),
            (
                "http://b/{{other}}/{{pluginId}}",
                "http://b/{{other}}/catalog",
            ),
            ("http://b/{{pluginId", "http://b/{{pluginId"),
            ("http://b/{{{{pluginId}}", "http://b/{{catalog"),
        ] {
            assert_eq!(with_plugin(target, "catalog"), made);
        }
    }
}
