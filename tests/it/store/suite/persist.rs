//! Persisting: identity, order, folding of scopes, and what is answered when it comes again.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::json;
use tidings::chunk::CHUNK_PEOPLE_MAX;
use tidings::delivery::DeliveryState;
use tidings::failure::Reason;
use tidings::notification::Payload;
use tidings::notification::Severity;
use tidings::notification::notification_id;
use tidings::store::Change;
use tidings::store::ChunkRows;
use tidings::store::Find;
use tidings::store::Mark;
use tidings::store::Row;
use tidings::store::Store;
use tidings::submission::Header;
use tidings::time::Timestamp;

use super::LONG;
use super::claim;
use super::counts;
use super::inbox;
use crate::support::store::CHANNEL;
use crate::support::store::ORIGIN;
use crate::support::store::delivery;
use crate::support::store::header;
use crate::support::store::keyed;
use crate::support::store::persist;
use crate::support::store::scoped;
use crate::support::store::send;
use crate::support::store::titled;
use crate::support::store::to_everybody;
use crate::support::store::to_people;

fn full() -> Payload {
    let payload = json!({
        "title": "Grüße", "description": "a\nb", "link": "/x?y#z", "severity": "high",
        "topic": "t", "scope": "s", "icon": "i", "metadata": {"a": [1, {"b": null}]},
        "later": "carried, not stored",
    });
    serde_json::from_value(payload).unwrap()
}

fn stored_form(payload: &Payload) -> Payload {
    Payload {
        severity: Some(payload.severity()),
        extra: serde_json::Map::new(),
        ..payload.clone()
    }
}

pub(crate) async fn a_row_is_as_its_payload_says(store: Arc<dyn Store>) {
    let header = header(0);
    let mut chunk = to_people(&header, &full(), &["user:a", "user:b"]);
    let own = Payload {
        title: "for b alone".to_owned(),
        description: None,
        metadata: None,
        ..full()
    };
    chunk.rows[1].payload = Some(own.clone());
    let before = store.get("user:a", chunk.rows[0].id).await.unwrap();
    assert_eq!(before, None);
    let stored = persist(&store, &chunk).await;

    assert!(stored.first && !stored.other_body);
    assert_eq!(stored.rows.len(), 2);
    let expected = [stored_form(&full()), stored_form(&own)];
    for ((row, user), payload) in stored.rows.iter().zip(["user:a", "user:b"]).zip(expected) {
        let notification = &row.notification;
        assert_eq!(row.change, Change::New);
        assert_eq!(notification.payload, payload);
        assert_eq!(notification.user.as_deref(), Some(user));
        assert_eq!(notification.origin, ORIGIN);
        assert_eq!(notification.submission, header.id);
        assert!(header.accepted_at < notification.created);
        let marks = (notification.read, notification.saved, notification.updated);
        assert_eq!(marks, (None, None, None));
        let read_back = store.get(user, notification.id).await.unwrap();
        assert_eq!(read_back.as_ref(), Some(notification));
    }
    let planned: BTreeSet<_> = chunk.rows.iter().map(|row| row.deliveries[0].id).collect();
    assert_eq!(stored.pending.into_iter().collect::<BTreeSet<_>>(), planned);
}

pub(crate) async fn a_chunk_persisted_twice_changes_nothing(store: Arc<dyn Store>) {
    let chunk = to_people(&header(0), &titled("once"), &["user:a", "user:b"]);
    let everybody = to_everybody(&header(1), &titled("everybody"));
    let both = [chunk, everybody];
    let first = store.persist(&both).await.unwrap();
    let second = store.persist(&both).await.unwrap();
    // The same chunk may also come twice in one call.
    let twice = [both[0].clone(), both[0].clone()];
    let third = store.persist(&twice).await.unwrap();

    for (first, again) in first.iter().zip(&second).chain([(&first[0], &third[1])]) {
        assert!(first.first && !again.first && !again.other_body);
        assert_eq!(first.rows.len(), again.rows.len());
        for (one, same) in first.rows.iter().zip(&again.rows) {
            assert_eq!(same.change, Change::Same);
            assert_eq!(same.notification, one.notification);
        }
        let pending = |stored: &[_]| stored.iter().copied().collect::<BTreeSet<uuid::Uuid>>();
        assert_eq!(pending(&first.pending), pending(&again.pending));
    }
    assert_eq!(inbox(&store, "user:a").await.len(), 2);
    assert_eq!(counts(&store, "user:a").await, (2, 0));
    assert_eq!(store.recount(false).await.unwrap(), 0);
}

pub(crate) async fn a_later_send_of_a_scope_updates_by_the_rules(store: Arc<dyn Store>) {
    let first = to_people(&header(0), &full(), &["user:a"]);
    let made = persist(&store, &first).await.rows.remove(0).notification;

    let sparse = scoped("second", "s");
    let later = header(1);
    let second = to_people(&later, &sparse, &["user:a"]);
    let stored = persist(&store, &second).await;
    let updated = stored.rows[0].notification.clone();
    assert_eq!(stored.rows[0].change, Change::Updated);
    assert_eq!(updated.id, made.id);
    assert_eq!(updated.created, made.created);
    assert!(updated.updated.is_some_and(|at| made.created <= at));
    assert_eq!(updated.submission, later.id);
    let kept = stored_form(&full());
    let expected = Payload {
        title: "second".to_owned(),
        severity: Some(Severity::Normal),
        metadata: None,
        ..kept
    };
    assert_eq!(updated.payload, expected);
    assert_eq!(stored.pending, [second.rows[0].deliveries[0].id]);

    let other = json!({
        "title": "third", "description": "d", "link": "/l", "severity": "low", "topic": "u",
        "scope": "s", "icon": "j", "metadata": {"c": 1},
    });
    let other: Payload = serde_json::from_value(other).unwrap();
    send(&store, &header(2), &other, &["user:a"]).await;
    let third = inbox(&store, "user:a").await.remove(0);
    let icon = Some("i".to_owned());
    assert_eq!(third.payload, Payload { icon, ..other });
    assert_eq!(counts(&store, "user:a").await, (1, 0));
}

pub(crate) async fn an_earlier_send_of_a_scope_is_superseded(store: Arc<dyn Store>) {
    let early = to_people(&header(1), &scoped("early", "s"), &["user:a", "user:b"]);
    let late = to_people(&header(2), &scoped("late", "s"), &["user:a"]);
    persist(&store, &late).await;
    let stored = persist(&store, &early).await;

    assert!(stored.first);
    let changes: Vec<_> = stored.rows.iter().map(|row| row.change).collect();
    assert_eq!(changes, [Change::Superseded, Change::New]);
    assert_eq!(stored.rows[0].notification.payload.title, "late");
    assert_eq!(stored.pending, [early.rows[1].deliveries[0].id]);
    assert_eq!(inbox(&store, "user:a").await[0].payload.title, "late");
    let find = Find::Id(early.header.id);
    let timeline = store.timeline(&find, None, 10).await.unwrap().unwrap();
    let line = &timeline.chunks[0];
    assert_eq!((line.stored, line.superseded), (1, 1));
    assert_eq!(timeline.deliveries.len(), 1);

    let again = persist(&store, &early).await;
    let changes: Vec<_> = again.rows.iter().map(|row| row.change).collect();
    assert_eq!(changes, [Change::Superseded, Change::Same]);
    assert_eq!(again.pending, stored.pending);
}

pub(crate) async fn sends_of_one_moment_are_ordered_by_their_ids(store: Arc<dyn Store>) {
    let (a, b) = (header(5), header(5));
    let (small, great) = if a.id < b.id { (a, b) } else { (b, a) };
    let of = |header: &Header, title| to_people(header, &scoped(title, "s"), &["user:a"]);
    persist(&store, &of(&great, "great")).await;
    let stored = persist(&store, &of(&small, "small")).await;
    assert_eq!(stored.rows[0].change, Change::Superseded);
    assert_eq!(inbox(&store, "user:a").await[0].payload.title, "great");
}

pub(crate) async fn a_scope_belongs_to_one_person_and_one_origin(store: Arc<dyn Store>) {
    let ours = header(0);
    let theirs = Header {
        origin: "external:other".to_owned(),
        ..header(1)
    };
    send(&store, &ours, &scoped("ours", "s"), &["user:a", "User:A"]).await;
    send(&store, &theirs, &scoped("theirs", "s"), &["user:a"]).await;
    persist(&store, &to_everybody(&header(2), &scoped("all", "s"))).await;
    send(&store, &header(3), &scoped("none", ""), &["user:a"]).await;
    send(&store, &header(4), &scoped("none", ""), &["user:a"]).await;
    assert_eq!(inbox(&store, "user:a").await.len(), 5);
    assert_eq!(inbox(&store, "User:A").await.len(), 2);
}

pub(crate) async fn an_update_is_unread_again_and_stays_saved(store: Arc<dyn Store>) {
    send(&store, &header(0), &scoped("1", "s"), &["user:a"]).await;
    let id = inbox(&store, "user:a").await[0].id;
    let mark = Mark {
        read: Some(true),
        saved: Some(true),
    };
    let marked = store.mark("user:a", &[id], mark).await.unwrap().remove(0);
    assert_eq!(counts(&store, "user:a").await, (0, 1));
    send(&store, &header(1), &scoped("2", "s"), &["user:a"]).await;
    let updated = inbox(&store, "user:a").await.remove(0);
    assert_eq!((updated.read, updated.saved), (None, marked.saved));
    assert_eq!(counts(&store, "user:a").await, (1, 0));
}

pub(crate) async fn an_updated_broadcast_stays_read(store: Arc<dyn Store>) {
    persist(&store, &to_everybody(&header(0), &scoped("1", "s"))).await;
    assert_eq!(store.mark_all_read("user:a").await.unwrap(), 1);
    let update = to_everybody(&header(1), &scoped("2", "s"));
    let stored = persist(&store, &update).await;
    assert_eq!(stored.rows[0].change, Change::Updated);
    // What is announced to everybody bears nobody's marks.
    assert_eq!(stored.rows[0].notification.read, None);
    let seen = inbox(&store, "user:a").await;
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].payload.title, "2");
    assert!(seen[0].read.is_some() && seen[0].updated.is_some());
    assert_eq!(counts(&store, "user:a").await, (0, 1));
    assert_eq!(counts(&store, "user:b").await, (1, 0));
}

pub(crate) async fn another_body_under_a_key_is_ignored_and_counted_once(store: Arc<dyn Store>) {
    let users = ["user:a", "user:b"];
    let first = to_people(&keyed("k", "one"), &titled("one"), &users);
    let made = persist(&store, &first).await;
    let other = to_people(&keyed("k", "two"), &titled("two"), &["user:c"]);
    for _ in 0..2 {
        let stored = persist(&store, &other).await;
        assert!(!stored.first && stored.other_body);
        assert!(stored.pending.is_empty());
        let ids = |rows: &[tidings::store::RowStored]| -> BTreeSet<_> {
            rows.iter().map(|row| row.notification.id).collect()
        };
        assert_eq!(ids(&stored.rows), ids(&made.rows));
        assert!(stored.rows.iter().all(|row| row.change == Change::Same));
    }
    persist(&store, &to_people(&keyed("k", "three"), &titled("3"), &[])).await;
    let find = Find::Id(first.header.id);
    let timeline = store.timeline(&find, None, 10).await.unwrap().unwrap();
    assert_eq!(timeline.ignored, 2);
    assert_eq!(timeline.header, first.header);
    assert!(inbox(&store, "user:c").await.is_empty());
    // Both may also come in one call: the first one stands.
    let call = [("one", "x"), ("two", "y")]
        .map(|(digest, title)| to_people(&keyed("l", digest), &titled(title), &["user:d"]));
    let stored = store.persist(&call).await.unwrap();
    assert!(stored[0].first && stored[1].other_body);
    assert_eq!(stored[1].rows[0].notification.payload.title, "x");
}

pub(crate) async fn another_body_is_noticed_whatever_the_chunk(store: Arc<dyn Store>) {
    let part = |digest, no, user| ChunkRows {
        no,
        of: 2,
        ..to_people(&keyed("k", digest), &titled(digest), &[user])
    };
    persist(&store, &part("one", 1, "user:b")).await;
    let stored = persist(&store, &part("two", 0, "user:x")).await;
    assert!(stored.other_body);
    let stored = persist(&store, &part("one", 0, "user:a")).await;
    assert!(stored.first && !stored.other_body);
    assert!(inbox(&store, "user:x").await.is_empty());
    let find = Find::Id(keyed("k", "one").id);
    let timeline = store.timeline(&find, None, 10).await.unwrap().unwrap();
    assert_eq!((timeline.ignored, timeline.chunks.len()), (1, 2));
}

pub(crate) async fn a_muted_inbox_keeps_its_deliveries(store: Arc<dyn Store>) {
    let mut chunk = to_people(&header(0), &titled("t"), &["user:a", "user:b"]);
    chunk.rows[0].stored = false;
    chunk.muted = 1;
    let stored = persist(&store, &chunk).await;
    assert_eq!(stored.rows.len(), 1);
    assert_eq!(stored.pending.len(), 2);
    assert!(inbox(&store, "user:a").await.is_empty());
    assert_eq!(counts(&store, "user:a").await, (0, 0));
    let again = persist(&store, &chunk).await;
    assert_eq!((again.rows.len(), again.pending.len()), (1, 2));
}

pub(crate) async fn a_delivery_once_per_submission_needs_no_row(store: Arc<dyn Store>) {
    let header = header(0);
    let mut chunk = to_people(&header, &titled("t"), &["user:a"]);
    let id = notification_id(ORIGIN, None, header.id, Some(""));
    chunk.rows.push(Row {
        id,
        user: None,
        payload: None,
        stored: false,
        deliveries: vec![delivery(id, header.id, "webhook", "")],
    });
    let stored = persist(&store, &chunk).await;
    assert_eq!((stored.rows.len(), stored.pending.len()), (1, 2));
    assert_eq!(inbox(&store, "user:b").await, []);
}

pub(crate) async fn a_delivery_that_is_switched_off_is_kept_as_skipped(store: Arc<dyn Store>) {
    let mut chunk = to_people(&header(0), &titled("t"), &["user:a"]);
    let off = &mut chunk.rows[0].deliveries[0];
    off.state = DeliveryState::Skipped;
    off.reason = Some(Reason::Muted);
    off.detail = Some("switched off".to_owned());
    let stored = persist(&store, &chunk).await;
    assert!(stored.pending.is_empty());
    let find = Find::Id(chunk.header.id);
    let timeline = store.timeline(&find, None, 10).await.unwrap().unwrap();
    let line = &timeline.deliveries[0];
    assert_eq!(line.state, DeliveryState::Skipped);
    assert_eq!(line.reason, Some(Reason::Muted));
    assert_eq!(line.detail.as_deref(), Some("switched off"));
    assert_eq!((line.attempts, line.next_at), (0, None));
}

pub(crate) async fn a_repeated_chunk_tells_what_is_still_pending(store: Arc<dyn Store>) {
    let chunk = to_people(&header(0), &titled("t"), &["user:a", "user:b"]);
    let pending = persist(&store, &chunk).await.pending;
    claim(&store, pending[0], LONG).await;
    let again = persist(&store, &chunk).await;
    assert_eq!(again.pending, [pending[1]]);
}

pub(crate) async fn two_thousand_people_are_counted_exactly(store: Arc<dyn Store>) {
    let users: Vec<String> = (0..2_000)
        .map(|n| format!("user:default/u{n:04}"))
        .collect();
    let header = header(0);
    let users: Vec<&str> = users.iter().map(String::as_str).collect();
    let parts = users.chunks(CHUNK_PEOPLE_MAX);
    let of = u32::try_from(parts.len()).unwrap();
    let chunks: Vec<ChunkRows> = parts
        .zip(0..)
        .map(|(users, no)| ChunkRows {
            no,
            of,
            ..to_people(&header, &titled("t"), users)
        })
        .collect();
    // Workers share them, and one of them does some again.
    let shares = [&chunks[2..], &chunks[..2], &chunks[1..3]];
    let stored = shares.map(|share| {
        let (store, share) = (Arc::clone(&store), share.to_vec());
        tokio::spawn(async move { store.persist(&share).await.unwrap() })
    });
    let mut first = 0;
    for stored in stored {
        let stored = stored.await.unwrap();
        first += stored.iter().filter(|one| one.first).count();
    }
    assert_eq!(first, chunks.len());
    let find = Find::Id(header.id);
    let timeline = store.timeline(&find, None, 5).await.unwrap().unwrap();
    assert_eq!(timeline.of, of);
    let stored: u32 = timeline.chunks.iter().map(|line| line.stored).sum();
    assert_eq!(stored, 2_000);
    assert_eq!(timeline.tally.len(), 1);
    assert_eq!(timeline.tally[0].count, 2_000);
    assert_eq!(timeline.tally[0].channel, CHANNEL);
    assert_eq!(store.summary().await.unwrap().notifications, 2_000);
    assert_eq!(counts(&store, "user:default/u1234").await, (1, 0));
    assert_eq!(store.recount(false).await.unwrap(), 0);
}

pub(crate) async fn sends_at_once_leave_the_latest_and_right_counts(store: Arc<dyn Store>) {
    let users: Vec<String> = (0..20).map(|n| format!("user:{n}")).collect();
    let tasks: Vec<_> = (0..16)
        .map(|n| {
            let (store, users) = (Arc::clone(&store), users.clone());
            tokio::spawn(async move {
                let users: Vec<&str> = users.iter().map(String::as_str).collect();
                let payload = scoped(&n.to_string(), "s");
                send(&store, &header(n), &payload, &users).await;
                store.mark_all_read(users[0]).await.unwrap();
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    for user in &users {
        let rows = inbox(&store, user).await;
        assert_eq!(rows.len(), 1);
        assert_eq!(rows[0].payload.title, "15");
        assert!(rows[0].created <= Timestamp::now());
    }
    assert_eq!(store.recount(false).await.unwrap(), 0);
}
