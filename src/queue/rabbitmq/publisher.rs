//! Publishing: work in windows of confirms, hints without.
//!
//! Whatever waits is published together and confirmed together, by a few tasks that each have a
//! channel of their own: the client hands a returned message to whichever confirm comes next on
//! its channel, so a window must not share one. Which messages were returned is told by their
//! routes: what is bound decides, not the single message.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use lapin::BasicProperties;
use lapin::Channel;
use lapin::Confirmation;
use lapin::options::BasicPublishOptions;
use lapin::options::ConfirmSelectOptions;
use tokio::sync::Mutex;
use tokio::sync::mpsc;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio::time::timeout_at;

use super::link::Link;
use super::link::Live;
use super::link::PATIENCE;
use super::link::within;
use super::topology::Topology;
use super::wire;
use super::wire::short;
use crate::queue::Message;
use crate::queue::QueueError;
use crate::queue::ReplyTo;

/// Windows in flight at a time, each on a channel of its own.
const CHANNELS: usize = 4;
/// Most messages in a window.
const WINDOW: usize = 512;
/// Callers that may wait in line.
const LINE: usize = 1024;
/// Hints that may wait to be written; more are dropped.
const HINTS: usize = 4096;
/// Longest that a caller waits for the confirm of its messages.
const DEADLINE: Duration = PATIENCE;

/// How long after a message was returned what is missing is made again.
const MEND_AFTER: Duration = Duration::from_secs(1);

/// What became of each message, in order.
pub(super) type Outcomes = Vec<Result<(), QueueError>>;

/// The handle to the tasks that publish. They end when the last handle is gone.
#[derive(Clone)]
pub(super) struct Publisher {
    line: mpsc::Sender<Request>,
    hints: mpsc::Sender<Hint>,
    link: Link,
    topology: Arc<Topology>,
}

/// One caller's messages.
struct Request {
    messages: Vec<Routed>,
    done: oneshot::Sender<Outcomes>,
}

/// A message and where it goes.
struct Routed {
    route: Route,
    properties: BasicProperties,
    body: Bytes,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Route {
    exchange: String,
    key: String,
}

/// A message that may be lost.
struct Hint {
    route: Route,
    properties: BasicProperties,
    body: Bytes,
}

impl Publisher {
    /// Starts the tasks.
    pub(super) fn start(link: &Link, topology: &Arc<Topology>) -> Self {
        let (line, requests) = mpsc::channel(LINE);
        let (hints, heard) = mpsc::channel(HINTS);
        let requests = Arc::new(Mutex::new(requests));
        let mending = Arc::new(Mutex::new(()));
        for _ in 0..CHANNELS {
            let desk = Desk {
                link: link.clone(),
                topology: Arc::clone(topology),
                requests: Arc::clone(&requests),
                channel: None,
                mending: Arc::clone(&mending),
            };
            tokio::spawn(desk.run());
        }
        tokio::spawn(whisper(link.clone(), heard));
        Self {
            line,
            hints,
            link: link.clone(),
            topology: Arc::clone(topology),
        }
    }

    /// Publishes all and tells what became of each; an error is of all together.
    pub(super) async fn publish(&self, messages: &[Message]) -> Result<Outcomes, QueueError> {
        if messages.is_empty() {
            return Ok(Vec::new());
        }
        let messages = messages
            .iter()
            .map(|message| self.route(message))
            .collect::<Result<_, _>>()?;
        let (done, outcomes) = oneshot::channel();
        let deadline = Instant::now() + DEADLINE;
        let request = Request { messages, done };
        let answer = async {
            self.line.send(request).await.ok()?;
            outcomes.await.ok()
        };
        match timeout_at(deadline, answer).await {
            Ok(Some(outcomes)) => Ok(outcomes),
            Ok(None) => Err(QueueError::Unavailable("stopped".to_owned())),
            Err(_) => Err(self.why()),
        }
    }

    /// Why nothing was confirmed in time.
    fn why(&self) -> QueueError {
        match self.link.state().well() {
            Err(why) => why,
            Ok(()) => QueueError::Unavailable(format!(
                "the broker confirmed nothing within {} s",
                DEADLINE.as_secs()
            )),
        }
    }

    fn route(&self, message: &Message) -> Result<Routed, QueueError> {
        let exchange = match message.delay {
            None => self.topology.work().to_owned(),
            Some(delay) => {
                let step = self.topology.step(delay).ok_or_else(|| {
                    QueueError::Topology("no waits are configured (tidings.retry)".to_owned())
                })?;
                self.topology.wait(step)
            }
        };
        Ok(Routed {
            route: Route {
                exchange,
                key: message.key.clone(),
            },
            properties: wire::properties(message),
            body: message.body.clone(),
        })
    }

    /// Tells every listening process, if that is easily done.
    pub(super) fn announce(&self, body: Bytes) {
        self.hint(
            self.topology.signals(),
            "",
            BasicProperties::default(),
            body,
        );
    }

    /// Answers, if that is easily done.
    pub(super) fn answer(&self, to: &ReplyTo, body: Bytes) {
        if self.topology.is_work(&to.address) {
            tracing::debug!(
                to.address,
                "no queue of ours takes replies: one was dropped"
            );
            return;
        }
        let properties = BasicProperties::default().with_correlation_id(short(&to.correlation));
        self.hint(String::new(), &to.address, properties, body);
    }

    fn hint(&self, exchange: String, key: &str, properties: BasicProperties, body: Bytes) {
        let route = Route {
            exchange,
            key: key.to_owned(),
        };
        let hint = Hint {
            route,
            properties,
            body,
        };
        if self.hints.try_send(hint).is_err() {
            tracing::debug!("too many signals or replies at once: one was dropped");
        }
    }
}

/// A task that publishes windows, one after the other.
struct Desk {
    link: Link,
    topology: Arc<Topology>,
    requests: Arc<Mutex<mpsc::Receiver<Request>>>,
    channel: Option<(u64, Channel)>,
    mending: Arc<Mutex<()>>,
}

impl Desk {
    async fn run(mut self) {
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

/// Writes signals and replies while there is a connection; without one they are lost.
async fn whisper(mut link: Link, mut hints: mpsc::Receiver<Hint>) {
    let mut channel: Option<(u64, Channel)> = None;
    let mut batch = Vec::new();
    while hints.recv_many(&mut batch, WINDOW).await != 0 {
        let hints = std::mem::take(&mut batch);
        let super::link::State::Up(live) = link.state() else {
            continue;
        };
        if channel.as_ref().map(|(generation, _)| *generation) != Some(live.generation) {
            channel = live.channel().await.ok().map(|new| (live.generation, new));
        }
        let Some((_, open)) = &channel else { continue };
        let written = join_all(hints.iter().map(|hint| {
            open.basic_publish(
                short(&hint.route.exchange),
                short(&hint.route.key),
                BasicPublishOptions::default(),
                &hint.body,
                hint.properties.clone(),
            )
        }));
        let failed = tokio::select! {
            written = written => written.iter().any(Result::is_err),
            () = link.lost(live.generation) => true,
        };
        if failed {
            channel = None;
        }
    }
}
