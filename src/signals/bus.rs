//! The events bus of a Backstage (contract 7): what its other plugins tell open pages.
//!
//! They publish signals to the bus, not to an HTTP route. So each process with open pages holds a
//! subscription of its own, under an id of its own: the bus gives each every signal, and nothing
//! needs to be passed on. Tidings does not publish its own signals there: nobody else serves
//! pages, and this subscription would bring every one of them back a second time.

use std::time::Duration;

use http::Method;
use http::StatusCode;
use serde::Deserialize;
use serde_json::Value;
use serde_json::json;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::Hub;
use crate::backstage::Backstage;
use crate::failure::Failure;
use crate::signal::Signal;
use crate::telemetry::Readiness;
use crate::telemetry::metric;

/// The plugin whose bus it is.
const EVENTS: &str = "events";

/// The topic of signals.
const TOPIC: &str = "signals";

/// What a page misses while this is wrong, in `/readyz`.
const WHAT: &str = "events bus";

/// Says how long a poll that is answered 202 is held open, in milliseconds.
const HELD: &str = "backstage-events-notify-timeout";

/// How long a poll is held where the bus does not say. Source: the peer.
const HELD_DEFAULT: Duration = Duration::from_secs(55);

/// The longest that a poll is believed to be held.
const HELD_MAX: Duration = Duration::from_secs(600);

/// How much longer than that we wait.
const GRACE: Duration = Duration::from_secs(10);

/// The longest that anything else may take.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Largest answer: ten events of the bus's 5 MB.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Wait after a failure, at first; each time twice as long.
const PAUSE: Duration = Duration::from_secs(1);

/// Wait after a failure, at most.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// Wait where there is no bus at all: somebody would have to install it.
const PAUSE_ABSENT: Duration = Duration::from_secs(600);

/// A subscription to the bus, for the pages of this process.
pub struct Bus {
    /// The Backstage, with tokens of the plugin `signals`.
    pub backstage: Backstage,
    /// The pages.
    pub hub: Hub,
    /// Where it says that the bus is away.
    pub readiness: Readiness,
    /// Whether a Backstage without a bus is a fault (`events.useEventBus: always`).
    pub required: bool,
}

/// How a question to the bus ended.
enum Answer {
    /// As hoped.
    Well,
    /// There is no such thing.
    Absent,
}

#[derive(Deserialize)]
struct Events {
    events: Vec<Value>,
}

impl Bus {
    /// Listens until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        shutdown.run_until_cancelled(self.listen()).await;
        metrics::gauge!(metric::BUS_SUBSCRIBED).set(0);
    }

    async fn listen(&self) {
        let id = format!("tidings-{}", Uuid::new_v4().simple());
        let mut pause = PAUSE;
        loop {
            let wait = match self.subscribe(&id).await {
                Ok(Answer::Well) => {
                    // A subscription that holds for one poll is a new beginning.
                    let (held, failure) = self.poll_all(&id).await;
                    if held {
                        pause = PAUSE;
                    }
                    if let Some(failure) = failure {
                        self.away(&failure);
                    }
                    pause
                }
                Ok(Answer::Absent) if self.required => {
                    self.away(&self.backstage.refusal(EVENTS, StatusCode::NOT_FOUND));
                    pause
                }
                Ok(Answer::Absent) => {
                    self.readiness.well(WHAT);
                    tracing::info!(
                        "this Backstage has no events bus: pages hear of notifications alone"
                    );
                    PAUSE_ABSENT
                }
                Err(failure) => {
                    self.away(&failure);
                    pause
                }
            };
            metrics::gauge!(metric::BUS_SUBSCRIBED).set(0);
            tokio::time::sleep(wait).await;
            pause = PAUSE_MAX.min(pause * 2);
        }
    }

    fn away(&self, failure: &Failure) {
        self.readiness.note(WHAT, &failure.detail);
    }

    async fn subscribe(&self, id: &str) -> Result<Answer, Failure> {
        let path = format!("/bus/v1/subscriptions/{id}");
        let body = json!({"topics": [TOPIC]});
        let asked = self
            .backstage
            .send(EVENTS, Method::PUT, &path, Some(&body), TIMEOUT);
        match asked.await?.status() {
            status if status.is_success() => Ok(Answer::Well),
            StatusCode::NOT_FOUND => Ok(Answer::Absent),
            status => Err(self.backstage.refusal(EVENTS, status)),
        }
    }

    /// Polls until the subscription is gone or the bus fails; says whether it held at all.
    async fn poll_all(&self, id: &str) -> (bool, Option<Failure>) {
        let mut held = false;
        loop {
            match self.poll(id).await {
                Ok(Answer::Well) => {
                    held = true;
                    self.readiness.well(WHAT);
                    metrics::gauge!(metric::BUS_SUBSCRIBED).set(1);
                }
                Ok(Answer::Absent) => {
                    tracing::info!("the events bus has forgotten our subscription");
                    return (held, None);
                }
                Err(failure) => return (held, Some(failure)),
            }
        }
    }

    async fn poll(&self, id: &str) -> Result<Answer, Failure> {
        let path = format!("/bus/v1/subscriptions/{id}/events");
        let most = HELD_MAX + GRACE;
        let asked = self.backstage.send(EVENTS, Method::GET, &path, None, most);
        // The head comes at once, whether there is news or not.
        let mut answer = match tokio::time::timeout(TIMEOUT, asked).await {
            Ok(answer) => answer?,
            Err(_) => {
                return Err(Failure::dependency(
                    crate::failure::Reason::Timeout,
                    "Backstage's events bus does not answer",
                ));
            }
        };
        match answer.status() {
            StatusCode::NOT_FOUND => Ok(Answer::Absent),
            StatusCode::ACCEPTED => {
                let says = answer.headers().get(HELD);
                let held = says
                    .and_then(|value| value.to_str().ok()?.parse().ok())
                    .map_or(HELD_DEFAULT, Duration::from_millis)
                    .min(HELD_MAX);
                // The end of the body, or its breaking off, is the word to ask again.
                let news = async { while let Ok(Some(_)) = answer.chunk().await {} };
                let _ = tokio::time::timeout(held + GRACE, news).await;
                Ok(Answer::Well)
            }
            _ => {
                let read = self.backstage.read(EVENTS, answer, ANSWER_BYTES_MAX);
                let Events { events } = match tokio::time::timeout(TIMEOUT, read).await {
                    Ok(events) => events?,
                    Err(_) => {
                        return Err(Failure::dependency(
                            crate::failure::Reason::Timeout,
                            "an answer of Backstage's events bus does not end",
                        ));
                    }
                };
                for event in events {
                    self.take(event);
                }
                Ok(Answer::Well)
            }
        }
    }

    /// Tells pages of an event, or counts what is none of ours.
    fn take(&self, mut event: Value) {
        let payload = event.get_mut("payload").map(Value::take);
        let signal = payload
            .filter(|_| event["topic"] == TOPIC)
            .and_then(Signal::of_bus);
        let outcome = match &signal {
            Some(signal) => {
                self.hub.tell(signal);
                "told"
            }
            None => "ignored",
        };
        metrics::counter!(metric::BUS_EVENTS, "outcome" => outcome).increment(1);
    }
}
