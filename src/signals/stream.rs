//! Server-sent events: `hint` when something changed, `reload` when something may have been
//! missed. A page that hears either asks REST what is true.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State;
use axum::response::IntoResponse;
use axum::response::Response;
use axum::response::sse::Event;
use axum::response::sse::KeepAlive;
use axum::response::sse::Sse;
use futures::Stream;
use futures::stream;
use http::HeaderValue;

use super::Hub;
use super::Page;
use super::Parts;
use crate::http::Caller;
use crate::http::HttpError;
use crate::signal::NOTIFICATIONS_CHANNEL;

/// A comment is sent this often, so that proxies keep the connection and dead ones are noticed.
const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// A page comes back after so many milliseconds at least and at most: not all at once.
const COME_BACK_MS: std::ops::Range<u64> = 1_000..5_000;

/// `GET /api/tidings/v1/stream`.
pub(super) async fn stream(
    State(parts): State<Parts>,
    caller: Caller,
) -> Result<Response, HttpError> {
    Ok(events(&parts.hub, &caller.user()?))
}

/// The stream of a person's hints.
pub fn events(hub: &Hub, reference: &str) -> Response {
    let wait = Duration::from_millis(rand::random_range(COME_BACK_MS));
    let hello = Event::default().event("hello").data("").retry(wait);
    let page = hub.open(reference);
    let all = futures::StreamExt::chain(stream::iter([Ok(hello)]), hints(page));
    let alive = KeepAlive::new().interval(KEEP_ALIVE);
    let mut response = Sse::new(all).keep_alive(alive).into_response();
    // nginx would hold events back until it has a bufferful of them.
    response
        .headers_mut()
        .insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

/// Hints until the page is let go, then `reload`, then the end.
fn hints(page: Page) -> impl Stream<Item = Result<Event, Infallible>> {
    stream::unfold(Some(page), |page| async move {
        let mut page = page?;
        loop {
            match page.beats.recv().await {
                Some(beat) if &*beat.channel == NOTIFICATIONS_CHANNEL => {
                    let hint = Event::default().event("hint").data(&*beat.message);
                    return Some((Ok(hint), Some(page)));
                }
                Some(_) => {}
                None if page.hub.is_closed() => return None,
                None => {
                    let reload = Event::default().event("reload").data("");
                    return Some((Ok(reload), None));
                }
            }
        }
    })
}
