//! What foreign senders report: written into the timeline, and seen to.
//!
//! Their promise is at least once, with the delivery's id as idempotency key. An attempt that is
//! `pending` comes again at its time, one that `failed` is a dead letter that can be replayed.
//! Of deliveries that our own senders hold nothing is believed.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use uuid::Uuid;

use super::Pipeline;
use super::to_body;
use crate::delivery::Attempt;
use crate::delivery::DeliveryState;
use crate::failure::Failure;
use crate::failure::Reason;
use crate::queue::Message;
use crate::queue::Received;
use crate::store::DeadLetter;
use crate::store::Reported;
use crate::telemetry::Event;
use crate::telemetry::metric;
use crate::time::Timestamp;
use crate::topology;
use crate::worker::Verdict;
use crate::worker::Work;

/// Longest sentence of a foreign sender that is kept, in characters.
const DETAIL_CHARS_MAX: usize = 500;
/// Longest id of a service that is kept, in characters.
const PROVIDER_ID_CHARS_MAX: usize = 255;
/// The latest that a delivery may be put off in one go.
const LATER_MAX: Duration = Duration::from_secs(7 * 86_400);

/// Work on the queue of attempts.
pub struct Attempts(pub Arc<Pipeline>);

#[async_trait]
impl Work for Attempts {
    fn name(&self) -> &str {
        "attempts"
    }

    async fn work(&self, batch: &[Received]) -> Result<Vec<Verdict>, Failure> {
        let now = Timestamp::now();
        let mut verdicts: Vec<Verdict> = Vec::with_capacity(batch.len());
        // The last word on each delivery, and the message that said it.
        let mut told: HashMap<Uuid, (usize, Attempt)> = HashMap::new();
        for (index, message) in batch.iter().enumerate() {
            verdicts.push(match self.read(message, now) {
                Ok(attempt) => {
                    let last = told.get(&attempt.delivery);
                    if last.is_none_or(|(_, last)| !last.state.is_final()) {
                        told.insert(attempt.delivery, (index, attempt));
                    }
                    Verdict::Complete(Vec::new())
                }
                Err(failure) => Verdict::Fail(failure),
            });
        }
        let attempts: Vec<Attempt> = told.values().map(|(_, one)| one.clone()).collect();
        if attempts.is_empty() {
            return Ok(verdicts);
        }
        let channels: Vec<String> = self.0.foreign.iter().map(|one| one.name.clone()).collect();
        let stand = self.0.store.report(&channels, &attempts).await?;
        let mut letters = Vec::new();
        for reported in stand {
            let Some((index, attempt)) = told.remove(&reported.delivery) else {
                continue;
            };
            self.tell(&attempt, &reported);
            match attempt.state {
                DeliveryState::Failed => letters.push(letter(&attempt, reported, now)?),
                DeliveryState::Pending => {
                    let again = self.again(&attempt, reported, now).await?;
                    if let Some(Verdict::Complete(next)) = verdicts.get_mut(index) {
                        next.push(again);
                    }
                }
                _ => {}
            }
        }
        for delivery in told.keys() {
            tracing::warn!(%delivery, "an attempt was reported of a delivery that is settled, or is not a foreign sender's");
        }
        if !letters.is_empty() {
            self.0.store.file_dead(&letters).await?;
        }
        Ok(verdicts)
    }
}

impl Attempts {
    /// Reads a report, and holds it to its limits.
    fn read(&self, message: &Received, now: Timestamp) -> Result<Attempt, Failure> {
        let invalid = |detail: String| Failure::permanent(Reason::Invalid, detail);
        let mut attempt: Attempt = serde_json::from_slice(&message.body)
            .map_err(|error| invalid(format!("is not an attempt: {error}")))?;
        match attempt.state {
            DeliveryState::Sent => attempt.reason = None,
            DeliveryState::Skipped | DeliveryState::Failed => {
                attempt.reason = attempt.reason.or(Some(Reason::Rejected));
            }
            DeliveryState::Pending => {
                attempt.reason = attempt.reason.or(Some(Reason::Server));
                let soon = self.0.schedule.wait_after(1, None).unwrap_or_default();
                let asked = attempt.next_at.unwrap_or_else(|| now.plus(soon));
                attempt.next_at = Some(asked.max(now).min(now.plus(LATER_MAX)));
            }
            other => {
                let word = other.as_str();
                return Err(invalid(format!(
                    "`{word}` is not an outcome: say sent, skipped, failed or pending"
                )));
            }
        }
        if attempt.state != DeliveryState::Pending {
            attempt.next_at = None;
            attempt.uncounted = false;
        }
        let cut = |text: String, limit: usize| text.chars().take(limit).collect();
        attempt.detail = attempt.detail.map(|text| cut(text, DETAIL_CHARS_MAX));
        attempt.provider_id = attempt
            .provider_id
            .map(|text| cut(text, PROVIDER_ID_CHARS_MAX));
        Ok(attempt)
    }

    /// The delivery, for its worker, at the time it asked for.
    async fn again(
        &self,
        attempt: &Attempt,
        reported: Reported,
        now: Timestamp,
    ) -> Result<Message, Failure> {
        let mut batch = reported.batch;
        let channel = batch.channel.clone();
        for item in &mut batch.items {
            item.tries = reported.tries;
        }
        self.0.introduce(&channel, &mut batch.items).await?;
        let id = reported.delivery.to_string();
        Ok(Message {
            delay: attempt.next_at.map(|at| at.since(now)),
            ..Message::new(topology::deliver(&channel, false), id, to_body(&batch)?)
        })
    }

    fn tell(&self, attempt: &Attempt, reported: &Reported) {
        let channel = reported.batch.channel.clone();
        let reason = attempt.reason.map_or("", Reason::as_str);
        let outcome = match attempt.state {
            DeliveryState::Pending => "retrying",
            state => state.as_str(),
        };
        metrics::counter!(metric::DELIVERIES,
            "channel" => channel.clone(), "outcome" => outcome, "reason" => reason)
        .increment(1);
        let submission = reported.batch.header.id;
        tracing::info!(delivery = %attempt.delivery, submission.id = %submission, channel,
            attempt = reported.tries, outcome, reason, "delivery");
        let item = reported.batch.items.first();
        let to = item.and_then(|item| item.user.clone());
        let to = to.unwrap_or_else(|| "everybody".to_owned());
        self.0.events.tell(match attempt.state {
            DeliveryState::Sent => Event::Sent {
                submission,
                channel,
                to,
                at: attempt.provider_id.clone(),
            },
            state => Event::Failed {
                submission: Some(submission),
                stage: channel,
                to,
                reason: attempt.reason.unwrap_or(Reason::Internal),
                detail: attempt.detail.clone().unwrap_or_default(),
                next: match (state, attempt.next_at) {
                    (_, Some(at)) => format!("again at {at}"),
                    (DeliveryState::Failed, None) => "dead letter".to_owned(),
                    (_, None) => state.as_str().to_owned(),
                },
            },
        });
    }
}

fn letter(attempt: &Attempt, reported: Reported, now: Timestamp) -> Result<DeadLetter, Failure> {
    let batch = reported.batch;
    let body = to_body(&batch)?;
    Ok(DeadLetter {
        id: 0,
        message: format!("{}|{}|reported", reported.delivery, reported.tries),
        stage: topology::deliver(&batch.channel, false),
        reason: attempt.reason.unwrap_or(Reason::Internal),
        detail: attempt.detail.clone().unwrap_or_default(),
        tries: reported.tries,
        died_at: now,
        submission: Some(batch.header.id),
        origin: Some(batch.header.origin),
        deliveries: vec![reported.delivery],
        headers: crate::queue::Headers::new(),
        body,
        replayed_at: None,
    })
}
