//! What people chose, who may call, and what operators see and clear away.

use std::sync::Arc;

use tidings::delivery::DeliveryState;
use tidings::failure::Reason;
use tidings::notification::Payload;
use tidings::queue::Headers;
use tidings::store::ChannelSummary;
use tidings::store::DeadFilter;
use tidings::store::DeadLetter;
use tidings::store::Find;
use tidings::store::PluginKey;
use tidings::store::Process;
use tidings::store::Retention;
use tidings::store::Setting;
use tidings::store::Store;
use tidings::store::Summary;
use tidings::store::Token;
use tidings::submission::Header;
use tidings::time::Timestamp;
use uuid::Uuid;

use super::LONG;
use super::counts;
use super::deliveries::ended;
use crate::support::store::CHANNEL;
use crate::support::store::at;
use crate::support::store::header;
use crate::support::store::keyed;
use crate::support::store::persist;
use crate::support::store::send;
use crate::support::store::titled;
use crate::support::store::to_everybody;
use crate::support::store::to_people;

fn letter(message: &str, died_at: Timestamp) -> DeadLetter {
    DeadLetter {
        id: 0,
        message: message.to_owned(),
        stage: "chunks".to_owned(),
        reason: Reason::Panic,
        detail: String::new(),
        tries: 1,
        died_at,
        submission: None,
        origin: None,
        deliveries: Vec::new(),
        headers: Headers::new(),
        body: Vec::new(),
        replayed_at: None,
    }
}

pub(crate) async fn origins_and_topics_are_those_of_ones_own(store: Arc<dyn Store>) {
    assert!(store.origins("user:a").await.unwrap().is_empty());
    let payload = |topic: Option<&str>| Payload {
        topic: topic.map(str::to_owned),
        ..titled("t")
    };
    let from = |origin: &str| Header {
        origin: origin.to_owned(),
        ..header(0)
    };
    for (origin, topic) in [
        ("ci", Some("deploy")),
        ("ci", None),
        ("ci", Some("")),
        ("ci", Some("build")),
        ("ci", Some("build")),
        ("cd", None),
        ("\u{e9}", Some("B")),
        ("\u{e9}", Some("b")),
    ] {
        send(&store, &from(origin), &payload(topic), &["user:a"]).await;
    }
    send(&store, &from("other"), &payload(Some("x")), &["user:b"]).await;
    let all = to_everybody(&from("news"), &payload(Some("party")));
    persist(&store, &all).await;
    let known = store.origins("user:a").await.unwrap();
    let words: Vec<(&str, Vec<&str>)> = known
        .iter()
        .map(|(origin, topics)| (origin.as_str(), topics.iter().map(String::as_str).collect()))
        .collect();
    assert_eq!(
        words,
        [
            ("cd", vec![]),
            ("ci", vec!["", "build", "deploy"]),
            ("\u{e9}", vec!["B", "b"]),
        ]
    );
}

pub(crate) async fn settings_are_replaced_as_a_whole(store: Arc<dyn Store>) {
    let setting = |user: &str, channel: &str, topic: Option<&str>, enabled| Setting {
        user: user.to_owned(),
        channel: channel.to_owned(),
        origin: "plugin:x".to_owned(),
        topic: topic.map(str::to_owned),
        enabled,
    };
    let mut first = vec![
        setting("user:a", "Web", None, true),
        setting("user:a", "Web", Some(""), true),
        setting("user:a", "Web", Some("t"), false),
        setting("user:a", "Email", None, false),
    ];
    store.save_settings("user:a", &first).await.unwrap();
    let other = vec![setting("user:b", "Web", None, false)];
    store.save_settings("user:b", &other).await.unwrap();
    let of = async |users: &[&str]| {
        let users: Vec<String> = users.iter().map(|user| (*user).to_owned()).collect();
        let mut found = store.settings(&users).await.unwrap();
        found.sort();
        found
    };
    first.sort();
    assert_eq!(of(&["user:a"]).await, first);
    let both: Vec<Setting> = first.iter().chain(&other).cloned().collect();
    assert_eq!(of(&["user:a", "user:b", "user:c"]).await, both);
    assert_eq!(of(&[]).await, []);
    let second = vec![setting("user:a", "Web", Some("u"), true)];
    store.save_settings("user:a", &second).await.unwrap();
    assert_eq!(of(&["user:a"]).await, second);
    store.save_settings("user:a", &[]).await.unwrap();
    assert_eq!(of(&["user:a", "user:b"]).await, other);
}

pub(crate) async fn a_public_key_is_kept_until_it_ends(store: Arc<dyn Store>) {
    let key = |kid: &str, ends: Timestamp| PluginKey {
        kid: kid.to_owned(),
        jwk: serde_json::json!({"kty": "EC", "kid": kid}),
        ends,
    };
    let later = Timestamp::now().plus(LONG);
    let (first, second) = (key("a", later), key("b", later.plus(LONG)));
    store.add_plugin_key(&first).await.unwrap();
    store.add_plugin_key(&second).await.unwrap();
    store.add_plugin_key(&key("ended", at(1))).await.unwrap();
    let all = store.plugin_keys(10).await.unwrap();
    assert_eq!(all, [second.clone(), first.clone()]);
    let newest = store.plugin_keys(1).await.unwrap();
    assert_eq!(newest, std::slice::from_ref(&second));
    // Kept again, it holds longer.
    let longer = key("a", second.ends.plus(LONG));
    store.add_plugin_key(&longer).await.unwrap();
    assert_eq!(store.plugin_keys(10).await.unwrap(), [longer, second]);
}

pub(crate) async fn a_token_is_kept_used_and_revoked(store: Arc<dyn Store>) {
    let token = |hash: &str, subject: &str| Token {
        hash: hash.to_owned(),
        subject: subject.to_owned(),
        scopes: vec!["send".to_owned(), "operate".to_owned()],
        created: at(1),
        expires: Some(at(2)),
        last_used: None,
    };
    let lasting = Token {
        expires: None,
        ..token("abc2", "external:b")
    };
    store.add_token(&token("abc1", "external:a")).await.unwrap();
    store.add_token(&lasting).await.unwrap();
    // Kept again, it is still one.
    store.add_token(&lasting).await.unwrap();
    let mut all = store.tokens().await.unwrap();
    all.sort_by(|a, b| a.hash.cmp(&b.hash));
    assert_eq!(all, [token("abc1", "external:a"), lasting.clone()]);

    let hashes = ["abc2".to_owned(), "unknown".to_owned()];
    store.touch_tokens(&hashes).await.unwrap();
    let used = async || {
        let all = store.tokens().await.unwrap();
        let used = all.into_iter().find(|one| one.hash == "abc2");
        used.unwrap().last_used
    };
    let first = used().await;
    assert!(first.is_some_and(|used| at(1) < used));
    store.touch_tokens(&hashes).await.unwrap();
    assert_eq!(used().await, first, "kept to the minute");

    for (prefix, ended) in [
        ("", 0),
        ("x", 0),
        ("%", 0),
        ("abc1", 1),
        ("ab", 1),
        ("ab", 0),
    ] {
        let count = store.revoke_token(prefix).await.unwrap();
        assert_eq!(count, ended, "{prefix:?}");
    }
    assert_eq!(store.tokens().await.unwrap(), []);
}

pub(crate) async fn a_process_lives_from_heartbeat_to_farewell(store: Arc<dyn Store>) {
    let process = Process {
        id: Uuid::new_v4(),
        role: "sender email".to_owned(),
        host: "h".to_owned(),
        pid: u32::MAX,
        version: "0.1.0+abc".to_owned(),
        admin: Some("127.0.0.1:7119".to_owned()),
        trouble: vec!["queue: away".to_owned()],
        started_at: at(1),
        seen_at: at(1),
    };
    store.heartbeat(&process).await.unwrap();
    let seen = store.processes().await.unwrap();
    assert_eq!(seen.len(), 1);
    // Its own clock may be wrong: the store's counts.
    let seen_at = seen[0].seen_at;
    assert!(at(1) < seen_at);
    assert_eq!(
        seen,
        [Process {
            seen_at,
            ..process.clone()
        }]
    );
    let well = Process {
        trouble: Vec::new(),
        admin: None,
        ..process.clone()
    };
    store.heartbeat(&well).await.unwrap();
    let seen = store.processes().await.unwrap();
    assert_eq!(seen.len(), 1);
    assert!(seen[0].trouble.is_empty() && seen_at <= seen[0].seen_at);
    store.farewell(process.id).await.unwrap();
    store.farewell(process.id).await.unwrap();
    assert_eq!(store.processes().await.unwrap(), []);
}

pub(crate) async fn a_summary_counts_everything(store: Arc<dyn Store>) {
    assert_eq!(store.summary().await.unwrap(), Summary::default());
    let users = ["user:a", "user:b", "user:c", "user:d"];
    let ids = send(&store, &header(0), &titled("t"), &users).await;
    persist(&store, &to_everybody(&header(1), &titled("all"))).await;
    let token = Uuid::new_v4();
    store.claim(&ids[..3], token, LONG).await.unwrap();
    let tries = [
        ended(ids[0], DeliveryState::Sent),
        ended(ids[1], DeliveryState::Failed),
    ];
    store.record(token, &tries, &[]).await.unwrap();
    let letters = [letter("1", at(5)), letter("2", at(4))];
    store.file_dead(&letters).await.unwrap();
    let summary = store.summary().await.unwrap();
    assert_eq!(summary.notifications, 5);
    assert_eq!(summary.dead, [(Reason::Panic, 2)]);
    assert_eq!(summary.dead_oldest, Some(at(4)));
    let channel = &summary.channels[0];
    assert!(channel.last_sent.is_some() && channel.last_failed.is_some());
    let expected = ChannelSummary {
        channel: CHANNEL.to_owned(),
        sent: 1,
        pending: 3,
        failed: 1,
        last_sent: channel.last_sent,
        last_failed: channel.last_failed,
        last_failure: Some("it said 500".to_owned()),
    };
    assert_eq!(summary.channels, [expected]);
}

pub(crate) async fn what_is_too_old_goes_and_what_is_open_stays(store: Arc<dyn Store>) {
    let old = keyed("old", "d");
    let chunk = to_people(&old, &titled("old"), &["user:a", "user:b"]);
    let done = persist(&store, &chunk).await.pending;
    let token = Uuid::new_v4();
    store.claim(&done, token, LONG).await.unwrap();
    let tries = [done[0], done[1]].map(|id| ended(id, DeliveryState::Sent));
    store.record(token, &tries, &[]).await.unwrap();
    let (open, new) = (header(1), header(LONG.as_millis() as i64));
    send(&store, &open, &titled("open"), &["user:a"]).await;
    send(&store, &new, &titled("new"), &["user:a"]).await;
    store
        .file_dead(&[letter("old", at(0)), letter("new", at(9))])
        .await
        .unwrap();
    let process = Process {
        id: Uuid::new_v4(),
        role: "up".to_owned(),
        host: String::new(),
        pid: 1,
        version: String::new(),
        admin: None,
        trouble: Vec::new(),
        started_at: at(0),
        seen_at: at(0),
    };
    store.heartbeat(&process).await.unwrap();

    let retention = Retention {
        submissions: at(9),
        dead_letters: at(9),
        processes: at(9),
    };
    // Two deliveries and a chunk, and a letter: in batches of one as well as of many.
    assert_eq!(store.prune(&retention, 1).await.unwrap(), 4);
    assert_eq!(store.prune(&retention, 1_000).await.unwrap(), 0);
    let there = async |id| {
        let timeline = store.timeline(&Find::Id(id), None, 0).await.unwrap();
        timeline.is_some()
    };
    assert!(!there(old.id).await && there(open.id).await && there(new.id).await);
    let left = store.dead_letters(&DeadFilter::default()).await.unwrap();
    assert_eq!(left.len(), 1);
    assert_eq!(store.processes().await.unwrap().len(), 1);
    // Inboxes are not touched.
    assert_eq!(counts(&store, "user:a").await, (3, 0));
    let later = Retention {
        processes: Timestamp::now().plus(LONG),
        ..retention
    };
    assert_eq!(store.prune(&later, 0).await.unwrap(), 1);
}

pub(crate) async fn a_store_in_order_is_ready(store: Arc<dyn Store>) {
    store.ready().await.unwrap();
    assert_eq!(store.persist(&[]).await.unwrap(), []);
    assert_eq!(store.claim(&[], Uuid::new_v4(), LONG).await.unwrap(), []);
    assert_eq!(store.recount(true).await.unwrap(), 0);
}

pub(crate) async fn a_channel_is_paused_until_it_is_resumed(store: Arc<dyn Store>) {
    assert!(store.pauses().await.unwrap().is_empty());
    store.pause("email", "external:ops").await.unwrap();
    store.pause("email", "external:other").await.unwrap();
    store.pause("a", "external:ops").await.unwrap();
    let pauses = store.pauses().await.unwrap();
    let told: Vec<_> = pauses
        .iter()
        .map(|one| (one.channel.as_str(), one.by.as_str()))
        .collect();
    assert_eq!(told, [("a", "external:ops"), ("email", "external:ops")]);
    assert!(store.resume("email").await.unwrap());
    assert!(!store.resume("email").await.unwrap());
    assert_eq!(store.pauses().await.unwrap().len(), 1);
}
