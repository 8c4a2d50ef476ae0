//! Verifying what an issuer signed: the key decides how, never the token.

use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::Algorithm;
use jsonwebtoken::AlgorithmFamily;
use jsonwebtoken::Validation;
use jsonwebtoken::errors::ErrorKind;
use serde::Deserialize;
use serde_json::Number;

use super::keys::Issuer;
use super::keys::NoKey;
use super::token::Shown;
use super::token::strict;

/// What must be so for a token to be believed, beside its signature and its end.
#[derive(Clone, Debug, Default)]
pub(super) struct Rules {
    /// How it may be signed; empty: however its key says.
    pub(super) algorithms: Vec<Algorithm>,
    /// Who may have issued it; empty: anybody who has the key.
    pub(super) issuers: Vec<String>,
    /// For whom it must be; empty: for anybody.
    pub(super) audiences: Vec<String>,
    /// Whether it must say who, since when and until when.
    pub(super) complete: bool,
}

/// What a verified token says.
#[derive(Debug, Deserialize)]
pub(super) struct Verified {
    pub(super) sub: Option<String>,
    iat: Option<Number>,
    /// The refs that a person acts for.
    pub(super) ent: Option<Vec<String>>,
    /// The limited token of the person for whom a plugin acts.
    pub(super) obo: Option<String>,
}

/// Why a token is not believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// What is wrong with it.
    Bad(&'static str),
    /// Its issuer has no keys at all.
    NoKeys,
    /// Its issuer cannot be asked now.
    Unavailable,
}

impl From<NoKey> for Refusal {
    fn from(why: NoKey) -> Self {
        match why {
            NoKey::Unknown => Self::Bad("a key id that its issuer does not have"),
            NoKey::NotFound => Self::NoKeys,
            NoKey::Unavailable(_) => Self::Unavailable,
        }
    }
}

/// What the token says, if `issuer` signed it.
pub(super) async fn verify(
    issuer: &Arc<Issuer>,
    token: &Shown<'_>,
    rules: &Rules,
    patience: Duration,
) -> Result<Verified, Refusal> {
    let algorithm = asymmetric(token).ok_or(Refusal::Bad("a signature without a private key"))?;
    if !rules.algorithms.is_empty() && !rules.algorithms.contains(&algorithm) {
        return Err(Refusal::Bad("another algorithm"));
    }
    let keys = issuer
        .keys(token.header.kid.as_deref(), algorithm, patience)
        .await?;
    let validation = validation(algorithm, rules);
    let mut refusal = Refusal::Bad("a key id that its issuer does not have");
    for key in keys {
        match jsonwebtoken::decode::<Verified>(token.text, &key.public, &validation) {
            Ok(data) if rules.complete && data.claims.iat.is_none() => {
                return Err(Refusal::Bad("a missing claim"));
            }
            Ok(data) => return Ok(data.claims),
            Err(error) => refusal = Refusal::Bad(what_is_wrong(error.kind())),
        }
    }
    Err(refusal)
}

/// How a token says that it is signed, where that is with a private key.
pub(super) fn asymmetric(token: &Shown<'_>) -> Option<Algorithm> {
    let algorithm: Algorithm = token.header.alg.as_deref()?.parse().ok()?;
    (algorithm.family() != AlgorithmFamily::Hmac).then_some(algorithm)
}

fn validation(algorithm: Algorithm, rules: &Rules) -> Validation {
    let mut validation = strict(algorithm);
    let mut required = Vec::new();
    if rules.complete {
        required.extend(["exp", "sub"]);
    }
    if !rules.issuers.is_empty() {
        validation.set_issuer(&rules.issuers);
        required.push("iss");
    }
    if rules.audiences.is_empty() {
        validation.validate_aud = false;
    } else {
        validation.set_audience(&rules.audiences);
        required.push("aud");
    }
    validation.set_required_spec_claims(&required);
    validation
}

fn what_is_wrong(kind: &ErrorKind) -> &'static str {
    match kind {
        ErrorKind::ExpiredSignature => "a token that has ended",
        ErrorKind::ImmatureSignature => "a token that does not hold yet",
        ErrorKind::InvalidSignature => "a wrong signature",
        ErrorKind::InvalidAudience => "an audience that is not ours",
        ErrorKind::InvalidIssuer => "another issuer",
        ErrorKind::MissingRequiredClaim(_) => "a missing claim",
        _ => "a token that cannot be read",
    }
}
