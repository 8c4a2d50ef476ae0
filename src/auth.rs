//! Who is calling: producers and operators by API token, people by a signed user token, plugins of
//! a Backstage by theirs.
//!
//! `http.rs` asks once for every request under `/api`, `signals.rs` at each handshake, and the
//! page for its session. Needs no store while it serves: the table of tokens is a copy that the
//! runner refreshes. Tokens are looked up by their SHA-256, so neither a comparison's time nor
//! this process's memory tells one; what is signed is verified with keys that are fetched from
//! whoever issued it, and kept. Nothing here writes a token or a key into a log or an error.

mod api_token;
#[cfg(feature = "backstage")]
mod backstage;
mod external;
#[cfg(feature = "backstage")]
mod keys;
#[cfg(feature = "backstage")]
mod plugin_keys;
mod principal;
mod session;
#[cfg_attr(
    not(feature = "backstage"),
    expect(dead_code, reason = "read where keys are fetched alone")
)]
mod token;
mod user;
#[cfg(feature = "backstage")]
mod userinfo;
#[cfg(feature = "backstage")]
mod verify;

use std::collections::BTreeSet;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::RwLock;

use http::HeaderMap;
use http::header::AUTHORIZATION;
#[cfg(feature = "backstage")]
use url::Url;

pub use self::api_token::StaticToken;
pub use self::api_token::TOKEN_PREFIX;
pub use self::api_token::hash_token;
pub use self::api_token::new_token;
#[cfg(feature = "backstage")]
pub use self::plugin_keys::PluginKeys;
#[cfg(feature = "backstage")]
pub use self::plugin_keys::SETTLE;
pub use self::principal::AuthError;
pub use self::principal::Plugin;
pub use self::principal::Principal;
pub use self::principal::Scopes;
pub use self::session::LOGIN_CODE_TTL;
pub use self::session::SESSION_COOKIE;
pub use self::session::SESSION_TTL;
pub use self::user::UserKey;

use self::api_token::Known;
use self::api_token::random_text;
#[cfg(feature = "backstage")]
use self::backstage::Backstage;
#[cfg(feature = "backstage")]
use self::backstage::Caller;
use self::external::External;
use self::session::LoginCodes;
use self::token::Shown;
use self::token::TokenKind;
#[cfg(feature = "backstage")]
use crate::backstage::Discovery;
use crate::catalog::Catalog;
use crate::config::AccessMeans;
use crate::config::ExternalAccess;
use crate::failure::Failure;
use crate::failure::Reason;
use crate::store::Token;
use crate::time::Timestamp;

/// The relation of a person to the groups whose signals they hear.
const MEMBER_OF: &str = "memberOf";

/// Whom a process believes, beside the store's tokens and its own signature.
#[derive(Clone, Default)]
pub struct Trust {
    /// Fetches keys; absent: nobody is believed whose keys are elsewhere.
    #[cfg(feature = "backstage")]
    pub client: Option<reqwest::Client>,
    /// `backend.auth.externalAccess`.
    pub external: Vec<ExternalAccess>,
    /// Where the keys of those who sign user tokens are.
    #[cfg(feature = "backstage")]
    pub user_issuers: Vec<Url>,
    /// Where the plugins of the Backstage are; absent: there is none.
    #[cfg(feature = "backstage")]
    pub discovery: Option<Discovery>,
    /// Whether people are the Backstage's: its auth plugin signs their tokens, unless
    /// `user_issuers` says who does, and knows their groups.
    #[cfg(feature = "backstage")]
    pub backstage_users: bool,
    /// Who knows the groups of people otherwise.
    pub catalog: Option<Arc<dyn Catalog>>,
}

/// The doorkeeper. Clones share everything.
#[derive(Clone, Debug)]
pub struct Auth(Arc<Inner>);

struct Inner {
    statics: HashMap<String, Known>,
    stored: RwLock<HashMap<String, Known>>,
    used: Mutex<BTreeSet<String>>,
    external: External,
    /// Signs and verifies user tokens; `None` where somebody else does.
    users: Option<UserKey>,
    #[cfg(feature = "backstage")]
    backstage: Backstage,
    catalog: Option<Arc<dyn Catalog>>,
    codes: LoginCodes,
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Auth")
            .field("statics", &self.statics.len())
            .field("users", &self.users)
            .finish_non_exhaustive()
    }
}

/// Who bears a token.
struct Bearer {
    principal: Principal,
    /// The refs that a person acts for, if the token says so.
    refs: Option<Vec<String>>,
    /// The person's own token, if a plugin showed it.
    #[cfg(feature = "backstage")]
    limited: Option<String>,
}

impl From<Principal> for Bearer {
    fn from(principal: Principal) -> Self {
        Self {
            principal,
            refs: None,
            #[cfg(feature = "backstage")]
            limited: None,
        }
    }
}

impl Auth {
    /// Knows these tokens, and signs and verifies user tokens with `users`, if any.
    pub fn new(statics: Vec<StaticToken>, users: Option<UserKey>) -> Self {
        Self::trusting(statics, users, &Trust::default())
    }

    /// The same, and believes whom `trust` says. Where it says who signs user tokens, ours are not
    /// taken any more.
    pub fn trusting(statics: Vec<StaticToken>, users: Option<UserKey>, trust: &Trust) -> Self {
        let configured = trust.external.iter().filter_map(|one| match &one.means {
            AccessMeans::Static { token, subject } => {
                let known = Known::sender(subject.clone(), one.restricted_to.clone());
                Some((hash_token(token), known))
            }
            _ => None,
        });
        let statics = statics.into_iter().map(StaticToken::known);
        #[cfg(feature = "backstage")]
        let backstage = Backstage::new(trust);
        #[cfg(feature = "backstage")]
        let users = users.filter(|_| backstage.user_issuers().is_empty());
        Self(Arc::new(Inner {
            statics: statics.chain(configured).collect(),
            stored: RwLock::default(),
            used: Mutex::default(),
            external: External::new(trust),
            users,
            #[cfg(feature = "backstage")]
            backstage,
            catalog: trust.catalog.clone(),
            codes: LoginCodes::default(),
        }))
    }

    /// Replaces the copy of the store's table.
    pub fn set_tokens(&self, tokens: Vec<Token>) {
        let fresh = tokens
            .into_iter()
            .map(|token| {
                let known = Known {
                    scopes: Scopes::of(&token.scopes),
                    subject: token.subject,
                    plugins: None,
                    expires: token.expires,
                };
                (token.hash, known)
            })
            .collect();
        *self
            .0
            .stored
            .write()
            .unwrap_or_else(PoisonError::into_inner) = fresh;
    }

    /// The hashes of the table's tokens that were used since this was last asked.
    pub fn take_used(&self) -> Vec<String> {
        let mut used = self.0.used.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *used).into_iter().collect()
    }

    /// Who sent these headers to `plugin`.
    ///
    /// # Errors
    /// [`AuthError`] when nobody we know did.
    pub async fn authenticate(
        &self,
        headers: &HeaderMap,
        plugin: Plugin,
    ) -> Result<Principal, AuthError> {
        let token = bearer(headers).ok_or(AuthError::Missing)?;
        self.authenticate_token(token, plugin).await
    }

    /// Who bears this token and shows it to `plugin`.
    ///
    /// # Errors
    /// [`AuthError`] when nobody we know does.
    pub async fn authenticate_token(
        &self,
        token: &str,
        plugin: Plugin,
    ) -> Result<Principal, AuthError> {
        Ok(self.bearer(token, plugin).await?.principal)
    }

    async fn bearer(&self, token: &str, plugin: Plugin) -> Result<Bearer, AuthError> {
        let shown = Shown::read(token).ok_or(AuthError::Illegal)?;
        match shown.kind {
            TokenKind::Plugin => self.plugin(&shown, plugin).await,
            TokenKind::User => self.user(&shown, plugin).await,
            TokenKind::LimitedUser => Err(AuthError::LimitedUserToken),
            TokenKind::Opaque => self.service(token, plugin).map(Bearer::from),
            TokenKind::Signed => match self.service(token, plugin) {
                Err(AuthError::Illegal) => {
                    let known = self.0.external.find(&shown, plugin.patience()).await?;
                    let known = known.ok_or(AuthError::Illegal)?;
                    known.principal(None, plugin).map(Bearer::from)
                }
                other => other.map(Bearer::from),
            },
        }
    }

    /// The person who bears a user token.
    async fn user(&self, token: &Shown<'_>, plugin: Plugin) -> Result<Bearer, AuthError> {
        if let Some(key) = &self.0.users {
            let wrong = AuthError::UserToken("a token that was not signed here, or has ended");
            let reference = key.verify(token.text).ok_or(wrong)?;
            return Ok(Principal::User { reference }.into());
        }
        self.foreign_user(token, plugin).await
    }

    #[cfg(feature = "backstage")]
    async fn foreign_user(&self, token: &Shown<'_>, plugin: Plugin) -> Result<Bearer, AuthError> {
        let person = self.0.backstage.person(token, plugin.patience()).await?;
        Ok(Bearer {
            principal: Principal::User {
                reference: person.reference,
            },
            refs: person.refs,
            limited: None,
        })
    }

    #[cfg(not(feature = "backstage"))]
    async fn foreign_user(&self, _: &Shown<'_>, _: Plugin) -> Result<Bearer, AuthError> {
        Err(AuthError::UserToken("an issuer that is not trusted here"))
    }

    /// The plugin that bears its token, or the person for whom it acts.
    #[cfg(feature = "backstage")]
    async fn plugin(&self, token: &Shown<'_>, plugin: Plugin) -> Result<Bearer, AuthError> {
        let backstage = &self.0.backstage;
        match backstage.plugin(token, plugin, plugin.patience()).await? {
            Caller::Plugin(id) => {
                let known = Known::sender(format!("plugin:{id}"), None);
                known.principal(None, plugin).map(Bearer::from)
            }
            Caller::Person(person, limited) => Ok(Bearer {
                principal: Principal::User {
                    reference: person.reference,
                },
                refs: person.refs,
                limited: Some(limited),
            }),
        }
    }

    #[cfg(not(feature = "backstage"))]
    async fn plugin(&self, _: &Shown<'_>, _: Plugin) -> Result<Bearer, AuthError> {
        Err(AuthError::PluginToken(
            "a Backstage that is not configured here",
        ))
    }

    /// The refs that the bearer of this token acts for, in signals: the person first, then their
    /// groups, as the token says, or Backstage, or the catalog.
    ///
    /// # Errors
    /// A failure of a dependency, when whoever knows them is away; a permanent one, when the token
    /// is no person's.
    pub async fn ownership(&self, token: &str) -> Result<Vec<String>, Failure> {
        let bearer = self.bearer(token, Plugin::Signals).await;
        let bearer = bearer.map_err(|error| {
            let detail = error.to_string();
            if error.is_unavailable() {
                Failure::dependency(Reason::Network, detail)
            } else {
                Failure::permanent(Reason::Auth, detail)
            }
        })?;
        let Principal::User { reference } = bearer.principal else {
            let detail = "a service's token stands for no person";
            return Err(Failure::permanent(Reason::Auth, detail));
        };
        #[cfg(feature = "backstage")]
        if let (None, Some(userinfo)) = (&bearer.refs, &self.0.backstage.userinfo) {
            let token = bearer.limited.as_deref().unwrap_or(token);
            if let Some(refs) = userinfo.refs(&reference, token).await? {
                return Ok(with_self(reference, refs));
            }
        }
        if let Some(refs) = bearer.refs {
            return Ok(with_self(reference, refs));
        }
        let groups = self.groups(&reference).await?;
        Ok(with_self(reference, groups))
    }

    /// The groups that the catalog knows a person to be a member of.
    async fn groups(&self, reference: &str) -> Result<Vec<String>, Failure> {
        let Some(catalog) = &self.0.catalog else {
            return Ok(Vec::new());
        };
        let found = catalog.entities(&[reference.to_owned()]).await?;
        let relations = found.into_iter().flat_map(|entity| entity.relations);
        let groups = relations.filter(|relation| relation.kind == MEMBER_OF);
        Ok(groups.map(|relation| relation.target_ref).collect())
    }

    /// Fetches the keys that are not held yet, so that the first callers do not wait. To be asked
    /// again and again: who was away at the start comes back.
    ///
    /// # Errors
    /// Of whom there are none: nobody whose tokens they sign can come in.
    #[cfg(feature = "backstage")]
    pub async fn prepare(&self) -> Result<(), String> {
        let users = self.0.backstage.user_issuers().iter();
        let issuers = users.chain(self.0.external.issuers());
        let asked = futures::future::join_all(issuers.map(|issuer| issuer.prepare())).await;
        let missing: Vec<String> = asked.into_iter().filter_map(Result::err).collect();
        if missing.is_empty() {
            return Ok(());
        }
        Err(format!("cannot be fetched: {}", missing.join("; ")))
    }

    /// The key that user tokens are signed with here; `None` where somebody else issues them.
    pub fn user_key(&self) -> Option<&UserKey> {
        self.0.users.as_ref()
    }

    /// A code for `/login/<code>` that signs `reference` in: once, within [`LOGIN_CODE_TTL`].
    pub fn login_code(&self, reference: &str) -> String {
        self.0.codes.issue(reference, Timestamp::now())
    }

    /// Whom this code signs in; it is worth nothing afterwards.
    pub fn redeem(&self, code: &str) -> Option<String> {
        self.0.codes.redeem(code, Timestamp::now())
    }

    /// Whose page sent these headers, by its session cookie.
    pub async fn session(&self, headers: &HeaderMap) -> Option<String> {
        let token = session::cookie(headers)?;
        match self.authenticate_token(token, Plugin::Notifications).await {
            Ok(Principal::User { reference }) => Some(reference),
            _ => None,
        }
    }

    /// Whoever bears an API token.
    fn service(&self, token: &str, plugin: Plugin) -> Result<Principal, AuthError> {
        let hash = hash_token(token);
        if let Some(known) = self.0.statics.get(&hash) {
            return known.principal(None, plugin);
        }
        let stored = self.0.stored.read().unwrap_or_else(PoisonError::into_inner);
        let known = stored.get(&hash).ok_or(AuthError::Illegal)?;
        let principal = known.principal(Some(&hash), plugin)?;
        let mut used = self.0.used.lock().unwrap_or_else(PoisonError::into_inner);
        if !used.contains(&hash) {
            used.insert(hash);
        }
        Ok(principal)
    }
}

/// The bearer token of a request; the scheme's case does not matter.
pub(crate) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

/// The person first, then the others.
fn with_self(reference: String, refs: Vec<String>) -> Vec<String> {
    let others = refs.into_iter().filter(|other| *other != reference);
    let others: Vec<String> = others.collect();
    std::iter::once(reference).chain(others).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const OURS: Plugin = Plugin::Notifications;

    fn headers(authorization: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, authorization.parse().unwrap());
        headers
    }

    fn ci(plugins: Option<Vec<String>>) -> Auth {
        let token = StaticToken {
            token: "secret-of-ci".into(),
            subject: "external:ci".into(),
            scopes: Scopes::SEND,
            plugins,
        };
        Auth::new(vec![token], None)
    }

    #[tokio::test]
    async fn a_static_token_is_its_subject_and_the_scheme_has_no_case() {
        let expected = Principal::Service {
            subject: "external:ci".into(),
            scopes: Scopes::SEND,
            token: None,
        };
        let auth = ci(None);
        for value in ["Bearer secret-of-ci", "bearer secret-of-ci"] {
            let found = auth.authenticate(&headers(value), OURS).await;
            assert_eq!(found, Ok(expected.clone()));
        }
        for (value, error) in [
            ("Bearer secret-of-c", AuthError::Illegal),
            ("Bearer a.b.c", AuthError::Illegal),
            ("Bearer ", AuthError::Missing),
            ("Basic eDp5", AuthError::Missing),
        ] {
            let found = auth.authenticate(&headers(value), OURS).await;
            assert_eq!(found, Err(error), "{value}");
        }
        assert_eq!(
            auth.authenticate(&HeaderMap::new(), OURS).await,
            Err(AuthError::Missing)
        );
    }

    #[tokio::test]
    async fn a_token_restricted_to_other_plugins_is_known_and_not_allowed() {
        let error = ci(Some(vec!["catalog".into(), "search".into()]))
            .authenticate_token("secret-of-ci", OURS)
            .await
            .unwrap_err();
        assert!(error.is_forbidden());
        assert_eq!(
            error.to_string(),
            "This token's access is restricted to plugin(s) 'catalog', 'search'"
        );
        let ours = ci(Some(vec!["notifications".into()]));
        let found = ours.authenticate_token("secret-of-ci", OURS).await;
        assert!(found.is_ok());
        let error = ours
            .authenticate_token("secret-of-ci", Plugin::Signals)
            .await
            .unwrap_err();
        assert!(error.to_string().ends_with("'notifications'"), "{error}");
    }

    #[tokio::test]
    async fn a_stored_token_works_until_it_ends_and_its_use_is_noted_once() {
        let auth = Auth::new(vec![], None);
        let now = Timestamp::now();
        let (secret, token) = new_token("ops", vec!["operate".into()], None, now);
        assert!(secret.starts_with(TOKEN_PREFIX) && secret.len() == 44);
        let (ended, other) = new_token(
            "old",
            vec!["send".into()],
            Some(now.minus(Duration::from_secs(1))),
            now,
        );
        auth.set_tokens(vec![token.clone(), other]);
        for _ in 0..2 {
            assert_eq!(
                auth.authenticate_token(&secret, OURS).await,
                Ok(Principal::Service {
                    subject: "ops".into(),
                    scopes: Scopes::OPERATE,
                    token: Some(token.hash.clone())
                })
            );
        }
        assert_eq!(
            auth.authenticate_token(&ended, OURS).await,
            Err(AuthError::Illegal)
        );
        assert_eq!(auth.take_used(), [token.hash]);
        assert!(auth.take_used().is_empty());
        auth.set_tokens(vec![]);
        assert_eq!(
            auth.authenticate_token(&secret, OURS).await,
            Err(AuthError::Illegal)
        );
    }

    #[test]
    fn a_debug_print_tells_no_secret() {
        let token = StaticToken {
            token: "canary-secret".into(),
            subject: "s".into(),
            scopes: Scopes::SEND,
            plugins: None,
        };
        let text = format!("{token:?} {:?}", Auth::new(vec![token.clone()], None));
        assert!(!text.contains("canary"), "{text}");
    }
}
