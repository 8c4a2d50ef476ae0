//! The same on RabbitMQ and PostgreSQL: each case has a prefix and a database of its own.

use std::sync::Arc;
use std::time::Duration;

use tidings::queue::Queue;
use tidings::queue::rabbitmq::RabbitQueue;
use tidings::queue::rabbitmq::RabbitSettings;
use tidings::store::postgres::PostgresStore;

use super::Mode;
use super::OURS;
use super::PEER;
use super::answer_better;
use super::hold_to;
use crate::http::house::House;
use crate::http::house::Plan;
use crate::support::postgres::Database;
use crate::support::rabbitmq;

/// What a case has of the servers.
pub(super) struct Servers {
    settings: RabbitSettings,
    queue: Arc<RabbitQueue>,
    _database: Database,
}

impl Servers {
    pub(super) async fn remove(self) {
        self.queue.close().await;
        rabbitmq::remove(&self.settings).await;
    }
}

/// A house on servers.
pub(super) async fn house(plan: Plan) -> (House, Servers) {
    let step = [Duration::from_secs(1)];
    let settings = RabbitSettings {
        queues: plan.queues(),
        ..rabbitmq::settings(&rabbitmq::shared_url(), &step)
    };
    let database = Database::create().await;
    let store = PostgresStore::connect_with(&database.url(), 4).unwrap();
    let (queue, migrated) = tokio::join!(rabbitmq::start(&settings), store.migrate());
    migrated.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let door: Arc<dyn Queue> = Arc::<RabbitQueue>::clone(&queue);
    let house = House::on(plan, dir, door, Arc::new(store)).await;
    let servers = Servers {
        settings,
        queue,
        _database: database,
    };
    (house, servers)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tidings_behaves_as_the_peer_does() {
    hold_to(PEER, Mode::Distributed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tidings_behaves_as_the_contract_says() {
    hold_to(OURS, Mode::Distributed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn faults_of_the_peer_are_answered_better() {
    answer_better(Mode::Distributed).await;
}
