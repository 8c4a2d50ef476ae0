//! The main job, end to end: a notification from its producer to the inbox, the open page and the
//! mailbox. The same journeys on SQLite, on RabbitMQ and PostgreSQL in one process, and with a
//! process for each role.

use std::time::Duration;

use reqwest::StatusCode;
use serde_json::json;

use crate::support::app::App;
use crate::support::app::CROWD;
use crate::support::app::broadcast;
use crate::support::app::eventually;
use crate::support::app::person;
use crate::support::app::to;
use crate::support::smtp::Fault;

/// Makes a test of each journey for one way to run.
macro_rules! journeys {
    ($start:path) => {
        journeys!($start: a_curl_reaches_inbox_page_and_mailbox, a_waiting_caller_gets_what_was_stored,
            a_repeated_request_is_the_same_submission, a_group_of_two_thousand_is_counted_exactly,
            a_broadcast_reaches_everybody, a_mail_that_is_refused_for_now_is_tried_again,
            a_mail_that_is_refused_for_good_is_a_dead_letter_that_can_be_replayed,
            a_typo_in_a_group_does_not_look_like_success,
            what_is_switched_off_is_not_delivered_until_it_is_on_again);
    };
    ($start:path: $($fact:ident),+ $(,)?) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $fact() {
                let app = $start().await;
                super::$fact(&app).await;
            }
        )+
    };
}

mod sqlite {
    journeys!(crate::support::app::App::embedded);
}

mod distributed {
    journeys!(crate::support::app::App::up_distributed);
}

mod distributed_roles {
    journeys!(crate::support::app::App::by_role);
}

/// The request every producer knows.
fn the_curl() -> serde_json::Value {
    json!({"recipients": {"type": "entity", "entityRef": "user:development/guest"},
        "payload": {"title": "Title of user-targeted external message", "description": "The description",
            "link": "http://foo.com/bar", "severity": "high", "topic": "The topic"}})
}

const GUEST: &str = "user:development/guest";
const LIST: &str = "/api/notifications/notifications";

async fn a_curl_reaches_inbox_page_and_mailbox(app: &App) {
    let mut page = app
        .api
        .http()
        .get(app.api.url("/api/tidings/v1/stream"))
        .bearer_auth(app.api.user_token(GUEST))
        .send()
        .await
        .unwrap();
    assert_eq!(page.status(), StatusCode::OK);
    let (status, accepted) = app.api.send(&the_curl(), &[]).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{accepted}");
    assert_eq!(accepted["status"], "accepted");

    let mails = app.smtp.wait_for(1).await;
    assert_eq!(mails[0].to, ["guest@example.com"]);
    assert_eq!(
        mails[0].subject(),
        "Title of user-targeted external message"
    );

    let (_, inbox) = app.api.get_as(GUEST, LIST).await;
    assert_eq!(inbox["totalCount"], 1, "{inbox}");
    let stored = &inbox["notifications"][0];
    assert_eq!(stored["origin"], "external:ci");
    assert_eq!(stored["payload"]["severity"], "high");

    let mut heard = String::new();
    let listen = async {
        while !heard.contains("new_notification") {
            let part = page.chunk().await.unwrap().expect("the stream ended");
            heard.push_str(&String::from_utf8_lossy(&part));
        }
    };
    tokio::time::timeout(Duration::from_secs(20), listen)
        .await
        .unwrap();
    assert!(heard.contains(stored["id"].as_str().unwrap()), "{heard}");
}

async fn a_waiting_caller_gets_what_was_stored(app: &App) {
    let (status, stored) = app.api.send(&the_curl(), &[("prefer", "wait=20")]).await;
    assert_eq!(status, StatusCode::OK, "{stored}");
    assert_eq!(stored[0]["user"], GUEST);
    assert!(stored[0].get("read").is_none(), "{stored}");
    let id = stored[0]["id"].as_str().unwrap();
    let (status, one) = app.api.get_as(GUEST, &format!("{LIST}/{id}")).await;
    assert_eq!((status, &one["id"]), (StatusCode::OK, &stored[0]["id"]));
}

async fn a_repeated_request_is_the_same_submission(app: &App) {
    let again = [("idempotency-key", "build-42"), ("prefer", "wait=20")];
    let (_, first) = app.api.send(&the_curl(), &again).await;
    let (_, second) = app.api.send(&the_curl(), &again).await;
    assert_eq!(first[0]["id"], second[0]["id"]);
    let (_, other) = app
        .api
        .send(&to(&[GUEST, &person(1)], "Another body"), &again)
        .await;
    assert_eq!(first[0]["id"], other[0]["id"], "the first body stands");
    let (_, inbox) = app.api.get_as(GUEST, LIST).await;
    assert_eq!(inbox["totalCount"], 1);
    let (_, nobody) = app.api.get_as(&person(1), LIST).await;
    assert_eq!(nobody["totalCount"], 0);
    app.smtp.wait_for(1).await;
    let (out, err, code) = app
        .cli(&["trace", "--key", "build-42", "--origin", "external:ci"])
        .await;
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("1 other body under the same key"), "{out}");
    assert_eq!(app.smtp.mails().len(), 1);
}

async fn a_group_of_two_thousand_is_counted_exactly(app: &App) {
    let (status, accepted) = app
        .api
        .send(&to(&["group:default/everyone"], "All hands"), &[])
        .await;
    assert_eq!(status, StatusCode::ACCEPTED);
    let mails = app.smtp.wait_for(CROWD).await;
    let distinct: std::collections::BTreeSet<&str> =
        mails.iter().map(|mail| mail.message_id.as_str()).collect();
    assert_eq!((mails.len(), distinct.len()), (CROWD, CROWD));
    let (out, err, code) = app
        .cli(&["trace", accepted["submission"].as_str().unwrap(), "--json"])
        .await;
    assert_eq!(code, 0, "{err}");
    let timeline: serde_json::Value = serde_json::from_str(&out).unwrap();
    let stored: u64 = timeline["chunks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|chunk| chunk["stored"].as_u64().unwrap())
        .sum();
    assert_eq!((stored, timeline["of"].as_u64()), (CROWD as u64, Some(4)));
    for number in [0, 777, CROWD - 1] {
        let (_, counts) = app
            .api
            .get_as(&person(number), "/api/notifications/status")
            .await;
        assert_eq!(counts, json!({"unread": 1, "read": 0}));
    }
    settled(app).await;
    assert_eq!(app.smtp.mails().len(), CROWD, "no mail twice");
}

async fn a_broadcast_reaches_everybody(app: &App) {
    let (status, stored) = app
        .api
        .send(&broadcast("For all"), &[("prefer", "wait=20")])
        .await;
    assert_eq!(status, StatusCode::OK, "{stored}");
    for user in [
        GUEST.to_owned(),
        person(3),
        "user:default/not-in-the-catalog".to_owned(),
    ] {
        let (_, inbox) = app.api.get_as(&user, LIST).await;
        assert_eq!(inbox["totalCount"], 1, "{user}");
        assert_eq!(inbox["notifications"][0]["user"], serde_json::Value::Null);
    }
    let mails = app.smtp.wait_for(CROWD + 1).await;
    let addresses: std::collections::BTreeSet<&str> = mails
        .iter()
        .flat_map(|mail| mail.to.iter().map(String::as_str))
        .collect();
    assert_eq!(addresses.len(), CROWD + 1);
    settled(app).await;
    assert_eq!(app.smtp.mails().len(), CROWD + 1, "no mail twice");
    let ids = json!({"ids": [stored[0]["id"]], "read": true});
    app.api
        .post_as(GUEST, "/api/notifications/update", &ids)
        .await;
    let (_, mine) = app.api.get_as(GUEST, "/api/notifications/status").await;
    let (_, other) = app
        .api
        .get_as(&person(3), "/api/notifications/status")
        .await;
    assert_eq!(
        (mine, other),
        (
            json!({"unread": 0, "read": 1}),
            json!({"unread": 1, "read": 0})
        )
    );
}

async fn a_mail_that_is_refused_for_now_is_tried_again(app: &App) {
    app.smtp
        .fault(Fault::recipient("guest@example.com", "451 4.3.0 try again later").times(2));
    let (_, accepted) = app.api.send(&the_curl(), &[]).await;
    let mails = app.smtp.wait_for(1).await;
    assert_eq!(mails[0].to, ["guest@example.com"]);
    let id = accepted["submission"].as_str().unwrap().to_owned();
    let line = eventually("the delivery to be recorded", async || {
        let (_, told) = app
            .api
            .operate(&format!("/api/tidings/v1/submissions/{id}"))
            .await;
        let line = told["deliveries"][0].clone();
        (line["state"] == "sent").then_some(line)
    })
    .await;
    assert_eq!(line["attempts"], 3, "{line}");
}

async fn a_mail_that_is_refused_for_good_is_a_dead_letter_that_can_be_replayed(app: &App) {
    app.smtp.fault(Fault::recipient(
        "guest@example.com",
        "550 5.1.1 no such user",
    ));
    app.api.send(&the_curl(), &[]).await;
    let dead = eventually("the dead letter", async || {
        let (out, _, _) = app.cli(&["dead", "list", "--json"]).await;
        out.lines()
            .next()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
    })
    .await;
    assert_eq!(
        (&dead["stage"], &dead["reason"]),
        (&json!("deliver.email"), &json!("rejected"))
    );
    let id = dead["id"].to_string();
    let (shown, _, _) = app.cli(&["dead", "show", &id]).await;
    assert!(
        !shown.contains("The description"),
        "content is masked: {shown}"
    );
    let (out, err, code) = app.cli(&["status"]).await;
    assert_eq!(
        code, 0,
        "a recipient's refusal is no trouble of ours: {out}{err}"
    );

    app.smtp.mend();
    let (out, err, code) = app.cli(&["dead", "replay", &id]).await;
    assert_eq!((out.trim(), code), ("1 dead letter put back.", 0), "{err}");
    let mails = app.smtp.wait_for(1).await;
    assert_eq!(mails[0].to, ["guest@example.com"]);
    let (out, _, _) = app.cli(&["dead", "list"]).await;
    assert_eq!(out, "No dead letters.\n");
}

async fn a_typo_in_a_group_does_not_look_like_success(app: &App) {
    let (out, err, code) = app
        .cli(&[
            "send",
            "--to",
            "group:default/everyon",
            "--title",
            "Hi",
            "--wait",
        ])
        .await;
    assert_eq!(code, 6, "{out}{err}");
    assert!(
        err.contains("group:default/everyon is not in the catalog"),
        "{err}"
    );
    assert!(
        err.contains("did you mean group:default/everyone?"),
        "{err}"
    );
}

async fn what_is_switched_off_is_not_delivered_until_it_is_on_again(app: &App) {
    const SETTINGS: &str = "/api/notifications/settings";
    let sent = async |title: &str| {
        let wait = [("prefer", "wait=20")];
        let (status, stored) = app.api.send(&to(&[GUEST], title), &wait).await;
        assert_eq!(status, StatusCode::OK, "{stored}");
        stored.as_array().unwrap().len()
    };
    assert_eq!(sent("One").await, 1);
    let (_, mut switches) = app.api.get_as(GUEST, SETTINGS).await;
    let ids: Vec<_> = switches["channels"]
        .as_array()
        .unwrap()
        .iter()
        .map(|channel| channel["id"].clone())
        .collect();
    assert_eq!(ids, ["Web", "Email"], "{switches}");
    assert_eq!(switches["channels"][1]["origins"][0]["id"], "external:ci");

    // The mail first: the inbox is still wanted.
    let mut switched = async |channel: usize, on: bool| {
        switches["channels"][channel]["origins"][0]["enabled"] = json!(on);
        let (status, saved) = app.api.post_as(GUEST, SETTINGS, &switches).await;
        assert_eq!((status, &saved), (StatusCode::OK, &switches));
        let (_, shown) = app.api.get_as(GUEST, SETTINGS).await;
        assert_eq!(shown, switches);
    };
    switched(1, false).await;
    assert_eq!(sent("Two").await, 1);
    switched(0, false).await;
    assert_eq!(sent("Three").await, 0);
    switched(0, true).await;
    switched(1, true).await;
    assert_eq!(sent("Four").await, 1);

    settled(app).await;
    app.smtp.wait_for(2).await;
    let mails: std::collections::BTreeSet<String> =
        app.smtp.mails().iter().map(|mail| mail.subject()).collect();
    assert_eq!(Vec::from_iter(mails), ["Four", "One"]);
    let (_, inbox) = app.api.get_as(GUEST, LIST).await;
    let titles: Vec<_> = inbox["notifications"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["payload"]["title"].clone())
        .collect();
    assert_eq!(titles, ["Four", "Two", "One"]);
}

/// Waits until no message waits anywhere, so that a second copy would be out by now.
async fn settled(app: &App) {
    eventually("the queues to be empty", async || {
        let (_, told) = app.api.operate("/api/tidings/v1/status").await;
        let empty = told["queues"]
            .as_array()?
            .iter()
            .all(|queue| queue["ready"] == 0);
        let pending = told["summary"]["channels"]
            .as_array()?
            .iter()
            .all(|one| one["pending"] == 0);
        (empty && pending).then_some(())
    })
    .await;
}
