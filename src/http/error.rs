//! An answer that says no, in the peer's shape (contract 1.2).

use std::borrow::Cow;
use std::time::Duration;

use axum::body::Body;
use axum::response::IntoResponse;
use axum::response::Response;
use http::HeaderValue;
use http::StatusCode;
use http::header::CONTENT_TYPE;
use http::header::RETRY_AFTER;
use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use crate::auth::AuthError;
use crate::reply::ReplyError;
use crate::store::StoreError;
use crate::submission::Fault;
use crate::submission::Invalid;

/// How long a caller is asked to wait when something we depend on is away.
const RETRY_AFTER_DEFAULT: Duration = Duration::from_secs(5);

/// An answer that says no. [`super::app`] writes its body, since that names the request.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpError {
    status: StatusCode,
    name: Cow<'static, str>,
    message: String,
    faults: Vec<Fault>,
    retry_after: Option<Duration>,
    fields: Map<String, Value>,
}

impl HttpError {
    fn new(status: StatusCode, name: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            name: Cow::Borrowed(name),
            message: message.into(),
            faults: Vec::new(),
            retry_after: None,
            fields: Map::new(),
        }
    }

    /// 400: the request is wrong.
    pub fn input(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "InputError", message)
    }

    /// 400: one field of the body, or one header, is wrong.
    pub fn field(pointer: &str, message: &str) -> Self {
        let fault = Fault {
            pointer: pointer.to_owned(),
            message: message.to_owned(),
        };
        Self {
            faults: vec![fault],
            ..Self::input(format!("{pointer} {message}"))
        }
    }

    /// 400: there is no such query parameter.
    pub fn unknown_parameter(name: &str) -> Self {
        Self::input(format!("Unknown query parameter '{name}'"))
    }

    /// 400: the body is larger than `limit` bytes.
    pub fn too_large(limit: usize) -> Self {
        Self::input(format!(
            "request entity too large: at most {limit} bytes are taken"
        ))
    }

    /// 401: nobody is calling.
    pub fn missing_credentials() -> Self {
        AuthError::Missing.into()
    }

    /// 403: not with this kind of token. In the peer's words.
    pub fn wrong_kind(kind: &str) -> Self {
        Self::not_allowed(format!("This endpoint does not allow '{kind}' credentials"))
    }

    /// 403: the token lacks a scope.
    pub fn missing_scope(scope: &str) -> Self {
        Self::not_allowed(format!(
            "this token does not have the scope '{scope}'; make one with: tidings token create --scope {scope}"
        ))
    }

    /// 403.
    pub fn not_allowed(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "NotAllowedError", message)
    }

    /// 404: there is no such thing. The path exists, so there is a body.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "NotFoundError", message)
    }

    /// 501: not in this way of running.
    pub fn not_implemented(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_IMPLEMENTED, "NotImplementedError", message)
    }

    /// 503: something we depend on is away; trying again later helps.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self {
            retry_after: Some(RETRY_AFTER_DEFAULT),
            ..Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "ServiceUnavailableError",
                message,
            )
        }
    }

    /// 500: our fault. The log has `detail`; the caller does not.
    pub fn internal(detail: &dyn std::fmt::Display) -> Self {
        tracing::error!(%detail, "an internal error");
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "Error",
            "An internal error occurred; the log has it under this answer's x-request-id",
        )
    }

    /// The same with a field of its own in `error`.
    #[must_use]
    pub fn with(mut self, name: &str, value: Value) -> Self {
        self.fields.insert(name.to_owned(), value);
        self
    }

    /// The answer's status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// What is wrong, in one sentence.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The whole answer; `url` is relative to the mount, as in the peer.
    pub(super) fn render(&self, method: &str, url: &str) -> Response {
        let mut error = self.fields.clone();
        error.insert("name".to_owned(), json!(self.name));
        error.insert("message".to_owned(), json!(self.message));
        if !self.faults.is_empty() {
            error.insert("errors".to_owned(), json!(self.faults));
        }
        let body = json!({
            "error": error,
            "request": {"method": method, "url": url},
            "response": {"statusCode": self.status.as_u16()},
        });
        let mut response = Response::new(Body::from(body.to_string()));
        self.head(&mut response);
        response
            .headers_mut()
            .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response
    }

    fn head(&self, response: &mut Response) {
        *response.status_mut() = self.status;
        if let Some(wait) = self.retry_after {
            let seconds = wait.as_secs().max(1);
            response
                .headers_mut()
                .insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
    }
}

impl IntoResponse for HttpError {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::empty());
        self.head(&mut response);
        response.extensions_mut().insert(self);
        response
    }
}

impl From<AuthError> for HttpError {
    fn from(error: AuthError) -> Self {
        if error.is_forbidden() {
            return Self::not_allowed(error.to_string());
        }
        if error.is_unavailable() {
            return Self::unavailable(error.to_string());
        }
        Self::new(
            StatusCode::UNAUTHORIZED,
            "AuthenticationError",
            error.to_string(),
        )
    }
}

impl From<Invalid> for HttpError {
    fn from(invalid: Invalid) -> Self {
        Self {
            faults: invalid.faults,
            ..Self::input(invalid.message)
        }
    }
}

impl From<ReplyError> for HttpError {
    fn from(error: ReplyError) -> Self {
        Self {
            name: Cow::Owned(error.name),
            faults: error.errors,
            ..Self::input(error.message)
        }
    }
}

impl From<StoreError> for HttpError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable(detail) | StoreError::Schema(detail) => {
                tracing::warn!(detail, "the store does not answer");
                Self::unavailable("the store is not reachable at the moment; try again")
            }
            StoreError::Refused(detail) => Self::internal(&detail),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_body_is_the_peers() {
        let error = HttpError::field("#/ids", "is missing").with("submission", json!("x"));
        let response = error.render("POST", "/notifications/update");
        assert_eq!(response.status(), 400);
        let body = axum::body::to_bytes(response.into_body(), 10_000)
            .await
            .unwrap();
        assert_eq!(
            serde_json::from_slice::<Value>(&body).unwrap(),
            json!({
                "error": {"name": "InputError", "message": "#/ids is missing", "submission": "x",
                    "errors": [{"pointer": "#/ids", "message": "is missing"}]},
                "request": {"method": "POST", "url": "/notifications/update"},
                "response": {"statusCode": 400},
            })
        );
    }

    #[test]
    fn what_is_away_says_when_to_come_again_and_keeps_its_details() {
        let error: HttpError = StoreError::Unavailable("password=canary".into()).into();
        assert_eq!(error.status(), 503);
        assert!(!error.message().contains("canary"));
        let response = error.into_response();
        assert_eq!(response.headers()[RETRY_AFTER], "5");
    }
}
