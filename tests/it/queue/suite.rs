//! The behaviours, as facts. Nothing here knows a back end.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use bytes::Bytes;
use rand::Rng;
use rand::seq::SliceRandom;
use tidings::failure::Reason;
use tidings::queue::Announcement;
use tidings::queue::Consumer;
use tidings::queue::DEAD;
use tidings::queue::DELIVERY_LIMIT;
use tidings::queue::Depth;
use tidings::queue::HEADER_DETAIL;
use tidings::queue::HEADER_REASON;
use tidings::queue::HEADER_STAGE;
use tidings::queue::HEADER_TRIES;
use tidings::queue::Message;
use tidings::queue::Queue;
use tidings::queue::QueueError;
use tidings::queue::Received;
use tidings::queue::ReplyTo;
use tidings::time::Timestamp;
use tidings::topology;
use tidings::topology::CHUNKS;
use tidings::topology::SUBMISSIONS;
use tidings::topology::SUBMISSIONS_BULK;
use tokio::time::timeout;

use super::Harness;
use super::STEPS;
use super::specs;

/// Long enough for a crowded machine: nothing waits for it unless a test fails.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long nothing must come before a test believes that nothing will.
const QUIET: Duration = Duration::from_millis(300);

fn message(key: &str, id: impl ToString) -> Message {
    let id = id.to_string();
    Message::new(key, id.clone(), format!("body of {id}"))
}

fn messages(key: &str, count: usize) -> Vec<Message> {
    (0..count)
        .map(|n| message(key, format!("{key}-{n}")))
        .collect()
}

async fn consumer(queue: &Arc<dyn Queue>, lanes: &[&str]) -> Box<dyn Consumer> {
    let lanes = lanes.iter().map(|lane| (*lane).to_owned()).collect();
    timeout(PATIENCE, queue.consumer(lanes))
        .await
        .expect("a consumer in time")
        .expect("a consumer")
}

async fn take(consumer: &mut Box<dyn Consumer>, max: usize) -> Vec<Received> {
    timeout(PATIENCE, consumer.take(max))
        .await
        .expect("messages in time")
        .expect("messages")
}

async fn take_one(consumer: &mut Box<dyn Consumer>) -> Received {
    let mut taken = take(consumer, 1).await;
    assert_eq!(taken.len(), 1, "take(1) gives one");
    taken.remove(0)
}

async fn take_exactly(consumer: &mut Box<dyn Consumer>, count: usize) -> Vec<Received> {
    let mut all = Vec::new();
    while all.len() < count {
        all.extend(take(consumer, count - all.len()).await);
    }
    all
}

async fn complete(consumer: &mut Box<dyn Consumer>, taken: Vec<Received>) {
    let ended = taken.into_iter().map(|one| one.complete(vec![])).collect();
    consumer.finish(ended).await.expect("finished");
}

async fn nothing_comes(consumer: &mut Box<dyn Consumer>) {
    if let Ok(taken) = timeout(QUIET, consumer.take(1)).await {
        panic!("nothing was to come, but {taken:?} came");
    }
}

fn ids(taken: &[Received]) -> BTreeSet<String> {
    taken.iter().map(|one| one.id.clone()).collect()
}

pub(super) async fn a_published_message_is_received_once_as_it_was<H: Harness>(harness: &mut H) {
    let queue = harness.queue();
    let mut sent = message(SUBMISSIONS, "the one");
    sent.body = Bytes::from_static(b"\x00\xff{not text}");
    sent.headers
        .insert("traceparent".to_owned(), "00-4bf9-01".to_owned());
    sent.headers.insert("empty".to_owned(), String::new());
    sent.reply = Some(ReplyTo {
        address: "somebody".to_owned(),
        correlation: "c-1".to_owned(),
    });
    queue.publish(vec![sent.clone()]).await.unwrap();

    let mut consumer = consumer(&queue, &[SUBMISSIONS]).await;
    let taken = take_one(&mut consumer).await;
    assert_eq!(taken.key, sent.key);
    assert_eq!(taken.id, sent.id);
    assert_eq!(taken.headers, sent.headers);
    assert_eq!(taken.body, sent.body);
    assert_eq!(taken.reply, sent.reply);
    assert_eq!(taken.returns, 0);
    assert_eq!(taken.tries(), 0);
    assert_eq!(taken.producer(), None);
    complete(&mut consumer, vec![taken]).await;
    nothing_comes(&mut consumer).await;
}

pub(super) async fn a_completed_message_is_gone_after_a_restart<H: Harness>(harness: &mut H) {
    let queue = harness.queue();
    queue.publish(messages(SUBMISSIONS, 3)).await.unwrap();
    let mut first = consumer(&queue, &[SUBMISSIONS]).await;
    let taken = take_exactly(&mut first, 3).await;
    complete(&mut first, taken).await;
    harness.restart(vec![first]).await;

    let mut second = consumer(&harness.queue(), &[SUBMISSIONS]).await;
    nothing_comes(&mut second).await;
}

pub(super) async fn an_unfinished_message_comes_back_when_its_consumer_is_dropped<H: Harness>(
    harness: &mut H,
) {
    let queue = harness.queue();
    queue.publish(messages(SUBMISSIONS, 2)).await.unwrap();
    let mut first = consumer(&queue, &[SUBMISSIONS]).await;
    let taken = take_exactly(&mut first, 2).await;
    drop(first);

    let mut second = consumer(&queue, &[SUBMISSIONS]).await;
    let again = take_exactly(&mut second, 2).await;
    assert_eq!(ids(&again), ids(&taken));
    assert!(again.iter().all(|one| one.returns == 1), "{again:?}");
    assert!(again.iter().all(|one| one.tries() == 0), "{again:?}");
}

pub(super) async fn an_unfinished_message_comes_back_after_a_restart<H: Harness>(harness: &mut H) {
    let queue = harness.queue();
    queue.publish(messages(SUBMISSIONS, 3)).await.unwrap();
    let mut first = consumer(&queue, &[SUBMISSIONS]).await;
    let taken = take_exactly(&mut first, 3).await;
    harness.restart(vec![first]).await;

    let mut second = consumer(&harness.queue(), &[SUBMISSIONS]).await;
    let again = take_exactly(&mut second, 3).await;
    assert_eq!(ids(&again), ids(&taken));
    assert!(again.iter().all(|one| one.returns > 0), "{again:?}");
}

pub(super) async fn finishing_some_of_what_is_in_hand_leaves_the_rest_in_hand<H: Harness>(
    harness: &mut H,
) {
    let queue = harness.queue();
    queue.publish(messages(SUBMISSIONS, 5)).await.unwrap();
    let mut first = consumer(&queue, &[SUBMISSIONS]).await;
    let mut taken = take_exactly(&mut first, 5).await;
    // Out of order, and in two goes.
    let fourth = taken.remove(3);
    let second = taken.remove(1);
    complete(&mut first, vec![fourth]).await;
    complete(&mut first, vec![second]).await;
    nothing_comes(&mut first).await;
    harness.restart(vec![first]).await;

    let mut after = consumer(&harness.queue(), &[SUBMISSIONS]).await;
    let again = take_exactly(&mut after, 3).await;
    assert_eq!(ids(&again), ids(&taken));
    complete(&mut after, again).await;
    nothing_comes(&mut after).await;
}

pub(super) async fn what_follows_is_there_when_the_message_is_gone<H: Harness>(harness: &mut H) {
    let queue = harness.queue();
    queue.publish(messages(SUBMISSIONS, 2)).await.unwrap();
    let mut intake = consumer(&queue, &[SUBMISSIONS]).await;
    let ended = take_exactly(&mut intake, 2)
        .await
        .into_iter()
        .map(|one| {
            let next = (0..3)
                .map(|n| message(CHUNKS, format!("{}/{n}", one.id)))
                .collect();
            one.complete(next)
        })
        .collect();
    intake.finish(ended).await.unwrap();
    harness.restart(vec![intake]).await;

    let queue = harness.queue();
    let mut chunks = consumer(&queue, &[CHUNKS]).await;
    let followed = take_exactly(&mut chunks, 6).await;
    assert_eq!(ids(&followed).len(), 6);
    let mut intake = consumer(&queue, &[SUBMISSIONS]).await;
    nothing_comes(&mut intake).await;
}

pub(super) async fn a_retry_counts_and_comes_neither_early_nor_a_step_late<H: Harness>(
    harness: &mut H,
) {
    let queue = harness.queue();
    let mut sent = message(SUBMISSIONS, "again");
    sent.headers.insert("kept".to_owned(), "yes".to_owned());
    queue.publish(vec![sent.clone()]).await.unwrap();
    let mut consumer = consumer(&queue, &[SUBMISSIONS]).await;

    // Less than a step, exactly a step, more than a step: rounded up at most to the next one.
    let waits = [150, 200, 201].map(Duration::from_millis);
    let mut taken = take_one(&mut consumer).await;
    for (tries, wait) in (1..).zip(waits) {
        let asked = Instant::now();
        consumer.finish(vec![taken.retry(wait)]).await.unwrap();
        taken = take_one(&mut consumer).await;
        let waited = asked.elapsed();
        assert!(waited >= wait, "{waited:?} is earlier than {wait:?}");
        assert!(waited < STEPS[2], "{waited:?} is a step too late");
        assert_eq!(taken.tries(), tries);
        assert_eq!(taken.returns, 0, "a retry is a message of its own");
        assert_eq!(taken.headers["kept"], "yes");
        assert_eq!(taken.key, SUBMISSIONS);
        assert_eq!(taken.id, sent.id);
        assert_eq!(taken.body, sent.body);
    }
    complete(&mut consumer, vec![taken]).await;
    nothing_comes(&mut consumer).await;
}

pub(super) async fn a_wait_does_not_count_and_survives_a_restart<H: Harness>(harness: &mut H) {
    let queue = harness.queue();
    let mut sent = message(SUBMISSIONS, "later");
    sent.reply = Some(ReplyTo {
        address: "somebody".to_owned(),
        correlation: "c-2".to_owned(),
    });
    queue.publish(vec![sent.clone()]).await.unwrap();
    let mut first = consumer(&queue, &[SUBMISSIONS]).await;
    let taken = take_one(&mut first).await;
    let asked = Instant::now();
    first.finish(vec![taken.wait(STEPS[1])]).await.unwrap();
    harness.restart(vec![first]).await;

    let mut second = consumer(&harness.queue(), &[SUBMISSIONS]).await;
    let again = take_one(&mut second).await;
    assert!(asked.elapsed() >= STEPS[1]);
    assert_eq!(again.tries(), 0);
    assert_eq!(again.returns, 0);
    assert_eq!(again.reply, sent.reply);
}

pub(super) async fn a_delayed_message_does_not_hold_up_the_others<H: Harness>(harness: &mut H) {
    let queue = harness.queue();
    let mut late = message(SUBMISSIONS, "late");
    late.delay = Some(STEPS[2]);
    let mut soon = message(SUBMISSIONS, "soon");
    soon.delay = Some(STEPS[0]);
    let mut consumer = consumer(&queue, &[SUBMISSIONS]).await;
    let asked = Instant::now();
    queue
        .publish(vec![late, soon, message(SUBMISSIONS, "now")])
        .await
        .unwrap();
    let taken = take_one(&mut consumer).await;
    assert_eq!(taken.id, "now");
    complete(&mut consumer, vec![taken]).await;
    let taken = take_one(&mut consumer).await;
    assert_eq!(taken.id, "soon");
    assert!(asked.elapsed() >= STEPS[0]);
    complete(&mut consumer, vec![taken]).await;
    nothing_comes(&mut consumer).await;
}

pub(super) async fn a_dead_letter_tells_how_it_died<H: Harness>(harness: &mut H) {
    let queue = harness.queue();
    let mut sent = message(SUBMISSIONS, "doomed");
    sent.headers.insert("kept".to_owned(), "yes".to_owned());
    sent.reply = Some(ReplyTo {
        address: "somebody".to_owned(),
        correlation: "c-3".to_owned(),
    });
    queue.publish(vec![sent.clone()]).await.unwrap();
    let mut intake = consumer(&queue, &[SUBMISSIONS]).await;
    let taken = take_one(&mut intake).await;
    intake
        .finish(vec![taken.retry(Duration::from_millis(1))])
        .await
        .unwrap();
    let taken = take_one(&mut intake).await;
    let ended = taken.dead_letter(Reason::Invalid, "the title is missing");
    intake.finish(vec![ended]).await.unwrap();
    harness.restart(vec![intake]).await;

    let mut dead = consumer(&harness.queue(), &[DEAD]).await;
    let letter = take_one(&mut dead).await;
    assert_eq!(letter.key, DEAD);
    assert_eq!(letter.id, sent.id);
    assert_eq!(letter.body, sent.body);
    assert_eq!(letter.reply, None);
    let of = |name: &str| letter.headers.get(name).map(String::as_str);
    assert_eq!(of(HEADER_STAGE), Some(SUBMISSIONS));
    assert_eq!(of(HEADER_REASON), Some("invalid"));
    assert_eq!(of(HEADER_DETAIL), Some("the title is missing"));
    assert_eq!(of(HEADER_TRIES), Some("2"));
    assert_eq!(of("kept"), Some("yes"));
}

pub(super) async fn a_message_that_returned_too_often_is_parked_among_the_dead<H: Harness>(
    harness: &mut H,
) {
    let queue = harness.queue();
    let mut sent = message(SUBMISSIONS, "killer");
    sent.headers.insert("kept".to_owned(), "yes".to_owned());
    queue.publish(vec![sent.clone()]).await.unwrap();
    for returns in 0..=DELIVERY_LIMIT {
        let mut victim = consumer(&queue, &[SUBMISSIONS]).await;
        let taken = take_one(&mut victim).await;
        assert_eq!(taken.returns, returns);
    }

    let mut dead = consumer(&queue, &[DEAD]).await;
    // Where the limit is looked at when a message is handed out, somebody must ask for it.
    let mut survivor = consumer(&queue, &[SUBMISSIONS]).await;
    nothing_comes(&mut survivor).await;
    let letter = take_one(&mut dead).await;
    assert_eq!(letter.id, sent.id);
    assert_eq!(letter.body, sent.body);
    assert_eq!(letter.headers["kept"], "yes");
    assert_eq!(letter.headers[HEADER_STAGE], SUBMISSIONS);
    assert_eq!(
        letter.headers[HEADER_REASON],
        Reason::DeliveryLimit.as_str()
    );
    assert_eq!(letter.returns, 0);
    complete(&mut dead, vec![letter]).await;
    nothing_comes(&mut survivor).await;
}

pub(super) async fn the_first_lane_gets_four_of_five_and_none_starves<H: Harness>(harness: &mut H) {
    let queue = harness.queue();
    queue
        .publish(messages(SUBMISSIONS_BULK, 200))
        .await
        .unwrap();
    queue.publish(messages(SUBMISSIONS, 200)).await.unwrap();
    let mut consumer = consumer(&queue, &[SUBMISSIONS, SUBMISSIONS_BULK]).await;

    // A consumer may fetch ahead, so the start is not looked at.
    for max in [1, 5, 10] {
        let warm = take_exactly(&mut consumer, 10).await;
        complete(&mut consumer, warm).await;
        let mut fast = 0;
        for _ in 0..(40 / max) {
            let taken = take_exactly(&mut consumer, max).await;
            fast += taken.iter().filter(|one| one.key == SUBMISSIONS).count();
            complete(&mut consumer, taken).await;
        }
        assert!(
            (28..=36).contains(&fast),
            "{fast} of 40 came from the fast lane when {max} were taken at a time"
        );
    }
    let rest = take_exactly(&mut consumer, 250).await;
    assert_eq!(ids(&rest).len(), 250);
}

pub(super) async fn the_slow_lane_is_served_alone_when_the_fast_one_is_empty<H: Harness>(
    harness: &mut H,
) {
    let queue = harness.queue();
    queue.publish(messages(SUBMISSIONS_BULK, 50)).await.unwrap();
    let mut consumer = consumer(&queue, &[SUBMISSIONS, SUBMISSIONS_BULK]).await;
    let taken = take_exactly(&mut consumer, 50).await;
    assert!(taken.iter().all(|one| one.key == SUBMISSIONS_BULK));
    complete(&mut consumer, taken).await;
    // And a message in the fast lane wakes a consumer that waits for both.
    let (taken, published) = tokio::join!(
        take_one(&mut consumer),
        queue.publish(messages(SUBMISSIONS, 1))
    );
    published.unwrap();
    assert_eq!(taken.key, SUBMISSIONS);
}

pub(super) async fn a_lone_message_does_not_wait_for_company<H: Harness>(harness: &mut H) {
    let queue = harness.queue();
    let mut consumer = consumer(&queue, &[SUBMISSIONS, SUBMISSIONS_BULK]).await;
    // The best of five: one that waited for company would be slow each time.
    let mut best = PATIENCE;
    for n in 0..5 {
        queue.publish(vec![message(SUBMISSIONS, n)]).await.unwrap();
        let published = Instant::now();
        let taken = take(&mut consumer, 256).await;
        best = best.min(published.elapsed());
        complete(&mut consumer, taken).await;
    }
    assert!(best < Duration::from_millis(250), "{best:?}");
}

pub(super) async fn consumers_share_a_queue_without_doubles<H: Harness>(harness: &mut H) {
    const MESSAGES: usize = 2_000;
    let queue = harness.queue();
    let finished = Arc::new(AtomicUsize::new(0));
    let mut workers = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let mut consumer = consumer(&queue, &[SUBMISSIONS]).await;
        let finished = Arc::clone(&finished);
        workers.spawn(async move {
            let mut seen = Vec::new();
            let mut hand = Vec::new();
            while finished.load(Ordering::SeqCst) < MESSAGES {
                let max = rand::rng().random_range(1..=64);
                if let Ok(taken) = timeout(Duration::from_millis(50), consumer.take(max)).await {
                    let taken = taken.unwrap();
                    assert!(taken.len() <= max, "{} of {max}", taken.len());
                    seen.extend(taken.iter().map(|one| one.id.clone()));
                    hand.extend(taken);
                }
                hand.shuffle(&mut rand::rng());
                let some = rand::rng().random_range(0..=hand.len());
                let done: Vec<_> = hand.drain(..some).map(|one| one.complete(vec![])).collect();
                consumer.finish(done).await.unwrap();
                finished.fetch_add(some, Ordering::SeqCst);
            }
            seen
        });
    }
    for part in messages(SUBMISSIONS, MESSAGES).chunks(100) {
        queue.publish(part.to_vec()).await.unwrap();
    }

    let mut times: BTreeMap<String, usize> = BTreeMap::new();
    for seen in timeout(PATIENCE * 2, workers.join_all()).await.unwrap() {
        for id in seen {
            *times.entry(id).or_default() += 1;
        }
    }
    assert_eq!(times.len(), MESSAGES);
    times.retain(|_, count| *count > 1);
    assert_eq!(times, BTreeMap::new(), "handed out more than once");
}

pub(super) async fn a_waiting_consumer_is_woken_by_what_another_gives_back<H: Harness>(
    harness: &mut H,
) {
    let queue = harness.queue();
    queue.publish(messages(SUBMISSIONS, 1)).await.unwrap();
    let mut first = consumer(&queue, &[SUBMISSIONS]).await;
    let taken = take_one(&mut first).await;
    let mut second = consumer(&queue, &[SUBMISSIONS]).await;
    let waiting = tokio::spawn(async move { take_one(&mut second).await });
    tokio::time::sleep(Duration::from_millis(50)).await;
    drop(first);
    let again = waiting.await.unwrap();
    assert_eq!(again.id, taken.id);
}

pub(super) async fn a_cancelled_take_drops_no_message<H: Harness>(harness: &mut H) {
    const MESSAGES: usize = 150;
    let queue = harness.queue();
    let mut consumer = consumer(&queue, &[SUBMISSIONS, SUBMISSIONS_BULK]).await;
    let publisher = tokio::spawn(async move {
        for n in 0..MESSAGES {
            let key = [SUBMISSIONS, SUBMISSIONS_BULK][n % 2];
            queue.publish(vec![message(key, n)]).await.unwrap();
        }
    });
    let mut seen = Vec::new();
    let started = Instant::now();
    while seen.len() < MESSAGES {
        assert!(started.elapsed() < PATIENCE, "{} came", seen.len());
        let patience = Duration::from_micros(rand::rng().random_range(0..3_000));
        let taken = tokio::select! {
            biased;
            taken = consumer.take(8) => taken.unwrap(),
            () = tokio::time::sleep(patience) => continue,
        };
        seen.extend(taken.iter().map(|one| one.id.clone()));
        complete(&mut consumer, taken).await;
    }
    publisher.await.unwrap();
    assert_eq!(seen.iter().collect::<BTreeSet<_>>().len(), MESSAGES);
    nothing_comes(&mut consumer).await;
}

pub(super) async fn an_announcement_reaches_every_listener<H: Harness>(harness: &mut H) {
    let queue = harness.queue();
    let mut first = queue.announcements().await.unwrap();
    let mut second = queue.announcements().await.unwrap();
    queue.announce(Bytes::from_static(b"news")).await;
    let news = Some(Announcement::Body(Bytes::from_static(b"news")));
    for listener in [&mut first, &mut second] {
        assert_eq!(timeout(PATIENCE, listener.recv()).await.unwrap(), news);
    }
    drop(first);
    queue.announce(Bytes::from_static(b"more")).await;
    let more = Some(Announcement::Body(Bytes::from_static(b"more")));
    assert_eq!(timeout(PATIENCE, second.recv()).await.unwrap(), more);
}

pub(super) async fn an_announcement_without_listeners_fails_nothing<H: Harness>(harness: &mut H) {
    let queue = harness.queue();
    for _ in 0..10 {
        queue.announce(Bytes::from_static(b"to nobody")).await;
    }
    still_works(&queue).await;
    // What was announced before is not heard.
    let mut late = queue.announcements().await.unwrap();
    assert!(timeout(QUIET, late.recv()).await.is_err());
}

pub(super) async fn an_answer_reaches_its_reply_queue<H: Harness>(harness: &mut H) {
    let queue = harness.queue();
    let mut replies = queue.replies().await.unwrap();
    let mut others = queue.replies().await.unwrap();
    let mut sent = message(SUBMISSIONS, "question");
    sent.reply = Some(ReplyTo {
        address: replies.address.borrow().clone(),
        correlation: "c-4".to_owned(),
    });
    queue.publish(vec![sent]).await.unwrap();

    let mut consumer = consumer(&queue, &[SUBMISSIONS]).await;
    let taken = take_one(&mut consumer).await;
    let to = taken.reply.clone().unwrap();
    queue.answer(&to, Bytes::from_static(b"42")).await;
    let answer = timeout(PATIENCE, replies.inbox.recv()).await.unwrap();
    assert_eq!(answer, Some(("c-4".to_owned(), Bytes::from_static(b"42"))));
    assert!(timeout(QUIET, others.inbox.recv()).await.is_err());
}

pub(super) async fn an_answer_to_nobody_fails_nothing<H: Harness>(harness: &mut H) {
    let queue = harness.queue();
    let gone = queue.replies().await.unwrap();
    let address = gone.address.borrow().clone();
    drop(gone);
    for address in [address, "nobody".to_owned(), String::new()] {
        let to = ReplyTo {
            address,
            correlation: "c-5".to_owned(),
        };
        queue.answer(&to, Bytes::from_static(b"42")).await;
    }
    still_works(&queue).await;
}

async fn still_works(queue: &Arc<dyn Queue>) {
    queue.publish(messages(CHUNKS, 1)).await.unwrap();
    let mut consumer = consumer(queue, &[CHUNKS]).await;
    let taken = take(&mut consumer, 1).await;
    complete(&mut consumer, taken).await;
}

/// Waits until `key` has `ready` messages waiting: a broker may count a little late.
async fn depth(queue: &Arc<dyn Queue>, key: &str, ready: u64) -> Depth {
    let started = Instant::now();
    loop {
        let depths = queue.depths().await.unwrap();
        let depth = depths.into_iter().find(|one| one.key == key).unwrap();
        if depth.ready == ready {
            return depth;
        }
        assert!(started.elapsed() < PATIENCE, "{depth:?}, not {ready}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub(super) async fn depths_tell_what_waits_in_every_queue<H: Harness>(harness: &mut H) {
    let queue = harness.queue();
    let names = |depths: &[Depth]| -> BTreeSet<String> {
        depths.iter().map(|depth| depth.key.clone()).collect()
    };
    let expected: BTreeSet<String> = specs().into_iter().map(|spec| spec.key).collect();
    let depths = queue.depths().await.unwrap();
    assert!(names(&depths).is_superset(&expected), "{depths:?}");
    assert!(depths.iter().all(|depth| depth.ready == 0), "{depths:?}");
    assert!(depths.iter().all(|depth| depth.oldest.is_none()));

    let before = Timestamp::now();
    queue.publish(messages(SUBMISSIONS, 3)).await.unwrap();
    let slow = topology::deliver(super::SENDER, true);
    queue.publish(messages(&slow, 2)).await.unwrap();
    let three = depth(&queue, SUBMISSIONS, 3).await;
    if let Some(oldest) = three.oldest {
        assert!((before..=Timestamp::now()).contains(&oldest), "{oldest}");
    }
    depth(&queue, &slow, 2).await;
    depth(&queue, CHUNKS, 0).await;

    // What is in hand does not wait.
    let mut consumer = consumer(&queue, &[SUBMISSIONS]).await;
    let taken = take_exactly(&mut consumer, 3).await;
    depth(&queue, SUBMISSIONS, 0).await;
    complete(&mut consumer, taken).await;
    depth(&queue, SUBMISSIONS, 0).await;
}

pub(super) async fn a_purge_drops_what_waits<H: Harness>(harness: &mut H) {
    let queue = harness.queue();
    queue.publish(messages(SUBMISSIONS, 3)).await.unwrap();
    queue.publish(messages(CHUNKS, 2)).await.unwrap();
    depth(&queue, SUBMISSIONS, 3).await;
    assert_eq!(queue.purge(SUBMISSIONS).await.unwrap(), 3);
    assert_eq!(queue.purge(SUBMISSIONS).await.unwrap(), 0);
    depth(&queue, SUBMISSIONS, 0).await;
    depth(&queue, CHUNKS, 2).await;
    let mut consumer = consumer(&queue, &[SUBMISSIONS]).await;
    nothing_comes(&mut consumer).await;
}

pub(super) async fn a_queue_that_does_not_exist_is_refused_by_name<H: Harness>(harness: &mut H) {
    let queue = harness.queue();
    let named = |error: QueueError| match error {
        QueueError::Topology(text) => assert!(text.contains("submisions"), "{text}"),
        other => panic!("{other:?}"),
    };
    let typo = vec![message("submisions", 1)];
    named(queue.publish(typo).await.unwrap_err());
    let lanes = vec![SUBMISSIONS.to_owned(), "submisions".to_owned()];
    named(queue.consumer(lanes).await.err().unwrap());
    named(queue.purge("submisions").await.unwrap_err());

    // As what follows from a message, too; the message is not lost over it.
    queue.publish(messages(SUBMISSIONS, 1)).await.unwrap();
    let mut first = consumer(&queue, &[SUBMISSIONS]).await;
    let taken = take_one(&mut first).await;
    let ended = taken.complete(vec![message("submisions", 2)]);
    named(first.finish(vec![ended]).await.unwrap_err());
    drop(first);
    let mut second = consumer(&queue, &[SUBMISSIONS]).await;
    assert_eq!(take_one(&mut second).await.id, "submissions-0");
}

pub(super) async fn a_large_message_arrives_whole<H: Harness>(harness: &mut H) {
    let queue = harness.queue();
    let body: Bytes = (0..(1 << 20)).map(|n: u32| n.to_le_bytes()[0]).collect();
    let mut sent = message(CHUNKS, "large");
    sent.body = body.clone();
    queue.publish(vec![sent]).await.unwrap();
    let mut first = consumer(&queue, &[CHUNKS]).await;
    let taken = take_one(&mut first).await;
    assert!(taken.body == body);
    harness.restart(vec![first]).await;

    let mut second = consumer(&harness.queue(), &[CHUNKS]).await;
    let again = take_one(&mut second).await;
    assert!(again.body == body);
    complete(&mut second, vec![again]).await;
}

pub(super) async fn a_queue_in_order_is_ready<H: Harness>(harness: &mut H) {
    harness.queue().ready().await.unwrap();
    harness.restart(vec![]).await;
    harness.queue().ready().await.unwrap();
}
