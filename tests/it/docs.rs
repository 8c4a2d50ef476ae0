//! What is written for people is held to what the code says.

use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use tidings::backstage::Discovery;
use tidings::catalog::file::FileCatalog;
use tidings::config::CatalogSource;
use tidings::config::Config;
use tidings::config::Environment;
use tidings::config::keys::KEYS;
use tidings::failure::Reason;
use tidings::processor::registry::Services;
use tidings::processor::registry::senders;
use tidings::telemetry::metric;

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn read(name: &str) -> String {
    std::fs::read_to_string(file(name)).unwrap()
}

#[test]
fn the_readme_names_every_key_of_ours() {
    let readme = read("README.md");
    for (key, _) in KEYS {
        let parent = format!("{key}.");
        let item = format!("{key}[]");
        let is_group = KEYS
            .iter()
            .any(|(other, _)| other.starts_with(&parent) || other.starts_with(&item));
        if is_group || key.contains("[]") || key.ends_with(".*") {
            continue;
        }
        let name = key.trim_start_matches("tidings.").replace('*', "<name>");
        assert!(readme.contains(&format!("| `{name}` |")), "{name}");
    }
}

#[test]
fn the_runbook_says_what_to_do_about_every_reason() {
    let runbook = read("deploy/runbook.md");
    let mut sections: Vec<_> = runbook.split("\n### ").skip(1).collect();
    // The last one ends where the next chapter begins.
    if let Some(last) = sections.last_mut() {
        *last = last.split("\n## ").next().unwrap();
    }
    let named: Vec<_> = sections
        .iter()
        .map(|section| section.lines().next().unwrap())
        .collect();
    assert_eq!(named, Reason::ALL.map(Reason::as_str));
    for section in sections {
        for part in ["\n**Means** ", "\n**Look at** ", "\n**Type** "] {
            assert!(section.contains(part), "{part} in {section}");
        }
    }
}

#[test]
fn the_runbook_asks_for_metrics_that_there_are() {
    let metrics = [
        metric::SUBMISSIONS,
        metric::STAGE_SECONDS,
        metric::DELIVERIES,
        metric::QUEUE_OLDEST_SECONDS,
        metric::QUEUE_READY,
        metric::DEAD_LETTERS,
        metric::KEY_FETCHES,
        metric::ENDPOINTS_DISABLED,
        metric::ROWS,
        metric::CATALOG_REQUESTS,
        metric::BUS_SUBSCRIBED,
    ];
    let runbook = read("deploy/runbook.md");
    let word = |c: char| !c.is_ascii_lowercase() && c != '_';
    let asked = runbook
        .split(word)
        .filter(|one| one.starts_with("tidings_"));
    for name in asked {
        assert!(metrics.contains(&name), "{name}");
    }
}

#[test]
fn the_configuration_that_is_shipped_is_a_valid_one() {
    let environment = Environment::from_iter([
        (
            "TIDINGS_AMQP_URL",
            "amqp://tidings:secret@rabbitmq:5672/tidings",
        ),
        (
            "TIDINGS_DATABASE_URL",
            "postgres://tidings:secret@postgres:5432/tidings",
        ),
        ("SMTP_HOST", "smtp.example.com"),
        ("SMTP_PORT", "587"),
        ("SMTP_USERNAME", ""),
        ("SMTP_PASSWORD", ""),
        ("MAIL_SENDER", "Tidings <tidings@example.com>"),
    ]);
    let config = Config::load(&[file("deploy/tidings.yaml")], &[], &environment).unwrap();
    let settings = config.settings().unwrap();
    let told: Vec<_> = config.warnings().iter().map(ToString::to_string).collect();
    assert!(told.is_empty(), "{told:?}");
    assert!(settings.queue.is_some() && settings.store.is_some());
    assert_eq!(settings.catalog.files, [file("deploy/people.yaml")]);
    let services = Services {
        catalog: Arc::new(FileCatalog::open(settings.catalog.files).unwrap()),
        app_base_url: settings.app_base_url,
        data: settings.data,
        development: false,
        embedded: false,
        outbox: settings.retention.outbox,
    };
    let senders = senders(&config, &services).unwrap();
    let names: Vec<_> = senders.iter().map(|sender| sender.name()).collect();
    assert_eq!(names, ["email"]);
}

/// The YAML blocks of a page whose first line names a file.
fn blocks(page: &str, name: &str) -> Vec<String> {
    let page = read(page);
    let begin = format!("```yaml\n# {name}\n");
    let mut found = Vec::new();
    for block in page.split(&begin).skip(1) {
        found.push(block.split("\n```").next().unwrap().to_owned());
    }
    found
}

#[test]
fn what_the_page_on_moving_over_says_to_write_is_valid_on_both_sides() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let ours = blocks("deploy/backstage.md", "tidings.yaml");
    let theirs = blocks("deploy/backstage.md", "app-config.yaml");
    assert!(ours.len() == 1 && !theirs.is_empty());
    let ours = write("tidings.yaml", &ours[0]);
    for theirs in &theirs {
        // As they are handed over: what create-app writes, what the page adds, and ours.
        let files = [
            file("tests/it/app_config/app-config.yaml"),
            write("app-config.yaml", theirs),
            ours.clone(),
        ];
        let config = Config::load(&files, &[], &Environment::default()).unwrap();
        let settings = config.settings().unwrap();
        let told: Vec<_> = config.warnings().iter().map(ToString::to_string).collect();
        assert!(told.is_empty(), "{told:?}");
        assert_eq!(settings.catalog.source, CatalogSource::Backstage);
        let discovery = Discovery::new(&settings.backstage);
        for plugin in ["auth", "catalog"] {
            let inside = format!("http://backstage:7007/api/{plugin}");
            assert_eq!(discovery.internal(plugin).unwrap().as_str(), inside);
        }
        // And as Backstage reads it: to us.
        let config = Config::load(&files[..2], &[], &Environment::default()).unwrap();
        let discovery = Discovery::new(&config.settings().unwrap().backstage);
        for plugin in ["notifications", "signals"] {
            let here = format!("http://tidings:7117/api/{plugin}");
            assert_eq!(discovery.internal(plugin).unwrap().as_str(), here);
        }
    }
    let ingress = blocks("deploy/backstage.md", "ingress.yaml");
    let ingress = write("ingress.yaml", &ingress[0]);
    let ingress = Config::load(&[ingress], &[], &Environment::default()).unwrap();
    assert!(ingress.settings().is_ok());
}

#[test]
fn the_readmes_configuration_is_a_valid_one() {
    let readme = read("README.md");
    let yaml = readme.split("```yaml\n").nth(1).unwrap();
    let yaml = yaml.split("\n```").next().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tidings.yaml");
    std::fs::write(&path, yaml).unwrap();
    let environment = Environment::from_iter([("SMTP_PASSWORD", "secret")]);
    let config = Config::load(&[path], &[], &environment).unwrap();
    config.settings().unwrap();
    let told: Vec<_> = config.warnings().iter().map(ToString::to_string).collect();
    assert!(told.is_empty(), "{told:?}");
}
