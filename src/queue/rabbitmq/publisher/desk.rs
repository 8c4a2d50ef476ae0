//! A desk: a task that publishes windows of messages, one after the other, and tells each caller
//! what became of its own.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use lapin::Channel;
use lapin::Confirmation;
use lapin::options::BasicPublishOptions;
use lapin::options::ConfirmSelectOptions;
use tokio::sync::Mutex;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio::time::timeout_at;

use super::DEADLINE;
use super::Outcomes;
use super::Request;
use super::Route;
use super::Routed;
use super::WINDOW;
use crate::queue::QueueError;
use crate::queue::rabbitmq::link::Link;
use crate::queue::rabbitmq::link::Live;
use crate::queue::rabbitmq::link::within;
use crate::queue::rabbitmq::topology::Topology;
use crate::queue::rabbitmq::wire;
use crate::queue::rabbitmq::wire::short;

/// How long after a message was returned what is missing is made again.
const MEND_AFTER: Duration = Duration::from_secs(1);

/// A task that publishes windows, one after the other.
pub(super) struct Desk {
    pub(super) link: Link,
    pub(super) topology: Arc<Topology>,
    pub(super) requests: Arc<Mutex<mpsc::Receiver<Request>>>,
    pub(super) channel: Option<(u64, Channel)>,
    pub(super) mending: Arc<Mutex<()>>,
}

impl Desk {
    /// Until nobody is left who could ask, or there will be no more connections.
    pub(super) async fn run(mut self) {
        while let Some(requests) = self.gather().await {
            let Some(live) = self.link.open().await else {
                return;
            };
            self.serve(&live, requests).await;
        }
    }

    /// Waits for a caller, then takes those in line that fit into the window.
    async fn gather(&self) -> Option<Vec<Request>> {
        let mut line = self.requests.lock().await;
        let first = line.recv().await?;
        let mut size = first.messages.len();
        let mut all = vec![first];
        while size < WINDOW {
            let Ok(next) = line.try_recv() else { break };
            size += next.messages.len();
            all.push(next);
        }
        Some(all)
    }

    /// Publishes for all callers at once. A fault of the topology closes the channel with all
    /// that was on it; then each caller is served alone, so that only the guilty one fails.
    async fn serve(&mut self, live: &Live, mut requests: Vec<Request>) {
        // Some may have given up while there was no connection.
        requests.retain(|request| !request.done.is_closed());
        match self.publish(live, &requests).await {
            Ok(outcomes) => {
                for (request, outcomes) in requests.into_iter().zip(outcomes) {
                    // Nobody listens: the caller's deadline has passed.
                    let _ = request.done.send(outcomes);
                }
            }
            Err(QueueError::Topology(_)) if 1 < requests.len() => {
                for request in requests {
                    Box::pin(self.serve(live, vec![request])).await;
                }
            }
            Err(error) => {
                for request in requests {
                    let outcomes = vec![Err(error.clone()); request.messages.len()];
                    let _ = request.done.send(outcomes);
                }
            }
        }
    }

    /// Outcomes by request. Whatever goes wrong, the channel is given up: its confirms are not
    /// to be mistaken for those of the next window.
    async fn publish(
        &mut self,
        live: &Live,
        requests: &[Request],
    ) -> Result<Vec<Outcomes>, QueueError> {
        let channel = self.channel(live).await?;
        let all: Vec<&Routed> = requests.iter().flat_map(|one| &one.messages).collect();
        let mut outcomes = Vec::with_capacity(all.len());
        for window in all.chunks(WINDOW) {
            match timeout_at(Instant::now() + DEADLINE, confirm(&channel, window)).await {
                Ok(Ok(confirmed)) => outcomes.extend(confirmed),
                Ok(Err(error)) => return Err(self.give_up(live, wire::trouble(&error))),
                Err(_) => {
                    let late = "the broker confirmed nothing in time".to_owned();
                    return Err(self.give_up(live, QueueError::Unavailable(late)));
                }
            }
        }
        if outcomes
            .iter()
            .any(|one| matches!(one, Err(QueueError::Topology(_))))
        {
            self.mend(live);
        }
        let mut outcomes = outcomes.into_iter();
        Ok(requests
            .iter()
            .map(|request| outcomes.by_ref().take(request.messages.len()).collect())
            .collect())
    }

    async fn channel(&mut self, live: &Live) -> Result<Channel, QueueError> {
        if let Some((generation, channel)) = &self.channel
            && *generation == live.generation
        {
            return Ok(channel.clone());
        }
        let channel = live.channel().await?;
        within(channel.confirm_select(ConfirmSelectOptions::default())).await?;
        self.channel = Some((live.generation, channel.clone()));
        Ok(channel)
    }

    fn give_up(&mut self, live: &Live, error: QueueError) -> QueueError {
        self.channel = None;
        if matches!(error, QueueError::Topology(_)) {
            self.mend(live);
        }
        error
    }

    /// Something that must be there is not: somebody may have deleted it. Made again at once, it
    /// would hide from the broker that its consumers must be told (seen on 3.10), so it is made
    /// again a little later, once for all who ask meanwhile.
    fn mend(&self, live: &Live) {
        let Ok(only_one) = Arc::clone(&self.mending).try_lock_owned() else {
            return;
        };
        let (topology, live) = (Arc::clone(&self.topology), live.clone());
        tokio::spawn(async move {
            tokio::time::sleep(MEND_AFTER).await;
            if let Err(error) = topology.ensure(&live).await {
                tracing::warn!(%error, "the topology could not be made again");
            }
            drop(only_one);
        });
    }
}

/// Publishes a window and waits for all its confirms.
async fn confirm(channel: &Channel, window: &[&Routed]) -> lapin::Result<Outcomes> {
    let mandatory = BasicPublishOptions {
        mandatory: true,
        ..BasicPublishOptions::default()
    };
    // Each is written to the socket when it is first polled: in this order, and all at once.
    let written = join_all(window.iter().map(|message| {
        channel.basic_publish(
            short(&message.route.exchange),
            short(&message.route.key),
            mandatory,
            &message.body,
            message.properties.clone(),
        )
    }))
    .await;
    let mut returned: BTreeMap<Route, String> = BTreeMap::new();
    let mut refused = BTreeSet::new();
    for (at, confirm) in written.into_iter().enumerate() {
        let confirmation = confirm?.await?;
        if confirmation.is_nack() {
            refused.insert(at);
        }
        if let Confirmation::Ack(Some(back)) | Confirmation::Nack(Some(back)) = confirmation {
            let route = Route {
                exchange: back.delivery.exchange.to_string(),
                key: back.delivery.routing_key.to_string(),
            };
            returned.insert(route, back.reply_text.to_string());
        }
    }
    let outcome = |(at, message): (usize, &&Routed)| {
        let Route { exchange, key } = &message.route;
        if let Some(why) = returned.get(&message.route) {
            return Err(QueueError::Topology(format!(
                "no queue is bound to exchange `{exchange}` for `{key}` ({why})"
            )));
        }
        if refused.contains(&at) {
            return Err(QueueError::Full {
                key: key.clone(),
                detail: "the broker refused a message, as a queue does at its length limit"
                    .to_owned(),
            });
        }
        Ok(())
    };
    Ok(window.iter().enumerate().map(outcome).collect())
}
