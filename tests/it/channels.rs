//! The switches of channels, what is configured, and one real message through a channel.

use serde_json::Value;

use crate::support::app::App;
use crate::support::app::eventually;
use crate::support::app::person;
use crate::support::app::to;

async fn pause_holds(mut app: App) {
    let (out, err, code) = app.cli(&["pause", "email"]).await;
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("email is paused"), "{out}");
    eventually("every sender process to know", async || {
        let mut senders = app.processes.iter().filter(|one| one.runs("email"));
        let all = senders.all(|one| one.log().contains("\"state\":\"paused\""));
        all.then_some(())
    })
    .await;
    let (status, _) = app.api.send(&to(&[&person(1)], "Held"), &[]).await;
    assert_eq!(status, 202);
    let pending = async |app: &App| {
        let (out, _, _) = app.cli(&["processors", "--json"]).await;
        let read = |line| serde_json::from_str::<Value>(line).unwrap();
        let email = out.lines().map(read).find(|one| one["name"] == "email");
        let email = email.unwrap();
        assert_eq!(
            (&email["kind"], &email["channel"]),
            (&"sender".into(), &"Email".into())
        );
        (email["state"].clone(), email["pending"].clone())
    };
    eventually("the delivery to wait", async || {
        (pending(&app).await == ("paused".into(), 1.into())).then_some(())
    })
    .await;
    let (out, _, code) = app.cli(&["status"]).await;
    assert_eq!(code, 0, "a pause is wanted: {out}");
    assert!(
        out.contains("paused: email") && out.contains("external:cli"),
        "{out}"
    );

    for process in &mut app.processes {
        assert!(process.terminate());
    }
    for process in &mut app.processes {
        process.start_again();
    }
    app.until_ready().await;
    assert_eq!(pending(&app).await, ("paused".into(), 1.into()));
    assert!(
        app.smtp.mails().is_empty(),
        "a restart lets nothing through"
    );

    let (_, err, code) = app.cli(&["resume", "email"]).await;
    assert_eq!(code, 0, "{err}");
    app.smtp.wait_for(1).await;
    let (out, _, code) = app.cli(&["resume", "email"]).await;
    assert_eq!(code, 0, "{out}");
    let (_, err, code) = app.cli(&["pause", "pigeon"]).await;
    assert_eq!(code, 5, "{err}");
    assert!(
        err.contains("no sender `pigeon`") && err.contains("email"),
        "{err}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_a_paused_channel_holds_its_deliveries_over_a_restart() {
    pause_holds(App::embedded().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn distributed_a_paused_channel_holds_its_deliveries_over_a_restart() {
    pause_holds(App::by_role().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_a_test_message_says_what_the_service_answered() {
    let app = App::embedded().await;
    let test = |args: &'static [&'static str]| {
        let mut command = tokio::process::Command::new(crate::support::app::TIDINGS);
        command
            .args(["test", "--config", "tidings.yaml"])
            .args(args)
            .current_dir(app.dir());
        async move {
            let done = command.output().await.unwrap();
            let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
            (text(done.stdout), text(done.stderr), done.status.code())
        }
    };
    let (out, err, code) = test(&["email", "--to", "user:default/p0001"]).await;
    assert_eq!(code, Some(0), "{out}{err}");
    assert!(out.starts_with("sent"), "{out}");
    let mails = app.smtp.wait_for(1).await;
    assert_eq!(mails[0].to, ["p0001@example.com"]);
    let (out, _, code) = test(&["email", "--to", "somebody@example.com"]).await;
    assert_eq!(code, Some(0), "{out}");
    assert_eq!(app.smtp.wait_for(2).await[1].to, ["somebody@example.com"]);

    let fault =
        crate::support::smtp::Fault::recipient("p0002@example.com", "550 5.1.1 no such user");
    app.smtp.fault(fault);
    let (out, _, code) = test(&["email", "--to", "user:default/p0002"]).await;
    assert_eq!(code, Some(5), "{out}");
    assert!(
        out.starts_with("failed: rejected:") && out.contains("no such user"),
        "{out}"
    );
    let (_, err, code) = test(&["email", "--to", "user:default/nobody"]).await;
    assert_eq!(code, Some(2), "{err}");
    assert!(err.contains("is not in the catalog"), "{err}");
    let (_, err, code) = test(&["pigeon"]).await;
    assert_eq!(code, Some(2), "{err}");
    assert!(err.contains("configured are: email"), "{err}");
}
