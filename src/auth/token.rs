//! What a bearer shows, before anything is verified: which kind of token it is, and what it says
//! of itself. Nothing here may be believed.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Algorithm;
use jsonwebtoken::Validation;
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// The `typ` of a user token.
pub(super) const TYP_USER: &str = "vnd.backstage.user";
/// The `typ` of a user token for cookies, and for the inside of plugin tokens.
const TYP_LIMITED_USER: &str = "vnd.backstage.limited-user";
/// The `typ` of a token between plugins.
pub(super) const TYP_PLUGIN: &str = "vnd.backstage.plugin";

/// The audience that Backstage gives user tokens.
pub(super) const AUDIENCE: &str = "backstage";

/// Longer tokens are looked at no further. Node takes no more in all headers together.
const BYTES_MAX: usize = 16 << 10;

/// What a bearer token is; nothing is verified yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TokenKind {
    /// A person's.
    User,
    /// A person's, for cookies alone.
    LimitedUser,
    /// A Backstage plugin's.
    Plugin,
    /// Something else that is signed.
    Signed,
    /// Something else: an API token, or nonsense.
    Opaque,
}

/// What the header of a signed token says.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Header {
    typ: Option<String>,
    /// How it is signed.
    pub(super) alg: Option<String>,
    /// The key that it is signed with.
    pub(super) kid: Option<String>,
}

/// What the claims say, as far as it decides who is to verify them.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Claims {
    pub(super) iss: Option<Words>,
    pub(super) aud: Option<Words>,
    pub(super) sub: Option<String>,
}

/// One word or many.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Words {
    One(String),
    Many(Vec<String>),
}

impl Words {
    /// Whether one of `wanted` is among them.
    pub(super) fn any_of(&self, wanted: &[String]) -> bool {
        match self {
            Self::One(word) => wanted.contains(word),
            Self::Many(words) => words.iter().any(|word| wanted.contains(word)),
        }
    }
}

/// A token as it was shown.
#[derive(Debug)]
pub(super) struct Shown<'a> {
    pub(super) text: &'a str,
    pub(super) kind: TokenKind,
    pub(super) header: Header,
    pub(super) claims: Claims,
}

impl<'a> Shown<'a> {
    /// Reads what a token says of itself; `None` when it is too long to be one.
    pub(super) fn read(text: &'a str) -> Option<Self> {
        if BYTES_MAX < text.len() {
            return None;
        }
        let mut parts = text.split('.');
        let (header, claims) = (parts.next(), parts.next());
        let whole = parts.next().is_some() && parts.next().is_none();
        let header = header.filter(|_| whole).and_then(json::<Header>);
        let Some(header) = header else {
            return Some(Self {
                text,
                kind: TokenKind::Opaque,
                header: Header::default(),
                claims: Claims::default(),
            });
        };
        let claims: Claims = claims.and_then(json).unwrap_or_default();
        let for_users = matches!(&claims.aud, Some(Words::One(word)) if word == AUDIENCE);
        let kind = match header.typ.as_deref() {
            Some(TYP_USER) => TokenKind::User,
            Some(TYP_LIMITED_USER) => TokenKind::LimitedUser,
            Some(TYP_PLUGIN) => TokenKind::Plugin,
            _ if for_users => TokenKind::User,
            _ => TokenKind::Signed,
        };
        Some(Self {
            text,
            kind,
            header,
            claims,
        })
    }
}

/// Times to the second, as in the peer, and ended at the last one.
pub(super) fn strict(algorithm: Algorithm) -> Validation {
    let mut rules = Validation::new(algorithm);
    rules.leeway = 0;
    rules.reject_tokens_expiring_in_less_than = 1;
    rules.validate_nbf = true;
    rules
}

fn json<T: DeserializeOwned>(part: &str) -> Option<T> {
    let bytes = URL_SAFE_NO_PAD.decode(part).ok()?;
    serde_json::from_slice(&bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;
    use serde_json::json;

    fn token(header: &Value, claims: &Value) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        format!("{}.{}.c2ln", part(header), part(claims))
    }

    fn kind(header: Value, claims: Value) -> TokenKind {
        Shown::read(&token(&header, &claims)).unwrap().kind
    }

    #[test]
    fn the_typ_says_what_a_token_is_and_without_one_the_audience() {
        let none = json!({});
        assert_eq!(
            kind(json!({"typ": TYP_USER}), none.clone()),
            TokenKind::User
        );
        let limited = json!({"typ": TYP_LIMITED_USER});
        assert_eq!(
            kind(limited, json!({"aud": "backstage"})),
            TokenKind::LimitedUser
        );
        assert_eq!(
            kind(json!({"typ": TYP_PLUGIN}), none.clone()),
            TokenKind::Plugin
        );
        assert_eq!(kind(json!({"typ": "JWT"}), none.clone()), TokenKind::Signed);
        assert_eq!(
            kind(json!({}), json!({"aud": "backstage"})),
            TokenKind::User
        );
        // As in the peer, a list is another audience.
        assert_eq!(
            kind(json!({}), json!({"aud": ["backstage"]})),
            TokenKind::Signed
        );
        for text in ["", "a.b", "a.b.c", "a.b.c.d", "e30.e30", "tdg_x"] {
            assert_eq!(Shown::read(text).unwrap().kind, TokenKind::Opaque, "{text}");
        }
    }

    #[test]
    fn a_token_that_is_too_long_is_not_read() {
        let long = token(
            &json!({"typ": TYP_USER}),
            &json!({"sub": "x".repeat(BYTES_MAX)}),
        );
        assert!(Shown::read(&long).is_none());
    }

    proptest! {
        #[test]
        fn nonsense_is_read_without_a_panic(text in ".{0,200}", bytes: Vec<u8>) {
            let _ = Shown::read(&text);
            let part = URL_SAFE_NO_PAD.encode(&bytes);
            let _ = Shown::read(&format!("{part}.{part}.{part}"));
        }
    }
}
