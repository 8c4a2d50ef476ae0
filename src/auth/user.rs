//! User tokens: who a person is, signed. The form is Backstage's (contract 8.2), the key ours.

use std::fmt;
use std::fs;
use std::fs::OpenOptions;
use std::io;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jsonwebtoken::Algorithm;
use jsonwebtoken::DecodingKey;
use jsonwebtoken::EncodingKey;
use jsonwebtoken::Header;
use serde::Deserialize;
use serde::Serialize;

use super::token::AUDIENCE;
use super::token::TYP_USER;
use super::token::strict;

/// Bytes of the key.
const KEY_BYTES: usize = 32;

#[derive(Debug, Serialize, Deserialize)]
struct Claims {
    sub: String,
    iat: u64,
    exp: u64,
    #[serde(default)]
    aud: Option<serde_json::Value>,
}

/// Signs and verifies user tokens (HMAC-SHA-256). Every process of an installation has the same.
#[derive(Clone)]
pub struct UserKey {
    sign: EncodingKey,
    verify: DecodingKey,
}

impl fmt::Debug for UserKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UserKey")
    }
}

impl UserKey {
    /// A key of these bytes; at least `KEY_BYTES` random ones make a good one.
    pub fn from_bytes(secret: &[u8]) -> Self {
        Self {
            sign: EncodingKey::from_secret(secret),
            verify: DecodingKey::from_secret(secret),
        }
    }

    /// The key in `<dir>/user.key`, drawn at the first start (mode 0600). Several processes may
    /// do this at once: one of them wins.
    ///
    /// # Errors
    /// When the file cannot be read or made, or holds something else; the error names it.
    pub fn open(dir: &Path) -> io::Result<Self> {
        let path = dir.join("user.key");
        let text = match fs::read_to_string(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                create(dir, &path).map_err(|error| naming(&path, &error))?;
                fs::read_to_string(&path)
            }
            other => other,
        }
        .map_err(|error| naming(&path, &error))?;
        match STANDARD.decode(text.trim()) {
            Ok(secret) if secret.len() >= KEY_BYTES => Ok(Self::from_bytes(&secret)),
            _ => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!(
                    "{} holds no key ({KEY_BYTES} bytes in base64); delete it to get a new one, which ends all sessions",
                    path.display()
                ),
            )),
        }
    }

    /// A user token for `reference` that ends after `ttl`.
    ///
    /// # Errors
    /// When the signature fails, which it does not with this kind of key.
    pub fn sign(&self, reference: &str, ttl: Duration) -> io::Result<String> {
        let now = seconds(SystemTime::now());
        let mut header = Header::new(Algorithm::HS256);
        header.typ = Some(TYP_USER.to_owned());
        let claims = Claims {
            sub: reference.to_owned(),
            iat: now,
            exp: now.saturating_add(ttl.as_secs()),
            aud: Some(AUDIENCE.into()),
        };
        jsonwebtoken::encode(&header, &claims, &self.sign).map_err(io::Error::other)
    }

    /// Whose token this is; `None` when it was not signed by this key, or has ended.
    pub fn verify(&self, token: &str) -> Option<String> {
        let mut rules = strict(Algorithm::HS256);
        rules.set_required_spec_claims(&["exp", "sub"]);
        // As in the peer, issuer and audience say nothing for this `typ`; the key does.
        rules.validate_aud = false;
        let claims = jsonwebtoken::decode::<Claims>(token, &self.verify, &rules).ok()?;
        Some(claims.claims.sub).filter(|reference| !reference.is_empty())
    }
}

/// Makes the key file whole or not at all: written aside, then linked to its name, which fails
/// where another process was faster.
fn create(dir: &Path, path: &Path) -> io::Result<()> {
    let secret: [u8; KEY_BYTES] = rand::random();
    let aside = dir.join(format!(".user.key.{}", std::process::id()));
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&aside)?;
    writeln!(file, "{}", STANDARD.encode(secret))?;
    file.sync_all()?;
    let linked = fs::hard_link(&aside, path);
    fs::remove_file(&aside)?;
    match linked {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

fn naming(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

fn seconds(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn a_token_names_its_person_until_it_ends() {
        let key = UserKey::from_bytes(&[7; 32]);
        let token = key.sign("user:default/guest", HOUR).unwrap();
        assert_eq!(key.verify(&token).as_deref(), Some("user:default/guest"));
        assert_eq!(UserKey::from_bytes(&[8; 32]).verify(&token), None);
        let ended = key.sign("user:default/guest", Duration::ZERO).unwrap();
        assert_eq!(key.verify(&ended), None);
        assert_eq!(key.verify(&format!("{token}x")), None);
    }

    #[test]
    fn a_token_without_signature_is_refused() {
        use base64::engine::general_purpose::URL_SAFE_NO_PAD as URL64;
        let part = |value: serde_json::Value| URL64.encode(value.to_string());
        let claims = part(json!({"sub": "user:default/eve", "iat": 1, "exp": 99_999_999_999_u64}));
        for alg in ["none", "HS384", "ES256"] {
            let header = part(json!({"alg": alg, "typ": TYP_USER}));
            let token = format!("{header}.{claims}.");
            assert_eq!(UserKey::from_bytes(&[7; 32]).verify(&token), None, "{alg}");
        }
    }

    #[test]
    fn the_key_file_is_made_once_and_is_the_owners_alone() {
        let dir = tempfile::tempdir().unwrap();
        let first = UserKey::open(dir.path()).unwrap();
        let second = UserKey::open(dir.path()).unwrap();
        let token = first.sign("user:default/guest", HOUR).unwrap();
        assert!(second.verify(&token).is_some());
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = fs::metadata(dir.path().join("user.key")).unwrap();
            assert_eq!(mode.permissions().mode() & 0o777, 0o600);
        }
        fs::write(dir.path().join("user.key"), "short").unwrap();
        let error = UserKey::open(dir.path()).unwrap_err().to_string();
        assert!(error.contains("user.key"), "{error}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
