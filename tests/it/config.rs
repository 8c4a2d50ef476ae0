//! Configuration, as people write it: each file of `tests/config` against what is said of it.
//!
//! A case is `<what-is-in-it>.yaml` and, beside it, `.txt`: the error, or the warnings, or the
//! settings. `TIDINGS_BLESS=1` writes the `.txt` files anew; read the difference.

use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;
use tidings::config::Config;
use tidings::config::ConfigError;
use tidings::config::Environment;

/// What is said of a file.
fn said(path: &Path) -> String {
    let config = match Config::load(&[path.to_owned()], &[], &Environment::default()) {
        Ok(config) => config,
        Err(error) => return format!("{error}\n"),
    };
    match (config.settings(), config.warnings()) {
        (Err(error), _) => format!("{error}\n"),
        (Ok(settings), warnings) if warnings.is_empty() => format!("{settings:#?}\n"),
        (Ok(_), warnings) => warnings.iter().map(|one| format!("{one}\n")).collect(),
    }
}

fn load(files: &[(&str, &str)], environment: &[(&str, &str)]) -> (tempfile::TempDir, Config) {
    let (dir, config) = try_load(files, environment);
    (dir, config.unwrap())
}

/// Writes files into a directory and loads those whose names begin with a digit.
fn try_load(
    files: &[(&str, &str)],
    environment: &[(&str, &str)],
) -> (tempfile::TempDir, Result<Config, ConfigError>) {
    let dir = tempfile::tempdir().unwrap();
    let mut named = Vec::new();
    for (name, text) in files {
        let path = dir.path().join(name);
        fs::write(&path, text).unwrap();
        if name.starts_with(|one: char| one.is_ascii_digit()) {
            named.push(path);
        }
    }
    let environment = environment.iter().copied().collect();
    let config = Config::load(&named, &[], &environment);
    (dir, config)
}

fn text(config: &Config, key: &str) -> Option<String> {
    config.section(key).read_if_set().unwrap()
}

#[test]
fn every_case_says_what_is_wrong_where_and_what_to_do() {
    // The working directory of a test is the package's root, so that places are short.
    let mut cases: Vec<PathBuf> = fs::read_dir("tests/config")
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|kind| kind == "yaml"))
        .collect();
    cases.sort();
    let bless = std::env::var_os("TIDINGS_BLESS").is_some();
    for case in &cases {
        let (found, beside) = (said(case), case.with_extension("txt"));
        assert!(!found.contains("canary"), "a secret is shown:\n{found}");
        if bless {
            fs::write(&beside, &found).unwrap();
        }
        let expected = fs::read_to_string(&beside).unwrap_or_default();
        assert_eq!(found, expected, "{}", case.display());
    }
    assert!(30 < cases.len());
}

#[test]
fn later_files_override_objects_deeply_and_replace_lists_and_null_is_absent() {
    let (_dir, config) = load(
        &[
            (
                "1.yaml",
                "tidings: { data: a, drain: 1s, retry: [1s, 2s], queue: { prefix: x, limit: 1 } }",
            ),
            (
                "2.yaml",
                "tidings: { drain: null, retry: [3s], queue: { prefix: y } }",
            ),
        ],
        &[],
    );
    assert_eq!(text(&config, "tidings.queue.prefix").as_deref(), Some("y"));
    assert_eq!(
        config.section("tidings.queue.limit").read::<u32>().unwrap(),
        1
    );
    assert!(!config.section("tidings.drain").exists());
    let settings = config.settings().unwrap();
    assert_eq!(settings.drain, Duration::from_secs(25));
    assert_eq!(settings.retry.attempts(), 2);
    assert!(settings.data.ends_with("a"));
    assert!(!settings.development);
}

#[test]
fn a_flag_wins_over_the_environment_and_that_over_the_last_file() {
    let (dir, _) = load(
        &[(
            "1.yaml",
            "tidings: { listen: \"127.0.0.1:1\", drain: 1s, data: a }",
        )],
        &[],
    );
    let environment = [
        ("APP_CONFIG_tidings_listen", "127.0.0.1:2"),
        ("APP_CONFIG_tidings_drain", "2s"),
        ("APP_CONFIG_tidings_queue_limit", "7"),
        ("APP_CONFIG_tidings_retry", "[\"4s\"]"),
    ];
    let environment = environment.into_iter().collect();
    let flags = [("tidings.listen".to_owned(), json!("127.0.0.1:3"))];
    let config = Config::load(&[dir.path().join("1.yaml")], &flags, &environment).unwrap();
    let settings = config.settings().unwrap();
    assert_eq!(settings.listen.port(), 3);
    assert_eq!(settings.drain, Duration::from_secs(2));
    assert_eq!(settings.steps(), [Duration::from_secs(4)]);
    assert_eq!(
        config.section("tidings.queue.limit").read::<u64>().unwrap(),
        7
    );
    assert_eq!(
        config.section("tidings.queue.limit").place(),
        "APP_CONFIG_tidings_queue_limit (environment)"
    );
}

#[test]
fn a_fault_in_a_variable_or_a_flag_names_it() {
    let environment = [("APP_CONFIG_tidings_listen", "here")]
        .into_iter()
        .collect();
    let config = Config::load(&[], &[], &environment).unwrap();
    let error = config.settings().unwrap_err().to_string();
    assert!(
        error.contains("\n  --> APP_CONFIG_tidings_listen (environment)\n"),
        "{error}"
    );
    let flags = [("tidings.listen".to_owned(), json!("there"))];
    let config = Config::load(&[], &flags, &environment).unwrap();
    let error = config.settings().unwrap_err().to_string();
    assert!(error.contains("\n  --> tidings.listen (flag)\n"), "{error}");
}

#[test]
fn substitutions_are_those_of_backstage() {
    let (_dir, config) = load(
        &[
            (
                "1.yaml",
                r#"
tidings:
  data: "${HOME_DIR}/x-${ABSENT:-y}-${EMPTY:-z}-$${KEPT}-${ OPEN"
  queue: { prefix: { $env: PREFIX }, limit: "${LIMIT}" }
  store: { url: { $file: "secrets/${NAME}.txt" } }
  retention: { $include: "parts/keep.yaml#periods.short" }
"#,
            ),
            ("secrets", ""),
        ],
        &[
            ("HOME_DIR", "/srv"),
            ("EMPTY", ""),
            ("PREFIX", "p"),
            ("LIMIT", "12"),
            ("NAME", "db"),
        ],
    );
    assert_eq!(
        text(&config, "tidings.data").as_deref(),
        Some("/srv/x-y-z-${KEPT}-${ OPEN")
    );
    assert_eq!(text(&config, "tidings.queue.prefix").as_deref(), Some("p"));
    assert_eq!(
        config.section("tidings.queue.limit").read::<u16>().unwrap(),
        12
    );
    let error = config
        .section("tidings.store.url")
        .read::<String>()
        .unwrap_err();
    assert!(
        error.message.contains("needs a file that cannot be read"),
        "{error}"
    );
}

#[test]
fn files_are_included_relative_to_the_file_they_are_named_in() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("parts")).unwrap();
    let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
    write(
        "main.yaml",
        "tidings: { $include: parts/tidings.yaml }\nnotifications: { processors: { email: { $include: 'parts/mail.json#email' } } }",
    );
    write(
        "parts/tidings.yaml",
        "store: { url: { $file: url.txt } }\nqueue: { url: 'amqp://mq' }\ndata: ./here\nlisten: '$${X}'",
    );
    write("parts/url.txt", "postgres://db/x\n");
    write("parts/mail.json", r#"{"email":{"sender":"a@b.example"}}"#);
    let config = Config::load(
        &[dir.path().join("main.yaml")],
        &[],
        &Environment::default(),
    )
    .unwrap();
    assert_eq!(
        text(&config, "tidings.store.url").as_deref(),
        Some("postgres://db/x")
    );
    assert_eq!(text(&config, "tidings.listen").as_deref(), Some("${X}"));
    assert_eq!(
        text(&config, "notifications.processors.email.sender").as_deref(),
        Some("a@b.example")
    );
    let data = config.section("tidings.data");
    assert_eq!(
        data.resolve(&data.read::<PathBuf>().unwrap()),
        dir.path().join("parts/here")
    );
    assert!(
        data.place().ends_with("parts/tidings.yaml:3:1"),
        "{}",
        data.place()
    );
}

#[test]
fn a_file_that_includes_itself_is_an_error_and_not_a_loop() {
    let (_dir, config) = load(&[("1.yaml", "tidings: { $include: 1.yaml#tidings }")], &[]);
    let error = config.settings().unwrap_err().to_string();
    assert!(error.contains("include each other"), "{error}");
}

#[test]
fn what_is_broken_can_be_mended_by_a_later_file() {
    let broken = "tidings: { data: '${UNSET}' }";
    let (_dir, config) = load(
        &[("1.yaml", broken), ("2.yaml", "tidings: { data: ./ok }")],
        &[],
    );
    assert!(config.settings().is_ok());
    let (_dir, config) = load(
        &[("1.yaml", broken)],
        &[("APP_CONFIG_tidings_data", "./ok")],
    );
    assert!(config.settings().is_ok());
}

#[test]
fn inboxes_are_kept_for_a_year_or_a_duration_in_any_form_or_for_ever() {
    let days = |text: &str| {
        let (_dir, config) = load(&[("1.yaml", text)], &[]);
        let keep = config.settings().unwrap().retention.inbox.keep;
        keep.map(|keep| keep.as_secs() / 86_400)
    };
    assert_eq!(days("{}"), Some(365));
    assert_eq!(days("notifications: { retention: false }"), None);
    assert_eq!(days("notifications: { retention: 90d }"), Some(90));
    assert_eq!(days("notifications: { retention: P90D }"), Some(90));
    assert_eq!(
        days("notifications: { retention: { months: 3 } }"),
        Some(90)
    );
    let (_dir, config) = load(&[("1.yaml", "notifications: { retention: true }")], &[]);
    let error = config.settings().unwrap_err().to_string();
    assert!(error.contains("a duration, or false"), "{error}");
}

#[test]
fn a_missing_file_is_named() {
    let error = Config::load(&["no/such.yaml".into()], &[], &Environment::default()).unwrap_err();
    let expected = "error: cannot read the configuration: there is no such file\n  --> no/such.yaml\nhelp: name a readable YAML file";
    assert_eq!(error.to_string(), expected);
}

#[test]
fn only_no_configuration_at_all_on_a_loopback_address_is_development_mode() {
    let development = |flags: &[(String, serde_json::Value)], environment: &[(&str, &str)]| {
        let environment = environment.iter().copied().collect();
        let config = Config::load(&[], flags, &environment).unwrap();
        assert!(config.is_empty());
        config.settings().unwrap().development
    };
    let listen = |text: &str| [("tidings.listen".to_owned(), json!(text))];
    assert!(development(&[], &[]));
    assert!(development(&listen("[::1]:1"), &[("HOME", "/")]));
    assert!(!development(&listen("0.0.0.0:7117"), &[]));
    assert!(!development(&[], &[("APP_CONFIG_tidings_drain", "1s")]));
    assert!(Config::empty().settings().unwrap().development);
}

#[test]
fn a_processor_reads_its_own_struct_and_unknown_keys_have_a_suggestion() {
    #[derive(Debug, serde::Deserialize)]
    #[serde(rename_all = "camelCase", deny_unknown_fields)]
    struct Own {
        port: u16,
        #[serde(default)]
        secure: bool,
        password: Option<String>,
    }
    let (_dir, config) = load(
        &[(
            "1.yaml",
            "notifications: { processors: { a: { port: '25', secure: 'true' }, b: { prot: 1 }, c: { port: 70000, password: canary } } }",
        )],
        &[("APP_CONFIG_notifications_processors_a_password", "12345678")],
    );
    let processors = config.section("notifications.processors");
    let own: Own = processors.get("a").read().unwrap();
    assert_eq!(
        (own.port, own.secure, own.password.as_deref()),
        (25, true, Some("12345678"))
    );
    let error = processors.get("b").read::<Own>().unwrap_err().to_string();
    assert!(
        error.contains("unknown key `notifications.processors.b.prot`"),
        "{error}"
    );
    assert!(error.ends_with("help: did you mean `port`?"), "{error}");
    let error = processors.get("c").read::<Own>().unwrap_err().to_string();
    assert!(
        error.contains("`notifications.processors.c.port` must be") && !error.contains("canary"),
        "{error}"
    );
    let error = processors.get("d").read::<Own>().unwrap_err().to_string();
    assert!(
        error.contains("`notifications.processors.d.port` is missing"),
        "{error}"
    );
    assert!(!processors.get("d").exists() && processors.get("d").items().is_empty());
}
