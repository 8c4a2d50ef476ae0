//! A process is a set of roles: start them, and drain them in order.
//!
//! The binaries in `bins/` choose the roles and open the back end; everything else is here, once,
//! for one process that does everything and for many that do one thing each.

mod backend;
#[cfg(feature = "backstage")]
mod calls;
#[cfg(not(feature = "backstage"))]
mod calls_left_out;
mod error;
#[cfg(feature = "rabbitmq")]
mod external;
mod health;
#[cfg(feature = "postgres")]
mod import;
mod listen;
mod look;
mod pauses;
pub mod process;
mod services;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OnceCell;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

pub use self::calls::Calls;
#[cfg(not(feature = "backstage"))]
use self::calls_left_out as calls;
pub use self::error::StartError;
#[cfg(feature = "rabbitmq")]
pub use self::external::External;
#[cfg(feature = "postgres")]
pub use self::import::ImportEvent;
#[cfg(feature = "postgres")]
pub use self::import::ImportReport;
#[cfg(feature = "postgres")]
pub use self::import::PartReport;
#[cfg(feature = "postgres")]
pub use self::import::import;
pub use self::listen::Listeners;
pub use self::look::Finding;
pub use self::look::Findings;
pub use self::look::Level;
pub use self::look::look;
use self::pauses::Pauses;
pub use self::services::GUEST;
pub use self::services::Services;
#[cfg(feature = "backstage")]
use crate::auth;
use crate::auth::Auth;
#[cfg(feature = "backstage")]
use crate::auth::PluginKeys;
use crate::config::Settings;
use crate::decorator::Attempts;
use crate::decorator::Chores;
use crate::decorator::Chunks;
use crate::decorator::Intake;
use crate::decorator::Pipeline;
use crate::decorator::Undertaker;
use crate::queue::DEAD;
use crate::queue::Queue;
use crate::sender::Deliveries;
use crate::store::Store;
use crate::telemetry::Events;
use crate::telemetry::Readiness;
use crate::topology;
use crate::worker::HOLD_MAX;
use crate::worker::Work;
use crate::worker::Worker;
use crate::worker::never_paused;

/// The version, with the commit where it is known.
pub const VERSION: &str = env!("TIDINGS_VERSION");

/// What a process does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roles {
    /// Accepts submissions over HTTP.
    pub ingest: bool,
    /// Expands, decorates, stores and routes.
    pub decorator: bool,
    /// Sends: these senders.
    pub senders: Vec<String>,
    /// Serves the inbox, signals, the page and the operators.
    pub inbox: bool,
}

impl Roles {
    /// Everything, with these senders.
    pub fn everything(senders: Vec<String>) -> Self {
        Self {
            ingest: true,
            decorator: true,
            inbox: true,
            senders,
        }
    }

    /// Whether this is one process that does everything.
    pub fn is_everything(&self) -> bool {
        self.ingest && self.decorator && self.inbox
    }

    /// Whether they can do nothing while the store is away. Ingest alone can.
    pub fn needs_store(&self) -> bool {
        self.decorator || self.inbox || !self.senders.is_empty()
    }

    /// In words, for the list of processes.
    pub fn describe(&self) -> String {
        if self.is_everything() {
            return "up".to_owned();
        }
        let mut words = Vec::new();
        for (does, word) in [
            (self.ingest, "ingest"),
            (self.decorator, "decorator"),
            (self.inbox, "inbox"),
        ] {
            if does {
                words.push(word.to_owned());
            }
        }
        if !self.senders.is_empty() {
            words.push(format!("sender {}", self.senders.join(" ")));
        }
        words.join(", ")
    }
}

/// The two doors, opened by a binary.
#[derive(Clone)]
pub struct Backend {
    /// Where messages wait.
    pub queue: Arc<dyn Queue>,
    /// What is kept. An ingest process works without it for as long as it is away.
    pub store: Arc<dyn Store>,
    /// Writes a backup of everything to a file, where the back end can.
    pub backup: Option<crate::inbox::Backup>,
}

/// A process that runs.
pub struct Running {
    /// Where it listens: the inbox, else ingest, else health and metrics.
    pub address: SocketAddr,
    /// Who may do what.
    pub auth: Auth,
    /// Where its health and metrics are.
    pub admin: SocketAddr,
    /// What happens, for a terminal.
    pub events: Events,
    /// What is not well.
    pub readiness: Readiness,
    pauses: Pauses,
    /// Its number in the list of processes.
    pub process: Uuid,
    backend: Backend,
    /// Signs in at Backstage.
    #[cfg(feature = "backstage")]
    plugin_keys: PluginKeys,
    /// Whether it can do nothing while the store is away.
    needs_store: bool,
    /// Ends the workers once what they have in hand is done.
    workers_stop: CancellationToken,
    workers: JoinSet<()>,
    /// Ends everything else.
    stop: CancellationToken,
    rest: JoinSet<()>,
}

/// Starts the roles on what is bound and opened already.
///
/// # Errors
/// [`StartError`]: what was wrong, where, and what to do.
pub async fn start(
    settings: &Settings,
    services: &Services,
    roles: &Roles,
    backend: Backend,
    listeners: Listeners,
) -> Result<Running, StartError> {
    let mut running = Running {
        address: listeners.address(),
        admin: listeners.admin_address(),
        auth: listen::auth(settings, services, roles)?,
        events: Events::default(),
        readiness: Readiness::default(),
        pauses: Pauses::default(),
        process: Uuid::now_v7(),
        #[cfg(feature = "backstage")]
        plugin_keys: PluginKeys::new(Arc::clone(&backend.store)),
        backend,
        needs_store: roles.needs_store(),
        workers_stop: CancellationToken::new(),
        workers: JoinSet::new(),
        stop: CancellationToken::new(),
        rest: JoinSet::new(),
    };
    if roles.inbox {
        listen::first_token(&settings.data, &running.backend, &running.auth).await;
    }
    #[cfg(feature = "backstage")]
    running.start_keys(settings, services);
    running.start_health(settings, services, roles).await;
    running.start_decorator(settings, services, roles);
    running.start_senders(settings, services, roles);
    running.serve(settings, services, roles, listeners).await;
    Ok(running)
}

/// Loops for each kind of work: while one waits for the store, another can take.
const LOOPS: usize = 2;

impl Running {
    /// Makes and keeps the key that signs in at Backstage, once it is needed.
    #[cfg(feature = "backstage")]
    fn start_keys(&mut self, settings: &Settings, services: &Services) {
        let calls = services.backstage.as_ref();
        if let Some(signed) = calls.and_then(|calls| calls.signed.as_ref()) {
            signed.set(Arc::new(self.plugin_keys.clone()));
        }
        // Where this process is the only one, nobody shows an older copy.
        let settle = if settings.store.is_some() {
            auth::SETTLE
        } else {
            Duration::ZERO
        };
        let (keys, stop) = (self.plugin_keys.clone(), self.stop.clone());
        self.rest.spawn(async move {
            stop.run_until_cancelled(keys.run(settle)).await;
        });
    }

    fn start_decorator(&mut self, settings: &Settings, services: &Services, roles: &Roles) {
        if !roles.decorator {
            return;
        }
        let pipeline = Arc::new(Pipeline {
            catalog: Arc::clone(&services.catalog),
            store: Arc::clone(&self.backend.store),
            queue: Arc::clone(&self.backend.queue),
            chain: services.chain.clone(),
            senders: services.routes(),
            foreign: services.foreign.clone(),
            defaults: settings.default_settings.clone(),
            app_base_url: settings.app_base_url.clone(),
            origins: settings
                .queue
                .as_ref()
                .map(|queue| queue.origins.clone())
                .unwrap_or_default(),
            body_limit: settings.ingest.body_limit,
            schedule: settings.retry.clone(),
            seal: OnceCell::new(),
            events: self.events.clone(),
        });
        let submissions = vec![
            topology::SUBMISSIONS.to_owned(),
            topology::SUBMISSIONS_BULK.to_owned(),
        ];
        let intake: Arc<dyn Work> = Arc::new(Intake(Arc::clone(&pipeline)));
        let chunks: Arc<dyn Work> = Arc::new(Chunks(Arc::clone(&pipeline)));
        for _ in 0..LOOPS {
            self.work(settings, &submissions, &intake);
            self.work(settings, &[topology::CHUNKS.to_owned()], &chunks);
        }
        let attempts: Arc<dyn Work> = Arc::new(Attempts(Arc::clone(&pipeline)));
        self.work(settings, &[topology::ATTEMPTS.to_owned()], &attempts);
        let dead: Arc<dyn Work> = Arc::new(Undertaker(Arc::clone(&pipeline)));
        self.work(settings, &[DEAD.to_owned()], &dead);
        let chores = Chores {
            pipeline,
            submissions: settings.retention.submissions,
            dead_letters: settings.retention.dead_letters,
            inbox: settings.retention.inbox,
            stop: self.stop.clone(),
        };
        self.rest.spawn(chores.run());
    }

    fn start_senders(&mut self, settings: &Settings, services: &Services, roles: &Roles) {
        for sender in &services.senders {
            if !roles.senders.iter().any(|name| name == sender.name()) {
                continue;
            }
            let lanes = [false, true].map(|bulk| topology::deliver(sender.name(), bulk));
            let work: Arc<dyn Work> = Arc::new(Deliveries {
                sender: Arc::clone(sender),
                store: Arc::clone(&self.backend.store),
                catalog: Arc::clone(&services.catalog),
                schedule: settings.retry_of(sender.name()).clone(),
                lease: settings.lease,
                rate: settings.rate_of(sender.name()),
                endpoints: crate::sender::Endpoints::default(),
                app_base_url: settings.app_base_url.clone(),
                events: self.events.clone(),
                gate: tokio::sync::Semaphore::new(sender.concurrency().max(1)),
            });
            let paused = self.pauses.switch(sender.name());
            for _ in 0..LOOPS {
                self.work_unless(settings, &lanes, &work, paused.clone());
            }
        }
        let pauses = self.pauses.clone();
        let (store, stop) = (Arc::clone(&self.backend.store), self.stop.clone());
        if !roles.senders.is_empty() {
            self.rest.spawn(pauses.follow(store, stop));
        }
    }

    fn work(&mut self, settings: &Settings, lanes: &[String], work: &Arc<dyn Work>) {
        self.work_unless(settings, lanes, work, never_paused());
    }

    fn work_unless(
        &mut self,
        settings: &Settings,
        lanes: &[String],
        work: &Arc<dyn Work>,
        paused: watch::Receiver<bool>,
    ) {
        let worker = Worker {
            queue: Arc::clone(&self.backend.queue),
            lanes: lanes.to_vec(),
            work: Arc::clone(work),
            schedule: settings.retry.clone(),
            hold: HOLD_MAX,
            readiness: self.readiness.clone(),
            paused,
            stop: self.workers_stop.clone(),
        };
        self.workers.spawn(worker.run());
    }

    /// The back end, for the binary that shows what it holds.
    pub fn backend(&self) -> &Backend {
        &self.backend
    }

    /// What keeps this process from doing its work now, by what is missing.
    pub async fn troubles(&self) -> BTreeMap<String, String> {
        health::check(&self.backend, &self.readiness, self.needs_store).await;
        self.readiness.troubles()
    }

    /// Waits until this process could do all its work, at most `limit`; says whether it can.
    pub async fn ready(&self, limit: Duration) -> bool {
        let all_well = async {
            while !self.troubles().await.is_empty() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(limit, all_well).await.is_ok()
    }

    /// Stops: no more is taken, what is in hand is finished, then the rest ends. Says whether all
    /// of it ended within `limit`.
    pub async fn drain(mut self, limit: Duration) -> bool {
        let deadline = tokio::time::Instant::now() + limit;
        // Requests first: their answers may wait for workers.
        self.stop.cancel();
        self.workers_stop.cancel();
        let ended = async {
            while self.workers.join_next().await.is_some() {}
            while self.rest.join_next().await.is_some() {}
        };
        let drained = tokio::time::timeout_at(deadline, ended).await.is_ok();
        let farewell = self.backend.store.farewell(self.process);
        // A store that is away forgets the process by itself.
        let _ = tokio::time::timeout(Duration::from_secs(1), farewell).await;
        drained
    }
}
