//! Software that nobody here wrote: Backstage's own clients, and a whole Backstage backend, from
//! npm, against a Tidings on either back end.

mod backstage;
mod clients;

use std::time::Duration;

use reqwest::StatusCode;
use serde_json::Value;
use serde_json::json;

use self::backstage::Backstage;
use self::backstage::GUEST;
use self::backstage::VISITORS;
use self::clients::Clients;
use crate::support::app::App;
use crate::support::app::CI;
use crate::support::app::CI_TOKEN;
use crate::support::app::person;

/// Makes a test of each fact for one way to run.
macro_rules! facts {
    ($start:path) => {
        facts!($start: the_list_answers_every_option_of_the_page,
            marks_count_and_are_heard_on_every_page_of_the_person,
            what_the_settings_card_saves_is_what_is_delivered,
            what_is_refused_is_an_error_that_the_page_can_show,
            pages_come_back_after_a_drain,
            a_backstage_moves_over_by_configuration_alone);
    };
    ($start:path: $($fact:ident),+ $(,)?) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $fact() {
                super::$fact($start().await).await;
            }
        )+
    };
}

mod sqlite {
    facts!(crate::support::app::App::embedded);
}

mod distributed {
    facts!(crate::support::app::App::up_distributed);
}

/// What a plugin hands to the notification service.
fn to_person(number: usize, payload: Value) -> Value {
    json!({"recipients": {"type": "entity", "entityRef": person(number)}, "payload": payload})
}

/// The signal of a new notification: its id.
fn new_id(signal: &Value) -> String {
    assert_eq!(signal["action"], "new_notification", "{signal}");
    signal["notification_id"].as_str().unwrap().to_owned()
}

fn titles(list: &Value) -> Vec<&str> {
    let all = list["notifications"].as_array().unwrap();
    all.iter()
        .map(|one| one["payload"]["title"].as_str().unwrap())
        .collect()
}

async fn the_list_answers_every_option_of_the_page(app: App) {
    let clients = Clients::start(&app.api.url(""));
    let service = clients.service(CI_TOKEN);
    let ann = clients.page(&app.api.user_token(&person(1)));
    let mut heard = ann.listen().await;

    // Sent one after another, each once the one before it is there: the order of arrival is known.
    let sent = [
        json!({"title": "Build failed", "description": "main is red", "severity": "critical",
            "topic": "builds", "link": "https://ci.example.com/7", "icon": "alert",
            "metadata": {"run": 7}}),
        json!({"title": "Build mended", "severity": "low", "topic": "builds"}),
        json!({"title": "Review wanted", "description": "of main", "topic": "reviews"}),
    ];
    let mut ids = Vec::new();
    for payload in sent {
        service.send(to_person(1, payload)).await.unwrap();
        ids.push(new_id(&heard.next().await));
    }
    let everybody = json!({"recipients": {"type": "broadcast"},
        "payload": {"title": "Lights out", "severity": "high", "topic": "house"}});
    service.send(everybody).await.unwrap();
    ids.push(new_id(&heard.next().await));

    let first = ann.one(&ids[0]).await.unwrap();
    assert_eq!(first["user"], person(1));
    assert_eq!(first["origin"], CI);
    assert_eq!(first["read"], Value::Null);
    assert_eq!(first["payload"]["severity"], "critical");
    assert_eq!(first["payload"]["link"], "https://ci.example.com/7");
    assert_eq!(first["payload"]["icon"], "alert");
    assert_eq!(first["payload"]["metadata"], json!({"run": 7}));
    let last = ann.one(&ids[3]).await.unwrap();
    assert_eq!(last["user"], Value::Null);

    let half = json!({"ids": [ids[1]], "read": true, "saved": true});
    ann.update(half).await.unwrap();

    const ALL: [&str; 4] = [
        "Lights out",
        "Review wanted",
        "Build mended",
        "Build failed",
    ];
    let created = first["created"].clone();
    let third = ann.one(&ids[2]).await.unwrap()["created"].clone();
    let table: [(Value, u64, &[&str]); 17] = [
        (Value::Null, 4, &ALL),
        (json!({}), 4, &ALL),
        (json!({"limit": 2}), 4, &ALL[..2]),
        (json!({"limit": 2, "offset": 1}), 4, &ALL[1..3]),
        (json!({"limit": 0}), 4, &[]),
        (json!({"offset": 3}), 4, &ALL[3..]),
        (
            json!({"sort": "created", "sortOrder": "asc", "limit": 1}),
            4,
            &["Build failed"],
        ),
        (json!({"sort": "created"}), 4, &ALL),
        (
            json!({"sort": "topic", "sortOrder": "asc", "offset": 2}),
            4,
            &["Lights out", "Review wanted"],
        ),
        (
            json!({"search": "MAIN"}),
            2,
            &["Review wanted", "Build failed"],
        ),
        (json!({"read": true}), 1, &["Build mended"]),
        (
            json!({"read": false}),
            3,
            &["Lights out", "Review wanted", "Build failed"],
        ),
        (json!({"saved": true}), 1, &["Build mended"]),
        (
            json!({"saved": false, "topic": "builds"}),
            1,
            &["Build failed"],
        ),
        (json!({"createdAfter": created}), 4, &ALL),
        (json!({"createdAfter": third}), 2, &ALL[..2]),
        (
            json!({"minimumSeverity": "high"}),
            2,
            &["Lights out", "Build failed"],
        ),
    ];
    for (options, total, expected) in table {
        let list = ann.list(options.clone()).await.unwrap();
        assert_eq!(titles(&list), expected, "{options}");
        assert_eq!(list["totalCount"], total, "{options}");
    }
    let by_origin = json!({"sort": "origin", "sortOrder": "desc"});
    assert_eq!(ann.list(by_origin).await.unwrap()["totalCount"], 4);

    let topics = async |options: Value| ann.topics(options).await.unwrap()["topics"].clone();
    assert_eq!(
        topics(Value::Null).await,
        json!(["builds", "house", "reviews"])
    );
    assert_eq!(
        topics(json!({"search": "review"})).await,
        json!(["reviews"])
    );
    assert_eq!(topics(json!({"read": true})).await, json!(["builds"]));
    assert_eq!(topics(json!({"saved": true})).await, json!(["builds"]));
    assert_eq!(
        topics(json!({"minimumSeverity": "high"})).await,
        json!(["builds", "house"])
    );
    assert_eq!(
        topics(json!({"createdAfter": third})).await,
        json!(["house", "reviews"])
    );
}

async fn marks_count_and_are_heard_on_every_page_of_the_person(app: App) {
    let clients = Clients::start(&app.api.url(""));
    let token = app.api.user_token(&person(1));
    let (desk, phone) = (
        clients.page(&token),
        clients.page(&app.api.user_token(&person(1))),
    );
    let bo = clients.page(&app.api.user_token(&person(2)));
    let mut at_desk = desk.listen().await;
    let mut on_phone = phone.listen().await;
    let mut of_bo = bo.listen().await;

    let service = clients.service(CI_TOKEN);
    let both = json!({"recipients": {"type": "entity", "entityRef": "group:default/everyone",
        "excludeEntityRef": person(2)}, "payload": {"title": "For all but one"}});
    service.send(both).await.unwrap();
    let id = new_id(&at_desk.next().await);
    assert_eq!(new_id(&on_phone.next().await), id);
    assert_eq!(
        desk.status().await.unwrap(),
        json!({"unread": 1, "read": 0})
    );

    for (read, action, counts) in [
        (true, "notification_read", json!({"unread": 0, "read": 1})),
        (
            false,
            "notification_unread",
            json!({"unread": 1, "read": 0}),
        ),
    ] {
        let changed = desk
            .update(json!({"ids": [id], "read": read}))
            .await
            .unwrap();
        assert_eq!(changed[0]["id"], *id);
        assert_eq!(changed[0]["read"].is_string(), read);
        for page in [&mut at_desk, &mut on_phone] {
            let signal = page.next().await;
            assert_eq!(signal, json!({"action": action, "notification_ids": [id]}));
        }
        assert_eq!(phone.status().await.unwrap(), counts);
    }
    let saved = phone
        .update(json!({"ids": [id], "saved": true}))
        .await
        .unwrap();
    assert!(saved[0]["saved"].is_string(), "{saved}");

    // A page that left hears nothing; whoever was left out heard nothing either.
    desk.unsubscribe(at_desk).await;
    service
        .send(to_person(1, json!({"title": "Late"})))
        .await
        .unwrap();
    new_id(&on_phone.next().await);
    service
        .send(to_person(2, json!({"title": "To Bo"})))
        .await
        .unwrap();
    let to_bo = bo.one(&new_id(&of_bo.next().await)).await.unwrap();
    assert_eq!(to_bo["payload"]["title"], "To Bo");
}

async fn what_the_settings_card_saves_is_what_is_delivered(app: App) {
    let clients = Clients::start(&app.api.url(""));
    let service = clients.service(CI_TOKEN);
    let ann = clients.page(&app.api.user_token(&person(1)));
    let mut heard = ann.listen().await;
    let about = |title: &str, topic: &str| to_person(1, json!({"title": title, "topic": topic}));
    for topic in ["builds", "reviews"] {
        service.send(about("Seen", topic)).await.unwrap();
        new_id(&heard.next().await);
    }

    // The card posts back what it got, with the switch turned.
    let mut card = ann.settings().await.unwrap();
    let web = &mut card["channels"][0];
    assert_eq!(web["id"], "Web");
    assert_eq!(
        web["origins"],
        json!([{"id": CI, "enabled": true, "topics": [
            {"id": "builds", "enabled": true}, {"id": "reviews", "enabled": true}]}])
    );
    web["origins"][0]["topics"][0]["enabled"] = json!(false);
    let saved = ann.save_settings(card.clone()).await.unwrap();
    assert_eq!(saved["channels"][0], card["channels"][0]);
    assert_eq!(ann.settings().await.unwrap(), saved);

    service.send(about("Muted", "builds")).await.unwrap();
    service.send(about("Wanted", "reviews")).await.unwrap();
    let wanted = ann.one(&new_id(&heard.next().await)).await.unwrap();
    assert_eq!(wanted["payload"]["title"], "Wanted");

    card["channels"][0]["id"] = json!("Pigeon");
    let refused = ann.save_settings(card).await.unwrap_err();
    assert_eq!(refused["statusCode"], StatusCode::BAD_REQUEST.as_u16());
}

async fn what_is_refused_is_an_error_that_the_page_can_show(app: App) {
    let clients = Clients::start(&app.api.url(""));
    let ann = clients.page(&app.api.user_token(&person(1)));
    let missing = ann.one("00000000-0000-4000-9000-000000000000").await;
    let missing = missing.unwrap_err();
    assert_eq!(missing["statusCode"], StatusCode::NOT_FOUND.as_u16());

    let stranger = clients.page("nobody-knows-this-token");
    let refused = stranger.status().await.unwrap_err();
    assert_eq!(refused["statusCode"], StatusCode::UNAUTHORIZED.as_u16());

    let service = clients.service(CI_TOKEN);
    let untitled = service.send(to_person(1, json!({"title": ""}))).await;
    let message = untitled.unwrap_err()["message"].to_string();
    assert!(
        message.contains("Request failed with status 400"),
        "{message}"
    );
    let as_person = clients.service(&app.api.user_token(&person(1)));
    let refused = as_person.send(to_person(2, json!({"title": "Hi"}))).await;
    let message = refused.unwrap_err()["message"].to_string();
    assert!(
        message.contains("Request failed with status 403"),
        "{message}"
    );
    assert_eq!(ann.status().await.unwrap(), json!({"unread": 0, "read": 0}));
}

async fn pages_come_back_after_a_drain(mut app: App) {
    let clients = Clients::start(&app.api.url(""));
    let service = clients.service(CI_TOKEN);
    let ann = clients.page(&app.api.user_token(&person(1)));
    let mut heard = ann.listen().await;
    assert!(app.processes[0].terminate(), "the drain failed");
    app.processes[0].start_again();
    app.until_ready().await;

    // Of its own: nobody subscribes again.
    ann.until_heard(&mut heard).await;
    service
        .send(to_person(1, json!({"title": "After"})))
        .await
        .unwrap();
    let after = ann.one(&new_id(&heard.next().await)).await.unwrap();
    assert_eq!(after["payload"]["title"], "After");
}

async fn a_backstage_moves_over_by_configuration_alone(mut app: App) {
    let backstage = Backstage::beside(&mut app).await;
    let clients = Clients::start(&app.api.url(""));
    let guest = clients.page(&backstage.guest().await.unwrap());
    let mut heard = guest.listen().await;

    // Signed by the plugin's own key; the group is looked up in its catalog, by ours.
    let group = json!({"recipients": {"type": "entity", "entityRef": VISITORS},
        "payload": {"title": "From a plugin", "topic": "proof"}});
    backstage.send(group).await.unwrap();
    let id = new_id(&heard.next().await);
    let list = guest.list(json!({"topic": "proof"})).await.unwrap();
    assert_eq!(list["totalCount"], 1, "{list}");
    let one = &list["notifications"][0];
    assert_eq!(one["id"], *id);
    assert_eq!(one["user"], GUEST);
    assert_eq!(one["origin"], "plugin:proof");
    let mail = app.smtp.wait_for(1).await.remove(0);
    assert_eq!(mail.to, ["guest@example.com"]);

    // Another plugin's signal, to the group, over the events bus: published until Tidings, which
    // nobody has told when to subscribe, has done so.
    let mut weather = guest.subscribe("weather").await;
    let publish = async {
        let mut again = tokio::time::interval(Duration::from_millis(500));
        loop {
            again.tick().await;
            let signal = json!({"recipients": {"type": "user", "entityRef": VISITORS},
                "channel": "weather", "message": {"sky": "blue"}});
            backstage.publish(signal).await.unwrap();
        }
    };
    tokio::select! {
        message = weather.any() => assert_eq!(message, json!({"sky": "blue"})),
        () = publish => {}
    }
}
