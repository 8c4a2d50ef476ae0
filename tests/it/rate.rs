//! How well a rate is kept, measured: `tests/run -- --ignored measured --nocapture`. Not a test
//! that could fail by a slow machine; what must hold is in the store's suite and in `sender/role.rs`.

use std::time::Duration;
use std::time::Instant;

use serde_json::json;

use crate::support::app::App;
use crate::support::app::DECORATOR;
use crate::support::app::INBOX;
use crate::support::app::INGEST;
use crate::support::app::SENDER;
use crate::support::app::person;

const PEOPLE: usize = 1_000;
const RATE: &str = "50/s";

/// A crowd of mails through these processes, which are started again with the default schedule
/// and lease; prints how long it took.
async fn measure(mut app: App, what: &str) {
    app.configure(|config| {
        config
            .replace("retry: [200ms, 1s, 6s, 10m]", "retry: [10s, 1m, 5m]")
            .replace("lease: 5s", "lease: 60s")
            + &format!("  channels: {{ email: {{ rate: {RATE} }} }}\n")
    });
    for process in &mut app.processes {
        assert!(process.terminate());
        process.start_again();
    }
    app.until_ready().await;
    let refs: Vec<String> = (0..PEOPLE).map(person).collect();
    let body = json!({"recipients": {"type": "entity", "entityRef": refs},
        "payload": {"title": "All hands"}});
    let started = Instant::now();
    app.ingest.send(&body, &[]).await;
    app.smtp.wait_for(1).await;
    let first = started.elapsed();
    app.smtp.wait_for(PEOPLE).await;
    let took = started.elapsed();
    println!("{what}: {PEOPLE} mails at {RATE} in {took:.2?}, the first after {first:.2?}");
}

#[cfg(feature = "sqlite")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn measured_on_one_file() {
    measure(App::embedded().await, "one process on one file").await;
}

async fn distributed(senders: usize) -> App {
    let mut processes: Vec<(&'static str, &[&str])> =
        vec![(INBOX, &[]), (INGEST, &[]), (DECORATOR, &[])];
    processes.extend(vec![(SENDER, ["email"].as_slice()); senders]);
    let steps = |settings: &mut tidings::queue::rabbitmq::RabbitSettings| {
        settings
            .steps
            .extend([10, 60, 300].map(Duration::from_secs));
    };
    App::distributed_with("", steps, &processes).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn measured_distributed_with_one_sender() {
    measure(distributed(1).await, "one sender process").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn measured_distributed_with_two_senders() {
    measure(distributed(2).await, "two sender processes").await;
}
