//! What an endpoint's answers mean. The words are ours; nothing of the answer's body is kept, and
//! of addresses scheme, host and port alone.
//!
//! | answer | what | |
//! | --- | --- | --- |
//! | 2xx | sent | |
//! | 3xx | permanent, `rejected` | the address has moved, and a redirect could lead inside |
//! | 401, 403 | permanent, `auth` | |
//! | 408, 425, 5xx | transient | `Retry-After` is obeyed |
//! | 429 | transient, `rate` | `Retry-After` is obeyed |
//! | 410 | failed for good | the endpoint is disabled |
//! | other 4xx | permanent, `rejected` | |
//! | no connection, no TLS, unknown name, no answer in time | waits, uncounted | the breaker opens |
//! | the connection ends within the answer | transient, `network` | |
//! | a private address | permanent, `config` | |

use std::error::Error;
use std::time::Duration;

use http::HeaderMap;
use http::StatusCode;
use http::header::LOCATION;
use http::header::RETRY_AFTER;
use url::Url;

use super::config::shown;
use super::network::Unreachable;
use crate::failure::Failure;
use crate::failure::Reason;
use crate::processor::Outcome;
use crate::time::Timestamp;

/// The longest wait that an endpoint may ask for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(86_400);

/// What came of an answer.
pub(super) fn classify(
    status: StatusCode,
    headers: &HeaderMap,
    url: &Url,
    now: Timestamp,
) -> Outcome {
    let code = status.as_u16();
    let permanent = |reason, detail: String| Outcome::Failed(Failure::permanent(reason, detail));
    let passing = |reason| {
        let detail = format!("it answered {code}");
        Outcome::Failed(match retry_after(headers, now) {
            Some(after) => Failure::later(reason, after, detail),
            None => Failure::transient(reason, detail),
        })
    };
    match code {
        200..=299 => Outcome::Sent { provider_id: None },
        300..=399 => permanent(Reason::Rejected, redirected(code, headers, url)),
        401 | 403 => permanent(Reason::Auth, format!("it answered {code}")),
        408 => passing(Reason::Timeout),
        425 | 500..=599 => passing(Reason::Server),
        429 => passing(Reason::Rate),
        410 => Outcome::Gone {
            detail: "it answered 410: the endpoint is gone".to_owned(),
        },
        _ => permanent(Reason::Rejected, format!("it answered {code}")),
    }
}

/// Where a redirect wanted to go, as far as that may be told.
fn redirected(code: u16, headers: &HeaderMap, url: &Url) -> String {
    let to = headers
        .get(LOCATION)
        .and_then(|location| location.to_str().ok())
        .and_then(|location| url.join(location).ok());
    match to {
        Some(to) if to.origin() == url.origin() => {
            format!("it answered {code}: redirected to another path; redirects are not followed")
        }
        Some(to) => format!(
            "it answered {code}: redirected to {}; redirects are not followed",
            shown(&to)
        ),
        None => format!("it answered {code}: redirected; redirects are not followed"),
    }
}

/// `Retry-After`, in seconds or as a date.
fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = match text.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let at = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
            Timestamp::from_millis(at.as_millisecond()).since(now)
        }
    };
    Some(wait.min(RETRY_AFTER_MAX))
}

/// Why there was no answer.
pub(super) enum Silence {
    /// The endpoint is down: nothing else would reach it either.
    Down(Failure),
    /// Of this delivery.
    Failed(Failure),
}

/// What it means that there was no answer within `limit`.
pub(super) fn silence(error: &reqwest::Error, limit: Duration) -> Silence {
    let down = |reason, detail: &str| Silence::Down(Failure::transient(reason, detail));
    match (unreachable(error), error.is_connect()) {
        (Some(Unreachable::Private), _) => {
            let detail = format!("{}; see `allowPrivate`", Unreachable::Private);
            Silence::Failed(Failure::permanent(Reason::Config, detail))
        }
        (Some(Unreachable::Unknown), _) => down(Reason::Dns, "its name does not resolve"),
        (None, true) if error.is_timeout() => down(Reason::Timeout, "no connection in time"),
        (None, true) if is_tls(error) => down(Reason::Network, "no TLS connection could be made"),
        (None, true) => down(Reason::Network, "no connection could be made"),
        (None, false) if error.is_timeout() => down(
            Reason::Timeout,
            &format!("no answer within {} s", limit.as_secs_f64()),
        ),
        (None, false) => Silence::Failed(Failure::transient(
            Reason::Network,
            "the connection ended without an answer",
        )),
    }
}

fn causes<'a>(error: &'a reqwest::Error) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(error.source(), |cause: &&'a (dyn Error + 'static)| {
        (*cause).source()
    })
}

fn unreachable(error: &reqwest::Error) -> Option<Unreachable> {
    causes(error).find_map(|cause| cause.downcast_ref().copied())
}

/// Whether the two could not agree on TLS, or the certificate is not to be trusted.
fn is_tls(error: &reqwest::Error) -> bool {
    causes(error).any(|cause| {
        let io = cause.downcast_ref::<std::io::Error>();
        let inner = io.and_then(std::io::Error::get_ref);
        cause.is::<rustls::Error>() || inner.is_some_and(|inner| inner.is::<rustls::Error>())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn classified(code: u16, headers: &[(&str, &str)]) -> Outcome {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(
                http::HeaderName::from_bytes(name.as_bytes()).unwrap(),
                value.parse().unwrap(),
            );
        }
        let url = "https://a.example.com/canary?token=canary".parse().unwrap();
        let now = Timestamp::parse("2026-11-24T18:00:00Z").unwrap();
        classify(StatusCode::from_u16(code).unwrap(), &map, &url, now)
    }

    fn detail(outcome: Outcome) -> String {
        let Outcome::Failed(failure) = outcome else {
            panic!("{outcome:?}");
        };
        failure.detail
    }

    #[test]
    fn a_redirect_tells_the_host_it_wanted_and_nothing_secret() {
        let told = |to| detail(classified(302, &[("location", to)]));
        let elsewhere = told("http://10.0.0.1:8080/canary?key=canary");
        assert!(elsewhere.contains("http://10.0.0.1:8080;"), "{elsewhere}");
        let here = told("/canary/");
        assert!(here.contains("another path"), "{here}");
        for text in [elsewhere, here, detail(classified(301, &[]))] {
            assert!(!text.contains("canary"), "{text}");
        }
    }

    #[test]
    fn retry_after_is_read_as_seconds_and_as_a_date() {
        for (code, reason, text, seconds) in [
            (429, Reason::Rate, "17", 17),
            (503, Reason::Server, "Tue, 24 Nov 2026 18:01:30 GMT", 90),
            (429, Reason::Rate, "999999999", 86_400),
        ] {
            let Outcome::Failed(failure) = classified(code, &[("retry-after", text)]) else {
                panic!("{code} is no failure");
            };
            let wanted =
                Failure::later(reason, Duration::from_secs(seconds), failure.detail.clone());
            assert_eq!(failure, wanted);
        }
        let Outcome::Failed(failure) = classified(429, &[("retry-after", "soon")]) else {
            panic!("429 is no failure");
        };
        assert_eq!(failure, Failure::transient(Reason::Rate, "it answered 429"));
    }
}
