//! The processors that are built in, and how the configuration makes them.
//!
//! To build one in: a file beside this one, a line in one of the two lists below. To add one
//! without touching Tidings: a binary of your own that hands it to the runner.

use std::path::PathBuf;
use std::sync::Arc;

use serde::Deserialize;
use url::Url;

use crate::catalog::Catalog;
use crate::config::Config;
use crate::config::ConfigError;
use crate::config::DecoratorSettings;
use crate::config::Section;
use crate::config::Settings;
use crate::processor::Decorator;
use crate::processor::Filter;
use crate::processor::Link;
use crate::processor::QueueStep;
use crate::processor::Sender;
use crate::processor::Step;
#[cfg(feature = "apprise")]
use crate::processor::apprise;
#[cfg(feature = "email")]
use crate::processor::email;
#[cfg(feature = "client")]
use crate::processor::http;
use crate::processor::is_name;
use crate::processor::redact;
use crate::processor::rules;
#[cfg(feature = "slack")]
use crate::processor::slack;
use crate::processor::template;
#[cfg(feature = "webhook")]
use crate::processor::webhook;

/// Makes a decorator of an item of `tidings.decorators`.
type MakeDecorator = fn(&Section, &Services) -> Result<Arc<dyn Decorator>, ConfigError>;

/// Makes a sender of its section of `notifications.processors`, which need not exist; `None`
/// where nothing is to be sent without one.
type MakeSender = fn(&Section, &Services) -> Result<Option<Arc<dyn Sender>>, ConfigError>;

/// The decorators, by name.
const DECORATORS: &[(&str, MakeDecorator)] = &[
    #[cfg(feature = "client")]
    (http::NAME, http::build),
    (redact::NAME, redact::build),
    (rules::NAME, rules::build),
    (template::NAME, template::build),
];

/// The senders, by name.
const SENDERS: &[(&str, MakeSender)] = &[
    #[cfg(feature = "email")]
    (email::NAME, email::build),
    #[cfg(feature = "slack")]
    (slack::NAME, slack::build),
    #[cfg(feature = "apprise")]
    (apprise::NAME, apprise::build),
    #[cfg(feature = "webhook")]
    (webhook::NAME, webhook::build),
];

/// What a processor may be given when it is made.
#[derive(Clone)]
pub struct Services {
    /// Who belongs to whom, and how to reach them.
    pub catalog: Arc<dyn Catalog>,
    /// `app.baseUrl`: where links lead.
    pub app_base_url: Url,
    /// `tidings.data`: where it may keep files.
    pub data: PathBuf,
    /// Development mode: nothing needs to be configured.
    pub development: bool,
    /// One process on one file: what would need a service of its own may use a folder instead.
    pub embedded: bool,
    /// `tidings.retention.outbox`: how many messages such a folder keeps.
    pub outbox: usize,
}

/// The decorators, in configured order.
///
/// # Errors
/// A name that is none of them, or what is wrong with one's options.
pub fn decorators(settings: &Settings, services: &Services) -> Result<Vec<Step>, ConfigError> {
    let make = |item: &DecoratorSettings| {
        if item.queue {
            return foreign(item, settings.queue.is_some()).map(Step::Queue);
        }
        let Some((_, make)) = DECORATORS.iter().find(|(name, _)| *name == item.name) else {
            let names: Vec<&str> = DECORATORS.iter().map(|(name, _)| *name).collect();
            return Err(item.section.error(
                format!("there is no decorator `{}`", item.name),
                format!("built in: {}", names.join(", ")),
            ));
        };
        Ok(Step::Here(Link {
            decorator: make(&item.section, services)?,
            policy: item.policy,
            timeout: item.timeout,
        }))
    };
    settings.decorators.iter().map(make).collect()
}

/// The keys of a decorator that is somebody else's worker.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Foreign {
    #[serde(default)]
    filter: Filter,
}

/// A decorator that is somebody else's worker, on a queue.
fn foreign(item: &DecoratorSettings, distributed: bool) -> Result<QueueStep, ConfigError> {
    let error = |message: String, help: &str| Err(item.section.error(message, help));
    if !is_name(&item.name) {
        let message = format!("`{}` cannot be part of a queue's name", item.name);
        return error(message, "use a-z, 0-9, `-` and `_`, as in weather");
    }
    if !distributed {
        let message = format!(
            "the decorator `{}` needs a queue that others reach",
            item.name
        );
        return error(
            message,
            "set tidings.queue.url and tidings.store.url, or leave it out",
        );
    }
    if DECORATORS.iter().any(|(name, _)| *name == item.name) {
        let message = format!(
            "`{}` is the name of a decorator that is built in",
            item.name
        );
        return error(message, "choose another name, or leave out `queue`");
    }
    let read: Foreign = item.section.read()?;
    Ok(QueueStep {
        name: item.name.clone(),
        filter: read.filter,
        policy: item.policy,
        timeout: item.timeout,
    })
}

/// The senders that are configured, or need no configuration.
///
/// # Errors
/// What is wrong with one's section.
pub fn senders(config: &Config, services: &Services) -> Result<Vec<Arc<dyn Sender>>, ConfigError> {
    let make = |(name, make): &(&str, MakeSender)| {
        let section = config.section(&format!("notifications.processors.{name}"));
        make(&section, services).transpose()
    };
    SENDERS.iter().filter_map(make).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::catalog::file::FileCatalog;
    use crate::config::Environment;
    use crate::processor::Policy;
    use std::time::Duration;

    fn services() -> Services {
        Services {
            catalog: Arc::new(FileCatalog::open(vec![]).unwrap()),
            app_base_url: Url::parse("http://localhost:3000").unwrap(),
            data: "data".into(),
            development: false,
            embedded: false,
            outbox: 10,
        }
    }

    fn load(yaml: &str) -> (tempfile::TempDir, Config) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("tidings.yaml");
        std::fs::write(&file, yaml).unwrap();
        let config = Config::load(&[file], &[], &Environment::default()).unwrap();
        (folder, config)
    }

    /// The decorator of this item, which runs in this process.
    pub(crate) fn one_decorator(item: &str) -> Result<Arc<dyn Decorator>, ConfigError> {
        let steps = build(&format!("    - {}\n", item.replace('\n', "\n      ")), "")?;
        match steps.into_iter().next() {
            Some(Step::Here(link)) => Ok(link.decorator),
            _ => panic!("no decorator here"),
        }
    }

    /// The decorators of a `tidings.yaml` with these under `decorators`, in a folder with a
    /// template `deploy.txt`.
    fn build(decorators: &str, deploy: &str) -> Result<Vec<Step>, ConfigError> {
        let (folder, config) = load(&format!("tidings:\n  decorators:\n{decorators}"));
        std::fs::write(folder.path().join("deploy.txt"), deploy).unwrap();
        super::decorators(&config.settings()?, &services())
    }

    #[cfg(all(
        feature = "email",
        feature = "slack",
        feature = "apprise",
        feature = "webhook"
    ))]
    #[test]
    fn the_configuration_knows_every_sender_and_warns_of_no_other() {
        let names: Vec<&str> = SENDERS.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, crate::config::keys::PROCESSORS);
    }

    #[cfg(feature = "email")]
    #[test]
    fn mail_is_sent_where_it_is_configured_or_to_files_when_embedded() {
        let names = |embedded| {
            let services = Services {
                embedded,
                ..services()
            };
            let senders = super::senders(&Config::empty(), &services).unwrap();
            let names: Vec<_> = senders.iter().map(|one| one.name().to_owned()).collect();
            names
        };
        assert!(names(false).is_empty());
        assert_eq!(names(true), ["email"]);
        let (_folder, config) = load("notifications: { processors: { email: { sender: a@b.c } } }");
        let error = super::senders(&config, &services()).err().unwrap();
        let error = error.to_string();
        for word in ["transportConfig` is missing", "tidings.yaml:1:", "hostname"] {
            assert!(error.contains(word), "{word} in {error}");
        }
    }

    #[cfg(feature = "webhook")]
    #[test]
    fn what_is_wrong_with_an_endpoint_is_told_at_its_key_and_without_its_secret() {
        let secret = "secret: whsec_canarycanarycanarycanarycanarycanary";
        for (endpoint, words) in [
            (
                format!("{{ name: a, url: \"http://10.0.0.1/hook\", {secret} }}"),
                "private|endpoints[0].url|allowPrivate",
            ),
            (
                "{ name: a, url: \"https://b.c/hook\" }".to_owned(),
                "secret` is missing|whsec_",
            ),
            (
                format!("{{ name: A b, url: \"https://b.c/\", {secret} }}"),
                "is no name|deploy-bot",
            ),
            (
                format!("{{ name: a, url: \"ftp://b.c/hook\", {secret} }}"),
                "http or https|tidings.yaml:",
            ),
            (
                "{ name: a, url: \"https://b.c/\", secret: canary }".to_owned(),
                "whsec_|openssl rand",
            ),
            (
                format!("{{ name: a, url: \"https://b.c/\", {secret}, timeout: 26s }}"),
                "at most 25 s",
            ),
            (
                format!("{{ name: a, url: \"https://b.c/\", {secret}, allowPrivate: [x] }}"),
                "is not a network|10.1.0.0/16",
            ),
            (
                format!("{{ name: a, url: \"https://b.c/\", {secret}, orgins: [] }}"),
                "did you mean `origins`?",
            ),
        ] {
            let yaml = format!(
                "notifications: {{ processors: {{ webhook: {{ endpoints: [ {endpoint} ] }} }} }}"
            );
            let (_folder, config) = load(&yaml);
            let error = super::senders(&config, &services())
                .err()
                .unwrap()
                .to_string();
            for word in words.split('|') {
                assert!(error.contains(word), "{word} in {error}");
            }
            assert!(!error.contains("canary"), "{error}");
        }
    }

    #[test]
    fn decorators_keep_their_order_and_take_policy_and_timeout() {
        let links = build(
            "    - { name: template, rules: [ { icon: bell } ] }
    - name: template
      policy: retry
      timeout: 2s
      filter: { minSeverity: high }
      rules:
        - topic: deploy
          title: \"Deployed: {{ title }}\"
          description: { file: deploy.txt }
",
            "by {{ origin }}",
        )
        .unwrap();
        let told: Vec<_> = links
            .iter()
            .map(|step| match step {
                Step::Here(link) => (link.policy, link.timeout),
                Step::Queue(step) => panic!("{step:?} is nobody's here"),
            })
            .collect();
        assert_eq!(
            told,
            [
                (Policy::Skip, Duration::from_secs(10)),
                (Policy::Retry, Duration::from_secs(2))
            ]
        );
    }

    #[test]
    fn a_decorator_on_a_queue_is_a_step_of_its_own() {
        let distributed = |item: &str| {
            let (_folder, config) = load(&format!(
                "tidings:
  queue: {{ url: \"amqp://localhost\" }}
  store: {{ url: \"postgres://localhost\" }}
  decorators:
    - {item}
"
            ));
            super::decorators(&config.settings().unwrap(), &services())
        };
        let steps = distributed(
            "{ name: weather, queue: true, timeout: 3s, filter: { minSeverity: high } }",
        );
        let [Step::Queue(step)] = &steps.unwrap()[..] else {
            panic!("one step on a queue");
        };
        assert_eq!((step.name.as_str(), step.timeout.as_secs()), ("weather", 3));
        assert_eq!(step.policy, Policy::Skip);
        assert!(step.filter.min_severity.is_some());
        for (item, words) in [
            (
                "{ name: Wetter.bericht, queue: true }",
                "cannot be part of a queue's name",
            ),
            ("{ name: template, queue: true }", "built in"),
            ("{ name: weather, queue: true, rules: [] }", "rules"),
        ] {
            let error = distributed(item).err().unwrap().to_string();
            assert!(error.contains(words), "{words} in {error}");
        }
    }

    #[test]
    fn what_is_wrong_is_told_with_file_line_and_help() {
        for (decorators, deploy, words) in [
            (
                "    - { name: wheather }\n",
                "",
                "error: there is no decorator `wheather`|tidings.yaml:3:|help: built in: http, redact, rules, template",
            ),
            (
                "    - name: template\n      rules:\n        - title: \"{{ titel }}\"\n",
                "",
                "rules[0].title`: unknown variable `titel`|tidings.yaml:5:18|did you mean `title`?",
            ),
            (
                "    - name: template\n      rules: [ { title: { file: deploy.txt } } ]\n",
                "a\n{% if %}",
                "deploy.txt:2: syntax error|tidings.yaml:4:|Jinja",
            ),
            (
                "    - name: template\n      rules: [ { title: [] } ]\n",
                "",
                "rules[0].title` must be a template|tidings.yaml:4:|",
            ),
            (
                "    - { name: weather, queue: true }\n",
                "",
                "the decorator `weather` needs a queue|tidings.yaml:3:|tidings.queue.url",
            ),
            (
                "    - name: template\n      rule: []\n",
                "",
                "unknown key|tidings.yaml:4:|did you mean `rules`?",
            ),
        ] {
            let error = build(decorators, deploy).err().unwrap().to_string();
            for word in words.split('|') {
                assert!(error.contains(word), "{word} in {error}");
            }
        }
    }
}
