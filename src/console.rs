//! The inbox as a page: rendered here, works without script, nothing from elsewhere.
//!
//! A person signs in by a one-time link or by pasting a user token; the session is a cookie that
//! only this page reads, never the API. Forms are accepted from this page alone.

mod assets;
mod door;
mod page;
mod switches;
mod view;
mod words;

use std::sync::Arc;

use axum::Router;
use axum::extract::Form;
use axum::extract::State;
use axum::extract::rejection::FormRejection;
use axum::response::IntoResponse;
use axum::response::Redirect;
use axum::response::Response;
use axum::routing::get;
use axum::routing::post;
use bytes::Bytes;
use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use http::StatusCode;
use http::Uri;
use http::header::CACHE_CONTROL;
use http::header::CONTENT_SECURITY_POLICY;
use http::header::REFERRER_POLICY;
use maud::Markup;
use serde::Deserialize;
use url::Url;
use uuid::Uuid;

use self::door::Visitor;
use self::view::View;
use crate::auth::Auth;
use crate::queue::Queue;
use crate::settings::Switchboard;
use crate::signal::Signal;
use crate::signals::Hub;
use crate::store::Mark;
use crate::store::Store;
use crate::store::StoreError;
use crate::time::Timestamp;

/// What a page may load: its own style, script and stream. Nothing inline, nobody may frame it.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; \
    img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

const PERMISSIONS_POLICY: HeaderName = HeaderName::from_static("permissions-policy");

/// What the page works with.
#[derive(Clone)]
pub struct ConsoleParts {
    /// What is kept.
    pub store: Arc<dyn Store>,
    /// Where marks are announced to the person's other pages.
    pub queue: Arc<dyn Queue>,
    /// Who is signed in.
    pub auth: Auth,
    /// What open pages listen to.
    pub hub: Hub,
    /// What people may switch on and off.
    pub board: Switchboard,
    /// `app.baseUrl`, which links are resolved against.
    pub base_url: Url,
}

type Parts = Arc<ConsoleParts>;

/// The page's routes, to be merged with others and wrapped by [`crate::http::app`].
pub fn routes(parts: ConsoleParts) -> Router {
    Router::new()
        .route("/", get(inbox))
        // Where Backstage has its page, and so where a mail leads that has no link of its own.
        .route("/notifications", get(async || Redirect::to("/")))
        .route("/mark", post(mark))
        .route("/mark-all-read", post(mark_all_read))
        .route("/settings", get(switches::show).post(switches::save))
        .route("/events", get(events))
        .route("/login", get(door::form).post(door::enter))
        .route("/login/{code}", get(door::enter_by_code))
        .route("/logout", post(door::leave))
        .route("/assets/{name}", get(assets::serve))
        .with_state(Arc::new(parts))
}

/// A page that is not to be cached, framed, or made to load anything.
fn document(status: StatusCode, markup: Markup) -> Response {
    let mut response = (status, markup).into_response();
    let headers = response.headers_mut();
    let mut set = |name, value| headers.insert(name, HeaderValue::from_static(value));
    set(CONTENT_SECURITY_POLICY, POLICY);
    set(CACHE_CONTROL, "no-store");
    // Not `no-referrer`: with that, browsers hide the origin of our own forms from us.
    set(REFERRER_POLICY, "same-origin");
    set(
        PERMISSIONS_POLICY,
        "camera=(), geolocation=(), microphone=()",
    );
    response
}

/// What went wrong, for a person.
struct Trouble(StatusCode, &'static str);

impl IntoResponse for Trouble {
    fn into_response(self) -> Response {
        document(self.0, page::trouble(self.1))
    }
}

impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Self {
        tracing::warn!(%error, "the page could not be made");
        Self(
            StatusCode::SERVICE_UNAVAILABLE,
            "Your inbox cannot be reached at the moment. Nothing is lost; try again in a minute.",
        )
    }
}

async fn inbox(
    State(parts): State<Parts>,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, Trouble> {
    let Some(reference) = parts.auth.session(&headers).await else {
        return Ok(Redirect::to("/login").into_response());
    };
    let view = View::read(&uri);
    let query = view.query();
    let (listed, counts) = tokio::join!(
        parts.store.list(&reference, &query),
        parts.store.counts(&reference)
    );
    let listed = listed?;
    if listed.notifications.is_empty() && view.page > 1 {
        let last = view.last_page(listed.total);
        return Ok(Redirect::to(&view.at_page(last).href()).into_response());
    }
    let now = Timestamp::now();
    let markup = page::inbox(&page::Shown {
        reference: &reference,
        view: &view,
        page: &listed,
        counts: counts?,
        base_url: &parts.base_url,
        now,
    });
    Ok(document(StatusCode::OK, markup))
}

/// What a form of the list says.
#[derive(Debug, Deserialize)]
struct MarkForm {
    id: Uuid,
    read: Option<bool>,
    saved: Option<bool>,
    /// Where to go back to.
    #[serde(default)]
    back: String,
}

async fn mark(
    State(parts): State<Parts>,
    Visitor(reference): Visitor,
    form: Result<Form<MarkForm>, FormRejection>,
) -> Result<Response, Trouble> {
    let Ok(Form(form)) = form else {
        let words = "The form does not say which notification is meant. Go back and reload.";
        return Err(Trouble(StatusCode::BAD_REQUEST, words));
    };
    let mark = Mark {
        read: form.read,
        saved: form.saved,
    };
    parts.store.mark(&reference, &[form.id], mark).await?;
    if let Some(read) = form.read {
        let signal = Signal::marked(&reference, &[form.id.to_string()], read);
        announce(&parts, &signal).await;
    }
    Ok(back(&form.back))
}

/// What the form of the whole list says.
#[derive(Debug, Default, Deserialize)]
struct AllForm {
    #[serde(default)]
    back: String,
}

async fn mark_all_read(
    State(parts): State<Parts>,
    Visitor(reference): Visitor,
    form: Result<Form<AllForm>, FormRejection>,
) -> Result<Response, Trouble> {
    let form = form.map(|Form(form)| form).unwrap_or_default();
    if parts.store.mark_all_read(&reference).await? > 0 {
        announce(&parts, &Signal::marked(&reference, &[], true)).await;
    }
    Ok(back(&form.back))
}

async fn announce(parts: &Parts, signal: &Signal) {
    match serde_json::to_vec(signal) {
        Ok(body) => parts.queue.announce(Bytes::from(body)).await,
        Err(error) => tracing::warn!(%error, "a signal that cannot be written"),
    }
}

/// Back to the list as it was: only our own query is taken over, never an address.
fn back(to: &str) -> Response {
    let view = to
        .parse::<Uri>()
        .map_or_else(|_| View::default(), |uri| View::read(&uri));
    Redirect::to(&view.href()).into_response()
}

async fn events(State(parts): State<Parts>, headers: HeaderMap) -> Response {
    match parts.auth.session(&headers).await {
        Some(reference) => crate::signals::events(&parts.hub, &reference).into_response(),
        // 204 tells an EventSource not to come back.
        None => StatusCode::NO_CONTENT.into_response(),
    }
}
