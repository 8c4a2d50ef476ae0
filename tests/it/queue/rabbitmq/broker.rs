//! What a broker can do to the queue: go away, cut connections, block publishers, refuse rights.
//!
//! Those that kill, starve or administer a broker start one of their own.

use std::collections::BTreeSet;
use std::sync::Arc;

use lapin::options::QueueDeleteOptions;
use tidings::queue::Announcement;
use tidings::queue::DEAD;
use tidings::queue::Queue;
use tidings::queue::QueueError;
use tidings::queue::rabbitmq::RabbitQueue;
use tidings::topology::CHUNKS;
use tidings::topology::SUBMISSIONS;
use tokio::time::timeout;

use super::Rabbit;
use super::complete;
use super::consumer;
use super::message;
use super::publish;
use super::take;
use super::trouble;
use crate::queue::Harness;
use crate::queue::STEPS;
use crate::support::rabbitmq as support;
use crate::support::rabbitmq::Broker;
use crate::support::rabbitmq::PATIENCE;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_broker_loses_nothing_and_is_found_again() {
    let Some(broker) = Broker::start().await else {
        return;
    };
    broker.order("stop").await;
    let settings = support::settings(&broker.url, &STEPS);
    let queue = RabbitQueue::start(settings);
    trouble(&queue, "127.0.0.1:").await;
    broker.order("start").await;
    support::until_ready(&queue).await;

    let mut signals = queue.announcements().await.unwrap();
    let mut replies = queue.replies().await.unwrap();
    let first_address = replies.address.borrow_and_update().clone();
    assert!(!first_address.is_empty());

    const BATCHES: usize = 60;
    const BATCH: usize = 20;
    let publisher = Arc::clone(&queue);
    let publishing = tokio::spawn(async move {
        for batch in 0..BATCHES {
            let ids = (0..BATCH).map(|n| batch * BATCH + n);
            let messages = ids.map(|id| message(SUBMISSIONS, id)).collect();
            publish(&publisher, messages).await;
        }
    });
    let mut intake = consumer(&queue, SUBMISSIONS).await;
    let mut seen = BTreeSet::new();
    let mut deaths = 0;
    while seen.len() < BATCHES * BATCH {
        if deaths < 2 && deaths * BATCHES * BATCH / 3 < seen.len() {
            deaths += 1;
            broker.order("kill").await;
            trouble(&queue, "").await;
            broker.order("start").await;
        }
        let taken = take(&mut intake, 64).await;
        seen.extend(taken.iter().map(|one| one.id.clone()));
        complete(&mut intake, taken).await;
    }
    publishing.await.unwrap();
    support::until_ready(&queue).await;

    let lost = timeout(PATIENCE, signals.recv()).await.unwrap();
    assert_eq!(lost, Some(Announcement::Lost));
    let moved = replies
        .address
        .wait_for(|address| *address != first_address);
    timeout(PATIENCE, moved).await.unwrap().unwrap();
    queue.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blocked_publishers_say_so_while_consumers_go_on() {
    let Some(broker) = Broker::start().await else {
        return;
    };
    let queue = support::start(&support::settings(&broker.url, &STEPS)).await;
    publish(&queue, vec![message(CHUNKS, 1), message(CHUNKS, 2)]).await;
    let mut chunks = consumer(&queue, CHUNKS).await;

    broker
        .ctl(&["set_vm_memory_high_watermark", "absolute", "1MB"])
        .await;
    let refused = queue.publish(vec![message(SUBMISSIONS, 1)]).await;
    match refused.unwrap_err() {
        QueueError::Unavailable(why) => assert!(why.contains("blocks publishers"), "{why}"),
        other => panic!("{other:?}"),
    }
    trouble(&queue, "blocks publishers").await;
    let taken = take(&mut chunks, 1).await;
    complete(&mut chunks, taken).await;

    // What follows from a message is published as soon as that is possible; nothing is counted.
    let taken = take(&mut chunks, 1).await.remove(0);
    let follows = taken.complete(vec![message(DEAD, "followed")]);
    let finishing = tokio::spawn(async move {
        let finished = chunks.finish(vec![follows]).await;
        (chunks, finished)
    });
    broker.ctl(&["set_vm_memory_high_watermark", "0.4"]).await;
    let (_, finished) = timeout(PATIENCE, finishing).await.unwrap().unwrap();
    finished.unwrap();
    support::until_ready(&queue).await;
    let mut dead = consumer(&queue, DEAD).await;
    assert_eq!(take(&mut dead, 1).await[0].id, "followed");
    publish(&queue, vec![message(SUBMISSIONS, 2)]).await;
    queue.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_connection_gives_back_what_was_in_hand_and_the_consumer_goes_on() {
    let harness = Rabbit::start().await;
    let queue = &harness.queue;
    publish(queue, vec![message(SUBMISSIONS, "one")]).await;
    let mut intake = consumer(queue, SUBMISSIONS).await;
    let old = take(&mut intake, 1).await.remove(0);
    harness.proxy.cut().await;
    // The same consumer receives it again; finishing the old one does no harm.
    let again = take(&mut intake, 1).await.remove(0);
    assert_eq!((again.id.as_str(), again.returns), ("one", 1));
    let follows = old.complete(vec![message(CHUNKS, "of a lost receipt")]);
    intake.finish(vec![follows]).await.unwrap();
    complete(&mut intake, vec![again]).await;
    publish(queue, vec![message(SUBMISSIONS, "two")]).await;
    let taken = take(&mut intake, 1).await;
    assert_eq!(taken[0].id, "two");
    complete(&mut intake, taken).await;
    assert_eq!(queue.purge(CHUNKS).await.unwrap(), 0);
    support::until_ready(queue).await;
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_came_back_often_is_handed_out_alone() {
    let harness = Rabbit::start().await;
    let queue = &harness.queue;
    publish(queue, vec![message(SUBMISSIONS, "killer")]).await;
    for _ in 0..3 {
        let mut victim = consumer(queue, SUBMISSIONS).await;
        take(&mut victim, 1).await;
    }
    let others = (0..20).map(|n| message("submissions.bulk", n)).collect();
    publish(queue, others).await;
    let lanes = vec![SUBMISSIONS.to_owned(), "submissions.bulk".to_owned()];
    let mut intake = queue.consumer(lanes).await.unwrap();
    let mut seen = 0;
    let mut alone = false;
    while seen < 21 {
        let taken = take(&mut intake, 16).await;
        seen += taken.len();
        if taken.iter().any(|one| one.id == "killer") {
            assert_eq!(taken.len(), 1);
            // Nothing else may be at the broker's mercy: all that is not here waits there.
            let depths = queue.depths().await.unwrap();
            let waiting: u64 = depths.iter().map(|depth| depth.ready).sum();
            assert_eq!(waiting, 21 - seen as u64);
            alone = true;
        }
        complete(&mut intake, taken).await;
    }
    assert!(alone);
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_somebody_deleted_is_made_again() {
    let harness = Rabbit::start().await;
    let queue = &harness.queue;
    let mut chunks = consumer(queue, CHUNKS).await;
    let connection = lapin::Connection::connect(&harness.settings.url, Default::default())
        .await
        .unwrap();
    let channel = connection.create_channel().await.unwrap();
    let name = format!("{}.{CHUNKS}", harness.settings.prefix);
    channel
        .queue_delete(name.as_str().into(), QueueDeleteOptions::default())
        .await
        .unwrap();
    publish(queue, vec![message(CHUNKS, "after")]).await;
    assert_eq!(take(&mut chunks, 1).await[0].id, "after");
    support::until_ready(queue).await;
    harness.stop().await;
}
