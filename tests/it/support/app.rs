//! A whole Tidings as its users run it: real binaries, a configuration file, one or many
//! processes. Everything ends when it is dropped.

use std::io::BufRead as _;
use std::io::BufReader;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;
use std::time::Instant;

use reqwest::StatusCode;
use serde_json::Value;
use serde_json::json;

use tidings::queue::rabbitmq::RabbitSettings;

use super::postgres::Database;
use super::smtp::Smtp;

/// The longest anything in these tests may take before it is a failure.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// A static token of the configuration.
pub(crate) const CI_TOKEN: &str = "ci-token-for-tests";
/// Its subject, and so the origin of what is sent with it.
pub(crate) const CI: &str = "external:ci";

/// A running process of a role.
pub(crate) struct Process {
    /// Which binary and arguments, to start it again.
    binary: &'static str,
    args: Vec<String>,
    dir: PathBuf,
    child: Child,
    log: Arc<Mutex<Vec<String>>>,
    /// Where it listens.
    pub(crate) address: String,
    /// Where its health is.
    pub(crate) admin: String,
}

impl Process {
    /// Starts a binary and waits until it says that it started.
    pub(crate) fn start(binary: &'static str, args: &[&str], dir: &Path) -> Self {
        let mut child = Command::new(binary)
            .args(args)
            .args(["--log", "json"])
            .current_dir(dir)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Arc::new(Mutex::new(Vec::new()));
        let (tell, told) = std::sync::mpsc::channel();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let kept = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let started = serde_json::from_str::<Value>(&line)
                    .ok()
                    .filter(|record| record["message"] == "started");
                kept.lock().unwrap().push(line);
                if let Some(record) = started {
                    let text = |name: &str| record[name].as_str().unwrap_or_default().to_owned();
                    let _ = tell.send((text("address"), text("admin")));
                }
            }
        });
        let Ok((address, admin)) = told.recv_timeout(LIMIT) else {
            let _ = child.kill();
            panic!(
                "{binary} {args:?} did not start:\n{}",
                log.lock().unwrap().join("\n")
            );
        };
        let args = args.iter().map(|one| (*one).to_owned()).collect();
        Self {
            binary,
            args,
            dir: dir.to_owned(),
            child,
            log,
            address,
            admin,
        }
    }

    /// Kills it at once, as the kernel would, and starts it again.
    pub(crate) fn kill_and_restart(&mut self) {
        self.kill();
        self.start_again();
    }

    /// Starts it again, once it has ended.
    pub(crate) fn start_again(&mut self) {
        let args: Vec<&str> = self.args.iter().map(String::as_str).collect();
        let fresh = Self::start(self.binary, &args, &self.dir.clone());
        *self = fresh;
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM, and waits for the end; says whether it ended well.
    pub(crate) fn terminate(&mut self) -> bool {
        let pid = self.child.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-TERM", &pid])
                .status()
                .unwrap()
                .success()
        );
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.success();
            }
            assert!(begun.elapsed() < LIMIT, "{} does not stop", self.binary);
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// The memory that it holds.
    pub(crate) fn resident_kib(&self) -> u64 {
        let status = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(status).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let number = line.unwrap().split_whitespace().next();
        number.unwrap().parse().unwrap()
    }

    /// Whether it runs this sender.
    pub(crate) fn runs(&self, sender: &str) -> bool {
        self.args.iter().any(|arg| arg == sender || arg == "up")
    }

    /// Everything it logged.
    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = self.log.lock().unwrap();
            let tail = log.len().saturating_sub(15);
            eprintln!(
                "--- {} {:?}\n{}",
                self.binary,
                self.args,
                log[tail..].join("\n")
            );
        }
    }
}

/// Talks to a running Tidings over HTTP.
#[derive(Clone)]
pub(crate) struct Api {
    base: String,
    data: PathBuf,
    http: reqwest::Client,
}

impl Api {
    /// Speaks to `address`, with the secrets in `data`.
    pub(crate) fn new(address: &str, data: &Path) -> Self {
        // reqwest picks up the process's provider; tests share one process.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Self {
            base: format!("http://{address}"),
            data: data.to_owned(),
            http: reqwest::Client::builder().no_proxy().build().unwrap(),
        }
    }

    /// The address of a path.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    /// Sends a notification as `external:ci`; with extra headers.
    pub(crate) async fn send(&self, body: &Value, headers: &[(&str, &str)]) -> (StatusCode, Value) {
        let mut request = self
            .http
            .post(self.url("/api/notifications"))
            .bearer_auth(CI_TOKEN)
            .json(body)
            .timeout(LIMIT);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        answer(request).await
    }

    /// Like [`Self::send`], but a refused or cut connection is `None` instead of a panic: the
    /// process may be dead just now.
    pub(crate) async fn try_send(&self, body: &Value, key: &str) -> Option<StatusCode> {
        let request = self
            .http
            .post(self.url("/api/notifications"))
            .bearer_auth(CI_TOKEN)
            .header("Idempotency-Key", key)
            .json(body)
            .timeout(Duration::from_secs(15));
        Some(request.send().await.ok()?.status())
    }

    /// Reads a path as `user`.
    pub(crate) async fn get_as(&self, user: &str, path: &str) -> (StatusCode, Value) {
        let token = self.user_token(user);
        answer(
            self.http
                .get(self.url(path))
                .bearer_auth(token)
                .timeout(LIMIT),
        )
        .await
    }

    /// Posts to a path as `user`.
    pub(crate) async fn post_as(
        &self,
        user: &str,
        path: &str,
        body: &Value,
    ) -> (StatusCode, Value) {
        let token = self.user_token(user);
        answer(
            self.http
                .post(self.url(path))
                .bearer_auth(token)
                .json(body)
                .timeout(LIMIT),
        )
        .await
    }

    /// Reads a path as the operator.
    pub(crate) async fn operate(&self, path: &str) -> (StatusCode, Value) {
        answer(
            self.http
                .get(self.url(path))
                .bearer_auth(self.token().await)
                .timeout(LIMIT),
        )
        .await
    }

    /// The operator's token, once it is there.
    pub(crate) async fn token(&self) -> String {
        let path = self.data.join("token");
        eventually("the first token", async || {
            std::fs::read_to_string(&path).ok()
        })
        .await
    }

    /// A user token, signed with the key in the data directory.
    pub(crate) fn user_token(&self, user: &str) -> String {
        tidings::auth::UserKey::open(&self.data)
            .unwrap()
            .sign(user, Duration::from_secs(3600))
            .unwrap()
    }

    /// The client itself.
    pub(crate) fn http(&self) -> &reqwest::Client {
        &self.http
    }
}

async fn answer(request: reqwest::RequestBuilder) -> (StatusCode, Value) {
    let response = request.send().await.unwrap();
    let status = response.status();
    let text = response.text().await.unwrap();
    let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
    (status, body)
}

/// Asks until there is an answer; the state of another process can only be asked for.
pub(crate) async fn eventually<T>(what: &str, ask: impl AsyncFn() -> Option<T>) -> T {
    eventually_within(LIMIT, what, ask).await
}

/// The same for what takes longer to start than ours.
pub(crate) async fn eventually_within<T>(
    limit: Duration,
    what: &str,
    ask: impl AsyncFn() -> Option<T>,
) -> T {
    let begun = Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(begun.elapsed() < limit, "waited too long for {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A send to one or many refs.
pub(crate) fn to(refs: &[&str], title: &str) -> Value {
    json!({"recipients": {"type": "entity", "entityRef": refs}, "payload": {"title": title}})
}

/// A send to everybody.
pub(crate) fn broadcast(title: &str) -> Value {
    json!({"recipients": {"type": "broadcast"}, "payload": {"title": title}})
}

/// The waits of the retry schedule, as the configuration below says.
const STEPS: [Duration; 4] = [
    Duration::from_millis(200),
    Duration::from_secs(1),
    Duration::from_secs(6),
    Duration::from_secs(600),
];

/// How many people are in `group:default/everyone`.
pub(crate) const CROWD: usize = 2_000;

/// A whole Tidings on one of the two back ends, with a mail server and a catalog of [`CROWD`]
/// people, each with an address.
pub(crate) struct App {
    /// Its processes; the first serves the inbox.
    pub(crate) processes: Vec<Process>,
    /// Speaks to the first process.
    pub(crate) api: Api,
    /// Speaks to the process that takes submissions.
    pub(crate) ingest: Api,
    /// Where its mail goes.
    pub(crate) smtp: Smtp,
    // Removed last.
    _database: Option<Database>,
    broker: Option<Topology>,
    dir: tempfile::TempDir,
}

/// The lines under `tidings` that name the servers. The broker user of the test's producer is its
/// prefix.
fn backend(queue: &RabbitSettings, store: &str) -> String {
    let RabbitSettings { url, prefix, .. } = queue;
    format!(
        "  queue: {{ url: \"{url}\", prefix: {prefix}, origins: {{ guest: external:guest, {prefix}: external:producer }} }}\n  store: {{ url: \"{store}\" }}\n"
    )
}

/// Deletes what a test declared on the shared broker.
struct Topology(RabbitSettings);

impl Drop for Topology {
    fn drop(&mut self) {
        let settings = self.0.clone();
        // A runtime of its own: the test's may be the one that unwinds.
        let remove = move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(super::rabbitmq::remove(&settings));
        };
        let _ = std::thread::spawn(remove).join();
    }
}

impl App {
    /// One process on one SQLite file.
    pub(crate) async fn embedded() -> Self {
        Self::start("", None, None, &[(TIDINGS, &["up"])]).await
    }

    /// One process on RabbitMQ and PostgreSQL.
    pub(crate) async fn up_distributed() -> Self {
        Self::distributed(&[(TIDINGS, &["up"])]).await
    }

    /// A process for each role, two of each worker.
    pub(crate) async fn by_role() -> Self {
        Self::distributed(&[
            (INBOX, &[]),
            (INGEST, &[]),
            (DECORATOR, &[]),
            (DECORATOR, &[]),
            (SENDER, &["email"]),
            (SENDER, &["email"]),
        ])
        .await
    }

    async fn distributed(processes: &[(&'static str, &[&str])]) -> Self {
        Self::distributed_with("", |_| (), processes).await
    }

    /// With more lines under `tidings`, and more queues to delete at the end.
    pub(crate) async fn distributed_with(
        lines: &str,
        more: impl FnOnce(&mut RabbitSettings),
        processes: &[(&'static str, &[&str])],
    ) -> Self {
        let database = Database::create().await;
        let mut settings = super::rabbitmq::settings(&super::rabbitmq::shared_url(), &STEPS);
        more(&mut settings);
        let lines = backend(&settings, &database.url()) + lines;
        let broker = Topology(settings);
        Self::start(&lines, Some(database), Some(broker), processes).await
    }

    /// On servers of the test's own, which need not be up: nothing is waited for.
    pub(crate) async fn on_servers(
        queue: &str,
        store: &str,
        processes: &[(&'static str, &[&str])],
    ) -> Self {
        let settings = super::rabbitmq::settings(queue, &STEPS);
        let lines = backend(&settings, store);
        let shared = std::env::var("AMQP_URL").is_ok_and(|url| url == queue);
        let broker = shared.then(|| Topology(settings));
        Self::launch(&lines, None, broker, processes).await
    }

    async fn start(
        backend: &str,
        database: Option<Database>,
        broker: Option<Topology>,
        processes: &[(&'static str, &[&str])],
    ) -> Self {
        let app = Self::launch(backend, database, broker, processes).await;
        app.until_ready().await;
        app
    }

    async fn launch(
        backend: &str,
        database: Option<Database>,
        broker: Option<Topology>,
        processes: &[(&'static str, &[&str])],
    ) -> Self {
        let smtp = Smtp::start().await;
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("people.yaml"), people()).unwrap();
        let config = format!(
            "app: {{ baseUrl: \"https://portal.example.com\" }}\n\
             backend: {{ auth: {{ externalAccess: [ {{ type: static, options: {{ token: {CI_TOKEN}, subject: \"{CI}\" }} }} ] }} }}\n\
             catalog: {{ locations: [ {{ type: file, target: people.yaml }} ] }}\n\
             notifications:\n  processors:\n    email:\n      transportConfig: {{ transport: smtp, hostname: localhost, port: {} }}\n      sender: tidings@example.com\n      broadcastConfig: {{ receiver: users }}\n\
             tidings:\n  listen: 127.0.0.1:{}\n  ingest: {{ listen: \"127.0.0.1:{}\" }}\n  admin: {{ listen: \"127.0.0.1:0\" }}\n  data: data\n  retry: [200ms, 1s, 6s, 10m]\n  lease: 5s\n{backend}",
            smtp.port(),
            free_port(),
            free_port(),
        );
        std::fs::write(dir.path().join("tidings.yaml"), config).unwrap();
        let processes: Vec<Process> = processes
            .iter()
            .map(|(binary, args)| {
                let args: Vec<&str> = args
                    .iter()
                    .copied()
                    .chain(["--config", "tidings.yaml"])
                    .collect();
                Process::start(binary, &args, dir.path())
            })
            .collect();
        let api = Api::new(&processes[0].address, &dir.path().join("data"));
        let ingest = processes.get(1).unwrap_or(&processes[0]);
        let ingest = Api::new(&ingest.address, &dir.path().join("data"));
        Self {
            processes,
            api,
            ingest,
            smtp,
            _database: database,
            broker,
            dir,
        }
    }

    /// Begins the names of what it has on the shared broker.
    pub(crate) fn prefix(&self) -> &str {
        &self.broker.as_ref().unwrap().0.prefix
    }

    /// Rewrites its configuration, for processes that are started from now on.
    pub(crate) fn configure(&self, change: impl FnOnce(String) -> String) {
        let file = self.dir.path().join("tidings.yaml");
        let config = std::fs::read_to_string(&file).unwrap();
        std::fs::write(file, change(config)).unwrap();
    }

    /// Waits until every process says that it could do its work.
    pub(crate) async fn until_ready(&self) {
        for process in &self.processes {
            let url = format!("http://{}/readyz", process.admin);
            eventually("readiness", async || {
                let response = self.api.http().get(&url).send().await.ok()?;
                response.status().is_success().then_some(())
            })
            .await;
        }
    }

    /// The directory with its configuration and data.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Runs the command line against it; standard output, standard error, exit code.
    pub(crate) async fn cli(&self, args: &[&str]) -> (String, String, i32) {
        self.api.token().await;
        let output = tokio::process::Command::new(TIDINGS)
            .args(args)
            .args(["--url", &self.api.url(""), "--config", "tidings.yaml"])
            .current_dir(self.dir.path())
            .stdin(Stdio::null())
            .output()
            .await
            .unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (
            text(output.stdout),
            text(output.stderr),
            output.status.code().unwrap_or(-1),
        )
    }
}

/// The binaries under test.
pub(crate) const TIDINGS: &str = env!("CARGO_BIN_EXE_tidings");
pub(crate) const INGEST: &str = env!("CARGO_BIN_EXE_tidings-ingest");
pub(crate) const DECORATOR: &str = env!("CARGO_BIN_EXE_tidings-decorator");
pub(crate) const SENDER: &str = env!("CARGO_BIN_EXE_tidings-sender");
pub(crate) const INBOX: &str = env!("CARGO_BIN_EXE_tidings-inbox");

/// The ref of a person of the crowd.
pub(crate) fn person(number: usize) -> String {
    format!("user:default/p{number:04}")
}

/// The catalog: guest, the crowd, and a group with everyone of it.
fn people() -> String {
    let user = |namespace: &str, name: &str| {
        format!(
            "kind: User\nmetadata: {{ namespace: {namespace}, name: {name}, annotations: {{ pager.example.com/id: pager-{name} }} }}\nspec: {{ profile: {{ email: {name}@example.com }} }}\n---\n"
        )
    };
    let mut text = user("development", "guest");
    let names: Vec<String> = (0..CROWD).map(|number| format!("p{number:04}")).collect();
    for name in &names {
        text.push_str(&user("default", name));
    }
    text.push_str(&format!(
        "kind: Group\nmetadata: {{ name: everyone }}\nspec: {{ type: team, members: [{}] }}\n",
        names.join(", ")
    ));
    text
}

/// A port that is free now, below those that the system gives to outgoing connections, so that a
/// process that is killed finds it free again.
pub(crate) fn free_port() -> u16 {
    loop {
        let port = 10_000 + uuid::Uuid::new_v4().as_u128() as u16 % 20_000;
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
