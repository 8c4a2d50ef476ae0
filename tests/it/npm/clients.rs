//! The clients themselves: `tests/npm/clients.mjs`, driven line by line.

use std::collections::HashMap;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::Value;
use serde_json::json;
use tokio::io::AsyncBufReadExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::io::BufReader;
use tokio::process::Child;
use tokio::process::ChildStdout;
use tokio::process::Command;
use tokio::sync::mpsc;
use tokio::sync::oneshot;

use crate::support::app::LIMIT;

/// What a call came to: its result, or the error that the client threw.
pub(super) type Answer = Result<Value, Value>;

/// A program of `tests/npm` in the Node that `tests/node` made. It ends with its standard input.
pub(super) fn node(script: &str) -> Command {
    let folder = std::env::var("TIDINGS_TEST_NODE")
        .expect("TIDINGS_TEST_NODE is not set: start the tests by tests/run");
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/npm");
    let mut command = Command::new(Path::new(&folder).join("node"));
    command
        .arg(scripts.join(script))
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true);
    command
}

/// Who waits for what the program says.
#[derive(Default)]
struct Waiting {
    calls: HashMap<u64, oneshot::Sender<Answer>>,
    /// What was heard, by subscription.
    heard: HashMap<u64, mpsc::UnboundedSender<Value>>,
}

/// A running program with Backstage's clients.
pub(super) struct Clients {
    lines: mpsc::UnboundedSender<String>,
    waiting: Arc<Mutex<Waiting>>,
    numbers: AtomicU64,
    _child: Child,
}

/// What a subscription heard.
pub(super) struct Heard {
    subscription: u64,
    messages: mpsc::UnboundedReceiver<Value>,
}

impl Heard {
    /// The next message, but for knocks.
    pub(super) async fn next(&mut self) -> Value {
        loop {
            let message = self.any().await;
            if !message["notification_ids"][0]
                .as_str()
                .is_some_and(|id| id.starts_with(KNOCK))
            {
                return message;
            }
        }
    }

    /// The next message, whatever it is.
    pub(super) async fn any(&mut self) -> Value {
        // A bus that was not there is asked again after up to a minute.
        tokio::time::timeout(LIMIT * 3, self.messages.recv())
            .await
            .expect("waited too long for a signal")
            .expect("the clients ended")
    }
}

/// Begins the id that a page marks to hear whether it hears.
const KNOCK: &str = "00000000-0000-4000-8000-";

impl Clients {
    /// Of the Tidings at `url`.
    pub(super) fn start(url: &str) -> Self {
        Self::speak(node("clients.mjs").arg(url))
    }

    /// With a program that answers as `clients.mjs` does.
    pub(super) fn speak(command: &mut Command) -> Self {
        let mut child = command.spawn().unwrap();
        let waiting: Arc<Mutex<Waiting>> = Arc::default();
        tokio::spawn(listen(child.stdout.take().unwrap(), Arc::clone(&waiting)));
        let mut stdin = child.stdin.take().unwrap();
        let (lines, mut queue) = mpsc::unbounded_channel::<String>();
        tokio::spawn(async move {
            while let Some(line) = queue.recv().await {
                // Whoever waits for an answer learns that it has ended.
                if stdin.write_all(line.as_bytes()).await.is_err() {
                    return;
                }
            }
        });
        Self {
            lines,
            waiting,
            numbers: AtomicU64::new(0),
            _child: child,
        }
    }

    /// Somebody's open page.
    pub(super) fn page(&self, token: &str) -> Page<'_> {
        Page {
            clients: self,
            number: self.number(),
            token: token.to_owned(),
        }
    }

    /// A plugin's notification service.
    pub(super) fn service(&self, token: &str) -> Service<'_> {
        Service {
            clients: self,
            token: token.to_owned(),
        }
    }

    /// A number that no page, call or subscription has.
    pub(super) fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    /// Adds `id` and waits for the answer.
    pub(super) async fn call(&self, id: u64, mut line: Value) -> Answer {
        let (answer, answered) = oneshot::channel();
        self.waiting.lock().unwrap().calls.insert(id, answer);
        line["id"] = json!(id);
        self.lines.send(format!("{line}\n")).unwrap();
        tokio::time::timeout(LIMIT, answered)
            .await
            .unwrap_or_else(|_| panic!("no answer to {}", line["call"]))
            .expect("the clients ended")
    }
}

/// Hands every line to whom it is for.
async fn listen(stdout: ChildStdout, waiting: Arc<Mutex<Waiting>>) {
    let mut lines = BufReader::new(stdout).lines();
    while let Some(line) = lines.next_line().await.unwrap() {
        let mut said: Value = serde_json::from_str(&line).unwrap();
        let mut waiting = waiting.lock().unwrap();
        if let Some(subscription) = said["signal"].as_u64() {
            let _ = waiting.heard[&subscription].send(said["message"].take());
        } else {
            let id = said["id"].as_u64().unwrap();
            let answer = match said.get_mut("error") {
                Some(error) => Err(error.take()),
                None => Ok(said["result"].take()),
            };
            let _ = waiting.calls.remove(&id).unwrap().send(answer);
        }
    }
    // Whoever still waits learns that nothing comes.
    *waiting.lock().unwrap() = Waiting::default();
}

/// A plugin of a backend, with `DefaultNotificationService`.
pub(super) struct Service<'a> {
    clients: &'a Clients,
    token: String,
}

impl Service<'_> {
    /// `send`.
    pub(super) async fn send(&self, notification: Value) -> Answer {
        let line = json!({"call": "service.send", "token": self.token, "args": [notification]});
        self.clients.call(self.clients.number(), line).await
    }
}

/// A browser page, with `NotificationsClient` and `SignalClient`.
pub(super) struct Page<'a> {
    clients: &'a Clients,
    number: u64,
    token: String,
}

impl Page<'_> {
    async fn call(&self, id: u64, call: &str, argument: Value) -> Answer {
        let args = Vec::from_iter(Some(argument).filter(|argument| !argument.is_null()));
        let line = json!({"page": self.number, "token": self.token, "call": call, "args": args});
        self.clients.call(id, line).await
    }

    async fn ask(&self, method: &str, argument: Value) -> Answer {
        let call = format!("notifications.{method}");
        self.call(self.clients.number(), &call, argument).await
    }

    /// `getNotifications`.
    pub(super) async fn list(&self, options: Value) -> Answer {
        self.ask("getNotifications", options).await
    }

    /// `getNotification`.
    pub(super) async fn one(&self, id: &str) -> Answer {
        self.ask("getNotification", json!(id)).await
    }

    /// `getStatus`.
    pub(super) async fn status(&self) -> Answer {
        self.ask("getStatus", Value::Null).await
    }

    /// `getTopics`.
    pub(super) async fn topics(&self, options: Value) -> Answer {
        self.ask("getTopics", options).await
    }

    /// `updateNotifications`.
    pub(super) async fn update(&self, marks: Value) -> Answer {
        self.ask("updateNotifications", marks).await
    }

    /// `getNotificationSettings`.
    pub(super) async fn settings(&self) -> Answer {
        self.ask("getNotificationSettings", Value::Null).await
    }

    /// `updateNotificationSettings`.
    pub(super) async fn save_settings(&self, settings: Value) -> Answer {
        self.ask("updateNotificationSettings", settings).await
    }

    /// `subscribe`.
    pub(super) async fn subscribe(&self, channel: &str) -> Heard {
        let subscription = self.clients.number();
        let (hear, messages) = mpsc::unbounded_channel();
        let waiting = &self.clients.waiting;
        waiting.lock().unwrap().heard.insert(subscription, hear);
        let call = self.call(subscription, "signals.subscribe", json!(channel));
        call.await.unwrap();
        Heard {
            subscription,
            messages,
        }
    }

    /// `subscribe` to the page's own channel, and waits until it is in force.
    pub(super) async fn listen(&self) -> Heard {
        let mut heard = self.subscribe("notifications").await;
        self.until_heard(&mut heard).await;
        heard
    }

    /// Knocks until it is heard: the protocol has no answer to a subscription, and while a
    /// Tidings is away nobody answers at all.
    pub(super) async fn until_heard(&self, heard: &mut Heard) {
        let first = self.clients.number();
        let mut again = tokio::time::interval(Duration::from_millis(200));
        let hears = async {
            loop {
                let message = heard.any().await;
                let id = message["notification_ids"][0].as_str();
                let number = id.and_then(|id| id.strip_prefix(KNOCK)?.parse::<u64>().ok());
                if number.is_some_and(|number| number > first) {
                    return;
                }
            }
        };
        let knocks = async {
            loop {
                again.tick().await;
                let id = format!("{KNOCK}{:012}", self.clients.number());
                let _ = self.update(json!({"ids": [id], "read": true})).await;
            }
        };
        tokio::select! {
            () = hears => {}
            () = knocks => {}
        }
    }

    /// `unsubscribe`.
    pub(super) async fn unsubscribe(&self, heard: Heard) {
        let one = json!(heard.subscription);
        let call = self.call(self.clients.number(), "signals.unsubscribe", one);
        call.await.unwrap();
    }
}
