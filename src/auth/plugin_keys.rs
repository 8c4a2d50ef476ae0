//! How Tidings signs in at the plugins of a Backstage, without a shared secret (contract 8.4): by
//! tokens that it signs, and by public keys that it shows.
//!
//! Each process makes a key of its own, when it first needs one. The private half never leaves its
//! memory; the public half lies in the store, so that whichever process is asked shows the keys of
//! all of them. A key signs only once its public half is there, and every token ends before that
//! does: a token that nobody can verify is never given out. While the store is away, the tokens
//! that were made serve on until they end, more are made for as long as the public half holds, and
//! the last copy of the keys is shown.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;

use async_trait::async_trait;
use jsonwebtoken::Algorithm;
use jsonwebtoken::EncodingKey;
use jsonwebtoken::Header;
use jsonwebtoken::jwk::Jwk;
use ring::rand::SystemRandom;
use ring::signature::ECDSA_P256_SHA256_FIXED_SIGNING;
use ring::signature::EcdsaKeyPair;
use serde::Serialize;
use serde_json::Value;
use serde_json::json;
use tokio::sync::Notify;
use tokio::sync::watch;
use tokio::time::Instant;
use uuid::Uuid;

use super::Plugin;
use super::token::TYP_PLUGIN;
use crate::backstage::PluginTokens;
use crate::failure::Failure;
use crate::failure::Reason;
use crate::store::PluginKey;
use crate::store::Store;
use crate::time::Timestamp;

/// How long a token holds. Source: the peer, which takes no longer ones.
const TOKEN_TTL: Duration = Duration::from_secs(3600);

/// A token is made anew when it holds no longer than this.
const TOKEN_FRESH: Duration = Duration::from_secs(10 * 60);

/// A token that holds no longer than this is not given out.
const TOKEN_LEFT_MIN: Duration = Duration::from_secs(30);

/// How long a public half holds after it was last kept. A process that ends leaves it for that
/// long; a store that is away for that long ends the signing.
const KEY_TTL: Duration = Duration::from_secs(6 * 3600);

/// How often it is kept again.
const KEEP_EVERY: Duration = Duration::from_secs(3600);

/// How long a key signs.
const KEY_AGE_MAX: Duration = Duration::from_secs(24 * 3600);

/// Between two tries to keep a key.
const TRY_EVERY: Duration = Duration::from_secs(1);
/// Between two tries while another that holds is kept.
const TRY_EVERY_HELD: Duration = Duration::from_secs(60);

/// How long whoever needs a token waits for the first key.
const PATIENCE: Duration = Duration::from_secs(5);

/// How old the copy of the keys may be that is shown.
const SHOWN_FOR: Duration = Duration::from_secs(2);

/// How long a new key waits before it signs, where other processes show it too: longer than their
/// copies are old.
pub const SETTLE: Duration = Duration::from_secs(3);

/// How long the store may take to answer before the last copy is shown.
const STORE_TIMEOUT: Duration = Duration::from_secs(2);

/// Most keys that are shown.
const SHOWN_MAX: u32 = 1000;

/// The keys of this process, and its view of everybody's. Clones share everything.
#[derive(Clone)]
pub struct PluginKeys {
    shared: Arc<Shared>,
    /// Who the tokens say that we are.
    speaking: Plugin,
}

struct Shared {
    store: Arc<dyn Store>,
    /// Somebody needs a token.
    wanted: Notify,
    /// The key that signs, or why there is none; absent until one was tried to make.
    signing: watch::Sender<Option<Result<Arc<Pair>, String>>>,
    tokens: Mutex<HashMap<(&'static str, String), Made>>,
    shown: tokio::sync::Mutex<Shown>,
    /// Those of our own whose public half is kept.
    own: Mutex<Vec<PluginKey>>,
}

/// A key pair.
struct Pair {
    private: EncodingKey,
    public: PluginKey,
    made: Timestamp,
}

/// A token that was made.
#[derive(Clone)]
struct Made {
    token: String,
    ends: Timestamp,
}

/// The copy of the keys.
#[derive(Default)]
struct Shown {
    keys: Option<Vec<PluginKey>>,
    at: Option<Instant>,
}

#[derive(Serialize)]
struct Claims<'a> {
    sub: &'a str,
    aud: &'a str,
    iat: i64,
    exp: i64,
}

impl fmt::Debug for PluginKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PluginKeys({})", self.speaking.id())
    }
}

impl Pair {
    fn make(now: Timestamp) -> Result<Self, String> {
        let unmade = |_| "no key could be made: the system gives no random numbers".to_owned();
        let random = SystemRandom::new();
        let pair = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random)
            .map_err(unmade)?;
        let private = EncodingKey::from_ec_der(pair.as_ref());
        let mut jwk = Jwk::from_encoding_key(&private, Algorithm::ES256)
            .and_then(|jwk| Ok(serde_json::to_value(jwk)?))
            .map_err(|error| format!("no key could be made: {error}"))?;
        let kid = Uuid::new_v4().to_string();
        jwk["kid"] = kid.as_str().into();
        jwk["use"] = "sig".into();
        let public = PluginKey {
            kid,
            jwk,
            ends: now.plus(KEY_TTL),
        };
        Ok(Self {
            private,
            public,
            made: now,
        })
    }

    /// The same, held until later.
    fn renewed(&self, now: Timestamp) -> Self {
        Self {
            private: self.private.clone(),
            public: PluginKey {
                ends: now.plus(KEY_TTL),
                ..self.public.clone()
            },
            made: self.made,
        }
    }
}

impl PluginKeys {
    /// Keys that are kept in this store, for tokens of the plugin `notifications`. Nothing is made
    /// until [`PluginKeys::run`] runs and somebody needs a token.
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self {
            shared: Arc::new(Shared {
                store,
                wanted: Notify::new(),
                signing: watch::Sender::new(None),
                tokens: Mutex::default(),
                shown: tokio::sync::Mutex::default(),
                own: Mutex::default(),
            }),
            speaking: Plugin::Notifications,
        }
    }

    /// The same keys, for tokens of another of our plugins.
    #[must_use]
    pub fn speaking_as(&self, plugin: Plugin) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            speaking: plugin,
        }
    }

    /// Makes the key when it is needed, keeps its public half, and makes another every day. A key
    /// signs `settle` after its public half was kept: until then others may show an older copy.
    pub async fn run(self, settle: Duration) {
        self.shared.wanted.notified().await;
        let mut held: Option<Arc<Pair>> = None;
        loop {
            let now = Timestamp::now();
            let next = match &held {
                Some(pair) if now.since(pair.made) < KEY_AGE_MAX => Ok(pair.renewed(now)),
                _ => Pair::make(now),
            };
            let kept = match next {
                Ok(pair) => self.keep(pair, held.as_deref(), settle).await,
                Err(why) => Err(why),
            };
            let pause = match kept {
                Ok(pair) => {
                    self.shared
                        .signing
                        .send_replace(Some(Ok(Arc::clone(&pair))));
                    held = Some(pair);
                    KEEP_EVERY
                }
                Err(why) => {
                    // Said once: `/readyz` says for how long the store is away.
                    let known = self.shared.signing.borrow().clone();
                    if !matches!(known, Some(Err(before)) if before == why) {
                        tracing::warn!(why, "the key to sign in at Backstage with was not kept");
                    }
                    if held.is_some() {
                        TRY_EVERY_HELD
                    } else {
                        self.shared.signing.send_replace(Some(Err(why)));
                        TRY_EVERY
                    }
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    /// Keeps the public half of a key; returns once everybody shows it.
    async fn keep(
        &self,
        pair: Pair,
        held: Option<&Pair>,
        settle: Duration,
    ) -> Result<Arc<Pair>, String> {
        let keeping = self.shared.store.add_plugin_key(&pair.public).await;
        keeping.map_err(|error| error.to_string())?;
        {
            let mut own = self.own();
            own.retain(|one| one.kid != pair.public.kid && Timestamp::now() < one.ends);
            own.push(pair.public.clone());
        }
        if held.is_none_or(|held| held.public.kid != pair.public.kid) {
            tracing::info!(
                kid = pair.public.kid,
                "a new key to sign in at Backstage with"
            );
            tokio::time::sleep(settle).await;
        }
        Ok(Arc::new(pair))
    }

    /// The public keys of every process whose tokens may still hold, as a JSON Web Key Set.
    ///
    /// # Errors
    /// When the store could not be asked since the start.
    pub async fn public(&self) -> Result<Value, Failure> {
        let now = Timestamp::now();
        let mut shown = self.shared.shown.lock().await;
        if shown.at.is_none_or(|at| SHOWN_FOR <= at.elapsed()) {
            let asking = self.shared.store.plugin_keys(SHOWN_MAX);
            match tokio::time::timeout(STORE_TIMEOUT, asking).await {
                Ok(Ok(keys)) => shown.keys = Some(keys),
                Ok(Err(error)) => tracing::debug!(%error, "the last copy of our keys is shown"),
                Err(_) => tracing::debug!("the last copy of our keys is shown"),
            }
            shown.at = Some(Instant::now());
        }
        let own = self.own().clone();
        let Some(kept) = shown.keys.as_ref() else {
            let detail = "the store, where our public keys are, cannot be reached";
            return Err(Failure::dependency(Reason::Network, detail));
        };
        let mut keys: Vec<&Value> = Vec::new();
        for key in own.iter().chain(kept).filter(|key| now < key.ends) {
            if !keys.iter().any(|other| other["kid"] == key.jwk["kid"]) {
                keys.push(&key.jwk);
            }
        }
        Ok(json!({"keys": keys}))
    }

    /// The key that signs now; waits a little for the first one.
    async fn pair(&self) -> Result<Arc<Pair>, Failure> {
        let mut signing = self.shared.signing.subscribe();
        if signing.borrow().is_none() {
            self.shared.wanted.notify_one();
            let tried = signing.wait_for(Option::is_some);
            // What did not come is told below.
            let _ = tokio::time::timeout(PATIENCE, tried).await;
        }
        let now = signing.borrow().clone();
        let now = now.unwrap_or_else(|| Err("it is being made".to_owned()));
        now.map_err(|why| {
            let detail = format!("no key to sign in at Backstage with: {why}");
            Failure::dependency(Reason::Auth, detail)
        })
    }

    async fn make(&self, audience: &str, now: Timestamp) -> Result<Made, Failure> {
        let pair = self.pair().await?;
        let ends = now.plus(TOKEN_TTL).min(pair.public.ends);
        if ends <= now.plus(TOKEN_LEFT_MIN) {
            let detail = "the key to sign in at Backstage with has ended; it is kept again when \
                the store is back";
            return Err(Failure::dependency(Reason::Auth, detail));
        }
        let mut header = Header::new(Algorithm::ES256);
        header.typ = Some(TYP_PLUGIN.to_owned());
        header.kid = Some(pair.public.kid.clone());
        let claims = Claims {
            sub: self.speaking.id(),
            aud: audience,
            iat: now.as_millis() / 1000,
            exp: ends.as_millis() / 1000,
        };
        let token = jsonwebtoken::encode(&header, &claims, &pair.private)
            .map_err(|error| Failure::permanent(Reason::Internal, error.to_string()))?;
        Ok(Made { token, ends })
    }

    fn own(&self) -> MutexGuard<'_, Vec<PluginKey>> {
        self.shared
            .own
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn tokens(&self) -> MutexGuard<'_, HashMap<(&'static str, String), Made>> {
        self.shared
            .tokens
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl PluginTokens for PluginKeys {
    async fn token(&self, audience: &str) -> Result<String, Failure> {
        let now = Timestamp::now();
        let name = (self.speaking.id(), audience.to_owned());
        let held = self.tokens().get(&name).cloned();
        if let Some(made) = &held
            && now.plus(TOKEN_FRESH) < made.ends
        {
            return Ok(made.token.clone());
        }
        match (self.make(audience, now).await, held) {
            (Ok(made), _) => {
                let token = made.token.clone();
                self.tokens().insert(name, made);
                Ok(token)
            }
            (Err(_), Some(made)) if now.plus(TOKEN_LEFT_MIN) < made.ends => Ok(made.token),
            (Err(failure), _) => Err(failure),
        }
    }
}
