//! `tidings up`: every role in one process, and the first screen.

use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use tidings::config::CatalogSource;
use tidings::config::Config;
use tidings::config::Environment;
use tidings::config::QueueSettings;
use tidings::config::Settings;
use tidings::config::StoreSettings;
use tidings::runner::GUEST;
use tidings::runner::Roles;
use tidings::runner::Running;
use tidings::runner::Services;
use tidings::runner::StartError;
use tidings::runner::VERSION;
use tidings::runner::process;
use tidings::runner::process::ProcessArgs;
use tidings::runner::process::Told;
use tidings::store::Summary;
use tidings::telemetry;
use tokio_util::sync::CancellationToken;

use crate::client::reachable;
use crate::events;
use crate::out;
use crate::out::say;
use crate::paint::Paint;
use crate::screen;
use crate::screen::First;
use crate::screen::Row;

/// How long the first screen waits for everything to be well before it is shown anyway.
const READY_LIMIT: Duration = Duration::from_secs(10);
/// How long is waited for what is missing after that: until Ctrl-C.
const FOREVER: Duration = Duration::from_secs(u32::MAX as u64);

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
        let told = Told::listen();
        let (running, services) =
            process::launch(&config, &settings, Roles::everything(Vec::new())).await?;
        if watched {
            let shown = Shown {
                args: &args.process,
                config: &config,
                settings: &settings,
                services: &services,
            };
            watch(running, &shown, started, told).await;
        } else {
            for warning in config.warnings() {
                tracing::warn!("{warning}");
            }
            tracing::info!(address = %running.address, admin = %running.admin, version = VERSION, "started");
            process::until_told(running, settings.drain, told).await;
        }
        Ok(ExitCode::SUCCESS)
    })
}

/// Shows the first screen, a line for each event, and how it ended.
async fn watch(running: Running, shown: &Shown<'_>, started: Instant, mut told: Told) {
    let ready = tokio::select! {
        ready = running.ready(READY_LIMIT) => ready,
        () = told.come() => return stop(running, shown, told, async {}).await,
    };
    let held = running.backend().store.summary().await.unwrap_or_default();
    for warning in shown.config.warnings() {
        eprintln!("{warning}\n");
    }
    let paint = Paint::stdout();
    out::put(shown.first(&running, &held).await.render(paint));
    let end = CancellationToken::new();
    let lines = tokio::spawn(events::follow(running.events.listen(), end.clone()));
    if ready {
        let took = started.elapsed().as_millis();
        say!("{} in {took} ms. Ctrl-C stops.\n", paint.bold("Ready"));
    } else {
        say!("{}. Ctrl-C stops.\n", paint.bold("Not ready yet"));
        for (what, why) in running.troubles().await {
            say!("  waiting for {what}: {why}");
        }
    }
    tokio::select! {
        () = told.come() => {}
        () = later(&running, ready, paint) => {}
    }
    let silence = async {
        end.cancel();
        // That it panicked is said already.
        let _ = lines.await;
    };
    stop(running, shown, told, silence).await;
}

/// Says when what was missing is there; never returns.
async fn later(running: &Running, ready: bool, paint: Paint) {
    if !ready && running.ready(FOREVER).await {
        say!("\n{}.\n", paint.bold("Ready"));
    }
    std::future::pending::<()>().await;
}

/// Drains and says how it ended, after the last event; told again, it ends the process.
async fn stop(
    running: Running,
    shown: &Shown<'_>,
    mut told: Told,
    silence: impl Future<Output = ()>,
) {
    say!("\nStopping: what is in hand is finished first; Ctrl-C again stops at once.");
    let store = Arc::clone(&running.backend().store);
    let stopping = Instant::now();
    let drained = tokio::select! {
        drained = running.drain(shown.settings.drain) => drained,
        () = told.come() => {
            say!("Stopped at once; what was in hand comes again at the next start.");
            std::process::exit(130);
        }
    };
    silence.await;
    let embedded = shown.settings.store.is_none();
    let held = store.summary().await.ok().filter(|_| embedded);
    let kept = held.map(|held| (held.notifications, shown.settings.data.as_path()));
    say!("{}", screen::farewell(drained, stopping.elapsed(), kept));
}

/// What the first screen is made from.
struct Shown<'a> {
    args: &'a ProcessArgs,
    config: &'a Config,
    settings: &'a Settings,
    services: &'a Services,
}

impl Shown<'_> {
    async fn first(&self, running: &Running, held: &Summary) -> First {
        let settings = self.settings;
        let base = format!("http://{}", reachable(running.address));
        let mut rows = vec![
            self.inbox(running, &base),
            Row::new("API", format!("{base}/api/notifications"), ""),
            self.mail(),
            self.people().await,
        ];
        match (&settings.queue, &settings.store) {
            (Some(queue), Some(store)) => {
                rows.push(Row::new("Queue", QueueSettings::shown(queue), ""));
                rows.push(Row::new("Store", StoreSettings::shown(store), ""));
            }
            _ => rows.push(Row::new(
                "Data",
                screen::directory(&settings.data),
                "kept between starts; delete it to start over",
            )),
        }
        rows.extend(screen::kept(held).map(|kept| Row::new("Kept", kept, "")));
        First {
            development: settings.development,
            rows,
            send: self.send(&base),
            base,
            to: self.somebody().await,
            token: screen::quoted(&screen::short(&settings.data.join("token"))),
        }
    }

    fn inbox(&self, running: &Running, base: &str) -> Row {
        if !self.settings.development {
            return Row::new("Inbox", base, "");
        }
        let code = running.auth.login_code(GUEST);
        let note = format!("you are {GUEST}; once, 10 minutes");
        Row::new("Inbox", format!("{base}/login/{code}"), note)
    }

    fn mail(&self) -> Row {
        let relay = self
            .config
            .section("notifications.processors.email")
            .get("transportConfig");
        if relay.exists() {
            let host = relay.get("hostname").read::<String>();
            return Row::new("Mail", host.unwrap_or_else(|_| "as configured".into()), "");
        }
        if self.settings.store.is_some() {
            return Row::new("Mail", "off", "no relay configured");
        }
        let outbox = screen::directory(&self.settings.data.join("outbox"));
        Row::new("Mail", outbox, "no relay configured")
    }

    async fn people(&self) -> Row {
        let described = self.services.catalog.describe().await;
        let described = described.unwrap_or_else(|failure| failure.to_string());
        if self.settings.catalog.source == CatalogSource::Backstage {
            return Row::new("People", self.services.live_catalog(), described);
        }
        let Some(first) = self.services.people.first() else {
            return Row::new("People", "nobody", "catalog.locations names no file");
        };
        let more = match self.services.people.len() {
            1 => String::new(),
            files => format!(" and {} more", files - 1),
        };
        Row::new(
            "People",
            format!("{}{more}", screen::short(first)),
            format!("{described}; read again when you save it"),
        )
    }

    /// Somebody whom the examples can write to.
    async fn somebody(&self) -> String {
        if self.settings.development {
            return GUEST.to_owned();
        }
        let refs = self.services.catalog.refs().await.unwrap_or_default();
        let mut users = refs.into_iter().filter(|one| one.starts_with("user:"));
        screen::quoted(
            &users
                .next()
                .unwrap_or_else(|| "user:default/you".to_owned()),
        )
    }

    /// `tidings send` as it finds this process: what came by a flag is not in the files.
    fn send(&self, base: &str) -> String {
        let mut words = format!("{} send", command());
        for file in &self.args.config {
            words.push_str(" --config ");
            words.push_str(&screen::quoted(&file.display().to_string()));
        }
        let files = Config::load_default(&self.args.config, &[], &Environment::process());
        let found = files.and_then(|config| config.settings());
        let listen = self.settings.listen;
        if listen.port() == 0 || found.is_ok_and(|found| found.listen != listen) {
            words.push_str(&format!(" --url {base}"));
        }
        words
    }
}

/// How the person who reads the screen would call this program again.
fn command() -> String {
    let called = std::env::args()
        .next()
        .unwrap_or_else(|| "tidings".to_owned());
    let here = std::env::current_dir().unwrap_or_default();
    let path = std::path::Path::new(&called);
    screen::quoted(&match path.strip_prefix(here) {
        Ok(short) => short.display().to_string(),
        Err(_) => called.clone(),
    })
}
