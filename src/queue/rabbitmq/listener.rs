//! Listening: a process's own queues for signals and for replies, made again with every
//! connection under a fresh name.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use lapin::message::Delivery;
use lapin::options::BasicConsumeOptions;
use lapin::types::FieldTable;
use tokio::sync::mpsc;
use tokio::sync::oneshot;
use tokio::sync::watch;
use tokio::time::timeout;
use uuid::Uuid;

use super::link::Link;
use super::link::Live;
use super::link::PATIENCE;
use super::link::within;
use super::topology;
use super::topology::Topology;
use super::wire::short;
use crate::queue::Announcement;
use crate::queue::QueueError;
use crate::queue::Replies;

/// Most signals or replies that wait for this process to look at them; more are lost.
const BACKLOG: usize = 4096;
/// Wait before the next try to listen.
const PAUSE: Duration = Duration::from_millis(500);

/// Hears signals until the receiver is dropped. Returns once it hears, or after a while, should
/// there be no broker; then the first thing heard is [`Announcement::Lost`].
pub(super) async fn announcements(
    link: Link,
    topology: Arc<Topology>,
) -> mpsc::Receiver<Announcement> {
    let (out, heard) = mpsc::channel(BACKLOG);
    let (ready, is_ready) = oneshot::channel();
    tokio::spawn(hear_signals(link, topology, out, ready));
    let _ = timeout(PATIENCE, is_ready).await;
    heard
}

async fn hear_signals(
    mut link: Link,
    topology: Arc<Topology>,
    out: mpsc::Sender<Announcement>,
    ready: oneshot::Sender<()>,
) {
    let mut ready = Some(ready);
    let mut lost = false;
    while let Some(live) = connected(&mut link, &out).await {
        let exchange = topology.signals();
        let name = format!("{exchange}.{}", Uuid::new_v4().simple());
        let opened = open(&live, &name, topology::signal_arguments(), Some(&exchange)).await;
        if let Some(mut stream) = opened {
            // Whoever still waits for the first answer has missed nothing.
            lost |= ready.take().is_none_or(|ready| ready.send(()).is_err());
            loop {
                tokio::select! {
                    room = out.reserve(), if lost => {
                        let Ok(room) = room else { return };
                        room.send(Announcement::Lost);
                        lost = false;
                    }
                    delivery = next(&mut stream, &mut link, &live, &out) => {
                        let Some(delivery) = delivery else { break };
                        let body = Announcement::Body(Bytes::from(delivery.data));
                        lost |= out.try_send(body).is_err();
                    }
                }
            }
        }
    }
}

/// Opens a reply queue for as long as the receiver lives. Returns once it is there, or after a
/// while, should there be no broker; then the address is empty until there is one.
pub(super) async fn replies(link: Link, topology: Arc<Topology>) -> Replies {
    let (address, shown) = watch::channel(String::new());
    let (out, inbox) = mpsc::channel(BACKLOG);
    tokio::spawn(hear_replies(link, topology, address, out));
    let mut known = shown.clone();
    let _ = timeout(PATIENCE, known.wait_for(|address| !address.is_empty())).await;
    Replies {
        address: shown,
        inbox,
    }
}

async fn hear_replies(
    mut link: Link,
    topology: Arc<Topology>,
    address: watch::Sender<String>,
    out: mpsc::Sender<(String, Bytes)>,
) {
    while let Some(live) = connected(&mut link, &out).await {
        let name = topology.name(&format!("replies.{}", Uuid::new_v4().simple()));
        let opened = open(&live, &name, FieldTable::default(), None).await;
        if let Some(mut stream) = opened {
            address.send_replace(name);
            while let Some(delivery) = next(&mut stream, &mut link, &live, &out).await {
                let correlation = delivery.properties.correlation_id().as_ref();
                let correlation = correlation.map(ToString::to_string).unwrap_or_default();
                if out
                    .try_send((correlation, Bytes::from(delivery.data)))
                    .is_err()
                {
                    tracing::debug!("too many replies at once: one was dropped");
                }
            }
        }
    }
}

/// The next connection; `None` when nobody listens any more or there will be no more.
async fn connected<T>(link: &mut Link, out: &mpsc::Sender<T>) -> Option<Live> {
    tokio::select! {
        () = out.closed() => None,
        live = link.live() => live,
    }
}

/// Declares a queue of this connection alone and listens to it. On failure, waits a little, so
/// that the caller may simply try again.
async fn open(
    live: &Live,
    name: &str,
    arguments: FieldTable,
    exchange: Option<&str>,
) -> Option<lapin::Consumer> {
    match listen(live, name, arguments, exchange).await {
        Ok(stream) => Some(stream),
        Err(error) => {
            tracing::warn!(queue = name, %error, "cannot listen");
            tokio::time::sleep(PAUSE).await;
            None
        }
    }
}

async fn listen(
    live: &Live,
    name: &str,
    arguments: FieldTable,
    exchange: Option<&str>,
) -> Result<lapin::Consumer, QueueError> {
    let channel = live.channel().await?;
    within(topology::own_queue(&channel, name, arguments)).await?;
    if let Some(exchange) = exchange {
        within(topology::bind(&channel, name, exchange, "")).await?;
    }
    let options = BasicConsumeOptions {
        no_ack: true,
        exclusive: true,
        ..BasicConsumeOptions::default()
    };
    within(channel.basic_consume(short(name), short(""), options, FieldTable::default())).await
}

/// The next delivery; `None` when the connection, the queue or the listener is gone.
async fn next<T>(
    stream: &mut lapin::Consumer,
    link: &mut Link,
    live: &Live,
    out: &mpsc::Sender<T>,
) -> Option<Delivery> {
    tokio::select! {
        () = out.closed() => None,
        () = link.lost(live.generation) => None,
        delivery = stream.next() => delivery.and_then(Result::ok),
    }
}
