//! What came of sending: recording it, and saying what follows.

use std::collections::BTreeMap;
use std::collections::HashSet;
use std::time::Duration;

use serde_json::Map;
use uuid::Uuid;

use super::Deliveries;
use super::claims::Claimed;
use super::claims::Turn;
use crate::catalog::CatalogUser;
use crate::delivery::Attempt;
use crate::delivery::DELIVERIES_PER_MESSAGE_MAX;
use crate::delivery::DeliveryBatch;
use crate::delivery::DeliveryItem;
use crate::delivery::DeliveryState;
use crate::failure::Failure;
use crate::failure::Kind;
use crate::failure::Reason;
use crate::processor::Outcome;
use crate::queue::Headers;
use crate::queue::Message;
use crate::store::DeadLetter;
use crate::telemetry::Event;
use crate::telemetry::metric;
use crate::time::Timestamp;
use crate::topology;

/// What came of one claimed delivery.
pub(super) enum Came {
    /// The sender said so.
    Of(Outcome),
    /// It stands for these targets.
    Targets(Vec<String>),
}

/// A claimed delivery, for whom it was, and what came of it.
pub(super) struct Try<'a> {
    pub(super) claimed: &'a Claimed<'a>,
    pub(super) person: Option<&'a CatalogUser>,
    pub(super) came: Came,
}

/// What follows from each batch of a turn.
struct Following {
    messages: Vec<Vec<Message>>,
    /// Items to come again, by batch and wait.
    again: BTreeMap<(usize, Duration), Vec<DeliveryItem>>,
}

impl Deliveries {
    /// Records every try, files the dead letters that come of them, and returns what follows from
    /// each batch.
    pub(super) async fn record(
        &self,
        turn: &Turn<'_>,
        tries: Vec<Try<'_>>,
    ) -> Result<Vec<Vec<Message>>, Failure> {
        let now = Timestamp::now();
        let mut following = Following {
            messages: vec![Vec::new(); turn.batches.len()],
            again: BTreeMap::new(),
        };
        for (index, item, at) in &turn.later {
            following
                .again
                .entry((*index, at.since(now)))
                .or_default()
                .push((*item).clone());
        }
        let (mut attempts, mut letters, mut told) = (Vec::new(), Vec::new(), Vec::new());
        for one in tries {
            let claimed = one.claimed;
            let outcome = match one.came {
                Came::Targets(targets) if !targets.is_empty() => {
                    let messages = self.expand(turn, claimed, targets).await?;
                    following.messages[claimed.index].extend(messages);
                    continue;
                }
                Came::Targets(_) => Outcome::Skipped {
                    reason: Reason::NoAddress,
                    detail: "the sender names no target for it".to_owned(),
                },
                Came::Of(outcome) => outcome,
            };
            let Some((attempt, wait)) = self.attempt(claimed, outcome, now) else {
                continue;
            };
            if attempt.state == DeliveryState::Failed {
                letters.push(letter(turn.token, claimed, &attempt, now));
            }
            told.push((claimed, one.person, attempt.clone(), wait));
            attempts.push(attempt);
        }
        let recorded: HashSet<Uuid> = if attempts.is_empty() {
            HashSet::new()
        } else {
            let recorded = self.store.record(turn.token, &attempts, &letters).await?;
            recorded.into_iter().collect()
        };
        for (claimed, person, attempt, wait) in told {
            if !recorded.contains(&attempt.delivery) {
                tracing::warn!(delivery = %attempt.delivery, "its lease went to another sender");
                continue;
            }
            if let Some(wait) = wait {
                let again = following.again.entry((claimed.index, wait)).or_default();
                again.push(claimed.item.clone());
            }
            self.tell(claimed, person, &attempt, wait);
        }
        following.into_messages(turn)
    }

    /// A try as it is recorded, and when to try again. `None` for a dependency's failure: that
    /// was no try.
    fn attempt(
        &self,
        claimed: &Claimed<'_>,
        outcome: Outcome,
        now: Timestamp,
    ) -> Option<(Attempt, Option<Duration>)> {
        let attempt = |state, reason, detail, provider_id| Attempt {
            delivery: claimed.item.id,
            state,
            reason,
            detail,
            provider_id,
            next_at: None,
            uncounted: false,
        };
        match outcome {
            Outcome::Sent { provider_id } => {
                Some((attempt(DeliveryState::Sent, None, None, provider_id), None))
            }
            Outcome::Skipped { reason, detail } => Some((
                attempt(DeliveryState::Skipped, Some(reason), Some(detail), None),
                None,
            )),
            Outcome::Failed(failure) => {
                let wait = match failure.kind {
                    Kind::Dependency => return None,
                    Kind::Transient { after } => self.schedule.wait_after(claimed.attempt, after),
                    Kind::Permanent => None,
                };
                let state = wait.map_or(DeliveryState::Failed, |_| DeliveryState::Pending);
                let mut attempt = attempt(state, Some(failure.reason), Some(failure.detail), None);
                attempt.next_at = wait.map(|wait| now.plus(wait));
                Some((attempt, wait))
            }
            Outcome::Gone { detail } => {
                let reason = Some(Reason::Rejected);
                Some((
                    attempt(DeliveryState::Failed, reason, Some(detail), None),
                    None,
                ))
            }
            Outcome::Waits {
                after,
                reason,
                detail,
            } => {
                let attempt = Attempt {
                    next_at: Some(now.plus(after)),
                    uncounted: true,
                    ..attempt(DeliveryState::Pending, Some(reason), Some(detail), None)
                };
                Some((attempt, Some(after)))
            }
        }
    }

    /// Replaces a delivery by one for each target. Many take the slow lane; a few stay on theirs.
    async fn expand(
        &self,
        turn: &Turn<'_>,
        claimed: &Claimed<'_>,
        targets: Vec<String>,
    ) -> Result<Vec<Message>, Failure> {
        let children = Self::children(claimed, targets);
        self.store
            .expand(turn.token, claimed.item.id, &children)
            .await?;
        let items: Vec<DeliveryItem> = children
            .into_iter()
            .map(|child| DeliveryItem {
                id: child.id,
                target: child.target,
                ..claimed.item.clone()
            })
            .collect();
        let slow = topology::deliver(&claimed.batch.channel, true);
        let (own, _) = &turn.batches[claimed.index];
        let many = topology::BULK_PEOPLE < items.len();
        messages(if many { &slow } else { own }, claimed.batch, items, None)
    }

    fn tell(
        &self,
        claimed: &Claimed<'_>,
        person: Option<&CatalogUser>,
        attempt: &Attempt,
        wait: Option<Duration>,
    ) {
        let channel = claimed.batch.channel.clone();
        let reason = attempt.reason.map_or("", Reason::as_str);
        let outcome = match wait {
            Some(_) if attempt.uncounted => "waiting",
            Some(_) => "retrying",
            None => attempt.state.as_str(),
        };
        metrics::counter!(metric::DELIVERIES,
            "channel" => channel.clone(), "outcome" => outcome, "reason" => reason)
        .increment(1);
        tracing::info!(delivery = %attempt.delivery, submission.id = %claimed.batch.header.id,
            channel, attempt = claimed.attempt, outcome, reason, "delivery");
        let paced = attempt.uncounted && attempt.reason == Some(Reason::Rate);
        if paced || !self.events.is_heard() {
            return;
        }
        let item = claimed.item;
        let to = person
            .and_then(|person| person.email.clone())
            .or_else(|| Some(item.target.clone()).filter(|target| !target.is_empty()))
            .or_else(|| item.user.clone())
            .unwrap_or_else(|| "everybody".to_owned());
        let submission = claimed.batch.header.id;
        self.events.tell(match attempt.state {
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
                next: match (state, wait) {
                    (_, Some(wait)) => format!("again in {} s", wait.as_secs_f64()),
                    (DeliveryState::Failed, None) => "dead letter".to_owned(),
                    (_, None) => state.as_str().to_owned(),
                },
            },
        });
    }
}

impl Following {
    fn into_messages(mut self, turn: &Turn<'_>) -> Result<Vec<Vec<Message>>, Failure> {
        for ((index, wait), items) in self.again {
            let (key, batch) = &turn.batches[index];
            self.messages[index].extend(messages(key, batch, items, Some(wait))?);
        }
        Ok(self.messages)
    }
}

/// Some deliveries of a batch as messages.
fn messages(
    key: &str,
    batch: &DeliveryBatch,
    items: Vec<DeliveryItem>,
    delay: Option<Duration>,
) -> Result<Vec<Message>, Failure> {
    items
        .chunks(DELIVERIES_PER_MESSAGE_MAX)
        .map(|part| {
            let batch = batch.with(part.to_vec());
            let id = part
                .first()
                .map_or_else(String::new, |first| first.id.to_string());
            Ok(Message {
                delay: delay.filter(|delay| !delay.is_zero()),
                ..Message::new(key, id, body(&batch)?)
            })
        })
        .collect()
}

fn body(batch: &DeliveryBatch) -> Result<Vec<u8>, Failure> {
    serde_json::to_vec(batch).map_err(|error| {
        Failure::permanent(Reason::Internal, format!("cannot be written: {error}"))
    })
}

/// The dead letter of a delivery that is given up: a message that carries it alone.
fn letter(token: Uuid, claimed: &Claimed<'_>, attempt: &Attempt, now: Timestamp) -> DeadLetter {
    let batch = DeliveryBatch {
        extra: Map::new(),
        ..claimed.batch.with(vec![claimed.item.clone()])
    };
    DeadLetter {
        id: 0,
        message: format!("{}|{token}", claimed.item.id),
        stage: topology::deliver(&batch.channel, false),
        reason: attempt.reason.unwrap_or(Reason::Internal),
        detail: attempt.detail.clone().unwrap_or_default(),
        tries: claimed.attempt,
        died_at: now,
        submission: Some(batch.header.id),
        origin: Some(batch.header.origin.clone()),
        deliveries: vec![claimed.item.id],
        headers: Headers::new(),
        // A batch that was read can be written; an empty body would be refused on replay.
        body: body(&batch).unwrap_or_default(),
        replayed_at: None,
    }
}
