//! A lane: the task that consumes one queue, on one channel at a time, for as long as its
//! consumer lives.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::StreamExt;
use futures::future::join_all;
use lapin::Channel;
use lapin::message::Delivery;
use lapin::options::BasicAckOptions;
use lapin::options::BasicCancelOptions;
use lapin::options::BasicConsumeOptions;
use lapin::options::BasicQosOptions;
use lapin::options::QueueDeclareOptions;
use lapin::types::FieldTable;
use tokio::sync::mpsc;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::Faults;
use super::consumer::FAVOUR;
use super::consumer::Shared;
use super::link::Link;
use super::link::Live;
use super::link::within;
use super::topology::Topology;
use super::wire;
use super::wire::short;
use super::wire::trouble;
use crate::queue::QueueError;
use crate::queue::Receipt;
use crate::queue::Received;

/// Most messages in hand of one lane.
const WINDOW_MAX: usize = 256;
/// Only a window that is worked off within this grows: what is in hand is little more than so
/// much work, and other workers get their share of the rest.
const BRISK: Duration = Duration::from_secs(1);
/// Wait after the broker took the queue or the channel away.
const PAUSE: Duration = Duration::from_millis(500);
/// How often a lane asks whether the broker still knows of it.
const LOOK: Duration = Duration::from_secs(15);
/// Bits of a receipt for the broker's tag; the others are for the epoch.
const TAG_BITS: u32 = 44;

/// What a consumer tells a lane.
pub(super) enum Command {
    /// These are finished; tells when that is written.
    Acknowledge(Vec<u64>, oneshot::Sender<()>),
    /// The hand is full and more is wanted: make room for so many.
    Widen(usize),
    /// Take no more, and say when nothing more comes.
    Hold,
    /// Take again, beginning with one.
    Resume,
}

/// What a lane brings.
pub(super) enum Parcel {
    /// A message.
    Message(Received),
    /// Nothing more comes from this lane until it is resumed.
    Held(usize),
}

/// Which channel of a lane a receipt's tag belongs to.
pub(super) fn epoch(tag: u64) -> u64 {
    tag >> TAG_BITS
}

fn pack(epoch: u64, tag: u64) -> u64 {
    epoch << TAG_BITS | tag
}

fn unpack(tag: u64) -> u64 {
    tag & ((1 << TAG_BITS) - 1)
}

/// One lane of a consumer.
pub(super) struct Lane {
    pub(super) lane: usize,
    pub(super) key: String,
    pub(super) link: Link,
    pub(super) topology: Arc<Topology>,
    pub(super) faults: Arc<Faults>,
    pub(super) shared: Arc<Shared>,
    pub(super) orders: mpsc::UnboundedReceiver<Command>,
    pub(super) out: mpsc::UnboundedSender<Parcel>,
}

/// A lane's channel and what is known of it.
struct Open {
    channel: Channel,
    epoch: u64,
    stream: Option<lapin::Consumer>,
    unfinished: BTreeSet<u64>,
    window: usize,
    /// Finished since the window was last looked at, and when that was.
    progress: usize,
    since: Instant,
}

impl Lane {
    pub(super) fn start(self) {
        tokio::spawn(self.run());
    }

    /// Until the consumer is gone, or nobody will connect any more.
    async fn run(mut self) {
        let topic = format!("consuming {}", self.key);
        let mut held = false;
        loop {
            let live = tokio::select! {
                live = self.link.live() => live,
                () = gone(&mut self.orders, &mut held, self.lane, &self.out) => None,
            };
            let Some(live) = live else { break };
            let served = self.serve(&live, &mut held, &topic).await;
            // From here on no receipt of that channel is worth anything.
            self.shared.epoch.fetch_add(1, Ordering::AcqRel);
            let Err(error) = served else { break };
            tracing::debug!(queue = self.key, %error, "a consumer ended");
            if let QueueError::Topology(_) = error {
                self.faults.set(&topic, error);
                // Somebody may have deleted the queue.
                if let Err(error) = self.topology.ensure(&live).await {
                    self.faults.set(&topic, error);
                }
            }
            tokio::select! {
                () = tokio::time::sleep(PAUSE) => {}
                () = self.link.lost(live.generation) => {}
            }
        }
        self.faults.clear(&topic);
    }

    /// Serves on one channel. `Ok` when the consumer is gone.
    async fn serve(&mut self, live: &Live, held: &mut bool, topic: &str) -> Result<(), QueueError> {
        let mut open = Open {
            channel: live.channel().await?,
            epoch: self.shared.epoch.fetch_add(1, Ordering::AcqRel) + 1,
            stream: None,
            unfinished: BTreeSet::new(),
            window: 1,
            progress: 0,
            since: Instant::now(),
        };
        if *held {
            self.say_held();
        } else {
            self.consume(&mut open).await?;
        }
        self.faults.clear(topic);
        let mut look = tokio::time::interval_at(Instant::now() + LOOK, LOOK);
        loop {
            tokio::select! {
                order = self.orders.recv() => match order {
                    None => {
                        // Gives back what is in hand; if that fails, the broker sees to it.
                        let _ = within(open.channel.close(200, "done".into())).await;
                        return Ok(());
                    }
                    Some(Command::Acknowledge(tags, done)) => {
                        self.acknowledge(&mut open, &tags).await?;
                        // The consumer may not wait any more.
                        let _ = done.send(());
                        if !*held {
                            self.grow(&mut open).await?;
                        }
                    }
                    Some(Command::Widen(window)) => {
                        if !*held && open.window < window {
                            self.widen(&mut open, window).await?;
                        }
                    }
                    Some(Command::Hold) => {
                        *held = true;
                        let stream = open.stream.take();
                        self.cancel(&mut open, stream).await?;
                        self.say_held();
                    }
                    Some(Command::Resume) => {
                        *held = false;
                        open.window = 1;
                        self.consume(&mut open).await?;
                    }
                },
                delivery = next(&mut open.stream) => match delivery {
                    Some(delivery) => self.bring(&mut open, delivery.map_err(|e| trouble(&e))?),
                    None => return Err(QueueError::Topology(format!(
                        "the broker ended the consumer of `{}`: was the queue deleted?", self.key
                    ))),
                },
                _ = look.tick() => self.look(&open).await?,
                () = self.link.lost(live.generation) => {
                    return Err(QueueError::Unavailable("the connection was lost".to_owned()));
                }
            }
        }
    }

    /// Whether the broker still knows of this consumer. It tells when it ends one; should that
    /// word be lost, nothing would come any more, and nobody would know.
    async fn look(&self, open: &Open) -> Result<(), QueueError> {
        if open.stream.is_none() {
            return Ok(());
        }
        let queue = within(open.channel.queue_declare(
            short(&self.topology.name(&self.key)),
            QueueDeclareOptions::durable().passive(),
            FieldTable::default(),
        ))
        .await?;
        if queue.consumer_count() == 0 {
            let forgotten = "the broker has forgotten a consumer".to_owned();
            return Err(QueueError::Unavailable(forgotten));
        }
        Ok(())
    }

    fn say_held(&self) {
        // A consumer that is gone needs not know.
        let _ = self.out.send(Parcel::Held(self.lane));
    }

    fn bring(&self, open: &mut Open, delivery: Delivery) {
        open.unfinished.insert(delivery.delivery_tag);
        let receipt = Receipt {
            lane: self.lane,
            tag: pack(open.epoch, delivery.delivery_tag),
        };
        let message = wire::received(delivery, &self.key, &self.topology, receipt);
        let _ = self.out.send(Parcel::Message(message));
    }

    async fn consume(&self, open: &mut Open) -> Result<(), QueueError> {
        self.shared.window.store(open.window, Ordering::Relaxed);
        let window = u16::try_from(open.window).unwrap_or(u16::MAX);
        within(open.channel.basic_qos(window, BasicQosOptions::default())).await?;
        let stream = open.channel.basic_consume(
            short(&self.topology.name(&self.key)),
            short(""),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        );
        open.stream = Some(within(stream).await?);
        Ok(())
    }

    /// Ends a consumer and brings what was still on its way.
    async fn cancel(
        &self,
        open: &mut Open,
        stream: Option<lapin::Consumer>,
    ) -> Result<(), QueueError> {
        let Some(mut stream) = stream else {
            return Ok(());
        };
        let options = BasicCancelOptions::default();
        within(open.channel.basic_cancel(stream.tag(), options)).await?;
        while let Some(delivery) = stream.next().await {
            self.bring(open, delivery.map_err(|error| trouble(&error))?);
        }
        Ok(())
    }

    /// Doubles the window once it was worked off briskly. The broker takes a new one only for a
    /// new consumer.
    async fn grow(&self, open: &mut Open) -> Result<(), QueueError> {
        if open.progress < open.window {
            return Ok(());
        }
        let brisk = open.since.elapsed() < BRISK;
        open.progress = 0;
        open.since = Instant::now();
        // Where work is quicker than the broker, what each lane has in flight decides how many
        // come of it.
        let limit = if self.lane == 0 {
            WINDOW_MAX
        } else {
            WINDOW_MAX / FAVOUR
        };
        let window = (open.window * 2).min(limit);
        if brisk && open.window < window {
            self.widen(open, window).await?;
        }
        Ok(())
    }

    async fn widen(&self, open: &mut Open, window: usize) -> Result<(), QueueError> {
        // The new one first, so that the lane does not run dry meanwhile.
        let old = open.stream.take();
        open.window = window;
        self.consume(open).await?;
        self.cancel(open, old).await
    }

    async fn acknowledge(&self, open: &mut Open, tags: &[u64]) -> Result<(), QueueError> {
        let mut finished: Vec<u64> = tags
            .iter()
            .filter(|tag| epoch(**tag) == open.epoch)
            .map(|tag| unpack(*tag))
            .filter(|tag| open.unfinished.remove(tag))
            .collect();
        finished.sort_unstable();
        open.progress += finished.len();
        let oldest = open.unfinished.first().copied();
        let written = plan(&finished, oldest)
            .into_iter()
            .map(|(tag, multiple)| open.channel.basic_ack(tag, BasicAckOptions { multiple }));
        let written = async { join_all(written).await.into_iter().collect() };
        within(written).await
    }
}

/// Which tags to acknowledge, and with `multiple`: everything older than the oldest unfinished
/// message at once, the rest one by one. `finished` is sorted.
fn plan(finished: &[u64], oldest: Option<u64>) -> Vec<(u64, bool)> {
    let split = finished.partition_point(|tag| oldest.is_none_or(|oldest| *tag < oldest));
    let (old, rest) = finished.split_at(split);
    let old = old.last().map(|tag| (*tag, 1 < old.len()));
    old.into_iter()
        .chain(rest.iter().map(|tag| (*tag, false)))
        .collect()
}

/// The next delivery; never, while nothing is consumed.
async fn next(stream: &mut Option<lapin::Consumer>) -> Option<lapin::Result<Delivery>> {
    match stream {
        Some(stream) => stream.next().await,
        None => std::future::pending().await,
    }
}

/// Listens to the consumer while there is no connection; returns when it is gone.
async fn gone(
    orders: &mut mpsc::UnboundedReceiver<Command>,
    held: &mut bool,
    lane: usize,
    out: &mpsc::UnboundedSender<Parcel>,
) {
    while let Some(order) = orders.recv().await {
        match order {
            // Of a connection that is gone.
            Command::Acknowledge(..) | Command::Widen(_) => {}
            Command::Hold => {
                *held = true;
                let _ = out.send(Parcel::Held(lane));
            }
            Command::Resume => *held = false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_older_than_the_oldest_unfinished_is_acknowledged_at_once() {
        assert_eq!(plan(&[1, 2, 3], None), [(3, true)]);
        assert_eq!(
            plan(&[1, 2, 5, 7], Some(4)),
            [(2, true), (5, false), (7, false)]
        );
        assert_eq!(plan(&[4], None), [(4, false)]);
        assert_eq!(plan(&[4, 5], Some(3)), [(4, false), (5, false)]);
        assert!(plan(&[], Some(3)).is_empty());
    }

    #[test]
    fn a_receipt_tells_the_channel_it_came_on() {
        let tag = pack(3, 77);
        assert_eq!((epoch(tag), unpack(tag)), (3, 77));
        assert_ne!(pack(4, 77), tag);
    }
}
