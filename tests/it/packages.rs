//! Processors in packages of their own, below `tests/packages`: written as a user of the library
//! writes them, built with the least features, run as programs of their own with the rights of
//! `deploy/rabbitmq/setup`.

mod service;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use serde_json::json;
use tidings::queue::rabbitmq::RabbitSettings;
use tidings::topology;

use self::service::Service;
use crate::support::app::App;
use crate::support::app::Process;
use crate::support::app::TIDINGS;
use crate::support::app::eventually;
use crate::support::app::person;
use crate::support::app::to;
use crate::support::rabbitmq;

const LIST: &str = "/api/notifications/notifications";

/// The program of a package, as `tests/run` builds it.
fn program(name: &str) -> &'static str {
    let path = Path::new(TIDINGS).with_file_name(name);
    assert!(
        path.exists(),
        "{name} is not built: start the tests by tests/run"
    );
    path.display().to_string().leak()
}

/// A Tidings that knows the processor `name`.
async fn with(name: &str, decorates: bool) -> App {
    let mut lines = format!("  senders: [ {{ name: {name} }} ]\n");
    if decorates {
        lines += &format!("  decorators: [ {{ name: {name}, queue: true, timeout: 60s }} ]\n");
    }
    let more = |settings: &mut RabbitSettings| {
        settings.queues = topology::queues(&["email".to_owned(), name.to_owned()]);
        if decorates {
            let queues = topology::decorate_queues([name].into_iter());
            settings.queues.extend(queues);
        }
    };
    App::distributed_with(&lines, more, &[(TIDINGS, &["up"])]).await
}

/// Starts the program of the processor `name` with these options; `None` where no users can be
/// made.
async fn start(app: &App, name: &str, options: &Value) -> Option<Process> {
    let url = rabbitmq::foreign(app.prefix(), "foreign-processor", name).await?;
    let config = json!({
        "notifications": {"processors": {name: options}},
        "tidings": {"queue": {"url": url}, "store": null},
    });
    let file = app.dir().join(format!("{name}.yaml"));
    std::fs::write(file, config.to_string()).unwrap();
    let own = format!("{name}.yaml");
    let args = ["--config", "tidings.yaml", "--config", &own];
    Some(Process::start(program(name), &args, app.dir()))
}

/// Sends; the submission's id.
async fn send(app: &App, user: &str, title: &str) -> String {
    let (status, accepted) = app.api.send(&to(&[user], title), &[]).await;
    assert_eq!(status, 202, "{accepted}");
    accepted["submission"].as_str().unwrap().to_owned()
}

/// How the deliveries of a channel stand.
async fn channel(app: &App, name: &str) -> Value {
    let (_, told) = app.api.operate("/api/tidings/v1/status").await;
    let channels = told["summary"]["channels"].as_array().unwrap();
    let found = channels.iter().find(|one| one["channel"] == name);
    found.cloned().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn distributed_a_package_decorates_and_sends_by_one_type() {
    let app = with("greeter", true).await;
    let options = json!({"host": "localhost", "port": app.smtp.port(),
        "origin": "external:ci", "icon": "hand"});
    let Some(mut greeter) = start(&app, "greeter", &options).await else {
        return;
    };
    send(&app, &person(1), "Hello").await;
    let one = eventually("the notification", async || {
        let inbox = app.api.get_as(&person(1), LIST).await.1;
        inbox["notifications"].get(0).cloned()
    })
    .await;
    assert_eq!(one["payload"]["icon"], "hand");
    let mails = app.smtp.wait_for(2).await;
    let own: Vec<_> = mails
        .iter()
        .filter(|mail| mail.from.contains("greeter@example.com"))
        .collect();
    assert_eq!(own.len(), 1, "one by the greeter, one by Tidings");
    assert_eq!(own[0].to, ["p0001@example.com"]);
    eventually("the attempt to be recorded", async || {
        (channel(&app, "greeter").await["sent"] == 1).then_some(())
    })
    .await;

    // A person without an address is skipped, and the timeline says why.
    let id = send(&app, "user:default/nobody", "Hello").await;
    eventually("the skipped attempt", async || {
        let path = format!("/api/tidings/v1/submissions/{id}");
        let (_, told) = app.api.operate(&path).await;
        let mut lines = told["deliveries"].as_array()?.iter();
        let line = lines.find(|line| line["channel"] == "greeter")?;
        (line["state"] == "skipped" && line["detail"] == "no address").then_some(())
    })
    .await;

    let url = |path: &str| format!("http://{}{path}", greeter.admin);
    let metrics = app.api.http().get(url("/metrics")).send().await.unwrap();
    let metrics = metrics.text().await.unwrap();
    for wanted in [
        "tidings_decorations_total{decorator=\"greeter\",outcome=\"changed\"}",
        "tidings_deliveries_total{channel=\"greeter\",outcome=\"sent\",reason=\"\"} 1",
    ] {
        assert!(metrics.contains(wanted), "{wanted} in\n{metrics}");
    }
    eventually("readiness", async || {
        let ready = app.api.http().get(url("/readyz")).send().await.ok()?;
        ready.status().is_success().then_some(())
    })
    .await;
    assert!(greeter.terminate(), "it drains");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn distributed_a_package_retries_and_waits_for_its_service() {
    let app = with("courier", false).await;
    let service = Service::start().await;
    let Some(_courier) = start(&app, "courier", &json!({"url": service.url()})).await else {
        return;
    };
    service.answer(&[503, 503, 200]);
    send(&app, &person(1), "Again").await;
    let got = service.wait_for(3).await;
    let attempts: Vec<_> = got.iter().map(|one| one["attempt"].clone()).collect();
    assert_eq!(attempts, [1, 2, 3].map(Value::from));
    let ids: BTreeSet<String> = got.iter().map(|one| one["id"].to_string()).collect();
    assert_eq!(ids.len(), 1, "one id on every try: {got:?}");

    service.answer(&[400]);
    send(&app, &person(2), "Refused").await;
    eventually("the dead letter", async || {
        let (out, _, _) = app.cli(&["dead", "list", "--json"]).await;
        let letter: Value = serde_json::from_str(out.lines().next()?).unwrap();
        (letter["stage"] == "deliver.courier" && letter["reason"] == "rejected").then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn distributed_packages_that_are_killed_lose_nothing() {
    const COUNT: usize = 200;
    let app = with("courier", false).await;
    let service = Service::start().await;
    let Some(mut courier) = start(&app, "courier", &json!({"url": service.url()})).await else {
        return;
    };
    for number in 0..COUNT {
        send(&app, &person(number), &format!("Note {number}")).await;
        if number % 80 == 40 {
            courier.kill_and_restart();
        }
    }
    eventually("every note", async || {
        let ids: BTreeSet<String> = service
            .got()
            .iter()
            .map(|one| one["id"].to_string())
            .collect();
        (ids.len() == COUNT).then_some(())
    })
    .await;
    eventually("every attempt to be recorded", async || {
        (channel(&app, "courier").await["sent"] == COUNT).then_some(())
    })
    .await;
}

#[tokio::test]
async fn distributed_a_package_that_nobody_asks_says_what_to_write() {
    let dir = tempfile::tempdir().unwrap();
    let config = "tidings: { queue: { url: \"amqp://localhost\" } }\n";
    std::fs::write(dir.path().join("tidings.yaml"), config).unwrap();
    let courier = |args: &[&str]| {
        let mut command = Command::new(program("courier"));
        command.args(args).current_dir(dir.path()).output().unwrap()
    };
    let done = courier(&[]);
    let said = String::from_utf8(done.stderr).unwrap();
    assert_eq!(done.status.code(), Some(3), "{said}");
    assert!(
        said.contains("url"),
        "its own section is read first: {said}"
    );
    let config = format!(
        "{config}notifications: {{ processors: {{ courier: {{ url: \"http://localhost\" }} }} }}\n"
    );
    std::fs::write(dir.path().join("tidings.yaml"), config).unwrap();
    let done = courier(&[]);
    let said = String::from_utf8(done.stderr).unwrap();
    assert_eq!(done.status.code(), Some(3), "{said}");
    for words in [
        "nothing is routed to `courier`",
        "`tidings.senders: [ { name: courier } ]`",
    ] {
        assert!(said.contains(words), "{words} in {said}");
    }
    let help = courier(&["--help"]);
    let help = String::from_utf8(help.stdout).unwrap();
    assert!(
        help.contains("Examples:") && help.contains("--config"),
        "{help}"
    );
}

#[test]
fn distributed_a_package_with_the_least_features_compiles_no_database() {
    let done = Command::new(env!("CARGO"))
        .args(["tree", "--offline", "--locked", "-p", "courier"])
        .args(["--edges", "normal,build", "--prefix", "none"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    let tree = String::from_utf8(done.stdout).unwrap();
    assert!(tree.contains("lapin"), "{tree}");
    for unwanted in [
        "rusqlite",
        "libsqlite3-sys",
        "tokio-postgres",
        "deadpool",
        "lettre",
    ] {
        assert!(!tree.contains(unwanted), "{unwanted} in\n{tree}");
    }
}
