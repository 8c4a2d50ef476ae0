//! Who may do what, and what producers are allowed to bring about.

use std::time::Duration;

use bytes::Bytes;
use lapin::BasicProperties;
use lapin::options::BasicPublishOptions;
use lapin::options::ConfirmSelectOptions;
use lapin::types::AMQPValue;
use lapin::types::FieldTable;
use tidings::queue::Announcement;
use tidings::queue::DEAD;
use tidings::queue::HEADER_TRIES;
use tidings::queue::Queue;
use tidings::queue::QueueError;
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
