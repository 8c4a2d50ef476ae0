//! `tidings up`: every role in one process, and the first screen.

use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::time::Duration;
use std::time::Instant;

use tidings::config::Config;
use tidings::config::Settings;
use tidings::runner::Roles;
use tidings::runner::Running;
use tidings::runner::Services;
use tidings::runner::StartError;
use tidings::runner::VERSION;
use tidings::runner::process;
use tidings::runner::process::ProcessArgs;
use tidings::store::Summary;
use tidings::telemetry;
use tokio::sync::broadcast::error::RecvError;

use crate::screen;
use crate::screen::First;

/// How long the first screen waits for everything to be well before it is shown anyway.
const READY_LIMIT: Duration = Duration::from_secs(10);

/// Start everything in one process.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  tidings up                                   embedded, development mode: nothing to install
  tidings up --config tidings.yaml             as configured
  tidings up --listen 127.0.0.1:7217           somewhere else
  tidings up --log json                        logs instead of the screen")]
pub(crate) struct UpArgs {
    #[command(flatten)]
    process: ProcessArgs,
}

/// Runs until told to stop.
///
/// # Errors
/// What keeps it from starting.
pub(crate) fn run(args: &UpArgs) -> Result<ExitCode, StartError> {
    let started = Instant::now();
    let watched = args.process.log.is_none() && std::io::stdout().is_terminal();
    telemetry::init_logs(args.process.log_format(watched));
    let config = args.process.load("tidings.listen")?;
    let settings = config.settings()?;
    process::block_on(async {
        let (running, services) =
            process::launch(&config, &settings, Roles::everything(Vec::new())).await?;
        if watched {
            watch(running, &services, &config, &settings, started).await;
        } else {
            for warning in config.warnings() {
                tracing::warn!("{warning}");
            }
            tracing::info!(address = %running.address, admin = %running.admin, version = VERSION, "started");
            process::until_told(running, settings.drain).await;
        }
        Ok(ExitCode::SUCCESS)
    })
}

/// Shows the first screen, a line for each event, and how it ended.
async fn watch(
    running: Running,
    services: &Services,
    config: &Config,
    settings: &Settings,
    started: Instant,
) {
    let ready = running.ready(READY_LIMIT).await;
    let store = std::sync::Arc::clone(&running.backend().store);
    let held = store.summary().await.unwrap_or_default();
    let first = first_screen(&running, services, config, settings, &held).await;
    for warning in config.warnings() {
        eprintln!("{warning}\n");
    }
    print!("{}", first.render(started.elapsed(), ready));
    if !ready {
        for (what, why) in running.troubles().await {
            println!("waiting for {what}: {why}");
        }
    }

    let mut events = running.events.listen();
    let lines = tokio::spawn(async move {
        loop {
            match events.recv().await {
                Ok(event) => print!("{}", screen::event(&event)),
                Err(RecvError::Lagged(missed)) => println!("          … {missed} more"),
                Err(RecvError::Closed) => return,
            }
        }
    });
    process::told().await;
    println!("\nStopping: what is in hand is finished first; Ctrl-C again stops at once.");
    let stopping = Instant::now();
    let drained = tokio::select! {
        drained = running.drain(settings.drain) => drained,
        () = process::told() => {
            println!("Stopped at once; what was in hand comes again at the next start.");
            std::process::exit(130);
        }
    };
    lines.abort();
    let kept = store.summary().await.unwrap_or(held).notifications;
    println!(
        "{}",
        screen::farewell(drained, stopping.elapsed(), kept, &settings.data)
    );
}

async fn first_screen(
    running: &Running,
    services: &Services,
    config: &Config,
    settings: &Settings,
    held: &Summary,
) -> First {
    let base = format!("http://{}", running.address);
    let login = settings.development.then(|| {
        let guest = tidings::runner::GUEST;
        format!(
            "{base}/login/{}   (you are {guest}; once, 10 minutes)",
            running.auth.login_code(guest)
        )
    });
    let relay = config
        .section("notifications.processors.email")
        .get("transportConfig");
    let data = settings.data.display().to_string();
    First {
        development: settings.development,
        inbox: login.unwrap_or_else(|| base.clone()),
        mail: match relay.get("hostname").read::<String>() {
            Ok(host) if relay.exists() => host,
            _ if relay.exists() => "as configured".to_owned(),
            _ if settings.store.is_some() => "off (no relay configured)".to_owned(),
            _ => format!("{data}/outbox/   (no relay configured)"),
        },
        people: services
            .catalog
            .describe()
            .await
            .unwrap_or_else(|failure| failure.to_string()),
        data,
        embedded: settings.store.is_none(),
        kept: screen::kept(held),
        base,
        command: command(),
    }
}

/// How the person who reads the screen would call this program again.
fn command() -> String {
    let called = std::env::args()
        .next()
        .unwrap_or_else(|| "tidings".to_owned());
    let path = std::path::PathBuf::from(&called);
    let here = std::env::current_dir().ok();
    here.and_then(|here| {
        path.strip_prefix(here)
            .ok()
            .map(|short| short.display().to_string())
    })
    .unwrap_or(called)
}
