//! Dead letters.

use std::sync::Arc;
use std::time::Duration;

use tidings::delivery::DeliveryState;
use tidings::failure::Reason;
use tidings::queue::Headers;
use tidings::store::Claim;
use tidings::store::DeadFilter;
use tidings::store::DeadLetter;
use tidings::store::Find;
use tidings::store::Settle;
use tidings::store::Store;
use uuid::Uuid;

use super::LONG;
use super::claim;
use super::deliveries::ended;
use crate::support::store::ORIGIN;
use crate::support::store::at;
use crate::support::store::header;
use crate::support::store::send;
use crate::support::store::titled;

fn letter(message: &str) -> DeadLetter {
    DeadLetter {
        id: 0,
        message: message.to_owned(),
        stage: "submissions".to_owned(),
        reason: Reason::Invalid,
        detail: "#/payload/title is missing".to_owned(),
        tries: 3,
        died_at: at(0),
        submission: Some(Uuid::from_u128(7)),
        origin: Some(ORIGIN.to_owned()),
        deliveries: vec![Uuid::from_u128(1), Uuid::from_u128(2)],
        headers: Headers::from([("traceparent".to_owned(), "00-ü".to_owned())]),
        body: vec![0, 159, 146, 150, b'{'],
        replayed_at: None,
    }
}

async fn all(store: &Arc<dyn Store>) -> Vec<DeadLetter> {
    let filter = DeadFilter {
        replayed: true,
        ..DeadFilter::default()
    };
    store.dead_letters(&filter).await.unwrap()
}

async fn found(store: &Arc<dyn Store>, filter: &DeadFilter) -> Vec<String> {
    let letters = store.dead_letters(filter).await.unwrap();
    letters.into_iter().map(|one| one.message).collect()
}

pub(crate) async fn a_dead_letter_is_filed_once(store: Arc<dyn Store>) {
    let first = letter("one");
    let changed = DeadLetter {
        detail: "again".to_owned(),
        ..first.clone()
    };
    store
        .file_dead(&[first.clone(), changed.clone()])
        .await
        .unwrap();
    store.file_dead(&[changed]).await.unwrap();
    let mut filed = all(&store).await;
    assert_eq!(filed.len(), 1);
    let filed = filed.remove(0);
    assert!(0 < filed.id);
    let id = filed.id;
    assert_eq!(filed, DeadLetter { id, ..first });
    let bare = DeadLetter {
        submission: None,
        origin: None,
        deliveries: vec![],
        headers: Headers::new(),
        body: vec![],
        ..letter("bare")
    };
    store.file_dead(std::slice::from_ref(&bare)).await.unwrap();
    let filed = all(&store)
        .await
        .into_iter()
        .find(|one| one.message == "bare");
    let filed = filed.unwrap();
    assert_eq!(
        filed,
        DeadLetter {
            id: filed.id,
            ..bare
        }
    );
}

pub(crate) async fn a_recorded_failure_files_its_letter(store: Arc<dyn Store>) {
    let submission = header(0);
    let ids = send(&store, &submission, &titled("t"), &["user:a", "user:b"]).await;
    let about = |id: Uuid, message: &str| DeadLetter {
        submission: Some(submission.id),
        deliveries: vec![id],
        ..letter(message)
    };
    let token = claim(&store, ids[0], LONG).await;
    claim(&store, ids[1], Duration::ZERO).await;
    let lost = claim(&store, ids[1], LONG).await;
    assert_ne!(lost, token);
    // The second delivery is in other hands: its letter is theirs to write.
    let tries = [ids[0], ids[1]].map(|id| ended(id, DeliveryState::Failed));
    let letters = [about(ids[0], "mine"), about(ids[1], "theirs")];
    for expected in [&ids[..1], &[]] {
        let recorded = store.record(token, &tries, &letters).await.unwrap();
        assert_eq!(recorded, expected);
    }
    let filed = all(&store).await;
    assert_eq!(filed.len(), 1);
    assert_eq!(filed[0].message, "mine");
    let find = Find::Id(submission.id);
    let timeline = store.timeline(&find, None, 0).await.unwrap().unwrap();
    assert_eq!(timeline.dead, [filed[0].id]);
}

pub(crate) async fn deliveries_of_a_dead_message_are_given_up_unless_held(store: Arc<dyn Store>) {
    let submission = header(0);
    let users = ["user:a", "user:b", "user:c"];
    let ids = send(&store, &submission, &titled("t"), &users).await;
    claim(&store, ids[0], LONG).await;
    claim(&store, ids[1], Duration::ZERO).await;
    let died = DeadLetter {
        deliveries: ids.clone(),
        reason: Reason::DeliveryLimit,
        ..letter("died")
    };
    store.file_dead(&[died]).await.unwrap();
    let claims = store.claim(&ids, Uuid::new_v4(), LONG).await.unwrap();
    assert!(
        matches!(claims[..], [Claim::NotBefore(_), Claim::Done, Claim::Done]),
        "{claims:?}"
    );
    let find = Find::Id(submission.id);
    let timeline = store.timeline(&find, None, 10).await.unwrap().unwrap();
    let failed = timeline.deliveries.iter().filter(|line| {
        line.state == DeliveryState::Failed && line.reason == Some(Reason::DeliveryLimit)
    });
    assert_eq!(failed.count(), 2);
}

pub(crate) async fn dead_letters_are_filtered(store: Arc<dyn Store>) {
    let of = |message: &str, n, stage: &str, reason| DeadLetter {
        died_at: at(n),
        stage: stage.to_owned(),
        reason,
        ..letter(message)
    };
    let letters = [
        of("a", 1, "chunks", Reason::Invalid),
        of("b", 2, "deliver.email", Reason::Server),
        of("c", 3, "deliver.email", Reason::Invalid),
        of("d", 3, "chunks", Reason::Panic),
    ];
    store.file_dead(&letters).await.unwrap();
    let every = all(&store).await;
    let number = |message| every.iter().find(|one| one.message == message).unwrap().id;
    store
        .settle_dead(&[number("a")], Settle::Replayed)
        .await
        .unwrap();
    let filter = DeadFilter::default;
    let cases: [(DeadFilter, &[&str]); 9] = [
        (filter(), &["d", "c", "b"]),
        (
            DeadFilter {
                replayed: true,
                ..filter()
            },
            &["d", "c", "b", "a"],
        ),
        (
            DeadFilter {
                limit: 2,
                ..filter()
            },
            &["d", "c"],
        ),
        (
            DeadFilter {
                reason: Some(Reason::Invalid),
                ..filter()
            },
            &["c"],
        ),
        (
            DeadFilter {
                stage: Some("chunks".to_owned()),
                ..filter()
            },
            &["d"],
        ),
        (
            DeadFilter {
                before: Some(at(3)),
                ..filter()
            },
            &["b"],
        ),
        (
            DeadFilter {
                after: Some(at(3)),
                ..filter()
            },
            &["d", "c"],
        ),
        (
            DeadFilter {
                ids: vec![number("b"), number("d"), -1],
                ..filter()
            },
            &["d", "b"],
        ),
        (
            DeadFilter {
                ids: vec![number("a")],
                ..filter()
            },
            &[],
        ),
    ];
    for (filter, expected) in cases {
        assert_eq!(found(&store, &filter).await, expected, "{filter:?}");
    }
}

pub(crate) async fn a_reopened_letter_makes_its_failed_deliveries_pending(store: Arc<dyn Store>) {
    let submission = header(0);
    let ids = send(&store, &submission, &titled("t"), &["user:a", "user:b"]).await;
    let token = Uuid::new_v4();
    store.claim(&ids, token, LONG).await.unwrap();
    let tries = [
        ended(ids[0], DeliveryState::Failed),
        ended(ids[1], DeliveryState::Sent),
    ];
    let died = DeadLetter {
        deliveries: ids.clone(),
        ..letter("died")
    };
    store.record(token, &tries, &[died]).await.unwrap();
    let number = all(&store).await[0].id;
    let asked = [number, number + 1_000];
    assert_eq!(store.settle_dead(&asked, Settle::Reopen).await.unwrap(), 1);
    // With the whole schedule before it again; what was sent stays sent.
    let claims = store.claim(&ids, Uuid::new_v4(), LONG).await.unwrap();
    assert!(
        matches!(claims[..], [Claim::Mine { attempt: 1, .. }, Claim::Done]),
        "{claims:?}"
    );
    assert_eq!(all(&store).await[0].replayed_at, None);
}

pub(crate) async fn replayed_letters_are_kept_and_discarded_ones_are_not(store: Arc<dyn Store>) {
    store.file_dead(&["a", "b", "c"].map(letter)).await.unwrap();
    let every = all(&store).await;
    let ids: Vec<i64> = every.iter().map(|one| one.id).collect();
    assert_eq!(
        store
            .settle_dead(&ids[..1], Settle::Replayed)
            .await
            .unwrap(),
        1
    );
    assert_eq!(
        store
            .settle_dead(&ids[1..2], Settle::Discard)
            .await
            .unwrap(),
        1
    );
    assert_eq!(
        store
            .settle_dead(&ids[1..2], Settle::Discard)
            .await
            .unwrap(),
        0
    );
    assert_eq!(store.settle_dead(&[], Settle::Discard).await.unwrap(), 0);
    let left = all(&store).await;
    assert_eq!(left.len(), 2);
    assert!(left[0].replayed_at.is_some_and(|at| left[0].died_at < at));
    assert_eq!(left[1].replayed_at, None);
    let timeline = store.timeline(&Find::Id(Uuid::from_u128(7)), None, 0).await;
    assert_eq!(timeline.unwrap(), None);
}
