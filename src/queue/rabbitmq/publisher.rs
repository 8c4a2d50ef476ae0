//! Publishing: work in windows of confirms, hints without.
//!
//! Whatever waits is published together and confirmed together, by a few tasks that each have a
//! channel of their own: the client hands a returned message to whichever confirm comes next on
//! its channel, so a window must not share one. Which messages were returned is told by their
//! routes: what is bound decides, not the single message.

mod desk;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use lapin::BasicProperties;
use lapin::Channel;
use lapin::options::BasicPublishOptions;
use tokio::sync::Mutex;
use tokio::sync::mpsc;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio::time::timeout_at;

use self::desk::Desk;
use super::link::Link;
use super::link::PATIENCE;
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
