//! API tokens: what their bearers show as it is, and what is known of them by their hash.

use std::fmt;

use rand::distr::Alphanumeric;
use rand::distr::SampleString as _;
use sha2::Digest as _;
use sha2::Sha256;

use super::AuthError;
use super::Plugin;
use super::Principal;
use super::Scopes;
use crate::store::Token;
use crate::submission::hex;
use crate::time::Timestamp;

/// How an API token begins, so that secret scanners and people know one.
pub const TOKEN_PREFIX: &str = "tdg_";

/// Random characters of an API token after its prefix: 238 bits.
const TOKEN_CHARS: usize = 40;

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

impl StaticToken {
    /// Its hash, and what is known of it.
    pub(super) fn known(self) -> (String, Known) {
        let known = Known {
            subject: self.subject,
            scopes: self.scopes,
            plugins: self.plugins,
            expires: None,
        };
        (hash_token(&self.token), known)
    }
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
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) subject: String,
    pub(super) scopes: Scopes,
    pub(super) plugins: Option<Vec<String>>,
    pub(super) expires: Option<Timestamp>,
}

impl Known {
    /// Somebody of the configuration who may send.
    pub(super) fn sender(subject: String, plugins: Option<Vec<String>>) -> Self {
        Self {
            subject,
            scopes: Scopes::SEND,
            plugins,
            expires: None,
        }
    }

    /// Its bearer, who shows it to `plugin`; with its hash, if it is in the store.
    pub(super) fn principal(
        &self,
        hash: Option<&str>,
        plugin: Plugin,
    ) -> Result<Principal, AuthError> {
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
            token: hash.map(str::to_owned),
        })
    }
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
pub(super) fn random_text(chars: usize) -> String {
    Alphanumeric.sample_string(&mut rand::rng(), chars)
}
