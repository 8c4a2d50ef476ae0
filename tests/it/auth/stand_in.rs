//! A Backstage as far as tokens go: its auth plugin, its other plugins, each with keys of its own,
//! and a count of who was asked.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use axum::Json;
use axum::Router;
use axum::extract::Path;
use axum::extract::State;
use axum::response::IntoResponse;
use axum::response::Response;
use axum::routing::get;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderMap;
use http::StatusCode;
use jsonwebtoken::Algorithm;
use jsonwebtoken::EncodingKey;
use jsonwebtoken::jwk::Jwk;
use serde_json::Value;
use serde_json::json;
use tidings::backstage::Discovery;
use tidings::config::BackstageSettings;
use tidings::time::Timestamp;
use url::Url;

use crate::http::Served;

pub(crate) const USER: &str = "vnd.backstage.user";
pub(crate) const LIMITED: &str = "vnd.backstage.limited-user";
pub(crate) const PLUGIN: &str = "vnd.backstage.plugin";

/// A key pair of an issuer.
#[derive(Clone)]
pub(crate) struct Pair {
    pub(crate) kid: String,
    pub(crate) algorithm: Algorithm,
    private: EncodingKey,
    pub(crate) public: Value,
}

impl Pair {
    /// As auth-backend makes them.
    pub(crate) fn es256(kid: &str) -> Self {
        let pair = rcgen::KeyPair::generate().unwrap();
        let private = EncodingKey::from_ec_der(&pair.serialize_der());
        let public =
            serde_json::to_value(Jwk::from_encoding_key(&private, Algorithm::ES256).unwrap());
        Self::new(kid, Algorithm::ES256, private, public.unwrap())
    }

    pub(crate) fn rs256(kid: &str) -> Self {
        let private = EncodingKey::from_rsa_der(include_bytes!("rsa-for-tests.der"));
        let public =
            serde_json::to_value(Jwk::from_encoding_key(&private, Algorithm::RS256).unwrap());
        Self::new(kid, Algorithm::RS256, private, public.unwrap())
    }

    pub(crate) fn ed25519(kid: &str) -> Self {
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let public = json!({"kty": "OKP", "crv": "Ed25519",
            "x": URL_SAFE_NO_PAD.encode(pair.public_key_raw())});
        let private = EncodingKey::from_ed_der(&pair.serialize_der());
        Self::new(kid, Algorithm::EdDSA, private, public)
    }

    fn new(kid: &str, algorithm: Algorithm, private: EncodingKey, mut public: Value) -> Self {
        public["kid"] = kid.into();
        public["use"] = "sig".into();
        Self {
            kid: kid.to_owned(),
            algorithm,
            private,
            public,
        }
    }

    /// Signs; a `typ` of nothing leaves it out.
    pub(crate) fn sign(&self, typ: &str, claims: &Value) -> String {
        let mut header = jsonwebtoken::Header::new(self.algorithm);
        header.typ = Some(typ.to_owned()).filter(|typ| !typ.is_empty());
        header.kid = Some(self.kid.clone());
        jsonwebtoken::encode(&header, claims, &self.private).unwrap()
    }

    /// A user token as auth-backend makes it: `uip` is the signature of the limited one.
    pub(crate) fn user_token(&self, reference: &str, more: &Value) -> String {
        let (iat, exp) = (now(), now() + 3600);
        let limited = self.limited_of(reference, iat, exp);
        let mut claims = json!({"iss": "https://elsewhere.example.com", "sub": reference,
            "aud": "backstage", "iat": iat, "exp": exp,
            "uip": limited.rsplit('.').next().unwrap()});
        for (name, value) in more.as_object().unwrap() {
            claims[name] = value.clone();
        }
        self.sign(USER, &claims)
    }

    fn limited_of(&self, reference: &str, iat: i64, exp: i64) -> String {
        let header = format!(
            r#"{{"typ":"{LIMITED}","alg":"ES256","kid":"{}"}}"#,
            self.kid
        );
        let claims = format!(r#"{{"sub":"{reference}","iat":{iat},"exp":{exp}}}"#);
        let message = format!(
            "{}.{}",
            URL_SAFE_NO_PAD.encode(header),
            URL_SAFE_NO_PAD.encode(claims)
        );
        let signature =
            jsonwebtoken::crypto::sign(message.as_bytes(), &self.private, self.algorithm).unwrap();
        format!("{message}.{signature}")
    }

    /// A plugin's token for `audience`.
    pub(crate) fn plugin_token(&self, plugin: &str, audience: &str, obo: Option<&str>) -> String {
        let mut claims = json!({"sub": plugin, "aud": audience, "iat": now(), "exp": now() + 600});
        if let Some(limited) = obo {
            claims["obo"] = limited.into();
        }
        self.sign(PLUGIN, &claims)
    }
}

/// The limited token within a full one, rebuilt from its parts as Backstage's plugins do.
pub(crate) fn limited(full: &str) -> String {
    let mut parts = full.split('.').map(|part| {
        let bytes = URL_SAFE_NO_PAD.decode(part).unwrap_or_default();
        serde_json::from_slice::<Value>(&bytes).unwrap_or_default()
    });
    let (header, claims) = (parts.next().unwrap(), parts.next().unwrap());
    let header = format!(
        r#"{{"typ":"{LIMITED}","alg":{},"kid":{}}}"#,
        header["alg"], header["kid"]
    );
    let body = format!(
        r#"{{"sub":{},"iat":{},"exp":{}}}"#,
        claims["sub"], claims["iat"], claims["exp"]
    );
    format!(
        "{}.{}.{}",
        URL_SAFE_NO_PAD.encode(header),
        URL_SAFE_NO_PAD.encode(body),
        claims["uip"].as_str().unwrap()
    )
}

/// Seconds since 1970.
pub(crate) fn now() -> i64 {
    Timestamp::now().as_millis() / 1000
}

#[derive(Default)]
struct Wall {
    keys: HashMap<String, Vec<Value>>,
    asked: HashMap<String, usize>,
    groups: Vec<String>,
    /// The token of whoever called one of its plugins last.
    shown: Option<String>,
    /// It answers 500 to everything.
    broken: bool,
    /// It answers nothing at all.
    silent: bool,
}

type Shared = Arc<Mutex<Wall>>;

/// It runs until it is dropped.
pub(crate) struct StandIn {
    pub(crate) served: Served,
    wall: Shared,
}

impl StandIn {
    pub(crate) async fn start() -> Self {
        let wall = Shared::default();
        let routes = Router::new()
            .route("/api/auth/.well-known/jwks.json", get(user_keys))
            .route("/api/auth/v1/userinfo", get(userinfo))
            .route(
                "/api/{plugin}/.backstage/auth/v1/jwks.json",
                get(plugin_keys),
            )
            .fallback(plugin)
            .with_state(Arc::clone(&wall));
        Self {
            served: Served::start(routes).await,
            wall,
        }
    }

    /// Where the keys of user tokens are.
    pub(crate) fn user_keys(&self) -> Url {
        self.served
            .url("/api/auth/.well-known/jwks.json")
            .parse()
            .unwrap()
    }

    /// As discovery finds plugins.
    pub(crate) fn discovery(&self) -> Discovery {
        Discovery::new(&BackstageSettings {
            base_url: Some(self.served.url("").parse().unwrap()),
            endpoints: Vec::new(),
            token: None,
        })
    }

    /// `whose` (a plugin) shows these keys from now on.
    pub(crate) fn show(&self, whose: &str, pairs: &[&Pair]) {
        let keys = pairs.iter().map(|pair| pair.public.clone()).collect();
        self.show_raw(whose, keys);
    }

    pub(crate) fn show_raw(&self, whose: &str, keys: Vec<Value>) {
        self.wall
            .lock()
            .unwrap()
            .keys
            .insert(whose.to_owned(), keys);
    }

    /// How often `whose` keys, or `userinfo`, were asked for.
    pub(crate) fn asked(&self, whose: &str) -> usize {
        let wall = self.wall.lock().unwrap();
        wall.asked.get(whose).copied().unwrap_or(0)
    }

    /// How often anything was asked for.
    pub(crate) fn asked_in_all(&self) -> usize {
        self.wall.lock().unwrap().asked.values().sum()
    }

    /// The token with which somebody called one of its plugins; waits for the first.
    pub(crate) async fn shown(&self) -> String {
        loop {
            let shown = self.wall.lock().unwrap().shown.clone();
            match shown {
                Some(token) => return token,
                None => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }

    pub(crate) fn groups(&self, groups: &[&str]) {
        let groups = groups.iter().map(|one| (*one).to_owned()).collect();
        self.wall.lock().unwrap().groups = groups;
    }

    pub(crate) fn break_down(&self, broken: bool) {
        self.wall.lock().unwrap().broken = broken;
    }

    pub(crate) fn fall_silent(&self) {
        self.wall.lock().unwrap().silent = true;
    }
}

async fn asked(wall: &Shared, whose: &str) -> Option<Response> {
    let (broken, silent) = {
        let mut wall = wall.lock().unwrap();
        *wall.asked.entry(whose.to_owned()).or_default() += 1;
        (wall.broken, wall.silent)
    };
    if silent {
        tokio::time::sleep(Duration::from_secs(3600)).await;
    }
    broken.then(|| StatusCode::INTERNAL_SERVER_ERROR.into_response())
}

async fn keys(wall: &Shared, whose: &str) -> Response {
    if let Some(trouble) = asked(wall, whose).await {
        return trouble;
    }
    match wall.lock().unwrap().keys.get(whose) {
        Some(keys) => Json(json!({"keys": keys})).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn user_keys(State(wall): State<Shared>) -> Response {
    keys(&wall, "auth").await
}

async fn plugin_keys(State(wall): State<Shared>, Path(plugin): Path<String>) -> Response {
    keys(&wall, &plugin).await
}

/// Any route of a plugin: it knows nothing, and remembers who asked.
async fn plugin(State(wall): State<Shared>, headers: HeaderMap) -> Response {
    let token = headers
        .get("authorization")
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.strip_prefix("Bearer "));
    if let Some(token) = token {
        wall.lock().unwrap().shown = Some(token.to_owned());
    }
    Json(json!({"items": []})).into_response()
}

async fn userinfo(State(wall): State<Shared>, headers: HeaderMap) -> Response {
    if let Some(trouble) = asked(&wall, "userinfo").await {
        return trouble;
    }
    if !headers.contains_key("authorization") {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let groups = wall.lock().unwrap().groups.clone();
    Json(json!({"claims": {"sub": "user:default/ann", "ent": groups}})).into_response()
}
