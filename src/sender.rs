//! The sender role: from deliveries on the queue to a processor's service, each once.
//!
//! [`Deliveries`] claims what a batch of messages carries, resolves people, sends while the lease
//! holds, records every try, and says what follows: what must be tried again, and what came of
//! notifications with many targets.

mod claims;
mod endpoints;
mod outcome;
mod pace;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::FutureExt as _;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use url::Url;
use uuid::Uuid;

use self::claims::Claimed;
use self::claims::Turn;
pub use self::endpoints::Endpoints;
use self::outcome::Came;
use self::outcome::Try;
use crate::catalog::Catalog;
use crate::catalog::CatalogUser;
use crate::delivery::DeliveryBatch;
use crate::delivery::DeliveryItem;
use crate::failure::Failure;
use crate::failure::Kind;
use crate::failure::Reason;
use crate::failure::RetrySchedule;
use crate::processor::Audience;
use crate::processor::Outcome;
use crate::processor::Outgoing;
use crate::processor::Sender;
use crate::processor::personal;
use crate::queue::Received;
use crate::store::Store;
use crate::submission::resolve_link;
use crate::telemetry::Events;
use crate::telemetry::metric;
use crate::worker::Verdict;
use crate::worker::Work;

/// The longest one send may take.
const SEND_TIMEOUT: Duration = Duration::from_secs(30);
/// The part of the lease before its end in which nothing is begun any more.
const LEASE_MARGIN: u32 = 10;

/// Work on a sender's queues.
pub struct Deliveries {
    /// What sends.
    pub sender: Arc<dyn Sender>,
    /// Where deliveries are claimed and recorded.
    pub store: Arc<dyn Store>,
    /// How people are reached.
    pub catalog: Arc<dyn Catalog>,
    /// When a failed delivery is tried again.
    pub schedule: RetrySchedule,
    /// How long a claim holds. A sender that vanishes delays its deliveries by this.
    pub lease: Duration,
    /// The time between the beginnings of two sends of this channel, over all processes.
    pub rate: Option<Duration>,
    /// What is known of endpoints that fail.
    pub endpoints: Endpoints,
    /// What links are resolved against.
    pub app_base_url: Url,
    /// For the terminal.
    pub events: Events,
    /// How many sends may be under way at once, over all loops of the process.
    pub gate: Semaphore,
}

#[async_trait]
impl Work for Deliveries {
    fn name(&self) -> &str {
        self.sender.name()
    }

    fn batch(&self) -> usize {
        // Up to 50 deliveries each: what fits a lease even at a slow relay.
        self.messages(8)
    }

    fn timeout(&self) -> Duration {
        self.lease
    }

    async fn work(&self, batch: &[Received]) -> Result<Vec<Verdict>, Failure> {
        let mut verdicts: Vec<Option<Verdict>> = Vec::with_capacity(batch.len());
        let mut parsed = Vec::with_capacity(batch.len());
        for (index, message) in batch.iter().enumerate() {
            match serde_json::from_slice::<DeliveryBatch>(&message.body) {
                Ok(one) => {
                    parsed.push((index, (message.key.clone(), one)));
                    verdicts.push(None);
                }
                Err(error) => {
                    let detail = format!("is not a batch of deliveries: {error}");
                    let failure = Failure::permanent(Reason::Invalid, detail);
                    verdicts.push(Some(Verdict::Fail(failure)));
                }
            }
        }
        let (indices, batches): (Vec<usize>, Vec<_>) = parsed.into_iter().unzip();
        let following = self.deliver(&batches).await?;
        for (index, next) in indices.into_iter().zip(following) {
            verdicts[index] = Some(Verdict::Complete(next));
        }
        Ok(verdicts.into_iter().flatten().collect())
    }
}

impl Deliveries {
    /// Delivers batches, and returns what follows from each.
    async fn deliver(
        &self,
        batches: &[(String, DeliveryBatch)],
    ) -> Result<Vec<Vec<crate::queue::Message>>, Failure> {
        let token = Uuid::new_v4();
        let until = Instant::now() + self.lease - self.lease / LEASE_MARGIN;
        let mut turn = self.claim(batches, token).await?;
        let found = match self.find_earlier(&mut turn).await {
            Ok(()) => self.people(&turn).await,
            Err(failure) => Err(failure),
        };
        let people = match found {
            Ok(people) => people,
            Err(failure) => return self.give_back(&turn, failure).await,
        };

        let ready = match self.disabled().await {
            Ok(disabled) => self.starts(&turn).await.map(|starts| (disabled, starts)),
            Err(failure) => Err(failure),
        };
        let (disabled, starts) = match ready {
            Ok(ready) => ready,
            Err(failure) => return self.give_back(&turn, failure).await,
        };

        let mut sending = FuturesUnordered::new();
        let mut tries = Vec::with_capacity(turn.mine.len());
        for ((claimed, person), start) in turn.mine.iter().zip(&people).zip(starts.at) {
            let person = person.as_ref();
            if let Some(detail) = disabled.get(&claimed.item.target) {
                let (reason, detail) = (Reason::Rejected, detail.clone());
                let came = Came::Of(Outcome::Skipped { reason, detail });
                tries.push(Try {
                    claimed,
                    person,
                    came,
                });
                continue;
            }
            match start {
                Some(start) => sending.push(self.attempt_one(claimed, person, start, until)),
                None => tries.push(Try {
                    claimed,
                    person,
                    came: Came::Of(Outcome::Waits {
                        after: starts.wait,
                        reason: Reason::Rate,
                        detail: "above the rate of its channel".to_owned(),
                    }),
                }),
            }
        }
        while let Some(one) = sending.next().await {
            tries.push(one);
        }
        drop(sending);

        let away = tries.iter().find_map(|one| match &one.came {
            Came::Of(Outcome::Failed(failure)) if failure.kind == Kind::Dependency => {
                Some(failure.clone())
            }
            _ => None,
        });
        self.note(&tries).await;
        let following = self.record(&turn, tries).await?;
        match away {
            // What was sent is recorded and will be found done when the batch comes round again.
            Some(failure) => self.give_back(&turn, failure).await,
            None => Ok(following),
        }
    }

    /// What the catalog knows of the person of each claimed delivery.
    async fn people(&self, turn: &Turn<'_>) -> Result<Vec<Option<CatalogUser>>, Failure> {
        let refs: Vec<String> = turn
            .mine
            .iter()
            .filter_map(|one| one.item.user.clone())
            .collect();
        if refs.is_empty() {
            return Ok(vec![None; turn.mine.len()]);
        }
        let mut known = self.catalog.people(&refs).await?.into_iter();
        Ok(turn
            .mine
            .iter()
            .map(|one| one.item.user.as_ref().and_then(|_| known.next().flatten()))
            .collect())
    }

    /// Sends one delivery once its turn has come and there is room for it.
    async fn attempt_one<'a>(
        &self,
        claimed: &'a Claimed<'a>,
        person: Option<&'a CatalogUser>,
        start: Instant,
        until: Instant,
    ) -> Try<'a> {
        tokio::time::sleep_until(start).await;
        // The gate is never closed; if it were, sending without it would still be right.
        let _room = self.gate.acquire().await.ok();
        let came = self.send(claimed, person, until).await;
        Try {
            claimed,
            person,
            came,
        }
    }

    /// Sends one delivery, or finds the targets of one that has many.
    async fn send(
        &self,
        claimed: &Claimed<'_>,
        person: Option<&CatalogUser>,
        until: Instant,
    ) -> Came {
        if Instant::now() > until {
            return Came::Of(Outcome::Waits {
                after: Duration::ZERO,
                reason: Reason::Timeout,
                detail: "the deliveries in hand took longer than their lease".to_owned(),
            });
        }
        if let Some(outcome) = claimed.superseded() {
            return Came::Of(outcome);
        }
        let (header, item) = (&claimed.batch.header, claimed.item);
        let payload = personal(&claimed.batch.payload, item.patch.as_ref());
        let outgoing = Outgoing {
            delivery: item.id,
            notification: item.notification,
            submission: header.id,
            origin: &header.origin,
            payload: &payload,
            link: absolute_link(payload.link.as_deref(), &self.app_base_url),
            created: item.created,
            user: item.user.as_deref(),
            person,
            recipients: match item.user {
                Some(_) => &[],
                None => &claimed.batch.recipients,
            },
            target: &item.target,
            earlier: claimed.earlier.as_ref().map(|one| one.provider_id.as_str()),
            attempt: claimed.attempt,
        };
        if self.wants_targets(item) {
            match self.sender.targets(&outgoing).await {
                Ok(targets) if targets.is_empty() && self.sends_as_is(item) => {}
                Ok(targets) => return Came::Targets(targets),
                Err(failure) => return Came::Of(Outcome::Failed(failure)),
            }
        }
        let started = Instant::now();
        let limit = SEND_TIMEOUT.min(until + self.lease / LEASE_MARGIN - started);
        let sending = AssertUnwindSafe(self.sender.send(&outgoing)).catch_unwind();
        let outcome = match tokio::time::timeout(limit, sending).await {
            Ok(Ok(outcome)) => outcome,
            // The guilty delivery alone fails, not those that came with it.
            Ok(Err(_)) => Outcome::Failed(Failure::permanent(
                Reason::Panic,
                format!("the sender {} panicked", self.sender.name()),
            )),
            Err(_) => Outcome::Failed(Failure::transient(
                Reason::Timeout,
                format!("no answer within {} s", limit.as_secs()),
            )),
        };
        metrics::histogram!(metric::STAGE_SECONDS,
            "stage" => format!("deliver.{}", self.sender.name()))
        .record(started.elapsed());
        Came::Of(outcome)
    }

    /// Whether it stands for many targets that are still to be found.
    fn wants_targets(&self, item: &DeliveryItem) -> bool {
        item.target.is_empty() && (item.user.is_none() || self.sender.fans_out())
    }

    /// Whether it is sent where no targets are found.
    fn sends_as_is(&self, item: &DeliveryItem) -> bool {
        item.user.is_some() || self.sender.audience() == Audience::PerSubmission
    }
}

/// A link as an absolute address; the app's notifications page where there is none, as the peer
/// does. A link that cannot be resolved was refused at the door.
pub fn absolute_link(link: Option<&str>, app_base_url: &Url) -> Url {
    let link = link
        .filter(|link| !link.is_empty())
        .unwrap_or("notifications");
    resolve_link(link.trim_start_matches('/'), app_base_url)
        .unwrap_or_else(|_| app_base_url.clone())
}
