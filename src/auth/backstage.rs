//! Tokens that a Backstage signed (contract 8.2 and 8.3): of people, by its auth plugin or whoever
//! is configured; of plugins, by each plugin itself.

use std::collections::HashMap;
use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use tokio::time::Instant;
use url::Url;

use super::AuthError;
use super::Plugin;
use super::Trust;
use super::keys::Issuer;
use super::keys::Whose;
use super::token::Shown;
use super::token::TokenKind;
use super::userinfo::Userinfo;
use super::verify;
use super::verify::Refusal;
use super::verify::Rules;
use super::verify::Verified;
use crate::backstage::Discovery;

/// Where a plugin shows its keys, below its root.
const PLUGIN_KEYS_PATH: &str = ".backstage/auth/v1/jwks.json";

/// Where the auth plugin shows its keys, below its root.
const USER_KEYS_PATH: &str = ".well-known/jwks.json";

/// The longest id of a plugin.
const PLUGIN_ID_MAX: usize = 64;

/// Most plugins whose keys are held.
const PLUGINS_MAX: usize = 64;

/// Most plugins that are asked for the first time in each [`NEWCOMERS_WINDOW`]: anybody can write
/// a token with a new name in it.
const NEWCOMERS_MAX: usize = 60;
const NEWCOMERS_WINDOW: Duration = Duration::from_secs(60);

/// Whom of a Backstage we believe.
#[derive(Default)]
pub(super) struct Backstage {
    users: Vec<Arc<Issuer>>,
    plugins: Option<Plugins>,
    /// Who knows the groups of people; absent: the catalog.
    pub(super) userinfo: Option<Userinfo>,
}

/// A person, as a token of theirs says.
pub(super) struct Person {
    pub(super) reference: String,
    /// The refs that they act for, if the token says so.
    pub(super) refs: Option<Vec<String>>,
}

/// Who stands behind a plugin's token.
pub(super) enum Caller {
    /// The plugin itself, by its id.
    Plugin(String),
    /// A person, for whom it acts with this token of theirs.
    Person(Person, String),
}

impl Backstage {
    pub(super) fn new(trust: &Trust) -> Self {
        let Some(client) = &trust.client else {
            return Self::default();
        };
        let auth = trust
            .discovery
            .as_ref()
            .and_then(|all| all.internal("auth"));
        let mut urls = trust.user_issuers.clone();
        let of_backstage = auth.filter(|_| trust.backstage_users);
        if let Some(auth) = of_backstage.as_ref().filter(|_| urls.is_empty()) {
            urls.extend(below(auth, USER_KEYS_PATH));
        }
        let issuer = |url| Issuer::new(Whose::Users, url, client.clone());
        Self {
            users: urls.into_iter().map(issuer).collect(),
            plugins: trust.discovery.clone().map(|discovery| Plugins {
                discovery,
                client: client.clone(),
                known: Mutex::default(),
            }),
            userinfo: of_backstage
                .and_then(|auth| below(&auth, "v1/userinfo"))
                .map(|url| Userinfo::new(url, client.clone())),
        }
    }

    /// Who signs user tokens; empty: we do.
    pub(super) fn user_issuers(&self) -> &[Arc<Issuer>] {
        &self.users
    }

    /// Whose token this is: a full one, or a limited one where that is allowed.
    pub(super) async fn person(
        &self,
        token: &Shown<'_>,
        patience: Duration,
    ) -> Result<Person, AuthError> {
        // Issuer and audience say nothing for these types; the key does. As in the peer.
        let rules = Rules {
            complete: true,
            ..Rules::default()
        };
        let mut refusal = None;
        for issuer in &self.users {
            match verify::verify(issuer, token, &rules, patience).await {
                Ok(Verified {
                    sub: Some(reference),
                    ent,
                    ..
                }) if !reference.is_empty() => {
                    return Ok(Person {
                        reference,
                        refs: ent,
                    });
                }
                Ok(_) => refusal = Some(AuthError::UserToken("a subject that is nobody")),
                Err(Refusal::Unavailable) => refusal = Some(AuthError::Unavailable),
                // An issuer that cannot be asked might have known it.
                Err(_) if refusal == Some(AuthError::Unavailable) => {}
                Err(Refusal::NoKeys) => {
                    refusal = Some(AuthError::UserToken("an issuer that shows no keys"));
                }
                Err(Refusal::Bad(why)) => refusal = Some(AuthError::UserToken(why)),
            }
        }
        Err(refusal.unwrap_or(AuthError::UserToken("an issuer that is not trusted here")))
    }

    /// Who stands behind a plugin's token that is shown to `plugin`.
    pub(super) async fn plugin(
        &self,
        token: &Shown<'_>,
        plugin: Plugin,
        patience: Duration,
    ) -> Result<Caller, AuthError> {
        let id = token.claims.sub.as_deref().unwrap_or_default();
        let plain = |one: u8| one.is_ascii_alphanumeric() || matches!(one, b'_' | b'-');
        if id.is_empty() || PLUGIN_ID_MAX < id.len() || !id.bytes().all(plain) {
            return Err(AuthError::PluginToken("a subject that is no plugin's id"));
        }
        let plugins = self.plugins.as_ref();
        let plugins = plugins.ok_or(AuthError::PluginToken(
            "a Backstage that is not configured here",
        ))?;
        let issuer = plugins.issuer(id)?;
        let rules = Rules {
            audiences: vec![plugin.id().to_owned()],
            complete: true,
            ..Rules::default()
        };
        let verified = verify::verify(&issuer, token, &rules, patience)
            .await
            .map_err(|refusal| match refusal {
                Refusal::Bad(why) => AuthError::PluginToken(why),
                Refusal::NoKeys => AuthError::NotMigrated(id.to_owned()),
                Refusal::Unavailable => AuthError::Unavailable,
            })?;
        let Some(limited) = verified.obo else {
            return Ok(Caller::Plugin(id.to_owned()));
        };
        let person = match Shown::read(&limited) {
            Some(shown) if matches!(shown.kind, TokenKind::User | TokenKind::LimitedUser) => {
                self.person(&shown, patience).await?
            }
            _ => return Err(AuthError::UserToken("something else than a user token")),
        };
        Ok(Caller::Person(person, limited))
    }
}

/// The plugins that have called, each with its keys.
struct Plugins {
    discovery: Discovery,
    client: reqwest::Client,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    issuers: HashMap<String, (Arc<Issuer>, Instant)>,
    /// When plugins were met for the first time, oldest first.
    met: VecDeque<Instant>,
}

impl fmt::Debug for Backstage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Backstage")
            .field("users", &self.users)
            .finish_non_exhaustive()
    }
}

impl Plugins {
    fn issuer(&self, id: &str) -> Result<Arc<Issuer>, AuthError> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if let Some((issuer, used)) = known.issuers.get_mut(id) {
            *used = now;
            return Ok(Arc::clone(issuer));
        }
        let root = self.discovery.internal(id);
        let url = root.and_then(|root| below(&root, PLUGIN_KEYS_PATH));
        let nowhere = AuthError::PluginToken("a plugin that discovery does not find");
        let url = url.ok_or(nowhere)?;
        known.welcome(now)?;
        let issuer = Issuer::new(Whose::Plugins, url, self.client.clone());
        let entry = (Arc::clone(&issuer), now);
        known.issuers.insert(id.to_owned(), entry);
        Ok(issuer)
    }
}

impl Known {
    /// Makes room for one more: those go first that never had a key, then who called last longest
    /// ago.
    fn welcome(&mut self, now: Instant) -> Result<(), AuthError> {
        let recent = |at: &Instant| now.duration_since(*at) < NEWCOMERS_WINDOW;
        while self.met.front().is_some_and(|at| !recent(at)) {
            self.met.pop_front();
        }
        if NEWCOMERS_MAX <= self.met.len() {
            return Err(AuthError::Unavailable);
        }
        self.met.push_back(now);
        if PLUGINS_MAX <= self.issuers.len() {
            let least = self
                .issuers
                .iter()
                .min_by_key(|(_, (issuer, used))| (issuer.is_proven(), *used))
                .map(|(id, _)| id.clone());
            self.issuers.retain(|id, _| Some(id) != least.as_ref());
        }
        Ok(())
    }
}

/// An address below the root of a plugin.
fn below(base: &Url, path: &str) -> Option<Url> {
    let base = base.as_str().trim_end_matches('/');
    Url::parse(&format!("{base}/{path}")).ok()
}
