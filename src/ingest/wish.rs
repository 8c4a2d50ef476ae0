//! What a caller asks for beside its body: an idempotency key, and how long it wants to wait.

use std::time::Duration;

use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;

use crate::http::HttpError;
use crate::submission::KEY_BYTES_MAX;
use crate::submission::is_key;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const PREFER: HeaderName = HeaderName::from_static("prefer");
/// Says which preference was followed. Source: RFC 7240.
pub(super) const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// Longest wait, whatever is asked for: proxies cut longer ones.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// A caller's wishes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Wish {
    /// The producer's own name for the submission.
    pub(super) key: Option<String>,
    /// How long to hold the answer; `None` is not at all.
    pub(super) wait: Option<Duration>,
    /// The preference as it is confirmed to the caller.
    applied: Option<String>,
}

impl Wish {
    /// Reads `Idempotency-Key` and `Prefer`; `default_wait` is for callers who prefer nothing.
    pub(super) fn read(headers: &HeaderMap, default_wait: Duration) -> Result<Self, HttpError> {
        let key = read_key(headers)?;
        let prefer = Prefer::read(headers);
        let (wait, applied) = match prefer {
            Prefer {
                wait: Some(wait), ..
            } => {
                let wait = wait.min(WAIT_MAX);
                (wait, Some(format!("wait={}", wait.as_secs())))
            }
            Prefer {
                respond_async: true,
                ..
            } => (Duration::ZERO, Some("respond-async".to_owned())),
            Prefer { .. } => (default_wait.min(WAIT_MAX), None),
        };
        Ok(Self {
            key,
            wait: Some(wait).filter(|wait| !wait.is_zero()),
            applied,
        })
    }

    /// The header that confirms the preference.
    pub(super) fn applied(&self) -> Option<HeaderValue> {
        HeaderValue::try_from(self.applied.as_deref()?).ok()
    }
}

/// The key: as it stands, or as a quoted string (RFC 8941), which is how the header's draft
/// writes it.
fn read_key(headers: &HeaderMap) -> Result<Option<String>, HttpError> {
    let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    let key = value.to_str().unwrap_or("").trim();
    let key = match key.strip_prefix('"') {
        Some(rest) => rest.strip_suffix('"').and_then(unescape),
        None => Some(key.to_owned()),
    };
    match key {
        Some(key) if is_key(&key) && values.next().is_none() => Ok(Some(key)),
        _ => Err(HttpError::input(format!(
            "the header Idempotency-Key must be given once, with 1 to {KEY_BYTES_MAX} visible ASCII characters"
        ))),
    }
}

fn unescape(text: &str) -> Option<String> {
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(char) = chars.next() {
        match char {
            '\\' => plain.push(chars.next().filter(|next| matches!(next, '"' | '\\'))?),
            '"' => return None,
            other => plain.push(other),
        }
    }
    Some(plain)
}

/// The two preferences of RFC 7240 that mean something here; others are ignored, and so is a
/// wait that is no number.
#[derive(Debug, Default, PartialEq, Eq)]
struct Prefer {
    wait: Option<Duration>,
    respond_async: bool,
}

impl Prefer {
    fn read(headers: &HeaderMap) -> Self {
        let mut prefer = Self::default();
        let preferences = headers
            .get_all(PREFER)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .filter_map(|one| one.split(';').next());
        for preference in preferences {
            let (name, value) = preference.split_once('=').unwrap_or((preference, ""));
            let name = name.trim();
            if name.eq_ignore_ascii_case("respond-async") {
                prefer.respond_async = true;
            } else if name.eq_ignore_ascii_case("wait") && prefer.wait.is_none() {
                let seconds = value.trim().trim_matches('"').parse().ok();
                prefer.wait = seconds.map(Duration::from_secs);
            }
        }
        prefer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(headers: &[(&HeaderName, &str)]) -> Result<Wish, HttpError> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        Wish::read(&map, Duration::from_secs(2))
    }

    fn wait(prefer: &str) -> (Option<u64>, Option<String>) {
        let wish = wish(&[(&PREFER, prefer)]).unwrap();
        (wish.wait.map(|wait| wait.as_secs()), wish.applied)
    }

    #[test]
    fn a_wait_is_read_as_the_rfc_writes_it_and_capped() {
        let yes = |text: &str| Some(text.to_owned());
        assert_eq!(wait("wait=5"), (Some(5), yes("wait=5")));
        assert_eq!(wait("Wait=\"7\"; x=y, wait=9"), (Some(7), yes("wait=7")));
        assert_eq!(wait("respond-async, wait=100"), (Some(60), yes("wait=60")));
        assert_eq!(wait("wait=0"), (None, yes("wait=0")));
        assert_eq!(wait("respond-async"), (None, yes("respond-async")));
        assert_eq!(wait("return=minimal, wait=soon"), (Some(2), None));
        assert_eq!(wish(&[]).unwrap().wait, Some(Duration::from_secs(2)));
    }

    #[test]
    fn a_key_is_visible_ascii_plain_or_quoted() {
        let key = |text: &str| wish(&[(&IDEMPOTENCY_KEY, text)]).map(|wish| wish.key);
        assert_eq!(key("build-42").unwrap().as_deref(), Some("build-42"));
        assert_eq!(key("\"a\\\"b\"").unwrap().as_deref(), Some("a\"b"));
        for bad in ["", "a b", "\"a", "\"a\"b\"", "ü", &"x".repeat(256)] {
            let error = key(bad).unwrap_err();
            assert!(error.message().contains("Idempotency-Key"), "{bad}");
        }
        let twice = [(&IDEMPOTENCY_KEY, "a"), (&IDEMPOTENCY_KEY, "b")];
        assert!(wish(&twice).is_err());
    }
}
