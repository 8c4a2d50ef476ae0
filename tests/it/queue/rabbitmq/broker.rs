//! What a broker can do to the queue: go away, cut connections, block publishers, refuse rights.
//!
//! Those that kill, starve or administer a broker start one of their own.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use lapin::BasicProperties;
use lapin::options::BasicPublishOptions;
use lapin::options::ConfirmSelectOptions;
use lapin::options::QueueDeleteOptions;
use lapin::types::AMQPValue;
use lapin::types::FieldTable;
use tidings::queue::Announcement;
use tidings::queue::Consumer;
use tidings::queue::DEAD;
use tidings::queue::HEADER_TRIES;
use tidings::queue::Message;
use tidings::queue::Queue;
use tidings::queue::QueueError;
use tidings::queue::Received;
use tidings::queue::rabbitmq::RabbitQueue;
use tidings::queue::rabbitmq::RabbitSettings;
use tidings::topology::CHUNKS;
use tidings::topology::SUBMISSIONS;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::Rabbit;
use crate::queue::Harness;
use crate::queue::STEPS;
use crate::support::rabbitmq as support;
use crate::support::rabbitmq::Broker;
use crate::support::rabbitmq::PATIENCE;

fn message(key: &str, id: impl ToString) -> Message {
    Message::new(key, id.to_string(), "body")
}

async fn consumer(queue: &RabbitQueue, key: &str) -> Box<dyn Consumer> {
    queue.consumer(vec![key.to_owned()]).await.unwrap()
}

async fn take(consumer: &mut Box<dyn Consumer>, max: usize) -> Vec<Received> {
    let taken = timeout(PATIENCE, consumer.take(max)).await;
    taken.expect("messages in time").unwrap()
}

async fn complete(consumer: &mut Box<dyn Consumer>, taken: Vec<Received>) {
    let ended = taken.into_iter().map(|one| one.complete(vec![])).collect();
    consumer.finish(ended).await.unwrap();
}

/// Publishes until it is confirmed, as callers must.
async fn publish(queue: &RabbitQueue, messages: Vec<Message>) {
    let confirmed = async {
        while queue.publish(messages.clone()).await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(PATIENCE, confirmed).await.expect("confirmed");
}

/// Waits until `ready` refuses in these words.
async fn trouble(queue: &RabbitQueue, words: &str) {
    let refused = async {
        loop {
            match queue.ready().await {
                Err(error) if error.to_string().contains(words) => return,
                _ => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    };
    timeout(PATIENCE, refused).await.expect("trouble");
}

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
async fn every_role_does_its_work_with_the_rights_that_deploy_gives_it() {
    let Some(broker) = Broker::start().await else {
        return;
    };
    let mut settings = support::settings(&broker.url, &STEPS);
    let prefix = settings.prefix.clone();
    let setup = async |what: &[&str]| {
        let place = ["--vhost", "home", "--prefix", &prefix];
        broker.setup(&[&place, what].concat()).await
    };
    let users = setup(&["roles"]).await;
    let as_user = |name: &str, users: &str| {
        let line = users.lines().find_map(|line| line.strip_prefix(name));
        let password = line.unwrap().trim();
        RabbitSettings {
            url: broker.url_of(name, password, "home"),
            ..support::settings("", &STEPS)
        }
    };
    let start = |name: &str, users: &str| {
        RabbitQueue::start(RabbitSettings {
            prefix: prefix.clone(),
            ..as_user(name, users)
        })
    };

    // Who may not make the topology waits for somebody who may.
    let sender = start("tidings-sender", &users);
    trouble(&sender, "is missing").await;
    let decorator = start("tidings-decorator", &users);
    support::until_ready(&decorator).await;
    support::until_ready(&sender).await;
    let ingest = start("tidings-ingest", &users);
    support::until_ready(&ingest).await;
    let inbox = start("tidings-inbox", &users);
    support::until_ready(&inbox).await;

    // Post, decorate, deliver, retry, signal, reply.
    let mut signals = inbox.announcements().await.unwrap();
    let mut replies = ingest.replies().await.unwrap();
    let mut post = message(SUBMISSIONS, "post");
    post.reply = Some(tidings::queue::ReplyTo {
        address: replies.address.borrow().clone(),
        correlation: "c".to_owned(),
    });
    ingest.publish(vec![post]).await.unwrap();
    let mut intake = consumer(&decorator, SUBMISSIONS).await;
    let taken = take(&mut intake, 1).await.remove(0);
    let to = taken.reply.clone().unwrap();
    let delivery = message("deliver.email", "mail");
    intake
        .finish(vec![taken.complete(vec![delivery])])
        .await
        .unwrap();
    decorator.answer(&to, Bytes::from_static(b"stored")).await;
    decorator.announce(Bytes::from_static(b"news")).await;
    let reply = timeout(PATIENCE, replies.inbox.recv()).await.unwrap();
    assert_eq!(reply, Some(("c".to_owned(), Bytes::from_static(b"stored"))));
    let news = timeout(PATIENCE, signals.recv()).await.unwrap();
    assert_eq!(news, Some(Announcement::Body(Bytes::from_static(b"news"))));
    inbox.announce(Bytes::from_static(b"read")).await;
    timeout(PATIENCE, signals.recv()).await.unwrap();
    let mut mails = consumer(&sender, "deliver.email").await;
    let taken = take(&mut mails, 1).await.remove(0);
    mails.finish(vec![taken.retry(STEPS[0])]).await.unwrap();
    let taken = take(&mut mails, 1).await.remove(0);
    assert_eq!(taken.tries(), 1);
    let dead = taken.dead_letter(tidings::failure::Reason::Rejected, "no");
    mails.finish(vec![dead]).await.unwrap();
    assert!(
        sender
            .depths()
            .await
            .unwrap()
            .iter()
            .any(|depth| depth.key == DEAD)
    );

    // A producer submits as itself and does nothing else.
    let users = setup(&["producer", "ci"]).await;
    settings = as_user("ci", &users);
    let submit = format!("{prefix}.submit");
    let mine = BasicProperties::default()
        .with_user_id("ci".into())
        .with_message_id("build-1".into());
    post_as(&settings.url, &submit, "", mine).await.unwrap();
    let taken = take(&mut intake, 1).await.remove(0);
    assert_eq!(
        (taken.producer(), taken.id.as_str()),
        (Some("ci"), "build-1")
    );
    complete(&mut intake, vec![taken]).await;
    let forged = BasicProperties::default().with_user_id("tidings-ingest".into());
    for (exchange, key, properties) in [
        (submit.as_str(), "", forged),
        (prefix.as_str(), CHUNKS, BasicProperties::default()),
        ("", "anything", BasicProperties::default()),
    ] {
        let refused = post_as(&settings.url, exchange, key, properties).await;
        assert!(refused.is_err(), "{exchange} {key}");
    }
    let producer = RabbitQueue::start(RabbitSettings {
        prefix: prefix.clone(),
        ..settings
    });
    support::until_ready(&producer).await;
    let listening = producer.consumer(vec![SUBMISSIONS.to_owned()]).await;
    if let Ok(mut spy) = listening {
        assert!(timeout(Duration::from_secs(1), spy.take(1)).await.is_err());
        assert!(producer.ready().await.is_err());
    }
    for queue in [decorator, sender, ingest, inbox, producer] {
        queue.close().await;
    }

    // A queue at its limit refuses; that it does so is the broker's word and not a loss.
    let limit = r#"{"max-length":2}"#;
    let policy = [
        "set_policy",
        "tight",
        "submissions$",
        limit,
        "--apply-to",
        "queues",
    ];
    let settings = support::settings(&broker.url, &STEPS);
    let queue = support::start(&settings).await;
    broker.ctl(&policy).await;
    let full = async {
        loop {
            match queue.publish(vec![message(SUBMISSIONS, "one more")]).await {
                Ok(()) => {}
                Err(error) => return error,
            }
        }
    };
    match timeout(PATIENCE, full).await.unwrap() {
        QueueError::Full { key, .. } => assert_eq!(key, SUBMISSIONS),
        other => panic!("{other:?}"),
    }
    queue.close().await;
}

/// Publishes one message as somebody's own program would, and waits for the confirm.
async fn post_as(
    url: &str,
    exchange: &str,
    key: &str,
    properties: BasicProperties,
) -> lapin::Result<()> {
    let connection = lapin::Connection::connect(url, Default::default()).await?;
    let channel = connection.create_channel().await?;
    channel
        .confirm_select(ConfirmSelectOptions::default())
        .await?;
    let confirm = channel.basic_publish(
        exchange.into(),
        key.into(),
        BasicPublishOptions::default(),
        b"{}",
        properties,
    );
    confirm.await?.await?;
    connection.close(200, "done".into()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_producer_cannot_speak_in_our_name() {
    let harness = Rabbit::start().await;
    let mut headers = FieldTable::default();
    for (name, value) in [
        (HEADER_TRIES, "9"),
        ("tidings-producer", "root"),
        ("mine", "kept"),
    ] {
        headers.insert(name.into(), AMQPValue::LongString(value.into()));
    }
    headers.insert("number".into(), AMQPValue::LongInt(-7));
    headers.insert("x-death".into(), AMQPValue::Boolean(true));
    let properties = BasicProperties::default().with_headers(headers);
    let submit = format!("{}.submit", harness.settings.prefix);
    post_as(&harness.settings.url, &submit, "anything", properties)
        .await
        .unwrap();
    let mut intake = consumer(&harness.queue, SUBMISSIONS).await;
    let taken = take(&mut intake, 1).await.remove(0);
    assert_eq!(taken.key, SUBMISSIONS);
    assert_eq!(taken.producer(), Some(""));
    assert_eq!(taken.tries(), 0);
    assert_eq!(taken.headers["mine"], "kept");
    assert_eq!(taken.headers["number"], "-7");
    assert!(!taken.headers.contains_key("x-death"));
    // Whatever becomes of it: who sent it stays known.
    intake.finish(vec![taken.retry(STEPS[0])]).await.unwrap();
    let taken = take(&mut intake, 1).await.remove(0);
    assert_eq!((taken.producer(), taken.tries()), (Some(""), 1));
    complete(&mut intake, vec![taken]).await;
    harness.stop().await;
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_login_names_the_user_and_not_the_password() {
    let mut settings = support::settings(&support::shared_url(), &STEPS);
    let mut url = url::Url::parse(&settings.url).unwrap();
    url.set_username("nobody").unwrap();
    url.set_password(Some("s3cret")).unwrap();
    settings.url = url.into();
    let queue = RabbitQueue::start(settings);
    let refused = async {
        loop {
            match queue.ready().await {
                Err(QueueError::Topology(why)) => return why,
                _ => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    };
    let why = timeout(PATIENCE, refused).await.expect("a refusal");
    assert!(why.contains("`nobody`"), "{why}");
    assert!(!why.contains("s3cret"), "{why}");
}

/// Publishes to the producers' exchange a message whose id is no UTF-8: valid for the broker, and
/// for no client in Rust.
async fn post_poison(url: &str, exchange: &str) {
    let through = url::Url::parse(url).unwrap();
    let port = through.port().unwrap_or(5672);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut here = through.clone();
    here.set_port(Some(listener.local_addr().unwrap().port()))
        .unwrap();
    let forger = tokio::spawn(async move {
        let (near, _) = listener.accept().await.unwrap();
        let (mut from_near, mut to_near) = near.into_split();
        let far = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let (mut from_far, mut to_far) = far.into_split();
        let there = async {
            let mut buffer = vec![0; 64 << 10];
            loop {
                let read = from_near.read(&mut buffer).await.unwrap_or(0);
                let bytes = &mut buffer[..read];
                if let Some(at) = bytes.windows(6).position(|six| six == b"FORGED") {
                    bytes[at..at + 6].fill(0xff);
                }
                if read == 0 || to_far.write_all(bytes).await.is_err() {
                    return;
                }
            }
        };
        tokio::join!(there, tokio::io::copy(&mut from_far, &mut to_near))
            .1
            .unwrap();
    });
    let properties = BasicProperties::default().with_message_id("FORGED".into());
    post_as(here.as_str(), exchange, "", properties)
        .await
        .unwrap();
    forger.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_cannot_even_be_read_stops_no_queue() {
    let harness = Rabbit::start().await;
    let queue = &harness.queue;
    let submit = format!("{}.submit", harness.settings.prefix);
    post_poison(&harness.settings.url, &submit).await;
    publish(queue, vec![message(SUBMISSIONS, "behind it")]).await;
    let mut intake = consumer(queue, SUBMISSIONS).await;
    let mut dead = consumer(queue, DEAD).await;
    let undertaker = tokio::spawn(async move { dead.take(1).await });
    let taken = take(&mut intake, 1).await;
    assert_eq!(taken[0].id, "behind it");
    complete(&mut intake, taken).await;
    let parked = async {
        loop {
            // The connection comes and goes until it is parked.
            let depths = queue.depths().await.unwrap_or_default();
            if let Some(depth) = depths.iter().find(|depth| depth.key == "dead.unreadable") {
                return depth.ready;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    assert_eq!(timeout(PATIENCE, parked).await.expect("parked"), 1);
    undertaker.abort();
    publish(queue, vec![message(SUBMISSIONS, "afterwards")]).await;
    assert_eq!(take(&mut intake, 1).await[0].id, "afterwards");
    harness.stop().await;
}
