//! What stands on the broker: names, arguments, and how they get there.
//!
//! Every name begins with the prefix, so that installations and tests share a broker. Arguments
//! are constants: declaring a queue again with others is refused by the broker, which would stop
//! a rolling upgrade. What may change belongs into a policy, or into the name.
//!
//! | exchange | kind | leads to |
//! |---|---|---|
//! | `<prefix>` | topic | queue `<prefix>.<key>` by routing key `<key>` |
//! | `<prefix>.submit` | fanout | queue `<prefix>.submissions`; producers write here and nowhere else |
//! | `<prefix>.signals` | fanout | one exclusive queue for each listening process |
//! | `<prefix>.wait.<step>` | fanout | queue of that name, whose messages return to `<prefix>` after the step, under the key they came with |

use std::time::Duration;

use lapin::Channel;
use lapin::ExchangeKind;
use lapin::options::ExchangeDeclareOptions;
use lapin::options::QueueBindOptions;
use lapin::options::QueueDeclareOptions;
use lapin::types::AMQPValue;
use lapin::types::FieldTable;
use lapin::types::ShortString;
use tokio::time::timeout;

use super::link::Live;
use super::wire;
use super::wire::short;
use super::wire::trouble;
use crate::queue::DEAD;
use crate::queue::DELIVERY_LIMIT;
use crate::queue::QueueError;
use crate::topology::QueueSpec;
use crate::topology::SUBMISSIONS;

/// Where a dead letter ends that even the filing of dead letters cannot read. Nobody consumes it.
pub(super) const UNREADABLE: &str = "dead.unreadable";

/// Most messages in a queue that producers write to; a policy may set less.
const MAX_LENGTH: i64 = 1_000_000;
/// Most bytes in a queue that producers write to: 8 GiB; a policy may set less.
const MAX_LENGTH_BYTES: i64 = 8 << 30;
/// Most signals that wait for one process; the oldest go first.
const MAX_SIGNALS: i64 = 10_000;

/// Longest that making or checking the topology may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a process needs on the broker.
#[derive(Clone, Debug)]
pub(super) struct Topology {
    pub(super) prefix: String,
    pub(super) queues: Vec<QueueSpec>,
    pub(super) steps: Vec<Duration>,
}

impl Topology {
    /// The topic exchange of all work.
    pub(super) fn work(&self) -> &str {
        &self.prefix
    }

    /// The exchange of producers.
    pub(super) fn submit(&self) -> String {
        self.name("submit")
    }

    /// The exchange of signals.
    pub(super) fn signals(&self) -> String {
        self.name("signals")
    }

    /// The exchange and queue of those who wait `step`.
    pub(super) fn wait(&self, step: Duration) -> String {
        self.name(&format!("wait.{}", words(step)))
    }

    /// The shortest step not shorter than `delay`, or the longest there is.
    pub(super) fn step(&self, delay: Duration) -> Option<Duration> {
        let longest = self.steps.iter().max();
        let fitting = self.steps.iter().filter(|step| delay <= **step).min();
        fitting.or(longest).copied()
    }

    /// The full name of a queue.
    pub(super) fn name(&self, key: &str) -> String {
        format!("{}.{key}", self.prefix)
    }

    /// The key of a queue's full name.
    pub(super) fn key<'a>(&self, name: &'a str) -> &'a str {
        name.strip_prefix(&self.prefix)
            .and_then(|rest| rest.strip_prefix('.'))
            .unwrap_or(name)
    }

    /// Whether a queue of this name is for work or waits. A producer names the queue of its reply
    /// itself; without this it could have us write where it may not.
    pub(super) fn is_work(&self, name: &str) -> bool {
        let key = self.key(name);
        key != name && !key.starts_with("replies.")
    }

    /// Makes everything, where the user may; else checks that it is there.
    pub(super) async fn ensure(&self, live: &Live) -> Result<(), QueueError> {
        let channel = live.channel().await?;
        match timeout(PATIENCE, self.declare(&channel)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) if wire::is_access_refused(&error) => {
                let checked = timeout(PATIENCE, self.check(live, error));
                checked.await.unwrap_or_else(|_| Err(late()))
            }
            Ok(Err(error)) => Err(trouble(&error)),
            Err(_) => Err(late()),
        }
    }

    async fn declare(&self, channel: &Channel) -> lapin::Result<()> {
        exchange(channel, self.work(), ExchangeKind::Topic).await?;
        exchange(channel, &self.submit(), ExchangeKind::Fanout).await?;
        exchange(channel, &self.signals(), ExchangeKind::Fanout).await?;
        for (key, arguments) in self.work_queues() {
            let name = self.name(&key);
            queue(channel, &name, arguments).await?;
            bind(channel, &name, self.work(), &key).await?;
            if key == SUBMISSIONS {
                bind(channel, &name, &self.submit(), "").await?;
            }
        }
        for step in &self.steps {
            let name = self.wait(*step);
            exchange(channel, &name, ExchangeKind::Fanout).await?;
            queue(channel, &name, self.wait_arguments(*step)).await?;
            bind(channel, &name, &name, "").await?;
        }
        Ok(())
    }

    /// For a user that may not declare: is it there? A failed question closes its channel.
    async fn check(&self, live: &Live, refused: lapin::Error) -> Result<(), QueueError> {
        let channel = live.channel().await?;
        let waits: Vec<String> = self.steps.iter().map(|step| self.wait(*step)).collect();
        let exchanges = [self.work().to_owned(), self.submit(), self.signals()];
        let queues = self
            .work_queues()
            .into_iter()
            .map(|(key, _)| self.name(&key));
        let missing = |what: &str, name: &str, error: &lapin::Error| {
            QueueError::Topology(format!(
                "{what} `{name}` is missing ({error}) and this user may not make it ({refused}): \
                 start a role that may, or run deploy/rabbitmq/setup"
            ))
        };
        for name in exchanges.iter().chain(&waits) {
            let passive = ExchangeDeclareOptions {
                passive: true,
                ..ExchangeDeclareOptions::default()
            };
            channel
                .exchange_declare(
                    short(name),
                    ExchangeKind::Topic,
                    passive,
                    FieldTable::default(),
                )
                .await
                .map_err(|error| missing("the exchange", name, &error))?;
        }
        for name in queues.chain(waits.iter().cloned()) {
            channel
                .queue_declare(
                    short(&name),
                    QueueDeclareOptions::durable().passive(),
                    FieldTable::default(),
                )
                .await
                .map_err(|error| missing("the queue", &name, &error))?;
        }
        Ok(())
    }

    /// The full name of every queue.
    pub(super) fn queue_names(&self) -> Vec<String> {
        let work = self.work_queues().into_iter();
        let work = work.map(|(key, _)| self.name(&key));
        let waits = self.steps.iter().map(|step| self.wait(*step));
        work.chain(waits).collect()
    }

    /// Every work queue with its arguments.
    fn work_queues(&self) -> Vec<(String, FieldTable)> {
        let mut all: Vec<_> = self
            .queues
            .iter()
            .map(|spec| (spec.key.clone(), self.work_arguments(spec)))
            .collect();
        all.push((UNREADABLE.to_owned(), quorum([])));
        all
    }

    /// Returned too often, a message goes to the dead; a dead one that nobody can read, to
    /// where it is kept for an operator. At least once: never lost between two queues, which
    /// requires that a full queue refuses instead of dropping.
    fn work_arguments(&self, spec: &QueueSpec) -> FieldTable {
        let after = if spec.key == DEAD {
            UNREADABLE
        } else {
            spec.after
        };
        let mut arguments = vec![
            ("x-delivery-limit", i64::from(DELIVERY_LIMIT).into()),
            ("x-dead-letter-exchange", text(self.work())),
            ("x-dead-letter-routing-key", text(after)),
            ("x-dead-letter-strategy", text("at-least-once")),
            ("x-overflow", text("reject-publish")),
        ];
        if spec.limited {
            arguments.push(("x-max-length", MAX_LENGTH.into()));
            arguments.push(("x-max-length-bytes", MAX_LENGTH_BYTES.into()));
        }
        quorum(arguments)
    }

    /// No routing key of its own: the message returns under the one it came with.
    fn wait_arguments(&self, step: Duration) -> FieldTable {
        quorum([
            ("x-message-ttl", millis(step)),
            ("x-dead-letter-exchange", text(self.work())),
            ("x-dead-letter-strategy", text("at-least-once")),
            ("x-overflow", text("reject-publish")),
        ])
    }
}

fn late() -> QueueError {
    let seconds = PATIENCE.as_secs();
    QueueError::Unavailable(format!("the topology was not made within {seconds} s"))
}

/// The arguments of a process's own queue of signals.
pub(super) fn signal_arguments() -> FieldTable {
    table([
        ("x-max-length", MAX_SIGNALS.into()),
        ("x-overflow", text("drop-head")),
    ])
}

/// Declares a queue of this connection alone, under a fresh name: the last one may still be held
/// by a connection that the broker has not yet given up.
pub(super) async fn own_queue(
    channel: &Channel,
    name: &str,
    arguments: FieldTable,
) -> lapin::Result<()> {
    let options = QueueDeclareOptions::exclusive().auto_delete();
    channel
        .queue_declare(short(name), options, arguments)
        .await
        .map(|_| ())
}

async fn exchange(channel: &Channel, name: &str, kind: ExchangeKind) -> lapin::Result<()> {
    let durable = ExchangeDeclareOptions {
        durable: true,
        ..ExchangeDeclareOptions::default()
    };
    channel
        .exchange_declare(short(name), kind, durable, FieldTable::default())
        .await
}

async fn queue(channel: &Channel, name: &str, arguments: FieldTable) -> lapin::Result<()> {
    channel
        .queue_declare(short(name), QueueDeclareOptions::durable(), arguments)
        .await
        .map(|_| ())
}

/// Binds a queue to an exchange.
pub(super) async fn bind(
    channel: &Channel,
    queue: &str,
    exchange: &str,
    key: &str,
) -> lapin::Result<()> {
    channel
        .queue_bind(
            short(queue),
            short(exchange),
            short(key),
            QueueBindOptions::default(),
            FieldTable::default(),
        )
        .await
}

type Argument = (&'static str, AMQPValue);

fn quorum(arguments: impl IntoIterator<Item = Argument>) -> FieldTable {
    table(
        arguments
            .into_iter()
            .chain([("x-queue-type", text("quorum"))]),
    )
}

fn table(arguments: impl IntoIterator<Item = Argument>) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, value) in arguments {
        table.insert(ShortString::from(name), value);
    }
    table
}

fn text(text: &str) -> AMQPValue {
    AMQPValue::LongString(text.into())
}

fn millis(step: Duration) -> AMQPValue {
    AMQPValue::LongLongInt(i64::try_from(step.as_millis()).unwrap_or(i64::MAX))
}

/// A wait as a word of a name, one for each length: `90s`, `1500ms`.
fn words(step: Duration) -> String {
    let ms = step.as_millis();
    if ms.is_multiple_of(1000) {
        format!("{}s", ms / 1000)
    } else {
        format!("{ms}ms")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topology() -> Topology {
        Topology {
            prefix: "tidings".to_owned(),
            queues: crate::topology::queues(&["email".to_owned()]),
            steps: [10, 60].map(Duration::from_secs).to_vec(),
        }
    }

    #[test]
    fn every_name_begins_with_the_prefix_and_tells_the_length_of_a_wait() {
        let topology = topology();
        assert_eq!(topology.name("deliver.email"), "tidings.deliver.email");
        assert_eq!(topology.key("tidings.deliver.email"), "deliver.email");
        assert_eq!(topology.key("foreign"), "foreign");
        assert_eq!(topology.wait(Duration::from_secs(90)), "tidings.wait.90s");
        assert_eq!(
            topology.wait(Duration::from_millis(1500)),
            "tidings.wait.1500ms"
        );
    }

    #[test]
    fn a_delay_takes_the_next_longer_step_or_the_longest() {
        let topology = topology();
        let step = |seconds| topology.step(Duration::from_secs(seconds));
        assert_eq!(step(0), Some(Duration::from_secs(10)));
        assert_eq!(step(11), Some(Duration::from_secs(60)));
        assert_eq!(step(3600), Some(Duration::from_secs(60)));
    }

    #[test]
    fn only_queues_that_producers_write_to_can_be_full() {
        for (key, arguments) in topology().work_queues() {
            let limited = arguments.contains_key("x-max-length");
            assert_eq!(limited, key.starts_with(SUBMISSIONS), "{key}");
        }
    }

    /// The arguments of a queue as JSON.
    fn shown(table: &FieldTable) -> serde_json::Value {
        let one = |(name, value): (&ShortString, &AMQPValue)| {
            let value = match value {
                AMQPValue::LongString(text) => text.to_string().into(),
                AMQPValue::LongLongInt(number) => (*number).into(),
                AMQPValue::LongInt(number) => (*number).into(),
                other => panic!("{other:?}"),
            };
            (name.to_string(), value)
        };
        serde_json::Value::Object(table.into_iter().map(one).collect())
    }

    #[test]
    fn the_asyncapi_document_says_what_is_declared() {
        let document: serde_json::Value =
            serde_json::from_str(include_str!("../../../schemas/asyncapi.json")).unwrap();
        let channels = document["channels"].as_object().unwrap();
        let mut queues = crate::topology::queues(&["{name}".to_owned()]);
        queues.extend(crate::topology::decorate_queues(["{name}"].into_iter()));
        let topology = Topology {
            queues,
            ..topology()
        };
        let mut declared: Vec<(String, FieldTable)> = topology.work_queues();
        let step = Duration::from_secs(10);
        declared.push(("wait.{delay}".to_owned(), topology.wait_arguments(step)));
        for (key, arguments) in &declared {
            let channel = &channels[key];
            let mut expected = shown(arguments);
            if key.starts_with("wait.") {
                expected["x-message-ttl"] = "{delay}".into();
            } else {
                assert_eq!(channel["x-binding"]["routingKey"], key.as_str());
            }
            assert_eq!(channel["x-arguments"], expected, "{key}");
            assert_eq!(channel["address"], topology.name(key), "{key}");
        }
        let is = |channel: &serde_json::Value| channel["bindings"]["amqp"]["is"] == "queue";
        let documented = channels.values().filter(|channel| is(channel)).count();
        assert_eq!(documented, declared.len(), "no queue beside those");
        for (key, name, kind) in [
            ("work", topology.work().to_owned(), "topic"),
            ("submit", topology.submit(), "fanout"),
            ("signals", topology.signals(), "fanout"),
        ] {
            let exchange = &channels[key]["bindings"]["amqp"]["exchange"];
            assert_eq!(
                (&exchange["name"], &exchange["type"]),
                (&name.into(), &kind.into())
            );
        }
    }

    #[test]
    fn no_queue_returns_its_dead_to_itself() {
        for (key, arguments) in topology().work_queues() {
            let next = arguments.inner().get("x-dead-letter-routing-key");
            let limit = arguments.contains_key("x-delivery-limit");
            assert_eq!(
                next.is_some(),
                limit,
                "{key}: a limit without a way out loses"
            );
            assert_ne!(next, Some(&text(&key)));
        }
    }
}
