//! Many open pages on one process.

use std::fmt;
use std::time::Duration;
use std::time::Instant;

use futures::StreamExt as _;
use futures::stream;

use crate::support::app::App;
use crate::support::app::CROWD;
use crate::support::app::LIMIT;
use crate::support::app::broadcast;
use crate::support::app::person;
use crate::support::page::Page;

/// What a crowd costs the process that serves it.
struct Cost {
    /// Resident memory, before anybody came, with everybody there, and once they have heard.
    kib: [u64; 3],
    /// From the answer to the sender's request until the last page has heard.
    broadcast: Duration,
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [empty, full, after] = self.kib;
        let heard = self.broadcast.as_millis();
        write!(
            f,
            "{empty} KiB empty, {full} KiB full, {after} KiB after; told in {heard} ms"
        )
    }
}

/// Opens `pages` and tells them all something.
async fn crowd(pages: usize) -> Cost {
    let app = App::embedded().await;
    let process = &app.processes[0];
    let empty = process.resident_kib();
    let opened = stream::iter(0..pages).map(|number| {
        let token = app.api.user_token(&person(number % CROWD));
        async move {
            let mut page = Page::open(&process.address, &token).await.unwrap();
            page.subscribe("notifications").await;
            page
        }
    });
    let mut opened: Vec<Page> = opened.buffer_unordered(64).collect().await;
    let full = process.resident_kib();

    let heard = opened.iter_mut().map(|page| page.until("new_notification"));
    let heard = futures::future::join_all(heard);
    let send = async {
        app.api.send(&broadcast("Everybody"), &[]).await;
        Instant::now()
    };
    let both = async { tokio::join!(send, heard) };
    let (sent, heard) = tokio::time::timeout(LIMIT, both).await.unwrap();
    assert_eq!(heard.len(), pages);
    Cost {
        broadcast: sent.elapsed(),
        kib: [empty, full, process.resident_kib()],
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn some_hundred_pages_hear_one_broadcast() {
    let cost = crowd(400).await;
    let [empty, _, after] = cost.kib;
    // 50 KiB for each is what 10,000 in 500 MB may take; the rest is for having begun at all.
    assert!(after - empty < 400 * 50 + 20_000, "{cost}");
}

/// Needs 11,000 open files: `ulimit -n`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement: prints what 10,000 pages cost"]
async fn ten_thousand_pages_fit_into_500_megabytes() {
    let cost = crowd(10_000).await;
    println!("{cost}");
    assert!(cost.kib.iter().all(|kib| *kib < 488_281), "{cost}");
}
