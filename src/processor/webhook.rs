//! The sender `webhook`: one signed POST for each submission and endpoint, as Standard Webhooks has
//! it (<https://www.standardwebhooks.com>).
//!
//! `registry.rs` builds it from `notifications.processors.webhook`; the sender role calls it. A
//! target is an endpoint's name. Every endpoint has a client, a breaker and a number of places of
//! its own, so that a slow or dead one does not delay the others. Nothing that it says of a failure
//! holds a secret, a path or content.

mod answer;
mod body;
mod config;
mod network;
mod sign;

use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use async_trait::async_trait;
use http::header::CONTENT_TYPE;
use sha2::Digest as _;
use sha2::Sha256;
use tokio::sync::Semaphore;
use url::Url;

use self::answer::Silence;
use self::answer::classify;
use self::answer::silence;
pub use self::body::Body;
pub use self::body::Data;
pub use self::body::To;
pub use self::config::Address;
pub use self::config::EndpointConfig;
use self::config::WebhookConfig;
pub use self::network::AllowPrivate;
use self::network::Guard;
pub use self::network::Lookup;
pub use self::network::System;
pub use self::sign::Secret;
use self::sign::signatures;
use crate::config::ConfigError;
use crate::config::Section;
use crate::failure::Failure;
use crate::failure::Reason;
use crate::processor::Audience;
use crate::processor::Endpoint;
use crate::processor::Filter;
use crate::processor::Outcome;
use crate::processor::Outgoing;
use crate::processor::Sender;
use crate::processor::breaker::Breakers;
use crate::processor::breaker::OPEN_MIN;
use crate::processor::breaker::waits;
use crate::processor::registry::Services;
use crate::time::Timestamp;

/// The name: config key, queue suffix, command line, metric label and id in settings.
pub const NAME: &str = "webhook";

/// Posts under way at once in this process.
const CONCURRENCY: usize = 32;
/// Posts under way at once to one endpoint.
const PLACES: usize = 8;
/// How long a delivery waits for a place; then it waits on the queue, in nobody's way.
const PLACE_WAIT: Duration = Duration::from_secs(1);
/// How much of an answer is read, so that its connection can serve again.
const ANSWER_MAX: usize = 16 << 10;
/// How long an answer's body may take; what it says changes nothing.
const ANSWER_WAIT: Duration = Duration::from_secs(1);

/// Posts notifications to endpoints.
pub struct Webhook {
    ports: Vec<Port>,
    breakers: Breakers,
}

/// An endpoint, ready to be posted to.
struct Port {
    name: String,
    url: Url,
    keys: Vec<Secret>,
    filter: Filter,
    origins: Option<Vec<String>>,
    allow: AllowPrivate,
    limit: Duration,
    patience: Duration,
    client: reqwest::Client,
    places: Semaphore,
}

/// Makes the sender of `notifications.processors.webhook`; none where nobody wrote it.
///
/// # Errors
/// What is missing or cannot be, at its key.
pub fn build(section: &Section, _: &Services) -> Result<Option<Arc<dyn Sender>>, ConfigError> {
    let Some(config) = section.read_if_set::<WebhookConfig>()? else {
        return Ok(None);
    };
    config::check(&config, section)?;
    let webhook = Webhook::new(&config.endpoints, &(Arc::new(System) as Arc<dyn Lookup>));
    let webhook = webhook.map_err(|error| section.error(error, ""))?;
    Ok(Some(Arc::new(webhook)))
}

impl Webhook {
    /// Builds it; connects to nothing. `lookup` finds the addresses of names.
    ///
    /// # Errors
    /// Why no client could be made.
    pub fn new(endpoints: &[EndpointConfig], lookup: &Arc<dyn Lookup>) -> Result<Self, String> {
        let port = |endpoint: &EndpointConfig| {
            let guard = Guard {
                lookup: Arc::clone(lookup),
                allow: endpoint.allow_private.clone(),
            };
            // A proxy would connect in our place, to addresses that nobody checked.
            let client = crate::client::builder()
                .no_proxy()
                .dns_resolver(Arc::new(guard))
                .timeout(endpoint.limit())
                .build()
                .map_err(|error| format!("no HTTP client can be made: {error}"))?;
            Ok(Port {
                name: endpoint.name.clone(),
                url: endpoint.url.0.clone(),
                keys: endpoint.keys(),
                filter: endpoint.filter.clone(),
                origins: endpoint.origins.clone(),
                allow: endpoint.allow_private.clone(),
                limit: endpoint.limit(),
                patience: endpoint.patience(),
                client,
                places: Semaphore::new(PLACES),
            })
        };
        Ok(Self {
            ports: endpoints.iter().map(port).collect::<Result<_, String>>()?,
            breakers: Breakers::default(),
        })
    }
}

impl Port {
    fn wants(&self, outgoing: &Outgoing<'_>) -> bool {
        let from_there = |origins: &Vec<String>| origins.iter().any(|one| one == outgoing.origin);
        self.origins.as_ref().is_none_or(from_there) && self.filter.passes(outgoing.payload)
    }

    /// Changes when where it is posted, or by which keys, does: an endpoint that is configured
    /// anew is a new one.
    fn version(&self) -> String {
        let mut hash = Sha256::new();
        hash.update(self.url.as_str());
        for key in &self.keys {
            hash.update(signatures(std::slice::from_ref(key), "version", 0, b""));
        }
        hash.finalize()[..8]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }

    /// Posts it, and says what came of it; `Err` where nothing did.
    async fn post(&self, outgoing: &Outgoing<'_>) -> Result<Outcome, Silence> {
        let body = serde_json::to_vec(&Body::of(outgoing)).map_err(|error| {
            let detail = format!("cannot be written as JSON: {error}");
            Silence::Failed(Failure::permanent(Reason::Internal, detail))
        })?;
        let now = Timestamp::now();
        let (id, seconds) = (outgoing.delivery.to_string(), now.as_millis() / 1_000);
        let answer = self
            .client
            .post(self.url.clone())
            .header(CONTENT_TYPE, "application/json")
            .header("webhook-id", &id)
            .header("webhook-timestamp", seconds)
            .header(
                "webhook-signature",
                signatures(&self.keys, &id, seconds, &body),
            )
            .body(body)
            .send()
            .await
            .map_err(|error| silence(&error, self.limit))?;
        let outcome = classify(answer.status(), answer.headers(), &self.url, now);
        // Read to its end, the connection serves again; given up, it is closed.
        let _ = tokio::time::timeout(ANSWER_WAIT, finish(answer)).await;
        Ok(outcome)
    }
}

async fn finish(mut answer: reqwest::Response) {
    let mut read = 0;
    while let Ok(Some(part)) = answer.chunk().await {
        read += part.len();
        if ANSWER_MAX < read {
            return;
        }
    }
}

#[async_trait]
impl Sender for Webhook {
    fn name(&self) -> &str {
        NAME
    }

    fn audience(&self) -> Audience {
        Audience::PerSubmission
    }

    fn concurrency(&self) -> usize {
        CONCURRENCY
    }

    fn endpoints(&self) -> Vec<Endpoint> {
        let endpoint = |port: &Port| Endpoint {
            name: port.name.clone(),
            version: port.version(),
            disable_after: port.patience,
        };
        self.ports.iter().map(endpoint).collect()
    }

    async fn targets(&self, notification: &Outgoing<'_>) -> Result<Vec<String>, Failure> {
        let wanted = self.ports.iter().filter(|port| port.wants(notification));
        Ok(wanted.map(|port| port.name.clone()).collect())
    }

    async fn send(&self, notification: &Outgoing<'_>) -> Outcome {
        if notification.target.is_empty() {
            return skipped(Reason::Muted, "no endpoint's filter lets it pass");
        }
        let Some(port) = self
            .ports
            .iter()
            .find(|port| port.name == notification.target)
        else {
            return skipped(
                Reason::Config,
                "no endpoint of this name is configured any more",
            );
        };
        if !port.allow.allows_literal(&port.url) {
            let detail = "its address is private; see `allowPrivate`";
            return Outcome::Failed(Failure::permanent(Reason::Config, detail));
        }
        let Ok(place) = tokio::time::timeout(PLACE_WAIT, port.places.acquire()).await else {
            let busy =
                Failure::transient(Reason::Rate, "the endpoint is busy with other deliveries");
            return waits(OPEN_MIN, busy);
        };
        let pass = match self.breakers.ask(&port.name, Instant::now()) {
            Ok(pass) => pass,
            Err(after) => {
                let detail = "the endpoint is down; it is tried again from time to time";
                return waits(after, Failure::transient(Reason::Network, detail));
            }
        };
        let came = port.post(notification).await;
        drop(place);
        match came {
            Ok(outcome) => {
                pass.well();
                outcome
            }
            Err(Silence::Down(why)) => pass.down(why, Instant::now()),
            Err(Silence::Failed(why)) => {
                pass.well();
                Outcome::Failed(why)
            }
        }
    }

    async fn probe(&self) -> Result<String, Failure> {
        let hosts: Vec<String> = self
            .ports
            .iter()
            .map(|port| format!("{} at {}", port.name, config::shown(&port.url)))
            .collect();
        Ok(hosts.join(", "))
    }
}

fn skipped(reason: Reason, detail: &str) -> Outcome {
    Outcome::Skipped {
        reason,
        detail: detail.to_owned(),
    }
}
