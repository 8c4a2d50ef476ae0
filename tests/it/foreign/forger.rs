//! A worker that abuses its rights: it consumes its queue and hands back what it should not.

use futures::StreamExt as _;
use lapin::BasicProperties;
use lapin::Channel;
use lapin::Connection;
use lapin::Consumer;
use lapin::options::BasicAckOptions;
use lapin::options::BasicPublishOptions;
use lapin::options::ConfirmSelectOptions;
use lapin::types::FieldTable;
use serde_json::Value;

use crate::support::app::App;
use crate::support::app::LIMIT;
use crate::support::rabbitmq;

/// A foreign decorator in a test's own hands.
pub(super) struct Forger {
    prefix: String,
    connection: Connection,
    channel: Channel,
    consumer: Consumer,
}

impl Forger {
    /// `None` where no users can be made.
    pub(super) async fn connect(app: &App, name: &str) -> Option<Self> {
        let url = rabbitmq::foreign(app.prefix(), "foreign-decorator", name).await?;
        let connection = Connection::connect(&url, Default::default()).await.unwrap();
        let channel = channel(&connection).await;
        let queue = format!("{}.decorate.{name}", app.prefix());
        let consumer = channel
            .basic_consume(
                queue.into(),
                "forger".into(),
                Default::default(),
                FieldTable::default(),
            )
            .await
            .unwrap();
        Some(Self {
            prefix: app.prefix().to_owned(),
            connection,
            channel,
            consumer,
        })
    }

    /// Takes the next chunk, and lets go of it.
    pub(super) async fn take(&mut self) -> Value {
        let next = tokio::time::timeout(LIMIT, self.consumer.next()).await;
        let delivery = next.expect("a chunk").unwrap().unwrap();
        delivery.ack(BasicAckOptions::default()).await.unwrap();
        serde_json::from_slice(&delivery.data).unwrap()
    }

    /// Hands a chunk back.
    pub(super) async fn hand_back(&self, chunk: &Value) {
        self.publish(&self.channel, "chunks", chunk).await.unwrap();
    }

    /// What the broker says to a message under another key.
    pub(super) async fn refusal(&self, key: &str) -> String {
        let channel = channel(&self.connection).await;
        let refused = self.publish(&channel, key, &Value::Null).await;
        refused.unwrap_err().to_string()
    }

    async fn publish(&self, channel: &Channel, key: &str, body: &Value) -> lapin::Result<()> {
        let body = body.to_string();
        let confirm = channel
            .basic_publish(
                self.prefix.as_str().into(),
                key.into(),
                BasicPublishOptions::default(),
                body.as_bytes(),
                BasicProperties::default().with_delivery_mode(2),
            )
            .await?;
        confirm.await.map(|_| ())
    }
}

async fn channel(connection: &Connection) -> Channel {
    let channel = connection.create_channel().await.unwrap();
    let options = ConfirmSelectOptions::default();
    channel.confirm_select(options).await.unwrap();
    channel
}
