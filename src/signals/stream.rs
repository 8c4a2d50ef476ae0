//! Server-sent events: `hint` when something changed, `reload` when something may have been
//! missed. A page that hears either asks REST what is true.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State;
use axum::response::IntoResponse;
use axum::response::Response;
use axum::response::sse::Event;
use axum::response::sse::Sse;
use futures::FutureExt as _;
use futures::Stream;
use futures::StreamExt as _;
use futures::stream;
use http::HeaderMap;
use http::HeaderValue;

use super::Hub;
use super::Parts;
use super::handshake::Late;
use super::handshake::ownership;
use super::handshake::waited;
use super::hub::Beat;
use super::hub::Page;
use super::hub::Refused;
use crate::auth::bearer;
use crate::http::Caller;
use crate::http::HttpError;
use crate::signal::NOTIFICATIONS_CHANNEL;

/// A page comes back after so many milliseconds at least and at most: not all at once.
const COME_BACK_MS: std::ops::Range<u64> = 1_000..5_000;

/// `GET /api/tidings/v1/stream`.
pub(super) async fn stream(
    State(parts): State<Parts>,
    headers: HeaderMap,
    caller: Caller,
) -> Result<Response, HttpError> {
    let page = open(&parts.hub, &caller.user()?)?;
    let groups = bearer(&headers).map(|token| ownership(parts.auth, token.to_owned()).boxed());
    Ok(answer(page, groups))
}

/// The stream of a person's hints.
///
/// # Errors
/// 503 when this person has too many open, or this process is about to end.
pub fn events(hub: &Hub, reference: &str) -> Result<Response, HttpError> {
    Ok(answer(open(hub, reference)?, None))
}

fn open(hub: &Hub, person: &str) -> Result<Page, HttpError> {
    hub.open(person).map_err(|refused| match refused {
        Refused::Closed => HttpError::unavailable("Tidings is about to stop; come again"),
        Refused::TooMany => HttpError::unavailable("too many pages are open; close some"),
    })
}

fn answer(page: Page, late: Option<Late>) -> Response {
    let wait = Duration::from_millis(rand::random_range(COME_BACK_MS));
    let hello = Event::default().event("hello").data("").retry(wait);
    let all = stream::iter([Ok(hello)]).chain(hints(page, late));
    let mut response = Sse::new(all).into_response();
    // nginx would hold events back until it has a bufferful of them.
    response
        .headers_mut()
        .insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

/// Hints until the page is let go, then `reload`, then the end. A comment now and then keeps the
/// connection through proxies.
fn hints(page: Page, late: Option<Late>) -> impl Stream<Item = Result<Event, Infallible>> {
    stream::unfold(Some((page, late)), |state| async move {
        let (mut page, mut late) = state?;
        loop {
            let beat = tokio::select! {
                beat = page.beats.recv() => beat,
                refs = waited(&mut late) => {
                    page.own(&refs);
                    late = None;
                    continue;
                }
            };
            let event = match beat {
                Some(Beat::Signal(news)) if news.channel == NOTIFICATIONS_CHANNEL => {
                    Event::default().event("hint").data(&news.message)
                }
                Some(Beat::Signal(_)) => continue,
                Some(Beat::Tick) => Event::default().comment(""),
                None if page.hub.is_closed() => return None,
                None => {
                    let reload = Event::default().event("reload").data("");
                    return Some((Ok(reload), None));
                }
            };
            return Some((Ok(event), Some((page, late))));
        }
    })
}
