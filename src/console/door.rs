//! The way into the page and out of it: login link, token form, session cookie, and who may
//! send forms.

use axum::extract::Form;
use axum::extract::FromRef;
use axum::extract::FromRequestParts;
use axum::extract::Path;
use axum::extract::State;
use axum::extract::rejection::FormRejection;
use axum::response::IntoResponse;
use axum::response::Redirect;
use axum::response::Response;
use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use http::StatusCode;
use http::header::HOST;
use http::header::ORIGIN;
use http::header::SET_COOKIE;
use http::request::Parts as RequestParts;
use serde::Deserialize;
use url::Url;

use super::Parts;
use super::Trouble;
use super::document;
use super::page;
use crate::auth::Plugin;
use crate::auth::Principal;
use crate::auth::SESSION_COOKIE;
use crate::auth::SESSION_TTL;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const SEC_PURPOSE: HeaderName = HeaderName::from_static("sec-purpose");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// The person who sent a form from our own page.
#[derive(Clone, Debug)]
pub(super) struct Visitor(pub(super) String);

impl<S> FromRequestParts<S> for Visitor
where
    S: Send + Sync,
    Parts: FromRef<S>,
{
    type Rejection = Response;

    async fn from_request_parts(request: &mut RequestParts, state: &S) -> Result<Self, Response> {
        from_our_page(&request.headers).map_err(IntoResponse::into_response)?;
        let parts = Parts::from_ref(state);
        match parts.auth.session(&request.headers).await {
            Some(reference) => Ok(Self(reference)),
            None => Err(Redirect::to("/login").into_response()),
        }
    }
}

/// Whether a form comes from our own page and not from somebody else's: by the browser's word
/// (`Sec-Fetch-Site`), or, where it gives none, by its `Origin`.
fn from_our_page(headers: &HeaderMap) -> Result<(), Trouble> {
    let text = |name: &HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let ours = match (text(&SEC_FETCH_SITE), text(&ORIGIN), text(&HOST)) {
        (Some(site), ..) => site == "same-origin",
        (None, Some(origin), Some(host)) => Url::parse(origin).is_ok_and(|url| {
            let port = url
                .port()
                .map_or_else(String::new, |port| format!(":{port}"));
            url.host_str()
                .is_some_and(|name| format!("{name}{port}").eq_ignore_ascii_case(host))
        }),
        (None, ..) => false,
    };
    if ours {
        return Ok(());
    }
    Err(Trouble(
        StatusCode::FORBIDDEN,
        "This form was not sent from your inbox, so nothing was done.",
    ))
}

/// `GET /login`
pub(super) async fn form(State(parts): State<Parts>, headers: HeaderMap) -> Response {
    if parts.auth.session(&headers).await.is_some() {
        return Redirect::to("/").into_response();
    }
    document(StatusCode::OK, page::sign_in(None))
}

/// What the sign-in form says.
#[derive(Debug, Deserialize)]
pub(super) struct Credentials {
    token: String,
}

/// `POST /login`: with a user token, which becomes the session.
pub(super) async fn enter(
    State(parts): State<Parts>,
    headers: HeaderMap,
    form: Result<Form<Credentials>, FormRejection>,
) -> Result<Response, Trouble> {
    from_our_page(&headers)?;
    let token = form.map_or_else(|_| String::new(), |Form(form)| form.token.trim().to_owned());
    let refusal = match parts
        .auth
        .authenticate_token(&token, Plugin::Notifications)
        .await
    {
        Ok(Principal::User { .. }) => return Ok(signed_in(&headers, &token)),
        Ok(Principal::Service { .. }) => {
            "That is an API token, which sends notifications. The inbox needs a user token."
        }
        Err(_) if token.is_empty() => "Paste a user token.",
        Err(_) => "That token is not valid here, or it has ended.",
    };
    let status = StatusCode::UNAUTHORIZED;
    Ok(document(status, page::sign_in(Some(refusal))))
}

/// `GET /login/{code}`: the one-time link.
pub(super) async fn enter_by_code(
    State(parts): State<Parts>,
    headers: HeaderMap,
    Path(code): Path<String>,
) -> Response {
    let ahead = headers
        .get(&SEC_PURPOSE)
        .is_some_and(|purpose| purpose.as_bytes().starts_with(b"prefetch"));
    if ahead {
        // A browser that looks ahead must not use the code up.
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    let token = parts.auth.redeem(&code).and_then(|reference| {
        let key = parts.auth.user_key()?;
        key.sign(&reference, SESSION_TTL).ok()
    });
    match token {
        Some(token) => signed_in(&headers, &token),
        None if parts.auth.session(&headers).await.is_some() => Redirect::to("/").into_response(),
        None => {
            let refusal =
                "That link has been used or has ended. Ask for a new one, or paste a user token.";
            document(StatusCode::UNAUTHORIZED, page::sign_in(Some(refusal)))
        }
    }
}

/// `POST /logout`
pub(super) async fn leave(headers: HeaderMap) -> Result<Response, Trouble> {
    from_our_page(&headers)?;
    Ok(with_cookie(&headers, "/login", "", 0))
}

fn signed_in(headers: &HeaderMap, token: &str) -> Response {
    with_cookie(headers, "/", token, SESSION_TTL.as_secs())
}

fn with_cookie(headers: &HeaderMap, to: &str, value: &str, seconds: u64) -> Response {
    // We speak no TLS: it is whoever stands before us who knows. A caller that lies about it
    // changes its own cookie alone.
    let tls = headers
        .get(&X_FORWARDED_PROTO)
        .is_some_and(|scheme| scheme.as_bytes().eq_ignore_ascii_case(b"https"));
    let secure = if tls { "; Secure" } else { "" };
    let cookie = format!(
        "{SESSION_COOKIE}={value}; Path=/; HttpOnly; SameSite=Lax; Max-Age={seconds}{secure}"
    );
    let mut response = Redirect::to(to).into_response();
    // A token that is no header value was not verified, so this does not fail.
    if let Ok(cookie) = HeaderValue::try_from(cookie) {
        response.headers_mut().insert(SET_COOKIE, cookie);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ours(pairs: &[(&str, &str)]) -> bool {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            let name: HeaderName = name.parse().unwrap();
            headers.insert(name, value.parse().unwrap());
        }
        from_our_page(&headers).is_ok()
    }

    #[test]
    fn a_form_of_another_page_is_refused() {
        assert!(ours(&[("sec-fetch-site", "same-origin")]));
        assert!(!ours(&[("sec-fetch-site", "cross-site")]));
        assert!(!ours(&[("sec-fetch-site", "same-site")]));
        assert!(!ours(&[("sec-fetch-site", "none")]));
        let host = ("host", "inbox.lan:7117");
        assert!(ours(&[("origin", "http://inbox.lan:7117"), host]));
        assert!(!ours(&[("origin", "http://inbox.lan:7118"), host]));
        assert!(!ours(&[("origin", "http://evil.lan:7117"), host]));
        assert!(!ours(&[("origin", "null"), host]));
        assert!(!ours(&[host]));
        assert!(ours(&[("origin", "https://a.b"), ("host", "a.b")]));
    }
}
