//! The public keys of an issuer: fetched when they are needed, kept, and fetched again when a
//! token names one that is not among them.
//!
//! Whoever waits for an answer waits for as long as it says and no longer; the fetch itself goes
//! on, so that the next caller finds the keys. Keys that were fetched once serve on while their
//! issuer is away. However many tokens name keys that are nowhere, the issuer is asked rarely.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::StatusCode;
use jsonwebtoken::Algorithm;
use jsonwebtoken::AlgorithmFamily;
use jsonwebtoken::DecodingKey;
use jsonwebtoken::jwk::AlgorithmParameters;
use jsonwebtoken::jwk::EllipticCurve;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::jwk::PublicKeyUse;
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::Instant;
use url::Url;

use crate::telemetry::metric;

/// Keys of this age are fetched again, while they serve on.
const AGING: Duration = Duration::from_secs(5 * 60);

/// Keys of this age are believed only if their issuer cannot be asked.
const OLD: Duration = Duration::from_secs(10 * 60);

/// Keys of this age are not believed any more: no token holds longer.
const DEAD: Duration = Duration::from_secs(24 * 3600);

/// The longest that a caller waits whose key is held already.
const PATIENCE_HELD: Duration = Duration::from_millis(400);

/// The longest that a fetch may take.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);

/// Most fetches for keys that are not there, in each [`FORCED_WINDOW`]. Source: the peer.
const FORCED_MAX: usize = 10;
const FORCED_WINDOW: Duration = Duration::from_secs(60);

/// After a fetch that failed nothing is fetched for so long; twice as long after each more.
const PAUSE_MIN: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// Most keys of one issuer, and the most bytes that they may take.
const KEYS_MAX: usize = 64;
const BYTES_MAX: usize = 256 << 10;

/// The shortest modulus of an RSA key, in bytes. Source: RFC 7518, 3.3.
const RSA_BYTES_MIN: usize = 256;

/// Why there is no key to verify a token with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NoKey {
    /// The issuer has none of this id.
    Unknown,
    /// The issuer has no keys at all: its address answers 404.
    NotFound,
    /// The issuer cannot be asked now.
    Unavailable(String),
}

/// A public key, and what it may verify.
pub(super) struct Key {
    kid: Option<String>,
    pub(super) public: DecodingKey,
    algorithms: Vec<Algorithm>,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({:?}, {:?})", self.kid, self.algorithms)
    }
}

impl Key {
    /// Reads a key; `None` for one that is no public key, or of a kind that is not known. What a
    /// key may verify is the key's to say, never the token's.
    fn of(jwk: &Value) -> Option<Self> {
        let jwk: Jwk = serde_json::from_value(jwk.clone()).ok()?;
        if matches!(&jwk.common.public_key_use, Some(one) if *one != PublicKeyUse::Signature) {
            return None;
        }
        let mut algorithms = match &jwk.algorithm {
            AlgorithmParameters::EllipticCurve(key) => match key.curve {
                EllipticCurve::P256 => vec![Algorithm::ES256],
                EllipticCurve::P384 => vec![Algorithm::ES384],
                _ => return None,
            },
            AlgorithmParameters::OctetKeyPair(key) => match key.curve {
                EllipticCurve::Ed25519 => vec![Algorithm::EdDSA],
                _ => return None,
            },
            AlgorithmParameters::RSA(key) => {
                let modulus = URL_SAFE_NO_PAD.decode(&key.n).ok()?;
                if modulus.len() < RSA_BYTES_MIN {
                    return None;
                }
                AlgorithmFamily::Rsa.algorithms().to_vec()
            }
            _ => return None,
        };
        if let Some(one) = jwk.common.key_algorithm {
            let one: Algorithm = one.to_string().parse().ok()?;
            algorithms.retain(|other| *other == one);
        }
        if algorithms.is_empty() {
            return None;
        }
        Some(Self {
            public: DecodingKey::from_jwk(&jwk).ok()?,
            kid: jwk.common.key_id,
            algorithms,
        })
    }

    /// Whether it is the one that a token names; a token that names none may mean any.
    fn fits(&self, kid: Option<&str>, algorithm: Algorithm) -> bool {
        self.algorithms.contains(&algorithm)
            && kid.is_none_or(|wanted| self.kid.as_deref() == Some(wanted))
    }
}

/// Whose keys they are, for metrics and logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whose {
    /// Of somebody who signs user tokens.
    Users,
    /// Of a Backstage plugin.
    Plugins,
    /// Of an entry of `backend.auth.externalAccess`.
    External,
}

impl Whose {
    const fn word(self) -> &'static str {
        match self {
            Self::Users => "users",
            Self::Plugins => "plugins",
            Self::External => "external",
        }
    }
}

/// One issuer and its keys.
#[derive(Debug)]
pub(super) struct Issuer {
    whose: Whose,
    url: Url,
    client: reqwest::Client,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    keys: Vec<Arc<Key>>,
    /// When they were fetched.
    loaded: Option<Instant>,
    /// A fetch under way: ends when it does.
    flight: Option<watch::Receiver<()>>,
    trouble: Option<Trouble>,
    /// When keys were fetched that were not there, oldest first.
    forced: VecDeque<Instant>,
}

/// Why the last fetch failed.
#[derive(Clone, Debug)]
struct Trouble {
    why: NoKey,
    at: Instant,
    /// How often in a row.
    times: u32,
}

impl Trouble {
    /// Whether it is too early to ask again.
    fn holds(&self) -> bool {
        let doubled = PAUSE_MIN * 2_u32.saturating_pow(self.times.saturating_sub(1).min(10));
        self.at.elapsed() < doubled.min(PAUSE_MAX)
    }
}

impl State {
    fn find(&self, kid: Option<&str>, algorithm: Algorithm) -> Vec<Arc<Key>> {
        if self.loaded.is_none_or(|at| DEAD <= at.elapsed()) {
            return Vec::new();
        }
        let fits = |key: &&Arc<Key>| key.fits(kid, algorithm);
        self.keys.iter().filter(fits).cloned().collect()
    }

    /// Whether keys that are not there may be fetched once more; counts it.
    fn may_force(&mut self) -> bool {
        while (self.forced.front()).is_some_and(|at| FORCED_WINDOW <= at.elapsed()) {
            self.forced.pop_front();
        }
        if FORCED_MAX <= self.forced.len() {
            return false;
        }
        self.forced.push_back(Instant::now());
        true
    }

    /// The fetch that is under way.
    fn under_way(&self) -> Option<watch::Receiver<()>> {
        let flight = self.flight.clone()?;
        // An end is told by the sender's end.
        flight.has_changed().is_ok().then_some(flight)
    }
}

impl Issuer {
    /// An issuer whose keys are at `url`; nothing is fetched yet.
    pub(super) fn new(whose: Whose, url: Url, client: reqwest::Client) -> Arc<Self> {
        Arc::new(Self {
            whose,
            url,
            client,
            state: Mutex::default(),
        })
    }

    /// The keys that may have signed a token, fetched if need be; waits at most `patience`.
    pub(super) async fn keys(
        self: &Arc<Self>,
        kid: Option<&str>,
        algorithm: Algorithm,
        patience: Duration,
    ) -> Result<Vec<Arc<Key>>, NoKey> {
        let (flight, patience) = {
            let mut state = self.state();
            let held = state.find(kid, algorithm);
            let age = state.loaded.map_or(DEAD, |at| at.elapsed());
            if !held.is_empty() && age < OLD {
                if AGING <= age {
                    self.fetch(&mut state, false);
                }
                return Ok(held);
            }
            let patience = if held.is_empty() {
                patience
            } else {
                patience.min(PATIENCE_HELD)
            };
            let forced = held.is_empty() && age < OLD;
            (self.fetch(&mut state, forced), patience)
        };
        if let Some(mut flight) = flight {
            // Completes when the fetch has ended, well or not.
            let _ = tokio::time::timeout(patience, flight.changed()).await;
        }
        let state = self.state();
        let found = state.find(kid, algorithm);
        if !found.is_empty() {
            return Ok(found);
        }
        match &state.trouble {
            Some(trouble) => Err(trouble.why.clone()),
            None if state.loaded.is_some() => Err(NoKey::Unknown),
            None => Err(NoKey::Unavailable("it has not answered yet".to_owned())),
        }
    }

    /// Fetches the keys if none are held; says what is wrong if there are none then.
    pub(super) async fn prepare(self: &Arc<Self>) -> Result<(), String> {
        let flight = {
            let mut state = self.state();
            if state.loaded.is_some_and(|at| at.elapsed() < DEAD) {
                return Ok(());
            }
            self.fetch(&mut state, false)
        };
        if let Some(mut flight) = flight {
            let _ = flight.changed().await;
        }
        let state = self.state();
        match &state.trouble {
            Some(trouble) => Err(match &trouble.why {
                NoKey::NotFound => format!("{}: it answers 404", shown(&self.url)),
                NoKey::Unavailable(why) => format!("{}: {why}", shown(&self.url)),
                NoKey::Unknown => shown(&self.url),
            }),
            None => Ok(()),
        }
    }

    /// Whether keys were ever fetched.
    pub(super) fn is_proven(&self) -> bool {
        self.state().loaded.is_some()
    }

    /// Begins a fetch, or joins the one under way; `None` when it is not time for one.
    fn fetch(self: &Arc<Self>, state: &mut State, forced: bool) -> Option<watch::Receiver<()>> {
        if let Some(flight) = state.under_way() {
            return Some(flight);
        }
        if state.trouble.as_ref().is_some_and(Trouble::holds) || (forced && !state.may_force()) {
            return None;
        }
        let (end, flight) = watch::channel(());
        state.flight = Some(flight.clone());
        let issuer = Arc::clone(self);
        tokio::spawn(async move {
            let fetched = tokio::time::timeout(FETCH_TIMEOUT, issuer.ask()).await;
            issuer.landed(fetched.unwrap_or_else(|_| Err(unavailable("it took too long"))));
            drop(end);
        });
        Some(flight)
    }

    fn landed(&self, fetched: Result<Vec<Arc<Key>>, NoKey>) {
        let outcome = if fetched.is_ok() { "ok" } else { "failed" };
        metrics::counter!(metric::KEY_FETCHES, "issuer" => self.whose.word(), "outcome" => outcome)
            .increment(1);
        let mut state = self.state();
        match fetched {
            Ok(keys) => {
                tracing::debug!(url = shown(&self.url), keys = keys.len(), "keys fetched");
                state.keys = keys;
                state.loaded = Some(Instant::now());
                state.trouble = None;
            }
            Err(why) => {
                let times = state.trouble.as_ref().map_or(0, |trouble| trouble.times);
                tracing::warn!(
                    url = shown(&self.url),
                    issuer = self.whose.word(),
                    ?why,
                    held = state.keys.len(),
                    "keys were not fetched"
                );
                state.trouble = Some(Trouble {
                    why,
                    at: Instant::now(),
                    times: times.saturating_add(1),
                });
            }
        }
    }

    async fn ask(&self) -> Result<Vec<Arc<Key>>, NoKey> {
        let failed = |error: reqwest::Error| {
            unavailable(if error.is_connect() {
                "no connection"
            } else if error.is_timeout() {
                "it took too long"
            } else {
                "the connection broke"
            })
        };
        let request = self.client.get(self.url.clone());
        let mut answer = request.send().await.map_err(failed)?;
        match answer.status() {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => return Err(NoKey::NotFound),
            other => return Err(NoKey::Unavailable(format!("it answers {}", other.as_u16()))),
        }
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(failed)? {
            if BYTES_MAX < body.len() + chunk.len() {
                return Err(unavailable("it answers more than keys would take"));
            }
            body.extend_from_slice(&chunk);
        }
        read(&body).ok_or_else(|| unavailable("it answers something else than keys"))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The usable keys of a JSON Web Key Set.
fn read(body: &[u8]) -> Option<Vec<Arc<Key>>> {
    #[derive(Deserialize)]
    struct Set {
        keys: Vec<Value>,
    }
    let set: Set = serde_json::from_slice(body).ok()?;
    let usable = set.keys.iter().filter_map(Key::of).take(KEYS_MAX);
    Some(usable.map(Arc::new).collect())
}

fn unavailable(why: &str) -> NoKey {
    NoKey::Unavailable(why.to_owned())
}

/// An address without what may be secret in it.
fn shown(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    // These fail only for addresses that cannot have them.
    let _ = url.set_password(None);
    let _ = url.set_username("");
    url.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn algorithms(jwk: Value) -> Vec<Algorithm> {
        Key::of(&jwk).map(|key| key.algorithms).unwrap_or_default()
    }

    #[test]
    fn what_a_key_may_verify_is_the_keys_to_say() {
        let x = URL_SAFE_NO_PAD.encode([1; 32]);
        let ec = json!({"kty": "EC", "crv": "P-256", "x": x, "y": x});
        assert_eq!(algorithms(ec.clone()), [Algorithm::ES256]);
        let with = |key: &str, value: &str| {
            let mut jwk = ec.clone();
            jwk[key] = value.into();
            algorithms(jwk)
        };
        assert_eq!(with("alg", "ES256"), [Algorithm::ES256]);
        assert_eq!(with("use", "sig"), [Algorithm::ES256]);
        for (key, value) in [
            ("use", "enc"),
            ("alg", "HS256"),
            ("alg", "none"),
            ("crv", "P-521"),
        ] {
            assert_eq!(with(key, value), [], "{key} {value}");
        }
        let secret = json!({"kty": "oct", "k": x, "alg": "HS256"});
        assert_eq!(algorithms(secret), []);
        let short = URL_SAFE_NO_PAD.encode([255; 128]);
        assert_eq!(
            algorithms(json!({"kty": "RSA", "n": short, "e": "AQAB"})),
            []
        );
        let long = URL_SAFE_NO_PAD.encode([255; 256]);
        let rsa = algorithms(json!({"kty": "RSA", "n": long, "e": "AQAB", "alg": "RS256"}));
        assert_eq!(rsa, [Algorithm::RS256]);
    }

    #[test]
    fn an_address_is_shown_without_its_secrets() {
        let url = "https://u:canary@idp.example.com/keys?token=canary";
        assert_eq!(shown(&url.parse().unwrap()), "https://idp.example.com/keys");
    }

    proptest! {
        #[test]
        fn nonsense_is_no_key_and_no_panic(body: Vec<u8>, x in "[A-Za-z0-9_-]{0,90}") {
            let _ = read(&body);
            for kty in ["EC", "RSA", "OKP", "oct"] {
                let jwk = json!({"kty": kty, "crv": "P-256", "x": x, "y": x, "n": x, "e": x, "k": x});
                let _ = read(json!({"keys": [jwk]}).to_string().as_bytes());
            }
        }
    }
}
