//! API tokens: list, make, revoke. The secret is shown once, when it is made.

use axum::Json;
use axum::extract::Path;
use axum::extract::Request;
use axum::extract::State;
use http::StatusCode;
use serde::Deserialize;
use serde_json::Value;
use serde_json::json;

use super::Parts;
use crate::auth::new_token;
use crate::http::Caller;
use crate::http::HttpError;
use crate::http::read_json;
use crate::store::Token;
use crate::submission::TEXT_CHARS_MAX;
use crate::time::Timestamp;

/// The scopes there are.
const SCOPES: [&str; 2] = ["send", "operate"];

/// Digits of a hash that people see and type.
const ID_DIGITS: usize = 12;

/// Fewest digits that name a token to revoke.
const REVOKE_DIGITS_MIN: usize = 8;

const BODY_MAX: usize = 64 << 10;

/// A token as people see it. The hash tells nobody the secret.
fn shown(token: &Token) -> Value {
    let mut shown = json!(token);
    shown["id"] = json!(token.hash.get(..ID_DIGITS).unwrap_or(&token.hash));
    shown
}

pub(super) async fn list(
    State(parts): State<Parts>,
    caller: Caller,
) -> Result<Json<Value>, HttpError> {
    caller.operator()?;
    let tokens = parts.store.tokens().await?;
    let tokens: Vec<_> = tokens.iter().map(shown).collect();
    Ok(Json(json!({"tokens": tokens})))
}

/// What a new token is to be.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    subject: String,
    scopes: Vec<String>,
    expires: Option<Timestamp>,
}

impl Wanted {
    fn read(body: &Value) -> Result<Self, HttpError> {
        let wanted: Self = serde_path_to_error::deserialize(body)
            .map_err(|error| HttpError::input(format!("in {}: {}", error.path(), error.inner())))?;
        let subject = &wanted.subject;
        let chars = subject.chars().count();
        if !(1..=TEXT_CHARS_MAX).contains(&chars)
            || subject.contains(|char: char| char.is_whitespace() || char.is_control())
        {
            return Err(HttpError::field(
                "#/subject",
                "must be 1 to 255 characters without spaces",
            ));
        }
        let known = |scope: &String| SCOPES.contains(&scope.as_str());
        if wanted.scopes.is_empty() || !wanted.scopes.iter().all(known) {
            return Err(HttpError::field(
                "#/scopes",
                "must name at least one of `send` and `operate`",
            ));
        }
        Ok(wanted)
    }
}

pub(super) async fn create(
    State(parts): State<Parts>,
    caller: Caller,
    request: Request,
) -> Result<(StatusCode, Json<Value>), HttpError> {
    let wanted = Wanted::read(&read_json(request, BODY_MAX).await?)?;
    let operator = caller.operator()?;
    let now = Timestamp::now();
    if wanted.expires.is_some_and(|end| end <= now) {
        return Err(HttpError::field("#/expires", "is in the past"));
    }
    let (secret, token) = new_token(&wanted.subject, wanted.scopes, wanted.expires, now);
    parts.store.add_token(&token).await?;
    refresh(&parts).await?;
    tracing::info!(operator, subject = token.subject, "a token was made");
    let mut body = shown(&token);
    body["token"] = json!(secret);
    Ok((StatusCode::CREATED, Json(body)))
}

pub(super) async fn revoke(
    State(parts): State<Parts>,
    caller: Caller,
    Path(hash): Path<String>,
) -> Result<Json<Value>, HttpError> {
    let operator = caller.operator()?;
    let hex = hash.bytes().all(|byte| byte.is_ascii_hexdigit());
    if hash.len() < REVOKE_DIGITS_MIN || !hex {
        return Err(HttpError::input(format!(
            "`{hash}` names no token: give at least {REVOKE_DIGITS_MIN} digits of its id, as listed"
        )));
    }
    let count = parts.store.revoke_token(&hash.to_ascii_lowercase()).await?;
    if count == 0 {
        return Err(HttpError::not_found(format!("there is no token {hash}")));
    }
    refresh(&parts).await?;
    tracing::info!(operator, hash, count, "tokens revoked");
    Ok(Json(json!({"revoked": count})))
}

/// This process knows at once; others within their refresh.
async fn refresh(parts: &Parts) -> Result<(), HttpError> {
    parts.auth.set_tokens(parts.store.tokens().await?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_needs_a_subject_and_known_scopes() {
        let message = |body: Value| Wanted::read(&body).unwrap_err().message().to_owned();
        assert!(message(json!({"subject": "a b", "scopes": ["send"]})).contains("#/subject"));
        assert!(message(json!({"subject": "", "scopes": ["send"]})).contains("#/subject"));
        assert!(message(json!({"subject": "a", "scopes": []})).contains("#/scopes"));
        assert!(message(json!({"subject": "a", "scopes": ["root"]})).contains("#/scopes"));
        assert!(message(json!({"subject": "a"})).contains("scopes"));
        assert!(message(json!({"subject": "a", "scopes": ["send"], "x": 1})).contains('x'));
        let wanted = Wanted::read(&json!({"subject": "ci", "scopes": ["send"]})).unwrap();
        assert_eq!(wanted.subject, "ci");
    }
}
