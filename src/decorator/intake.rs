//! Taking submissions and chunks up: the two kinds of work that end in the pipeline.

use std::sync::Arc;

use async_trait::async_trait;
use futures::StreamExt as _;
use futures::stream::FuturesOrdered;
use serde_json::Value;
use tokio::sync::Semaphore;

use super::Parcel;
use super::Pipeline;
use super::expand;
use super::slip::Arrived;
use crate::failure::Failure;
use crate::failure::Reason;
use crate::queue::Received;
use crate::recipients::Audience;
use crate::reply::Reply;
use crate::submission::Draft;
use crate::submission::Invalid;
use crate::submission::Submission;
use crate::submission::Via;
use crate::submission::check_content;
use crate::submission::is_key;
use crate::telemetry::metric;
use crate::time::Timestamp;
use crate::worker::Verdict;
use crate::worker::Work;

/// Submissions that are taken up side by side.
const TAKEN_UP_AT_ONCE: usize = 16;

/// Work on the submissions queues.
pub struct Intake(pub Arc<Pipeline>);

/// Work on the chunks queue.
pub struct Chunks(pub Arc<Pipeline>);

/// Why a submission is not taken up.
enum Refusal {
    /// It breaks a rule; the producer is told which.
    Invalid(Invalid),
    /// Something else, of this message or of a dependency.
    Failed(Failure),
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl From<Invalid> for Refusal {
    fn from(invalid: Invalid) -> Self {
        Self::Invalid(invalid)
    }
}

#[async_trait]
impl Work for Intake {
    fn name(&self) -> &str {
        "intake"
    }

    async fn work(&self, batch: &[Received]) -> Result<Vec<Verdict>, Failure> {
        let now = Timestamp::now();
        let mut verdicts = Verdicts::new(batch.len());
        let mut parcels = Vec::with_capacity(batch.len());
        // Side by side, since each may ask the catalog; in order, as they came.
        let room = Semaphore::new(TAKEN_UP_AT_ONCE);
        let mut taking = FuturesOrdered::new();
        for message in batch {
            taking.push_back(async {
                // Never closed; if it were, going on without it would still be right.
                let _room = room.acquire().await.ok();
                self.take_up(message, now).await
            });
        }
        for (index, message) in batch.iter().enumerate() {
            let Some(taken) = taking.next().await else {
                break;
            };
            match taken {
                Ok(parcel) => parcels.push((index, parcel)),
                Err(Refusal::Invalid(invalid)) => {
                    self.refuse(message, &invalid).await;
                    let failure = Failure::permanent(Reason::Invalid, invalid.with_place());
                    verdicts.set(index, Verdict::Fail(failure));
                }
                Err(Refusal::Failed(failure)) => verdicts.fail(index, failure)?,
            }
        }
        self.0.finish(parcels, verdicts).await
    }
}

impl Intake {
    /// Reads a submission, decorates it as a whole, checks it and expands it.
    async fn take_up(&self, message: &Received, now: Timestamp) -> Result<Parcel, Refusal> {
        let pipeline = &self.0;
        let mut submission = match message.producer() {
            Some(user) => self.read_producers(message, user, now)?,
            None => read_ours(message)?,
        };
        let (notes, dropped) = pipeline.chain.decorate_whole(&mut submission).await?;
        let audience = if dropped {
            Some(Audience::default())
        } else {
            check_content(&submission.payload, &pipeline.app_base_url)?;
            expand::audience(pipeline.catalog.as_ref(), &submission.recipients).await?
        };
        let (mut chunk, mut rest) = expand::cut(submission, audience, notes, now);
        // One that is dropped as a whole reaches nobody, and its timeline says so.
        chunk.dropped = u32::from(dropped);
        pipeline.hand_slips(&mut chunk, &mut rest);
        Ok(Parcel {
            chunk,
            reply: message.reply.clone(),
            rest,
        })
    }

    /// A body that a producer published itself: the same checks as over HTTP, and the origin from
    /// the broker's word.
    fn read_producers(
        &self,
        message: &Received,
        user: &str,
        now: Timestamp,
    ) -> Result<Submission, Refusal> {
        let Some(origin) = self.0.origins.get(user) else {
            let detail = if user.is_empty() {
                "the message has no user_id: publish it with the property user_id set to your broker user".to_owned()
            } else {
                format!("broker user `{user}` has no origin: name it under tidings.queue.origins")
            };
            return Err(Refusal::Failed(Failure::permanent(
                Reason::Unidentified,
                detail,
            )));
        };
        if self.0.body_limit < message.body.len() {
            let limit = self.0.body_limit;
            return Err(Invalid::at("#", &format!("is longer than {limit} bytes")).into());
        }
        let body: Value = serde_json::from_slice(&message.body)
            .map_err(|error| Invalid::at("#", &format!("is not JSON: {error}")))?;
        let draft = Draft::parse(&body)?;
        // Without a key nobody could tell a repeated message from a second one.
        let key = message.id.clone();
        if !is_key(&key) {
            return Err(Invalid::at(
                "message_id",
                "is missing or no idempotency key: set 1 to 255 visible ASCII characters",
            )
            .into());
        }
        metrics::counter!(metric::SUBMISSIONS, "origin" => origin.clone(), "outcome" => "accepted")
            .increment(1);
        Ok(draft.submit(origin, Some(key), Via::Queue, now))
    }

    /// Tells the producer why its submission is not taken up.
    async fn refuse(&self, message: &Received, invalid: &Invalid) {
        metrics::counter!(metric::SUBMISSIONS, "origin" => "", "outcome" => "invalid").increment(1);
        if let Some(reply) = &message.reply {
            // A producer's own body may claim any id.
            let ours = message
                .producer()
                .is_none()
                .then(|| read_ours(message).ok());
            let submission = ours.flatten().map(|one| one.header.id);
            let answer = Reply::invalid(submission, invalid.clone());
            if let Ok(body) = super::to_body(&answer) {
                self.0.queue.answer(reply, body.into()).await;
            }
        }
    }
}

/// A submission that our own ingest published.
fn read_ours(message: &Received) -> Result<Submission, Failure> {
    serde_json::from_slice(&message.body).map_err(|error| {
        Failure::permanent(Reason::Invalid, format!("is not a submission: {error}"))
    })
}

#[async_trait]
impl Work for Chunks {
    fn name(&self) -> &str {
        "chunks"
    }

    fn batch(&self) -> usize {
        16
    }

    async fn work(&self, batch: &[Received]) -> Result<Vec<Verdict>, Failure> {
        let mut verdicts = Verdicts::new(batch.len());
        let mut parcels = Vec::with_capacity(batch.len());
        for (index, message) in batch.iter().enumerate() {
            match self.0.arrive(message).await {
                Ok(Arrived::Here(chunk)) => {
                    let parcel = Parcel {
                        chunk: *chunk,
                        reply: message.reply.clone(),
                        rest: Vec::new(),
                    };
                    parcels.push((index, parcel));
                }
                Ok(Arrived::Again(next)) => verdicts.set(index, Verdict::Complete(vec![next])),
                Err(failure) => verdicts.fail(index, failure)?,
            }
        }
        self.0.finish(parcels, verdicts).await
    }
}

impl Pipeline {
    /// Carries the parcels and gives each message its verdict.
    async fn finish(
        &self,
        parcels: Vec<(usize, Parcel)>,
        mut verdicts: Verdicts,
    ) -> Result<Vec<Verdict>, Failure> {
        let (indices, parcels): (Vec<usize>, Vec<Parcel>) = parcels.into_iter().unzip();
        if !parcels.is_empty() {
            let started = std::time::Instant::now();
            for (index, next) in indices.into_iter().zip(self.carry(parcels).await?) {
                verdicts.set(index, Verdict::Complete(next));
            }
            metrics::histogram!(metric::STAGE_SECONDS, "stage" => "persist")
                .record(started.elapsed());
        }
        Ok(verdicts.into_vec())
    }
}

/// One verdict for each message of a batch.
struct Verdicts(Vec<Option<Verdict>>);

impl Verdicts {
    fn new(count: usize) -> Self {
        Self(std::iter::repeat_with(|| None).take(count).collect())
    }

    fn set(&mut self, index: usize, verdict: Verdict) {
        if let Some(place) = self.0.get_mut(index) {
            *place = Some(verdict);
        }
    }

    /// A failure of one message; one of a dependency concerns the whole batch.
    fn fail(&mut self, index: usize, failure: Failure) -> Result<(), Failure> {
        if failure.kind == crate::failure::Kind::Dependency {
            return Err(failure);
        }
        self.set(index, Verdict::Fail(failure));
        Ok(())
    }

    fn into_vec(self) -> Vec<Verdict> {
        let missing = || {
            Verdict::Fail(Failure::permanent(
                Reason::Internal,
                "no verdict was reached",
            ))
        };
        self.0
            .into_iter()
            .map(|one| one.unwrap_or_else(missing))
            .collect()
    }
}
