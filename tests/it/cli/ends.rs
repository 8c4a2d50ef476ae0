//! How commands end when somebody else ends first: a reader, a server, a person's patience.

use std::io::Read as _;
use std::net::TcpListener;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;

use super::GUEST;
use super::tidings;
use super::up::signal;
use crate::support::app::App;
use crate::support::app::TIDINGS;
use crate::support::app::person;
use crate::support::smtp::Act;
use crate::support::smtp::At;
use crate::support::smtp::Fault;

fn start(args: &[&str]) -> Child {
    Command::new(TIDINGS)
        .args(args)
        .env_remove("TIDINGS_URL")
        .env("TIDINGS_TOKEN", "tdg_x")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
fn sqlite_a_reader_that_has_gone_is_no_failure() {
    let mut child = start(&["completions", "bash"]);
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn sqlite_ctrl_c_ends_a_command_that_waits_for_an_answer() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let child = start(&["status", "--url", &url]);
    // It has asked, so it waits now.
    let (mut asked, _) = silent.accept().unwrap();
    let mut request = [0; 16];
    asked.read_exact(&mut request).unwrap();
    assert_eq!(&request[..], b"GET /api/tidings");
    signal(&child, "-INT");
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_a_wait_that_runs_out_is_told_from_success_and_still_gives_the_id() {
    let app = App::embedded().await;
    app.smtp.fault(Fault::new(At::Recipient, Act::Hang));
    let args = ["send", "--to", GUEST, "--title", "Hi", "--wait", "1"];
    let (out, err, code) = app.cli(&args).await;
    let id = out.trim();
    assert_eq!(
        (out.lines().count(), id.len(), code),
        (1, 36, 4),
        "{out}{err}"
    );
    let short = &id[28..];
    let expected = format!(
        "error: accepted, but not all of it was tried within 1 s\n  --> {id}\nhelp: nothing is lost; look later: tidings trace {short}\n"
    );
    assert!(err.ends_with(&expected), "{err}");
    assert!(
        err.contains("inbox     1 person, "),
        "what is done is said: {err}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_what_became_of_each_is_told_apart_for_a_group() {
    let app = App::embedded().await;
    let (later, never, well) = (person(1), person(2), person(3));
    app.smtp.fault(Fault::recipient(
        "p0001@example.com",
        "451 4.3.0 try again later",
    ));
    app.smtp.fault(Fault::recipient(
        "p0002@example.com",
        "550 5.1.1 no such user",
    ));
    let stranger = "user:default/stranger";
    let mut args = vec!["send", "--title", "Hi", "--wait", "--json"];
    for one in [later.as_str(), &never, &well, stranger] {
        args.extend(["--to", one]);
    }
    let (out, err, code) = app.cli(&args).await;
    assert_eq!(
        (out.lines().count(), code),
        (1, 6),
        "one object: {out}{err}"
    );
    let told: serde_json::Value = serde_json::from_str(&out).unwrap();
    let id = told["submission"].as_str().unwrap();

    let (out, err, code) = app.cli(&["trace", id]).await;
    assert_eq!((err.as_str(), code), ("", 0));
    assert!(
        out.contains("email      1 sent · 1 retrying · 1 failed (rejected) · 1 no address\n"),
        "{out}"
    );
    for (whom, state) in [
        (later.as_str(), ": 451 4.3.0 try again later; next "),
        (&never, "   failed after 1 try: 550 5.1.1 no such user"),
        (stranger, "   not in the catalog"),
    ] {
        let line = out
            .lines()
            .find(|line| line.starts_with("  email ") && line.contains(whom));
        let line = line.unwrap_or_else(|| panic!("no line of {whom} in {out}"));
        assert!(line.contains(state), "{line}");
    }
    let not_sent = out.split("\nNot sent\n").nth(1).unwrap();
    assert!(!not_sent.contains(&well), "{out}");
    let (out, _, _) = app.cli(&["trace", id, "--user", &well]).await;
    assert!(out.contains(&format!("{well}   sent ")), "{out}");
    assert!(!out.contains(&format!("{never}   ")), "{out}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_flags_are_laid_over_what_is_piped_in_and_strange_tokens_are_refused() {
    let app = App::embedded().await;
    std::fs::write(app.dir().join("operator"), app.api.token().await).unwrap();
    let url = app.api.url("");
    let piped = r#"{"recipients":{"type":"broadcast"},"payload":{"title":"Piped"}}"#;
    let args = [
        "send",
        "--url",
        &url,
        "--token-file",
        "operator",
        "--severity",
        "high",
        "--wait",
    ];
    let (_, err, code) = tidings(app.dir(), &args, piped);
    assert_eq!(code, 0, "{err}");
    let (out, _, _) = app.cli(&["list", "--user", GUEST]).await;
    assert!(out.contains("high      external:cli"), "{out}");
    assert!(!out.contains('\x1b'), "no colour in a pipe: {out:?}");

    std::fs::write(app.dir().join("operator"), "tdg_unknown").unwrap();
    let (out, err, code) = tidings(app.dir(), &args, piped);
    assert_eq!((out.as_str(), code), ("", 5));
    assert!(
        err.contains("help: the token is unknown here: name another with --token-file"),
        "{err}"
    );

    let (out, err, code) = app.cli(&["dead", "replay", "4711"]).await;
    assert_eq!((out.as_str(), code), ("", 5));
    assert!(
        err.starts_with("error: there is no dead letter 4711\n"),
        "{err}"
    );
    let (_, err, code) = app.cli(&["list", "--user", "ann"]).await;
    assert!(code == 2 && err.contains("it has no kind"), "{err}");
}
