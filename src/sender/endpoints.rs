//! Endpoints with fates of their own: what is noted of their failures, and what becomes of
//! deliveries to one that was disabled.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

use super::Deliveries;
use super::outcome::Came;
use super::outcome::Try;
use crate::failure::Failure;
use crate::failure::Reason;
use crate::processor::Endpoint;
use crate::processor::Outcome;
use crate::store::EndpointFailed;
use crate::store::EndpointState;
use crate::telemetry::Event;
use crate::telemetry::metric;

/// How old what is known of endpoints may be.
const FRESH: Duration = Duration::from_secs(5);

/// What is known of the endpoints that fail.
#[derive(Debug, Default)]
pub struct Endpoints(Mutex<Option<(Instant, HashMap<String, EndpointState>)>>);

/// What came of the sends to one endpoint.
#[derive(Default)]
struct News {
    well: bool,
    failed: Option<(Reason, String)>,
    gone: bool,
}

impl Deliveries {
    /// The endpoints of this sender that fail, by name.
    async fn failing(&self) -> Result<HashMap<String, EndpointState>, Failure> {
        let endpoints = self.sender.endpoints();
        if endpoints.is_empty() {
            return Ok(HashMap::new());
        }
        let mut known = self.endpoints.0.lock().await;
        if let Some((at, states)) = known.as_ref()
            && at.elapsed() < FRESH
        {
            return Ok(states.clone());
        }
        let mut states: HashMap<_, _> = self
            .store
            .endpoints()
            .await?
            .into_iter()
            .filter(|state| state.channel == self.sender.name())
            .map(|state| (state.name.clone(), state))
            .collect();
        states.retain(|name, state| {
            let same = |one: &Endpoint| one.name == *name && one.version == state.version;
            endpoints.iter().any(same)
        });
        *known = Some((Instant::now(), states.clone()));
        Ok(states)
    }

    /// What is said of deliveries to each endpoint that was disabled.
    pub(super) async fn disabled(&self) -> Result<HashMap<String, String>, Failure> {
        let states = self.failing().await?.into_values();
        Ok(states
            .filter_map(|state| {
                let since = state.disabled_at?;
                let detail = format!("the endpoint was disabled at {since}: {}", state.detail);
                Some((state.name, detail))
            })
            .collect())
    }

    /// Notes what came of sends to endpoints. That it could not is no reason to send again.
    pub(super) async fn note(&self, tries: &[Try<'_>]) {
        let endpoints = self.sender.endpoints();
        if endpoints.is_empty() {
            return;
        }
        let mut all: BTreeMap<&str, News> = BTreeMap::new();
        for one in tries {
            let Came::Of(outcome) = &one.came else {
                continue;
            };
            let news = all.entry(&one.claimed.item.target).or_default();
            match outcome {
                Outcome::Sent { .. } => news.well = true,
                Outcome::Failed(failure) => {
                    news.failed = Some((failure.reason, failure.detail.clone()));
                }
                Outcome::Waits { reason, detail, .. } if *reason != Reason::Rate => {
                    news.failed = Some((*reason, detail.clone()));
                }
                Outcome::Gone { detail } => {
                    news.gone = true;
                    news.failed = Some((Reason::Rejected, detail.clone()));
                }
                Outcome::Skipped { .. } | Outcome::Waits { .. } => {}
            }
        }
        for endpoint in &endpoints {
            if let Some(news) = all.remove(endpoint.name.as_str())
                && let Err(error) = self.note_one(endpoint, news).await
            {
                tracing::warn!(endpoint = endpoint.name, %error, "its state could not be noted");
            }
        }
    }

    async fn note_one(&self, endpoint: &Endpoint, news: News) -> Result<(), Failure> {
        let channel = self.sender.name();
        let earlier = self.failing().await?.remove(&endpoint.name);
        let (reason, detail) = match news.failed {
            Some(failed) if news.gone || !news.well => failed,
            _ if news.well && earlier.is_some() => {
                self.store.endpoint_well(channel, &endpoint.name).await?;
                self.learn(&endpoint.name, None).await;
                tracing::info!(channel, endpoint = endpoint.name, "the endpoint is back");
                return Ok(());
            }
            _ => return Ok(()),
        };
        let failed = EndpointFailed {
            channel: channel.to_owned(),
            name: endpoint.name.clone(),
            version: endpoint.version.clone(),
            reason,
            detail,
            patience: if news.gone {
                Duration::ZERO
            } else {
                endpoint.disable_after
            },
        };
        let state = self.store.endpoint_failed(&failed).await?;
        let was = earlier.and_then(|one| one.disabled_at).is_some();
        if state.disabled_at.is_some() && !was {
            self.tell_disabled(&state);
        }
        self.learn(&endpoint.name, Some(state)).await;
        Ok(())
    }

    async fn learn(&self, name: &str, state: Option<EndpointState>) {
        if let Some((_, states)) = self.endpoints.0.lock().await.as_mut() {
            match state {
                Some(state) => states.insert(name.to_owned(), state),
                None => states.remove(name),
            };
        }
    }

    fn tell_disabled(&self, state: &EndpointState) {
        let EndpointState { channel, name, .. } = state;
        metrics::counter!(metric::ENDPOINTS_DISABLED, "channel" => channel.clone()).increment(1);
        tracing::warn!(channel, endpoint = name, reason = %state.reason, detail = state.detail,
            failing_since = %state.failing_since,
            "the endpoint is disabled; `tidings endpoints enable` takes it up again");
        self.events.tell(Event::Failed {
            submission: None,
            stage: channel.clone(),
            to: name.clone(),
            reason: state.reason,
            detail: state.detail.clone(),
            next: format!("disabled; tidings endpoints enable {channel} {name}"),
        });
    }
}
