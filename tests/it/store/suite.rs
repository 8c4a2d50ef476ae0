//! The behaviours, as facts. Nothing here knows a back end, and nothing waits: where the store's
//! clock matters, moments are compared with each other.

pub(crate) mod dead;
pub(crate) mod deliveries;
pub(crate) mod endpoint;
pub(crate) mod expire;
pub(crate) mod foreign;
pub(crate) mod import;
pub(crate) mod inbox;
pub(crate) mod operate;
pub(crate) mod persist;
pub(crate) mod rate;
pub(crate) mod story;
pub(crate) mod stranded;
pub(crate) mod timeline;

use std::sync::Arc;
use std::time::Duration;

use tidings::notification::Notification;
use tidings::store::Claim;
use tidings::store::Query;
use tidings::store::Store;
use uuid::Uuid;

/// A lease that outlives every test.
const LONG: Duration = Duration::from_secs(3_600);

/// The whole inbox.
async fn inbox(store: &Arc<dyn Store>, user: &str) -> Vec<Notification> {
    store
        .list(user, &Query::default())
        .await
        .unwrap()
        .notifications
}

/// The titles of what a query finds.
async fn titles(store: &Arc<dyn Store>, user: &str, query: &Query) -> Vec<String> {
    let page = store.list(user, query).await.unwrap();
    let title = |one: Notification| one.payload.title;
    page.notifications.into_iter().map(title).collect()
}

/// Unread and read.
async fn counts(store: &Arc<dyn Store>, user: &str) -> (u64, u64) {
    let counts = store.counts(user).await.unwrap();
    (counts.unread, counts.read)
}

/// Claims one delivery under a new token, which must work.
async fn claim(store: &Arc<dyn Store>, id: Uuid, lease: Duration) -> Uuid {
    let token = Uuid::new_v4();
    let claims = store.claim(&[id], token, lease).await.unwrap();
    assert!(matches!(claims[..], [Claim::Mine { .. }]), "{claims:?}");
    token
}
