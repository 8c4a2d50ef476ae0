//! Who may come in with a token that somebody else signed, against stand-ins that count who was
//! asked for keys.

mod handshake;
mod keys;
mod own_keys;
mod stand_in;

use jsonwebtoken::EncodingKey;
use jsonwebtoken::Header;
use serde_json::Value;
use serde_json::json;
use tidings::auth::Auth;
use tidings::auth::AuthError;
use tidings::auth::Plugin;
use tidings::auth::Principal;
use tidings::auth::Scopes;
use tidings::auth::Trust;
use tidings::auth::UserKey;
use tidings::config::AccessMeans;
use tidings::config::ExternalAccess;
use tidings::config::JwksAccess;

use self::stand_in::Pair;
use self::stand_in::StandIn;
use self::stand_in::USER;
use self::stand_in::limited;
use self::stand_in::now;

const ANN: &str = "user:default/ann";
const OURS: Plugin = Plugin::Notifications;

/// Believes the stand-in's auth plugin and its other plugins.
fn trust(stand_in: &StandIn) -> Trust {
    Trust {
        client: Some(tidings::client::builder().build().unwrap()),
        discovery: Some(stand_in.discovery()),
        backstage_users: true,
        ..Trust::default()
    }
}

fn auth(stand_in: &StandIn) -> Auth {
    Auth::trusting(Vec::new(), None, &trust(stand_in))
}

fn ann() -> Result<Principal, AuthError> {
    Ok(Principal::User {
        reference: ANN.to_owned(),
    })
}

fn service(subject: &str) -> Result<Principal, AuthError> {
    Ok(Principal::Service {
        subject: subject.to_owned(),
        scopes: Scopes::SEND,
        token: None,
    })
}

/// Why a token was refused.
async fn refusal(auth: &Auth, token: &str) -> String {
    let refused = auth.authenticate_token(token, OURS).await.unwrap_err();
    assert!(!refused.is_forbidden());
    refused.to_string()
}

// -- people

#[tokio::test]
async fn a_user_token_is_believed_for_its_key_in_every_algorithm_that_there_is() {
    let stand_in = StandIn::start().await;
    let pairs = [Pair::es256("a"), Pair::rs256("b"), Pair::ed25519("c")];
    stand_in.show("auth", &pairs.each_ref());
    let auth = auth(&stand_in);
    for pair in &pairs {
        let token = pair.user_token(ANN, &json!({}));
        assert_eq!(
            auth.authenticate_token(&token, OURS).await,
            ann(),
            "{}",
            pair.kid
        );
        // One without a `typ` is known by its audience.
        let claims = json!({"sub": ANN, "aud": "backstage", "iat": now(), "exp": now() + 60});
        let old = pair.sign("", &claims);
        assert_eq!(auth.authenticate_token(&old, Plugin::Signals).await, ann());
    }
    assert_eq!(stand_in.asked("auth"), 1);
}

#[tokio::test]
async fn a_user_token_is_refused_for_what_is_wrong_with_it() {
    let stand_in = StandIn::start().await;
    let (pair, other) = (Pair::es256("a"), Pair::es256("a"));
    stand_in.show("auth", &[&pair]);
    let auth = auth(&stand_in);
    let whole = json!({"sub": ANN, "iat": now() - 60, "exp": now() + 60});
    let with = |name: &str, value: Value| {
        let mut claims = whole.clone();
        claims[name] = value;
        claims
    };
    for (claims, why) in [
        (with("exp", json!(now())), "a token that has ended"),
        (with("exp", Value::Null), "a missing claim"),
        (with("iat", Value::Null), "a missing claim"),
        (with("sub", Value::Null), "a missing claim"),
        (with("sub", json!("")), "a subject that is nobody"),
        (
            with("nbf", json!(now() + 60)),
            "a token that does not hold yet",
        ),
    ] {
        let said = refusal(&auth, &pair.sign(USER, &claims)).await;
        assert!(
            said.starts_with("Failed user token verification; caused by "),
            "{said}"
        );
        assert!(said.contains(why), "{said}");
    }
    let said = refusal(&auth, &other.sign(USER, &whole)).await;
    assert!(said.contains("a wrong signature"), "{said}");
    let token = pair.user_token(ANN, &json!({}));
    assert_eq!(
        refusal(&auth, &limited(&token)).await,
        "Illegal limited user token"
    );
    let long = pair.user_token(ANN, &json!({"ent": ["x".repeat(20_000)]}));
    assert_eq!(refusal(&auth, &long).await, "Illegal token");
}

#[tokio::test]
async fn a_public_key_is_no_shared_secret_and_no_signature_is_none() {
    let stand_in = StandIn::start().await;
    let pair = Pair::rs256("a");
    stand_in.show("auth", &[&pair]);
    let auth = auth(&stand_in);
    let claims = json!({"sub": ANN, "iat": now(), "exp": now() + 60});
    let good = pair.sign(USER, &claims);
    assert_eq!(auth.authenticate_token(&good, OURS).await, ann());
    // Everything about a public key that a forger could take for the secret of an HMAC.
    let words = [&pair.public["n"], &pair.public["x"]];
    let mut secrets: Vec<Vec<u8>> = words
        .into_iter()
        .filter_map(Value::as_str)
        .map(|word| word.as_bytes().to_vec())
        .collect();
    secrets.push(pair.public.to_string().into_bytes());
    secrets.push(Vec::new());
    for secret in secrets {
        let mut header = Header::new(jsonwebtoken::Algorithm::HS256);
        header.typ = Some(USER.to_owned());
        header.kid = Some("a".to_owned());
        let forged =
            jsonwebtoken::encode(&header, &claims, &EncodingKey::from_secret(&secret)).unwrap();
        let said = refusal(&auth, &forged).await;
        assert!(said.contains("a signature without a private key"), "{said}");
    }
    let parts: Vec<&str> = good.split('.').collect();
    for alg in ["none", "None", "HS256", "ES256", "PS256"] {
        use base64::Engine as _;
        use base64::engine::general_purpose::URL_SAFE_NO_PAD;
        let header = json!({"alg": alg, "typ": USER, "kid": "a"});
        let header = URL_SAFE_NO_PAD.encode(header.to_string());
        for signature in ["", parts[2]] {
            let forged = format!("{header}.{}.{signature}", parts[1]);
            let said = refusal(&auth, &forged).await;
            assert!(
                said.starts_with("Failed user token verification"),
                "{alg}: {said}"
            );
        }
    }
}

#[tokio::test]
async fn an_issuer_that_shows_a_secret_for_a_key_makes_nobody_believed() {
    let stand_in = StandIn::start().await;
    let secret = "c2VjcmV0LXNlY3JldC1zZWNyZXQ";
    stand_in.show_raw(
        "auth",
        vec![json!({"kty": "oct", "kid": "a", "alg": "HS256", "k": secret})],
    );
    let auth = auth(&stand_in);
    let mut header = Header::new(jsonwebtoken::Algorithm::HS256);
    header.typ = Some(USER.to_owned());
    header.kid = Some("a".to_owned());
    let claims = json!({"sub": ANN, "iat": now(), "exp": now() + 60});
    let key = EncodingKey::from_secret(b"secret-secret-secret");
    let forged = jsonwebtoken::encode(&header, &claims, &key).unwrap();
    let said = refusal(&auth, &forged).await;
    assert!(said.contains("a signature without a private key"), "{said}");
}

#[tokio::test]
async fn our_own_user_tokens_hold_only_while_nobody_else_signs_them() {
    let stand_in = StandIn::start().await;
    let pair = Pair::es256("a");
    stand_in.show("auth", &[&pair]);
    let key = UserKey::from_bytes(&[7; 32]);
    let own = key.sign(ANN, std::time::Duration::from_secs(60)).unwrap();
    let alone = Auth::new(Vec::new(), Some(key.clone()));
    assert_eq!(alone.authenticate_token(&own, OURS).await, ann());
    let foreign = pair.user_token(ANN, &json!({}));
    assert!(alone.authenticate_token(&foreign, OURS).await.is_err());

    let beside = Auth::trusting(Vec::new(), Some(key.clone()), &trust(&stand_in));
    assert!(beside.user_key().is_none());
    assert!(beside.authenticate_token(&own, OURS).await.is_err());
    assert_eq!(beside.authenticate_token(&foreign, OURS).await, ann());

    // A Backstage whose plugins may call does not make its people ours.
    let plugins_alone = Trust {
        backstage_users: false,
        ..trust(&stand_in)
    };
    let plugins_alone = Auth::trusting(Vec::new(), Some(key), &plugins_alone);
    assert_eq!(plugins_alone.authenticate_token(&own, OURS).await, ann());
    assert!(
        plugins_alone
            .authenticate_token(&foreign, OURS)
            .await
            .is_err()
    );
}

// -- plugins

#[tokio::test]
async fn a_plugin_is_believed_for_the_keys_at_its_own_address_and_for_our_audience() {
    let stand_in = StandIn::start().await;
    let (catalog, search) = (Pair::es256("c"), Pair::es256("s"));
    stand_in.show("catalog", &[&catalog]);
    stand_in.show("search", &[&search]);
    let auth = auth(&stand_in);
    let token = catalog.plugin_token("catalog", "notifications", None);
    assert_eq!(
        auth.authenticate_token(&token, OURS).await,
        service("plugin:catalog")
    );
    let said = auth
        .authenticate_token(&token, Plugin::Signals)
        .await
        .unwrap_err();
    assert!(
        said.to_string().contains("an audience that is not ours"),
        "{said}"
    );
    let token = catalog.plugin_token("catalog", "signals", None);
    assert_eq!(
        auth.authenticate_token(&token, Plugin::Signals).await,
        service("plugin:catalog")
    );

    // Whoever has the keys of one plugin is not another.
    let said = refusal(
        &auth,
        &search.plugin_token("catalog", "notifications", None),
    )
    .await;
    assert!(
        said.starts_with("Failed plugin token verification; caused by "),
        "{said}"
    );
    // A plugin of the old backend system shows no keys.
    let said = refusal(&auth, &catalog.plugin_token("old", "notifications", None)).await;
    assert!(
        said.contains("'old'") && said.contains("migrated"),
        "{said}"
    );
}

#[tokio::test]
async fn nobody_is_asked_for_a_subject_that_is_no_plugins_id() {
    let stand_in = StandIn::start().await;
    let pair = Pair::es256("a");
    let auth = auth(&stand_in);
    let long = "x".repeat(65);
    for sub in [
        "",
        "..",
        "a/b",
        "a.b",
        "a%2fb",
        "http://evil",
        "a b",
        "ä",
        "a?b",
        long.as_str(),
    ] {
        let said = refusal(&auth, &pair.plugin_token(sub, "notifications", None)).await;
        assert!(said.contains("no plugin's id"), "{sub}: {said}");
    }
    assert_eq!(stand_in.asked_in_all(), 0);
}

#[tokio::test]
async fn a_plugin_acts_for_a_person_with_a_limited_token_of_theirs() {
    let stand_in = StandIn::start().await;
    let (users, app) = (Pair::es256("u"), Pair::es256("p"));
    stand_in.show("auth", &[&users]);
    stand_in.show("app", &[&app]);
    let auth = auth(&stand_in);
    let full = users.user_token(ANN, &json!({}));
    let token = app.plugin_token("app", "notifications", Some(&limited(&full)));
    assert_eq!(auth.authenticate_token(&token, OURS).await, ann());

    // Not for somebody else, nor with a token that was bent.
    let other = users.user_token("user:default/eve", &json!({}));
    let bent = {
        let (own, others) = (limited(&full), limited(&other));
        let head = own.rsplit_once('.').unwrap().0.to_owned();
        format!("{head}.{}", others.rsplit_once('.').unwrap().1)
    };
    for obo in [
        bent.as_str(),
        "x",
        "a.b.c",
        app.plugin_token("app", "notifications", None).as_str(),
    ] {
        let token = app.plugin_token("app", "notifications", Some(obo));
        let said = refusal(&auth, &token).await;
        assert!(said.starts_with("Failed user token verification"), "{said}");
    }
}

// -- others

fn entry(means: AccessMeans, plugins: Option<&[&str]>) -> ExternalAccess {
    let owned = |all: &[&str]| all.iter().map(|one| (*one).to_owned()).collect();
    ExternalAccess {
        means,
        restricted_to: plugins.map(owned),
    }
}

fn jwks(stand_in: &StandIn, audience: &str, prefix: Option<&str>) -> AccessMeans {
    AccessMeans::Jwks(JwksAccess {
        url: stand_in
            .served
            .url(&format!("/api/{audience}/.backstage/auth/v1/jwks.json"))
            .parse()
            .unwrap(),
        issuers: vec!["https://idp.example.com".to_owned()],
        algorithms: vec![jsonwebtoken::Algorithm::ES256],
        audiences: vec![audience.to_owned(), "tidings".to_owned()],
        subject_prefix: prefix.map(str::to_owned),
    })
}

#[tokio::test]
async fn a_token_of_an_issuer_is_tried_against_every_entry_until_one_knows_it() {
    let stand_in = StandIn::start().await;
    let (first, second) = (Pair::es256("1"), Pair::es256("2"));
    stand_in.show("one", &[&first]);
    stand_in.show("two", &[&second]);
    let auth = Auth::trusting(
        Vec::new(),
        None,
        &Trust {
            external: vec![
                entry(jwks(&stand_in, "one", None), None),
                entry(jwks(&stand_in, "two", Some("idp")), Some(&["catalog"])),
            ],
            ..trust(&stand_in)
        },
    );
    let claims = json!({"sub": "ci", "iss": "https://idp.example.com", "aud": ["x", "tidings"]});
    let token = first.sign("JWT", &claims);
    assert_eq!(
        auth.authenticate_token(&token, OURS).await,
        service("external:ci")
    );
    let restricted = auth
        .authenticate_token(&second.sign("JWT", &claims), OURS)
        .await
        .unwrap_err();
    assert!(restricted.is_forbidden());
    let said = restricted.to_string();
    assert_eq!(
        said,
        "This token's access is restricted to plugin(s) 'catalog'"
    );

    let asked = stand_in.asked_in_all();
    for (name, value) in [
        ("iss", json!("https://evil.example.com")),
        ("aud", json!("another")),
        ("aud", Value::Null),
        ("iss", Value::Null),
    ] {
        let mut other = claims.clone();
        other[name] = value;
        assert_eq!(
            refusal(&auth, &first.sign("JWT", &other)).await,
            "Illegal token"
        );
    }
    assert_eq!(
        stand_in.asked_in_all(),
        asked,
        "a token for others asks nobody"
    );
    for (name, value) in [("exp", json!(now())), ("sub", Value::Null)] {
        let mut other = claims.clone();
        other[name] = value;
        assert_eq!(
            refusal(&auth, &first.sign("JWT", &other)).await,
            "Illegal token",
            "{name}"
        );
    }
}

#[tokio::test]
async fn a_legacy_token_is_signed_with_the_shared_secret_and_has_no_audience() {
    let secret = b"a-secret-of-two-backends".to_vec();
    let legacy = |subject: &str, secret: &[u8]| AccessMeans::Legacy {
        secret: secret.to_vec(),
        subject: subject.to_owned(),
    };
    let auth = Auth::trusting(
        Vec::new(),
        None,
        &Trust {
            external: vec![
                entry(legacy("external:other", b"other"), None),
                entry(legacy("external:old", &secret), Some(&["notifications"])),
            ],
            ..Trust::default()
        },
    );
    let sign = |secret: &[u8], algorithm, claims: Value| {
        let key = EncodingKey::from_secret(secret);
        jsonwebtoken::encode(&Header::new(algorithm), &claims, &key).unwrap()
    };
    use jsonwebtoken::Algorithm::HS256;
    let good = json!({"sub": "backstage-server", "exp": now() + 60});
    let token = sign(&secret, HS256, good.clone());
    assert_eq!(
        auth.authenticate_token(&token, OURS).await,
        service("external:old")
    );
    let restricted = auth
        .authenticate_token(&token, Plugin::Signals)
        .await
        .unwrap_err();
    assert_eq!(
        restricted.to_string(),
        "This token's access is restricted to plugin(s) 'notifications'"
    );
    let forever = sign(&secret, HS256, json!({"sub": "backstage-server"}));
    assert_eq!(
        auth.authenticate_token(&forever, OURS).await,
        service("external:old")
    );
    for (secret, algorithm, claims) in [
        (&b"wrong"[..], HS256, good.clone()),
        (&secret, jsonwebtoken::Algorithm::HS512, good.clone()),
        (&secret, HS256, json!({"sub": "somebody"})),
        (
            &secret,
            HS256,
            json!({"sub": "backstage-server", "aud": "x"}),
        ),
        (
            &secret,
            HS256,
            json!({"sub": "backstage-server", "exp": now()}),
        ),
    ] {
        let token = sign(secret, algorithm, claims.clone());
        assert_eq!(refusal(&auth, &token).await, "Illegal token", "{claims}");
    }
}

// -- for whom they act

#[tokio::test]
async fn a_person_acts_for_the_refs_of_the_token_or_for_those_that_backstage_knows() {
    let stand_in = StandIn::start().await;
    let (users, app) = (Pair::es256("u"), Pair::es256("p"));
    stand_in.show("auth", &[&users]);
    stand_in.show("app", &[&app]);
    stand_in.groups(&[ANN, "group:default/ops"]);
    let auth = auth(&stand_in);
    let said = users.user_token(ANN, &json!({"ent": ["group:default/said", ANN]}));
    assert_eq!(
        auth.ownership(&said).await.unwrap(),
        [ANN, "group:default/said"]
    );
    assert_eq!(stand_in.asked("userinfo"), 0);

    let full = users.user_token(ANN, &json!({}));
    for _ in 0..3 {
        assert_eq!(
            auth.ownership(&full).await.unwrap(),
            [ANN, "group:default/ops"]
        );
    }
    let acted = app.plugin_token("app", "signals", Some(&limited(&full)));
    assert_eq!(
        auth.ownership(&acted).await.unwrap(),
        [ANN, "group:default/ops"]
    );
    assert_eq!(stand_in.asked("userinfo"), 1, "the answer is kept");

    stand_in.break_down(true);
    let ben = users.user_token("user:default/ben", &json!({}));
    let failure = auth.ownership(&ben).await.unwrap_err();
    assert_eq!(failure.kind, tidings::failure::Kind::Dependency);
    let service = app.plugin_token("app", "signals", None);
    let failure = auth.ownership(&service).await.unwrap_err();
    assert_eq!(failure.kind, tidings::failure::Kind::Permanent);
}

#[tokio::test]
async fn whose_token_we_signed_acts_for_the_groups_of_the_catalog() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("people.yaml");
    std::fs::write(
        &file,
        "kind: User\nmetadata: {name: ann}\nspec: {memberOf: [ops]}\n---\n\
         kind: Group\nmetadata: {name: ops}\nspec: {type: team, parent: all}\n---\n\
         kind: Group\nmetadata: {name: all}\nspec: {type: team}\n",
    )
    .unwrap();
    let catalog = tidings::catalog::file::FileCatalog::open(vec![file]).unwrap();
    let key = UserKey::from_bytes(&[7; 32]);
    let auth = Auth::trusting(
        Vec::new(),
        Some(key.clone()),
        &Trust {
            catalog: Some(std::sync::Arc::new(catalog)),
            ..Trust::default()
        },
    );
    let token = |reference| {
        key.sign(reference, std::time::Duration::from_secs(60))
            .unwrap()
    };
    assert_eq!(
        auth.ownership(&token(ANN)).await.unwrap(),
        [ANN, "group:default/ops"]
    );
    let stranger = "user:default/stranger";
    assert_eq!(auth.ownership(&token(stranger)).await.unwrap(), [stranger]);
}

// -- what is never told

#[tokio::test]
async fn no_secret_is_in_a_debug_print_or_a_refusal() {
    let stand_in = StandIn::start().await;
    let auth = Auth::trusting(
        Vec::new(),
        Some(UserKey::from_bytes(b"canary")),
        &Trust {
            external: vec![
                entry(
                    AccessMeans::Static {
                        token: "canary-static".into(),
                        subject: "s".into(),
                    },
                    None,
                ),
                entry(
                    AccessMeans::Legacy {
                        secret: b"canary".to_vec(),
                        subject: "l".into(),
                    },
                    None,
                ),
            ],
            discovery: Some(stand_in.discovery()),
            ..trust(&stand_in)
        },
    );
    let text = format!(
        "{auth:?} {:?}",
        entry(
            AccessMeans::Legacy {
                secret: b"canary".to_vec(),
                subject: "l".into()
            },
            None,
        )
    );
    assert!(
        !text.contains("canary") && !text.contains("99, 97, 110"),
        "{text}"
    );
    let pair = Pair::es256("canary-kid");
    for token in [
        "canary-token".to_owned(),
        pair.user_token("user:default/canary", &json!({})),
        pair.plugin_token("catalog", "canary", None),
    ] {
        let said = refusal(&auth, &token).await;
        assert!(!said.contains("canary"), "{said}");
    }
}
