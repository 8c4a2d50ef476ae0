//! `tidings up` as a person meets it: the screen on a terminal, logs elsewhere, and what keeps it
//! from starting. Terminals are those of `script` (util-linux).

use std::io::Read as _;
use std::io::Write as _;
use std::net::TcpListener;
use std::path::Path;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Instant;

use super::alone;
use super::tidings;
use crate::support::app::App;
use crate::support::app::LIMIT;
use crate::support::app::TIDINGS;

/// What Ctrl-C is to a terminal.
const CTRL_C: &[u8] = b"\x03";

/// A command on a terminal of its own.
struct Terminal {
    child: Child,
    shown: Arc<Mutex<String>>,
}

impl Terminal {
    /// `tidings up` in a directory, on any free port.
    fn up(dir: &Path, colour: bool) -> Self {
        // A shell that stays between would answer Ctrl-C too, with a code of its own.
        let line = format!("exec {TIDINGS} up --listen 127.0.0.1:0");
        let mut child = Command::new("script")
            .args(["-q", "-e", "-f", "-c", &line, "/dev/null"])
            .current_dir(dir)
            .env("NO_COLOR", if colour { "" } else { "1" })
            .env_remove("TIDINGS_URL")
            .env_remove("TIDINGS_TOKEN")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let shown = Arc::new(Mutex::new(String::new()));
        let (mut out, kept) = (child.stdout.take().unwrap(), Arc::clone(&shown));
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            // Lines that are cut within a letter are not what is looked for here.
            while let Ok(count @ 1..) = out.read(&mut buffer) {
                let text = String::from_utf8_lossy(&buffer[..count]).replace('\r', "");
                kept.lock().unwrap().push_str(&text);
            }
        });
        Self { child, shown }
    }

    /// What it shows, once `text` is there.
    fn until(&self, text: &str) -> String {
        let begun = Instant::now();
        loop {
            let shown = self.shown.lock().unwrap().clone();
            if shown.contains(text) {
                return shown;
            }
            assert!(begun.elapsed() < LIMIT, "no {text:?} in:\n{shown}");
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }

    /// Presses Ctrl-C; what it showed to the end, and its exit code.
    fn interrupt(mut self) -> (String, Option<i32>) {
        self.child
            .stdin
            .as_mut()
            .unwrap()
            .write_all(CTRL_C)
            .unwrap();
        let code = self.child.wait().unwrap().code();
        (self.until("\nStopping"), code)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Its terminal goes with it, and so does what runs there.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn sqlite_the_first_screen_shows_a_command_that_works_and_a_line_for_each_event() {
    let dir = tempfile::tempdir().unwrap();
    let terminal = Terminal::up(dir.path(), false);
    let shown = terminal.until("Ctrl-C stops.");
    assert!(shown.contains("· development mode: demo user, mail to files; not for production\n"));
    for row in [
        "  Mail     tidings-data/outbox/       (no relay configured)\n",
        "  People   tidings-data/people.yaml   (1 user; read again when you save it)\n",
        "  Data     tidings-data/              (kept between starts; delete it to start over)\n",
        "    -H \"Authorization: Bearer $(cat tidings-data/token)\"",
    ] {
        assert!(shown.contains(row), "{row} in\n{shown}");
    }
    assert!(!shown.contains("Kept"), "{shown}");
    assert!(!shown.contains('\x1b'), "NO_COLOR is heeded: {shown:?}");

    let send = shown.lines().find(|line| line.contains(" send ")).unwrap();
    let sent = Command::new("sh")
        .args(["-c", send])
        .current_dir(dir.path())
        .output();
    let sent = sent.unwrap();
    assert!(sent.status.success(), "{sent:?}");
    let id = String::from_utf8(sent.stdout).unwrap();
    let short = &id.trim()[28..];
    let mailed = format!("  email     {short}  guest@example.com → tidings-data/outbox/");
    let shown = terminal.until(&mailed);
    for line in [
        format!("  accepted  {short}  \"Hello\" from external:cli\n"),
        format!("  inbox     {short}  1 person\n"),
    ] {
        assert!(shown.contains(&line), "{line} in\n{shown}");
    }
    let (shown, code) = terminal.interrupt();
    let last = shown.lines().last().unwrap();
    assert!(last.starts_with("Drained in "), "{shown}");
    assert!(
        last.ends_with("; 1 notification kept in tidings-data/."),
        "{shown}"
    );
    assert_eq!(code, Some(0));

    let again = Terminal::up(dir.path(), true);
    let shown = again.until("Ctrl-C stops.");
    assert!(
        shown.contains(" 1 notification, 1 mail, 0 dead letters\n"),
        "{shown}"
    );
    assert!(
        shown.contains("\x1b[1mTidings "),
        "colour on a terminal: {shown:?}"
    );
}

#[test]
fn sqlite_without_a_terminal_there_are_logs_and_nothing_on_standard_output() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = Command::new(TIDINGS)
        .args(["up", "--listen", "127.0.0.1:0"])
        .current_dir(dir.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut logged = Vec::new();
    let mut log = child.stderr.take().unwrap();
    let mut byte = [0];
    while !String::from_utf8_lossy(&logged).contains(" started ") {
        assert_eq!(log.read(&mut byte).unwrap(), 1, "it ended: {logged:?}");
        logged.push(byte[0]);
    }
    signal(&child, "-INT");
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.stdout, b"");
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn sqlite_a_port_that_is_taken_is_said_with_where_it_was_chosen() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let other = address.port().saturating_add(100);
    let (out, err, code) = alone(&["up", "--listen", &address.to_string()]);
    let expected = format!(
        "\
error: cannot listen on {address}: address already in use
  --> tidings.listen (flag)
help: if that is another Tidings, stop it; or choose: tidings up --listen 127.0.0.1:{other}
"
    );
    assert_eq!((out.as_str(), err, code), ("", expected, 1));

    let dir = tempfile::tempdir().unwrap();
    let config = format!("tidings:\n  listen: {address}\n");
    std::fs::write(dir.path().join("tidings.yaml"), config).unwrap();
    let (_, err, code) = tidings(dir.path(), &["up"], "");
    assert!(err.contains("\n  --> tidings.yaml:2:3\n"), "{err}");
    assert_eq!(code, 1);
}

#[test]
fn sqlite_a_configuration_that_is_wrong_stops_the_start() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(
        dir.path().join("tidings.yaml"),
        "tidings:\n  retries: [1s]\n",
    )
    .unwrap();
    let (out, err, code) = tidings(dir.path(), &["up"], "");
    let expected = "error: unknown key `tidings.retries`\n  --> tidings.yaml:2:3\n";
    assert!(err.starts_with(expected), "{err}");
    assert_eq!((out.as_str(), code), ("", 3));
    let left = std::fs::read_dir(dir.path()).unwrap().count();
    assert_eq!(left, 1, "nothing was made");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_a_data_directory_has_one_master() {
    let app = App::embedded().await;
    let args = ["up", "--config", "tidings.yaml", "--listen", "127.0.0.1:0"];
    let (out, err, code) = tidings(app.dir(), &args, "");
    assert!(
        err.starts_with("error: the data directory data is in use by another Tidings (process "),
        "{err}"
    );
    assert!(
        err.contains("\n  --> data\nhelp: stop the other one"),
        "{err}"
    );
    assert_eq!((out.as_str(), code), ("", 1));
}

/// Sends a signal to a process of ours.
pub(super) fn signal(child: &Child, name: &str) {
    let pid = child.id().to_string();
    let told = Command::new("kill").args([name, &pid]).status().unwrap();
    assert!(told.success());
}
