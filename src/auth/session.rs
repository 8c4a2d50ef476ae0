//! How a person gets into the page: a one-time code, then a cookie with a user token.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use http::HeaderMap;
use http::header::COOKIE;

use super::hash_token;
use super::random_text;
use crate::time::Timestamp;

/// The cookie that holds a page's user token.
pub const SESSION_COOKIE: &str = "tidings_session";

/// How long a page stays signed in.
pub const SESSION_TTL: Duration = Duration::from_secs(7 * 24 * 3600);

/// How long a login code is good for.
pub const LOGIN_CODE_TTL: Duration = Duration::from_secs(600);

/// Characters of a login code: 131 bits, which nobody guesses in ten minutes or ever.
const CODE_CHARS: usize = 22;

/// Most codes that wait at once; the oldest go first.
const CODES_MAX: usize = 1000;

/// Login codes that were given out and not used: by hash, whom each signs in and until when.
#[derive(Debug, Default)]
pub(super) struct LoginCodes(Mutex<HashMap<String, (String, Timestamp)>>);

impl LoginCodes {
    pub(super) fn issue(&self, reference: &str, now: Timestamp) -> String {
        let code = random_text(CODE_CHARS);
        let mut codes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        codes.retain(|_, (_, until)| now < *until);
        if codes.len() >= CODES_MAX
            && let Some(oldest) = codes
                .iter()
                .min_by_key(|(_, (_, until))| *until)
                .map(|(hash, _)| hash.clone())
        {
            codes.remove(&oldest);
        }
        let until = now.plus(LOGIN_CODE_TTL);
        codes.insert(hash_token(&code), (reference.to_owned(), until));
        code
    }

    pub(super) fn redeem(&self, code: &str, now: Timestamp) -> Option<String> {
        let mut codes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (reference, until) = codes.remove(&hash_token(code))?;
        (now < until).then_some(reference)
    }
}

/// The session cookie of a request.
pub(super) fn cookie(headers: &HeaderMap) -> Option<&str> {
    headers
        .get_all(COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(name, _)| *name == SESSION_COOKIE)
        .map(|(_, value)| value)
        .filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_signs_in_once_and_in_time() {
        let codes = LoginCodes::default();
        let now = Timestamp::from_millis(1_000_000);
        let code = codes.issue("user:default/guest", now);
        assert!(code.len() == CODE_CHARS);
        assert_eq!(
            codes.redeem(&code, now).as_deref(),
            Some("user:default/guest")
        );
        assert_eq!(codes.redeem(&code, now), None);
        let late = codes.issue("user:default/guest", now);
        assert_eq!(codes.redeem(&late, now.plus(LOGIN_CODE_TTL)), None);
    }

    #[test]
    fn waiting_codes_are_bounded() {
        let codes = LoginCodes::default();
        for n in 0..CODES_MAX + 10 {
            let at = i64::try_from(n).unwrap();
            codes.issue("user:default/guest", Timestamp::from_millis(at));
        }
        assert_eq!(codes.0.lock().unwrap().len(), CODES_MAX);
    }

    #[test]
    fn the_cookie_is_found_among_others() {
        let mut headers = HeaderMap::new();
        headers.append(COOKIE, "a=b; tidings_session=x.y.z".parse().unwrap());
        assert_eq!(cookie(&headers), Some("x.y.z"));
        headers.clear();
        headers.append(COOKIE, "xtidings_session=1".parse().unwrap());
        assert_eq!(cookie(&headers), None);
    }
}
