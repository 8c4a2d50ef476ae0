//! What every sender keeps, whatever its service.
//!
//! To add a sender: a file beside `sender/email.rs` with a type that implements [`Service`], a fake of
//! the service that records what it took and fails on demand (`support/hook.rs` is one that speaks
//! HTTP), and a line `suite!(name, Type);` below. The suite then shows that
//!
//! - each answer of the service is of its kind, by the sender's own table;
//! - a service that hangs, hangs up or answers half a word is neither taken for a success nor
//!   for a refusal;
//! - no secret, address or content stands in an outcome or in a log;
//! - the service sees the same key on every try, and another for another delivery;
//! - what comes again on the queue is not sent again;
//! - what a filter excludes is not sent.
#![cfg(feature = "sqlite")]

#[cfg(feature = "email")]
mod email;
mod role;
#[cfg(feature = "webhook")]
mod webhook;

use std::collections::BTreeSet;
use std::io::Write;
use std::sync::Arc;
use std::sync::Mutex;

use serde_json::Map;
use serde_json::Value;
use serde_json::json;
use tidings::catalog::CatalogUser;
use tidings::delivery::DeliveryBatch;
use tidings::failure::Kind;
use tidings::failure::Reason;
use tidings::notification::Payload;
use tidings::notification::Severity;
use tidings::processor::Filter;
use tidings::processor::Outcome;
use tidings::processor::Outgoing;
use tidings::processor::Sender;
use tidings::queue::Message;
use tidings::time::Timestamp;
use tidings::topology;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use uuid::Uuid;

use crate::http::house::House;
use crate::http::house::Plan;
use crate::support::app::LIMIT;
use crate::support::store::header;

/// Stands in every secret, address and content of the suite, and may stand in nothing that is told.
pub(crate) const CANARY: &str = "canary";

/// A sender and a fake of its service.
pub(crate) trait Service: Sized {
    /// What the fake can be told to do.
    type Act: Clone + std::fmt::Debug;

    /// Starts the fake.
    async fn start() -> Self;

    /// The sender, on the fake, with the shortest time limit it can have and [`CANARY`] in every
    /// secret.
    fn sender(&self, filter: Filter) -> Arc<dyn Sender>;

    /// The target of what is sent to it by hand.
    fn target() -> &'static str {
        ""
    }

    /// What the fake does from now on; `None`: it takes everything.
    fn act(&self, act: Option<Self::Act>);

    /// Answers, and what each means.
    fn answers() -> Vec<(Self::Act, Means)>;

    /// Ways to give no answer.
    fn silences() -> Vec<Self::Act>;

    /// The key of everything that it took, in order; a try that it refused counts too if it saw a
    /// key.
    fn keys(&self) -> Vec<String>;
}

/// What an answer means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Means {
    Sent,
    Transient(Reason),
    /// Transient, and not before so many seconds.
    Later(Reason, u64),
    Permanent(Reason),
    /// The service as a whole is away.
    Away(Reason),
    /// This endpoint of the service is away: it waits, uncounted.
    Waits(Reason),
    /// This endpoint wants nothing any more.
    Gone,
}

fn means(outcome: &Outcome) -> Means {
    match outcome {
        Outcome::Sent { .. } => Means::Sent,
        Outcome::Skipped { .. } => panic!("{outcome:?}"),
        Outcome::Waits { reason, .. } => Means::Waits(*reason),
        Outcome::Gone { .. } => Means::Gone,
        Outcome::Failed(failure) => match failure.kind {
            Kind::Transient { after: None } => Means::Transient(failure.reason),
            Kind::Transient { after: Some(after) } => Means::Later(failure.reason, after.as_secs()),
            Kind::Permanent => Means::Permanent(failure.reason),
            Kind::Dependency => Means::Away(failure.reason),
        },
    }
}

/// Everything about it says [`CANARY`].
fn payload() -> Payload {
    serde_json::from_value(
        json!({"title": CANARY, "description": CANARY, "topic": "deploys",
        "link": "https://example.com/canary", "metadata": {"key": CANARY}}),
    )
    .unwrap()
}

fn person() -> CatalogUser {
    CatalogUser {
        reference: "user:default/ann".to_owned(),
        display_name: Some(CANARY.to_owned()),
        email: Some("canary@example.com".to_owned()),
        ..CatalogUser::default()
    }
}

async fn send<S: Service>(sender: &dyn Sender, delivery: u128) -> Outcome {
    let (payload, person) = (payload(), person());
    let target = S::target();
    let refs = ["group:default/payments".to_owned()];
    let outgoing = Outgoing {
        delivery: Uuid::from_u128(delivery),
        notification: Uuid::from_u128(delivery << 8),
        submission: Uuid::from_u128(7),
        origin: "external:ci",
        payload: &payload,
        link: "https://example.com/canary".parse().unwrap(),
        created: Timestamp::parse("2026-11-24T18:42:07.123Z").unwrap(),
        user: target.is_empty().then_some("user:default/ann"),
        person: target.is_empty().then_some(&person),
        recipients: if target.is_empty() { &[] } else { &refs },
        target,
        earlier: None,
        attempt: 1,
    };
    let sending = sender.send(&outgoing);
    let outcome = tokio::time::timeout(LIMIT, sending).await;
    outcome.expect("the sender minds its own time limit")
}

async fn answers_are_of_their_kind<S: Service>() {
    for (act, wanted) in S::answers() {
        // Anew each time: what an answer means must not depend on the one before.
        let service = S::start().await;
        service.act(Some(act.clone()));
        let sender = service.sender(Filter::ALL);
        let outcome = send::<S>(sender.as_ref(), 1).await;
        assert_eq!(means(&outcome), wanted, "{act:?}: {outcome:?}");
    }
}

async fn silence_is_no_success_and_no_refusal<S: Service>() {
    for act in S::silences() {
        let service = S::start().await;
        service.act(Some(act.clone()));
        let sender = service.sender(Filter::ALL);
        let outcome = send::<S>(sender.as_ref(), 1).await;
        let means = means(&outcome);
        let right = !matches!(means, Means::Sent | Means::Permanent(_));
        assert!(right, "{act:?}: {outcome:?}");
    }
}

/// What is logged on this thread.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, part: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend(part);
        Ok(part.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Log {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

async fn nothing_secret_is_told<S: Service>() {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new("tidings=trace,info"))
        .with_writer(log.clone())
        .finish();
    let _heard = tracing::subscriber::set_default(subscriber);
    tracing::info!("listening");
    let acts = S::answers().into_iter().map(|(act, _)| act);
    for act in acts.chain(S::silences()) {
        let service = S::start().await;
        service.act(Some(act.clone()));
        let sender = service.sender(Filter::ALL);
        let told = format!("{:?}", send::<S>(sender.as_ref(), 1).await);
        assert!(!told.contains(CANARY), "{act:?}: {told}");
        let told = format!("{:?}", sender.probe().await);
        assert!(!told.contains(CANARY), "{act:?}: {told}");
    }
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(log.contains("listening") && !log.contains(CANARY), "{log}");
}

async fn the_key_is_the_same_on_every_try<S: Service>() {
    let service = S::start().await;
    let sender = service.sender(Filter::ALL);
    for delivery in [1, 1, 2] {
        let outcome = send::<S>(sender.as_ref(), delivery).await;
        assert_eq!(means(&outcome), Means::Sent, "{outcome:?}");
    }
    let keys = service.keys();
    assert_eq!(keys.len(), 3, "{keys:?}");
    assert_eq!(keys[0], keys[1]);
    assert_ne!(keys[1], keys[2]);
}

/// A Tidings with this sender, and Ann with an address.
async fn house(sender: Arc<dyn Sender>) -> House {
    House::build(Plan {
        subjects: vec!["external:ci".into()],
        catalog: vec![
            json!({"apiVersion": "backstage.io/v1alpha1", "kind": "User",
            "metadata": {"name": "ann"}, "spec": {"profile": {"email": "canary@example.com"}}}),
        ],
        senders: vec![sender],
        ..Plan::default()
    })
    .await
}

/// Sends to Ann, and returns the story once it has ended.
async fn story(house: &House, severity: Severity) -> tidings::store::Timeline {
    let recipients = json!({"type": "entity", "entityRef": "user:default/ann"});
    house
        .story_of(
            "external:ci",
            recipients,
            json!({"title": CANARY, "severity": severity}),
        )
        .await
}

async fn what_comes_again_is_not_sent_again<S: Service>() {
    let service = S::start().await;
    let sender = service.sender(Filter::ALL);
    let name = sender.name().to_owned();
    let house = house(sender).await;
    let first = story(&house, Severity::Normal).await;
    assert_eq!(service.keys().len(), 1);
    let items: Vec<Value> = first
        .deliveries
        .iter()
        .map(|one| {
            json!({"id": one.id, "notification": Uuid::nil(), "user": one.user,
                "target": one.target, "created": Timestamp::now()})
        })
        .collect();
    let again = DeliveryBatch {
        header: header(0),
        channel: name.clone(),
        payload: payload(),
        recipients: Vec::new(),
        items: serde_json::from_value(items.into()).unwrap(),
        extra: Map::new(),
    };
    let body = serde_json::to_vec(&again).unwrap();
    let message = Message::new(topology::deliver(&name, false), "again", body);
    house.queue.publish(vec![message]).await.unwrap();
    // What is sent after it has overtaken nothing: the queue is worked on by one loop.
    story(&house, Severity::Normal).await;
    let keys = service.keys();
    let distinct: BTreeSet<_> = keys.iter().collect();
    assert_eq!((keys.len(), distinct.len()), (2, 2), "{keys:?}");
}

async fn a_filter_holds<S: Service>() {
    let service = S::start().await;
    let filter = Filter {
        min_severity: Some(Severity::High),
        ..Filter::ALL
    };
    let house = house(service.sender(filter)).await;
    story(&house, Severity::Low).await;
    story(&house, Severity::Critical).await;
    assert_eq!(service.keys().len(), 1, "{:?}", service.keys());
}

/// The suite for one sender.
macro_rules! suite {
    ($name:ident, $service:ty) => {
        mod $name {
            #[tokio::test]
            async fn answers_are_of_their_kind() {
                super::super::answers_are_of_their_kind::<$service>().await;
            }

            #[tokio::test]
            async fn silence_is_no_success_and_no_refusal() {
                super::super::silence_is_no_success_and_no_refusal::<$service>().await;
            }

            #[tokio::test]
            async fn nothing_secret_is_told() {
                super::super::nothing_secret_is_told::<$service>().await;
            }

            #[tokio::test]
            async fn the_key_is_the_same_on_every_try() {
                super::super::the_key_is_the_same_on_every_try::<$service>().await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn what_comes_again_is_not_sent_again() {
                super::super::what_comes_again_is_not_sent_again::<$service>().await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn a_filter_holds() {
                super::super::a_filter_holds::<$service>().await;
            }
        }
    };
}

mod every {
    #[cfg(feature = "email")]
    suite!(email, crate::sender::email::Mail);
    #[cfg(feature = "webhook")]
    suite!(webhook, crate::sender::webhook::Posts);
}
