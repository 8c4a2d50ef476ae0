//! A worker in Python as a process of its own.

use std::io::BufRead as _;
use std::io::BufReader;
use std::path::Path;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;

use crate::support::app::App;
use crate::support::rabbitmq;

/// A running worker; killed when it is dropped.
pub(super) struct Worker {
    script: &'static str,
    args: Vec<String>,
    env: Vec<(&'static str, String)>,
    child: Child,
}

impl Worker {
    /// `schemas/examples/workers/decorator.py` with the rights of a foreign decorator; `None`
    /// where no users can be made.
    pub(super) async fn decorator(app: &App, name: &str) -> Option<Self> {
        let url = rabbitmq::foreign(app.prefix(), "foreign-decorator", name).await?;
        Some(Self::start("decorator.py", vec![name.to_owned()], app, url))
    }

    /// `schemas/examples/workers/sender.py`, which writes to `sent.jsonl`.
    pub(super) async fn sender(app: &App, name: &str) -> Option<Self> {
        let url = rabbitmq::foreign(app.prefix(), "foreign-sender", name).await?;
        let file = app.dir().join("sent.jsonl").display().to_string();
        Some(Self::start(
            "sender.py",
            vec![name.to_owned(), file],
            app,
            url,
        ))
    }

    fn start(script: &'static str, args: Vec<String>, app: &App, url: String) -> Self {
        let env = vec![
            ("AMQP_URL", url),
            ("TIDINGS_PREFIX", app.prefix().to_owned()),
        ];
        let child = spawn(script, &args, &env);
        Self {
            script,
            args,
            env,
            child,
        }
    }

    /// SIGKILL, and another in its place.
    pub(super) fn kill_and_restart(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.child = spawn(self.script, &self.args, &self.env);
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts a script and waits until it says that it consumes.
fn spawn(script: &str, args: &[String], env: &[(&'static str, String)]) -> Child {
    let python = std::env::var("TIDINGS_TEST_PYTHON")
        .expect("TIDINGS_TEST_PYTHON is not set: start the tests by tests/run");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas/examples/workers");
    let mut child = Command::new(python)
        .arg(folder.join(script))
        .args(args)
        .envs(env.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let out = child.stdout.take().unwrap();
    BufReader::new(out).read_line(&mut line).unwrap();
    assert_eq!(line.trim(), "ready", "{script} {args:?}");
    child
}
