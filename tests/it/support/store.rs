//! Chunks as the decorator plans them, for tests of the store.

use std::sync::Arc;

use tidings::delivery::DeliveryState;
use tidings::notification::Payload;
use tidings::notification::delivery_id;
use tidings::notification::keyed_submission_id;
use tidings::notification::notification_id;
use tidings::store::ChunkRows;
use tidings::store::ChunkStored;
use tidings::store::NewDelivery;
use tidings::store::Row;
use tidings::store::Store;
use tidings::submission::Header;
use tidings::submission::Via;
use tidings::time::Timestamp;
use uuid::Uuid;

/// Who sends.
pub(crate) const ORIGIN: &str = "external:ci";
/// The one sender.
pub(crate) const CHANNEL: &str = "email";

/// The `n`th millisecond of a day in the past.
pub(crate) fn at(n: i64) -> Timestamp {
    Timestamp::from_millis(1_700_000_000_000 + n)
}

/// A submission without a key, accepted [`at`] `n`.
pub(crate) fn header(n: i64) -> Header {
    Header {
        id: Uuid::now_v7(),
        origin: ORIGIN.to_owned(),
        key: None,
        accepted_at: at(n),
        via: Via::Http,
        digest: "of the body".to_owned(),
    }
}

/// A submission under a key.
pub(crate) fn keyed(key: &str, digest: &str) -> Header {
    Header {
        id: keyed_submission_id(ORIGIN, key),
        key: Some(key.to_owned()),
        digest: digest.to_owned(),
        via: Via::Queue,
        ..header(0)
    }
}

/// A payload with a title alone.
pub(crate) fn titled(title: &str) -> Payload {
    Payload {
        title: title.to_owned(),
        ..Payload::default()
    }
}

/// A payload with a scope.
pub(crate) fn scoped(title: &str, scope: &str) -> Payload {
    Payload {
        scope: Some(scope.to_owned()),
        ..titled(title)
    }
}

/// The only chunk of a submission to these people, each of whom gets a row and a delivery.
pub(crate) fn to_people(header: &Header, payload: &Payload, users: &[&str]) -> ChunkRows {
    let mut rows: Vec<Row> = users
        .iter()
        .map(|user| row(header, payload, Some(user)))
        .collect();
    rows.sort_by(|a, b| a.user.cmp(&b.user));
    ChunkRows {
        header: header.clone(),
        no: 0,
        of: 1,
        broadcast: false,
        payload: payload.clone(),
        rows,
        muted: 0,
        dropped: 0,
        refs: Vec::new(),
        notes: Vec::new(),
        started_at: header.accepted_at,
    }
}

/// A submission to everybody: one row, one delivery.
pub(crate) fn to_everybody(header: &Header, payload: &Payload) -> ChunkRows {
    ChunkRows {
        broadcast: true,
        rows: vec![row(header, payload, None)],
        ..to_people(header, payload, &[])
    }
}

/// A row with one pending delivery.
pub(crate) fn row(header: &Header, payload: &Payload, user: Option<&str>) -> Row {
    let id = notification_id(&header.origin, payload.scope(), header.id, user);
    Row {
        id,
        user: user.map(str::to_owned),
        payload: None,
        stored: true,
        deliveries: vec![delivery(id, header.id, CHANNEL, "")],
    }
}

/// A pending delivery.
pub(crate) fn delivery(
    notification: Uuid,
    revision: Uuid,
    channel: &str,
    target: &str,
) -> NewDelivery {
    NewDelivery {
        id: delivery_id(notification, revision, channel, target),
        channel: channel.to_owned(),
        target: target.to_owned(),
        state: DeliveryState::Pending,
        reason: None,
        detail: None,
    }
}

/// Persists one chunk.
pub(crate) async fn persist(store: &Arc<dyn Store>, chunk: &ChunkRows) -> ChunkStored {
    let mut stored = store.persist(std::slice::from_ref(chunk)).await.unwrap();
    assert_eq!(stored.len(), 1);
    stored.remove(0)
}

/// Persists a submission of one chunk to these people, and returns its deliveries.
pub(crate) async fn send(
    store: &Arc<dyn Store>,
    header: &Header,
    payload: &Payload,
    users: &[&str],
) -> Vec<Uuid> {
    persist(store, &to_people(header, payload, users))
        .await
        .pending
}
