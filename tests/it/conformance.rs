//! Tidings against the behaviour of the peer; see `tests/conformance/README.md`.
#![cfg(feature = "sqlite")]

mod case;
mod matching;
mod processors;

use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream;
use serde_json::Value;
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

/// A house that a case is sent to.
struct Tidings {
    house: House,
    url: String,
    heard: mpsc::Receiver<Announcement>,
    calls: Calls,
}

impl Tidings {
    async fn start(case: &Case) -> Self {
        let calls: Calls = Arc::new(Mutex::default());
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
            let (links, sender) = hooks(&described, &calls);
            chain.extend(links);
            plan.senders.push(sender);
        }
        plan.chain = Chain::from(chain);
        let house = House::build(plan).await;
        Self {
            url: house.served.url(""),
            heard: house.queue.announcements().await.unwrap(),
            house,
            calls,
        }
    }
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
        let mut signals = Vec::new();
        while let Ok(announcement) = self.heard.try_recv() {
            if let Announcement::Body(body) = announcement {
                signals.push(serde_json::from_slice(&body).unwrap());
            }
        }
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

/// Whether a case is not run: its behaviour is a fault of the peer.
fn set_aside(case: &Case) -> bool {
    case.compat.is_some()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tidings_behaves_as_the_peer_does() {
    let cases: Vec<Case> = serde_json::from_str(include_str!("../conformance/cases.json")).unwrap();
    let only = std::env::var("CASE").ok();
    let (aside, cases): (Vec<_>, Vec<_>) = cases.into_iter().partition(set_aside);
    let cases: Vec<_> = cases
        .into_iter()
        .filter(|case| only.as_ref().is_none_or(|only| case.id.starts_with(only)))
        .collect();
    let run = cases.len();
    let mut faults: Vec<String> = stream::iter(cases)
        .map(|case| async move {
            let mut tidings = Tidings::start(&case).await;
            let fault = case.run(&mut tidings).await.err()?;
            Some(format!("{}: {fault}", case.id))
        })
        .buffer_unordered(AT_ONCE)
        .filter_map(|fault| async move { fault })
        .collect()
        .await;
    faults.sort();
    println!("{run} cases, {} set aside", aside.len());
    assert!(
        faults.is_empty(),
        "{} of {run} cases:\n{}",
        faults.len(),
        faults.join("\n")
    );
}
