//! Each role as a process of its own: what it says of itself, how it starts, waits, stops, and
//! does without a server that is away.

use std::collections::BTreeSet;
use std::path::Path;
use std::path::PathBuf;
use std::process::Output;
use std::process::Stdio;
use std::time::Duration;

use reqwest::StatusCode;
use serde_json::Value;
use serde_json::json;

use crate::support::app::App;
use crate::support::app::DECORATOR;
use crate::support::app::INBOX;
use crate::support::app::INGEST;
use crate::support::app::LIMIT;
use crate::support::app::Process;
use crate::support::app::SENDER;
use crate::support::app::TIDINGS;
use crate::support::app::eventually;
use crate::support::app::person;
use crate::support::app::to;
use crate::support::servers::Server;

const LIST: &str = "/api/notifications/notifications";

/// Every binary, with the arguments without which it does not start.
const ROLES: [(&str, &[&str]); 5] = [
    (TIDINGS, &["up"]),
    (INGEST, &[]),
    (DECORATOR, &[]),
    (SENDER, &["email"]),
    (INBOX, &[]),
];

/// Where nothing listens: the port of "discard", which nobody runs.
const NO_BROKER: &str = "amqp://guest:guest@127.0.0.1:9/%2f";
/// The same.
const NO_DATABASE: &str = "postgres://postgres@127.0.0.1:9/postgres";

/// Runs a binary to its end.
async fn run(binary: &str, args: &[&str], dir: &Path) -> (String, String, i32) {
    let running = tokio::process::Command::new(binary)
        .args(args)
        .current_dir(dir)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let ended = tokio::time::timeout(LIMIT, running).await;
    let Output {
        stdout,
        stderr,
        status,
    } = ended.expect("it ends").unwrap();
    (
        String::from_utf8(stdout).unwrap(),
        String::from_utf8(stderr).unwrap(),
        status.code().unwrap_or(-1),
    )
}

/// What a path of the health port answers.
async fn ask(process: &Process, path: &str) -> Option<(StatusCode, String)> {
    let url = format!("http://{}{path}", process.admin);
    let response = reqwest::get(url).await.ok()?;
    Some((response.status(), response.text().await.ok()?))
}

/// What `/readyz` says is missing.
async fn missing(process: &Process) -> BTreeSet<String> {
    let (status, body) = ask(process, "/readyz").await.unwrap();
    let body: Value = serde_json::from_str(&body).unwrap();
    let missing: BTreeSet<String> = body["missing"]
        .as_object()
        .map(|missing| missing.keys().cloned().collect())
        .unwrap_or_default();
    assert_eq!(status.is_success(), missing.is_empty(), "{body}");
    missing
}

#[tokio::test]
async fn every_binary_says_what_it_is_and_how_to_run_it() {
    let dir = tempfile::tempdir().unwrap();
    for (binary, args) in ROLES {
        let help: Vec<&str> = args
            .iter()
            .copied()
            .filter(|arg| *arg == "up")
            .chain(["--help"])
            .collect();
        let (out, err, code) = run(binary, &help, dir.path()).await;
        assert_eq!((code, err.as_str()), (0, ""), "{binary}");
        assert!(out.contains("Examples:"), "{binary}: {out}");
        let (out, err, code) = run(binary, &["--version"], dir.path()).await;
        assert_eq!((code, err.as_str()), (0, ""), "{binary}");
        assert!(out.contains(tidings::runner::VERSION), "{binary}: {out}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_servers_every_role_waits_and_says_for_what_but_ingest_needs_no_store() {
    let processes = ROLES.map(|(binary, args)| (binary, args));
    let mut app = App::on_servers(NO_BROKER, NO_DATABASE, &processes[1..]).await;
    for (process, (binary, _)) in app.processes.iter_mut().zip(&processes[1..]) {
        let (status, _) = ask(process, "/healthz").await.unwrap();
        assert_eq!(status, StatusCode::OK, "{binary}");
        let mut want = BTreeSet::from(["queue".to_owned()]);
        if *binary != INGEST {
            want.insert("store".to_owned());
        }
        let missing = eventually("what is missing", async || {
            let missing = missing(process).await;
            want.is_subset(&missing).then_some(missing)
        })
        .await;
        assert_eq!(missing.contains("store"), *binary != INGEST, "{binary}");
        let (status, metrics) = ask(process, "/metrics").await.unwrap();
        assert_eq!(status, StatusCode::OK, "{binary}: {metrics}");
        let log = process.log();
        assert!(log.contains("not ready"), "{binary} says so:\n{log}");
        assert!(!log.contains("guest:guest"), "no password: {log}");
        let stopped = tokio::task::block_in_place(|| process.terminate());
        assert!(stopped, "{binary} stops all the same:\n{}", process.log());
    }
}

/// A directory with the shortest configuration that is not of development mode.
fn folder(lines: &str) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("tidings.yaml");
    let config = format!(
        "notifications: {{ processors: {{ email: {{ transportConfig: {{ transport: smtp, hostname: localhost, port: 9 }}, sender: tidings@example.com }} }} }}\n\
         tidings:\n  admin: {{ listen: \"127.0.0.1:0\" }}\n  data: data\n{lines}"
    );
    std::fs::write(&file, config).unwrap();
    (dir, file)
}

/// Whether it is an error as a person can use it: what, where, and what to do.
fn assert_helpful(said: &str, words: &[&str]) {
    for word in [&["error: ", "\n  --> ", "\nhelp: "], words].concat() {
        assert!(said.contains(word), "`{word}` is missing in:\n{said}");
    }
}

#[tokio::test]
async fn a_sender_that_is_not_configured_is_refused_with_help() {
    let (dir, _) = folder(&format!(
        "  queue: {{ url: \"{NO_BROKER}\" }}\n  store: {{ url: \"{NO_DATABASE}\" }}\n"
    ));
    let (_, err, code) = run(SENDER, &["nosuch"], dir.path()).await;
    assert!(code == 1 || code == 3, "{code}: {err}");
    assert_helpful(&err, &["nosuch", "notifications.processors.nosuch"]);
    let (_, err, code) = run(SENDER, &[], dir.path()).await;
    assert_eq!(code, 2, "{err}");
    assert!(err.contains("CHANNEL"), "{err}");
}

#[tokio::test]
async fn sqlite_a_port_that_is_taken_is_said_with_what_to_do() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (dir, _) = folder("");
    let (_, err, code) = run(TIDINGS, &["up", "--listen", &address], dir.path()).await;
    assert_eq!(code, 1, "{err}");
    assert_helpful(&err, &[&address, "already in use", "--listen"]);
    let (_, err, code) = run(
        TIDINGS,
        &["up", "--listen", "127.0.0.1:0", "--admin-listen", &address],
        dir.path(),
    )
    .await;
    assert_eq!(code, 1, "{err}");
    assert_helpful(&err, &[&address, "already in use", "--admin-listen"]);
    for (binary, args) in &ROLES[1..] {
        let (dir, _) = folder(&format!(
            "  queue: {{ url: \"{NO_BROKER}\" }}\n  store: {{ url: \"{NO_DATABASE}\" }}\n"
        ));
        let flags = [args, ["--admin-listen", address.as_str()].as_slice()].concat();
        let (_, err, code) = run(binary, &flags, dir.path()).await;
        assert_eq!(code, 1, "{binary}: {err}");
        assert_helpful(&err, &[&address, "already in use"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_a_data_directory_is_for_one_process() {
    let app = App::embedded().await;
    let other = ["up", "--config", "tidings.yaml", "--listen", "127.0.0.1:0"];
    let (_, err, code) = run(TIDINGS, &other, app.dir()).await;
    assert_eq!(code, 1, "{err}");
    assert_helpful(&err, &["data", "in use"]);
    let (status, _) = app.api.send(&to(&[&person(1)], "Still here"), &[]).await;
    assert_eq!(status, StatusCode::ACCEPTED);
}

#[tokio::test]
async fn a_bad_configuration_stops_every_role_with_the_line() {
    for (binary, args) in ROLES {
        let (dir, file) = folder("  drain: soon\n");
        let (_, err, code) = run(binary, args, dir.path()).await;
        assert_eq!(code, 3, "{binary}: {err}");
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        for word in ["error: ", "tidings.drain", &name, ":5", "soon"] {
            assert!(
                err.contains(word),
                "{binary}: `{word}` is missing in:\n{err}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn distributed_every_role_measures_what_it_does() {
    let app = App::by_role().await;
    app.ingest.send(&to(&[&person(1)], "Measured"), &[]).await;
    app.smtp.wait_for(1).await;
    let _page = app
        .api
        .http()
        .get(app.api.url("/api/tidings/v1/stream"))
        .bearer_auth(app.api.user_token(&person(1)))
        .send()
        .await
        .unwrap();
    let of_decorator = [
        "tidings_stage_seconds",
        "tidings_inbox_rows_total",
        "tidings_queue_ready",
        "tidings_queue_oldest_seconds",
    ];
    for (number, names) in [
        (0, ["tidings_streams_open"].as_slice()),
        (1, &["tidings_submissions_total"]),
        (2, &of_decorator),
        (4, &["tidings_deliveries_total"]),
    ] {
        // Which of two workers did it is chance.
        let last = if number < 2 { number } else { number + 1 };
        for name in names {
            eventually(name, async || {
                for process in &app.processes[number..=last] {
                    let (_, metrics) = ask(process, "/metrics").await?;
                    if metrics.contains(name) {
                        return Some(());
                    }
                }
                None
            })
            .await;
        }
    }
}

/// Sends `count` submissions to one person, until each is accepted; meanwhile `disturb` happens.
async fn flow(app: &mut App, count: usize, mut disturb: impl FnMut(&mut App, usize)) {
    const PARTS: usize = 8;
    for part in 0..PARTS {
        let api = app.ingest.clone();
        let sending = tokio::spawn(async move {
            for number in (part * count / PARTS)..((part + 1) * count / PARTS) {
                let body = to(&[&person(number % 10)], &format!("number {number}"));
                let key = format!("key-{number}");
                while !api
                    .try_send(&body, &key)
                    .await
                    .is_some_and(|is| is.is_success())
                {
                    // The process is away just now.
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        });
        tokio::task::block_in_place(|| disturb(app, part));
        sending.await.unwrap();
    }
}

/// Waits until all that [`flow`] sent has arrived once, in the inboxes and by mail.
async fn all_arrived(app: &App, count: usize) {
    for number in 0..10 {
        let path = format!("{LIST}?limit=1000");
        let want = (number..count).step_by(10).count();
        let rows = eventually("everything to be stored", async || {
            let (_, inbox) = app.api.get_as(&person(number), &path).await;
            let rows = inbox["totalCount"].as_u64()? as usize;
            (want <= rows).then_some(rows)
        })
        .await;
        assert_eq!(rows, want, "{}", person(number));
    }
    eventually("every mail", async || {
        (count <= app.smtp.count_by_message_id().len()).then_some(())
    })
    .await;
    let mails = app.smtp.count_by_message_id();
    assert_eq!(mails.len(), count);
    assert!(mails.values().all(|copies| *copies == 1), "none twice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn distributed_a_role_that_is_told_to_stop_drains_and_nothing_is_lost() {
    let mut app = App::by_role().await;
    let victims = [1, 2, 4, 0, 3, 5, 1, 2];
    flow(&mut app, 240, |app, part| {
        let process = &mut app.processes[victims[part]];
        let stopped = process.terminate();
        assert!(stopped, "{}", process.log());
        assert!(
            !process.log().contains("not all ended"),
            "{}",
            process.log()
        );
        process.start_again();
    })
    .await;
    app.until_ready().await;
    all_arrived(&app, 240).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_a_process_that_is_told_to_stop_drains_and_nothing_is_lost() {
    let mut app = App::embedded().await;
    flow(&mut app, 160, |app, part| {
        if part % 2 == 0 {
            let process = &mut app.processes[0];
            assert!(process.terminate(), "{}", process.log());
            process.start_again();
        }
    })
    .await;
    all_arrived(&app, 160).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn distributed_two_processes_that_do_everything_share_the_work() {
    let mut app = App::up_distributed().await;
    let args = ["up", "--config", "tidings.yaml", "--listen", "127.0.0.1:0"];
    let second = Process::start(TIDINGS, &args, app.dir());
    app.processes.push(second);
    app.until_ready().await;
    flow(&mut app, 240, |_, _| {}).await;
    all_arrived(&app, 240).await;
    for process in &app.processes {
        let (_, metrics) = ask(process, "/metrics").await.unwrap();
        assert!(
            metrics.contains("tidings_deliveries_total"),
            "each had some of it"
        );
    }
    let (_, told) = app.api.operate("/api/tidings/v1/status").await;
    assert_eq!(
        told["processes"].as_array().map(Vec::len),
        Some(2),
        "{told}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn distributed_while_the_database_is_down_ingest_accepts_and_all_arrives_later() {
    let Some(database) = Server::start("postgres").await else {
        return;
    };
    let broker = crate::support::rabbitmq::shared_url();
    let processes = [
        (INBOX, [].as_slice()),
        (INGEST, &[]),
        (DECORATOR, &[]),
        (SENDER, &["email"]),
    ];
    let app = App::on_servers(&broker, &database.url, &processes).await;
    app.until_ready().await;
    app.ingest.send(&to(&[&person(0)], "Before"), &[]).await;
    app.smtp.wait_for(1).await;

    database.order("stop").await;
    for number in [0, 2, 3] {
        eventually("the trouble to be seen", async || {
            let missing = missing(&app.processes[number]).await;
            missing.contains("store").then_some(())
        })
        .await;
    }
    assert_eq!(missing(&app.processes[1]).await, BTreeSet::new());
    for number in 0..50 {
        let body = to(&[&person(1)], &format!("Meanwhile {number}"));
        let (status, answer) = app.ingest.send(&body, &[]).await;
        assert_eq!(status, StatusCode::ACCEPTED, "{answer}");
    }
    let (status, answer) = app
        .ingest
        .send(&to(&[&person(1)], "Waits"), &[("prefer", "wait=1")])
        .await;
    assert_eq!(
        status,
        StatusCode::ACCEPTED,
        "a wait that runs out: {answer}"
    );

    database.order("start").await;
    app.smtp.wait_for(52).await;
    app.until_ready().await;
    let (_, inbox) = app
        .api
        .get_as(&person(1), &format!("{LIST}?limit=100"))
        .await;
    assert_eq!(inbox["totalCount"], 51, "{inbox}");
    let (_, told) = app.api.operate("/api/tidings/v1/dead-letters").await;
    assert_eq!(told["deadLetters"], json!([]), "none was given up");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn distributed_a_broker_that_is_absent_at_the_start_is_waited_for() {
    let Some(broker) = Server::start("rabbitmq").await else {
        return;
    };
    let Some(database) = Server::start("postgres").await else {
        return;
    };
    broker.order("stop").await;
    database.order("stop").await;
    let processes = [
        (INBOX, [].as_slice()),
        (INGEST, &[]),
        (DECORATOR, &[]),
        (SENDER, &["email"]),
    ];
    let app = App::on_servers(&broker.url, &database.url, &processes).await;
    for process in &app.processes {
        eventually("the trouble to be seen", async || {
            missing(process).await.contains("queue").then_some(())
        })
        .await;
        assert!(process.log().contains("not ready"), "{}", process.log());
    }
    // Long enough that those who consume have given up once: no message will come to tell them
    // that all is well again. A sender consumes once it knows that its channel is not paused.
    let given_up = async |number: usize, queue: &str| {
        eventually("the consumers to give up", async || {
            let missing = missing(&app.processes[number]).await;
            missing.contains(queue).then_some(())
        })
        .await;
    };
    given_up(2, "queue submissions").await;
    database.order("start").await;
    given_up(3, "queue deliver.email").await;
    broker.order("start").await;
    app.until_ready().await;
    let (status, _) = app.ingest.send(&to(&[&person(1)], "At last"), &[]).await;
    assert_eq!(status, StatusCode::ACCEPTED);
    app.smtp.wait_for(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_who_joins_a_group_gets_the_next_notification() {
    let app = App::embedded().await;
    let send = async |title: &str| {
        let body = to(&["group:default/crew"], title);
        let (_, stored) = app.api.send(&body, &[("prefer", "wait=20")]).await;
        let users = stored.as_array().expect("stored").iter();
        users
            .map(|one| one["user"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let people = |members: &str| {
        let mut text = String::new();
        for name in ["ada", "bob"] {
            text.push_str(&format!("kind: User\nmetadata: {{ name: {name} }}\nspec: {{ profile: {{ email: {name}@example.com }} }}\n---\n"));
        }
        format!(
            "{text}kind: Group\nmetadata: {{ name: crew }}\nspec: {{ type: team, members: [{members}] }}\n"
        )
    };
    let file = app.dir().join("people.yaml");
    std::fs::write(&file, people("ada")).unwrap();
    assert_eq!(send("First").await, ["user:default/ada"]);
    // As careful editors save: a new file takes the old one's place.
    let fresh = app.dir().join("people.yaml~");
    std::fs::write(&fresh, people("ada, bob")).unwrap();
    std::fs::rename(&fresh, &file).unwrap();
    assert_eq!(
        send("Second").await,
        ["user:default/ada", "user:default/bob"]
    );
    let mails = app.smtp.wait_for(3).await;
    assert!(mails.iter().any(|mail| mail.to == ["bob@example.com"]));
    // A broken save changes nothing, and is said.
    std::fs::write(&file, "kind: [").unwrap();
    assert_eq!(
        send("Third").await,
        ["user:default/ada", "user:default/bob"]
    );
    assert!(
        app.processes[0]
            .log()
            .contains("its last good version stays in use")
    );
}
