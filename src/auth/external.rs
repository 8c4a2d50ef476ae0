//! Tokens of `backend.auth.externalAccess` that are signed (contract 8.1): with a shared secret,
//! or by an issuer whose keys are at an address.

#[cfg(feature = "backstage")]
use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::Algorithm;
use jsonwebtoken::DecodingKey;
use serde::de::IgnoredAny;

use super::AuthError;
use super::Trust;
use super::api_token::Known;
#[cfg(feature = "backstage")]
use super::keys::Issuer;
#[cfg(feature = "backstage")]
use super::keys::Whose;
use super::token::Shown;
#[cfg(feature = "backstage")]
use super::token::Words;
use super::token::strict;
#[cfg(feature = "backstage")]
use super::verify;
#[cfg(feature = "backstage")]
use super::verify::Refusal;
#[cfg(feature = "backstage")]
use super::verify::Rules;
use crate::config::AccessMeans;
use crate::config::ExternalAccess;
use crate::config::JwksAccess;

/// The subject of every token of type `legacy`. Source: the peer.
const LEGACY_SUBJECT: &str = "backstage-server";

/// Whoever signs tokens from outside.
#[derive(Default)]
pub(super) struct External {
    legacy: Vec<(DecodingKey, Known)>,
    #[cfg(feature = "backstage")]
    jwks: Vec<Jwks>,
}

/// An entry of type `jwks`.
#[cfg(feature = "backstage")]
struct Jwks {
    issuer: Arc<Issuer>,
    rules: Rules,
    subject_prefix: String,
    plugins: Option<Vec<String>>,
}

impl External {
    /// Those of the entries that sign.
    pub(super) fn new(trust: &Trust) -> Self {
        let mut made = Self::default();
        for entry in &trust.external {
            match &entry.means {
                AccessMeans::Static { .. } => {}
                AccessMeans::Legacy { secret, subject } => {
                    let known = Known::sender(subject.clone(), entry.restricted_to.clone());
                    made.legacy.push((DecodingKey::from_secret(secret), known));
                }
                AccessMeans::Jwks(jwks) => made.add_issuer(jwks, entry, trust),
            }
        }
        made
    }

    #[cfg(feature = "backstage")]
    fn add_issuer(&mut self, jwks: &JwksAccess, entry: &ExternalAccess, trust: &Trust) {
        let Some(client) = &trust.client else {
            return;
        };
        self.jwks.push(Jwks {
            issuer: Issuer::new(Whose::External, jwks.url.clone(), client.clone()),
            rules: Rules {
                algorithms: jwks.algorithms.clone(),
                issuers: jwks.issuers.clone(),
                audiences: jwks.audiences.clone(),
                complete: false,
            },
            subject_prefix: match &jwks.subject_prefix {
                Some(prefix) => format!("external:{prefix}:"),
                None => "external:".to_owned(),
            },
            plugins: entry.restricted_to.clone(),
        });
    }

    #[cfg(not(feature = "backstage"))]
    fn add_issuer(&mut self, _: &JwksAccess, _: &ExternalAccess, _: &Trust) {}

    /// Who signed this token; `None` when none of them did.
    pub(super) async fn find(
        &self,
        token: &Shown<'_>,
        patience: Duration,
    ) -> Result<Option<Known>, AuthError> {
        let legacy = self.legacy.iter().find(|(key, _)| signed_with(key, token));
        if let Some((_, known)) = legacy {
            return Ok(Some(known.clone()));
        }
        self.find_issuer(token, patience).await
    }

    #[cfg(feature = "backstage")]
    async fn find_issuer(
        &self,
        token: &Shown<'_>,
        patience: Duration,
    ) -> Result<Option<Known>, AuthError> {
        let mut away = false;
        for entry in self.jwks.iter().filter(|entry| entry.may_be(token)) {
            match verify::verify(&entry.issuer, token, &entry.rules, patience).await {
                Ok(verified) => {
                    let subject = verified.sub.filter(|subject| !subject.is_empty());
                    if let Some(subject) = subject {
                        let subject = format!("{}{subject}", entry.subject_prefix);
                        return Ok(Some(Known::sender(subject, entry.plugins.clone())));
                    }
                }
                Err(Refusal::Unavailable) => away = true,
                Err(_) => {}
            }
        }
        if away {
            return Err(AuthError::Unavailable);
        }
        Ok(None)
    }

    #[cfg(not(feature = "backstage"))]
    async fn find_issuer(&self, _: &Shown<'_>, _: Duration) -> Result<Option<Known>, AuthError> {
        Ok(None)
    }

    /// The issuers, whose keys are better there before they are needed.
    #[cfg(feature = "backstage")]
    pub(super) fn issuers(&self) -> impl Iterator<Item = &Arc<Issuer>> {
        self.jwks.iter().map(|entry| &entry.issuer)
    }
}

#[cfg(feature = "backstage")]
impl Jwks {
    /// Whether the token says that it is for this entry, so that nobody is asked in vain.
    fn may_be(&self, token: &Shown<'_>) -> bool {
        let says = |wanted: &[String], said: &Option<Words>| {
            wanted.is_empty() || said.as_ref().is_some_and(|said| said.any_of(wanted))
        };
        says(&self.rules.issuers, &token.claims.iss)
            && says(&self.rules.audiences, &token.claims.aud)
    }
}

/// Whether this secret signed a token between backends, of the kind that was before plugin tokens.
fn signed_with(key: &DecodingKey, token: &Shown<'_>) -> bool {
    if token.claims.sub.as_deref() != Some(LEGACY_SUBJECT) || token.claims.aud.is_some() {
        return false;
    }
    let mut rules = strict(Algorithm::HS256);
    rules.validate_aud = false;
    rules.required_spec_claims.clear();
    jsonwebtoken::decode::<IgnoredAny>(token.text, key, &rules).is_ok()
}
