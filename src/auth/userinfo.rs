//! The refs that a person acts for, as Backstage's auth plugin knows them (contract 8.2): asked
//! with the person's own token, and kept for a while.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;

use serde::Deserialize;
use tokio::sync::oneshot;
use tokio::time::Instant;
use url::Url;

use crate::failure::Failure;
use crate::failure::Reason;

/// An answer is taken as it is for so long; the peer's is 5 s, but pages that come back after a
/// restart come all at once and again.
const FRESH: Duration = Duration::from_secs(60);

/// An answer serves for so long when there is no newer one.
const STALE: Duration = Duration::from_secs(3600);

/// Most people whose answers are kept.
const PEOPLE_MAX: usize = 20_000;

/// The longest that an answer may take.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);

/// The longest that a caller waits: a page gives up on its socket after a second.
const PATIENCE: Duration = Duration::from_millis(500);

/// The most bytes of an answer.
const BYTES_MAX: usize = 256 << 10;

#[derive(Deserialize)]
struct Answer {
    claims: Claims,
}

#[derive(Deserialize)]
struct Claims {
    #[serde(default)]
    ent: Vec<String>,
}

/// The auth plugin's route. Clones share everything.
#[derive(Clone)]
pub(super) struct Userinfo(Arc<Inner>);

struct Inner {
    url: Url,
    client: reqwest::Client,
    known: Mutex<People>,
}

/// What was answered, and when, by person.
type People = HashMap<String, (Arc<Vec<String>>, Instant)>;

impl Userinfo {
    pub(super) fn new(url: Url, client: reqwest::Client) -> Self {
        Self(Arc::new(Inner {
            url,
            client,
            known: Mutex::default(),
        }))
    }

    /// The refs that `reference` acts for, who bears `token`; `None` where nobody knows them.
    pub(super) async fn refs(
        &self,
        reference: &str,
        token: &str,
    ) -> Result<Option<Vec<String>>, Failure> {
        let held = self.known().get(reference).cloned();
        if let Some((refs, at)) = &held
            && at.elapsed() < FRESH
        {
            return Ok(Some(refs.to_vec()));
        }
        // Whoever asks may give up; the answer is kept for when they come back.
        let (tell, told) = oneshot::channel();
        let (this, reference, token) = (self.clone(), reference.to_owned(), token.to_owned());
        tokio::spawn(async move {
            let asked = tokio::time::timeout(ASK_TIMEOUT, this.ask(&token)).await;
            let asked = asked.unwrap_or_else(|_| Err(away(Reason::Timeout, "it took too long")));
            if let Ok(Some(refs)) = &asked {
                this.keep(reference, refs);
            }
            // Nobody may be waiting any more.
            let _ = tell.send(asked);
        });
        let answer = match tokio::time::timeout(PATIENCE, told).await {
            Ok(Ok(answer)) => answer,
            _ => Err(away(Reason::Timeout, "it has not answered yet")),
        };
        match (answer, held) {
            (Err(failure), Some((refs, at))) if at.elapsed() < STALE => {
                tracing::debug!(%failure, "an older answer serves");
                Ok(Some(refs.to_vec()))
            }
            (answer, _) => answer,
        }
    }

    async fn ask(&self, token: &str) -> Result<Option<Vec<String>>, Failure> {
        let broken = |error: reqwest::Error| {
            if error.is_timeout() {
                away(Reason::Timeout, "it took too long")
            } else {
                away(Reason::Network, "no connection")
            }
        };
        let request = self.0.client.get(self.0.url.clone()).bearer_auth(token);
        let mut answer = request.send().await.map_err(broken)?;
        let status = answer.status();
        if matches!(status.as_u16(), 401 | 403 | 404) {
            return Ok(None);
        }
        if !status.is_success() {
            let detail = format!("it answers {}", status.as_u16());
            return Err(away(Reason::Server, &detail));
        }
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(broken)? {
            if BYTES_MAX < body.len() + chunk.len() {
                return Err(away(Reason::Server, "it answers too much"));
            }
            body.extend_from_slice(&chunk);
        }
        let answer: Answer = serde_json::from_slice(&body)
            .map_err(|_| away(Reason::Server, "it answers something else"))?;
        Ok(Some(answer.claims.ent))
    }

    fn keep(&self, reference: String, refs: &[String]) {
        let mut known = self.known();
        if PEOPLE_MAX <= known.len() {
            known.retain(|_, (_, at)| at.elapsed() < FRESH);
        }
        // Still full of fresh ones: this one is asked for again next time.
        if known.len() < PEOPLE_MAX || known.contains_key(&reference) {
            known.insert(reference, (Arc::new(refs.to_vec()), Instant::now()));
        }
    }

    fn known(&self) -> MutexGuard<'_, People> {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn away(reason: Reason, why: &str) -> Failure {
    Failure::dependency(reason, format!("Backstage's user info: {why}"))
}
