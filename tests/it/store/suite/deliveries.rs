//! Deliveries in the hands of senders: leases, doubt, tries.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tidings::delivery::Attempt;
use tidings::delivery::DeliveryState;
use tidings::failure::Reason;
use tidings::store::Claim;
use tidings::store::DeliveryLine;
use tidings::store::Earlier;
use tidings::store::Find;
use tidings::store::NewDelivery;
use tidings::store::Store;
use tidings::submission::Header;
use tidings::time::Timestamp;
use uuid::Uuid;

use super::LONG;
use super::claim;
use crate::support::store::CHANNEL;
use crate::support::store::delivery;
use crate::support::store::header;
use crate::support::store::persist;
use crate::support::store::scoped;
use crate::support::store::send;
use crate::support::store::titled;
use crate::support::store::to_everybody;

/// A try that ended so.
pub(super) fn ended(id: Uuid, state: DeliveryState) -> Attempt {
    let fault = !matches!(state, DeliveryState::Sent);
    Attempt {
        delivery: id,
        state,
        reason: fault.then_some(Reason::Server),
        detail: fault.then(|| "it said 500".to_owned()),
        provider_id: None,
        next_at: None,
        uncounted: false,
    }
}

/// The delivery of a new submission to one person.
async fn one(store: &Arc<dyn Store>) -> (Header, Uuid) {
    let header = header(0);
    let id = send(store, &header, &titled("t"), &["user:a"]).await[0];
    (header, id)
}

async fn line(store: &Arc<dyn Store>, header: &Header, id: Uuid) -> DeliveryLine {
    let find = Find::Id(header.id);
    let timeline = store.timeline(&find, None, 100).await.unwrap().unwrap();
    let line = timeline.deliveries.into_iter().find(|line| line.id == id);
    line.unwrap()
}

/// What somebody else would get now.
async fn ask(store: &Arc<dyn Store>, id: Uuid) -> Claim {
    let claims = store.claim(&[id], Uuid::new_v4(), LONG).await.unwrap();
    claims[0]
}

pub(crate) async fn a_claimed_delivery_is_nobody_elses(store: Arc<dyn Store>) {
    let (header, id) = one(&store).await;
    let token = Uuid::new_v4();
    let claims = store.claim(&[id], token, LONG).await.unwrap();
    let first = Claim::Mine {
        attempt: 1,
        doubtful: false,
    };
    assert_eq!(claims, [first]);
    let Claim::NotBefore(end) = ask(&store, id).await else {
        panic!("claimed twice");
    };
    assert!(Timestamp::now().plus(LONG / 2) < end);
    // Its holder may ask again: an answer may have been lost.
    let again = store.claim(&[id], token, LONG).await.unwrap();
    assert_eq!(again, [first]);
    assert_eq!(
        line(&store, &header, id).await.state,
        DeliveryState::Claimed
    );
}

pub(crate) async fn a_delivery_asked_for_twice_is_claimed_once(store: Arc<dyn Store>) {
    let (_, id) = one(&store).await;
    let claims = store.claim(&[id, id], Uuid::new_v4(), LONG).await.unwrap();
    assert!(
        matches!(claims[..], [Claim::Mine { .. }, Claim::NotBefore(_)]),
        "{claims:?}"
    );
}

pub(crate) async fn many_senders_claim_each_delivery_once(store: Arc<dyn Store>) {
    let users: Vec<String> = (0..60).map(|n| format!("user:{n}")).collect();
    let users: Vec<&str> = users.iter().map(String::as_str).collect();
    let ids = send(&store, &header(0), &titled("t"), &users).await;
    let senders: Vec<_> = (0..8)
        .map(|n| {
            let (store, mut ids) = (Arc::clone(&store), ids.clone());
            // Each asks in an order of its own.
            ids.rotate_left(n * 7);
            tokio::spawn(async move {
                let claims = store.claim(&ids, Uuid::new_v4(), LONG).await.unwrap();
                let mine = ids.into_iter().zip(claims);
                mine.filter(|(_, claim)| matches!(claim, Claim::Mine { .. }))
                    .map(|(id, _)| id)
                    .collect::<Vec<_>>()
            })
        })
        .collect();
    let mut all = Vec::new();
    for sender in senders {
        all.extend(sender.await.unwrap());
    }
    assert_eq!(all.len(), ids.len());
    let distinct: BTreeSet<_> = all.into_iter().collect();
    assert_eq!(distinct, ids.into_iter().collect());
}

pub(crate) async fn a_vanished_holder_leaves_doubt_and_a_try(store: Arc<dyn Store>) {
    let (header, id) = one(&store).await;
    claim(&store, id, Duration::ZERO).await;
    let token = Uuid::new_v4();
    let claims = store.claim(&[id], token, LONG).await.unwrap();
    let second = Claim::Mine {
        attempt: 2,
        doubtful: true,
    };
    assert_eq!(claims, [second]);
    let sent = [ended(id, DeliveryState::Sent)];
    store.record(token, &sent, &[]).await.unwrap();
    let line = line(&store, &header, id).await;
    assert!(line.doubtful);
    assert_eq!((line.state, line.attempts), (DeliveryState::Sent, 2));
}

pub(crate) async fn what_is_recorded_decides_what_comes_next(store: Arc<dyn Store>) {
    let (header, id) = one(&store).await;
    let token = claim(&store, id, LONG).await;
    let next = Timestamp::now().plus(LONG);
    let again = Attempt {
        next_at: Some(next),
        ..ended(id, DeliveryState::Pending)
    };
    assert_eq!(store.record(token, &[again], &[]).await.unwrap(), [id]);
    assert_eq!(ask(&store, id).await, Claim::NotBefore(next));
    let waiting = line(&store, &header, id).await;
    assert_eq!(waiting.state, DeliveryState::Pending);
    assert_eq!((waiting.attempts, waiting.next_at), (1, Some(next)));
    assert_eq!(waiting.reason, Some(Reason::Server));
    assert_eq!(waiting.detail.as_deref(), Some("it said 500"));

    let states = [
        DeliveryState::Sent,
        DeliveryState::Skipped,
        DeliveryState::Failed,
        DeliveryState::Unknown,
    ];
    for state in states {
        let (header, id) = one(&store).await;
        let token = claim(&store, id, LONG).await;
        let attempt = Attempt {
            provider_id: Some("theirs".to_owned()),
            ..ended(id, state)
        };
        assert_eq!(store.record(token, &[attempt], &[]).await.unwrap(), [id]);
        assert_eq!(ask(&store, id).await, Claim::Done, "{state:?}");
        let line = line(&store, &header, id).await;
        assert_eq!((line.state, line.attempts), (state, 1));
        assert_eq!(line.provider_id.as_deref(), Some("theirs"));
        assert_eq!(line.next_at, None);
    }

    // Due again at once: the second try.
    let (header, id) = one(&store).await;
    let token = claim(&store, id, LONG).await;
    let again = ended(id, DeliveryState::Pending);
    store.record(token, &[again], &[]).await.unwrap();
    let token = Uuid::new_v4();
    let claims = store.claim(&[id], token, LONG).await.unwrap();
    let second = Claim::Mine {
        attempt: 2,
        doubtful: false,
    };
    assert_eq!(claims, [second]);
    let sent = [ended(id, DeliveryState::Sent)];
    store.record(token, &sent, &[]).await.unwrap();
    let line = line(&store, &header, id).await;
    assert_eq!((line.reason, line.detail), (None, None));
}

pub(crate) async fn only_the_holder_records_releases_and_expands(store: Arc<dyn Store>) {
    let (header, id) = one(&store).await;
    let token = claim(&store, id, Duration::ZERO).await;
    let other = claim(&store, id, LONG).await;
    for stranger in [token, Uuid::new_v4()] {
        let sent = [ended(id, DeliveryState::Sent)];
        let recorded = store.record(stranger, &sent, &[]).await.unwrap();
        assert!(recorded.is_empty());
        store.release(stranger, &[id]).await.unwrap();
        let child = child(&header, id, "x");
        store
            .expand(stranger, id, std::slice::from_ref(&child))
            .await
            .unwrap();
        assert_eq!(ask(&store, child.id).await, Claim::Done);
    }
    assert_eq!(
        line(&store, &header, id).await.state,
        DeliveryState::Claimed
    );
    let sent = [ended(id, DeliveryState::Sent)];
    assert_eq!(store.record(other, &sent, &[]).await.unwrap(), [id]);
}

pub(crate) async fn a_late_record_counts_while_nobody_else_has_claimed(store: Arc<dyn Store>) {
    let (header, id) = one(&store).await;
    let token = claim(&store, id, Duration::ZERO).await;
    let sent = [ended(id, DeliveryState::Sent)];
    assert_eq!(store.record(token, &sent, &[]).await.unwrap(), [id]);
    let line = line(&store, &header, id).await;
    assert_eq!((line.attempts, line.doubtful), (1, false));
}

pub(crate) async fn a_given_back_delivery_is_untried(store: Arc<dyn Store>) {
    let (_, id) = one(&store).await;
    let token = claim(&store, id, LONG).await;
    store.release(token, &[id, Uuid::new_v4()]).await.unwrap();
    let first = Claim::Mine {
        attempt: 1,
        doubtful: false,
    };
    assert_eq!(ask(&store, id).await, first);
}

pub(crate) async fn a_delivery_that_is_put_off_is_untried_and_says_why(store: Arc<dyn Store>) {
    let (header, id) = one(&store).await;
    let token = claim(&store, id, LONG).await;
    let put_off = |next_at| Attempt {
        next_at: Some(next_at),
        uncounted: true,
        ..ended(id, DeliveryState::Pending)
    };
    let later = Timestamp::now().plus(LONG);
    let recorded = store.record(token, &[put_off(later)], &[]).await.unwrap();
    assert_eq!(recorded, [id]);
    assert_eq!(ask(&store, id).await, Claim::NotBefore(later));
    let told = line(&store, &header, id).await;
    assert_eq!((told.attempts, told.reason), (0, Some(Reason::Server)));
    let summary = store.summary().await.unwrap();
    let failed = summary
        .channels
        .iter()
        .find(|one| one.last_failure.is_some());
    assert!(failed.is_none(), "{failed:?}");

    // Due at once, it is as new.
    let (_, id) = one(&store).await;
    let token = claim(&store, id, LONG).await;
    let now = Attempt {
        delivery: id,
        ..put_off(header.accepted_at)
    };
    store.record(token, &[now], &[]).await.unwrap();
    let first = Claim::Mine {
        attempt: 1,
        doubtful: false,
    };
    assert_eq!(ask(&store, id).await, first);
}

/// A sent delivery to `user:a` of a submission of the scope `s`.
async fn posted(store: &Arc<dyn Store>, n: i64, provider_id: &str) -> (Header, Uuid) {
    let header = header(n);
    let id = send(store, &header, &scoped("t", "s"), &["user:a"]).await[0];
    let token = claim(store, id, LONG).await;
    let sent = Attempt {
        provider_id: Some(provider_id.to_owned()),
        ..ended(id, DeliveryState::Sent)
    };
    store.record(token, &[sent], &[]).await.unwrap();
    (header, id)
}

pub(crate) async fn what_was_sent_before_for_a_scope_is_found(store: Arc<dyn Store>) {
    let (first, sent) = posted(&store, 0, "one").await;
    let second = header(1);
    let users = ["user:a", "user:b"];
    let ids = send(&store, &second, &scoped("t", "s"), &users).await;
    let asked = [sent, ids[0], Uuid::new_v4(), ids[1]];
    let found = store.earlier(&asked).await.unwrap();
    let earlier = |provider_id: &str, header: &Header| {
        Some(Earlier {
            provider_id: provider_id.to_owned(),
            submission: header.id,
            accepted_at: header.accepted_at,
        })
    };
    // Not itself, not of another person, and only what was sent.
    assert_eq!(found, [None, earlier("one", &first), None, None]);
    let (third, newest) = posted(&store, 2, "three").await;
    let found = store.earlier(&[ids[0], newest]).await.unwrap();
    assert_eq!(found, [earlier("three", &third), earlier("one", &first)]);
}

fn child(header: &Header, notification: Uuid, target: &str) -> NewDelivery {
    delivery(notification, header.id, CHANNEL, target)
}

pub(crate) async fn an_expanded_delivery_is_replaced_by_its_targets(store: Arc<dyn Store>) {
    let header = header(0);
    let chunk = to_everybody(&header, &titled("t"));
    let parent = persist(&store, &chunk).await.pending[0];
    let token = claim(&store, parent, LONG).await;
    let mut children = vec![
        child(&header, chunk.rows[0].id, "a@example.com"),
        child(&header, chunk.rows[0].id, "b@example.com"),
    ];
    children.sort_by_key(|child| child.id);
    for _ in 0..2 {
        store.expand(token, parent, &children).await.unwrap();
    }
    assert_eq!(ask(&store, parent).await, Claim::Done);
    let parent = line(&store, &header, parent).await;
    assert_eq!(parent.state, DeliveryState::Expanded);
    for new in &children {
        let line = line(&store, &header, new.id).await;
        assert_eq!(line.state, DeliveryState::Pending);
        assert_eq!((line.user, &line.target), (None, &new.target));
        let claim = ask(&store, new.id).await;
        assert!(matches!(claim, Claim::Mine { attempt: 1, .. }), "{claim:?}");
    }
}

pub(crate) async fn an_unknown_delivery_is_done(store: Arc<dyn Store>) {
    let (_, id) = one(&store).await;
    let asked = [Uuid::new_v4(), id, Uuid::new_v4()];
    let claims = store.claim(&asked, Uuid::new_v4(), LONG).await.unwrap();
    assert!(
        matches!(claims[..], [Claim::Done, Claim::Mine { .. }, Claim::Done]),
        "{claims:?}"
    );
}
