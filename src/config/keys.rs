//! Every key that Tidings has of its own, what it means, and which other keys it reads.

/// The parts of a configuration that Tidings reads. Substitutions are made under these alone.
pub(super) const READ: [&str; 10] = [
    "app.baseUrl",
    "backend.baseUrl",
    "backend.auth.externalAccess",
    "backend.auth.keys",
    "backend.cors",
    "catalog.locations",
    "discovery.endpoints",
    "notifications",
    "signals",
    "tidings",
];

/// The processors that are built in, by the name of their section under
/// `notifications.processors`. The registry's own list, held to it by a test there.
pub const PROCESSORS: [&str; 4] = ["email", "slack", "apprise", "webhook"];

/// Backstage's keys under `notifications`.
pub(super) const NOTIFICATIONS: [&str; 5] = [
    "processors",
    "defaultSettings",
    "retention",
    "concurrencyLimit",
    "throttleInterval",
];

/// The keys under `tidings:` with what they mean; `*` is a name of your choice, `[]` each item of
/// a list. The structs in `settings/` read them, and a test holds the two together.
pub const KEYS: &[(&str, &str)] = &[
    (
        "tidings.listen",
        "the address of `tidings up` and of the inbox, as in 127.0.0.1:7117",
    ),
    ("tidings.ingest", "the endpoint for producers"),
    (
        "tidings.ingest.listen",
        "the address of `tidings-ingest`, as in 127.0.0.1:7118",
    ),
    (
        "tidings.ingest.wait",
        "how long an answer waits for what was stored, as in 2s",
    ),
    (
        "tidings.ingest.bodyLimit",
        "the largest request, as in 1MiB",
    ),
    (
        "tidings.ingest.deadline",
        "how long the queue may take to confirm, as in 20s",
    ),
    (
        "tidings.inbox",
        "the inbox where it is a process of its own",
    ),
    (
        "tidings.inbox.listen",
        "the address of `tidings-inbox`; by default `tidings.listen`",
    ),
    ("tidings.admin", "health and metrics"),
    (
        "tidings.admin.listen",
        "the address of health and metrics, as in 127.0.0.1:7119",
    ),
    (
        "tidings.queue",
        "RabbitMQ; absent: the file in `tidings.data`",
    ),
    (
        "tidings.queue.url",
        "the broker, as in amqp://user@host:5672/vhost",
    ),
    (
        "tidings.queue.prefix",
        "what the name of every queue begins with",
    ),
    (
        "tidings.queue.origins",
        "which broker user sends as which origin",
    ),
    (
        "tidings.queue.origins.*",
        "the origin of what this broker user sends",
    ),
    (
        "tidings.queue.limit",
        "how many submissions may wait before producers are refused",
    ),
    (
        "tidings.store",
        "PostgreSQL; absent: the file in `tidings.data`",
    ),
    (
        "tidings.store.url",
        "the database, as in postgres://user@host:5432/tidings",
    ),
    ("tidings.store.pool", "the most connections of one process"),
    (
        "tidings.data",
        "the directory of the database file, the outbox and generated keys",
    ),
    ("tidings.retry", "the waits between attempts"),
    ("tidings.channels", "what differs for a channel"),
    ("tidings.channels.*", "what differs for this channel"),
    (
        "tidings.channels.*.retry",
        "the waits between attempts on this channel",
    ),
    (
        "tidings.channels.*.rate",
        "how many sends may begin in a time, over all processes, as in 50/s",
    ),
    ("tidings.retention", "how long things are kept"),
    (
        "tidings.retention.submissions",
        "how long the story of a submission is kept, as in 30d",
    ),
    (
        "tidings.retention.deadLetters",
        "how long dead letters are kept, as in 30d",
    ),
    (
        "tidings.retention.outbox",
        "how many mails the outbox keeps",
    ),
    (
        "tidings.retention.saved",
        "true: `notifications.retention` deletes what people have saved, too",
    ),
    (
        "tidings.drain",
        "how long a stop waits for what is in hand, as in 25s",
    ),
    (
        "tidings.lease",
        "how long a sender may hold a delivery, as in 60s",
    ),
    (
        "tidings.decorators",
        "what changes notifications before they are stored, in order",
    ),
    ("tidings.decorators[].name", "which decorator"),
    (
        "tidings.decorators[].policy",
        "what its failure means: skip or retry",
    ),
    (
        "tidings.decorators[].timeout",
        "the longest it may take, as in 10s",
    ),
    (
        "tidings.senders",
        "senders that are programs of their own, on queues",
    ),
    ("tidings.senders[].name", "the queue is `deliver.<name>`"),
    (
        "tidings.senders[].channel",
        "its id in people's settings; by default the name",
    ),
    (
        "tidings.senders[].audience",
        "`person` (the default) or `submission`: once, whoever the recipients are",
    ),
    (
        "tidings.senders[].filter",
        "which notifications it is given, in Backstage's keys",
    ),
    (
        "tidings.senders[].annotations",
        "which annotations of a person it is given",
    ),
    (
        "tidings.senders[].timeout",
        "how long it may be silent about a delivery, as in 1d",
    ),
    (
        "tidings.decorators[].queue",
        "true: a program of its own, on the queue `decorate.<name>`",
    ),
    ("tidings.catalog", "where people and groups come from"),
    (
        "tidings.catalog.source",
        "file: the files in `catalog.locations`; backstage: the live catalog of Backstage",
    ),
    (
        "tidings.catalog.ttl",
        "how long what a live catalog says of groups is believed, as in 1m",
    ),
    (
        "tidings.catalog.stale",
        "how old an answer may be that serves while the live catalog is away, as in 24h",
    ),
    ("tidings.backstage", "how Tidings signs in at Backstage"),
    (
        "tidings.backstage.token",
        "a static token of Backstage, instead of tokens that Tidings signs",
    ),
    ("tidings.users", "whom user tokens are believed"),
    (
        "tidings.users.jwks",
        "who signs user tokens; absent: Backstage's auth where the catalog is Backstage's, else we",
    ),
    (
        "tidings.users.jwks[].url",
        "the public keys, as in https://backstage.example.com/api/auth/.well-known/jwks.json",
    ),
];

/// What a key means.
pub(super) fn meaning(key: &str) -> Option<&'static str> {
    let key = general(key);
    KEYS.iter()
        .find(|(pattern, _)| matches(pattern, &key))
        .map(|(_, meaning)| *meaning)
}

/// What to do about an unknown key: the one that was probably meant, or those there are.
pub(super) fn help(parent: &str, unknown: &str, known: &[&str]) -> String {
    if let Some(near) = closest(unknown, known) {
        let meaning = meaning(&format!("{parent}.{near}"));
        let meaning = meaning.map(|meaning| format!(" ({meaning})"));
        return format!("did you mean `{near}`?{}", meaning.unwrap_or_default());
    }
    if known.is_empty() {
        return "remove it".to_owned();
    }
    let known: Vec<String> = known.iter().map(|key| format!("`{key}`")).collect();
    format!("known here are {}", known.join(", "))
}

/// The word that was probably meant.
pub(super) fn closest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let word = word.to_lowercase();
    known
        .iter()
        .map(|one| (strsim::jaro_winkler(&word, &one.to_lowercase()), *one))
        .filter(|(likeness, _)| 0.84 < *likeness)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, one)| one)
}

/// The key with `[]` in place of every index.
fn general(key: &str) -> String {
    let mut made = String::with_capacity(key.len());
    let mut inside = false;
    for letter in key.chars() {
        inside = inside && letter != ']';
        if !inside {
            made.push(letter);
        }
        inside = inside || letter == '[';
    }
    made
}

fn matches(pattern: &str, key: &str) -> bool {
    let (mut pattern, mut key) = (pattern.split('.'), key.split('.'));
    loop {
        match (pattern.next(), key.next()) {
            (None, None) => return true,
            (Some("*"), Some(_)) => {}
            (Some(wanted), Some(found)) if wanted == found => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::config::Environment;

    #[test]
    fn a_key_has_its_meaning_also_below_lists_and_names() {
        assert!(meaning("tidings.decorators[3].name").is_some());
        assert!(meaning("tidings.channels.email.retry").is_some());
        assert!(meaning("tidings.nothing").is_none());
    }

    #[test]
    fn every_key_that_is_read_has_a_meaning_and_every_meaning_a_key() {
        let mut read = Vec::new();
        let mut levels = vec!["tidings".to_owned()];
        while let Some(level) = levels.pop() {
            // A key that is like no other makes the reader say which ones it knows.
            let flag = (format!("{level}.0"), serde_json::json!(1));
            let environment = Environment::default();
            let config = Config::load(&[], &[flag], &environment).unwrap();
            let error = config.settings().unwrap_err();
            let Some(help) = error
                .help
                .filter(|help| help.starts_with("known here are"))
                // A duration may be an object, and its parts are not ours to explain.
                .filter(|help| !help.contains("`years`"))
            else {
                continue;
            };
            for name in help.split('`').skip(1).step_by(2) {
                let key = format!("{level}.{name}");
                assert!(meaning(&key).is_some(), "{key} has no meaning");
                levels.push(if name == "channels" {
                    format!("{key}.*")
                } else {
                    key.clone()
                });
                read.push(key);
            }
        }
        for (key, _) in KEYS {
            let free = key.ends_with('*') || key.contains("[]");
            assert!(
                free || read.iter().any(|one| one == key),
                "{key} is not read"
            );
        }
    }

    #[test]
    fn a_misspelt_key_finds_the_one_that_was_meant() {
        let known = ["retry", "retention", "queue", "listen"];
        assert_eq!(closest("retries", &known), Some("retry"));
        assert_eq!(closest("lisen", &known), Some("listen"));
        assert_eq!(closest("Queue", &known), Some("queue"));
        assert_eq!(closest("smtp", &known), None);
        assert!(help("tidings", "smtp", &known).starts_with("known here are `retry`"));
    }
}
