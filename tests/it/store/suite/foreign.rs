//! Deliveries in the hands of foreign senders, who claim nothing and report what they did.

use std::sync::Arc;
use std::time::Duration;

use tidings::delivery::Attempt;
use tidings::delivery::DeliveryState;
use tidings::failure::Reason;
use tidings::store::Claim;
use tidings::store::Find;
use tidings::store::Store;
use tidings::submission::Header;
use tidings::time::Timestamp;
use uuid::Uuid;

use super::LONG;
use super::deliveries::ended;
use crate::support::store::CHANNEL;
use crate::support::store::header;
use crate::support::store::send;
use crate::support::store::titled;

async fn one(store: &Arc<dyn Store>) -> (Header, Uuid) {
    let header = header(0);
    let id = send(store, &header, &titled("t"), &["user:a"]).await[0];
    (header, id)
}

async fn report(store: &Arc<dyn Store>, attempt: &Attempt) -> Option<u32> {
    let channels = [CHANNEL.to_owned()];
    let stand = store.report(&channels, std::slice::from_ref(attempt)).await;
    stand.unwrap().first().map(|one| one.tries)
}

async fn state(store: &Arc<dyn Store>, header: &Header) -> (DeliveryState, u32) {
    let find = Find::Id(header.id);
    let timeline = store.timeline(&find, None, 10).await.unwrap().unwrap();
    let line = &timeline.deliveries[0];
    (line.state, line.attempts)
}

pub(crate) async fn what_is_reported_is_where_a_delivery_stands(store: Arc<dyn Store>) {
    let (header, id) = one(&store).await;
    let mut later = ended(id, DeliveryState::Pending);
    later.next_at = Some(Timestamp::now().plus(LONG));
    assert_eq!(report(&store, &later).await, Some(1));
    assert_eq!(state(&store, &header).await, (DeliveryState::Pending, 1));
    let sent = Attempt {
        provider_id: Some("page-1".to_owned()),
        ..ended(id, DeliveryState::Sent)
    };
    assert_eq!(report(&store, &sent).await, Some(2));
    // The same again stands, and counts no try.
    assert_eq!(report(&store, &sent).await, Some(2));
    // What is settled stays.
    let failed = ended(id, DeliveryState::Failed);
    assert_eq!(report(&store, &failed).await, None);
    assert_eq!(state(&store, &header).await, (DeliveryState::Sent, 2));
}

pub(crate) async fn what_is_reported_comes_with_a_message_that_carries_it(store: Arc<dyn Store>) {
    let header = header(0);
    let ids = send(&store, &header, &titled("t"), &["user:a", "user:b"]).await;
    let channels = [CHANNEL.to_owned()];
    let failed = ended(ids[1], DeliveryState::Failed);
    let stand = store.report(&channels, &[failed]).await.unwrap();
    assert_eq!(stand.len(), 1);
    let batch = &stand[0].batch;
    assert_eq!(
        (
            batch.header.id,
            batch.channel.as_str(),
            batch.payload.title.as_str()
        ),
        (header.id, CHANNEL, "t")
    );
    let items: Vec<_> = batch
        .items
        .iter()
        .map(|item| (item.id, item.user.as_deref()))
        .collect();
    assert_eq!(items, [(ids[1], Some("user:b"))]);
}

pub(crate) async fn of_other_channels_nothing_is_believed(store: Arc<dyn Store>) {
    let (header, id) = one(&store).await;
    let sent = ended(id, DeliveryState::Sent);
    let others = ["pager".to_owned()];
    assert!(
        store
            .report(&others, std::slice::from_ref(&sent))
            .await
            .unwrap()
            .is_empty()
    );
    assert!(store.report(&[], &[sent]).await.unwrap().is_empty());
    let stranger = ended(Uuid::new_v4(), DeliveryState::Sent);
    assert_eq!(report(&store, &stranger).await, None);
    assert_eq!(state(&store, &header).await, (DeliveryState::Pending, 0));
}

pub(crate) async fn silence_makes_a_delivery_unknown_and_a_late_word_still_counts(
    store: Arc<dyn Store>,
) {
    let (header, id) = one(&store).await;
    let now = Timestamp::now();
    let early = store.overdue(CHANNEL, now.minus(LONG), 10).await.unwrap();
    assert_eq!(early, 0, "it is not due for so long");
    let soon = now.plus(Duration::from_secs(5));
    assert_eq!(store.overdue("pager", soon, 10).await.unwrap(), 0);
    assert_eq!(store.overdue(CHANNEL, soon, 10).await.unwrap(), 1);
    assert_eq!(store.overdue(CHANNEL, soon, 10).await.unwrap(), 0);
    let find = Find::Id(header.id);
    let timeline = store.timeline(&find, None, 10).await.unwrap().unwrap();
    let line = &timeline.deliveries[0];
    assert_eq!(line.state, DeliveryState::Unknown);
    assert_eq!(line.reason, Some(Reason::Timeout));
    let claims = store.claim(&[id], Uuid::new_v4(), LONG).await.unwrap();
    assert_eq!(claims, [Claim::Done], "nobody sends it again");
    assert_eq!(
        report(&store, &ended(id, DeliveryState::Sent)).await,
        Some(1)
    );
    assert_eq!(state(&store, &header).await.0, DeliveryState::Sent);
}

pub(crate) async fn a_delivery_put_off_is_not_overdue_before_its_time(store: Arc<dyn Store>) {
    let (_, id) = one(&store).await;
    let mut later = ended(id, DeliveryState::Pending);
    later.next_at = Some(Timestamp::now().plus(LONG));
    report(&store, &later).await;
    let soon = Timestamp::now().plus(Duration::from_secs(5));
    assert_eq!(store.overdue(CHANNEL, soon, 10).await.unwrap(), 0);
}

pub(crate) async fn a_secret_is_made_once_and_is_the_same_for_all(store: Arc<dyn Store>) {
    let asks: Vec<_> = (0..8)
        .map(|_| {
            let store = Arc::clone(&store);
            tokio::spawn(async move { store.secret("seal").await.unwrap() })
        })
        .collect();
    let mut secrets = Vec::new();
    for ask in asks {
        secrets.push(ask.await.unwrap());
    }
    assert_eq!(secrets[0].len(), 32);
    secrets.dedup();
    assert_eq!(secrets.len(), 1);
    assert_ne!(store.secret("another").await.unwrap(), secrets[0]);
}
