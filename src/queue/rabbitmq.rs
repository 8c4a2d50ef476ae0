//! The queue on RabbitMQ: quorum queues, confirms, and two connections that are made again
//! whenever they are lost.
//!
//! What stands on the broker is said in `topology.rs`. A message for queue `<key>` goes to the
//! topic exchange `<prefix>` with the bare key as its routing key, since the exchange is the
//! prefix already; foreign workers do the same. This is the only place that knows of AMQP; the
//! baseline is RabbitMQ 3.10, and nothing is used that 4.x has removed.

mod consumer;
mod lane;
mod link;
mod listener;
mod probe;
mod publisher;
mod topology;
mod wire;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use lapin::options::QueueDeclareOptions;
use lapin::options::QueuePurgeOptions;
use lapin::types::FieldTable;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use self::consumer::RabbitConsumer;
use self::link::Link;
use self::link::Target;
use self::link::within;
pub use self::probe::Probe;
pub use self::probe::probe;
use self::publisher::Publisher;
use self::topology::Topology;
use self::wire::short;
use crate::queue::Announcement;
use crate::queue::Consumer;
use crate::queue::Depth;
use crate::queue::Message;
use crate::queue::Queue;
use crate::queue::QueueError;
use crate::queue::Replies;
use crate::queue::ReplyTo;
use crate::topology::QueueSpec;

/// Where the broker is and what a process needs there.
#[derive(Clone)]
pub struct RabbitSettings {
    /// `amqp://user:password@host:5672/vhost`, or `amqps://`.
    pub url: String,
    /// Every name on the broker begins with it; at most 100 bytes.
    pub prefix: String,
    /// The work queues.
    pub queues: Vec<QueueSpec>,
    /// The steps of the retry schedules; a delay is rounded up to one of them.
    pub steps: Vec<Duration>,
    /// What the broker shows of the connections, as in `tidings-decorator`.
    pub name: String,
}

impl RabbitSettings {
    /// Checks what can be checked without a broker.
    ///
    /// # Errors
    /// Says what is wrong; the URL, which holds a password, is not repeated.
    pub fn check(&self) -> Result<(), String> {
        Target::new(&self.url, String::new())?;
        let word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if self.prefix.is_empty() || 100 < self.prefix.len() || !self.prefix.chars().all(word) {
            return Err(format!(
                "the prefix `{}` must be 1 to 100 letters, digits, `-`, `_` or `.`",
                self.prefix
            ));
        }
        Ok(())
    }
}

/// What is in trouble, beyond the connections, by topic.
#[derive(Default)]
struct Faults(Mutex<BTreeMap<String, QueueError>>);

impl Faults {
    fn set(&self, topic: &str, error: QueueError) {
        tracing::debug!(topic, %error, "trouble with the queue");
        self.lock().insert(topic.to_owned(), error);
    }

    fn clear(&self, topic: &str) {
        self.lock().remove(topic);
    }

    fn first(&self) -> Option<QueueError> {
        self.lock().values().next().cloned()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, QueueError>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The queue on RabbitMQ. Dropping it closes its connections.
pub struct RabbitQueue {
    topology: Arc<Topology>,
    consuming: Link,
    publishing: Link,
    publisher: Publisher,
    faults: Arc<Faults>,
    stop: CancellationToken,
}

impl Drop for RabbitQueue {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl RabbitQueue {
    /// Starts to connect and returns at once, whether or not there is a broker: [`Queue::ready`]
    /// tells. Must be called within a tokio runtime.
    pub fn start(settings: RabbitSettings) -> Arc<Self> {
        let checked = settings.check();
        let topology = Arc::new(Topology {
            prefix: settings.prefix,
            queues: settings.queues,
            steps: settings.steps,
        });
        let stop = CancellationToken::new();
        let target = |what: &str| {
            checked.clone()?;
            Target::new(&settings.url, format!("{} ({what})", settings.name))
        };
        let consuming = match target("consumes") {
            Ok(target) => {
                let topology = Arc::clone(&topology);
                Link::start(target, stop.clone(), move |live| {
                    let topology = Arc::clone(&topology);
                    async move { topology.ensure(&live).await }
                })
            }
            Err(why) => Link::broken(QueueError::Topology(why)),
        };
        let publishing = match target("publishes") {
            Ok(target) => {
                // Not before the other has made the topology: messages would have no queue.
                let consuming = consuming.clone();
                Link::start(target, stop.clone(), move |_| {
                    let mut consuming = consuming.clone();
                    async move { consuming.live_soon().await.map(|_| ()) }
                })
            }
            Err(why) => Link::broken(QueueError::Topology(why)),
        };
        Arc::new(Self {
            publisher: Publisher::start(&publishing, &topology),
            topology,
            consuming,
            publishing,
            faults: Arc::default(),
            stop,
        })
    }

    /// Closes the connections in order. What is in hand goes back to the broker.
    pub async fn close(&self) {
        self.stop.cancel();
        for link in [&self.consuming, &self.publishing] {
            link.clone().closed().await;
        }
    }

    /// How many wait in each of these queues and how many take from it; nothing of a queue that
    /// does not exist.
    async fn ask(&self, keys: impl Iterator<Item = &str>) -> Result<Vec<Depth>, QueueError> {
        let live = self.consuming.clone().live_soon().await?;
        let mut channel = live.channel().await?;
        let mut depths = Vec::new();
        for key in keys {
            let name = short(&self.topology.name(key));
            let passive = QueueDeclareOptions::durable().passive();
            match within(channel.queue_declare(name, passive, FieldTable::default())).await {
                Ok(queue) => depths.push(Depth {
                    key: key.to_owned(),
                    ready: queue.message_count().into(),
                    consumers: queue.consumer_count().into(),
                    oldest: None,
                }),
                // The broker closes the channel over it.
                Err(QueueError::Topology(_)) => channel = live.channel().await?,
                Err(error) => return Err(error),
            }
        }
        Ok(depths)
    }
}

#[async_trait]
impl Queue for RabbitQueue {
    async fn publish(&self, messages: Vec<Message>) -> Result<(), QueueError> {
        let outcomes = self.publisher.publish(&messages).await?;
        outcomes.into_iter().collect()
    }

    async fn announce(&self, body: Bytes) {
        self.publisher.announce(body);
    }

    async fn answer(&self, to: &ReplyTo, body: Bytes) {
        self.publisher.answer(to, body);
    }

    async fn consumer(&self, lanes: Vec<String>) -> Result<Box<dyn Consumer>, QueueError> {
        let there = self.ask(lanes.iter().map(String::as_str)).await?;
        if let Some(missing) = lanes
            .iter()
            .find(|lane| there.iter().all(|depth| depth.key != **lane))
        {
            let name = self.topology.name(missing);
            return Err(QueueError::Topology(format!("there is no queue `{name}`")));
        }
        Ok(Box::new(RabbitConsumer::start(
            lanes,
            &self.consuming,
            &self.topology,
            self.publisher.clone(),
            &self.faults,
        )))
    }

    async fn announcements(&self) -> Result<mpsc::Receiver<Announcement>, QueueError> {
        let topology = Arc::clone(&self.topology);
        Ok(listener::announcements(self.consuming.clone(), topology).await)
    }

    async fn replies(&self) -> Result<Replies, QueueError> {
        let topology = Arc::clone(&self.topology);
        Ok(listener::replies(self.consuming.clone(), topology).await)
    }

    async fn depths(&self) -> Result<Vec<Depth>, QueueError> {
        let keys = self.topology.queues.iter().map(|spec| spec.key.as_str());
        let mut depths = self.ask(keys.chain([topology::UNREADABLE])).await?;
        // Nothing is ever in there, or somebody must look at it.
        depths.retain(|depth| depth.key != topology::UNREADABLE || 0 < depth.ready);
        Ok(depths)
    }

    async fn ready(&self) -> Result<(), QueueError> {
        self.consuming.state().well()?;
        self.publishing.state().well()?;
        self.faults.first().map_or(Ok(()), Err)
    }

    async fn purge(&self, key: &str) -> Result<u64, QueueError> {
        let channel = self.consuming.clone().live_soon().await?.channel().await?;
        let name = short(&self.topology.name(key));
        let purged = channel.queue_purge(name, QueuePurgeOptions::default());
        within(purged).await.map(u64::from)
    }
}
