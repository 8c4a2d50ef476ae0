//! Brokers for tests: the shared one with a prefix for each test, instances that a test may kill,
//! and a proxy whose connections can be cut.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use lapin::options::ExchangeDeleteOptions;
use lapin::options::QueueDeleteOptions;
use tidings::queue::Queue;
use tidings::queue::rabbitmq::RabbitQueue;
use tidings::queue::rabbitmq::RabbitSettings;
use tidings::topology;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Longest that anything here is waited for.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// How long a proxy still waits for what was written before a cut.
const ON_ITS_WAY: Duration = Duration::from_millis(50);

/// The broker that all tests share.
pub(crate) fn shared_url() -> String {
    std::env::var("AMQP_URL").expect(
        "AMQP_URL is not set: start the tests by tests/run, or leave these out by --embedded",
    )
}

/// Settings for a test of its own on a broker: no other test has its prefix.
pub(crate) fn settings(url: &str, steps: &[Duration]) -> RabbitSettings {
    RabbitSettings {
        url: url.to_owned(),
        prefix: format!("test-{}", uuid::Uuid::new_v4().simple()),
        queues: topology::queues(&["email".to_owned()]),
        steps: steps.to_vec(),
        name: "tidings-test".to_owned(),
    }
}

/// Starts a queue and waits until it is ready.
pub(crate) async fn start(settings: &RabbitSettings) -> Arc<RabbitQueue> {
    let queue = RabbitQueue::start(settings.clone());
    until_ready(&queue).await;
    queue
}

/// Waits until a queue is ready.
pub(crate) async fn until_ready(queue: &RabbitQueue) {
    let begun = std::time::Instant::now();
    while let Err(error) = queue.ready().await {
        assert!(begun.elapsed() < PATIENCE, "not ready: {error}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Deletes all that a test's settings made.
pub(crate) async fn remove(settings: &RabbitSettings) {
    let connection = lapin::Connection::connect(&settings.url, Default::default())
        .await
        .unwrap();
    let channel = connection.create_channel().await.unwrap();
    let prefix = &settings.prefix;
    let waits: Vec<String> = settings.steps.iter().map(|step| wait(*step)).collect();
    let work = settings.queues.iter().map(|spec| spec.key.clone());
    for key in work
        .chain(["dead.unreadable".to_owned()])
        .chain(waits.clone())
    {
        let name = format!("{prefix}.{key}");
        let options = QueueDeleteOptions::default();
        channel.queue_delete(name.into(), options).await.unwrap();
    }
    let exchanges = ["submit".to_owned(), "signals".to_owned()];
    for key in exchanges.into_iter().chain(waits) {
        let name = format!("{prefix}.{key}");
        let options = ExchangeDeleteOptions::default();
        channel.exchange_delete(name.into(), options).await.unwrap();
    }
    let options = ExchangeDeleteOptions::default();
    channel
        .exchange_delete(prefix.as_str().into(), options)
        .await
        .unwrap();
    connection.close(200, "done".into()).await.unwrap();
}

/// The key of the queue of those who wait `step`.
fn wait(step: Duration) -> String {
    let ms = step.as_millis();
    if ms.is_multiple_of(1000) {
        format!("wait.{}s", ms / 1000)
    } else {
        format!("wait.{ms}ms")
    }
}

/// Runs `rabbitmqctl` on the broker whose directory this is.
fn ctl(dir: &std::path::Path, args: &[&str]) -> String {
    servers(&[&["ctl", &dir.to_string_lossy()], args].concat())
}

/// Makes a user who may submit notifications below `prefix` on the shared broker, by
/// `deploy/rabbitmq/setup`; returns its URL. `None`, with a word on stderr, where that broker is
/// not ours to make users on.
pub(crate) async fn producer(prefix: &str, name: &str) -> Option<String> {
    user(prefix, &["producer", name], name).await
}

/// Makes a user with the rights of a foreign worker: `kind` is `foreign-decorator` or
/// `foreign-sender`, `worker` its name. Otherwise like [`producer`].
pub(crate) async fn foreign(prefix: &str, kind: &str, worker: &str) -> Option<String> {
    let name = format!("{prefix}-{worker}");
    user(prefix, &[kind, worker, &name], &name).await
}

async fn user(prefix: &str, what: &[&str], name: &str) -> Option<String> {
    let Some(dir) = std::env::var_os("TIDINGS_TEST_BROKER") else {
        eprintln!("skipped: AMQP_URL names a broker where this test may make no users");
        return None;
    };
    let ctl = format!(
        "{} ctl {}",
        script("tests/servers").display(),
        PathBuf::from(dir).display()
    );
    let args = [&["--vhost", "/", "--prefix", prefix], what].concat();
    let mut setup = tokio::process::Command::new(script("deploy/rabbitmq/setup"));
    let done = setup.args(&args).env("RABBITMQCTL", ctl).output().await;
    let done = done.unwrap();
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "setup {args:?}: {said}");
    let line = String::from_utf8(done.stdout).unwrap();
    let password = line.trim().strip_prefix(name).unwrap().trim();
    let mut url = url::Url::parse(&shared_url()).unwrap();
    url.set_username(name).unwrap();
    url.set_password(Some(password)).unwrap();
    Some(url.into())
}

fn servers(args: &[&str]) -> String {
    let done = Command::new(script("tests/servers"))
        .args(args)
        .output()
        .unwrap();
    assert!(
        done.status.success(),
        "tests/servers {args:?}: {}",
        String::from_utf8_lossy(&done.stderr)
    );
    String::from_utf8(done.stdout).unwrap().trim().to_owned()
}

fn script(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// A broker of the test's own, which it may stop and kill. Gone when dropped.
pub(crate) struct Broker {
    dir: PathBuf,
    /// Where it listens; the same after a restart.
    pub(crate) url: String,
}

impl Broker {
    /// Starts one; `None`, with a word on stderr, where RabbitMQ is not installed.
    pub(crate) async fn start() -> Option<Self> {
        tokio::task::spawn_blocking(|| {
            let installed = Command::new(script("tests/servers"))
                .args(["have", "rabbitmq"])
                .status()
                .unwrap();
            if !installed.success() {
                eprintln!("skipped: RabbitMQ is not installed here, so there is none to kill");
                return None;
            }
            let parent =
                std::env::var_os("TIDINGS_TEST_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
            let dir = parent.join(format!(
                "tidings-rabbitmq-{}",
                uuid::Uuid::new_v4().simple()
            ));
            let url = servers(&["new", "rabbitmq", &dir.to_string_lossy()]);
            Some(Self { dir, url })
        })
        .await
        .unwrap()
    }

    /// `kill`, `stop`, `start` or `restart`.
    pub(crate) async fn order(&self, order: &'static str) {
        let dir = self.dir.clone();
        tokio::task::spawn_blocking(move || servers(&[order, &dir.to_string_lossy()]))
            .await
            .unwrap();
    }

    /// Runs `rabbitmqctl`.
    pub(crate) async fn ctl(&self, args: &[&str]) -> String {
        let dir = self.dir.clone();
        let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        tokio::task::spawn_blocking(move || {
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            ctl(&dir, &args)
        })
        .await
        .unwrap()
    }

    /// Runs `deploy/rabbitmq/setup` on it.
    pub(crate) async fn setup(&self, args: &[&str]) -> String {
        let mut command = tokio::process::Command::new(script("deploy/rabbitmq/setup"));
        let ctl = format!(
            "{} ctl {}",
            script("tests/servers").display(),
            self.dir.display()
        );
        let done = command.args(args).env("RABBITMQCTL", ctl).output().await;
        let done = done.unwrap();
        let said = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "setup {args:?}: {said}");
        String::from_utf8(done.stdout).unwrap().trim().to_owned()
    }

    /// The URL of another user, in another vhost.
    pub(crate) fn url_of(&self, user: &str, password: &str, vhost: &str) -> String {
        let (_, place) = self.url.split_once('@').unwrap();
        let (place, _) = place.split_once('/').unwrap();
        format!("amqp://{user}:{password}@{place}/{vhost}")
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        servers(&["remove", &self.dir.to_string_lossy()]);
    }
}

/// Passes connections on to a broker until they are cut.
pub(crate) struct Proxy {
    /// The broker's URL, through this proxy.
    pub(crate) url: String,
    cut: std::sync::Mutex<CancellationToken>,
    closed: CancellationToken,
    pipes: TaskTracker,
}

impl Proxy {
    /// Starts to listen on a free port.
    pub(crate) async fn start(url: &str) -> Arc<Self> {
        let mut through = url::Url::parse(url).unwrap();
        let host = through.host_str().unwrap().to_owned();
        let target = format!("{host}:{}", through.port().unwrap_or(5672));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let here: SocketAddr = listener.local_addr().unwrap();
        through.set_host(Some("127.0.0.1")).unwrap();
        through.set_port(Some(here.port())).unwrap();
        let proxy = Arc::new(Self {
            url: through.into(),
            cut: Default::default(),
            closed: CancellationToken::new(),
            pipes: TaskTracker::new(),
        });
        let this = Arc::clone(&proxy);
        let closed = proxy.closed.clone();
        tokio::spawn(closed.run_until_cancelled_owned(async move {
            loop {
                let (near, _) = listener.accept().await.unwrap();
                let cut = this.cut.lock().unwrap().clone();
                if let Ok(far) = TcpStream::connect(&target).await {
                    this.pipes.spawn(pipe(near, far, cut));
                }
            }
        }));
        proxy
    }

    /// Cuts every connection, as the death of the client's process does: what it had written
    /// still arrives. New ones may be made.
    pub(crate) async fn cut(&self) {
        let cut = std::mem::take(&mut *self.cut.lock().unwrap());
        cut.cancel();
        self.pipes.close();
        self.pipes.wait().await;
        self.pipes.reopen();
    }

    /// Lets nobody in any more, and cuts.
    pub(crate) async fn close(&self) {
        self.closed.cancel();
        self.cut().await;
    }
}

async fn pipe(near: TcpStream, far: TcpStream, cut: CancellationToken) {
    let (mut from_near, mut to_near) = near.into_split();
    let (mut from_far, mut to_far) = far.into_split();
    let there = async {
        let mut buffer = vec![0; 64 << 10];
        loop {
            // What was written before the cut may still be on its way to us.
            let last = async {
                cut.cancelled().await;
                tokio::time::sleep(ON_ITS_WAY).await;
            };
            let read = tokio::select! {
                read = from_near.read(&mut buffer) => read.unwrap_or(0),
                () = last => 0,
            };
            if read == 0 || to_far.write_all(&buffer[..read]).await.is_err() {
                return;
            }
        }
    };
    let back = tokio::io::copy(&mut from_far, &mut to_near);
    tokio::select! {
        () = there => {}
        _ = back => {}
    }
}
