//! Who is calling: producers and operators by API token, people by a signed user token.
//!
//! `http.rs` asks once for every request under `/api`, `signals.rs` at each handshake, and the
//! page for its session. Needs no store while it serves: the table of tokens is a copy that the
//! runner refreshes. Tokens are looked up by their SHA-256, so neither a comparison's time nor
//! this process's memory tells one. Nothing here writes a token or a key into a log or an error.

mod session;
mod user;

use std::collections::BTreeSet;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::RwLock;

use http::HeaderMap;
use http::header::AUTHORIZATION;
use rand::distr::Alphanumeric;
use rand::distr::SampleString as _;
use sha2::Digest as _;
use sha2::Sha256;

pub use self::session::LOGIN_CODE_TTL;
pub use self::session::SESSION_COOKIE;
pub use self::session::SESSION_TTL;
pub use self::user::UserKey;

use self::session::LoginCodes;
use self::user::TokenKind;
use crate::failure::Failure;
use crate::failure::Reason;
use crate::store::Token;
use crate::submission::hex;
use crate::time::Timestamp;

/// How an API token begins, so that secret scanners and people know one.
pub const TOKEN_PREFIX: &str = "tdg_";

/// Random characters of an API token after its prefix: 238 bits.
const TOKEN_CHARS: usize = 40;

/// Whose API is called. To Backstage we are two plugins: the audience of a plugin's token and the
/// name in `accessRestrictions`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plugin {
    /// `/api/notifications`, and what is ours under `/api/tidings`.
    Notifications,
    /// `/api/signals`.
    Signals,
}

impl Plugin {
    /// Its id.
    pub const fn id(self) -> &'static str {
        match self {
            Self::Notifications => "notifications",
            Self::Signals => "signals",
        }
    }
}

/// What a service may do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scopes {
    /// Send notifications, and see what became of those it sent.
    pub send: bool,
    /// Everything an operator does; sending included.
    pub operate: bool,
}

impl Scopes {
    /// To send.
    pub const SEND: Self = Self {
        send: true,
        operate: false,
    };
    /// To send and to operate.
    pub const OPERATE: Self = Self {
        send: true,
        operate: true,
    };

    /// Reads the words of a stored token; unknown ones give no right.
    pub fn of(words: &[String]) -> Self {
        let has = |wanted: &str| words.iter().any(|word| word == wanted);
        Self {
            send: has("send") || has("operate"),
            operate: has("operate"),
        }
    }
}

/// Who is calling.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Principal {
    /// A person.
    User {
        /// Their ref, as their token says it.
        reference: String,
    },
    /// A producer or an operator.
    Service {
        /// The origin of what it sends.
        subject: String,
        /// What it may do.
        scopes: Scopes,
        /// The hash of its token, if that is in the store's table.
        token: Option<String>,
    },
}

/// Why a caller is turned away. The words are the peer's (contract 8).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// No token at all.
    #[error("Missing credentials")]
    Missing,
    /// A token that nobody knows, or one that has ended.
    #[error("Illegal token")]
    Illegal,
    /// A user token with a wrong signature, or one that has ended.
    #[error("Failed user token verification")]
    UserToken,
    /// A token of a Backstage plugin that cannot be verified.
    #[error("Failed plugin token verification")]
    PluginToken,
    /// A token that is made for cookies alone.
    #[error("Illegal limited user token")]
    LimitedUserToken,
    /// The configuration restricts the token to other plugins.
    #[error("This token's access is restricted to plugin(s) {0}")]
    Restricted(String),
}

impl AuthError {
    /// Whether the caller is known and not allowed (403), rather than unknown (401).
    pub const fn is_forbidden(&self) -> bool {
        matches!(self, Self::Restricted(_))
    }
}

/// A token of the configuration: `backend.auth.externalAccess` of type `static`.
#[derive(Clone, PartialEq, Eq)]
pub struct StaticToken {
    /// The secret.
    pub token: String,
    /// The origin of what its bearer sends, taken as it is.
    pub subject: String,
    /// What its bearer may do.
    pub scopes: Scopes,
    /// `accessRestrictions[].plugin`; `None` is no restriction.
    pub plugins: Option<Vec<String>>,
}

impl fmt::Debug for StaticToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StaticToken")
            .field("subject", &self.subject)
            .field("scopes", &self.scopes)
            .finish_non_exhaustive()
    }
}

/// What is known of a token.
#[derive(Debug)]
struct Known {
    subject: String,
    scopes: Scopes,
    plugins: Option<Vec<String>>,
    expires: Option<Timestamp>,
    in_store: bool,
}

/// The doorkeeper. Clones share everything.
#[derive(Clone, Debug)]
pub struct Auth(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    statics: HashMap<String, Known>,
    stored: RwLock<HashMap<String, Known>>,
    used: Mutex<BTreeSet<String>>,
    users: Option<UserKey>,
    codes: LoginCodes,
}

impl Auth {
    /// Knows the configuration's tokens, and signs and verifies user tokens with `users`, if any.
    pub fn new(statics: Vec<StaticToken>, users: Option<UserKey>) -> Self {
        let statics = statics
            .into_iter()
            .map(|one| {
                let known = Known {
                    subject: one.subject,
                    scopes: one.scopes,
                    plugins: one.plugins,
                    expires: None,
                    in_store: false,
                };
                (hash_token(&one.token), known)
            })
            .collect();
        Self(Arc::new(Inner {
            statics,
            stored: RwLock::default(),
            used: Mutex::default(),
            users,
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
                    in_store: true,
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
        match TokenKind::of(token) {
            TokenKind::User => self
                .0
                .users
                .as_ref()
                .and_then(|key| key.verify(token))
                .map(|reference| Principal::User { reference })
                .ok_or(AuthError::UserToken),
            TokenKind::LimitedUser => Err(AuthError::LimitedUserToken),
            TokenKind::Plugin => Err(AuthError::PluginToken),
            TokenKind::Other => self.service(&hash_token(token), plugin),
        }
    }

    /// The refs that the bearer of this token acts for, in signals: the person and their groups.
    /// For a token that [`Auth::authenticate_token`] has let in.
    ///
    /// # Errors
    /// A failure of a dependency, when whoever knows them is away; a permanent one, when the token
    /// is no person's.
    pub async fn ownership(&self, token: &str) -> Result<Vec<String>, Failure> {
        match self.authenticate_token(token, Plugin::Signals).await {
            Ok(Principal::User { reference }) => Ok(vec![reference]),
            Ok(Principal::Service { .. }) => {
                let detail = "a service's token stands for no person";
                Err(Failure::permanent(Reason::Auth, detail))
            }
            Err(error) => Err(Failure::permanent(Reason::Auth, error.to_string())),
        }
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

    fn service(&self, hash: &str, plugin: Plugin) -> Result<Principal, AuthError> {
        if let Some(known) = self.0.statics.get(hash) {
            return known.principal(hash, plugin);
        }
        let stored = self.0.stored.read().unwrap_or_else(PoisonError::into_inner);
        let principal = stored
            .get(hash)
            .ok_or(AuthError::Illegal)?
            .principal(hash, plugin)?;
        let mut used = self.0.used.lock().unwrap_or_else(PoisonError::into_inner);
        if !used.contains(hash) {
            used.insert(hash.to_owned());
        }
        Ok(principal)
    }
}

impl Known {
    fn principal(&self, hash: &str, plugin: Plugin) -> Result<Principal, AuthError> {
        if self.expires.is_some_and(|end| end <= Timestamp::now()) {
            return Err(AuthError::Illegal);
        }
        if let Some(plugins) = &self.plugins
            && !plugins.iter().any(|one| one == plugin.id())
        {
            let names: Vec<_> = plugins.iter().map(|name| format!("'{name}'")).collect();
            return Err(AuthError::Restricted(names.join(", ")));
        }
        Ok(Principal::Service {
            subject: self.subject.clone(),
            scopes: self.scopes,
            token: self.in_store.then(|| hash.to_owned()),
        })
    }
}

/// The bearer token of a request; the scheme's case does not matter.
pub(crate) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

/// SHA-256 of a token, in hex: what the store keeps of it.
pub fn hash_token(token: &str) -> String {
    hex(&Sha256::digest(token.as_bytes()))
}

/// A new API token: the secret, to be shown once, and what the store keeps.
pub fn new_token(
    subject: &str,
    scopes: Vec<String>,
    expires: Option<Timestamp>,
    now: Timestamp,
) -> (String, Token) {
    let secret = format!("{TOKEN_PREFIX}{}", random_text(TOKEN_CHARS));
    let token = Token {
        hash: hash_token(&secret),
        subject: subject.to_owned(),
        scopes,
        created: now,
        expires,
        last_used: None,
    };
    (secret, token)
}

/// Random letters and digits: 5.95 bits each, from the system's generator.
fn random_text(chars: usize) -> String {
    Alphanumeric.sample_string(&mut rand::rng(), chars)
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
