//! Tidings against the behaviour of the peer; see `tests/conformance/README.md`.
#![cfg(feature = "sqlite")]

mod case;
#[cfg(all(feature = "rabbitmq", feature = "postgres"))]
mod distributed;
mod matching;
mod processors;

use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream;
use serde_json::Value;
use serde_json::json;
use tidings::decorator::Chain;
use tidings::queue::Announcement;
use tokio::sync::mpsc;

use self::case::Case;
use self::case::Subject;
use self::processors::Calls;
use self::processors::Described;
use self::processors::hooks;
use crate::http::house::House;
use crate::http::house::Plan;

/// Cases under way at once.
const AT_ONCE: usize = 4;

/// How long a hook that nobody waits for may take to be called.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a house stands on, to be taken away after it.
enum Ground {
    Embedded,
    #[cfg(all(feature = "rabbitmq", feature = "postgres"))]
    Distributed(Box<distributed::Servers>),
}

/// Where the houses of a test stand.
#[derive(Clone, Copy, Debug)]
enum Mode {
    Embedded,
    #[cfg(all(feature = "rabbitmq", feature = "postgres"))]
    Distributed,
}

/// A house that a case is sent to.
struct Tidings {
    house: House,
    ground: Ground,
    url: String,
    heard: mpsc::Receiver<Announcement>,
    calls: Calls,
}

impl Tidings {
    async fn start(case: &Case, mode: Mode) -> Self {
        let calls: Calls = Arc::new(Mutex::default());
        let plan = plan(case, &calls);
        let (house, ground) = match mode {
            Mode::Embedded => (House::build(plan).await, Ground::Embedded),
            #[cfg(all(feature = "rabbitmq", feature = "postgres"))]
            Mode::Distributed => {
                let (house, servers) = distributed::house(plan).await;
                (house, Ground::Distributed(Box::new(servers)))
            }
        };
        let mut tidings = Self {
            url: house.served.url(""),
            heard: house.queue.announcements().await.unwrap(),
            house,
            ground,
            calls,
        };
        tidings.listen().await;
        tidings
    }

    /// Waits until what is announced is heard.
    async fn listen(&mut self) {
        let heard = async {
            loop {
                self.house.queue.announce(last().to_string().into()).await;
                let soon = Duration::from_millis(50);
                if let Ok(Some(Announcement::Body(_))) =
                    tokio::time::timeout(soon, self.heard.recv()).await
                {
                    return;
                }
            }
        };
        tokio::time::timeout(PATIENCE, heard).await.unwrap();
    }

    async fn stop(self) {
        drop(self.house);
        match self.ground {
            Ground::Embedded => {}
            #[cfg(all(feature = "rabbitmq", feature = "postgres"))]
            Ground::Distributed(servers) => servers.remove().await,
        }
    }
}

/// The signal after which no other is waited for: nobody has this name.
fn last() -> Value {
    json!({"recipients": {"type": "user", "entityRef": "user:nobody/last"},
        "channel": "notifications", "message": {"action": "last"}})
}

/// The house that a case is about.
fn plan(case: &Case, calls: &Calls) -> Plan {
    let mut plan = Plan {
        subjects: case
            .identities()
            .filter_map(|identity| identity.strip_prefix("service:"))
            .map(str::to_owned)
            .collect(),
        catalog: case.catalog.clone().unwrap_or_default(),
        ..Plan::default()
    };
    if let Some(config) = &case.config {
        let defaults = config["notifications"]["defaultSettings"].clone();
        plan.defaults = serde_json::from_value(defaults).unwrap();
    }
    let mut chain = Vec::new();
    for described in case.processors.iter().flatten().map(Described::read) {
        let (links, sender) = hooks(&described, calls);
        chain.extend(links);
        plan.senders.push(sender);
    }
    plan.chain = Chain::from(chain);
    plan
}

impl Subject for Tidings {
    fn url(&self) -> &str {
        &self.url
    }

    fn token(&self, identity: &str) -> String {
        match identity.strip_prefix("service:") {
            Some(subject) => House::token(subject),
            None => self.house.user_token(identity),
        }
    }

    async fn signals(&mut self) -> Vec<Value> {
        let last = last();
        self.house.queue.announce(last.to_string().into()).await;
        let mut signals = Vec::new();
        let all = async {
            while let Some(announcement) = self.heard.recv().await {
                if let Announcement::Body(body) = announcement {
                    let signal = serde_json::from_slice(&body).unwrap();
                    if signal == last {
                        return;
                    }
                    signals.push(signal);
                }
            }
        };
        tokio::time::timeout(PATIENCE, all).await.unwrap();
        signals
    }

    async fn calls(&mut self, wanted: usize) -> Vec<Value> {
        let enough = async {
            while self.calls.lock().unwrap().len() < wanted {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let _ = tokio::time::timeout(PATIENCE, enough).await;
        std::mem::take(&mut *self.calls.lock().unwrap())
    }
}

/// The cases of a file, those that stand for faults of the peer apart.
fn read(text: &str) -> (Vec<Case>, Vec<Case>) {
    let cases: Vec<Case> = serde_json::from_str(text).unwrap();
    cases.into_iter().partition(|case| case.compat.is_some())
}

const PEER: &str = include_str!("../conformance/cases.json");
const OURS: &str = include_str!("../conformance/more.json");

/// Runs every case of a file, or those that begin with `CASE`.
async fn hold_to(text: &str, mode: Mode) {
    let only = std::env::var("CASE").ok();
    let (_, cases) = read(text);
    let cases: Vec<_> = cases
        .into_iter()
        .filter(|case| only.as_ref().is_none_or(|only| case.id.starts_with(only)))
        .collect();
    let run = cases.len();
    let mut faults: Vec<String> = stream::iter(cases)
        .map(|case| async move {
            let mut tidings = Tidings::start(&case, mode).await;
            let fault = case.run(&mut tidings).await.err();
            tidings.stop().await;
            Some(format!("{}: {}", case.id, fault?))
        })
        .buffer_unordered(AT_ONCE)
        .filter_map(|fault| async move { fault })
        .collect()
        .await;
    faults.sort();
    println!("{run} cases");
    assert!(
        faults.is_empty(),
        "{} of {run} cases:\n{}",
        faults.len(),
        faults.join("\n")
    );
}

/// Where the peer fails or tells its SQL, the answer is clean.
async fn answer_better(mode: Mode) {
    const CLEAN: [(&str, u16); 5] = [
        ("peer-bug-01", 404),
        ("peer-bug-03", 200),
        ("peer-bug-05", 400),
        ("peer-bug-07", 200),
        ("peer-bug-09", 400),
    ];
    let (cases, _) = read(PEER);
    assert_eq!(cases.len(), CLEAN.len());
    for (case, (id, wanted)) in cases.iter().zip(CLEAN) {
        let tidings = Tidings::start(case, mode).await;
        let (status, body) = case.answer(&tidings).await;
        assert_eq!((case.id.as_str(), status), (id, wanted), "{body}");
        let text = body.to_string().to_lowercase();
        for sql in ["insert into", "select ", "varying", "syntax"] {
            assert!(!text.contains(sql), "{id}: {text}");
        }
        tidings.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tidings_behaves_as_the_peer_does() {
    hold_to(PEER, Mode::Embedded).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tidings_behaves_as_the_contract_says() {
    hold_to(OURS, Mode::Embedded).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn faults_of_the_peer_are_answered_better() {
    answer_better(Mode::Embedded).await;
}
