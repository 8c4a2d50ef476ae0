//! Workers of others: a decorator and a sender in Python, which know `schemas/README.md` alone and
//! have the rights of `deploy/rabbitmq/setup`. Each test has a Tidings of its own.

mod forger;
mod worker;

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::time::Instant;

use serde_json::Value;
use serde_json::json;
use tidings::queue::rabbitmq::RabbitSettings;
use tidings::topology;

use self::forger::Forger;
use self::worker::Worker;
use crate::support::app::App;
use crate::support::app::TIDINGS;
use crate::support::app::eventually;
use crate::support::app::person;
use crate::support::app::to;

const LIST: &str = "/api/notifications/notifications";
const ANN: &str = "user:default/ann";
const BO: &str = "user:default/bo";

/// A Tidings with the step `weather` on a queue.
async fn with_weather(options: &str) -> App {
    let lines = format!("  decorators: [ {{ name: weather, queue: true, {options} }} ]\n");
    let more = |settings: &mut RabbitSettings| {
        let queues = topology::decorate_queues(["weather"].into_iter());
        settings.queues.extend(queues);
    };
    App::distributed_with(&lines, more, &[(TIDINGS, &["up"])]).await
}

/// A Tidings with the sender `pager` on a queue.
async fn with_pager() -> App {
    let lines =
        "  senders: [ { name: pager, channel: Pager, annotations: [ pager.example.com/id ] } ]\n";
    let more = |settings: &mut RabbitSettings| {
        settings.queues = topology::queues(&["email", "pager"].map(str::to_owned));
    };
    App::distributed_with(lines, more, &[(TIDINGS, &["up"])]).await
}

async fn inbox(app: &App, user: &str) -> Value {
    app.api.get_as(user, LIST).await.1
}

/// Sends and waits for what is stored; the answer's rows.
async fn send(app: &App, body: &Value) -> Vec<Value> {
    let (status, stored) = app.api.send(body, &[("Prefer", "wait=60")]).await;
    assert_eq!(status, 200, "{stored}");
    stored.as_array().unwrap().clone()
}

/// Sends; the submission's id.
async fn submit(app: &App, body: &Value) -> String {
    let (status, accepted) = app.api.send(body, &[]).await;
    assert_eq!(status, 202, "{accepted}");
    accepted["submission"].as_str().unwrap().to_owned()
}

/// What became of a submission.
async fn story(app: &App, id: &str) -> Value {
    let path = format!("/api/tidings/v1/submissions/{id}");
    app.api.operate(&path).await.1
}

async fn dead(app: &App) -> Vec<Value> {
    let (out, _, _) = app.cli(&["dead", "list", "--json"]).await;
    let read = |line| serde_json::from_str(line).unwrap();
    out.lines().map(read).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn distributed_a_decorator_in_python_changes_patches_and_drops() {
    let app = with_weather("timeout: 60s").await;
    let Some(_worker) = Worker::decorator(&app, "weather").await else {
        return;
    };
    let mut body = to(&[ANN, BO, &person(1)], "Build 42");
    body["payload"]["sky"] = json!("grey");
    let stored = send(&app, &body).await;
    let users: Vec<&str> = stored
        .iter()
        .filter_map(|one| one["user"].as_str())
        .collect();
    assert_eq!(users, [ANN, &person(1)], "bo is dropped");
    for one in &stored {
        assert_eq!(
            one["payload"]["sky"], "grey",
            "unknown fields are kept: {one}"
        );
        assert_eq!(one["payload"]["description"], "It is raining.");
        assert_eq!(one["origin"], "external:ci");
    }
    let title = |inbox: Value| inbox["notifications"][0]["payload"]["title"].clone();
    assert_eq!(title(inbox(&app, ANN).await), "Ann: Build 42");
    assert_eq!(title(inbox(&app, &person(1)).await), "Build 42");
    assert_eq!(inbox(&app, BO).await["totalCount"], 0);
    app.smtp.wait_for(1).await;

    // What it rejects goes on without it, and the timeline says so.
    let id = submit(&app, &to(&[&person(2)], "Spam")).await;
    let told = eventually("the story of what was rejected", async || {
        let told = story(&app, &id).await;
        told["chunks"]
            .as_array()
            .is_some_and(|all| !all.is_empty())
            .then_some(told)
    })
    .await;
    let notes = told.to_string();
    assert!(notes.contains("skipped: the worker rejected it"), "{told}");
    let stored = inbox(&app, &person(2)).await["notifications"][0].clone();
    assert_eq!(stored["payload"]["description"], Value::Null);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn distributed_a_decorator_that_does_not_run_delays_nobody_beyond_its_timeout() {
    const COUNT: usize = 1_000;
    let app = with_weather("timeout: 2s").await;
    let began = Instant::now();
    let user = person(1);
    for round in 0..COUNT / 50 {
        let sends = (0..50).map(|number| {
            let body = to(&[&user], &format!("{round}/{number}"));
            let app = &app;
            async move { submit(app, &body).await }
        });
        futures::future::join_all(sends).await;
    }
    let accepted = began.elapsed();
    eventually("all in the inbox", async || {
        (inbox(&app, &user).await["totalCount"] == json!(COUNT)).then_some(())
    })
    .await;
    println!(
        "{COUNT} accepted after {accepted:.1?}, all in the inbox after {:.1?}",
        began.elapsed()
    );
    assert!(dead(&app).await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn distributed_a_decorator_that_must_answer_gets_a_chunk_again() {
    let app = with_weather("timeout: 200ms, policy: retry").await;
    submit(&app, &to(&[&person(1)], "Build 43")).await;
    let missed = async || {
        let log = app.processes[0].log();
        (log.matches("stored").count() == 0).then_some(())
    };
    missed()
        .await
        .expect("nothing is stored before the worker answered");
    let Some(_worker) = Worker::decorator(&app, "weather").await else {
        return;
    };
    let stored = eventually("the decorated notification", async || {
        let one = inbox(&app, &person(1)).await["notifications"][0].clone();
        one.is_object().then_some(one)
    })
    .await;
    assert_eq!(stored["payload"]["description"], "It is raining.");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn distributed_a_decorator_that_is_killed_loses_nothing_and_doubles_nothing() {
    const COUNT: usize = 300;
    let app = with_weather("timeout: 60s").await;
    let Some(mut worker) = Worker::decorator(&app, "weather").await else {
        return;
    };
    for number in 0..COUNT {
        submit(&app, &to(&[&person(number)], &format!("Build {number}"))).await;
        if number % 100 == 50 {
            worker.kill_and_restart();
        }
    }
    for number in 0..COUNT {
        let user = person(number);
        let one = eventually("everybody's notification", async || {
            let inbox = inbox(&app, &user).await;
            (inbox["totalCount"] != 0).then_some(inbox)
        })
        .await;
        assert_eq!(one["totalCount"], 1, "{one}");
        let text = &one["notifications"][0]["payload"]["description"];
        assert_eq!(text, "It is raining.");
    }
    assert!(dead(&app).await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn distributed_a_decorator_gains_nothing_by_what_it_claims() {
    let app = with_weather("timeout: 60s").await;
    let Some(mut forger) = Forger::connect(&app, "weather").await else {
        return;
    };
    let id = submit(&app, &to(&[ANN], "Genuine")).await;
    let mut chunk = forger.take().await;
    let replayed = chunk.clone();
    chunk["origin"] = json!("plugin:catalog");
    chunk["id"] = json!(uuid::Uuid::new_v4());
    chunk["people"] = json!([{"user": ANN}, {"user": BO}]);
    chunk["notes"] = json!([{"step": "template", "text": "n".repeat(100_000)}]);
    chunk["slip"] = json!(["chunks"]);
    forger.hand_back(&chunk).await;
    let stored = eventually("what is genuine", async || {
        let one = inbox(&app, ANN).await["notifications"][0].clone();
        one.is_object().then_some(one)
    })
    .await;
    assert_eq!(stored["origin"], "external:ci");
    assert_eq!(inbox(&app, BO).await["totalCount"], 0);
    assert!(story(&app, &id).await.to_string().len() < 10_000);

    // Without a seal, with a broken one, or with content that no producer may send.
    for (name, change) in [
        ("no seal", json!({"seal": null})),
        ("a seal of its own", json!({"seal": "e30.AAAA"})),
        (
            "a link that runs",
            json!({"payload": {"title": "t", "link": "javascript:1"}}),
        ),
    ] {
        let mut bad = replayed.clone();
        for (field, value) in change.as_object().unwrap() {
            bad[field] = value.clone();
        }
        bad["slip"] = json!(["chunks"]);
        bad["people"][0]["user"] = json!(BO);
        let before = dead(&app).await.len();
        forger.hand_back(&bad).await;
        eventually(name, async || {
            (before < dead(&app).await.len()).then_some(())
        })
        .await;
    }
    assert_eq!(inbox(&app, BO).await["totalCount"], 0);
    for letter in dead(&app).await {
        assert_eq!(
            (&letter["stage"], &letter["reason"]),
            (&json!("chunks"), &json!("invalid")),
            "{letter}"
        );
    }
    for key in [
        "submissions",
        "deliver.email",
        "attempts",
        "dead",
        "wait.1s",
    ] {
        let refusal = forger.refusal(key).await;
        assert!(refusal.contains("ACCESS_REFUSED"), "{key}: {refusal}");
    }
}

/// The states of a submission's pages, once none is open.
async fn pages(app: &App, id: &str) -> BTreeMap<String, usize> {
    eventually("its pages to end", async || {
        let told = story(app, id).await;
        let mut states = BTreeMap::new();
        for delivery in told["deliveries"].as_array()? {
            if delivery["channel"] == "pager" {
                let state = delivery["state"].as_str()?.to_owned();
                *states.entry(state).or_insert(0) += 1;
            }
        }
        (!states.is_empty() && !states.contains_key("pending")).then_some(states)
    })
    .await
}

/// What the pager was given: delivery, address, title.
fn paged(app: &App) -> Vec<(String, String, String)> {
    let text = std::fs::read_to_string(app.dir().join("sent.jsonl")).unwrap_or_default();
    text.lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .map(|line| {
            let text = |name: &str| line[name].as_str().unwrap().to_owned();
            (text("id"), text("to"), text("title"))
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn distributed_a_sender_in_python_reports_what_it_did() {
    let app = with_pager().await;
    let Some(_worker) = Worker::sender(&app, "pager").await else {
        return;
    };
    let of = |state: &str, count: usize| BTreeMap::from([(state.to_owned(), count)]);
    let id = submit(&app, &to(&[&person(1), &person(2), ANN], "Down")).await;
    let states = pages(&app, &id).await;
    let expected = [("sent".to_owned(), 2), ("skipped".to_owned(), 1)];
    assert_eq!(
        states,
        BTreeMap::from(expected),
        "ann is not in the catalog"
    );
    let to_whom: BTreeSet<String> = paged(&app).into_iter().map(|(_, to, _)| to).collect();
    let expected = ["pager-p0001", "pager-p0002"].map(str::to_owned);
    assert_eq!(to_whom, BTreeSet::from(expected));
    let (out, _, _) = app.cli(&["trace", &id]).await;
    assert!(out.contains("pager") && out.contains("no pager"), "{out}");

    let later = submit(&app, &to(&[&person(3)], "Later")).await;
    assert_eq!(pages(&app, &later).await, of("sent", 1));
    let told = story(&app, &later).await;
    let page = told["deliveries"].as_array().unwrap().iter();
    let page: Vec<_> = page.filter(|one| one["channel"] == "pager").collect();
    assert_eq!(page[0]["attempts"], 2, "{told}");
    assert!(
        page[0]["provider_id"]
            .as_str()
            .unwrap()
            .starts_with("page-"),
        "{told}"
    );

    // Refused for good by an attempt, and by reject: dead letters, either way.
    let never = submit(&app, &to(&[&person(4)], "Never")).await;
    assert_eq!(pages(&app, &never).await, of("failed", 1));
    let spam = submit(&app, &to(&[&person(5)], "Spam")).await;
    assert_eq!(pages(&app, &spam).await, of("failed", 1));
    let letters = eventually("both dead letters", async || {
        let letters = dead(&app).await;
        (letters.len() == 2).then_some(letters)
    })
    .await;
    for letter in &letters {
        assert_eq!(letter["stage"], "deliver.pager", "{letter}");
        assert_eq!(letter["reason"], "rejected", "{letter}");
    }
    assert_eq!(paged(&app).len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn distributed_a_sender_that_is_killed_loses_nothing() {
    const COUNT: usize = 300;
    let app = with_pager().await;
    let Some(mut worker) = Worker::sender(&app, "pager").await else {
        return;
    };
    for number in 0..COUNT {
        submit(&app, &to(&[&person(number)], &format!("Page {number}"))).await;
        if number % 100 == 50 {
            worker.kill_and_restart();
        }
    }
    let titles = eventually("every page", async || {
        let titles: BTreeSet<String> = paged(&app).into_iter().map(|(_, _, title)| title).collect();
        (titles.len() == COUNT).then_some(titles)
    })
    .await;
    assert_eq!(titles.len(), COUNT);
    // At least once: a copy bears the same id, and is one that was in hand when it was killed.
    let sent = paged(&app);
    let ids: BTreeSet<&String> = sent.iter().map(|(id, _, _)| id).collect();
    assert_eq!(ids.len(), COUNT);
    eventually("every attempt to be recorded", async || {
        let (_, told) = app.api.operate("/api/tidings/v1/status").await;
        let channels = told["summary"]["channels"].as_array()?;
        let pager = channels.iter().find(|one| one["channel"] == "pager")?;
        (pager["pending"] == 0).then_some(())
    })
    .await;
    assert!(dead(&app).await.is_empty());
}
