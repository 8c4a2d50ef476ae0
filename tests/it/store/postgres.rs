//! The store on PostgreSQL, under the suite, and what only PostgreSQL has: schemas, roles,
//! connections that break, and several processes at once.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tidings::delivery::Attempt;
use tidings::delivery::DeliveryState;
use tidings::failure::Reason;
use tidings::store::ChunkRows;
use tidings::store::Claim;
use tidings::store::Counts;
use tidings::store::DeadFilter;
use tidings::store::DeadLetter;
use tidings::store::Find;
use tidings::store::Mark;
use tidings::store::Process;
use tidings::store::Query;
use tidings::store::Retention;
use tidings::store::Settle;
use tidings::store::Store;
use tidings::store::StoreError;
use tidings::store::postgres::PostgresStore;
use tidings::store::postgres::SCHEMA_VERSION;
use tidings::time::Timestamp;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use uuid::Uuid;

use super::Harness;
use crate::support::postgres::Database;
use crate::support::store::CHANNEL;
use crate::support::store::ORIGIN;
use crate::support::store::at;
use crate::support::store::header;
use crate::support::store::keyed;
use crate::support::store::scoped;
use crate::support::store::send;
use crate::support::store::titled;
use crate::support::store::to_everybody;
use crate::support::store::to_people;

/// A store in a database of its own.
struct Distributed {
    _database: Database,
    store: Arc<dyn Store>,
}

impl Harness for Distributed {
    const STORIES: u32 = 12;

    async fn start() -> Self {
        let (_database, store) = store().await;
        Self { _database, store }
    }

    fn store(&self) -> Arc<dyn Store> {
        Arc::clone(&self.store)
    }

    async fn stop(self) {}
}

super::conformance!(Distributed);

/// A database with the schema, and a store on it.
async fn store() -> (Database, Arc<dyn Store>) {
    let database = Database::create().await;
    let store = PostgresStore::connect(&database.url()).unwrap();
    store.migrate().await.unwrap();
    (database, Arc::new(store))
}

/// Ends every connection of stores: PostgreSQL's statistics hold all of what one did only then.
async fn end_connections(database: &Database) {
    let end = "select count(pg_terminate_backend(pid)) from pg_stat_activity
        where datname = current_database() and application_name = 'tidings'";
    while database.number(end).await > 0 {}
}

// -- the schema

#[tokio::test]
async fn inboxes_are_emptied_by_one_process_at_a_time() {
    let (database, store) = store().await;
    send(&store, &header(0), &titled("old"), &["user:default/a"]).await;
    let later = Timestamp::now().plus(Duration::from_secs(60));
    let other = database.client().await;
    let lock = "begin; select pg_advisory_xact_lock(x'74690004'::integer, 0)";
    other.batch_execute(lock).await.unwrap();
    assert_eq!(store.expire(later, true, 10).await.unwrap(), 0);
    other.batch_execute("commit").await.unwrap();
    assert_eq!(store.expire(later, true, 10).await.unwrap(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn several_processes_migrate_at_once() {
    let database = Database::create().await;
    let mut starts = JoinSet::new();
    for _ in 0..6 {
        let store = PostgresStore::connect(&database.url()).unwrap();
        starts.spawn(async move { store.migrate().await.unwrap() });
    }
    let reports = starts.join_all().await;
    let working = reports.iter().filter(|one| !one.applied.is_empty()).count();
    assert_eq!(working, 1, "{reports:?}");
    assert!(reports.iter().all(|one| one.to == SCHEMA_VERSION));
    let again = PostgresStore::connect(&database.url()).unwrap();
    again.prepare().await.unwrap();
    again.ready().await.unwrap();
}

#[tokio::test]
async fn a_database_without_a_schema_says_what_to_run() {
    let database = Database::create().await;
    let store = PostgresStore::connect(&database.url()).unwrap();
    for error in [
        store.ready().await.unwrap_err(),
        store.counts("user:default/a").await.unwrap_err(),
    ] {
        assert!(matches!(error, StoreError::Schema(_)), "{error:?}");
        assert!(error.to_string().contains("tidings migrate"), "{error}");
    }
    // The same store works as soon as somebody has migrated.
    store.migrate().await.unwrap();
    store.ready().await.unwrap();
    store.counts("user:default/a").await.unwrap();
}

#[tokio::test]
async fn a_schema_of_a_newer_version_is_no_trouble() {
    let (database, store) = store().await;
    let newer = SCHEMA_VERSION + 1;
    database
        .client()
        .await
        .batch_execute(&format!(
            "insert into schema_history (version, name, applied_on, checksum)
             values ({newer}, 'later', '2030-01-01T00:00:00Z', '1')"
        ))
        .await
        .unwrap();
    store.ready().await.unwrap();
    let again = PostgresStore::connect(&database.url()).unwrap();
    again.prepare().await.unwrap();
}

#[tokio::test]
async fn a_read_only_database_is_not_ready() {
    let (database, _) = store().await;
    let url = format!(
        "{}?options=-c%20default_transaction_read_only%3Don",
        database.url()
    );
    let standby = PostgresStore::connect(&url).unwrap();
    let error = standby.ready().await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");
    assert!(error.to_string().contains("takes no writes"), "{error}");
}

// -- rights

/// Roles belong to the whole server: each test has its own set of the roles in `deploy/`.
struct Roles {
    database: Database,
    prefix: String,
}

impl Roles {
    async fn create(database: Database) -> Self {
        let prefix = format!("t{}", Uuid::new_v4().simple());
        let roles = Self { database, prefix };
        roles
            .run(include_str!("../../../deploy/postgres/roles.sql"))
            .await;
        roles
    }

    async fn grant(&self) {
        self.run(include_str!("../../../deploy/postgres/grants.sql"))
            .await;
    }

    async fn run(&self, sql: &str) {
        let sql = sql.replace("tidings_", &format!("{}_", self.prefix));
        self.database
            .client()
            .await
            .batch_execute(&sql)
            .await
            .unwrap();
    }

    fn name(&self, role: &str) -> String {
        format!("{}_{role}", self.prefix)
    }

    fn store(&self, role: &str) -> PostgresStore {
        PostgresStore::connect(&self.database.url_as(&self.name(role))).unwrap()
    }

    /// Drops the roles; what is left of a test that failed has no rights anywhere.
    async fn drop_all(self) {
        let client = self.database.client().await;
        for role in ["migrate", "ingest", "decorator", "sender", "inbox"] {
            let name = self.name(role);
            let sql = format!("drop owned by {name} cascade; drop role {name}");
            client.batch_execute(&sql).await.unwrap();
        }
    }
}

#[tokio::test]
async fn only_the_migrating_role_makes_the_schema_and_the_others_wait_for_it() {
    let roles = Roles::create(Database::create().await).await;
    let owner = roles.name("migrate");
    roles
        .run(&format!("grant create on schema public to {owner}"))
        .await;
    let decorator = roles.store("decorator");
    let error = decorator.prepare().await.unwrap_err();
    assert!(matches!(error, StoreError::Schema(_)), "{error:?}");
    assert!(error.to_string().contains("tidings migrate"), "{error}");
    let error = decorator.migrate().await.unwrap_err();
    assert!(matches!(error, StoreError::Schema(_)), "{error:?}");

    roles.store("migrate").prepare().await.unwrap();
    let error = decorator.ready().await.unwrap_err();
    assert!(matches!(error, StoreError::Schema(_)), "{error:?}");
    assert!(error.to_string().contains("grants.sql"), "{error}");
    roles.grant().await;
    decorator.prepare().await.unwrap();
    decorator.ready().await.unwrap();
    roles.drop_all().await;
}

/// The smallest letter.
fn letter(deliveries: Vec<Uuid>) -> DeadLetter {
    DeadLetter {
        id: 0,
        message: Uuid::new_v4().to_string(),
        stage: format!("deliver.{CHANNEL}"),
        reason: Reason::Rejected,
        detail: "no".to_owned(),
        tries: 1,
        died_at: at(0),
        submission: None,
        origin: None,
        deliveries,
        headers: Default::default(),
        body: Vec::new(),
        replayed_at: None,
    }
}

#[tokio::test]
async fn each_program_can_do_its_work_and_no_other() {
    let (database, _) = store().await;
    let roles = Roles::create(database).await;
    roles.grant().await;
    let [ingest, decorator, sender, inbox] = ["ingest", "decorator", "sender", "inbox"]
        .map(|role| -> Arc<dyn Store> { Arc::new(roles.store(role)) });
    let user = "user:default/a";
    for store in [&ingest, &decorator, &sender, &inbox] {
        store.ready().await.unwrap();
        let process = process();
        store.heartbeat(&process).await.unwrap();
        store.farewell(process.id).await.unwrap();
    }
    ingest.tokens().await.unwrap();
    ingest.touch_tokens(&["hash".to_owned()]).await.unwrap();

    let payload = scoped("t", "s");
    let ids = send(&decorator, &header(1), &payload, &[user]).await;
    send(&decorator, &header(2), &payload, &[user]).await;
    decorator
        .persist(&[to_everybody(&header(3), &payload)])
        .await
        .unwrap();
    decorator.settings(&[user.to_owned()]).await.unwrap();
    decorator.stranded(CHANNEL, at(0), 1).await.unwrap();
    decorator.file_dead(&[letter(Vec::new())]).await.unwrap();
    let past = Retention {
        submissions: at(0),
        dead_letters: at(0),
        processes: at(0),
    };
    decorator.prune(&past, 10).await.unwrap();
    decorator.expire(at(0), true, 10).await.unwrap();

    let token = Uuid::new_v4();
    sender
        .claim(&ids, token, Duration::from_secs(60))
        .await
        .unwrap();
    assert_eq!(sender.earlier(&ids).await.unwrap(), [None]);
    sender.release(token, &ids).await.unwrap();
    sender
        .claim(&ids, token, Duration::from_secs(60))
        .await
        .unwrap();
    let attempt = Attempt {
        delivery: ids[0],
        state: DeliveryState::Failed,
        reason: Some(Reason::Rejected),
        detail: None,
        provider_id: None,
        next_at: None,
        uncounted: false,
    };
    let letters = [letter(vec![ids[0]])];
    assert_eq!(
        sender.record(token, &[attempt], &letters).await.unwrap(),
        ids
    );
    sender.expand(token, ids[0], &[]).await.unwrap();

    let page = inbox.list(user, &Query::default()).await.unwrap();
    assert_eq!(page.total, 2);
    let read = Mark {
        read: Some(true),
        saved: Some(true),
    };
    let all: Vec<Uuid> = page.notifications.iter().map(|one| one.id).collect();
    assert_eq!(inbox.mark(user, &all, read).await.unwrap().len(), 2);
    inbox.mark_all_read(user).await.unwrap();
    inbox.save_settings(user, &[]).await.unwrap();
    inbox
        .timeline(&Find::Id(header(1).id), None, 1)
        .await
        .unwrap();
    inbox.summary().await.unwrap();
    inbox.revoke_token("hash").await.unwrap();
    let dead = inbox.dead_letters(&DeadFilter::default()).await.unwrap();
    for how in [Settle::Reopen, Settle::Replayed, Settle::Discard] {
        assert_eq!(inbox.settle_dead(&[dead[0].id], how).await.unwrap(), 1);
    }

    for refused in [
        ingest.counts(user).await.map(drop),
        ingest.revoke_token("hash").await.map(drop),
        sender.list(user, &Query::default()).await.map(drop),
        sender.tokens().await.map(drop),
        decorator.tokens().await.map(drop),
        decorator.save_settings(user, &[]).await,
        inbox
            .persist(&[to_everybody(&header(4), &payload)])
            .await
            .map(drop),
    ] {
        assert!(matches!(refused, Err(StoreError::Schema(_))), "{refused:?}");
    }
    roles.drop_all().await;
}

fn process() -> Process {
    Process {
        id: Uuid::new_v4(),
        role: "inbox".to_owned(),
        host: "here".to_owned(),
        pid: 1,
        version: "0".to_owned(),
        admin: None,
        trouble: Vec::new(),
        started_at: at(0),
        seen_at: at(0),
    }
}

// -- several at once

/// A submission of one scope to these people.
fn overlapping(n: i64, people: &[String]) -> ChunkRows {
    let users: Vec<&str> = people.iter().map(String::as_str).collect();
    to_people(&header(n), &scoped(&format!("send {n}"), "shared"), &users)
}

#[tokio::test(flavor = "multi_thread")]
async fn overlapping_sends_at_once_neither_deadlock_nor_lose_one() {
    let (database, store) = store().await;
    let people: Vec<String> = (0..60).map(|n| format!("user:default/p{n:02}")).collect();
    let mut work = JoinSet::new();
    for worker in 0..6_i64 {
        let (store, people) = (Arc::clone(&store), people.clone());
        work.spawn(async move {
            for round in 0..8 {
                let n = round * 6 + worker;
                // Each in a different order, with news of their own beside the shared scope.
                let mut own = to_people(
                    &header(n),
                    &titled("own"),
                    &people.iter().rev().map(String::as_str).collect::<Vec<_>>(),
                );
                own.rows.rotate_left(usize::try_from(n).unwrap());
                store
                    .persist(&[own, overlapping(n, &people)])
                    .await
                    .unwrap();
                let user = &people[usize::try_from(n).unwrap()];
                store.mark_all_read(user).await.unwrap();
            }
        });
    }
    work.join_all().await;
    end_connections(&database).await;
    let deadlocks = "select deadlocks from pg_stat_database where datname = current_database()";
    assert_eq!(database.number(deadlocks).await, 0);
    for user in &people {
        let page = store.list(user, &Query::default()).await.unwrap();
        assert_eq!(page.total, 49, "{user}");
        let shared = page
            .notifications
            .iter()
            .find(|one| one.payload.scope.is_some());
        assert_eq!(shared.unwrap().payload.title, "send 47", "{user}");
    }
    assert_eq!(store.recount(false).await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_bodies_under_one_key_at_once_one_stands() {
    let (database, store) = store().await;
    for round in 0..12 {
        let key = format!("key-{round}");
        let mut work = JoinSet::new();
        for (body, no) in [("one", 0), ("one", 1), ("two", 0), ("two", 1)] {
            let store = Arc::clone(&store);
            // Different people: nothing but the key makes them meet.
            let user = format!("user:default/{body}-{no}");
            let mut chunk = to_people(&keyed(&key, body), &titled(body), &[&user]);
            (chunk.no, chunk.of) = (no, 2);
            work.spawn(async move {
                let stored = store.persist(&[chunk]).await.unwrap().remove(0);
                (body, stored.first, stored.other_body)
            });
        }
        let ends = work.join_all().await;
        let first: HashSet<&str> = ends.iter().filter(|end| end.1).map(|end| end.0).collect();
        let other: HashSet<&str> = ends.iter().filter(|end| end.2).map(|end| end.0).collect();
        assert_eq!(first.len(), 1, "{ends:?}");
        assert!(first.is_disjoint(&other), "{ends:?}");
        assert!(ends.iter().all(|end| end.1 != end.2), "{ends:?}");
    }
    assert_eq!(
        database.number("select count(*) from notification").await,
        24
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn one_chunk_persisted_by_several_at_once_is_persisted_once() {
    let (database, store) = store().await;
    let people: Vec<String> = (0..40).map(|n| format!("user:default/p{n}")).collect();
    for n in 0..6 {
        let chunk = overlapping(n, &people);
        let mut work = JoinSet::new();
        for _ in 0..4 {
            let (store, chunk) = (Arc::clone(&store), chunk.clone());
            work.spawn(async move { store.persist(&[chunk]).await.unwrap().remove(0) });
        }
        let answers = work.join_all().await;
        assert_eq!(answers.iter().filter(|one| one.first).count(), 1);
        assert!(answers.iter().all(|one| one.pending.len() == 40));
        assert!(answers.iter().all(|one| one.rows.len() == 40));
    }
    assert_eq!(
        database.number("select count(*) from notification").await,
        40
    );
    assert_eq!(store.recount(false).await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn marks_of_one_person_at_once_are_counted_once() {
    let (_database, store) = store().await;
    let user = "user:default/a";
    let mut ids = Vec::new();
    for n in 0..8 {
        let chunk = if n % 2 == 0 {
            to_everybody(&header(n), &titled("t"))
        } else {
            to_people(&header(n), &titled("t"), &[user])
        };
        ids.push(chunk.rows[0].id);
        store.persist(&[chunk]).await.unwrap();
    }
    let mut work = JoinSet::new();
    for turn in 0..12 {
        let (store, mut ids) = (Arc::clone(&store), ids.clone());
        ids.rotate_left(turn % 8);
        let read = Some(turn % 3 != 0);
        work.spawn(async move {
            let mark = Mark { read, saved: read };
            store.mark(user, &ids, mark).await.unwrap();
        });
    }
    work.join_all().await;
    assert_eq!(store.recount(false).await.unwrap(), 0);
    store.mark_all_read(user).await.unwrap();
    let all = Counts { unread: 0, read: 8 };
    assert_eq!(store.counts(user).await.unwrap(), all);
}

// -- counters

#[tokio::test]
async fn wrong_counters_are_found_and_mended() {
    let (database, store) = store().await;
    let user = "user:default/a";
    send(&store, &header(1), &titled("t"), &[user, "user:default/b"]).await;
    store
        .persist(&[to_everybody(&header(2), &titled("t"))])
        .await
        .unwrap();
    assert_eq!(store.recount(false).await.unwrap(), 0);
    database
        .client()
        .await
        .batch_execute(
            "update inbox_count set unread = 7 where \"user\" = 'user:default/a';
             delete from inbox_count where \"user\" = 'user:default/b';
             insert into inbox_count values ('user:default/nobody', 1, 1, 0)",
        )
        .await
        .unwrap();
    assert_eq!(store.recount(false).await.unwrap(), 3);
    assert_eq!(store.recount(true).await.unwrap(), 3);
    assert_eq!(store.recount(false).await.unwrap(), 0);
    assert_eq!(
        store.counts(user).await.unwrap(),
        Counts { unread: 2, read: 0 }
    );
}

// -- connections

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_break_are_replaced_and_nothing_is_lost() {
    let (database, store) = store().await;
    let admin = database.client().await;
    let kill = "select count(pg_terminate_backend(pid)) from pg_stat_activity
        where datname = current_database() and pid <> pg_backend_pid()
         and application_name = 'tidings'";
    let people: Vec<String> = (0..20).map(|n| format!("user:default/p{n:02}")).collect();
    let mut work = JoinSet::new();
    for worker in 0..3_i64 {
        let (store, people) = (Arc::clone(&store), people.clone());
        work.spawn(async move {
            for round in 0..40 {
                let chunk = overlapping(round * 3 + worker, &people);
                let mut done = false;
                // What a worker does: it keeps the message until the store is back.
                for _ in 0..100 {
                    match store.persist(std::slice::from_ref(&chunk)).await {
                        Ok(_) => done = true,
                        Err(StoreError::Unavailable(_)) => continue,
                        Err(other) => panic!("{other}"),
                    }
                    break;
                }
                assert!(done);
            }
        });
    }
    let mut killed = 0;
    while !work.is_empty() {
        let row = admin.query_one(kill, &[]).await.unwrap();
        killed += row.get::<_, i64>(0);
        let pause = tokio::time::timeout(Duration::from_millis(40), work.join_next());
        if let Ok(Some(ended)) = pause.await {
            ended.unwrap();
        }
    }
    assert!(killed > 0);
    assert_eq!(
        database
            .number("select count(*) from submission_chunk")
            .await,
        120
    );
    assert_eq!(store.recount(false).await.unwrap(), 0);
}

#[tokio::test]
async fn a_server_that_never_answers_is_given_up() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = silent.local_addr().unwrap().port();
    let url = format!("postgres://u:secret@127.0.0.1:{port}/db");
    let store = PostgresStore::connect(&url).unwrap();
    let error = store.ready().await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");
    let text = error.to_string();
    assert!(text.contains(&port.to_string()), "{text}");
    assert!(!text.contains("secret"), "{text}");
}

#[tokio::test]
async fn a_busy_pool_is_not_waited_for_for_ever() {
    let (database, _) = store().await;
    let store = PostgresStore::connect_with(&database.url(), 1).unwrap();
    let mut holder = database.client().await;
    let lock = holder.transaction().await.unwrap();
    lock.batch_execute("lock table inbox_count").await.unwrap();
    let waiting = tokio::spawn({
        let store = store.clone();
        async move { store.counts("user:default/a").await }
    });
    let waits = "select count(*) from pg_stat_activity where wait_event_type = 'Lock'
        and datname = current_database()";
    while database.number(waits).await == 0 {}
    let error = store.counts("user:default/b").await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");
    assert!(error.to_string().contains("busy"), "{error}");
    lock.commit().await.unwrap();
    waiting.await.unwrap().unwrap();
}

// -- content that PostgreSQL does not take

#[tokio::test]
async fn one_bad_row_is_refused_and_says_nothing_of_its_content() {
    let (database, store) = store().await;
    let mut chunk = to_people(&header(1), &titled("t"), &["user:default/a"]);
    chunk.payload.description = Some("canary\0".to_owned());
    let error = store.persist(&[chunk]).await.unwrap_err();
    assert!(matches!(error, StoreError::Refused(_)), "{error:?}");
    assert!(!error.to_string().contains("canary"), "{error}");
    assert_eq!(
        database
            .number("select count(*) from submission_chunk")
            .await,
        0
    );
    // A dead letter must be kept, whatever it holds.
    let bad = DeadLetter {
        detail: "a\0b".to_owned(),
        headers: [("k".to_owned(), "v\0".to_owned())].into(),
        ..letter(Vec::new())
    };
    store.file_dead(std::slice::from_ref(&bad)).await.unwrap();
    let filed = store.dead_letters(&DeadFilter::default()).await.unwrap();
    assert_eq!(filed[0].detail, "a\u{fffd}b");
    assert_eq!(filed[0].headers, bad.headers);
}

// -- indexes

/// Two thousand people with ten notifications each, one of them with five thousand, and some
/// broadcasts.
async fn fill(database: &Database) {
    database
        .client()
        .await
        .batch_execute(
            "insert into notification (id, \"user\", origin, title, severity, created, read,
              submission, accepted_at)
             select gen_random_uuid(),
              'user:default/p' || case when n < 5000 then 0 else n % 2000 end, 'o', 't', 2,
              now() - n * interval '1 second', case when n % 9 > 0 then now() end,
              gen_random_uuid(), now()
             from generate_series(1, 25000) n;
             insert into broadcast (id, origin, title, severity, created, submission, accepted_at)
             select gen_random_uuid(), 'o', 't', 2, now() - n * interval '1 hour',
              gen_random_uuid(), now()
             from generate_series(1, 300) n;
             insert into inbox_count (\"user\", unread, total)
             select \"user\", count(*) filter (where read is null), count(*)
             from notification group by 1;
             insert into inbox_count (\"user\", total) values ('*', 300);
             insert into broadcast_mark (\"user\", broadcast, read)
             select 'user:default/p' || n, id, now()
             from broadcast, generate_series(1, 50) n;
             insert into submission_chunk
             select gen_random_uuid(), 0, 1, 'o', null, 'http', 'd', now() - n * interval '1 hour',
              now(), now(), false, '{\"title\":\"t\"}', null, '{}', 1, 0, 0, 0
             from generate_series(1, 5000) n;
             insert into delivery (id, submission, chunk, notification, channel, target, state,
              due_at, sweep_at, created_at, updated_at)
             select gen_random_uuid(), submission, 0, gen_random_uuid(), 'email', '', 'sent',
              now(), now(), now(), now()
             from submission_chunk, generate_series(1, 5);
             analyze",
        )
        .await
        .unwrap();
}

#[tokio::test]
async fn the_pipeline_and_the_inbox_never_scan_a_table() {
    const SCANNED: &str = "select coalesce(sum(seq_scan), 0)::bigint from pg_stat_user_tables
        where relname in ('notification', 'delivery', 'submission_chunk', 'broadcast_mark')";
    let (database, _) = store().await;
    fill(&database).await;
    let before = database.number(SCANNED).await;
    // One connection, so that plans for any value come into use as well.
    let store = PostgresStore::connect_with(&database.url(), 1).unwrap();
    let user = "user:default/p0";
    let unread = Query {
        limit: Some(5),
        read: Some(false),
        ..Query::default()
    };
    let topic = Query {
        topic: Some("x".to_owned()),
        created_after: Some(Timestamp::now()),
        ..unread.clone()
    };
    for n in 0..8 {
        let people: Vec<String> = (n..n + 50).map(|n| format!("user:default/p{n}")).collect();
        let chunk = overlapping(n, &people);
        let pending = store
            .persist(std::slice::from_ref(&chunk))
            .await
            .unwrap()
            .remove(0)
            .pending;
        store.persist(&[chunk]).await.unwrap();
        let token = Uuid::new_v4();
        let claims = store
            .claim(&pending, token, Duration::from_secs(60))
            .await
            .unwrap();
        assert!(
            claims
                .iter()
                .all(|claim| matches!(claim, Claim::Mine { .. }))
        );
        let sent = pending.iter().map(|id| Attempt {
            delivery: *id,
            state: DeliveryState::Sent,
            reason: None,
            detail: None,
            provider_id: None,
            next_at: None,
            uncounted: false,
        });
        store
            .record(token, &sent.collect::<Vec<_>>(), &[])
            .await
            .unwrap();
        store.stranded(CHANNEL, at(0), 100).await.unwrap();
        store.expire(at(0), true, 100).await.unwrap();
        for query in [
            &unread,
            &topic,
            &Query {
                limit: Some(20),
                ..Query::default()
            },
        ] {
            store.list(user, query).await.unwrap();
        }
        let page = store.list(user, &unread).await.unwrap();
        let ids: Vec<Uuid> = page.notifications.iter().map(|one| one.id).collect();
        store
            .mark(
                user,
                &ids,
                Mark {
                    read: Some(true),
                    saved: None,
                },
            )
            .await
            .unwrap();
        store
            .timeline(&Find::Suffix("0000abcd".to_owned()), None, 5)
            .await
            .unwrap();
        let find = Find::Key {
            origin: ORIGIN.to_owned(),
            key: "k".to_owned(),
        };
        store.timeline(&find, None, 5).await.unwrap();
    }
    end_connections(&database).await;
    assert_eq!(database.number(SCANNED).await, before);
}
