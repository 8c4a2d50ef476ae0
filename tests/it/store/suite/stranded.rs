//! Deliveries that no message carries.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tidings::chunk::RefOutcome;
use tidings::chunk::RefReport;
use tidings::delivery::Attempt;
use tidings::delivery::DELIVERIES_PER_MESSAGE_MAX;
use tidings::delivery::DeliveryBatch;
use tidings::delivery::DeliveryState;
use tidings::notification::Payload;
use tidings::store::ChunkRows;
use tidings::store::Claim;
use tidings::store::Row;
use tidings::store::Store;
use tidings::time::Timestamp;
use uuid::Uuid;

use super::LONG;
use super::claim;
use super::deliveries::ended;
use super::inbox;
use crate::support::store::CHANNEL;
use crate::support::store::delivery;
use crate::support::store::header;
use crate::support::store::persist;
use crate::support::store::row;
use crate::support::store::scoped;
use crate::support::store::send;
use crate::support::store::titled;
use crate::support::store::to_everybody;
use crate::support::store::to_people;

/// All that is due now: whatever became due before a moment that is still to come.
async fn all(store: &Arc<dyn Store>) -> Vec<DeliveryBatch> {
    let soon = Timestamp::now().plus(LONG);
    store.stranded(CHANNEL, soon, 1_000).await.unwrap()
}

fn ids(batches: &[DeliveryBatch]) -> BTreeSet<Uuid> {
    let items = batches.iter().flat_map(|batch| &batch.items);
    items.map(|item| item.id).collect()
}

pub(crate) async fn a_stranded_delivery_comes_back_as_it_was_planned(store: Arc<dyn Store>) {
    let mut payload = scoped("for all", "s");
    payload.extra.insert("later".to_owned(), 1.into());
    payload.description = Some("d".to_owned());
    let header = header(0);
    let mut chunk = ChunkRows {
        no: 3,
        of: 7,
        ..to_people(&header, &payload, &["user:a", "user:b", "user:c"])
    };
    let own = Payload {
        title: "for b".to_owned(),
        description: None,
        ..payload.clone()
    };
    // One is patched and has no row, one is plain, one is patched and has a row.
    chunk.rows[1].payload = Some(own.clone());
    chunk.rows[1].stored = false;
    let third = Payload {
        link: Some("/c".to_owned()),
        ..payload.clone()
    };
    chunk.rows[2].payload = Some(third.clone());
    persist(&store, &chunk).await;
    let created = inbox(&store, "user:a").await[0].created;
    // A later send of the scope must not change what this one says.
    let (newer, text) = (crate::support::store::header(9), scoped("later", "s"));
    let later = send(&store, &newer, &text, &["user:a"]).await;

    let mut batches = all(&store).await;
    batches.retain(|batch| batch.header.id == header.id);
    assert_eq!(batches.len(), 1);
    let batch = batches.remove(0);
    assert_eq!(batch.header, header);
    assert_eq!(batch.channel, CHANNEL);
    assert_eq!(batch.payload, payload);
    let mut items = batch.items;
    items.sort_by(|a, b| a.user.cmp(&b.user));
    let contents = [payload.clone(), own, third];
    for ((item, row), content) in items.iter().zip(&chunk.rows).zip(contents) {
        assert_eq!(item.id, row.deliveries[0].id);
        assert_eq!(item.notification, row.id);
        assert_eq!(item.user, row.user);
        assert_eq!(item.target, "");
        let seen = match &item.patch {
            Some(patch) => payload.patched(patch).unwrap(),
            None => payload.clone(),
        };
        assert_eq!(seen, content);
    }
    assert_eq!(items[0].created, created);
    assert!(header.accepted_at < items[1].created);
    assert_eq!(later.len(), 1);
}

pub(crate) async fn a_stranded_delivery_comes_back_once(store: Arc<dyn Store>) {
    let pending = send(&store, &header(0), &titled("t"), &["user:a"]).await;
    let everybody = persist(&store, &to_everybody(&header(1), &titled("t"))).await;
    let soon = Timestamp::now().plus(LONG);
    let found = store.stranded(CHANNEL, soon, 1_000).await.unwrap();
    let expected: BTreeSet<_> = pending.iter().chain(&everybody.pending).copied().collect();
    assert_eq!(ids(&found), expected);
    let again = store.stranded(CHANNEL, soon, 1_000).await.unwrap();
    assert_eq!(again, []);
    // It can still be claimed: that it was put back is no try.
    let claims = store.claim(&pending, Uuid::new_v4(), LONG).await.unwrap();
    assert!(matches!(claims[..], [Claim::Mine { attempt: 1, .. }]));
}

pub(crate) async fn a_stranded_delivery_of_a_submission_has_its_recipients(store: Arc<dyn Store>) {
    let (header, payload) = (header(0), titled("t"));
    let once = Row {
        user: None,
        stored: false,
        ..row(&header, &payload, Some(""))
    };
    let mut chunk = ChunkRows {
        refs: ["group:default/a", "user:default/b"].map(expanded).to_vec(),
        ..to_people(&header, &payload, &[])
    };
    chunk.rows.push(once.clone());
    persist(&store, &chunk).await;
    let found = all(&store).await;
    assert_eq!(ids(&found), BTreeSet::from([once.deliveries[0].id]));
    assert_eq!(found[0].recipients, ["group:default/a", "user:default/b"]);
    assert_eq!(found[0].items[0].user, None);
}

fn expanded(reference: &str) -> RefReport {
    RefReport {
        entity: reference.to_owned(),
        outcome: RefOutcome::Expanded,
        people: 1,
    }
}

pub(crate) async fn what_is_held_waits_or_is_done_is_not_stranded(store: Arc<dyn Store>) {
    let users: Vec<String> = (0..6).map(|n| format!("user:{n}")).collect();
    let users: Vec<&str> = users.iter().map(String::as_str).collect();
    let header = header(0);
    let mut chunk = to_people(&header, &titled("t"), &users);
    let elsewhere = delivery(chunk.rows[0].id, header.id, "slack", "");
    chunk.rows[0].deliveries = vec![elsewhere.clone()];
    let pending = persist(&store, &chunk).await.pending;
    let pending: Vec<Uuid> = pending
        .into_iter()
        .filter(|id| *id != elsewhere.id)
        .collect();
    let [held, waits, done, left, back] = pending[..] else {
        panic!("{pending:?}");
    };
    claim(&store, held, LONG).await;
    let token = claim(&store, waits, LONG).await;
    let later = Attempt {
        next_at: Some(Timestamp::now().plus(LONG)),
        ..ended(waits, DeliveryState::Pending)
    };
    store.record(token, &[later], &[]).await.unwrap();
    let token = claim(&store, done, LONG).await;
    let sent = [ended(done, DeliveryState::Sent)];
    store.record(token, &sent, &[]).await.unwrap();
    claim(&store, left, Duration::ZERO).await;
    let token = claim(&store, back, LONG).await;
    store.release(token, &[back]).await.unwrap();

    assert_eq!(ids(&all(&store).await), BTreeSet::from([left, back]));
    let before = store
        .stranded("slack", header.accepted_at, 10)
        .await
        .unwrap();
    assert_eq!(before, []);
}

pub(crate) async fn many_stranded_deliveries_come_in_messages_of_fifty(store: Arc<dyn Store>) {
    let users: Vec<String> = (0..120).map(|n| format!("user:{n}")).collect();
    let users: Vec<&str> = users.iter().map(String::as_str).collect();
    let pending = send(&store, &header(0), &titled("t"), &users).await;
    let soon = Timestamp::now().plus(LONG);
    let first = store.stranded(CHANNEL, soon, 70).await.unwrap();
    let second = store.stranded(CHANNEL, soon, 70).await.unwrap();
    for (batches, count) in [(&first, 70), (&second, 50)] {
        assert_eq!(ids(batches).len(), count);
        let fits = |batch: &DeliveryBatch| batch.items.len() <= DELIVERIES_PER_MESSAGE_MAX;
        assert!(batches.iter().all(fits));
    }
    let both: BTreeSet<_> = ids(&first).union(&ids(&second)).copied().collect();
    assert_eq!(both, pending.into_iter().collect());
}
