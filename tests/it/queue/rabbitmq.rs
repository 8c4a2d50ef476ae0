//! The queue on RabbitMQ: the suite of all queues, and what only a broker can do to one.

use std::sync::Arc;

use tidings::queue::Consumer;
use tidings::queue::Queue;
use tidings::queue::rabbitmq::RabbitQueue;
use tidings::queue::rabbitmq::RabbitSettings;

use super::Harness;
use super::STEPS;
use crate::support::rabbitmq as support;
use crate::support::rabbitmq::Proxy;

mod broker;

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
