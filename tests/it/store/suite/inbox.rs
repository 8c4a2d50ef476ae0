//! Reading and marking an inbox.

use std::collections::BTreeSet;
use std::sync::Arc;

use tidings::notification::Notification;
use tidings::notification::Payload;
use tidings::notification::Severity;
use tidings::store::Direction;
use tidings::store::Mark;
use tidings::store::OrderField;
use tidings::store::Query;
use tidings::store::Store;
use tidings::time::Timestamp;
use uuid::Uuid;

use super::counts;
use super::inbox;
use super::titles;
use crate::support::store::header;
use crate::support::store::persist;
use crate::support::store::scoped;
use crate::support::store::send;
use crate::support::store::titled;
use crate::support::store::to_everybody;

const READ: Mark = Mark {
    read: Some(true),
    saved: None,
};
const UNREAD: Mark = Mark {
    read: Some(false),
    saved: None,
};
const SAVED: Mark = Mark {
    read: None,
    saved: Some(true),
};

async fn mark(store: &Arc<dyn Store>, user: &str, ids: &[Uuid], mark: Mark) -> Vec<Notification> {
    store.mark(user, ids, mark).await.unwrap()
}

/// The id of the notification with this title.
async fn id(store: &Arc<dyn Store>, user: &str, title: &str) -> Uuid {
    let rows = inbox(store, user).await;
    let row = rows.iter().find(|row| row.payload.title == title);
    row.unwrap().id
}

pub(crate) async fn an_inbox_holds_its_own_and_every_broadcast(store: Arc<dyn Store>) {
    persist(&store, &to_everybody(&header(0), &titled("all"))).await;
    send(&store, &header(1), &titled("mine"), &["user:a"]).await;
    send(&store, &header(2), &titled("theirs"), &["user:b"]).await;
    let rows = inbox(&store, "user:a").await;
    let all: BTreeSet<_> = rows.iter().map(|row| row.payload.title.as_str()).collect();
    assert_eq!(all, BTreeSet::from(["all", "mine"]));
    for row in &rows {
        let owner = (row.payload.title == "mine").then(|| "user:a".to_owned());
        assert_eq!(row.user, owner);
    }
    assert_eq!(titles(&store, "user:new", &Query::default()).await, ["all"]);
    assert_eq!(titles(&store, "*", &Query::default()).await, ["all"]);
}

pub(crate) async fn each_filter_chooses_and_counts(store: Arc<dyn Store>) {
    let payloads = [
        ("one", Severity::Critical, Some("t")),
        ("two", Severity::High, Some("T")),
        ("three", Severity::Normal, None),
        ("four", Severity::Low, Some("t")),
    ];
    for (n, (title, severity, topic)) in (0..).zip(payloads) {
        let payload = Payload {
            severity: Some(severity),
            topic: topic.map(str::to_owned),
            description: Some(format!("described {title}")),
            ..titled(title)
        };
        // Both kinds of rows pass the same filters.
        if n % 2 == 0 {
            send(&store, &header(n), &payload, &["user:a"]).await;
        } else {
            persist(&store, &to_everybody(&header(n), &payload)).await;
        }
    }
    for title in ["one", "two"] {
        let id = id(&store, "user:a", title).await;
        mark(&store, "user:a", &[id], READ).await;
    }
    for title in ["two", "three"] {
        let id = id(&store, "user:a", title).await;
        mark(&store, "user:a", &[id], SAVED).await;
    }
    let last = inbox(&store, "user:a").await[0].created;
    let query = Query::default;
    let cases: [(Query, &[&str]); 11] = [
        (query(), &["four", "one", "three", "two"]),
        (
            Query {
                read: Some(true),
                ..query()
            },
            &["one", "two"],
        ),
        (
            Query {
                read: Some(false),
                ..query()
            },
            &["four", "three"],
        ),
        (
            Query {
                saved: Some(true),
                ..query()
            },
            &["three", "two"],
        ),
        (
            Query {
                saved: Some(false),
                ..query()
            },
            &["four", "one"],
        ),
        (
            Query {
                topic: Some("t".to_owned()),
                ..query()
            },
            &["four", "one"],
        ),
        (
            Query {
                minimum_severity: Some(Severity::Critical),
                ..query()
            },
            &["one"],
        ),
        (
            Query {
                minimum_severity: Some(Severity::Normal),
                ..query()
            },
            &["one", "three", "two"],
        ),
        (
            Query {
                created_after: Some(Timestamp::from_millis(0)),
                ..query()
            },
            &["four", "one", "three", "two"],
        ),
        (
            Query {
                created_after: Some(last.plus(super::LONG)),
                ..query()
            },
            &[],
        ),
        (
            Query {
                search: Some("described t".to_owned()),
                read: Some(false),
                minimum_severity: Some(Severity::Normal),
                ..query()
            },
            &["three"],
        ),
    ];
    for (query, expected) in cases {
        let mut found = titles(&store, "user:a", &query).await;
        found.sort();
        assert_eq!(found, expected, "{query:?}");
        for (limit, offset) in [(Some(0), 0), (Some(1), 1), (None, 3)] {
            let part = Query {
                limit,
                offset,
                ..query.clone()
            };
            let page = store.list("user:a", &part).await.unwrap();
            assert_eq!(page.total, expected.len() as u64, "{part:?}");
            let left = expected.len().saturating_sub(offset as usize);
            let shown = left.min(limit.map_or(usize::MAX, |limit| limit as usize));
            assert_eq!(page.notifications.len(), shown, "{part:?}");
        }
    }
    // Created at that very moment is included.
    let exactly = Query {
        created_after: Some(last),
        ..query()
    };
    assert!(!titles(&store, "user:a", &exactly).await.is_empty());
}

pub(crate) async fn a_search_ignores_case_and_knows_wildcards(store: Arc<dyn Store>) {
    let described = Payload {
        description: Some("Straße 42".to_owned()),
        ..titled("Übung")
    };
    send(&store, &header(0), &described, &["user:a"]).await;
    persist(&store, &to_everybody(&header(1), &titled("100 percent"))).await;
    for (search, expected) in [
        ("übUNG", &["Übung"][..]),
        ("STRASSE", &[]),
        ("straße", &["Übung"]),
        ("1%cent", &["100 percent"]),
        ("st_a", &["Übung"]),
        ("PERCENT", &["100 percent"]),
        ("'; drop", &[]),
    ] {
        let query = Query {
            search: Some(search.to_owned()),
            ..Query::default()
        };
        assert_eq!(titles(&store, "user:a", &query).await, expected, "{search}");
    }
}

pub(crate) async fn pages_follow_each_other_without_gaps(store: Arc<dyn Store>) {
    let users = ["user:a"];
    for n in 0..12 {
        let title = titled(&n.to_string());
        if n % 3 == 0 {
            persist(&store, &to_everybody(&header(n), &title)).await;
        } else {
            send(&store, &header(n), &title, &users).await;
        }
    }
    let all = inbox(&store, "user:a").await;
    let key = |row: &Notification| (row.created, row.id);
    assert!(all.is_sorted_by(|a, b| key(a) > key(b)));
    for order in [
        vec![],
        vec![(OrderField::Severity, Direction::Ascending)],
        vec![(OrderField::Scope, Direction::Descending)],
    ] {
        let mut seen = Vec::new();
        for offset in [0, 5, 10, 15] {
            let query = Query {
                limit: Some(5),
                offset,
                order: order.clone(),
                ..Query::default()
            };
            let page = store.list("user:a", &query).await.unwrap();
            assert_eq!(page.total, 12);
            seen.extend(page.notifications.into_iter().map(|row| row.id));
        }
        let distinct: BTreeSet<_> = seen.iter().collect();
        assert_eq!((seen.len(), distinct.len()), (12, 12), "{order:?}");
    }
    let beyond = Query {
        offset: u64::MAX,
        limit: Some(u64::MAX),
        ..Query::default()
    };
    assert_eq!(store.list("user:a", &beyond).await.unwrap().total, 12);
}

pub(crate) async fn an_inbox_can_be_ordered_by_every_field(store: Arc<dyn Store>) {
    let words = ["a", "b", "c", "d"];
    // Alphabetically by severity: critical, high, low, normal.
    let severities = [
        Severity::Critical,
        Severity::High,
        Severity::Low,
        Severity::Normal,
    ];
    for (n, (word, severity)) in (0..).zip(words.into_iter().zip(severities)) {
        let text = (n != 3).then(|| word.to_owned());
        let payload = Payload {
            severity: Some(severity),
            description: text.clone(),
            link: text.clone(),
            topic: text.clone(),
            icon: text.clone(),
            scope: text,
            ..titled(word)
        };
        send(&store, &header(n), &payload, &["user:a"]).await;
    }
    let ordered = async |order: &[(OrderField, Direction)]| {
        let query = Query {
            order: order.to_vec(),
            ..Query::default()
        };
        titles(&store, "user:a", &query).await
    };
    for (_, field) in OrderField::ALL {
        let up = ordered(&[(field, Direction::Ascending)]).await;
        let mut down = ordered(&[(field, Direction::Descending)]).await;
        down.reverse();
        assert_eq!(up, down, "{field:?}");
        let by_text = [
            OrderField::Title,
            OrderField::Description,
            OrderField::Severity,
            OrderField::Link,
            OrderField::Scope,
            OrderField::Topic,
            OrderField::Icon,
        ];
        // What is absent comes last.
        if by_text.contains(&field) {
            assert_eq!(up, words, "{field:?}");
        }
    }
    for title in ["b", "c"] {
        let id = id(&store, "user:a", title).await;
        mark(&store, "user:a", &[id], READ).await;
    }
    let order = [
        (OrderField::Origin, Direction::Descending),
        (OrderField::Severity, Direction::Descending),
    ];
    assert_eq!(ordered(&order).await, ["d", "c", "b", "a"]);
    let unread_last = ordered(&[(OrderField::Read, Direction::Ascending)]).await;
    let first: BTreeSet<_> = unread_last[..2].iter().map(String::as_str).collect();
    assert_eq!(first, BTreeSet::from(["b", "c"]));
}

pub(crate) async fn topics_are_those_of_what_matches(store: Arc<dyn Store>) {
    for (n, topic) in (0..).zip(["b", "a", "b"]) {
        let payload = Payload {
            topic: Some(topic.to_owned()),
            ..titled(topic)
        };
        send(&store, &header(n), &payload, &["user:a"]).await;
    }
    let everybody = Payload {
        topic: Some("c".to_owned()),
        severity: Some(Severity::High),
        ..titled("c")
    };
    persist(&store, &to_everybody(&header(3), &everybody)).await;
    send(&store, &header(4), &titled("none"), &["user:a"]).await;
    let all = store.topics("user:a", &Query::default()).await.unwrap();
    assert_eq!(all, ["a", "b", "c"]);
    let high = Query {
        minimum_severity: Some(Severity::High),
        ..Query::default()
    };
    assert_eq!(store.topics("user:a", &high).await.unwrap(), ["c"]);
    let id = id(&store, "user:a", "a").await;
    mark(&store, "user:a", &[id], READ).await;
    let read = Query {
        read: Some(true),
        ..Query::default()
    };
    assert_eq!(store.topics("user:a", &read).await.unwrap(), ["a"]);
}

pub(crate) async fn one_is_found_by_its_owner_alone(store: Arc<dyn Store>) {
    send(&store, &header(0), &titled("mine"), &["user:a"]).await;
    persist(&store, &to_everybody(&header(1), &titled("all"))).await;
    let (mine, all) = (
        id(&store, "user:a", "mine").await,
        id(&store, "user:b", "all").await,
    );
    mark(&store, "user:a", &[all], SAVED).await;
    let get = async |user, id| store.get(user, id).await.unwrap();
    assert_eq!(get("user:a", mine).await.unwrap().payload.title, "mine");
    assert_eq!(get("user:b", mine).await, None);
    assert!(get("user:a", all).await.unwrap().saved.is_some());
    assert!(get("user:b", all).await.unwrap().saved.is_none());
    assert_eq!(get("user:a", Uuid::new_v4()).await, None);
}

pub(crate) async fn counts_follow_the_marks(store: Arc<dyn Store>) {
    assert_eq!(counts(&store, "user:a").await, (0, 0));
    send(&store, &header(0), &titled("1"), &["user:a"]).await;
    send(&store, &header(1), &titled("2"), &["user:a"]).await;
    persist(&store, &to_everybody(&header(2), &titled("all"))).await;
    assert_eq!(counts(&store, "user:a").await, (3, 0));
    let ids: Vec<Uuid> = inbox(&store, "user:a")
        .await
        .iter()
        .map(|row| row.id)
        .collect();
    let read = mark(&store, "user:a", &ids, READ).await;
    assert!(read.iter().all(|row| row.read.is_some()));
    let order: Vec<Uuid> = read.iter().map(|row| row.id).collect();
    assert_eq!(order, ids, "newest first");
    assert_eq!(counts(&store, "user:a").await, (0, 3));
    assert_eq!(counts(&store, "user:b").await, (1, 0));
    // Again, and twice in one call: nothing more to count.
    let twice: Vec<Uuid> = ids.iter().chain(&ids).copied().collect();
    assert_eq!(mark(&store, "user:a", &twice, READ).await.len(), 3);
    assert_eq!(counts(&store, "user:a").await, (0, 3));
    mark(&store, "user:a", &ids[..2], UNREAD).await;
    assert_eq!(counts(&store, "user:a").await, (2, 1));
    mark(&store, "user:a", &ids, SAVED).await;
    assert_eq!(counts(&store, "user:a").await, (2, 1));
    assert_eq!(store.recount(false).await.unwrap(), 0);
}

pub(crate) async fn marks_are_cleared_and_kept_apart(store: Arc<dyn Store>) {
    send(&store, &header(0), &titled("mine"), &["user:a"]).await;
    persist(&store, &to_everybody(&header(1), &titled("all"))).await;
    for title in ["mine", "all"] {
        let id = [id(&store, "user:a", title).await];
        let one = async |change| {
            let row = mark(&store, "user:a", &id, change).await.remove(0);
            (row.read.is_some(), row.saved.is_some())
        };
        assert_eq!(one(SAVED).await, (false, true));
        assert_eq!(one(READ).await, (true, true));
        assert_eq!(one(Mark::default()).await, (true, true));
        assert_eq!(one(UNREAD).await, (false, true));
        let neither = Mark {
            read: Some(false),
            saved: Some(false),
        };
        assert_eq!(one(neither).await, (false, false));
    }
    assert_eq!(store.recount(false).await.unwrap(), 0);
}

pub(crate) async fn ids_of_others_are_not_marked(store: Arc<dyn Store>) {
    send(&store, &header(0), &titled("t"), &["user:a"]).await;
    let id = id(&store, "user:a", "t").await;
    let marked = mark(&store, "user:b", &[id, Uuid::new_v4()], READ).await;
    assert_eq!(marked, []);
    assert_eq!(mark(&store, "user:b", &[], READ).await, []);
    assert_eq!(counts(&store, "user:a").await, (1, 0));
    assert_eq!(counts(&store, "user:b").await, (0, 0));
}

pub(crate) async fn marking_all_reads_everything_once(store: Arc<dyn Store>) {
    send(&store, &header(0), &titled("1"), &["user:a", "user:b"]).await;
    send(&store, &header(1), &scoped("2", "s"), &["user:a"]).await;
    persist(&store, &to_everybody(&header(2), &titled("all"))).await;
    persist(&store, &to_everybody(&header(3), &titled("saved"))).await;
    let saved = id(&store, "user:a", "saved").await;
    mark(&store, "user:a", &[saved], SAVED).await;
    assert_eq!(store.mark_all_read("user:a").await.unwrap(), 4);
    assert_eq!(store.mark_all_read("user:a").await.unwrap(), 0);
    assert_eq!(counts(&store, "user:a").await, (0, 4));
    assert_eq!(counts(&store, "user:b").await, (3, 0));
    assert!(
        store
            .get("user:a", saved)
            .await
            .unwrap()
            .unwrap()
            .saved
            .is_some()
    );
    send(&store, &header(4), &scoped("2", "s"), &["user:a"]).await;
    assert_eq!(store.mark_all_read("user:a").await.unwrap(), 1);
    assert_eq!(store.recount(false).await.unwrap(), 0);
}

pub(crate) async fn a_hundred_thousand_are_marked_at_once(store: Arc<dyn Store>) {
    const MANY: u128 = 100_000;
    send(&store, &header(0), &titled("mine"), &["user:a"]).await;
    persist(&store, &to_everybody(&header(1), &titled("for all"))).await;
    let mine = inbox(&store, "user:a").await;
    assert_eq!(counts(&store, "user:a").await, (2, 0));
    // "Mark all read" of the peer's page names every id; most of these are nobody's.
    let mut ids: Vec<Uuid> = (1..MANY).map(Uuid::from_u128).collect();
    ids.extend(mine.iter().map(|one| one.id));
    ids.extend(mine.iter().map(|one| one.id));
    let read = Mark {
        read: Some(true),
        saved: None,
    };
    let marked = store.mark("user:a", &ids, read).await.unwrap();
    assert_eq!(marked.len(), 2);
    assert!(marked.iter().all(|one| one.read.is_some()));
    assert_eq!(counts(&store, "user:a").await, (0, 2));
    let newest_first: Vec<Uuid> = inbox(&store, "user:a")
        .await
        .iter()
        .map(|one| one.id)
        .collect();
    assert_eq!(
        marked.iter().map(|one| one.id).collect::<Vec<_>>(),
        newest_first
    );
}
