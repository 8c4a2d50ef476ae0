//! A processor of your own as a program: its `main`, in one expression.
//!
//! ```no_run
//! use async_trait::async_trait;
//! use tidings::processor::{Outcome, Outgoing, Sender};
//! use tidings::runner::External;
//!
//! struct Pager;
//!
//! #[async_trait]
//! impl Sender for Pager {
//!     fn name(&self) -> &str { "pager" }
//!
//!     async fn send(&self, notification: &Outgoing<'_>) -> Outcome {
//!         println!("{}", notification.payload.title);
//!         Outcome::Sent { provider_id: None }
//!     }
//! }
//!
//! fn main() -> std::process::ExitCode {
//!     External::sender("pager", |_section| Ok(Pager)).run()
//! }
//! ```
//!
//! The program consumes `decorate.<name>` where it decorates and `deliver.<name>` where it sends,
//! with the rights of a foreign worker: it needs RabbitMQ, and neither a database nor the catalog.
//! Flags, configuration, retries, health, metrics and drain are those of Tidings' own programs.
//! Its promise is at least once, with the delivery's id as idempotency key.

mod decorate;
mod deliver;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args as _;
use clap::FromArgMatches as _;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::decorate::Decorate;
use self::deliver::Deliver;
use super::StartError;
use super::health;
use super::listen;
use super::process::Log;
use super::process::ProcessArgs;
use super::process::Told;
use super::process::block_on;
use crate::config::Config;
use crate::config::ConfigError;
use crate::config::Section;
use crate::config::Settings;
use crate::http;
use crate::http::admin_routes;
use crate::processor::Decorator;
use crate::processor::Link;
use crate::processor::Sender;
use crate::processor::Stage;
use crate::processor::foreign::ForeignSender;
use crate::queue::Queue;
use crate::queue::rabbitmq::RabbitQueue;
use crate::queue::rabbitmq::RabbitSettings;
use crate::telemetry;
use crate::telemetry::Readiness;
use crate::topology;
use crate::topology::QueueSpec;
use crate::worker::Work;
use crate::worker::Worker;
use crate::worker::never_paused;

/// How long a message may be held while the broker is away; it takes it back by itself before.
const HOLD: Duration = Duration::from_secs(86_400);
/// Loops for each kind of work.
const LOOPS: usize = 2;

/// The functions of a processor.
#[derive(Default)]
struct Made {
    decorator: Option<Arc<dyn Decorator>>,
    sender: Option<Arc<dyn Sender>>,
}

type Make = Box<dyn FnOnce(&Section) -> Result<Made, ConfigError>>;

/// A processor of your own, to be run as a program.
pub struct External {
    name: &'static str,
    make: Make,
}

/// The flags of such a program.
#[derive(clap::Args)]
struct Flags {
    /// Configuration file; may be repeated, later files override earlier ones [default:
    /// tidings.yaml, if it is there]
    #[arg(long, value_name = "FILE")]
    config: Vec<PathBuf>,
    /// Where health and metrics are, as in 127.0.0.1:7120
    #[arg(long, value_name = "ADDRESS")]
    admin_listen: Option<String>,
    /// How to write logs [default: text]
    #[arg(long, value_enum)]
    log: Option<Log>,
}

impl External {
    /// A processor that decorates. `make` gets its section, `notifications.processors.<name>`,
    /// which need not be written; [`Section::read`] reads it into a struct of yours.
    pub fn decorator<P: Decorator>(
        name: &'static str,
        make: impl FnOnce(&Section) -> Result<P, ConfigError> + 'static,
    ) -> Self {
        Self::new(name, move |section| {
            let decorator: Arc<dyn Decorator> = Arc::new(make(section)?);
            Ok(Made {
                decorator: Some(decorator),
                sender: None,
            })
        })
    }

    /// A processor that sends; see [`External::decorator`] for `make`.
    pub fn sender<P: Sender>(
        name: &'static str,
        make: impl FnOnce(&Section) -> Result<P, ConfigError> + 'static,
    ) -> Self {
        Self::new(name, move |section| {
            let sender: Arc<dyn Sender> = Arc::new(make(section)?);
            Ok(Made {
                decorator: None,
                sender: Some(sender),
            })
        })
    }

    /// A processor that does both; see [`External::decorator`] for `make`.
    pub fn processor<P: Decorator + Sender>(
        name: &'static str,
        make: impl FnOnce(&Section) -> Result<P, ConfigError> + 'static,
    ) -> Self {
        Self::new(name, move |section| {
            let both = Arc::new(make(section)?);
            Ok(Made {
                decorator: Some(Arc::clone(&both) as Arc<dyn Decorator>),
                sender: Some(both),
            })
        })
    }

    fn new(
        name: &'static str,
        make: impl FnOnce(&Section) -> Result<Made, ConfigError> + 'static,
    ) -> Self {
        Self {
            name,
            make: Box::new(make),
        }
    }

    /// Runs the program until it is told to stop: reads flags and configuration, works, drains.
    /// What keeps it from starting is printed, and told by the exit code: 3 for the configuration.
    pub fn run(self) -> ExitCode {
        let command = Flags::augment_args(clap::Command::new(self.name))
            .version(super::VERSION)
            .about(format!(
                "The processor `{}`, as a worker on the queues of Tidings.\n\nRun as many as you like.",
                self.name
            ))
            .after_help(format!(
                "Examples:\n  {0} --config tidings.yaml\n  {0} --config tidings.yaml --admin-listen 127.0.0.1:7122 --log json",
                self.name
            ));
        let matches = command.get_matches();
        let flags = match Flags::from_arg_matches(&matches) {
            Ok(flags) => flags,
            Err(error) => error.exit(),
        };
        let args = ProcessArgs {
            config: flags.config,
            listen: None,
            admin_listen: flags.admin_listen,
            log: flags.log,
        };
        telemetry::init_logs(args.log_format(false));
        match self.work(&args) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("{error}");
                ExitCode::from(error.code)
            }
        }
    }

    fn work(self, args: &ProcessArgs) -> Result<(), StartError> {
        let config = args.load("tidings.listen")?;
        let settings = config.worker_settings()?;
        let section = config.section(&format!("notifications.processors.{}", self.name));
        let made = (self.make)(&section)?;
        let plan = Plan::of(self.name, &config, &settings, made)?;
        block_on(async {
            let told = Told::listen();
            plan.run(&config, &settings, told).await
        })
    }
}

/// What a program does: kinds of work, each with its queues, fast lane first.
struct Plan {
    name: &'static str,
    work: Vec<(Vec<String>, Arc<dyn Work>)>,
    rabbit: RabbitSettings,
    readiness: Readiness,
}

impl Plan {
    /// What the configuration gives the processor to do.
    fn of(
        name: &'static str,
        config: &Config,
        settings: &Settings,
        made: Made,
    ) -> Result<Self, StartError> {
        let missing = |what: &str, key: &str, item: &str| StartError {
            code: 3,
            ..StartError::new(
                format!("{what} `{name}`"),
                config.section(key).place(),
                format!("add it for all of Tidings' programs: `{key}: [ {item} ]`"),
            )
        };
        let Some(queue) = &settings.queue else {
            return Err(StartError {
                code: 3,
                ..StartError::new(
                    format!("`{name}` needs the queue it is to consume"),
                    config.section("tidings.queue").place(),
                    "set tidings.queue.url, as in amqp://user:password@host:5672/vhost",
                )
            });
        };
        let readiness = Readiness::default();
        let mut work: Vec<(Vec<String>, Arc<dyn Work>)> = Vec::new();
        if let Some(decorator) = made.decorator {
            let item = settings.decorators.iter();
            let item = item.rev().find(|item| item.queue && item.name == name);
            let item = item.ok_or_else(|| {
                let item = format!("{{ name: {name}, queue: true }}");
                missing("nobody asks the decorator", "tidings.decorators", &item)
            })?;
            if decorator.stage() == Stage::PerSubmission {
                return Err(StartError::new(
                    format!("the decorator `{name}` wants to run once per submission"),
                    item.section.place(),
                    "let its stage() be PerPerson: on a queue it gets what is expanded",
                ));
            }
            let link = Link {
                decorator,
                policy: item.policy,
                timeout: item.timeout,
            };
            work.push((vec![topology::decorate(name)], Arc::new(Decorate { link })));
        }
        if let Some(sender) = made.sender {
            let route = settings.senders.iter().find(|one| one.name == name);
            let route: &ForeignSender = route.ok_or_else(|| {
                let item = format!("{{ name: {name} }}");
                missing("nothing is routed to", "tidings.senders", &item)
            })?;
            let lanes = [false, true].map(|bulk| topology::deliver(name, bulk));
            let deliver = Deliver::new(sender, route, settings, readiness.clone());
            work.push((lanes.to_vec(), Arc::new(deliver)));
        }
        let keys = work.iter().flat_map(|(lanes, _)| lanes.iter());
        let rabbit = RabbitSettings {
            url: queue.url.clone(),
            prefix: queue.prefix.clone(),
            queues: keys.map(|key| QueueSpec::of(key)).collect(),
            steps: Vec::new(),
            name: format!("tidings {name}"),
        };
        rabbit.check().map_err(|error| StartError {
            code: 3,
            ..StartError::new(
                error,
                "tidings.queue",
                "as in amqp://user:password@host:5672/vhost",
            )
        })?;
        Ok(Self {
            name,
            work,
            rabbit,
            readiness,
        })
    }

    async fn run(
        self,
        config: &Config,
        settings: &Settings,
        mut told: Told,
    ) -> Result<(), StartError> {
        let admin = listen::bind_admin(config, settings).await?;
        let address = admin.local_addr().map(|one| one.to_string());
        let queue: Arc<dyn Queue> = RabbitQueue::start(self.rabbit);
        let (stop, workers_stop) = (CancellationToken::new(), CancellationToken::new());
        let (mut workers, mut rest) = (JoinSet::new(), JoinSet::new());
        let routes = admin_routes(self.readiness.clone(), telemetry::metrics_handle());
        let served = http::serve(admin, routes, stop.clone());
        rest.spawn(async move {
            if let Err(error) = served.await {
                tracing::error!(%error, "the listener failed");
            }
        });
        rest.spawn(health::keep_queue(
            Arc::clone(&queue),
            self.readiness.clone(),
            stop.clone(),
        ));
        for (lanes, work) in self.work {
            for _ in 0..LOOPS {
                let worker = Worker {
                    queue: Arc::clone(&queue),
                    lanes: lanes.clone(),
                    work: Arc::clone(&work),
                    schedule: settings.retry.clone(),
                    hold: HOLD,
                    readiness: self.readiness.clone(),
                    paused: never_paused(),
                    stop: workers_stop.clone(),
                };
                workers.spawn(worker.run());
            }
        }
        tracing::info!(
            processor = self.name,
            admin = address.unwrap_or_default(),
            version = super::VERSION,
            "started"
        );
        told.come().await;
        tracing::info!("stopping: what is in hand is finished first");
        workers_stop.cancel();
        stop.cancel();
        let ended = async {
            while workers.join_next().await.is_some() {}
            while rest.join_next().await.is_some() {}
        };
        tokio::select! {
            drained = tokio::time::timeout(settings.drain, ended) => {
                if drained.is_err() {
                    tracing::warn!(limit_s = settings.drain.as_secs(),
                        "not all ended in time; what was in hand comes again");
                }
            }
            () = told.come() => std::process::exit(130),
        }
        Ok(())
    }
}
