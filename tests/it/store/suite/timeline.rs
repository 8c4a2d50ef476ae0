//! The story of a submission.

use std::sync::Arc;

use tidings::chunk::Note;
use tidings::chunk::RefOutcome;
use tidings::chunk::RefReport;
use tidings::delivery::DeliveryState;
use tidings::failure::Reason;
use tidings::notification::Payload;
use tidings::store::ChunkRows;
use tidings::store::Find;
use tidings::store::Store;
use tidings::store::Tally;
use tidings::submission::Header;
use tidings::time::Timestamp;
use uuid::Uuid;

use super::LONG;
use super::claim;
use super::deliveries::ended;
use crate::support::store::CHANNEL;
use crate::support::store::at;
use crate::support::store::delivery;
use crate::support::store::header;
use crate::support::store::keyed;
use crate::support::store::persist;
use crate::support::store::send;
use crate::support::store::titled;
use crate::support::store::to_everybody;
use crate::support::store::to_people;

pub(crate) async fn a_timeline_tells_the_whole_story(store: Arc<dyn Store>) {
    let header = keyed("k", "d");
    let find = Find::Id(header.id);
    assert_eq!(store.timeline(&find, None, 10).await.unwrap(), None);
    let mut payload = titled("as decorated");
    payload.extra.insert("later".to_owned(), true.into());
    let refs = vec![RefReport {
        entity: "group:default/team".to_owned(),
        outcome: RefOutcome::Expanded,
        people: 3,
    }];
    let notes = vec![Note {
        step: "rules".to_owned(),
        text: "set icon".to_owned(),
    }];
    let mut first = ChunkRows {
        of: 2,
        refs: refs.clone(),
        notes: notes.clone(),
        muted: 1,
        dropped: 2,
        started_at: at(7),
        ..to_people(&header, &payload, &["user:a", "user:b"])
    };
    let extra = delivery(first.rows[0].id, header.id, "slack", "#ops");
    first.rows[0].deliveries.push(extra.clone());
    let second = ChunkRows {
        no: 1,
        of: 2,
        ..to_people(&header, &payload, &["user:c"])
    };
    // In whatever order they come.
    persist(&store, &second).await;
    let partly = store.timeline(&find, None, 10).await.unwrap().unwrap();
    assert_eq!((partly.of, partly.chunks.len()), (2, 1));
    assert_eq!(partly.refs, []);
    persist(&store, &first).await;
    let token = claim(&store, second.rows[0].deliveries[0].id, LONG).await;
    let sent = [ended(second.rows[0].deliveries[0].id, DeliveryState::Sent)];
    store.record(token, &sent, &[]).await.unwrap();
    let token = claim(&store, extra.id, LONG).await;
    let again = [ended(extra.id, DeliveryState::Pending)];
    store.record(token, &again, &[]).await.unwrap();

    let timeline = store.timeline(&find, None, 10).await.unwrap().unwrap();
    assert_eq!(timeline.header, header);
    assert_eq!(timeline.payload, payload);
    assert!(!timeline.broadcast);
    assert_eq!(timeline.refs, refs);
    assert_eq!((timeline.ignored, timeline.dead.len()), (0, 0));
    let numbers: Vec<u32> = timeline.chunks.iter().map(|line| line.no).collect();
    assert_eq!(numbers, [0, 1]);
    let line = &timeline.chunks[0];
    assert_eq!(line.started_at, at(7));
    assert!(line.started_at < line.stored_at);
    assert_eq!((line.stored, line.superseded), (2, 0));
    assert_eq!((line.muted, line.dropped), (1, 2));
    assert_eq!(line.notes, notes);
    let tally = |channel: &str, state, reason, retrying, count| Tally {
        channel: channel.to_owned(),
        state,
        reason,
        retrying,
        count,
        at: at(0),
    };
    let flat = |mut tally: Tally| {
        assert!(at(0) < tally.at && tally.at <= Timestamp::now().plus(LONG));
        tally.at = at(0);
        tally
    };
    let tallies: Vec<Tally> = timeline.tally.into_iter().map(flat).collect();
    let expected = [
        tally(CHANNEL, DeliveryState::Pending, None, false, 2),
        tally(CHANNEL, DeliveryState::Sent, None, false, 1),
        tally(
            "slack",
            DeliveryState::Pending,
            Some(Reason::Server),
            true,
            1,
        ),
    ];
    assert_eq!(tallies, expected);
    assert_eq!(timeline.deliveries.len(), 4);

    let everybody = to_everybody(&crate::support::store::header(1), &titled("all"));
    persist(&store, &everybody).await;
    let find = Find::Id(everybody.header.id);
    let timeline = store.timeline(&find, None, 10).await.unwrap().unwrap();
    assert!(timeline.broadcast);
    assert_eq!(timeline.deliveries[0].user, None);
}

pub(crate) async fn a_submission_is_found_by_its_last_digits_and_its_key(store: Arc<dyn Store>) {
    let with_id = |id: u128, n| Header {
        id: Uuid::from_u128(id),
        ..header(n)
    };
    let (early, late) = (with_id(0x1_dead_beef, 1), with_id(0x2_dead_beef, 2));
    for header in [&late, &early] {
        send(&store, header, &titled("t"), &["user:a"]).await;
    }
    let key = keyed("k", "d");
    send(&store, &key, &titled("t"), &["user:a"]).await;
    let found = async |find: Find| {
        let timeline = store.timeline(&find, None, 0).await.unwrap();
        timeline.map(|timeline| timeline.header)
    };
    assert_eq!(found(Find::Id(early.id)).await, Some(early));
    assert_eq!(found(Find::Suffix("deadbeef".to_owned())).await, Some(late));
    assert_eq!(found(Find::Suffix("00000000".to_owned())).await, None);
    let by = |origin: &str, key: &str| Find::Key {
        origin: origin.to_owned(),
        key: key.to_owned(),
    };
    assert_eq!(found(by(&key.origin, "k")).await, Some(key));
    assert_eq!(found(by("external:other", "k")).await, None);
    assert_eq!(found(Find::Id(Uuid::from_u128(1))).await, None);
}

pub(crate) async fn a_timeline_lists_what_is_not_sent_first(store: Arc<dyn Store>) {
    let users: Vec<String> = (0..8).map(|n| format!("user:{n}")).collect();
    let users: Vec<&str> = users.iter().map(String::as_str).collect();
    let header = header(0);
    let pending = send(&store, &header, &titled("t"), &users).await;
    let token = Uuid::new_v4();
    store.claim(&pending[..6], token, LONG).await.unwrap();
    let sent: Vec<_> = pending[..5]
        .iter()
        .map(|id| ended(*id, DeliveryState::Sent))
        .chain([ended(pending[5], DeliveryState::Failed)])
        .collect();
    store.record(token, &sent, &[]).await.unwrap();
    let find = Find::Id(header.id);
    let timeline = store.timeline(&find, None, 4).await.unwrap().unwrap();
    let states: Vec<_> = timeline.deliveries.iter().map(|line| line.state).collect();
    assert_eq!(states.len(), 4);
    assert!(
        states[..3]
            .iter()
            .all(|state| *state != DeliveryState::Sent)
    );
    assert_eq!(states[3], DeliveryState::Sent);
    let one = store
        .timeline(&find, Some("user:3"), 10)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(one.deliveries.len(), 1);
    assert_eq!(one.deliveries[0].user.as_deref(), Some("user:3"));
    let count: u64 = one.tally.iter().map(|tally| tally.count).sum();
    assert_eq!(count, 8, "the tally is of all");
    let none = Payload::default();
    assert_ne!(one.payload, none);
}
