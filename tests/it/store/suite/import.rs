//! What is taken over from another system.

use std::sync::Arc;

use tidings::notification::Notification;
use tidings::notification::Payload;
use tidings::notification::notification_id;
use tidings::store::Change;
use tidings::store::ImportMark;
use tidings::store::ImportPart;
use tidings::store::ImportRows;
use tidings::store::ImportStand;
use tidings::store::Mark;
use tidings::store::Setting;
use tidings::store::Store;
use tokio::task::JoinSet;
use uuid::Uuid;

use super::counts;
use super::inbox;
use crate::support::store::ORIGIN;
use crate::support::store::at;
use crate::support::store::header;
use crate::support::store::persist;
use crate::support::store::scoped;
use crate::support::store::titled;
use crate::support::store::to_everybody;
use crate::support::store::to_people;

const SOURCE: &str = "db:5432/notifications";
const USER: &str = "user:default/a";
const READ: Mark = Mark {
    read: Some(true),
    saved: None,
};

/// A row as it stands elsewhere, of `n` seconds after a day in the past.
fn row(n: i64, user: Option<&str>, payload: Payload) -> Notification {
    let id = Uuid::new_v4();
    Notification {
        id,
        user: user.map(str::to_owned),
        origin: ORIGIN.to_owned(),
        created: at(n * 1_000),
        updated: None,
        read: None,
        saved: None,
        payload: Payload {
            severity: Some(payload.severity()),
            ..payload
        },
        submission: id,
    }
}

async fn import(store: &Arc<dyn Store>, rows: ImportRows) -> u64 {
    let new = store.import(SOURCE, &rows, None).await.unwrap();
    assert_eq!(store.recount(false).await.unwrap(), 0);
    new
}

pub(crate) async fn an_imported_row_is_as_it_was_and_comes_once(store: Arc<dyn Store>) {
    let whole = Notification {
        updated: Some(at(5_001)),
        read: Some(at(6_002)),
        saved: Some(at(7_003)),
        ..row(
            2,
            Some(USER),
            Payload {
                description: Some("text".to_owned()),
                link: Some("/here".to_owned()),
                severity: Some(tidings::notification::Severity::Critical),
                topic: Some("builds".to_owned()),
                icon: Some("docs".to_owned()),
                metadata: serde_json::json!({"a": [1, null]}).as_object().cloned(),
                ..scoped("whole", "s")
            },
        )
    };
    let bare = row(1, Some("User:Default/B"), titled("bare"));
    let rows = ImportRows::Notifications(vec![whole.clone(), bare.clone()]);
    assert_eq!(import(&store, rows.clone()).await, 2);
    assert_eq!(import(&store, rows).await, 0);
    assert_eq!(inbox(&store, USER).await, [whole]);
    assert_eq!(inbox(&store, "User:Default/B").await, [bare]);
    assert_eq!(counts(&store, USER).await, (0, 1));
    assert_eq!(counts(&store, "User:Default/B").await, (1, 0));
}

pub(crate) async fn what_was_changed_here_since_an_import_stays(store: Arc<dyn Store>) {
    let unread = row(1, Some(USER), titled("read here"));
    let read = Notification {
        read: Some(at(9)),
        ..row(2, Some(USER), titled("marked unread here"))
    };
    let everybody = row(3, None, titled("to everybody"));
    let rows = ImportRows::Notifications(vec![unread.clone(), read.clone()]);
    let marks = ImportRows::Marks(vec![ImportMark {
        user: USER.to_owned(),
        broadcast: everybody.id,
        read: Some(at(9)),
        saved: None,
    }]);
    import(&store, rows.clone()).await;
    import(&store, ImportRows::Broadcasts(vec![everybody.clone()])).await;
    assert_eq!(import(&store, marks.clone()).await, 1);
    assert_eq!(counts(&store, USER).await, (1, 2));
    let not_read = Mark {
        read: Some(false),
        saved: None,
    };
    store.mark(USER, &[unread.id], READ).await.unwrap();
    let others = [read.id, everybody.id];
    store.mark(USER, &others, not_read).await.unwrap();
    assert_eq!(import(&store, rows).await, 0);
    assert_eq!(import(&store, marks).await, 0);
    let seen = inbox(&store, USER).await;
    let is_read: Vec<bool> = seen.iter().map(|one| one.read.is_some()).collect();
    assert_eq!(is_read, [false, false, true]);
    assert_eq!(counts(&store, USER).await, (2, 1));
}

pub(crate) async fn a_mark_on_a_broadcast_that_is_not_here_is_nothing(store: Arc<dyn Store>) {
    let marks = ImportRows::Marks(vec![ImportMark {
        user: USER.to_owned(),
        broadcast: Uuid::new_v4(),
        read: Some(at(1)),
        saved: Some(at(1)),
    }]);
    assert_eq!(import(&store, marks).await, 0);
    assert_eq!(counts(&store, USER).await, (0, 0));
}

pub(crate) async fn imported_settings_come_beside_those_that_were_made_here(store: Arc<dyn Store>) {
    let setting = |origin: &str, topic: Option<&str>, enabled| Setting {
        user: USER.to_owned(),
        channel: "Web".to_owned(),
        origin: origin.to_owned(),
        topic: topic.map(str::to_owned),
        enabled,
    };
    let mine = setting("plugin:a", None, true);
    store
        .save_settings(USER, std::slice::from_ref(&mine))
        .await
        .unwrap();
    let theirs = [
        setting("plugin:a", None, false),
        setting("plugin:a", Some("t"), false),
        setting("plugin:b", None, false),
    ];
    let rows = ImportRows::Settings(theirs.to_vec());
    assert_eq!(import(&store, rows.clone()).await, 2);
    assert_eq!(import(&store, rows).await, 0);
    let all = store.settings(&[USER.to_owned()]).await.unwrap();
    assert_eq!(all, [mine, theirs[1].clone(), theirs[2].clone()]);
}

pub(crate) async fn how_far_an_import_came_is_kept_with_its_rows(store: Arc<dyn Store>) {
    let stand = |part, rows| ImportStand {
        part,
        after: vec!["a".to_owned(), "'; {,}".to_owned()],
        rows,
    };
    assert_eq!(store.import_stand(SOURCE).await.unwrap(), None);
    for stand in [
        stand(ImportPart::Marks, 7),
        stand(ImportPart::Notifications, 5_000),
    ] {
        let rows = ImportRows::Notifications(vec![row(1, Some(USER), titled("t"))]);
        store.import(SOURCE, &rows, Some(&stand)).await.unwrap();
        assert_eq!(store.import_stand(SOURCE).await.unwrap(), Some(stand));
        assert_eq!(store.import_stand("another").await.unwrap(), None);
    }
    import(&store, ImportRows::Settings(Vec::new())).await;
    assert_eq!(store.import_stand(SOURCE).await.unwrap(), None);
    assert_eq!(inbox(&store, USER).await.len(), 2);
}

pub(crate) async fn a_send_continues_the_imported_row_of_its_scope(store: Arc<dyn Store>) {
    let saved = Notification {
        read: Some(at(2)),
        saved: Some(at(3)),
        ..row(2, Some(USER), scoped("running", "build"))
    };
    let older = row(1, Some(USER), scoped("forgotten", "build"));
    let other = row(1, Some("user:default/b"), scoped("of another", "build"));
    let rows = ImportRows::Notifications(vec![older.clone(), saved.clone(), other.clone()]);
    import(&store, rows.clone()).await;

    let later = header(1_000_000);
    let chunk = to_people(&later, &scoped("done", "build"), &[USER]);
    let stored = persist(&store, &chunk).await;
    let change = &stored.rows[0];
    assert_eq!(change.change, Change::Updated);
    assert_eq!(store.recount(false).await.unwrap(), 0);
    let now = &change.notification;
    assert_eq!(
        now.id,
        notification_id(ORIGIN, Some("build"), later.id, Some(USER))
    );
    assert_eq!((now.created, now.saved), (saved.created, saved.saved));
    assert_eq!((now.read, now.updated.is_some()), (None, true));
    let titles: Vec<String> = inbox(&store, USER)
        .await
        .into_iter()
        .map(|one| one.payload.title)
        .collect();
    assert_eq!(titles, ["done", "forgotten"]);
    assert_eq!(counts(&store, USER).await, (2, 0));
    // Neither another send nor another import doubles it.
    let chunk = to_people(&header(2_000_000), &scoped("done again", "build"), &[USER]);
    persist(&store, &chunk).await;
    assert_eq!(import(&store, rows).await, 0);
    assert_eq!(inbox(&store, USER).await.len(), 2);
    assert_eq!(inbox(&store, "user:default/b").await, [other]);
}

pub(crate) async fn sends_at_once_continue_one_imported_row(store: Arc<dyn Store>) {
    let own = row(1, Some(USER), scoped("own", "s"));
    let everybody = row(2, None, scoped("everybody's", "s"));
    import(&store, ImportRows::Notifications(vec![own.clone()])).await;
    import(&store, ImportRows::Broadcasts(vec![everybody.clone()])).await;
    let mut works = JoinSet::new();
    for n in 0..8 {
        let sender = Arc::clone(&store);
        works.spawn(async move {
            let later = header(1_000_000 + n);
            let payload = scoped("again", "s");
            let chunks = [
                to_people(&later, &payload, &[USER]),
                to_everybody(&header(1_000_000 + n), &payload),
            ];
            for chunk in chunks {
                sender.persist(&[chunk]).await.unwrap();
            }
        });
        let reader = Arc::clone(&store);
        let ids = [own.id, everybody.id];
        works.spawn(async move { drop(reader.mark(USER, &ids, READ).await.unwrap()) });
    }
    works.join_all().await;
    assert_eq!(store.recount(false).await.unwrap(), 0);
    let seen = inbox(&store, USER).await;
    let created: Vec<_> = seen.iter().map(|one| one.created).collect();
    assert_eq!(created, [everybody.created, own.created]);
    assert!(seen.iter().all(|one| one.payload.title == "again"));
}

pub(crate) async fn an_imported_broadcast_is_continued_with_its_marks(store: Arc<dyn Store>) {
    let everybody = row(1, None, scoped("soon", "maintenance"));
    let rows = ImportRows::Broadcasts(vec![everybody.clone()]);
    import(&store, rows.clone()).await;
    let marks = ImportRows::Marks(vec![ImportMark {
        user: USER.to_owned(),
        broadcast: everybody.id,
        read: Some(at(2)),
        saved: Some(at(2)),
    }]);
    import(&store, marks.clone()).await;

    let chunk = to_everybody(&header(1_000_000), &scoped("now", "maintenance"));
    let stored = persist(&store, &chunk).await;
    assert_eq!(stored.rows[0].change, Change::Updated);
    assert_eq!(store.recount(false).await.unwrap(), 0);
    let seen = inbox(&store, USER).await;
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].payload.title, "now");
    assert_eq!(
        (seen[0].created, seen[0].read),
        (everybody.created, Some(at(2)))
    );
    assert_eq!(counts(&store, USER).await, (0, 1));
    assert_eq!(counts(&store, "user:default/b").await, (1, 0));
    assert_eq!(import(&store, rows).await, 0);
    assert_eq!(import(&store, marks).await, 0);
}
