//! `tidings import backstage`, from the tables that Backstage's own backend makes.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::Mutex;

use serde_json::Value;
use tempfile::TempDir;
use tidings::config::Config;
use tidings::config::Environment;
use tidings::config::Settings;
use tidings::runner::ImportEvent;
use tidings::runner::ImportReport;
use tidings::runner::import;
use tidings::sqlite::Sqlite;
use tidings::store::Counts;
use tidings::store::ImportPart;
use tidings::store::ImportStand;
use tidings::store::Query;
use tidings::store::Store;
use tidings::store::postgres::PostgresStore;
use tidings::store::postgres::peer::Peer;
use tidings::store::sqlite::SqliteStore;
use tidings::time::Timestamp;

use crate::support::app::TIDINGS;
use crate::support::postgres::Database;

const TABLES: &str = include_str!("import/backstage.sql");
const ROWS: &str = include_str!("import/rows.sql");

/// A Backstage's database with so many notifications and settings.
async fn backstage(rows: u32, settings: u32) -> Database {
    let database = Database::create().await;
    let rows = ROWS
        .replace(":rows", &rows.to_string())
        .replace(":settings", &settings.to_string());
    let client = database.client().await;
    client.batch_execute(TABLES).await.unwrap();
    client.batch_execute(&rows).await.unwrap();
    database
}

/// A Tidings on one file.
fn embedded() -> (TempDir, Settings) {
    let dir = tempfile::tempdir().unwrap();
    let data = ("tidings.data".to_owned(), serde_json::json!(dir.path()));
    let config = Config::load(&[], &[data], &Environment::default()).unwrap();
    (dir, config.settings().unwrap())
}

/// A Tidings on PostgreSQL.
async fn distributed() -> (Database, Settings) {
    let database = Database::create().await;
    let flags = [
        ("tidings.store.url".to_owned(), Value::from(database.url())),
        ("tidings.queue.url".to_owned(), Value::from("amqp://h/v")),
    ];
    let config = Config::load(&[], &flags, &Environment::default()).unwrap();
    (database, config.settings().unwrap())
}

fn opened(settings: &Settings) -> Arc<dyn Store> {
    match &settings.store {
        Some(store) => Arc::new(PostgresStore::connect(&store.url).unwrap()),
        None => Arc::new(SqliteStore::new(Sqlite::open(&settings.data).unwrap())),
    }
}

async fn run(settings: &Settings, from: &Database) -> ImportReport {
    import(settings, &from.url(), false, &|_| {}).await.unwrap()
}

fn new(report: &ImportReport) -> Vec<u64> {
    report.parts.iter().map(|one| one.new).collect()
}

/// Everything comes once, with its id, dates and marks, and is counted.
async fn comes_once(settings: Settings) {
    let there = backstage(5_000, 1_000).await;
    let first = run(&settings, &there).await;
    assert_eq!(new(&first), [50, 250, 5_000, 1_000]);
    let again = run(&settings, &there).await;
    assert_eq!(new(&again), [0, 0, 0, 0]);
    let reads = |report: &ImportReport| -> Vec<(u64, u64)> {
        report
            .parts
            .iter()
            .map(|one| (one.there, one.read))
            .collect()
    };
    assert_eq!(reads(&first), reads(&again));

    let store = opened(&settings);
    assert_eq!(store.recount(false).await.unwrap(), 0);
    assert_eq!(store.summary().await.unwrap().notifications, 5_050);
    let client = there.client().await;
    for user in ["user:default/p1", "user:default/p10", "user:default/p999"] {
        let page = store.list(user, &Query::default()).await.unwrap();
        let mut found = page.notifications;
        found.sort_by_key(|one| one.id);
        let rows = client
            .query(
                r#"select id, title, description, severity, link, origin, scope, topic, icon,
                    metadata, created, updated, read, saved
                   from notification where "user" = $1
                   union all
                   select id, title, description, severity, link, origin, scope, topic, icon,
                    metadata, created, updated, read, saved
                   from broadcast left join broadcast_user_status on broadcast_id = id and "user" = $1
                   order by 1"#,
                &[&user],
            )
            .await
            .unwrap();
        assert_eq!(found.len(), rows.len());
        for (here, row) in found.iter().zip(&rows) {
            let payload = &here.payload;
            assert_eq!(here.id, row.get::<_, uuid::Uuid>(0));
            let text = |at: usize| row.get::<_, Option<String>>(at);
            assert_eq!(Some(&payload.title), text(1).as_ref());
            assert_eq!(payload.description, text(2));
            assert_eq!(Some(payload.severity().to_string()), text(3));
            assert_eq!(payload.link, text(4));
            assert_eq!(Some(&here.origin), text(5).as_ref());
            assert_eq!((&payload.scope, &payload.topic), (&text(6), &text(7)));
            assert_eq!(payload.icon, text(8));
            let metadata = text(9).map(|text| serde_json::from_str(&text).unwrap());
            assert_eq!(payload.metadata, metadata);
            let date = |at: usize| row.get::<_, Option<Timestamp>>(at);
            assert_eq!(Some(here.created), date(10));
            assert_eq!(
                (here.updated, here.read, here.saved),
                (date(11), date(12), date(13))
            );
        }
        let unread = found.iter().filter(|one| one.read.is_none()).count() as u64;
        let read = found.len() as u64 - unread;
        assert_eq!(store.counts(user).await.unwrap(), Counts { unread, read });
        let settings = store.settings(&[user.to_owned()]).await.unwrap();
        let stored = r#"select count(*) from user_settings where "user" = $1 and enabled"#;
        let on: i64 = client.query_one(stored, &[&user]).await.unwrap().get(0);
        assert_eq!(settings.iter().filter(|one| one.enabled).count() as i64, on);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn from_postgres_everything_comes_once_into_the_file() {
    let (_dir, settings) = embedded();
    comes_once(settings).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn from_postgres_everything_comes_once_into_the_database() {
    let (_database, settings) = distributed().await;
    comes_once(settings).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn from_postgres_an_import_goes_on_where_it_stopped() {
    let there = backstage(6_000, 100).await;
    let (_dir, settings) = embedded();
    let peer = Peer::connect(&there.url()).await.unwrap();
    let part = ImportPart::Notifications;
    let batch = peer.read(part, &[], 2_000).await.unwrap().unwrap();
    let stand = ImportStand {
        part,
        after: batch.last,
        rows: batch.read,
    };
    let store = opened(&settings);
    let taken = store.import(peer.place(), &batch.rows, Some(&stand)).await;
    assert_eq!(taken.unwrap(), 2_000);
    drop(store);

    let seen = Mutex::new(Vec::new());
    let told = |event| seen.lock().unwrap().push(event);
    let report = import(&settings, &there.url(), false, &told).await.unwrap();
    let notifications = report.parts[2];
    assert_eq!((notifications.before, notifications.read), (2_000, 4_000));
    assert_eq!(notifications.new, 4_000);
    // What comes before it was done; what comes after it was not.
    assert_eq!((report.parts[0].read, report.parts[3].read), (0, 100));
    let begins = ImportEvent::Begins {
        part,
        there: 6_000,
        done: 2_000,
    };
    assert!(seen.lock().unwrap().contains(&begins));
    // The next one begins anew, and finds what was not there before.
    assert_eq!(new(&run(&settings, &there).await), [60, 300, 0, 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn from_postgres_odd_rows_lose_what_is_odd_and_nothing_else() {
    let there = Database::create().await;
    let client = there.client().await;
    client.batch_execute(TABLES).await.unwrap();
    client
        .batch_execute(
            r#"insert into notification (id, "user", title, severity, origin, scope, metadata)
             select gen_random_uuid(), 'User:Default/Odd', t, s, 'plugin:o', 'same', m from (values
              ('broken', 'high', '{"a": secret-canary'), ('list', 'high', '[1]'),
              ('level', 'fatal', null)) as v(t, s, m);
             insert into user_settings ("user", channel, origin, topic, enabled, settings_key_hash)
             values ('user:default/a', 'Web', 'plugin:o', null, true, 'with a stray brace'),
              ('user:default/a', 'Web', 'plugin:o', null, false, 'without'),
              ('user:default/a', 'Web', 'plugin:o', 't', true, 'topic')"#,
        )
        .await
        .unwrap();
    let (_dir, settings) = embedded();
    let odd = Mutex::new(Vec::new());
    let told = |event| {
        if let ImportEvent::Odd(sentence) = event {
            odd.lock().unwrap().push(sentence);
        }
    };
    let report = import(&settings, &there.url(), false, &told).await.unwrap();
    assert_eq!((new(&report), report.odd), (vec![0, 0, 3, 2], 4));
    let odd = odd.into_inner().unwrap().join("\n");
    for word in [
        "metadata is not a JSON object",
        "becomes normal",
        "off wins",
    ] {
        assert!(odd.contains(word), "{odd}");
    }
    assert!(!odd.contains("canary"), "{odd}");
    let store = opened(&settings);
    let page = store
        .list("User:Default/Odd", &Query::default())
        .await
        .unwrap();
    assert_eq!(page.total, 3);
    let stored = store
        .settings(&["user:default/a".to_owned()])
        .await
        .unwrap();
    let stored: Vec<_> = stored
        .iter()
        .map(|one| (one.topic.as_deref(), one.enabled))
        .collect();
    assert_eq!(stored, [(None, false), (Some("t"), true)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn from_postgres_older_tables_in_a_shared_database_are_found() {
    let there = Database::create().await;
    let client = there.client().await;
    client
        .batch_execute(&format!(
            r#"create schema notifications; set search_path = notifications; {TABLES};
             alter table notification drop column icon, drop column metadata;
             alter table broadcast drop column icon, drop column metadata;
             alter table user_settings drop column topic, drop column settings_key_hash;
             insert into notification (id, "user", title, severity, origin)
             values (gen_random_uuid(), 'user:default/a', 't', 'low', 'plugin:o');
             insert into user_settings values ('user:default/a', 'Web', 'plugin:o', false)"#
        ))
        .await
        .unwrap();
    let (_dir, settings) = embedded();
    assert_eq!(new(&run(&settings, &there).await), [0, 0, 1, 1]);
}

/// Runs the command with nothing of this process's environment that it would heed.
fn command(dir: &Path, args: &[&str], environment: &[(&str, &str)]) -> (String, String, i32) {
    let output = Command::new(TIDINGS)
        .args(["import", "backstage"])
        .args(args)
        .current_dir(dir)
        .env_remove("PGPASSWORD")
        .envs(environment.iter().copied())
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let code = output.status.code().unwrap_or(-1);
    (text(output.stdout), text(output.stderr), code)
}

#[tokio::test(flavor = "multi_thread")]
async fn from_postgres_the_command_says_what_it_did_and_what_it_would_do() {
    let there = backstage(200, 100).await;
    let dir = tempfile::tempdir().unwrap();
    let url = there.url();
    let (out, err, code) = command(dir.path(), &["--from", &url, "--dry-run"], &[]);
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("notifications           200 there\n"), "{out}");
    assert!(out.ends_with("Nothing was written.\n"), "{out}");
    assert!(!dir.path().join("tidings-data").exists());

    std::fs::write(dir.path().join("url"), format!("{url}\n")).unwrap();
    let (out, err, code) = command(dir.path(), &["--from-file", "url"], &[]);
    assert_eq!(code, 0, "{err}");
    assert!(
        out.contains("notifications           200 there           200 new\n"),
        "{out}"
    );
    let from = [("TIDINGS_IMPORT_FROM", url.as_str())];
    let (out, _, code) = command(dir.path(), &["--json"], &from);
    let lines: Vec<Value> = out
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!((code, lines.len()), (0, 4));
    assert_eq!(
        (&lines[2]["part"], &lines[2]["new"]),
        (&"notifications".into(), &0.into())
    );

    // A running Tidings has the file.
    let _running = Sqlite::open(&dir.path().join("tidings-data")).unwrap();
    let (out, err, code) = command(dir.path(), &["--from", &url], &[]);
    assert_eq!((out.as_str(), code), ("", 1));
    assert!(err.contains("in use") && err.contains("help: "), "{err}");
}

#[test]
fn a_database_that_cannot_be_read_is_named_without_its_password() {
    let dir = tempfile::tempdir().unwrap();
    let nobody = "postgres://backstage:canary@127.0.0.1:1";
    let (_, err, code) = command(dir.path(), &["--from", nobody], &[]);
    assert_eq!(code, 1);
    let place = "127.0.0.1:1/backstage_plugin_notifications";
    assert!(err.contains(place) && !err.contains("canary"), "{err}");
    let (_, err, _) = command(dir.path(), &["--from", "mysql://u:canary@h/d"], &[]);
    assert!(
        err.contains("not a PostgreSQL URL") && !err.contains("canary"),
        "{err}"
    );
    let (_, err, code) = command(dir.path(), &[], &[]);
    assert!(code == 2 && err.contains("--from"), "{err}");
    let (_, err, code) = command(dir.path(), &["--from-file", "no"], &[]);
    assert!(code == 2 && err.contains("  --> no"), "{err}");
}
