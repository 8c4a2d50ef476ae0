//! Real configurations of Backstage, handed over as they are beside a small one of ours.

use std::path::Path;
use std::path::PathBuf;

use tidings::config::Config;
use tidings::config::Environment;
use tidings::config::Settings;

use crate::support::app::TIDINGS;

fn file(name: &str) -> PathBuf {
    Path::new("tests/it/app_config").join(name)
}

/// What is read of these files with ours after them, and every warning.
fn read(files: &[&str], ours: &str, environment: &[(&str, &str)]) -> (Settings, Vec<String>) {
    let dir = tempfile::tempdir().unwrap();
    let own = dir.path().join("tidings.yaml");
    std::fs::write(&own, ours).unwrap();
    let mut files: Vec<PathBuf> = files.iter().map(|name| file(name)).collect();
    files.push(own);
    let environment: Environment = environment.iter().copied().collect();
    let config = Config::load(&files, &[], &environment).unwrap();
    let settings = config.settings().unwrap();
    let warnings = config.warnings().iter().map(ToString::to_string).collect();
    (settings, warnings)
}

#[test]
fn the_files_that_create_app_writes_are_taken_as_they_are() {
    let ours = "tidings: { listen: 127.0.0.1:7117 }";
    let (settings, warnings) = read(&["app-config.yaml"], ours, &[]);
    assert_eq!(warnings, Vec::<String>::new());
    assert_eq!(settings.app_base_url.as_str(), "http://localhost:3000/");
    assert!(!settings.development);

    let both = ["app-config.yaml", "app-config.production.yaml"];
    let (settings, warnings) = read(&both, ours, &[]);
    assert_eq!(warnings, Vec::<String>::new());
    assert_eq!(settings.app_base_url.as_str(), "http://localhost:7007/");
}

#[test]
fn variables_and_directives_of_other_sections_are_nobodys_business() {
    let large = std::fs::read_to_string(file("app-config.large.yaml")).unwrap();
    assert!(large.matches("${").count() > 40);
    let ours = "tidings: { data: ./data }\ncatalog: { locations: [] }";
    let environment = [
        ("CI_TOKEN", "0123456789"),
        ("DEPLOY_TOKEN", "9876543210"),
        ("BACKEND_SECRET", "c2VjcmV0"),
        ("SMTP_HOST", "smtp.example.com"),
        ("SMTP_PASSWORD", "secret"),
    ];
    let (settings, warnings) = read(&["app-config.large.yaml"], ours, &environment);
    // What Backstage and Tidings share admits nobody, rather than keeping Tidings from starting.
    let [warning] = &warnings[..] else {
        panic!("{warnings:?}")
    };
    assert!(warning.contains("`backend.cors.origin` needs"), "{warning}");
    assert_eq!(
        settings.app_base_url.as_str(),
        "https://portal.example.com/"
    );
    let year = std::time::Duration::from_secs(365 * 86_400);
    assert_eq!(settings.retention.inbox.keep, Some(year));
    assert!(!settings.default_settings.channels.is_empty());
}

/// `tidings check` of the file that create-app writes, with ours after it.
fn check(ours: &str) -> (String, i32) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::copy(file("app-config.yaml"), dir.path().join("app-config.yaml")).unwrap();
    std::fs::write(dir.path().join("tidings.yaml"), ours).unwrap();
    let checked = std::process::Command::new(TIDINGS)
        .args([
            "check",
            "--config",
            "app-config.yaml",
            "--config",
            "tidings.yaml",
        ])
        .current_dir(dir.path())
        .output()
        .unwrap();
    let text = String::from_utf8(checked.stdout).unwrap();
    (text, checked.status.code().unwrap())
}

#[test]
fn a_check_of_it_says_what_is_missing() {
    // The people of create-app's example lie beside its backend, and not here.
    let (text, code) = check("tidings: {}");
    assert_eq!(code, 3, "{text}");
    assert!(text.contains("examples/entities.yaml"), "{text}");
    assert!(text.contains("tidings.catalog.source: backstage"), "{text}");
    // With the live catalog they do not matter, and Backstage is not running.
    let ours =
        "tidings: { catalog: { source: backstage } }\nbackend: { baseUrl: 'http://127.0.0.1:1' }";
    let (text, code) = check(ours);
    assert_eq!(code, 1, "{text}");
    assert!(
        text.contains("fail  catalog  http://127.0.0.1:1/api/catalog"),
        "{text}"
    );
    assert!(text.contains("1 error, 0 warnings"), "{text}");
}

#[test]
fn a_variable_that_is_needed_is_named_with_its_file_and_line() {
    let files = [file("app-config.large.yaml")];
    let config = Config::load(&files, &[], &Environment::default()).unwrap();
    let error = config.settings().unwrap_err().to_string();
    assert!(error.contains("`CI_TOKEN`, which is not set"), "{error}");
    assert!(error.contains("app-config.large.yaml:35:"), "{error}");
}
