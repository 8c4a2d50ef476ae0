//! A sender's queue: each delivery is sent, and what came of it reported as an attempt.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::FutureExt as _;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tokio::sync::Semaphore;
use url::Url;
use uuid::Uuid;

use crate::catalog::CatalogUser;
use crate::config::Settings;
use crate::delivery::Attempt;
use crate::delivery::DeliveryBatch;
use crate::delivery::DeliveryItem;
use crate::delivery::DeliveryState;
use crate::failure::Failure;
use crate::failure::Kind;
use crate::failure::Reason;
use crate::failure::RetrySchedule;
use crate::processor::Outcome;
use crate::processor::Outgoing;
use crate::processor::Sender;
use crate::processor::foreign::ForeignSender;
use crate::processor::personal;
use crate::queue::Message;
use crate::queue::Received;
use crate::sender::absolute_link;
use crate::telemetry::Readiness;
use crate::telemetry::metric;
use crate::time::Timestamp;
use crate::topology::ATTEMPTS;
use crate::worker::Verdict;
use crate::worker::Work;

/// The longest one send may take.
const SEND_TIMEOUT: Duration = Duration::from_secs(30);
/// When what could not be tried, since the service is away, comes again.
const AWAY: Duration = Duration::from_secs(10);

/// Work on the queues of a sender.
pub(super) struct Deliver {
    sender: Arc<dyn Sender>,
    channel: String,
    schedule: RetrySchedule,
    app_base_url: Url,
    readiness: Readiness,
    gate: Semaphore,
}

impl Deliver {
    pub(super) fn new(
        sender: Arc<dyn Sender>,
        route: &ForeignSender,
        settings: &Settings,
        readiness: Readiness,
    ) -> Self {
        Self {
            channel: route.name.clone(),
            schedule: settings.retry_of(&route.name).clone(),
            app_base_url: settings.app_base_url.clone(),
            readiness,
            gate: Semaphore::new(sender.concurrency().max(1)),
            sender,
        }
    }
}

#[async_trait]
impl Work for Deliver {
    fn name(&self) -> &str {
        &self.channel
    }

    fn batch(&self) -> usize {
        8
    }

    fn timeout(&self) -> Duration {
        Duration::from_secs(600)
    }

    async fn work(&self, batch: &[Received]) -> Result<Vec<Verdict>, Failure> {
        let mut verdicts = Vec::with_capacity(batch.len());
        for message in batch {
            let attempts = match serde_json::from_slice::<DeliveryBatch>(&message.body) {
                Ok(deliveries) => self.deliver(&deliveries).await?,
                Err(error) => {
                    // Filed where our own workers see that it is no attempt either.
                    tracing::warn!(message = message.id, %error, "this is no batch of deliveries");
                    let body = message.body.clone();
                    vec![Message::new(ATTEMPTS, message.id.clone(), body)]
                }
            };
            verdicts.push(Verdict::Complete(attempts));
        }
        Ok(verdicts)
    }
}

impl Deliver {
    async fn deliver(&self, batch: &DeliveryBatch) -> Result<Vec<Message>, Failure> {
        let mut sending = FuturesUnordered::new();
        for item in &batch.items {
            sending.push(self.attempt(batch, item));
        }
        let mut messages = Vec::with_capacity(batch.items.len());
        while let Some(attempt) = sending.next().await {
            let body = serde_json::to_vec(&attempt).map_err(|error| {
                Failure::permanent(Reason::Internal, format!("cannot be written: {error}"))
            })?;
            let id = attempt.delivery.to_string();
            messages.push(Message::new(ATTEMPTS, id, body));
        }
        Ok(messages)
    }

    /// Sends one delivery and says what came of it.
    async fn attempt(&self, batch: &DeliveryBatch, item: &DeliveryItem) -> Attempt {
        // The gate is never closed; if it were, sending without it would still be right.
        let _room = self.gate.acquire().await.ok();
        let person = item.person.as_ref().map(|contact| CatalogUser {
            reference: item.user.clone().unwrap_or_default(),
            display_name: contact.display_name.clone(),
            email: contact.email.clone(),
            annotations: contact.annotations.clone(),
        });
        let payload = personal(&batch.payload, item.patch.as_ref());
        let outgoing = Outgoing {
            delivery: item.id,
            notification: item.notification,
            submission: batch.header.id,
            origin: &batch.header.origin,
            payload: &payload,
            link: absolute_link(payload.link.as_deref(), &self.app_base_url),
            created: item.created,
            user: item.user.as_deref(),
            person: person.as_ref(),
            recipients: match item.user {
                Some(_) => &[],
                None => &batch.recipients,
            },
            target: &item.target,
            earlier: None,
            attempt: item.tries.saturating_add(1),
        };
        let outcome = self.send_to_all(&outgoing, item).await;
        let attempt = self.judge(item, outcome, Timestamp::now());
        let reason = attempt.reason.map_or("", Reason::as_str);
        tracing::info!(delivery = %item.id, submission.id = %batch.header.id,
            channel = self.channel, state = attempt.state.as_str(), reason, "delivery");
        metrics::counter!(metric::DELIVERIES, "channel" => self.channel.clone(),
            "outcome" => attempt.state.as_str(), "reason" => reason)
        .increment(1);
        attempt
    }

    /// Sends to every target, each under an id of its own; the first that does not work is what
    /// came of it, and all are told again.
    async fn send_to_all(&self, outgoing: &Outgoing<'_>, item: &DeliveryItem) -> Outcome {
        let many = item.target.is_empty() && (item.user.is_none() || self.sender.fans_out());
        let targets = if many {
            match self.sender.targets(outgoing).await {
                Ok(targets) => targets,
                Err(failure) => return Outcome::Failed(failure),
            }
        } else {
            Vec::new()
        };
        if targets.is_empty() {
            return self.send(outgoing).await;
        }
        for target in &targets {
            let one = Outgoing {
                delivery: Uuid::new_v5(&outgoing.delivery, target.as_bytes()),
                target,
                ..outgoing.clone()
            };
            let outcome = self.send(&one).await;
            if !matches!(outcome, Outcome::Sent { .. }) {
                return outcome;
            }
        }
        Outcome::Sent { provider_id: None }
    }

    async fn send(&self, outgoing: &Outgoing<'_>) -> Outcome {
        let sending = AssertUnwindSafe(self.sender.send(outgoing)).catch_unwind();
        match tokio::time::timeout(SEND_TIMEOUT, sending).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Outcome::Failed(Failure::permanent(Reason::Panic, "it panicked")),
            Err(_) => Outcome::Failed(Failure::transient(
                Reason::Timeout,
                format!("no answer within {} s", SEND_TIMEOUT.as_secs()),
            )),
        }
    }

    /// An outcome as it is reported.
    fn judge(&self, item: &DeliveryItem, outcome: Outcome, now: Timestamp) -> Attempt {
        let attempt = |state, reason, detail| Attempt {
            delivery: item.id,
            state,
            reason,
            detail,
            provider_id: None,
            next_at: None,
            uncounted: false,
        };
        let later = |reason, detail, wait| Attempt {
            next_at: Some(now.plus(wait)),
            ..attempt(DeliveryState::Pending, Some(reason), Some(detail))
        };
        let topic = format!("service of {}", self.channel);
        match outcome {
            Outcome::Sent { provider_id } => {
                self.readiness.well(&topic);
                Attempt {
                    provider_id,
                    ..attempt(DeliveryState::Sent, None, None)
                }
            }
            Outcome::Skipped { reason, detail } => {
                attempt(DeliveryState::Skipped, Some(reason), Some(detail))
            }
            Outcome::Gone { detail } => {
                attempt(DeliveryState::Failed, Some(Reason::Rejected), Some(detail))
            }
            Outcome::Waits {
                after,
                reason,
                detail,
            } => Attempt {
                uncounted: true,
                ..later(reason, detail, after)
            },
            Outcome::Failed(failure) => match failure.kind {
                Kind::Dependency => {
                    self.readiness.trouble(&topic, &failure.detail);
                    Attempt {
                        uncounted: true,
                        ..later(failure.reason, failure.detail, AWAY)
                    }
                }
                Kind::Transient { after } => {
                    match self
                        .schedule
                        .wait_after(item.tries.saturating_add(1), after)
                    {
                        Some(wait) => later(failure.reason, failure.detail, wait),
                        None => attempt(
                            DeliveryState::Failed,
                            Some(failure.reason),
                            Some(failure.detail),
                        ),
                    }
                }
                Kind::Permanent => attempt(
                    DeliveryState::Failed,
                    Some(failure.reason),
                    Some(failure.detail),
                ),
            },
        }
    }
}
