//! Producers that publish to the queue themselves: served like any caller over HTTP, known by what
//! the broker vouches for, and unable to disturb anybody. Their broker users have the rights of
//! `deploy/rabbitmq` and no more.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use lapin::BasicProperties;
use lapin::types::AMQPValue;
use lapin::types::FieldArray;
use lapin::types::FieldTable;
use serde_json::Value;
use serde_json::json;
use tidings::notification::keyed_submission_id;

use crate::support::app::App;
use crate::support::app::eventually;
use crate::support::app::person;
use crate::support::app::to;
use crate::support::producer::Producer;

const LIST: &str = "/api/notifications/notifications";

/// The origin that the configuration gives the test's producer.
const ORIGIN: &str = "external:producer";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn distributed_a_producer_is_served_like_any_caller() {
    let app = App::up_distributed().await;
    let Some(mut producer) = Producer::known(&app).await else {
        return;
    };
    let body = to(&[&person(1), &person(2)], "From the queue");
    producer.submit("build-42", &body).await;
    let (correlation, reply) = producer.reply().await;
    assert_eq!(correlation, "build-42");
    assert_eq!(reply["status"], "stored", "{reply}");
    let id = keyed_submission_id(ORIGIN, "build-42");
    assert_eq!(reply["submission"], json!(id));
    let users: Vec<&Value> = reply["notifications"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| &one["user"])
        .collect();
    assert_eq!(users, [&person(1), &person(2)]);

    // The same id is the same submission, whatever its body.
    let other = to(&[&person(3)], "Another");
    producer.submit("build-42", &body).await;
    producer.submit("build-42", &other).await;
    for _ in 0..2 {
        let (_, again) = producer.reply().await;
        assert_eq!(again["submission"], reply["submission"], "{again}");
        assert_eq!(
            again["notifications"][0]["id"],
            reply["notifications"][0]["id"]
        );
    }
    for (number, want) in [(1, 1), (2, 1), (3, 0)] {
        let (_, inbox) = app.api.get_as(&person(number), LIST).await;
        assert_eq!(inbox["totalCount"], want, "{inbox}");
        if want == 1 {
            assert_eq!(inbox["notifications"][0]["origin"], ORIGIN);
        }
    }
    app.smtp.wait_for(2).await;

    // One that wants no reply is not answered.
    let quiet = BasicProperties::default()
        .with_user_id(producer.user.as_str().into())
        .with_message_id("quiet".into());
    let body = to(&[&person(4)], "Quietly").to_string();
    producer.publish(quiet, body.as_bytes()).await;
    let mails = app.smtp.wait_for(3).await;
    assert_eq!(mails.len(), 3, "one for each person, none twice");
    let (out, err, code) = app
        .cli(&["trace", "--key", "build-42", "--origin", ORIGIN])
        .await;
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("other bod"), "{out}");
}

/// A message that must die, and what its dead letter says.
struct Bad {
    properties: BasicProperties,
    body: Vec<u8>,
    reason: &'static str,
    detail: &'static str,
    /// Where the reply points to, if one comes.
    pointer: Option<&'static str>,
}

fn bad_messages(producer: &Producer) -> BTreeMap<&'static str, Bad> {
    let good = to(&[&person(1)], "Good").to_string().into_bytes();
    let body = |body: Value| body.to_string().into_bytes();
    let invalid = |name: &'static str, body: Vec<u8>, pointer: &'static str| {
        let bad = Bad {
            properties: producer.properties(name),
            body,
            reason: "invalid",
            detail: pointer,
            pointer: Some(pointer),
        };
        (name, bad)
    };
    let with_headers =
        |name: &str, headers: FieldTable| producer.properties(name).with_headers(headers);
    let without_title = json!({"recipients": {"type": "broadcast"}, "payload": {}});
    let mut cc = FieldTable::default();
    let queues = vec![AMQPValue::LongString("chunks".into())];
    cc.insert("CC".into(), AMQPValue::FieldArray(FieldArray::from(queues)));
    let mut huge = FieldTable::default();
    // As much as the one frame of the headers holds (128 KiB), but for some dozens of bytes.
    for number in 0..13 {
        let text = "x".repeat(if number == 12 { 10_700 } else { 10_000 });
        huge.insert(
            format!("note-{number}").into(),
            AMQPValue::LongString(text.into()),
        );
    }
    let mut forged = good.clone();
    forged.resize((1 << 20) + 1, b' ');
    let mut bad = BTreeMap::from([
        invalid("no-title", body(without_title.clone()), "#/payload/title"),
        invalid(
            "no-severity",
            body(json!({"recipients": {"type": "broadcast"},
                "payload": {"title": "t", "severity": "urgent"}})),
            "#/payload/severity",
        ),
        invalid(
            "no-page",
            body(json!({"recipients": {"type": "broadcast"},
                "payload": {"title": "t", "link": "javascript:alert(1)"}})),
            "#/payload/link",
        ),
        invalid(
            "no-ref",
            body(to(&["somebody"], "t")),
            "#/recipients/entityRef/0",
        ),
        invalid("not-utf8", vec![0xff, 0xfe, 0x00], "#"),
        invalid("not-json", b"{\"recipients\"".to_vec(), "#"),
        invalid("empty", Vec::new(), "#"),
        invalid("too-large", forged, "#"),
        // More faults than an answer or a header can hold.
        invalid(
            "a-million-faults",
            body(
                json!({"recipients": {"type": "entity", "entityRef": vec![1; 500_000]},
                "payload": {"title": "t"}}),
            ),
            "#/recipients/entityRef/0",
        ),
    ]);
    for (name, headers) in [("routing-keys", cc), ("huge-headers", huge)] {
        let (_, mut one) = invalid(name, body(without_title.clone()), "#/payload/title");
        one.properties = with_headers(name, headers);
        bad.insert(name, one);
    }
    let (_, mut one) = invalid("no-message-id", good.clone(), "message_id");
    one.properties = BasicProperties::default()
        .with_user_id(producer.user.as_str().into())
        .with_reply_to("amq.rabbitmq.reply-to".into())
        .with_correlation_id("no-message-id".into());
    bad.insert("no-message-id", one);
    bad.insert(
        "nobody",
        Bad {
            properties: BasicProperties::default().with_message_id("nobody".into()),
            body: good,
            reason: "unidentified",
            detail: "set to your broker user",
            pointer: None,
        },
    );
    bad
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn distributed_bad_messages_die_with_their_reason_and_disturb_nobody() {
    let app = App::up_distributed().await;
    let Some(mut producer) = Producer::known(&app).await else {
        return;
    };
    let bad = bad_messages(&producer);
    let mut titles = Vec::new();
    for (name, one) in &bad {
        producer.publish(one.properties.clone(), &one.body).await;
        let good = format!("after {name}");
        producer
            .submit(&format!("after-{name}"), &to(&[&person(9)], &good))
            .await;
        titles.push(good);
    }

    let answered = bad.values().filter(|one| one.pointer.is_some()).count();
    // A message that is handed out twice is answered twice.
    let mut heard = BTreeSet::new();
    while heard.len() < answered + titles.len() {
        let (correlation, reply) = producer.reply().await;
        if let Some(one) = bad.get(correlation.as_str()) {
            assert_eq!(reply["status"], "invalid", "{correlation}: {reply}");
            assert!(reply.get("submission").is_none(), "{correlation}: {reply}");
            let first = &reply["error"]["errors"][0]["pointer"];
            assert_eq!(first.as_str(), one.pointer, "{correlation}");
            assert!(
                reply.to_string().len() < 64 << 10,
                "{correlation}: the answer is not larger than the question"
            );
        } else {
            assert_eq!(reply["status"], "stored", "{correlation}: {reply}");
        }
        heard.insert(correlation);
    }
    let (_, inbox) = app
        .api
        .get_as(&person(9), &format!("{LIST}?limit=100"))
        .await;
    let mut stored: Vec<&str> = inbox["notifications"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["payload"]["title"].as_str().unwrap())
        .collect();
    stored.sort_unstable();
    titles.sort_unstable();
    assert_eq!(stored, titles, "every good one arrived");
    let (_, others) = app.api.get_as(&person(1), LIST).await;
    assert_eq!(others["totalCount"], 0, "nothing of a bad one is stored");

    let letters = dead_letters(&app, bad.len()).await;
    assert_eq!(letters.len(), bad.len());
    for letter in &letters {
        assert_eq!(letter["stage"], "submit", "{letter}");
        assert_eq!(letter["submission"], Value::Null, "{letter}");
        let found = bad.values().any(|one| {
            letter["reason"] == one.reason
                && letter["detail"].as_str().unwrap().contains(one.detail)
        });
        assert!(found, "{letter}");
        let unknown = letter["reason"] == "unidentified";
        let user = if unknown { "" } else { producer.user.as_str() };
        assert_eq!(letter["origin"], user, "{letter}");
        let id = letter["id"].to_string();
        let (shown, err, code) = app.cli(&["dead", "show", &id]).await;
        assert_eq!(code, 0, "{shown}{err}");
    }
    let unidentified = letters.iter().filter(|one| one["reason"] == "unidentified");
    assert_eq!(unidentified.count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn distributed_a_producer_gains_nothing_by_what_it_claims() {
    let app = App::up_distributed().await;
    let Some(mut producer) = Producer::known(&app).await else {
        return;
    };
    // The broker itself refuses another's name, and every other way in.
    let forged = producer.properties("forged").with_user_id("guest".into());
    let submit = format!("{}.submit", app.prefix());
    let refused = producer.refusal(&submit, forged).await;
    assert!(
        refused.contains("406") || refused.contains("PRECONDITION"),
        "{refused}"
    );
    for exchange in [
        app.prefix().to_owned(),
        format!("{}.signals", app.prefix()),
        String::new(),
    ] {
        let properties = producer.properties("elsewhere");
        let refused = producer.refusal(&exchange, properties).await;
        assert!(
            refused.contains("ACCESS_REFUSED") || refused.contains("403"),
            "{refused}"
        );
    }

    let mut headers = FieldTable::default();
    for (name, value) in [
        ("tidings-producer", "guest"),
        ("tidings-tries", "99"),
        ("tidings-stage", "deliver.email"),
        ("tidings-reason", "panic"),
    ] {
        headers.insert(name.into(), AMQPValue::LongString(value.into()));
    }
    let queues = ["chunks", "dead", "deliver.email"];
    let queues = queues.map(|key| AMQPValue::LongString(key.into())).to_vec();
    headers.insert("CC".into(), AMQPValue::FieldArray(FieldArray::from(queues)));
    let mut body = to(&[&person(1)], "I am somebody else");
    let id = "01890000-0000-7000-8000-000000000001";
    for (name, value) in [
        ("id", id),
        ("origin", "external:root"),
        ("key", "of-another"),
        ("accepted_at", "2001-01-01T00:00:00Z"),
        ("via", "http"),
        ("digest", "0000"),
    ] {
        body[name] = json!(value);
    }
    let properties = producer.properties("claims").with_headers(headers);
    producer
        .publish(properties, body.to_string().as_bytes())
        .await;
    let (_, reply) = producer.reply().await;
    assert_eq!(
        reply["submission"],
        json!(keyed_submission_id(ORIGIN, "claims"))
    );
    assert_eq!(reply["notifications"][0]["origin"], ORIGIN);
    let mails = app.smtp.wait_for(1).await;
    assert_eq!(mails.len(), 1);

    // A refusal does not confirm the id that a body claims.
    body["payload"] = json!({});
    producer.submit("claims-and-lacks", &body).await;
    let (_, reply) = producer.reply().await;
    assert_eq!(
        (&reply["status"], reply.get("submission")),
        (&json!("invalid"), None)
    );

    // Nor does a reply reach what the producer itself may not write to.
    for key in ["chunks", "submissions", "deliver.email", "dead", "wait.1s"] {
        let queue = format!("{}.{key}", app.prefix());
        let properties = producer
            .properties(key)
            .with_reply_to(queue.as_str().into());
        let body = to(&[&person(2)], key).to_string();
        producer.publish(properties, body.as_bytes()).await;
    }
    producer.submit("last", &to(&[&person(2)], "last")).await;
    let (correlation, _) = producer.reply().await;
    assert_eq!(correlation, "last");
    app.smtp.wait_for(7).await;
    let letters = dead_letters(&app, 1).await;
    assert_eq!(letters.len(), 1, "{letters:?}");
    let (_, told) = app
        .api
        .operate(&format!("/api/tidings/v1/submissions/{id}"))
        .await;
    assert!(told.get("error").is_some(), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn distributed_a_stranger_is_replayed_once_the_configuration_knows_it() {
    let mut app = App::by_role().await;
    let Some(mut stranger) = Producer::stranger(&app).await else {
        return;
    };
    stranger
        .submit("nightly", &to(&[&person(1)], "Who am I?"))
        .await;
    let letter = dead_letters(&app, 1).await.remove(0);
    assert_eq!(
        (&letter["stage"], &letter["reason"]),
        (&json!("submit"), &json!("unidentified"))
    );
    let detail = letter["detail"].as_str().unwrap();
    assert!(detail.contains("tidings.queue.origins"), "{detail}");
    assert!(detail.contains(&stranger.user), "{detail}");

    let line = format!("origins: {{ {}: external:stranger, ", stranger.user);
    app.configure(|config| config.replace("origins: { ", &line));
    for number in [2, 3] {
        let decorator = &mut app.processes[number];
        tokio::task::block_in_place(|| {
            assert!(decorator.terminate(), "{}", decorator.log());
            decorator.start_again();
        });
    }
    let (out, err, code) = app
        .cli(&["dead", "replay", "--reason", "unidentified"])
        .await;
    assert_eq!((out.trim(), code), ("1 dead letter put back.", 0), "{err}");
    let mails = app.smtp.wait_for(1).await;
    assert_eq!(mails[0].subject(), "Who am I?");
    let (_, inbox) = app.api.get_as(&person(1), LIST).await;
    assert_eq!(inbox["totalCount"], 1);
    assert_eq!(inbox["notifications"][0]["origin"], "external:stranger");

    // It keeps its key: published once more, it is the same submission.
    stranger
        .submit("nightly", &to(&[&person(1)], "Who am I?"))
        .await;
    let (_, reply) = stranger.reply().await;
    assert_eq!(
        reply["submission"],
        json!(keyed_submission_id("external:stranger", "nightly"))
    );
    let (_, inbox) = app.api.get_as(&person(1), LIST).await;
    assert_eq!(inbox["totalCount"], 1);
}

/// The dead letters, once there are `count` of them.
async fn dead_letters(app: &App, count: usize) -> Vec<Value> {
    eventually("the dead letters", async || {
        let (_, told) = app.api.operate("/api/tidings/v1/dead-letters").await;
        let letters = told["deadLetters"].as_array()?.clone();
        (count <= letters.len()).then_some(letters)
    })
    .await
}
