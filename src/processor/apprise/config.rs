//! `notifications.processors.apprise`; all of it is ours, the peer has no such processor.

use std::time::Duration;

use serde::Deserialize;
use serde::Deserializer;
use serde::de::Error as _;
use serde_json::Value;
use url::Url;

use crate::config::ConfigError;
use crate::config::Secret;
use crate::config::Section;
use crate::config::duration::Setting;
use crate::processor::Filter;
use crate::processor::Outgoing;

/// How long one call may take when nothing is configured: the server answers when every service
/// behind it has.
const TIMEOUT: Duration = Duration::from_secs(20);
/// The longest that may be configured: the sender role gives a send half a minute.
const TIMEOUT_MAX: Duration = Duration::from_secs(25);

/// `notifications.processors.apprise`.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AppriseConfig {
    /// The Apprise API server, as in `http://apprise:8000`.
    pub url: Url,
    /// Signs in when the password is given too.
    pub username: Option<String>,
    /// Signs in when the username is given too.
    pub password: Option<Secret>,
    /// How long one call may take; 1 s to 25 s. Default 20 s.
    pub timeout: Option<Setting>,
    /// Which notifications are handed over.
    #[serde(default)]
    pub filter: Filter,
    /// The key under which the server keeps services.
    pub key: Option<String>,
    /// The services themselves, as Apprise writes them.
    #[serde(default, deserialize_with = "one_or_many")]
    pub urls: Vec<Secret>,
    /// Which of the key's services: those with one of these tags.
    #[serde(default, deserialize_with = "one_or_many")]
    pub tags: Vec<String>,
    /// Each takes what its filter lets pass, with services of its own.
    #[serde(default)]
    pub routes: Vec<Route>,
}

/// A part of the notifications, and the services that get it.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Route {
    /// What `tidings trace` calls it. Default: its number.
    pub name: Option<String>,
    /// Of this origin alone.
    pub origin: Option<String>,
    /// Which notifications it takes.
    #[serde(default)]
    pub filter: Filter,
    /// As above. Where neither key nor services are given, those above serve.
    pub key: Option<String>,
    /// As above.
    #[serde(default, deserialize_with = "one_or_many")]
    pub urls: Vec<Secret>,
    /// As above.
    #[serde(default, deserialize_with = "one_or_many")]
    pub tags: Vec<String>,
}

fn one_or_many<'de, D, T>(from: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: serde::de::DeserializeOwned,
{
    let all = match Value::deserialize(from)? {
        Value::Array(all) => all,
        one => vec![one],
    };
    // What is wrong is not repeated: it may be a secret.
    let read = |one| {
        serde_json::from_value(one)
            .map_err(|_| D::Error::custom("must be text, or a list of texts"))
    };
    all.into_iter().map(read).collect()
}

/// Where a notification is handed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Services<'a> {
    /// What the server keeps under this key, with one of these tags.
    Kept { key: &'a str, tags: &'a [String] },
    /// These.
    Named(&'a [Secret]),
}

impl AppriseConfig {
    /// Reads it.
    ///
    /// # Errors
    /// What is missing or cannot be, at its key.
    pub(super) fn read(section: &Section) -> Result<Option<Self>, ConfigError> {
        let Some(config) = section.read_if_set::<Self>()? else {
            return Ok(None);
        };
        let wrong = |at: Section, what: &str, help: &str| {
            Err(at.error(format!("`{}` {what}", at.key()), help))
        };
        let url = &config.url;
        if !matches!(url.scheme(), "http" | "https")
            || !url.username().is_empty()
            || url.password().is_some()
        {
            let what = "is no http(s) address, or holds a password";
            return wrong(
                section.get("url"),
                what,
                "as in http://apprise:8000; sign in with `username` and `password`",
            );
        }
        if !(Duration::from_secs(1)..=TIMEOUT_MAX).contains(&config.timeout()) {
            return wrong(
                section.get("timeout"),
                "must be from 1s to 25s",
                "a sender is given half a minute",
            );
        }
        let help = "give a `key` that the server knows, or the services' `urls`";
        let (key, urls) = (&config.key, &config.urls);
        if key.is_some() && !urls.is_empty() {
            return wrong(section.get("urls"), "and `key` exclude each other", help);
        }
        let defaults = config.services().is_some();
        if !defaults && config.routes.is_empty() {
            return wrong(section.clone(), "names no service", help);
        }
        for (no, (route, at)) in config
            .routes
            .iter()
            .zip(section.get("routes").items())
            .enumerate()
        {
            if route.key.is_some() && !route.urls.is_empty() {
                return wrong(at.get("urls"), "and `key` exclude each other", help);
            }
            if config.of_route(route).is_none() {
                return wrong(at, "names no service", help);
            }
            let name = route.name(no);
            if name.is_empty()
                || config.routes[..no]
                    .iter()
                    .enumerate()
                    .any(|(no, one)| one.name(no) == name)
            {
                return wrong(
                    at.get("name"),
                    "is empty, or taken",
                    "a name that no other route has",
                );
            }
        }
        Ok(Some(config))
    }

    /// How long one call may take.
    pub(super) fn timeout(&self) -> Duration {
        self.timeout.map_or(TIMEOUT, |timeout| timeout.0)
    }

    /// The services of what has no route.
    pub(super) fn services(&self) -> Option<Services<'_>> {
        services(self.key.as_deref(), &self.urls, &self.tags)
    }

    /// The services of a route: its own, else those of all with its tags.
    pub(super) fn of_route<'a>(&'a self, route: &'a Route) -> Option<Services<'a>> {
        services(route.key.as_deref(), &route.urls, &route.tags).or_else(|| {
            match self.services()? {
                Services::Kept { key, .. } if !route.tags.is_empty() => Some(Services::Kept {
                    key,
                    tags: &route.tags,
                }),
                of_all => Some(of_all),
            }
        })
    }

    /// The route of a target.
    pub(super) fn route(&self, name: &str) -> Option<&Route> {
        let mut routes = self.routes.iter().enumerate();
        routes
            .find(|(no, one)| one.name(*no) == name)
            .map(|(_, one)| one)
    }
}

fn services<'a>(
    key: Option<&'a str>,
    urls: &'a [Secret],
    tags: &'a [String],
) -> Option<Services<'a>> {
    match key.filter(|key| !key.is_empty()) {
        Some(key) => Some(Services::Kept { key, tags }),
        None if urls.is_empty() => None,
        None => Some(Services::Named(urls)),
    }
}

impl Route {
    /// What `tidings trace` calls it.
    pub(super) fn name(&self, no: usize) -> String {
        self.name.clone().unwrap_or_else(|| (no + 1).to_string())
    }

    /// Whether it takes this one.
    pub(super) fn takes(&self, one: &Outgoing<'_>) -> bool {
        let of_origin = self
            .origin
            .as_deref()
            .is_none_or(|origin| origin == one.origin);
        of_origin && self.filter.passes(one.payload)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::config::Environment;

    fn read(yaml: &str) -> Result<Option<AppriseConfig>, String> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("tidings.yaml");
        let yaml = format!("notifications: {{ processors: {{ apprise: {yaml} }} }}");
        std::fs::write(&file, yaml).unwrap();
        let config = Config::load(&[file], &[], &Environment::default()).unwrap();
        let section = config.section("notifications.processors.apprise");
        AppriseConfig::read(&section).map_err(|error| error.to_string())
    }

    #[test]
    fn a_route_has_services_of_its_own_or_those_of_all_by_its_tags() {
        let config = read(
            r#"{"url":"http://apprise:8000","key":"k","tags":"all","routes":[
                {"tags":["ops","dev"]},{"urls":"json://x"},{"name":"c","key":"other"},{"origin":"ci"}]}"#,
        )
        .unwrap()
        .unwrap();
        let of: Vec<_> = config
            .routes
            .iter()
            .map(|one| config.of_route(one).unwrap())
            .collect();
        let (all, two) = (["all".to_owned()], ["ops".to_owned(), "dev".to_owned()]);
        assert_eq!(
            of[0],
            Services::Kept {
                key: "k",
                tags: &two
            }
        );
        assert!(matches!(of[1], Services::Named(urls) if urls.len() == 1));
        assert_eq!(
            of[2],
            Services::Kept {
                key: "other",
                tags: &[]
            }
        );
        assert_eq!(
            of[3],
            Services::Kept {
                key: "k",
                tags: &all
            }
        );
        assert!(config.route("c").is_some() && config.route("1").is_some());
        assert!(config.route("3").is_none());
        assert!(!format!("{config:?}").contains("json://x"));
    }

    #[test]
    fn a_fault_names_its_key_and_no_secret() {
        for (yaml, says) in [
            ("{}", "url` is missing"),
            (r#"{"url":"http://a"}"#, "names no service"),
            (r#"{"url":"ftp://a","key":"k"}"#, "no http(s) address"),
            (
                r#"{"url":"http://u:canary@a","key":"k"}"#,
                "holds a password",
            ),
            (
                r#"{"url":"http://a","key":"k","urls":["json://canary"]}"#,
                "exclude each other",
            ),
            (
                r#"{"url":"http://a","urls":[{"service":"canary"}]}"#,
                "list of texts",
            ),
            (
                r#"{"url":"http://a","routes":[{}]}"#,
                "routes[0]` names no service",
            ),
            (
                r#"{"url":"http://a","key":"k","routes":[{"name":"2"},{}]}"#,
                "routes[1].name` is empty, or taken",
            ),
            (
                r#"{"url":"http://a","key":"k","timeout":"1m"}"#,
                "from 1s to 25s",
            ),
            (r#"{"url":"http://a","keys":"k"}"#, "did you mean `key`"),
        ] {
            let error = read(yaml).unwrap_err();
            assert!(
                error.contains(says) && !error.contains("canary"),
                "{yaml}: {error}"
            );
        }
        assert!(read("null").unwrap().is_none());
    }
}
