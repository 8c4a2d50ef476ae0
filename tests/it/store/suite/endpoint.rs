//! Endpoints that fail, and those that were disabled for it.

use std::sync::Arc;
use std::time::Duration;

use tidings::failure::Reason;
use tidings::store::EndpointFailed;
use tidings::store::Store;

fn failed(name: &str, patience: Duration) -> EndpointFailed {
    EndpointFailed {
        channel: "webhook".to_owned(),
        name: name.to_owned(),
        version: "1".to_owned(),
        reason: Reason::Network,
        detail: "no connection could be made".to_owned(),
        patience,
    }
}

pub(crate) async fn an_endpoint_fails_until_it_is_well(store: Arc<dyn Store>) {
    let first = store
        .endpoint_failed(&failed("b", super::LONG))
        .await
        .unwrap();
    let second = store
        .endpoint_failed(&failed("b", super::LONG))
        .await
        .unwrap();
    assert_eq!(second.failing_since, first.failing_since);
    assert!(first.failed_at <= second.failed_at && second.disabled_at.is_none());
    let gone = store
        .endpoint_failed(&failed("a", Duration::ZERO))
        .await
        .unwrap();
    assert!(gone.disabled_at.is_some());
    assert_eq!(store.endpoints().await.unwrap(), [gone, second.clone()]);
    assert!(store.endpoint_well("webhook", "a").await.unwrap());
    assert!(!store.endpoint_well("webhook", "a").await.unwrap());
    assert_eq!(store.endpoints().await.unwrap(), [second]);
}
