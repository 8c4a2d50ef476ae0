//! Who is who in a workspace: from a mail address to Slack's id, asked once.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use tokio::time::Instant;

use super::api::Api;
use super::api::Fault;
use super::api::Means;

/// How long an answer is believed, also that nobody has the address. Source: contract 6.
const TTL: Duration = Duration::from_secs(600);
/// Most answers that are kept.
const KEPT_MAX: usize = 10_000;

/// Answers of `users.lookupByEmail`.
#[derive(Default)]
pub(super) struct Directory(Mutex<HashMap<String, (Option<String>, Instant)>>);

impl Directory {
    /// The id of who has this address; `None` where nobody has, or where the app may not ask.
    pub(super) async fn id(&self, api: &Api, email: &str) -> Result<Option<String>, Fault> {
        let key = email.to_lowercase();
        if let Some(known) = self.known(&key, Instant::now()) {
            return Ok(known);
        }
        let id = match api.ask("users.lookupByEmail", &[("email", email)]).await {
            Ok(answer) => answer.body["user"]["id"].as_str().map(str::to_owned),
            Err(fault) if fault.code == "missing_scope" => {
                tracing::warn!(
                    "Slack does not let the app look people up: it needs the scope users:read.email"
                );
                None
            }
            Err(fault) if fault.means == Means::Refused => None,
            Err(fault) => return Err(fault),
        };
        self.keep(key, id.clone(), Instant::now());
        Ok(id)
    }

    fn known(&self, key: &str, now: Instant) -> Option<Option<String>> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (id, until) = kept.get(key)?;
        (now < *until).then(|| id.clone())
    }

    fn keep(&self, key: String, id: Option<String>, now: Instant) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if KEPT_MAX <= kept.len() {
            kept.retain(|_, (_, until)| now < *until);
        }
        if KEPT_MAX <= kept.len() {
            // So many people within the time are rare, and asking again is right as well.
            kept.clear();
        }
        kept.insert(key, (id, now + TTL));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_kept_for_their_time_and_never_too_many() {
        let (directory, now) = (Directory::default(), Instant::now());
        directory.keep("a".into(), Some("U1".into()), now);
        directory.keep("b".into(), None, now);
        assert_eq!(directory.known("a", now), Some(Some("U1".into())));
        assert_eq!(directory.known("b", now), Some(None));
        assert_eq!(directory.known("c", now), None);
        assert_eq!(directory.known("a", now + TTL), None);
        for n in 0..KEPT_MAX {
            directory.keep(n.to_string(), None, now + Duration::from_secs(1));
        }
        assert!(directory.0.lock().unwrap().len() <= KEPT_MAX);
        let last = (KEPT_MAX - 1).to_string();
        assert_eq!(directory.known(&last, now), Some(None));
    }
}
