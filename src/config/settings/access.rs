//! `backend.auth.externalAccess`: producers that are no Backstage plugins. Source: contract 8.1.

use std::fmt;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::DecodePaddingMode;
use base64::engine::GeneralPurpose;
use base64::engine::GeneralPurposeConfig;
use jsonwebtoken::Algorithm;
use jsonwebtoken::AlgorithmFamily;
use serde::Deserialize;
use url::Url;

use super::read::key_set;
use super::read::list;
use crate::config::error::ConfigError;
use crate::config::section::Section;

/// The shortest token, as in the peer.
const TOKEN_MIN: usize = 8;

/// The subject of `backend.auth.keys`. Source: the peer.
const OLD_SUBJECT: &str = "external:backstage-plugin";

/// Base64 as Node reads it: with or without padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// An entry of `backend.auth.externalAccess`, or of the older `backend.auth.keys`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExternalAccess {
    /// What its bearer shows.
    pub means: AccessMeans,
    /// The plugins of `accessRestrictions`; `None` is no restriction.
    pub restricted_to: Option<Vec<String>>,
}

/// How a caller of an [`ExternalAccess`] proves who it is.
#[derive(Clone, PartialEq, Eq)]
pub enum AccessMeans {
    /// `static`: a token, as it is.
    Static {
        /// The secret.
        token: String,
        /// The origin of what its bearer sends.
        subject: String,
    },
    /// `legacy`: tokens signed with a shared secret.
    Legacy {
        /// The secret.
        secret: Vec<u8>,
        /// The origin of what its bearer sends.
        subject: String,
    },
    /// `jwks`: tokens signed by somebody whose public keys are at an address.
    Jwks(JwksAccess),
}

/// The options of an [`ExternalAccess`] of type `jwks`. A list that is empty asks for nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JwksAccess {
    /// Where the keys are.
    pub url: Url,
    /// Who may have issued the token.
    pub issuers: Vec<String>,
    /// How it may be signed.
    pub algorithms: Vec<Algorithm>,
    /// For whom it must be.
    pub audiences: Vec<String>,
    /// What stands between `external:` and the token's subject.
    pub subject_prefix: Option<String>,
}

impl fmt::Debug for AccessMeans {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, subject) = match self {
            Self::Static { subject, .. } => ("Static", subject),
            Self::Legacy { subject, .. } => ("Legacy", subject),
            Self::Jwks(jwks) => return jwks.fmt(f),
        };
        f.debug_struct(name)
            .field("subject", subject)
            .finish_non_exhaustive()
    }
}

/// What all types have.
#[derive(Deserialize)]
struct Kind {
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Deserialize)]
struct StaticOptions {
    token: String,
    subject: String,
}

#[derive(Deserialize)]
struct LegacyOptions {
    secret: String,
    subject: String,
}

/// The rest may be words or lists of them.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct JwksOptions {
    url: String,
    subject_prefix: Option<String>,
}

#[derive(Deserialize)]
struct OldKey {
    secret: String,
}

#[derive(Deserialize)]
struct Restriction {
    plugin: String,
}

/// Reads those of the types that are served; `auth` is `backend.auth`.
pub(super) fn read(auth: &Section) -> Result<Vec<ExternalAccess>, ConfigError> {
    let mut found = Vec::new();
    for item in list(&auth.get("externalAccess"))? {
        let options = item.get("options");
        let means = match item.read::<Kind>()?.kind.as_str() {
            "static" => fixed(&options)?,
            "legacy" => legacy(&options)?,
            "jwks" => AccessMeans::Jwks(jwks(&options)?),
            _ => continue,
        };
        let restrictions: Option<Vec<Restriction>> =
            item.get("accessRestrictions").read_if_set()?;
        found.push(ExternalAccess {
            means,
            restricted_to: restrictions.map(|all| all.into_iter().map(|one| one.plugin).collect()),
        });
    }
    for item in list(&auth.get("keys"))? {
        let OldKey { secret } = item.read()?;
        found.push(ExternalAccess {
            means: AccessMeans::Legacy {
                secret: decoded(&item.get("secret"), &secret)?,
                subject: OLD_SUBJECT.to_owned(),
            },
            restricted_to: None,
        });
    }
    Ok(found)
}

fn fixed(options: &Section) -> Result<AccessMeans, ConfigError> {
    let StaticOptions { token, subject } = options.read()?;
    if token.len() < TOKEN_MIN || token.contains(char::is_whitespace) {
        let field = options.get("token");
        return Err(field.error(
            format!(
                "`{}` must be {TOKEN_MIN} characters or more, without spaces",
                field.key()
            ),
            "make one with: openssl rand -hex 24",
        ));
    }
    one_word(&options.get("subject"), &subject)?;
    Ok(AccessMeans::Static { token, subject })
}

fn legacy(options: &Section) -> Result<AccessMeans, ConfigError> {
    let LegacyOptions { secret, subject } = options.read()?;
    one_word(&options.get("subject"), &subject)?;
    Ok(AccessMeans::Legacy {
        secret: decoded(&options.get("secret"), &secret)?,
        subject,
    })
}

/// The bytes of a secret in base64, in either alphabet.
fn decoded(field: &Section, secret: &str) -> Result<Vec<u8>, ConfigError> {
    let plain = secret.replace('-', "+").replace('_', "/");
    match BASE64.decode(plain) {
        Ok(bytes) if !bytes.is_empty() => Ok(bytes),
        _ => Err(field.error(
            format!("`{}` must be a secret in base64", field.key()),
            "make one with: openssl rand -base64 24",
        )),
    }
}

fn one_word(field: &Section, subject: &str) -> Result<(), ConfigError> {
    if !subject.is_empty() && !subject.contains(char::is_whitespace) {
        return Ok(());
    }
    Err(field.error(
        format!("`{}` must be a word without spaces", field.key()),
        "it is the origin that people see and switch off, as in external:ci",
    ))
}

fn jwks(options: &Section) -> Result<JwksAccess, ConfigError> {
    let read: JwksOptions = options.read()?;
    if let Some(prefix) = &read.subject_prefix {
        one_word(&options.get("subjectPrefix"), prefix)?;
    }
    let field = options.get("algorithm");
    let algorithms = words(&field)?
        .iter()
        .map(|word| match word.parse::<Algorithm>() {
            Ok(found) if found.family() != AlgorithmFamily::Hmac => Ok(found),
            _ => Err(field.error(
                format!(
                    "`{}` must name algorithms that sign with a private key",
                    field.key()
                ),
                "ES256, ES384, RS256, RS384, RS512, PS256, PS384, PS512 or EdDSA",
            )),
        })
        .collect::<Result<_, _>>()?;
    Ok(JwksAccess {
        url: key_set(&options.get("url"), &read.url)?,
        issuers: words(&options.get("issuer"))?,
        algorithms,
        audiences: words(&options.get("audience"))?,
        subject_prefix: read.subject_prefix,
    })
}

/// Words in a text, separated by commas or spaces, or in a list of such texts.
fn words(field: &Section) -> Result<Vec<String>, ConfigError> {
    let items = field.items();
    let texts: Vec<String> = if items.is_empty() {
        field.read_if_set::<String>()?.into_iter().collect()
    } else {
        field.read()?
    };
    let word = |text: &String| {
        text.split(|one: char| one == ',' || one.is_whitespace())
            .filter(|word| !word.is_empty())
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    Ok(texts.iter().flat_map(word).collect())
}

/// A warning for each entry of a type that is not served, or that lets in more than is meant.
pub(in crate::config) fn warnings(auth: &Section) -> Vec<ConfigError> {
    let doubtful = |item: Section| {
        let kind = item.read::<Kind>().ok()?.kind;
        let field = item.get("type");
        let options = item.get("options");
        match kind.as_str() {
            "static" | "legacy" => None,
            "jwks" if !cfg!(feature = "backstage") => Some(field.error(
                "this program was built without `backstage`; tokens of type `jwks` will be refused",
                "build it with the feature backstage",
            )),
            "jwks" => {
                let open = !options.get("issuer").exists() && !options.get("audience").exists();
                open.then(|| {
                    options.get("url").error(
                        "every token that is signed with these keys may send, whomever it was made for",
                        "name an `audience`, or at least an `issuer`, beside it",
                    )
                })
            }
            other => Some(field.error(
                format!("tokens of type `{other}` are not served; they will be refused"),
                "use static, legacy or jwks, or make a token with: tidings token create",
            )),
        }
    };
    let items = auth.get("externalAccess").items();
    items.into_iter().filter_map(doubtful).collect()
}
