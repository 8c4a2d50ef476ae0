//! The operators' commands, as the real binary: what they print, where, and how they exit.

mod ends;
mod up;

use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::process::Output;
use std::process::Stdio;

use serde_json::Value;
use serde_json::json;

use crate::support::app::App;
use crate::support::app::TIDINGS;
use crate::support::app::eventually;
use crate::support::smtp::Fault;

const GUEST: &str = "user:development/guest";

/// Runs it in a directory, with nothing of this process's environment that it would heed.
fn tidings(dir: &Path, args: &[&str], stdin: &str) -> (String, String, i32) {
    let mut child = Command::new(TIDINGS)
        .args(args)
        .current_dir(dir)
        .env_remove("TIDINGS_URL")
        .env_remove("TIDINGS_TOKEN")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // One that does not read its input may have ended already.
    let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
    let Output {
        status,
        stdout,
        stderr,
    } = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (text(stdout), text(stderr), status.code().unwrap_or(-1))
}

/// The same in an empty directory.
fn alone(args: &[&str]) -> (String, String, i32) {
    let dir = tempfile::tempdir().unwrap();
    tidings(dir.path(), args, "")
}

#[test]
fn every_command_has_help_with_examples_and_the_version_names_its_commit() {
    for command in [
        &["up"][..],
        &["send"],
        &["list"],
        &["trace"],
        &["status"],
        &["dead", "replay"],
        &["token", "create"],
        &["user-token"],
        &["check"],
        &["migrate"],
        &["import", "backstage"],
        &["backup"],
        &["completions"],
    ] {
        let (out, err, code) = alone(&[command, &["--help"]].concat());
        assert_eq!((code, err.as_str()), (0, ""), "{command:?}");
        assert!(out.contains("Examples:\n  tidings "), "{command:?}: {out}");
    }
    let (out, _, code) = alone(&["--version"]);
    assert!(code == 0 && out.starts_with("tidings 0."), "{out}");
    let (out, _, code) = alone(&["completions", "bash"]);
    assert!(code == 0 && out.contains("_tidings()"));
}

#[test]
fn the_exit_code_tells_usage_configuration_and_silence_apart() {
    let (_, err, code) = alone(&["sned"]);
    assert_eq!(code, 2);
    assert!(err.contains("send"), "a suggestion: {err}");
    let (_, err, code) = alone(&["dead", "replay", "--url", "http://127.0.0.1:1"]);
    assert_eq!(code, 2, "{err}");
    let (_, err, code) = alone(&["status", "--url", "127.0.0.1:7117", "--token-file", "x"]);
    assert_eq!(code, 2, "{err}");

    let (out, err, code) = alone(&["status"]);
    let expected = "\
error: no API token: there is no such file
  --> tidings-data/token
help: name its file with --token-file, or set TIDINGS_TOKEN; the first token lies in the data directory of a running Tidings
";
    assert_eq!((out.as_str(), err.as_str(), code), ("", expected, 3));

    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("token"), "tdg_x\n").unwrap();
    let args = [
        "status",
        "--token-file",
        "token",
        "--url",
        "http://127.0.0.1:1",
    ];
    let expected = "\
error: no answer from Tidings: nothing listens there
  --> http://127.0.0.1:1
help: start it with `tidings up`, or name another with --url
";
    let (out, err, code) = tidings(dir.path(), &args, "");
    assert_eq!((out.as_str(), err.as_str(), code), ("", expected, 4));
}

#[test]
fn check_tells_everything_that_is_wrong_at_once_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    write(
        "app-config.yaml",
        "notifications:\n  processors:\n    msteams: { webhook: \"${UNSET}\" }\n",
    );
    write(
        "tidings.yaml",
        "tidings:\n  retries: [10s, 1m, 10m]\n  drain: 25\n",
    );
    let args = [
        "check",
        "--config",
        "app-config.yaml",
        "--config",
        "tidings.yaml",
    ];
    let (out, err, code) = tidings(dir.path(), &args, "");
    let expected = "\
error: unknown key `tidings.retries`
  --> tidings.yaml:2:3
   |
 2 |   retries: [10s, 1m, 10m]
   |   ^^^^^^^
help: did you mean `retry`? (the waits between attempts)

error: `tidings.drain` needs a unit
  --> tidings.yaml:3:10
   |
 3 |   drain: 25
   |          ^^
help: write it as 10s, 5m, 2h or 30d, as PT1M, or as { minutes: 5 }

";
    assert!(out.starts_with(expected), "{out}{err}");
    for line in [
        "  ok    data     tidings-data  made at the first start\n",
        "  warn  notifications.processors.msteams  app-config.yaml:3:5: no such processor here; nothing will be sent to it\n",
        "\n2 errors, 2 warnings. Nothing was started or changed.\n",
    ] {
        assert!(out.contains(line), "{line} in {out}");
    }
    assert_eq!(code, 3);
    let left = std::fs::read_dir(dir.path()).unwrap().count();
    assert_eq!(left, 2, "nothing was made");

    let (out, err, code) = alone(&["check", "--json"]);
    let lines: Vec<Value> = out
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    assert!(lines.iter().all(|line| line["level"] == "ok"), "{out}");
}

#[test]
fn migrate_makes_what_a_user_token_is_signed_beside() {
    let dir = tempfile::tempdir().unwrap();
    let (out, err, code) = tidings(dir.path(), &["migrate"], "");
    assert_eq!(
        (out.as_str(), code),
        ("tidings-data: the schema is up to date\n", 0),
        "{err}"
    );
    let (out, err, code) = tidings(dir.path(), &["user-token", "user:default/ann"], "");
    assert_eq!((out.split('.').count(), code), (3, 0), "{err}");
    let (out, err, code) = tidings(dir.path(), &["check", "--counts"], "");
    assert!(
        code == 0 && out.contains("  ok    counts   inbox counters "),
        "{out}{err}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_send_that_waits_says_what_became_of_it_and_trace_and_list_say_more() {
    let app = App::embedded().await;
    let args = [
        "send",
        "--to",
        GUEST,
        "--title",
        "Payments is down",
        "--severity",
        "critical",
        "--topic",
        "incident",
        "--link",
        "https://status.example.com/42",
        "--wait",
    ];
    let (out, err, code) = app.cli(&args).await;
    let id = out.trim();
    assert_eq!(
        (out.lines().count(), id.len(), code),
        (1, 36, 0),
        "the id alone: {out}{err}"
    );
    let short = &id[28..];
    let said: Vec<&str> = err.lines().collect();
    assert!(
        said[0].starts_with("inbox     1 person, ") && said[0].ends_with(" ms"),
        "{err}"
    );
    assert_eq!(
        said[1..],
        ["email     1 sent", "", &format!("tidings trace {short}")]
    );

    let (out, err, code) = app.cli(&["trace", short, "--all"]).await;
    assert_eq!((err.as_str(), code), ("", 0));
    for line in [
        format!("Submission  {id}\n"),
        "From        external:cli, by HTTP\n".to_owned(),
        format!("To          {GUEST}\n"),
        "Title       Payments is down   (critical, topic incident)\n".to_owned(),
        format!("expanded   {GUEST} → 1 person\n"),
        "stored     1 inbox row\n".to_owned(),
        "email      1 sent\n".to_owned(),
    ] {
        assert!(out.contains(&line), "{line} in {out}");
    }
    let (out, _, code) = app.cli(&["trace", id, "--json"]).await;
    let told: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((told["status"].as_str(), code), (Some("stored"), 0));

    let (out, err, code) = app.cli(&["list", "--user", GUEST, "--unread"]).await;
    assert!(out.contains("critical  external:cli"), "{out}");
    assert_eq!((err.as_str(), code), ("1 of 1 notification\n", 0));

    let (out, err, code) = app.cli(&["status"]).await;
    assert!(code == 0 && out.starts_with("All is well.\n"), "{out}{err}");
    let (_, err, code) = app.cli(&["trace", "00000000"]).await;
    assert!(
        code == 5 && err.starts_with("error: no such submission"),
        "{err}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_reach_people_does_not_look_like_success() {
    let app = App::embedded().await;
    let (out, err, code) = app
        .cli(&[
            "send",
            "--to",
            "group:default/everyon",
            "--title",
            "Hi",
            "--wait",
        ])
        .await;
    let expected = "\
error: nobody received it: group:default/everyon is not in the catalog
  --> --to
help: did you mean group:default/everyone?
";
    assert_eq!((err.as_str(), code), (expected, 6));
    let (out, _, _) = app.cli(&["trace", out.trim()]).await;
    assert!(
        out.ends_with("Did you mean group:default/everyone?\n"),
        "{out}"
    );

    let (_, err, code) = app
        .cli(&[
            "send",
            "--to",
            GUEST,
            "--to",
            "group:default/nobody",
            "--title",
            "Hi",
            "--wait",
        ])
        .await;
    assert_eq!(code, 6, "part of it: {err}");
    assert!(
        err.contains("not sent  group:default/nobody is not in the catalog"),
        "{err}"
    );

    let (_, err, code) = app
        .cli(&["send", "--to", GUEST, "--title", "x", "--link", "ftp://x"])
        .await;
    assert!(code == 5 && err.contains("\n  --> --link\n"), "{err}");
    let (_, err, code) = app.cli(&["send", "--to", GUEST]).await;
    assert!(
        code == 5 && err.starts_with("error: --title is missing\n  --> --title\n"),
        "{err}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn json_on_stdin_is_sent_and_the_same_key_is_the_same_submission() {
    let app = App::embedded().await;
    let token = app.api.token().await;
    std::fs::write(app.dir().join("operator"), token).unwrap();
    let send = |args: &[&str], stdin: &str| {
        let url = app.api.url("");
        let common = ["send", "--url", &url, "--token-file", "operator"];
        tidings(app.dir(), &[&common, args].concat(), stdin)
    };
    let body =
        json!({"recipients": {"type": "entity", "entityRef": GUEST}, "payload": {"title": "Hi"}});
    let (first, err, code) = send(&["--key", "k1"], &body.to_string());
    assert_eq!(code, 0, "{err}");
    let (second, _, code) = send(&["--key", "k1", "--json"], &body.to_string());
    let second: Value = serde_json::from_str(&second).unwrap();
    assert_eq!(
        (second["submission"].as_str(), code),
        (Some(first.trim()), 0)
    );
    let (_, err, code) = send(&[], "{ title: Hi }");
    assert!(code == 2 && err.contains("\n  --> stdin\n"), "{err}");
    let (out, _, code) = app.cli(&["trace", "--key", "k1", "--json"]).await;
    assert!(code == 0 && out.contains(first.trim()), "{out}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_letters_are_listed_shown_masked_counted_and_dropped() {
    let app = App::embedded().await;
    let fault = Fault::recipient("guest@example.com", "550 5.1.1 no such user");
    app.smtp.fault(fault);
    let (_, err, code) = app
        .cli(&["send", "--to", GUEST, "--title", "A canary", "--wait"])
        .await;
    assert_eq!(code, 6, "the mail was given up: {err}");
    let out = eventually("the dead letter", async || {
        let (out, _, _) = app.cli(&["dead", "list"]).await;
        (!out.starts_with("No dead letters.")).then_some(out)
    })
    .await;
    let lines: Vec<&str> = out.lines().collect();
    assert!(
        lines[0].starts_with("ID  STAGE          REASON    TRIES  DIED"),
        "{out}"
    );
    assert!(
        lines[1].contains("deliver.email  rejected      1  "),
        "{out}"
    );
    assert!(
        lines[3].starts_with("1 dead letter: 1 rejected. Oldest "),
        "{out}"
    );
    assert_eq!(
        lines[5],
        "  replay  tidings dead replay --reason rejected --dry-run"
    );
    let id = lines[1].split(' ').next().unwrap();

    let (masked, _, _) = app.cli(&["dead", "show", id]).await;
    assert!(
        !masked.contains("canary") && masked.contains("--payload shows it"),
        "{masked}"
    );
    let (shown, _, _) = app.cli(&["dead", "show", id, "--payload"]).await;
    assert!(shown.contains("A canary"), "{shown}");

    let (out, _, code) = app
        .cli(&["dead", "discard", "--reason", "rejected", "--dry-run"])
        .await;
    assert_eq!(
        (out.as_str(), code),
        ("1 dead letter would be dropped.\n", 0)
    );
    let (out, _, code) = app.cli(&["dead", "discard", id, "999"]).await;
    assert_eq!(
        (out.as_str(), code),
        ("1 dead letter dropped.\n", 6),
        "one of two"
    );
    let (out, _, _) = app.cli(&["dead", "list"]).await;
    assert_eq!(out, "No dead letters.\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_may_what_it_was_made_for_until_it_is_revoked() {
    let app = App::embedded().await;
    let (secret, err, code) = app
        .cli(&["token", "create", "--subject", "external:nightly"])
        .await;
    assert!(code == 0 && secret.starts_with("tdg_"), "{err}");
    std::fs::write(app.dir().join("nightly"), secret).unwrap();
    let as_nightly = |args: &[&str]| {
        let url = app.api.url("");
        let common = ["--url", &url, "--token-file", "nightly"];
        tidings(app.dir(), &[args, &common].concat(), "")
    };
    let (_, err, code) = as_nightly(&["send", "--to", GUEST, "--title", "Hi"]);
    assert_eq!(code, 0, "{err}");
    let (_, err, code) = as_nightly(&["status"]);
    assert!(
        code == 5 && err.contains("help: this token may not do that"),
        "{err}"
    );

    let (out, _, _) = app.cli(&["token", "list"]).await;
    let row = out
        .lines()
        .find(|line| line.contains("external:nightly"))
        .unwrap();
    let id = row.split(' ').next().unwrap();
    let (out, _, code) = app.cli(&["token", "revoke", id]).await;
    assert_eq!((out.as_str(), code), ("1 token revoked.\n", 0));
    let (_, err, code) = as_nightly(&["send", "--to", GUEST, "--title", "Hi"]);
    assert!(
        code == 5 && err.starts_with("error: Illegal token\n"),
        "{err}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_is_taken_while_it_runs_and_check_says_that_it_runs() {
    let app = App::embedded().await;
    let copy = app.dir().join("copy.sqlite");
    let (out, err, code) = app.cli(&["backup", copy.to_str().unwrap()]).await;
    assert_eq!((out.trim(), code), (copy.to_str().unwrap(), 0), "{err}");
    assert!(
        std::fs::read(&copy)
            .unwrap()
            .starts_with(b"SQLite format 3\0")
    );
    let (_, err, code) = app.cli(&["backup", copy.to_str().unwrap()]).await;
    assert!(
        code == 1 && err.contains("there is such a file already"),
        "{err}"
    );
    let (out, err, code) = tidings(app.dir(), &["check"], "");
    assert!(
        out.contains("in use by a running Tidings (process "),
        "{out}{err}"
    );
    assert_eq!(code, 0, "{out}{err}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_of_a_distributed_one_makes_nothing_and_says_what_is_there() {
    use crate::support::postgres::Database;

    let database = Database::create().await;
    let dir = tempfile::tempdir().unwrap();
    let prefix = format!("t{}", uuid::Uuid::now_v7().simple());
    let config = format!(
        "tidings:\n  queue: {{ url: \"{}\", prefix: {prefix} }}\n  store: {{ url: \"{}\" }}\n",
        crate::support::rabbitmq::shared_url(),
        database.url()
    );
    std::fs::write(dir.path().join("tidings.yaml"), config).unwrap();
    // Twice: the first would have made what the second finds.
    for _ in 0..2 {
        let (out, err, code) = tidings(dir.path(), &["check"], "");
        assert!(
            out.contains("no queues yet; the first process that may makes them"),
            "{out}{err}"
        );
        assert!(
            out.contains("the database has no schema of Tidings; run `tidings migrate`"),
            "{out}"
        );
        assert_eq!(code, 1);
    }
    let (out, err, code) = tidings(dir.path(), &["migrate"], "");
    assert!(code == 0 && out.starts_with("schema 0 -> "), "{out}{err}");
    let (out, err, code) = tidings(dir.path(), &["check", "--counts"], "");
    assert!(
        out.contains("PostgreSQL 1") && out.contains("TLS, schema "),
        "{out}{err}"
    );
    assert_eq!(code, 0, "{out}");

    let app = App::up_distributed().await;
    app.until_ready().await;
    let (out, err, code) = tidings(app.dir(), &["check"], "");
    assert!(out.contains(" queues, all there"), "{out}{err}");
    assert!(!out.contains("guest:guest"), "a password is shown: {out}");
    assert_eq!(code, 0, "{out}");
}
