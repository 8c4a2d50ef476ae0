//! Signatures, as Standard Webhooks 1.0 has them: HMAC-SHA256 over `id.timestamp.body`.
//!
//! Source: <https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::Hmac;
use hmac::Mac as _;
use serde::Deserialize;
use serde::Deserializer;
use serde::de::Error as _;
use sha2::Sha256;

/// What a secret begins with.
const PREFIX: &str = "whsec_";
/// How long a secret may be, in bytes. Source: the specification.
const BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// A key to sign with. Never printed.
#[derive(Clone)]
pub struct Secret(Hmac<Sha256>);

impl Secret {
    /// Reads `whsec_` and base64.
    ///
    /// # Errors
    /// What is wrong with it, without it.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let encoded = text
            .trim()
            .strip_prefix(PREFIX)
            .ok_or("does not begin with `whsec_`")?;
        let key = STANDARD
            .decode(encoded)
            .map_err(|_| "is not base64 after `whsec_`")?;
        if !BYTES.contains(&key.len()) {
            return Err("is not of 24 to 64 bytes");
        }
        Hmac::new_from_slice(&key)
            .map(Self)
            .map_err(|_| "cannot be a key")
    }

    /// `v1,` and the signature of a message in base64.
    fn sign(&self, id: &str, timestamp: i64, body: &[u8]) -> String {
        let mut mac = self.0.clone();
        mac.update(format!("{id}.{timestamp}.").as_bytes());
        mac.update(body);
        format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
    }
}

/// The header `webhook-signature`: one signature for each secret, so that a receiver who knows one
/// of them is content while they are changed.
pub(super) fn signatures(secrets: &[Secret], id: &str, timestamp: i64, body: &[u8]) -> String {
    let all: Vec<String> = secrets
        .iter()
        .map(|secret| secret.sign(id, timestamp, body))
        .collect();
    all.join(" ")
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(****)")
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        Self::parse(&text).map_err(|why| {
            D::Error::custom(format!(
                "{why}\nmake one with: echo \"whsec_$(openssl rand -base64 32)\""
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the specification's own libraries.
    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const ID: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
    const BODY: &[u8] = br#"{"test": 2432232314}"#;

    #[test]
    fn the_example_of_the_specification_has_its_signature() {
        let secret = Secret::parse(SECRET).unwrap();
        assert_eq!(
            signatures(std::slice::from_ref(&secret), ID, 1_614_265_330, BODY),
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
        );
        let both = signatures(&[secret.clone(), secret], ID, 1_614_265_330, BODY);
        assert_eq!(both.split(' ').count(), 2);
    }

    #[test]
    fn a_secret_is_refused_without_being_told() {
        for (text, why) in [
            ("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_"),
            ("whsec_canary!", "base64"),
            ("whsec_Y2FuYXJ5", "24 to 64"),
        ] {
            let error = serde_json::from_value::<Secret>(text.into()).unwrap_err();
            let error = error.to_string();
            assert!(error.contains(why) && !error.contains("canary"), "{error}");
        }
        let secret = Secret::parse(SECRET).unwrap();
        assert_eq!(format!("{secret:?}"), "Secret(****)");
    }
}
