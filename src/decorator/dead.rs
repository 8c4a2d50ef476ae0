//! Filing dead letters: from the queue, where nobody can look at them, into the store.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;
use sha2::Digest;
use sha2::Sha256;
use uuid::Uuid;

use super::Pipeline;
use crate::delivery::DeliveryBatch;
use crate::failure::Failure;
use crate::failure::Kind;
use crate::failure::Reason;
use crate::queue::HEADER_DETAIL;
use crate::queue::HEADER_MESSAGE;
use crate::queue::HEADER_REASON;
use crate::queue::HEADER_REPLAYS;
use crate::queue::HEADER_STAGE;
use crate::queue::HEADER_TRIES;
use crate::queue::Received;
use crate::store::DeadLetter;
use crate::submission::hex;
use crate::telemetry::Event;
use crate::telemetry::metric;
use crate::time::Timestamp;
use crate::topology;
use crate::worker::Verdict;
use crate::worker::Work;

/// Work on the queue of dead letters.
pub struct Undertaker(pub Arc<Pipeline>);

#[async_trait]
impl Work for Undertaker {
    fn name(&self) -> &str {
        "dead"
    }

    async fn work(&self, batch: &[Received]) -> Result<Vec<Verdict>, Failure> {
        let now = Timestamp::now();
        let letters: Vec<DeadLetter> = batch.iter().map(|message| letter(message, now)).collect();
        if let Err(error) = self.0.store.file_dead(&letters).await {
            let failure = Failure::from(error);
            if failure.kind == Kind::Dependency || 1 < batch.len() {
                return Err(failure);
            }
            // A letter that cannot be filed must not die again here: it would come back at once.
            let again = Failure::dependency(failure.reason, failure.detail);
            return Ok(vec![Verdict::Fail(again)]);
        }
        for letter in letters {
            self.tell(letter);
        }
        Ok(batch
            .iter()
            .map(|_| Verdict::Complete(Vec::new()))
            .collect())
    }
}

impl Undertaker {
    fn tell(&self, letter: DeadLetter) {
        metrics::counter!(metric::DEAD_LETTERS,
            "stage" => letter.stage.clone(), "reason" => letter.reason.as_str())
        .increment(1);
        tracing::warn!(stage = letter.stage, reason = %letter.reason, detail = letter.detail,
            tries = letter.tries, "a dead letter was filed");
        self.0.events.tell(Event::Failed {
            submission: letter.submission,
            stage: letter.stage,
            to: letter.origin.unwrap_or_default(),
            reason: letter.reason,
            detail: letter.detail,
            next: "dead letter".to_owned(),
        });
    }
}

/// A message as a dead letter; what its headers and body do not say stays open.
fn letter(message: &Received, now: Timestamp) -> DeadLetter {
    let header = |name: &str| message.headers.get(name).cloned();
    let body = serde_json::from_slice::<Value>(&message.body).unwrap_or(Value::Null);
    let field = |name: &str| body.get(name).and_then(Value::as_str).map(str::to_owned);
    let stage = header(HEADER_STAGE).unwrap_or_else(|| message.key.clone());
    // A producer's own body may claim any id and origin; nobody has checked it.
    let ours = message.producer().is_none();
    let deliveries = if stage.starts_with("deliver.") {
        serde_json::from_slice::<DeliveryBatch>(&message.body)
            .map(|batch| batch.items.iter().map(|item| item.id).collect())
            .unwrap_or_default()
    } else {
        Vec::new()
    };
    let mut headers = message.headers.clone();
    if !message.id.is_empty() {
        headers.insert(HEADER_MESSAGE.to_owned(), message.id.clone());
    }
    DeadLetter {
        id: 0,
        message: identity(message, &stage),
        stage: if stage == topology::SUBMISSIONS && !ours {
            "submit".to_owned()
        } else {
            stage
        },
        reason: header(HEADER_REASON)
            .and_then(|word| word.parse().ok())
            .unwrap_or(Reason::Internal),
        detail: header(HEADER_DETAIL).unwrap_or_default(),
        tries: header(HEADER_TRIES)
            .and_then(|tries| tries.parse().ok())
            .unwrap_or(1),
        died_at: now,
        submission: field("id")
            .filter(|_| ours)
            .and_then(|id| Uuid::parse_str(&id).ok()),
        origin: if ours {
            field("origin")
        } else {
            message.producer().map(str::to_owned)
        },
        deliveries,
        headers,
        body: message.body.to_vec(),
        replayed_at: None,
    }
}

/// Distinct for each death and the same when this death is filed again: a message without an id
/// cannot be told from its double, so each of those is filed.
fn identity(message: &Received, stage: &str) -> String {
    if message.id.is_empty() {
        return Uuid::now_v7().to_string();
    }
    let replays = message
        .headers
        .get(HEADER_REPLAYS)
        .map_or("0", String::as_str);
    let tries = message
        .headers
        .get(HEADER_TRIES)
        .map_or("0", String::as_str);
    let body = hex(&Sha256::digest(&message.body));
    format!("{stage}|{}|{tries}|{replays}|{body}", message.id)
}
