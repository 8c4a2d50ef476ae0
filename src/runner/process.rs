//! A whole process, from its flags to its exit code: what the binaries of the roles are made of.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use clap::ValueEnum;
use serde_json::Value;
use tokio::signal::unix::Signal;
use tokio::signal::unix::SignalKind;
use tokio::signal::unix::signal;

use super::Listeners;
use super::Roles;
use super::Running;
use super::StartError;
use super::backend;
use super::services::Services;
use crate::config::Config;
use crate::config::Environment;
use crate::config::Settings;
use crate::telemetry;
use crate::telemetry::LogFormat;

/// The flags that every process has.
#[derive(Args, Clone, Debug, Default)]
pub struct ProcessArgs {
    /// Configuration file; may be repeated, later files override earlier ones [default:
    /// tidings.yaml, if it is there]
    #[arg(long, value_name = "FILE")]
    pub config: Vec<PathBuf>,
    /// Where to listen, as in 0.0.0.0:7117
    #[arg(long, value_name = "ADDRESS")]
    pub listen: Option<String>,
    /// Where health and metrics are, as in 127.0.0.1:7120
    #[arg(long, value_name = "ADDRESS")]
    pub admin_listen: Option<String>,
    /// How to write logs [default: text]
    #[arg(long, value_enum)]
    pub log: Option<Log>,
}

/// How to write logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Log {
    /// A line of text for each record.
    Text,
    /// A JSON object for each record.
    Json,
}

impl ProcessArgs {
    /// The configuration that these flags, the environment and the files make.
    ///
    /// # Errors
    /// What is wrong with it, and where.
    pub fn load(&self, listen_key: &str) -> Result<Config, StartError> {
        let mut overrides = Vec::new();
        for (key, value) in [
            (listen_key, &self.listen),
            ("tidings.admin.listen", &self.admin_listen),
        ] {
            if let Some(value) = value {
                overrides.push((key.to_owned(), Value::String(value.clone())));
            }
        }
        Ok(Config::load_default(
            &self.config,
            &overrides,
            &Environment::process(),
        )?)
    }

    /// How logs are written; `watched` says that a person reads the events on a terminal instead.
    pub fn log_format(&self, watched: bool) -> LogFormat {
        match self.log {
            Some(Log::Json) => LogFormat::Json,
            Some(Log::Text) => LogFormat::Text,
            None if watched => LogFormat::Quiet,
            None => LogFormat::Text,
        }
    }
}

/// Runs the roles until the process is told to stop; prints what keeps them from starting.
pub fn run(args: &ProcessArgs, listen_key: &str, roles: Roles) -> ExitCode {
    telemetry::init_logs(args.log_format(false));
    let result = args.load(listen_key).and_then(|config| {
        let settings = config.settings()?;
        for warning in config.warnings() {
            tracing::warn!("{warning}");
        }
        block_on(async {
            let told = Told::listen();
            let (running, services) = launch(&config, &settings, roles).await?;
            tracing::info!(address = %running.address, admin = %running.admin,
                version = super::VERSION, catalog = services.catalog.describe().await.ok(),
                "started");
            until_told(running, settings.drain, told).await;
            Ok(())
        })
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(error.code)
        }
    }
}

/// Runs a future on a runtime of its own.
///
/// # Errors
/// The future's own, or that the operating system gives no threads.
pub fn block_on<T>(work: impl Future<Output = Result<T, StartError>>) -> Result<T, StartError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    let runtime = runtime.map_err(|error| {
        StartError::new(
            format!("cannot start: {error}"),
            "runtime",
            "free memory or threads",
        )
    })?;
    let result = runtime.block_on(work);
    // What does not end by itself (a send that was cut off by the drain limit) is left.
    runtime.shutdown_timeout(Duration::from_millis(100));
    result
}

/// Opens the back end and starts the roles.
///
/// # Errors
/// What keeps them from starting.
pub async fn launch(
    config: &Config,
    settings: &Settings,
    roles: Roles,
) -> Result<(Running, Services), StartError> {
    // Every open page is a file; the usual limit for a program is far below what machines allow.
    if let Err(error) = rlimit::increase_nofile_limit(u64::MAX) {
        tracing::debug!(%error, "the limit of open files stays as it is");
    }
    let listeners = super::listen::bind(config, settings, &roles).await?;
    let settings = &at_home(settings, &listeners);
    let services = Services::build(config, settings, &roles)?;
    let roles = if roles.is_everything() {
        Roles::everything(services.sender_names())
    } else {
        roles
    };
    let backend = backend::open(settings, &services, &roles)?;
    let running = super::start(settings, &services, &roles, backend, listeners).await?;
    Ok((running, services))
}

/// In development mode the app is our own page, so that the links of mails lead somewhere.
fn at_home(settings: &Settings, listeners: &Listeners) -> Settings {
    let mut settings = settings.clone();
    if settings.development
        && let Ok(own) = format!("http://{}", listeners.address()).parse()
    {
        settings.app_base_url = own;
    }
    settings
}

/// Counts every inbox again and says for how many people the counters were wrong; they are right
/// afterwards when `mend` is set.
///
/// # Errors
/// What keeps it from being done: a file that is in use, a database that is away.
pub async fn recount(settings: &Settings, mend: bool) -> Result<u64, StartError> {
    let store = backend::store(settings)?;
    store.recount(mend).await.map_err(|error| {
        StartError::new(
            error.to_string(),
            "inbox_count",
            "try again when the store is well",
        )
    })
}

/// Brings the schema up to date, and says what was done.
///
/// # Errors
/// What keeps it from being done.
pub async fn migrate(settings: &Settings) -> Result<String, StartError> {
    backend::migrate(settings).await
}

/// Waits until the process is told to stop, then drains; told again, it ends at once.
pub async fn until_told(running: Running, drain: Duration, mut told: Told) {
    told.come().await;
    tracing::info!("stopping: what is in hand is finished first");
    let drained = tokio::select! {
        drained = running.drain(drain) => drained,
        () = told.come() => {
            tracing::warn!("told twice: stopping at once; what was in hand comes again");
            std::process::exit(130);
        }
    };
    if !drained {
        tracing::warn!(
            limit_s = drain.as_secs(),
            "not all ended in time; what was in hand comes again"
        );
    }
}

/// Hears SIGINT and SIGTERM from the moment it is made: made before a process says that it
/// started, so that one that is told to stop right then stops as it should.
pub struct Told(Option<(Signal, Signal)>);

impl Told {
    /// Listens from now on; inside a runtime.
    pub fn listen() -> Self {
        let interrupt = signal(SignalKind::interrupt());
        let terminate = signal(SignalKind::terminate());
        Self(interrupt.ok().zip(terminate.ok()))
    }

    /// Completes when the process is told to stop; each time it is told.
    pub async fn come(&mut self) {
        match &mut self.0 {
            Some((interrupt, terminate)) => {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
            }
            // Without signals it can still be killed; it must not stop by itself.
            None => std::future::pending().await,
        }
    }
}
