//! The queue on RabbitMQ: the suite of all queues, and what only a broker can do to one.

use std::sync::Arc;
use std::time::Duration;

use tidings::queue::Consumer;
use tidings::queue::Message;
use tidings::queue::Queue;
use tidings::queue::Received;
use tidings::queue::rabbitmq::RabbitQueue;
use tidings::queue::rabbitmq::RabbitSettings;
use tokio::time::timeout;

use super::Harness;
use super::STEPS;
use crate::support::rabbitmq as support;
use crate::support::rabbitmq::PATIENCE;
use crate::support::rabbitmq::Proxy;

mod broker;
mod rights;

/// A prefix of its own on the shared broker, through a proxy that can cut it off.
struct Rabbit {
    settings: RabbitSettings,
    proxy: Arc<Proxy>,
    queue: Arc<RabbitQueue>,
}

impl Rabbit {
    async fn connect(settings: &RabbitSettings) -> (Arc<Proxy>, Arc<RabbitQueue>) {
        let proxy = Proxy::start(&settings.url).await;
        let mut through = settings.clone();
        through.url.clone_from(&proxy.url);
        (proxy, support::start(&through).await)
    }
}

impl Harness for Rabbit {
    async fn start() -> Self {
        let settings = support::settings(&support::shared_url(), &STEPS);
        let (proxy, queue) = Self::connect(&settings).await;
        Self {
            settings,
            proxy,
            queue,
        }
    }

    fn queue(&self) -> Arc<dyn Queue> {
        Arc::<RabbitQueue>::clone(&self.queue)
    }

    async fn restart(&mut self, consumers: Vec<Box<dyn Consumer>>) {
        // First the cut, then the funeral: nothing that a destructor says may arrive.
        self.proxy.close().await;
        drop(consumers);
        (self.proxy, self.queue) = Self::connect(&self.settings).await;
    }

    async fn stop(self) {
        self.queue.close().await;
        support::remove(&self.settings).await;
    }
}

super::conformance!(Rabbit);

fn message(key: &str, id: impl ToString) -> Message {
    Message::new(key, id.to_string(), "body")
}

async fn consumer(queue: &RabbitQueue, key: &str) -> Box<dyn Consumer> {
    queue.consumer(vec![key.to_owned()]).await.unwrap()
}

async fn take(consumer: &mut Box<dyn Consumer>, max: usize) -> Vec<Received> {
    let taken = timeout(PATIENCE, consumer.take(max)).await;
    taken.expect("messages in time").unwrap()
}

async fn complete(consumer: &mut Box<dyn Consumer>, taken: Vec<Received>) {
    let ended = taken.into_iter().map(|one| one.complete(vec![])).collect();
    consumer.finish(ended).await.unwrap();
}

/// Publishes until it is confirmed, as callers must.
async fn publish(queue: &RabbitQueue, messages: Vec<Message>) {
    let confirmed = async {
        while queue.publish(messages.clone()).await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(PATIENCE, confirmed).await.expect("confirmed");
}

/// Waits until `ready` refuses in these words.
async fn trouble(queue: &RabbitQueue, words: &str) {
    let refused = async {
        loop {
            match queue.ready().await {
                Err(error) if error.to_string().contains(words) => return,
                _ => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    };
    timeout(PATIENCE, refused).await.expect("trouble");
}
