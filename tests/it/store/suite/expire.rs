//! What is deleted from inboxes when it is old, and that the counters follow at once.

use std::sync::Arc;

use tidings::notification::Notification;
use tidings::store::Mark;
use tidings::store::Store;
use tidings::time::Timestamp;
use tokio::task::JoinSet;

use super::LONG;
use super::counts;
use super::inbox;
use crate::support::store::header;
use crate::support::store::scoped;
use crate::support::store::send;
use crate::support::store::titled;
use crate::support::store::to_everybody;

const READ: Mark = Mark {
    read: Some(true),
    saved: None,
};
const SAVED: Mark = Mark {
    read: None,
    saved: Some(true),
};

fn age(one: &Notification) -> Timestamp {
    one.updated.unwrap_or(one.created)
}

/// A moment after everything.
fn later() -> Timestamp {
    Timestamp::now().plus(LONG)
}

async fn right(store: &Arc<dyn Store>) {
    assert_eq!(store.recount(false).await.unwrap(), 0);
}

pub(crate) async fn what_is_old_goes_oldest_first_and_what_is_saved_stays(store: Arc<dyn Store>) {
    let people = ["user:a", "user:b"];
    send(
        &store,
        &header(0),
        &scoped("kept by its update", "s"),
        &people,
    )
    .await;
    send(&store, &header(1), &titled("old"), &people).await;
    send(&store, &header(2), &titled("old and saved"), &["user:a"]).await;
    // Rows of one millisecond have no order of their own.
    let saved = inbox(&store, "user:a").await.into_iter();
    let saved = saved.map(|one| (one.payload.title, one.id));
    let saved = saved.collect::<std::collections::BTreeMap<_, _>>()["old and saved"];
    store.mark("user:a", &[saved], SAVED).await.unwrap();
    let read = inbox(&store, "user:b").await[0].id;
    store.mark("user:b", &[read], READ).await.unwrap();
    let oldest = inbox(&store, "user:a").await.iter().map(age).max().unwrap();
    while Timestamp::now() <= oldest {
        tokio::task::yield_now().await;
    }
    send(&store, &header(3), &scoped("updated", "s"), &people).await;

    assert_eq!(store.expire(oldest.minus(LONG), true, 10).await.unwrap(), 0);
    // In batches of one.
    assert_eq!(store.expire(oldest, false, 1).await.unwrap(), 2);
    right(&store).await;
    assert_eq!(counts(&store, "user:a").await, (2, 0));
    assert_eq!(counts(&store, "user:b").await, (1, 0));
    let titles = inbox(&store, "user:a").await.into_iter();
    let mut titles: Vec<String> = titles.map(|one| one.payload.title).collect();
    titles.sort_unstable();
    assert_eq!(titles, ["old and saved", "updated"]);

    assert_eq!(store.expire(oldest, true, 0).await.unwrap(), 1);
    assert_eq!(store.expire(later(), false, 10).await.unwrap(), 2);
    right(&store).await;
    assert_eq!(counts(&store, "user:a").await, (0, 0));
}

pub(crate) async fn a_broadcast_goes_with_its_marks_unless_somebody_saved_it(
    store: Arc<dyn Store>,
) {
    for n in 0..3 {
        let chunk = to_everybody(&header(n), &titled(&n.to_string()));
        store.persist(&[chunk]).await.unwrap();
    }
    let all = inbox(&store, "user:a").await;
    let saved = all[1].id;
    store.mark("user:b", &[saved], SAVED).await.unwrap();
    store
        .mark("user:a", &[saved, all[0].id], READ)
        .await
        .unwrap();
    assert_eq!(counts(&store, "user:a").await, (1, 2));

    assert_eq!(store.expire(later(), false, 10).await.unwrap(), 2);
    right(&store).await;
    assert_eq!(counts(&store, "user:a").await, (0, 1));
    assert_eq!(counts(&store, "user:b").await, (1, 0));
    assert_eq!(inbox(&store, "user:b").await[0].id, saved);

    assert_eq!(store.expire(later(), true, 10).await.unwrap(), 1);
    right(&store).await;
    assert_eq!(counts(&store, "user:a").await, (0, 0));
}

pub(crate) async fn a_mark_on_what_is_being_deleted_is_on_nothing(store: Arc<dyn Store>) {
    let people = ["user:a", "user:b", "user:c"];
    for n in 0..40 {
        send(&store, &header(n), &scoped("own", &n.to_string()), &people).await;
        let chunk = to_everybody(&header(n), &titled("for everybody"));
        store.persist(&[chunk]).await.unwrap();
    }
    let mut works = JoinSet::new();
    for user in people {
        let reader = Arc::clone(&store);
        works.spawn(async move {
            for one in inbox(&reader, user).await {
                reader.mark(user, &[one.id], READ).await.unwrap();
            }
            reader.mark_all_read(user).await.unwrap();
        });
        let again = Arc::clone(&store);
        works.spawn(async move {
            for n in 40..60 {
                let scope = scoped("again", &(n % 20).to_string());
                send(&again, &header(n), &scope, &[user]).await;
            }
        });
        let gone = Arc::clone(&store);
        works.spawn(async move {
            for _ in 0..20 {
                gone.expire(later(), true, 3).await.unwrap();
            }
        });
    }
    works.join_all().await;
    right(&store).await;
    while store.expire(later(), true, 100).await.unwrap() > 0 {}
    right(&store).await;
    for user in people {
        assert_eq!(counts(&store, user).await, (0, 0));
        assert_eq!(inbox(&store, user).await, []);
    }
}
