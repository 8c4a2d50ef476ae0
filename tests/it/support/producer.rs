//! A producer of another company: it knows the broker, the exchange, and what
//! `schemas/README.md` says, and has exactly the rights of `deploy/rabbitmq`.

use std::time::Duration;

use futures::StreamExt as _;
use lapin::BasicProperties;
use lapin::Channel;
use lapin::Connection;
use lapin::Consumer;
use lapin::options::BasicConsumeOptions;
use lapin::options::BasicPublishOptions;
use lapin::options::ConfirmSelectOptions;
use lapin::types::FieldTable;
use serde_json::Value;

use super::app::App;
use super::app::LIMIT;
use super::rabbitmq;

/// Where RabbitMQ's direct replies come.
const DIRECT_REPLY: &str = "amq.rabbitmq.reply-to";

/// A producer on the queue.
pub(crate) struct Producer {
    /// Its broker user.
    pub(crate) user: String,
    exchange: String,
    connection: Connection,
    channel: Channel,
    replies: Consumer,
}

impl Producer {
    /// One whose broker user the configuration of `app` maps to `external:producer`; `None` where
    /// no users can be made.
    pub(crate) async fn known(app: &App) -> Option<Self> {
        Self::connect(app, app.prefix().to_owned()).await
    }

    /// One whose broker user `app` has never heard of.
    pub(crate) async fn stranger(app: &App) -> Option<Self> {
        Self::connect(app, format!("stranger-{}", app.prefix())).await
    }

    async fn connect(app: &App, user: String) -> Option<Self> {
        let url = rabbitmq::producer(app.prefix(), &user).await?;
        let connection = Connection::connect(&url, Default::default()).await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        let options = ConfirmSelectOptions::default();
        channel.confirm_select(options).await.unwrap();
        let options = BasicConsumeOptions {
            no_ack: true,
            ..Default::default()
        };
        let replies = channel
            .basic_consume(
                DIRECT_REPLY.into(),
                "replies".into(),
                options,
                FieldTable::default(),
            )
            .await
            .unwrap();
        Some(Self {
            user,
            exchange: format!("{}.submit", app.prefix()),
            connection,
            channel,
            replies,
        })
    }

    /// The properties that a message must have, and a reply wanted under its id.
    pub(crate) fn properties(&self, id: &str) -> BasicProperties {
        BasicProperties::default()
            .with_user_id(self.user.as_str().into())
            .with_message_id(id.into())
            .with_reply_to(DIRECT_REPLY.into())
            .with_correlation_id(id.into())
    }

    /// Publishes bytes and waits for the broker's confirm.
    pub(crate) async fn publish(&self, properties: BasicProperties, body: &[u8]) {
        let options = BasicPublishOptions {
            mandatory: true,
            ..Default::default()
        };
        let confirm = self
            .channel
            .basic_publish(
                self.exchange.as_str().into(),
                "".into(),
                options,
                body,
                properties,
            )
            .await
            .unwrap()
            .await
            .unwrap();
        assert!(
            confirm.is_ack() && confirm.take_message().is_none(),
            "it is taken"
        );
    }

    /// Publishes a submission as `schemas/README.md` says.
    pub(crate) async fn submit(&self, id: &str, body: &Value) {
        let body = body.to_string();
        self.publish(self.properties(id), body.as_bytes()).await;
    }

    /// The next reply, with its correlation.
    pub(crate) async fn reply(&mut self) -> (String, Value) {
        let next = tokio::time::timeout(LIMIT, self.replies.next()).await;
        let reply = next.expect("a reply").unwrap().unwrap();
        let correlation = reply.properties.correlation_id().as_ref();
        let correlation = correlation.map(ToString::to_string).unwrap_or_default();
        (correlation, serde_json::from_slice(&reply.data).unwrap())
    }

    /// What the broker says to properties it does not believe: publishes on a channel of its own,
    /// which that closes.
    pub(crate) async fn refusal(&self, exchange: &str, properties: BasicProperties) -> String {
        let channel = self.connection.create_channel().await.unwrap();
        let options = ConfirmSelectOptions::default();
        channel.confirm_select(options).await.unwrap();
        let publish = channel.basic_publish(
            exchange.into(),
            "".into(),
            BasicPublishOptions::default(),
            b"{}",
            properties,
        );
        let confirmed = async { publish.await?.await };
        let confirmed = tokio::time::timeout(Duration::from_secs(30), confirmed).await;
        confirmed.unwrap().unwrap_err().to_string()
    }
}
