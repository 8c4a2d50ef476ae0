//! A server of a test's own, which it may stop and start; see `tests/servers`.

use std::path::PathBuf;
use std::process::Command;

/// A private RabbitMQ or PostgreSQL. Gone when dropped.
pub(crate) struct Server {
    dir: PathBuf,
    /// Where it listens; the same after a restart.
    pub(crate) url: String,
}

impl Server {
    /// Starts a `rabbitmq` or `postgres`; `None`, with a word on stderr, where it is not
    /// installed.
    pub(crate) async fn start(kind: &'static str) -> Option<Self> {
        tokio::task::spawn_blocking(move || {
            if run(&["have", kind]).is_err() {
                eprintln!("skipped: {kind} is not installed here, so there is none to stop");
                return None;
            }
            let parent =
                std::env::var_os("TIDINGS_TEST_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
            let dir = parent.join(format!("tidings-{kind}-{}", uuid::Uuid::new_v4().simple()));
            let url = run(&["new", kind, &dir.to_string_lossy()]).unwrap();
            Some(Self { dir, url })
        })
        .await
        .unwrap()
    }

    /// `kill`, `stop`, `start` or `restart`.
    pub(crate) async fn order(&self, order: &'static str) {
        let dir = self.dir.clone();
        tokio::task::spawn_blocking(move || run(&[order, &dir.to_string_lossy()]).unwrap())
            .await
            .unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = run(&["remove", &self.dir.to_string_lossy()]);
    }
}

fn run(args: &[&str]) -> Result<String, String> {
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/servers");
    let done = Command::new(script).args(args).output().unwrap();
    if done.status.success() {
        return Ok(String::from_utf8_lossy(&done.stdout).trim().to_owned());
    }
    Err(String::from_utf8_lossy(&done.stderr).into_owned())
}
