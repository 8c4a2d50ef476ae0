//! The kill test: any process may die at any moment, and nothing accepted is lost or doubled.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::Value;

use crate::support::app::App;
use crate::support::app::eventually;
use crate::support::app::person;
use crate::support::app::to;

/// Submissions that flow.
const SUBMISSIONS: usize = 2_000;
/// How often a process is killed.
const KILLS: usize = 6;
/// People who get them, each as many.
const PEOPLE: usize = 50;
/// Producers at once.
const PRODUCERS: usize = 16;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_nothing_is_lost_or_doubled_when_the_process_is_killed_six_times() {
    let app = App::embedded().await;
    nothing_is_lost_or_doubled(app, &[0]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn distributed_nothing_is_lost_or_doubled_when_any_process_is_killed() {
    let app = App::by_role().await;
    // Inbox, ingest, a decorator, a sender, the other decorator, ingest again.
    nothing_is_lost_or_doubled(app, &[0, 1, 2, 4, 3, 1]).await;
}

/// Kills the processes with these numbers in turn, while producers repeat each request under its
/// key until it is accepted.
async fn nothing_is_lost_or_doubled(mut app: App, victims: &[usize]) {
    let next = Arc::new(AtomicUsize::new(0));
    let accepted = Arc::new(AtomicUsize::new(0));
    let producers: Vec<_> = (0..PRODUCERS)
        .map(|_| {
            let (api, next, accepted) =
                (app.ingest.clone(), Arc::clone(&next), Arc::clone(&accepted));
            tokio::spawn(async move {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if SUBMISSIONS <= number {
                        return;
                    }
                    let body = to(&[&person(number % PEOPLE)], &format!("number {number}"));
                    let key = format!("key-{number}");
                    while !api
                        .try_send(&body, &key)
                        .await
                        .is_some_and(|is| is.is_success())
                    {
                        // The process is dead just now.
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                    accepted.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for kill in 0..KILLS {
        let until = (kill + 1) * SUBMISSIONS / (KILLS + 1);
        eventually("the flow", async || {
            (until <= accepted.load(Ordering::Relaxed)).then_some(())
        })
        .await;
        let victim = victims[kill % victims.len()];
        let process = &mut app.processes[victim];
        tokio::task::block_in_place(|| process.kill_and_restart());
    }
    for producer in producers {
        producer.await.unwrap();
    }

    for number in 0..PEOPLE {
        let user = person(number);
        let want: BTreeSet<String> = (number..SUBMISSIONS)
            .step_by(PEOPLE)
            .map(|one| format!("number {one}"))
            .collect();
        let rows = eventually("everything to be stored", async || {
            let (_, inbox) = app
                .api
                .get_as(&user, "/api/notifications/notifications")
                .await;
            let rows = inbox["notifications"].as_array()?.clone();
            (want.len() <= rows.len()).then_some(rows)
        })
        .await;
        let titles: BTreeSet<String> = rows.iter().map(title).collect();
        assert_eq!(titles, want, "{user}: none lost");
        assert_eq!(rows.len(), want.len(), "{user}: none doubled");
        let (_, counts) = app.api.get_as(&user, "/api/notifications/status").await;
        assert_eq!(counts["unread"], want.len(), "{user}: the counter agrees");
    }
    let distinct = eventually("every mail", async || {
        let mails = app.smtp.count_by_message_id();
        (SUBMISSIONS <= mails.len()).then_some(mails.len())
    })
    .await;
    assert_eq!(distinct, SUBMISSIONS, "one Message-ID for each");
}

fn title(row: &Value) -> String {
    row["payload"]["title"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}
