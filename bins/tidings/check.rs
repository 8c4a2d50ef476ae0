//! `tidings check`: the configuration, and whether everything it names can be reached. Starts and
//! changes nothing. `tidings migrate`: brings the schema up to date.

use std::process::ExitCode;
use std::time::Duration;

use tidings::config::Config;
use tidings::config::QueueSettings;
use tidings::config::Settings;
use tidings::config::StoreSettings;
use tidings::runner::Backend;
use tidings::runner::Roles;
use tidings::runner::Services;
use tidings::runner::StartError;
use tidings::runner::process;
use tidings::runner::process::ProcessArgs;

use crate::client::FAILED;
use crate::paint::Paint;
use crate::render;

/// The longest one thing may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Check the configuration and everything it names; starts and changes nothing.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  tidings check
  tidings check --config app-config.yaml --config tidings.yaml
  tidings check --counts          count every inbox again and mend counters that are wrong")]
pub(crate) struct CheckArgs {
    /// Count every inbox again, and mend counters that are wrong
    #[arg(long)]
    counts: bool,
    #[command(flatten)]
    process: ProcessArgs,
}

/// Bring the schema of the store up to date.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  tidings migrate --config tidings.yaml       with a role that may create tables")]
pub(crate) struct MigrateArgs {
    #[command(flatten)]
    process: ProcessArgs,
}

/// What was found out about one thing.
struct Finding {
    ok: bool,
    what: &'static str,
    place: String,
    detail: String,
}

/// Checks.
///
/// # Errors
/// A configuration that cannot be read.
pub(crate) fn check(args: &CheckArgs) -> Result<ExitCode, StartError> {
    let config = args.process.load("tidings.listen")?;
    let settings = config.settings()?;
    process::block_on(async {
        let findings = findings(&config, &settings, args.counts).await?;
        let warnings = config.warnings();
        print!("{}", table(&findings, Paint::stdout()));
        for warning in &warnings {
            println!("\n{warning}");
        }
        let errors = findings.iter().filter(|one| !one.ok).count();
        println!(
            "\n{}, {}. Nothing was started{}.",
            render::count(errors as u64, "error", "errors"),
            render::count(warnings.len() as u64, "warning", "warnings"),
            if args.counts { "" } else { " or changed" },
        );
        Ok(if errors == 0 {
            ExitCode::SUCCESS
        } else {
            ExitCode::from(FAILED)
        })
    })
}

async fn findings(
    config: &Config,
    settings: &Settings,
    counts: bool,
) -> Result<Vec<Finding>, StartError> {
    let roles = Roles::default();
    let services = Services::build(config, settings, &roles)?;
    let mut findings = Vec::new();
    match process::open(settings, &services, &roles) {
        Ok(backend) => back_end(&backend, settings, counts, &mut findings).await,
        Err(error) => findings.push(Finding {
            ok: false,
            what: "data",
            place: settings.data.display().to_string(),
            detail: error.message,
        }),
    }
    for sender in &services.senders {
        let probed = tokio::time::timeout(PATIENCE, sender.probe()).await;
        findings.push(finding("sender", sender.name().to_owned(), silent(probed)));
    }
    let place: Vec<String> = services
        .people
        .iter()
        .map(|file| file.display().to_string())
        .collect();
    let described = tokio::time::timeout(PATIENCE, services.catalog.describe()).await;
    findings.push(finding("catalog", place.join(", "), silent(described)));
    Ok(findings)
}

async fn back_end(
    backend: &Backend,
    settings: &Settings,
    counts: bool,
    findings: &mut Vec<Finding>,
) {
    let place =
        |shown: Option<String>| shown.unwrap_or_else(|| settings.data.display().to_string());
    let queue = async {
        // A connection is made in the background: wait for it.
        loop {
            match backend.queue.ready().await {
                Ok(()) => return Ok::<_, String>("as declared".to_owned()),
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    };
    let mut asked = silent(tokio::time::timeout(PATIENCE, queue).await);
    if let (Err(detail), Err(error)) = (&mut asked, backend.queue.ready().await) {
        *detail = error.to_string();
    }
    findings.push(finding(
        "queue",
        place(settings.queue.as_ref().map(QueueSettings::shown)),
        asked,
    ));
    let store = async {
        backend
            .store
            .ready()
            .await
            .map_err(|error| error.to_string())?;
        let held = backend
            .store
            .summary()
            .await
            .map_err(|error| error.to_string())?;
        Ok::<_, String>(render::count(
            held.notifications,
            "notification",
            "notifications",
        ))
    };
    let asked = silent(tokio::time::timeout(PATIENCE, store).await);
    findings.push(finding(
        "store",
        place(settings.store.as_ref().map(StoreSettings::shown)),
        asked,
    ));
    if counts {
        let counted = backend
            .store
            .recount(true)
            .await
            .map_err(|error| error.to_string());
        let counted = counted.map(|wrong| format!("{wrong} wrong, and mended"));
        findings.push(finding("counts", "inbox_count".to_owned(), counted));
    }
}

/// Migrates.
///
/// # Errors
/// What keeps the schema from being brought up to date.
pub(crate) fn migrate(args: &MigrateArgs) -> Result<ExitCode, StartError> {
    let settings = args.process.load("tidings.listen")?.settings()?;
    process::block_on(async {
        println!("{}", process::migrate(&settings).await?);
        Ok(ExitCode::SUCCESS)
    })
}

fn silent<T, E: std::fmt::Display>(
    asked: Result<Result<T, E>, tokio::time::error::Elapsed>,
) -> Result<T, String> {
    let late = |_| format!("no answer within {} s", PATIENCE.as_secs());
    asked.map_err(late)?.map_err(|error| error.to_string())
}

fn finding(what: &'static str, place: String, asked: Result<String, String>) -> Finding {
    let (ok, detail) = match asked {
        Ok(detail) => (true, detail),
        Err(detail) => (false, detail),
    };
    Finding {
        ok,
        what,
        place,
        detail,
    }
}

fn table(findings: &[Finding], paint: Paint) -> String {
    let width = findings
        .iter()
        .map(|one| one.place.chars().count())
        .max()
        .unwrap_or(0);
    findings
        .iter()
        .map(|one| {
            let mark = if one.ok {
                paint.green("ok   ")
            } else {
                paint.red("error")
            };
            format!(
                "  {mark}  {:<8} {:<width$}  {}\n",
                one.what, one.place, one.detail
            )
        })
        .collect()
}
