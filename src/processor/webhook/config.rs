//! `notifications.processors.webhook`: the endpoints. The section is ours; the peer has none.

use std::fmt;
use std::time::Duration;

use serde::Deserialize;
use serde::Deserializer;
use serde::de::Error as _;
use url::Url;

use super::network::AllowPrivate;
use super::sign::Secret;
use crate::config::ConfigError;
use crate::config::Section;
use crate::config::duration::Setting;
use crate::processor::Filter;
use crate::processor::is_name;

/// How long an endpoint may take when nothing is configured.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How long an endpoint may fail before it is disabled, when nothing is configured.
const DISABLE_AFTER: Duration = Duration::from_secs(5 * 86_400);
/// The shortest of that: what fails for minutes is the breaker's.
const DISABLE_MIN: Duration = Duration::from_secs(3_600);
/// Below the half minute that the sender role gives a send.
const TIMEOUT_MAX: Duration = Duration::from_secs(25);

/// `notifications.processors.webhook`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct WebhookConfig {
    pub(super) endpoints: Vec<EndpointConfig>,
}

/// An item of `endpoints`.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EndpointConfig {
    /// Its name, for lists and commands.
    pub name: String,
    /// Where to post.
    pub url: Address,
    /// The key to sign with.
    pub secret: Option<Secret>,
    /// More keys to sign with, while they are changed.
    #[serde(default)]
    pub secrets: Vec<Secret>,
    /// Which notifications it gets.
    #[serde(default)]
    pub filter: Filter,
    /// Of which origins. Absent: all.
    pub origins: Option<Vec<String>>,
    /// How long it may take.
    pub timeout: Option<Setting>,
    /// Whether it may be inside.
    #[serde(default)]
    pub allow_private: AllowPrivate,
    /// How long nothing may come through before it is disabled.
    pub disable_after: Option<Setting>,
}

/// An address that may hold a secret: only its beginning is ever printed.
#[derive(Clone)]
pub struct Address(pub(super) Url);

impl Address {
    /// Scheme, host and port.
    pub(super) fn shown(&self) -> String {
        shown(&self.0)
    }
}

/// Scheme, host and port: what may be told of an address.
pub(super) fn shown(url: &Url) -> String {
    url.origin().ascii_serialization()
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({}/****)", self.shown())
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        match Url::parse(&text) {
            Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => Ok(Self(url)),
            _ => Err(D::Error::custom(
                "must be an http or https address\nwrite it as https://example.com/hooks/tidings",
            )),
        }
    }
}

impl EndpointConfig {
    /// The keys to sign with.
    pub(super) fn keys(&self) -> Vec<Secret> {
        self.secret.iter().chain(&self.secrets).cloned().collect()
    }

    /// How long it may take.
    pub(super) fn limit(&self) -> Duration {
        self.timeout.map_or(TIMEOUT, |timeout| timeout.0)
    }

    /// How long nothing may come through before it is disabled.
    pub(super) fn patience(&self) -> Duration {
        self.disable_after.map_or(DISABLE_AFTER, |after| after.0)
    }
}

/// What no type can say.
pub(super) fn check(config: &WebhookConfig, section: &Section) -> Result<(), ConfigError> {
    let items = section.get("endpoints").items();
    for (no, (endpoint, item)) in config.endpoints.iter().zip(&items).enumerate() {
        let at = |key: &str, fault: &str, help: &str| {
            let at = item.get(key);
            Err(at.error(format!("`{}` {fault}", at.key()), help))
        };
        if !is_name(&endpoint.name) {
            return at(
                "name",
                "is no name",
                "use a-z, 0-9 and `-`, as in `deploy-bot`",
            );
        }
        let earlier = &config.endpoints[..no];
        if earlier.iter().any(|one| one.name == endpoint.name) {
            return at(
                "name",
                "is taken by an endpoint before it",
                "choose another",
            );
        }
        if endpoint.keys().is_empty() {
            return at(
                "secret",
                "is missing",
                "make one with: echo \"whsec_$(openssl rand -base64 32)\"",
            );
        }
        let limit = endpoint.limit();
        if limit.is_zero() || TIMEOUT_MAX < limit {
            return at("timeout", "must be longer than zero, and at most 25 s", "");
        }
        if endpoint.patience() < DISABLE_MIN {
            return at("disableAfter", "must be at least an hour", "");
        }
        if !endpoint.allow_private.allows_literal(&endpoint.url.0) {
            return at(
                "url",
                "leads to a private address",
                "set `allowPrivate: true` for this endpoint, or a list of networks, if that is meant",
            );
        }
    }
    Ok(())
}
