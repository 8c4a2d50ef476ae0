//! Calls to the parts of a Backstage: where each is, with which token, and what went wrong.
//!
//! [`Discovery`] says where a plugin is, [`PluginTokens`] makes the token for it, and [`Backstage`]
//! calls it. An answer is returned whatever its status; [`Backstage::refusal`] has the words for
//! one that is not well. Source: contract 8.4 and 9.4.

use std::collections::HashMap;
use std::error::Error as _;
use std::fmt;
use std::sync::Arc;
use std::sync::OnceLock;
use std::time::Duration;

use async_trait::async_trait;
use http::Method;
use http::StatusCode;
use serde::de::DeserializeOwned;
use serde_json::Value;
use url::Url;

use crate::client;
use crate::config::BackstageSettings;
use crate::config::with_plugin;
use crate::failure::Failure;
use crate::failure::Reason;

/// Where the plugins of a Backstage are, for a service: `discovery.endpoints`, and else
/// `backend.baseUrl`.
#[derive(Clone, Debug)]
pub struct Discovery {
    base_url: Option<Url>,
    /// The pattern of the root, by plugin; `*` is every other.
    targets: HashMap<String, String>,
}

impl Discovery {
    /// Of the configuration.
    pub fn new(settings: &BackstageSettings) -> Self {
        let mut targets = HashMap::new();
        for endpoint in &settings.endpoints {
            let Some(internal) = &endpoint.internal else {
                continue;
            };
            // The last one that names a plugin counts, as in the peer.
            for plugin in &endpoint.plugins {
                targets.insert(plugin.clone(), internal.clone());
            }
        }
        Self {
            base_url: settings.base_url.clone(),
            targets,
        }
    }

    /// The root of a plugin without a trailing slash. `None` where nothing says where it is, and
    /// for what cannot be the name of a plugin.
    pub fn internal(&self, plugin: &str) -> Option<Url> {
        let named = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        if plugin.is_empty() || !plugin.bytes().all(named) {
            return None;
        }
        let target = self.targets.get(plugin).or_else(|| self.targets.get("*"));
        let root = match (target, &self.base_url) {
            (Some(target), _) => with_plugin(target, plugin),
            (None, Some(base)) => {
                format!("{}/api/{plugin}", base.as_str().trim_end_matches('/'))
            }
            (None, None) => return None,
        };
        Url::parse(root.trim_end_matches('/')).ok()
    }
}

/// Makes the tokens with which Tidings signs in at a plugin.
#[async_trait]
pub trait PluginTokens: Send + Sync {
    /// A token that the plugin `audience` takes.
    async fn token(&self, audience: &str) -> Result<String, Failure>;

    /// What to do where a token is refused: one clause.
    fn remedy(&self) -> String {
        "Backstage fetches our keys: its discovery.endpoints must lead the plugin `notifications` \
         to Tidings, and <that address>/.backstage/auth/v1/jwks.json must answer there"
            .to_owned()
    }
}

/// One static token for every plugin: `tidings.backstage.token`.
pub struct FixedToken(String);

impl FixedToken {
    /// This token.
    pub fn new(token: impl Into<String>) -> Self {
        Self(token.into())
    }
}

impl fmt::Debug for FixedToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FixedToken(****)")
    }
}

#[async_trait]
impl PluginTokens for FixedToken {
    async fn token(&self, _audience: &str) -> Result<String, Failure> {
        Ok(self.0.clone())
    }

    fn remedy(&self) -> String {
        "tidings.backstage.token must be the token of an entry of type `static` in \
         backend.auth.externalAccess of Backstage, without accessRestrictions against this plugin"
            .to_owned()
    }
}

/// The tokens of somebody who is made later than those who need them: the keys of a process stand
/// in the store, which is opened for what the catalog serves. Until then nobody can sign in.
#[derive(Default)]
pub struct LaterTokens(OnceLock<Arc<dyn PluginTokens>>);

impl LaterTokens {
    /// From now on these; the first call counts.
    pub fn set(&self, tokens: Arc<dyn PluginTokens>) {
        // A second call is a mistake of ours that changes nothing.
        let _ = self.0.set(tokens);
    }
}

impl fmt::Debug for LaterTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LaterTokens")
    }
}

#[async_trait]
impl PluginTokens for LaterTokens {
    async fn token(&self, audience: &str) -> Result<String, Failure> {
        match self.0.get() {
            Some(tokens) => tokens.token(audience).await,
            None => Err(Failure::dependency(
                Reason::Auth,
                "this process has no key yet to sign in at Backstage with",
            )),
        }
    }

    fn remedy(&self) -> String {
        match self.0.get() {
            Some(tokens) => tokens.remedy(),
            None => "it has no key yet".to_owned(),
        }
    }
}

/// A Backstage that Tidings calls. Cheap to clone.
#[derive(Clone)]
pub struct Backstage {
    discovery: Discovery,
    client: reqwest::Client,
    tokens: Arc<dyn PluginTokens>,
}

impl fmt::Debug for Backstage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Backstage")
            .field("discovery", &self.discovery)
            .finish_non_exhaustive()
    }
}

impl Backstage {
    /// The Backstage of the configuration, signing in with these tokens.
    ///
    /// # Errors
    /// Where no HTTP client can be made.
    pub fn new(discovery: Discovery, tokens: Arc<dyn PluginTokens>) -> Result<Self, Failure> {
        let client = client::builder()
            .build()
            .map_err(|error| Failure::permanent(Reason::Config, error.to_string()))?;
        Ok(Self {
            discovery,
            client,
            tokens,
        })
    }

    /// Where its plugins are.
    pub const fn discovery(&self) -> &Discovery {
        &self.discovery
    }

    /// Calls a plugin: `path` begins with a slash and stands below its root, and may have a query.
    /// The answer is returned whatever its status. `timeout` is for all of it, the body included.
    ///
    /// # Errors
    /// One of a dependency, when there is no answer or no token.
    pub async fn send(
        &self,
        plugin: &str,
        method: Method,
        path: &str,
        body: Option<&Value>,
        timeout: Duration,
    ) -> Result<reqwest::Response, Failure> {
        let token = self.tokens.token(plugin).await?;
        let root = self.root(plugin)?;
        let mut request = self
            .client
            .request(
                method,
                format!("{}{path}", root.as_str().trim_end_matches('/')),
            )
            .bearer_auth(token)
            .timeout(timeout);
        if let Some(body) = body {
            request = request.json(body);
        }
        request
            .send()
            .await
            .map_err(|error| fault(plugin, &root, &error))
    }

    /// Whether a plugin is where it is said to be: asks for the keys that every plugin shows to
    /// everybody.
    ///
    /// # Errors
    /// That it is not there.
    pub async fn finds(&self, plugin: &str, timeout: Duration) -> Result<(), Failure> {
        let root = self.root(plugin)?;
        let keys = format!("{root}/.backstage/auth/v1/jwks.json");
        let asked = self.client.get(keys).timeout(timeout).send().await;
        let status = asked
            .map_err(|error| fault(plugin, &root, &error))?
            .status();
        if status.is_success() {
            return Ok(());
        }
        Err(self.refusal(plugin, status))
    }

    fn root(&self, plugin: &str) -> Result<Url, Failure> {
        self.discovery.internal(plugin).ok_or_else(|| {
            let detail = format!(
                "nothing says where Backstage's plugin `{plugin}` is: set backend.baseUrl or \
                 discovery.endpoints"
            );
            Failure::dependency(Reason::Config, detail)
        })
    }

    /// What a status other than 2xx means: nearly always something that everybody waits for until
    /// it is mended, so that nothing is lost; only 400 and the like is the question's own fault.
    pub fn refusal(&self, plugin: &str, status: StatusCode) -> Failure {
        let root = self.discovery.internal(plugin);
        let root = root.as_ref().map_or("", Url::as_str);
        let answered = format!(
            "Backstage's {plugin} at {root} answered {}",
            status.as_u16()
        );
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Failure::dependency(
                Reason::Auth,
                format!("{answered} to our token: {}", self.tokens.remedy()),
            ),
            StatusCode::NOT_FOUND => Failure::dependency(
                Reason::Config,
                format!(
                    "{answered}: no such route there; backend.baseUrl or discovery.endpoints \
                     names another service, or the plugin is not installed"
                ),
            ),
            StatusCode::TOO_MANY_REQUESTS => Failure::dependency(Reason::Rate, answered),
            StatusCode::REQUEST_TIMEOUT => Failure::dependency(Reason::Timeout, answered),
            status if status.is_client_error() => Failure::permanent(Reason::Rejected, answered),
            status if status.is_redirection() => Failure::dependency(
                Reason::Config,
                format!("{answered}: redirects are not followed; name the address itself"),
            ),
            _ => Failure::dependency(Reason::Server, answered),
        }
    }

    /// Reads the answer as JSON, up to `limit` bytes of it.
    ///
    /// # Errors
    /// One of a dependency: the status is not 2xx, the connection broke, or the answer is too
    /// large or not what it should be.
    pub async fn read<T: DeserializeOwned>(
        &self,
        plugin: &str,
        response: reqwest::Response,
        limit: usize,
    ) -> Result<T, Failure> {
        let read = self.read_up_to(plugin, response, limit).await?;
        read.ok_or_else(|| {
            Failure::dependency(
                Reason::Server,
                format!("the answer of Backstage's {plugin} is larger than {limit} bytes"),
            )
        })
    }

    /// As [`Backstage::read`]; `None` where the answer is larger than `limit` bytes.
    ///
    /// # Errors
    /// As [`Backstage::read`].
    pub async fn read_up_to<T: DeserializeOwned>(
        &self,
        plugin: &str,
        mut response: reqwest::Response,
        limit: usize,
    ) -> Result<Option<T>, Failure> {
        if !response.status().is_success() {
            return Err(self.refusal(plugin, response.status()));
        }
        let said = response.content_length().unwrap_or_default();
        if usize::try_from(said).map_or(true, |said| limit < said) {
            return Ok(None);
        }
        let url = response.url().clone();
        let mut body = Vec::new();
        while let Some(part) = response
            .chunk()
            .await
            .map_err(|error| fault(plugin, &url, &error))?
        {
            if limit < body.len() + part.len() {
                return Ok(None);
            }
            body.extend_from_slice(&part);
        }
        // What serde says may quote the answer; where it stands is enough.
        serde_json::from_slice(&body).map(Some).map_err(|error| {
            Failure::dependency(
                Reason::Server,
                format!(
                    "the answer of Backstage's {plugin} is not what it should be (line {}, column \
                     {})",
                    error.line(),
                    error.column()
                ),
            )
        })
    }
}

/// What kept an answer from coming, without the query of the address.
fn fault(plugin: &str, url: &Url, error: &reqwest::Error) -> Failure {
    let mut causes = Vec::new();
    let mut cause = error.source();
    while let Some(one) = cause {
        causes.push(one.to_string());
        cause = one.source();
    }
    let why = causes
        .pop()
        .unwrap_or_else(|| "the request broke off".to_owned());
    let origin = url.origin().ascii_serialization();
    let (reason, detail) = if error.is_timeout() {
        (Reason::Timeout, "no answer in time".to_owned())
    } else if error.is_builder() {
        (Reason::Config, "the request cannot be made".to_owned())
    } else if causes.iter().any(|one| one.contains("dns error")) {
        (Reason::Dns, why)
    } else {
        (Reason::Network, why)
    };
    Failure::dependency(
        reason,
        format!("Backstage's {plugin} at {origin}: {detail}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::DiscoveryEndpoint;
    use crate::failure::Kind;

    fn endpoint(internal: Option<&str>, plugins: &[&str]) -> DiscoveryEndpoint {
        DiscoveryEndpoint {
            internal: internal.map(str::to_owned),
            external: None,
            plugins: plugins.iter().map(|one| (*one).to_owned()).collect(),
        }
    }

    fn discovery(base: Option<&str>, endpoints: Vec<DiscoveryEndpoint>) -> Discovery {
        Discovery::new(&BackstageSettings {
            base_url: base.map(|base| base.parse().unwrap()),
            endpoints,
            token: None,
        })
    }

    fn backstage(at: &str) -> Backstage {
        let discovery = discovery(Some(at), vec![]);
        Backstage::new(discovery, Arc::new(FixedToken::new("canary-token"))).unwrap()
    }

    #[test]
    fn a_plugin_named_beats_all_others_and_a_missing_side_falls_back_to_the_base() {
        let found = discovery(
            Some("https://b.example.com/"),
            vec![
                endpoint(Some("http://own:1/{{ pluginId }}/"), &["catalog"]),
                endpoint(Some("http://rest/api/{{pluginId}}"), &["*"]),
            ],
        );
        let at = |discovery: &Discovery, plugin| discovery.internal(plugin).map(String::from);
        assert_eq!(at(&found, "catalog").unwrap(), "http://own:1/catalog");
        assert_eq!(at(&found, "auth").unwrap(), "http://rest/api/auth");
        let found = discovery(
            Some("https://b.example.com/base/"),
            vec![endpoint(None, &["auth"])],
        );
        let fallback = "https://b.example.com/base/api/auth";
        assert_eq!(at(&found, "auth").unwrap(), fallback);
        assert_eq!(at(&discovery(None, vec![]), "auth"), None);
        for name in ["", "../x", "a/b", "a?b", "a.b"] {
            assert_eq!(at(&found, name), None, "{name}");
        }
    }

    #[tokio::test]
    async fn nobody_there_is_a_dependency_away_and_the_token_is_not_told() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let at = format!("http://{}", listener.local_addr().unwrap());
        drop(listener);
        let backstage = backstage(&at);
        let asked = backstage.send("catalog", Method::GET, "/x?y", None, Duration::from_secs(5));
        let failure = asked.await.unwrap_err();
        assert_eq!(failure.kind, Kind::Dependency);
        assert_eq!(failure.reason, Reason::Network);
        assert!(failure.detail.contains(&at), "{failure}");
        let shown = format!("{failure} {backstage:?} {:?}", FixedToken::new("canary"));
        assert!(!shown.contains("canary"), "{shown}");
    }

    #[test]
    fn what_everybody_waits_for_is_told_from_the_questions_own_fault() {
        let backstage = backstage("http://b");
        let of = |status: u16| {
            let failure = backstage.refusal("catalog", StatusCode::from_u16(status).unwrap());
            (failure.kind, failure.reason)
        };
        for (status, reason) in [
            (401, Reason::Auth),
            (403, Reason::Auth),
            (404, Reason::Config),
            (302, Reason::Config),
            (429, Reason::Rate),
            (500, Reason::Server),
            (503, Reason::Server),
        ] {
            assert_eq!(of(status), (Kind::Dependency, reason), "{status}");
        }
        assert_eq!(of(400), (Kind::Permanent, Reason::Rejected));
        let refused = backstage.refusal("catalog", StatusCode::UNAUTHORIZED);
        assert!(refused.detail.contains("http://b/api/catalog"), "{refused}");
        assert!(refused.detail.contains("externalAccess"), "{refused}");
    }
}
