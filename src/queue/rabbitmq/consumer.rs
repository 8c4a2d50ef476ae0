//! Consuming: one task per lane holds the channel; the consumer picks among what they bring.
//!
//! The window of each lane starts at one message and doubles on success, so that a message that
//! kills its process takes little company with it; one that came back often is handed out when
//! nothing else of this consumer is at the broker's mercy. Acknowledgements of a connection that
//! is gone are dropped: those messages come again.

use std::collections::HashSet;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::mpsc;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio::time::timeout_at;

use super::Faults;
use super::lane::Command;
use super::lane::Lane;
use super::lane::Parcel;
use super::link::Link;
use super::publisher::Publisher;
use super::topology::Topology;
use crate::queue::ALONE_AFTER_RETURNS;
use crate::queue::Consumer;
use crate::queue::Ended;
use crate::queue::QueueError;
use crate::queue::Receipt;
use crate::queue::Received;

/// How long company is waited for once several messages came.
const LINGER: Duration = Duration::from_millis(2);
/// While several lanes have work, so many of the first for one of each other.
pub(super) const FAVOUR: usize = 4;
/// Waits between tries to publish what follows.
const RETRY_MIN: Duration = Duration::from_millis(100);
/// The longest of them.
const RETRY_MAX: Duration = Duration::from_secs(5);

/// What a lane's task and its consumer both look at.
#[derive(Default)]
pub(super) struct Shared {
    /// Which channel of this lane is the present one; receipts of others are void.
    pub(super) epoch: AtomicU64,
    /// How many messages may be in hand.
    pub(super) window: AtomicUsize,
}

struct Handle {
    shared: Arc<Shared>,
    commands: mpsc::UnboundedSender<Command>,
    waiting: VecDeque<Received>,
    held: bool,
    /// Messages of this lane were finished, so more may be on their way.
    flows: bool,
}

/// The lanes of one kind of work.
pub(super) struct RabbitConsumer {
    lanes: Vec<Handle>,
    parcels: mpsc::UnboundedReceiver<Parcel>,
    suspects: VecDeque<Received>,
    holding: bool,
    /// Where in the round of lanes the next message is picked.
    round: usize,
    in_hand: HashSet<Receipt>,
    publisher: Publisher,
    faults: Arc<Faults>,
    /// Under which name its faults are told.
    topic: String,
}

impl RabbitConsumer {
    /// Starts a task for each lane.
    pub(super) fn start(
        lanes: Vec<String>,
        link: &Link,
        topology: &Arc<Topology>,
        publisher: Publisher,
        faults: &Arc<Faults>,
    ) -> Self {
        let (out, parcels) = mpsc::unbounded_channel();
        let first = lanes.first().map_or("", String::as_str);
        let topic = format!("publishing what follows from {first}");
        let handle = |(lane, key)| {
            let shared = Arc::new(Shared::default());
            let (commands, orders) = mpsc::unbounded_channel();
            Lane {
                lane,
                key,
                link: link.clone(),
                topology: Arc::clone(topology),
                faults: Arc::clone(faults),
                shared: Arc::clone(&shared),
                orders,
                out: out.clone(),
            }
            .start();
            Handle {
                shared,
                commands,
                waiting: VecDeque::new(),
                held: false,
                flows: false,
            }
        };
        Self {
            lanes: lanes.into_iter().enumerate().map(handle).collect(),
            parcels,
            suspects: VecDeque::new(),
            holding: false,
            round: 0,
            in_hand: HashSet::new(),
            publisher,
            faults: Arc::clone(faults),
            topic,
        }
    }

    fn is_current(lanes: &[Handle], receipt: Receipt) -> bool {
        lanes.get(receipt.lane).is_some_and(|lane| {
            super::lane::epoch(receipt.tag) == lane.shared.epoch.load(Ordering::Acquire)
        })
    }

    fn accept(&mut self, parcel: Parcel) {
        match parcel {
            Parcel::Message(message) if message.returns < ALONE_AFTER_RETURNS => {
                if let Some(lane) = self.lanes.get_mut(message.receipt.lane) {
                    lane.waiting.push_back(message);
                }
            }
            Parcel::Message(message) => self.suspects.push_back(message),
            Parcel::Held(lane) => {
                if let Some(lane) = self.lanes.get_mut(lane) {
                    lane.held = true;
                }
            }
        }
    }

    /// Takes in what came, forgets what is void, and starts or ends the hold.
    fn settle(&mut self) {
        while let Ok(parcel) = self.parcels.try_recv() {
            self.accept(parcel);
        }
        let lanes = &self.lanes;
        self.suspects
            .retain(|message| Self::is_current(lanes, message.receipt));
        self.in_hand
            .retain(|receipt| Self::is_current(lanes, *receipt));
        for lane in &mut self.lanes {
            let epoch = lane.shared.epoch.load(Ordering::Acquire);
            lane.waiting
                .retain(|message| super::lane::epoch(message.receipt.tag) == epoch);
        }
        let suspicious = !self.suspects.is_empty() || !self.in_hand.is_empty();
        if !self.holding && !self.suspects.is_empty() {
            self.order(true);
        } else if self.holding && !suspicious && self.lanes.iter().all(|lane| lane.held) {
            self.order(false);
        }
    }

    fn order(&mut self, hold: bool) {
        self.holding = hold;
        for lane in &mut self.lanes {
            lane.held = false;
            let command = if hold { Command::Hold } else { Command::Resume };
            // A task that has ended needs no order.
            let _ = lane.commands.send(command);
        }
    }

    fn waiting(&self) -> usize {
        self.lanes.iter().map(|lane| lane.waiting.len()).sum()
    }

    /// Whether more could come before something is finished.
    fn is_exhausted(&self) -> bool {
        let window = |lane: &Handle| lane.shared.window.load(Ordering::Relaxed);
        self.holding || self.lanes.iter().map(window).sum::<usize>() <= self.waiting()
    }

    /// Up to `max` of what waits, lane by lane in rounds. A suspect only when it is alone.
    fn pick(&mut self, max: usize) -> Vec<Received> {
        let mut batch = Vec::new();
        while batch.len() < max {
            let Some(message) = self.pick_one(!batch.is_empty()) else {
                break;
            };
            batch.push(message);
        }
        let alone = self.holding && self.lanes.iter().all(|lane| lane.held);
        if batch.is_empty() && alone && self.in_hand.is_empty() {
            batch.extend(self.suspects.pop_front());
        }
        self.in_hand.extend(batch.iter().map(|one| one.receipt));
        batch
    }

    /// The lane whose turn it is: in a round, four times the first, then each other once.
    fn turn(&self) -> usize {
        (self.round + 1).saturating_sub(FAVOUR)
    }

    /// One message by turns. A lane that has none is passed by, unless more of it is on its way
    /// and there is something to work on meanwhile: where work is quicker than the broker, the
    /// others would otherwise take its turns.
    fn pick_one(&mut self, busy: bool) -> Option<Received> {
        let steps = FAVOUR + self.lanes.len() - 1;
        for _ in 0..steps {
            let turn = self.turn();
            let lane = &mut self.lanes[turn];
            let message = lane.waiting.pop_front();
            if message.is_none() && lane.flows && busy {
                return None;
            }
            self.round = (self.round + 1) % steps;
            if message.is_some() {
                return message;
            }
        }
        None
    }

    /// Waits a little for the lane whose turn it is, or for company, where there is hope.
    async fn linger(&mut self, max: usize) {
        let until = Instant::now() + LINGER;
        loop {
            let lane = &self.lanes[self.turn()];
            let turn_comes = lane.flows && lane.waiting.is_empty();
            let company_comes = 1 < self.waiting() && self.waiting() < max && !self.is_exhausted();
            if self.waiting() == 0 || self.holding || !(turn_comes || company_comes) {
                return;
            }
            match timeout_at(until, self.parcels.recv()).await {
                Ok(Some(parcel)) => {
                    self.accept(parcel);
                    self.settle();
                }
                _ => {
                    for lane in &mut self.lanes {
                        lane.flows &= !lane.waiting.is_empty();
                    }
                    return;
                }
            }
        }
    }

    /// A caller that wants more while its hand is full would wait for ever on a window that
    /// grows only by what is finished.
    fn widen(&self) {
        for (at, lane) in self.lanes.iter().enumerate() {
            let in_hand = self.in_hand.iter().filter(|one| one.lane == at).count();
            if 0 < in_hand && lane.shared.window.load(Ordering::Relaxed) <= in_hand {
                let _ = lane.commands.send(Command::Widen(in_hand * 2));
            }
        }
    }

    /// Publishes what follows; acknowledges what is safe and returns the rest, with the reason.
    async fn attempt(&mut self, mut ended: Vec<Ended>) -> (Vec<Ended>, Option<QueueError>) {
        let counts: Vec<usize> = ended.iter().map(|one| one.next.len()).collect();
        let next: Vec<_> = ended
            .iter_mut()
            .flat_map(|one| std::mem::take(&mut one.next))
            .collect();
        let (outcomes, mut error) = match self.publisher.publish(&next).await {
            Ok(outcomes) => (outcomes, None),
            Err(error) => (vec![Err(error.clone()); next.len()], Some(error)),
        };
        let mut published = next.into_iter().zip(outcomes);
        let (mut safe, mut rest) = (Vec::new(), Vec::new());
        for (mut one, count) in ended.into_iter().zip(counts) {
            let mut failed = None;
            for (message, outcome) in published.by_ref().take(count) {
                failed = failed.or(outcome.err());
                one.next.push(message);
            }
            match failed {
                None => safe.push(one.receipt),
                Some(failure) => {
                    // One that must be mended weighs more than one that passes.
                    if !matches!(error, Some(QueueError::Topology(_))) {
                        error = Some(failure);
                    }
                    rest.push(one);
                }
            }
        }
        self.acknowledge(safe).await;
        (rest, error)
    }

    async fn acknowledge(&mut self, receipts: Vec<Receipt>) {
        let mut written = Vec::new();
        for (at, lane) in self.lanes.iter_mut().enumerate() {
            let tags: Vec<u64> = receipts
                .iter()
                .filter(|receipt| receipt.lane == at)
                .map(|receipt| receipt.tag)
                .collect();
            if !tags.is_empty() {
                lane.flows = true;
                let (done, written_here) = oneshot::channel();
                let _ = lane.commands.send(Command::Acknowledge(tags, done));
                written.push(written_here);
            }
        }
        for receipt in &receipts {
            self.in_hand.remove(receipt);
        }
        for done in written {
            // A lane that lost its channel drops the question: the messages come again.
            let _ = done.await;
        }
    }
}

#[async_trait]
impl Consumer for RabbitConsumer {
    async fn take(&mut self, max: usize) -> Result<Vec<Received>, QueueError> {
        loop {
            self.settle();
            self.linger(max).await;
            let batch = self.pick(max);
            if !batch.is_empty() {
                return Ok(batch);
            }
            if !self.holding {
                self.widen();
            }
            match self.parcels.recv().await {
                Some(parcel) => self.accept(parcel),
                None => return Err(QueueError::Unavailable("stopped".to_owned())),
            }
        }
    }

    async fn finish(&mut self, mut ended: Vec<Ended>) -> Result<(), QueueError> {
        let mut wait = RETRY_MIN;
        loop {
            ended.retain(|one| Self::is_current(&self.lanes, one.receipt));
            if ended.is_empty() {
                self.faults.clear(&self.topic);
                return Ok(());
            }
            let (rest, error) = self.attempt(ended).await;
            ended = rest;
            let Some(error) = error else { continue };
            if matches!(error, QueueError::Topology(_)) {
                self.faults.clear(&self.topic);
                return Err(error);
            }
            self.faults.set(&self.topic, error);
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(RETRY_MAX);
        }
    }
}
