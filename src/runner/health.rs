//! What a process tells of its health, and what it keeps fresh: readiness, its heartbeat in the
//! list of processes, and its copy of the token table.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::Backend;
use super::Roles;
use super::Running;
use super::Services;
use super::VERSION;
use crate::auth::Auth;
use crate::catalog::Catalog;
use crate::config::Settings;
use crate::store::Process;
use crate::telemetry::Readiness;
use crate::time::Timestamp;

/// Between two heartbeats.
const HEARTBEAT_EVERY: Duration = Duration::from_secs(10);
/// Between two looks at the token table: how long a revoked token may still be taken.
const TOKENS_EVERY: Duration = Duration::from_secs(5);
/// The longest a dependency may take to say that it is well.
const CHECK_TIMEOUT: Duration = Duration::from_secs(6);

/// Between two looks at the dependencies.
const CHECK_EVERY: Duration = Duration::from_secs(1);

/// Between two looks at the catalog.
const CATALOG_EVERY: Duration = Duration::from_secs(5);

/// Asks the dependencies whether they are well, and notes it for `/readyz`.
pub(super) async fn check(backend: &Backend, readiness: &Readiness, needs_store: bool) {
    let silent = || "it does not answer".to_owned();
    let queue = async {
        let asked = tokio::time::timeout(CHECK_TIMEOUT, backend.queue.ready()).await;
        asked.map_or_else(
            |_| Err(silent()),
            |is| is.map_err(|error| error.to_string()),
        )
    };
    let store = async {
        if !needs_store {
            return Ok(());
        }
        let asked = tokio::time::timeout(CHECK_TIMEOUT, backend.store.ready()).await;
        asked.map_or_else(
            |_| Err(silent()),
            |is| is.map_err(|error| error.to_string()),
        )
    };
    let (queue, store) = tokio::join!(queue, store);
    for (what, is) in [("queue", queue), ("store", store)] {
        match is {
            Ok(()) => readiness.well(what),
            Err(detail) => readiness.trouble(what, &detail),
        }
    }
}

/// Keeps the word on a queue fresh, for a process that has nothing else.
#[cfg(feature = "rabbitmq")]
pub(super) async fn keep_queue(
    queue: std::sync::Arc<dyn crate::queue::Queue>,
    readiness: Readiness,
    stop: tokio_util::sync::CancellationToken,
) {
    let mut tick = tokio::time::interval(CHECK_EVERY);
    while stop.run_until_cancelled(tick.tick()).await.is_some() {
        match tokio::time::timeout(CHECK_TIMEOUT, queue.ready()).await {
            Ok(Ok(())) => readiness.well("queue"),
            Ok(Err(error)) => readiness.trouble("queue", &error.to_string()),
            Err(_) => readiness.trouble("queue", "it does not answer"),
        }
    }
}

impl Running {
    /// Keeps what others see of this process fresh: readiness, heartbeat, tokens.
    pub(super) async fn start_health(
        &mut self,
        settings: &Settings,
        services: &Services,
        roles: &Roles,
    ) {
        let (backend, readiness) = (self.backend.clone(), self.readiness.clone());
        let (stop, needs_store) = (self.stop.clone(), self.needs_store);
        check(&backend, &readiness, needs_store).await;
        self.rest.spawn(async move {
            let mut tick = tokio::time::interval(CHECK_EVERY);
            while stop.run_until_cancelled(tick.tick()).await.is_some() {
                check(&backend, &readiness, needs_store).await;
            }
        });
        if roles.decorator || !roles.senders.is_empty() {
            let (catalog, readiness) = (Arc::clone(&services.catalog), self.readiness.clone());
            let stop = self.stop.clone();
            self.rest.spawn(async move {
                let work = watch_catalog(catalog, readiness);
                stop.run_until_cancelled(work).await;
            });
        }
        self.start_heartbeat(roles);
        #[cfg(feature = "backstage")]
        if roles.ingest || roles.inbox {
            let (auth, readiness) = (self.auth.clone(), self.readiness.clone());
            let stop = self.stop.clone();
            self.rest.spawn(async move {
                stop.run_until_cancelled(keep_keys(auth, readiness)).await;
            });
        }
        if roles.ingest || roles.inbox {
            let (backend, auth, stop) =
                (self.backend.clone(), self.auth.clone(), self.stop.clone());
            let home = roles.inbox.then(|| settings.data.clone());
            self.rest.spawn(async move {
                let work = keep_tokens(backend, auth, home);
                stop.run_until_cancelled(work).await;
            });
        }
    }
}

/// Fetches the keys of those who sign tokens, and notes of whom there are none. The process stays
/// ready: everybody else can come in, and another process would know no more.
#[cfg(feature = "backstage")]
async fn keep_keys(auth: Auth, readiness: Readiness) {
    const WHAT: &str = "keys of token issuers";
    loop {
        match auth.prepare().await {
            Ok(()) => readiness.well(WHAT),
            Err(why) => readiness.note(WHAT, &why),
        }
        tokio::time::sleep(TOKENS_EVERY).await;
    }
}

/// Notes when the catalog is away. The process stays ready: much is known by heart, user refs need
/// no catalog, and a Backstage that checks our tokens must be able to fetch our keys from here.
async fn watch_catalog(catalog: Arc<dyn Catalog>, readiness: Readiness) {
    const WHAT: &str = "catalog";
    loop {
        match catalog.ready().await {
            Ok(()) => readiness.well(WHAT),
            Err(failure) => readiness.note(WHAT, &failure.detail),
        }
        tokio::time::sleep(CATALOG_EVERY).await;
    }
}

/// Keeps this process's copy of the token table fresh; `home` is where the first token goes, by
/// the process that makes it.
async fn keep_tokens(backend: Backend, auth: Auth, mut home: Option<PathBuf>) {
    loop {
        if let Some(data) = &home
            && super::listen::first_token(data, &backend, &auth).await
        {
            home = None;
        }
        refresh_tokens(&backend, &auth).await;
        // Whoever waits for the first token is not to wait long.
        let pause = if home.is_some() {
            CHECK_EVERY
        } else {
            TOKENS_EVERY
        };
        tokio::time::sleep(pause).await;
    }
}

/// Takes a fresh copy of the token table; while the store is away the old one serves on.
pub(super) async fn refresh_tokens(backend: &Backend, auth: &Auth) {
    match backend.store.tokens().await {
        Ok(tokens) => auth.set_tokens(tokens),
        Err(error) => {
            tracing::debug!(%error, "the token table was not read; the last copy serves on");
        }
    }
    let used = auth.take_used();
    if !used.is_empty()
        && let Err(error) = backend.store.touch_tokens(&used).await
    {
        tracing::debug!(%error, "the use of tokens was not noted");
    }
}

impl Running {
    fn start_heartbeat(&mut self, roles: &Roles) {
        let (backend, readiness, stop) = (
            self.backend.clone(),
            self.readiness.clone(),
            self.stop.clone(),
        );
        let mut process = Process {
            id: self.process,
            role: roles.describe(),
            host: hostname(),
            pid: std::process::id(),
            version: VERSION.to_owned(),
            admin: Some(self.admin.to_string()),
            trouble: Vec::new(),
            started_at: Timestamp::now(),
            seen_at: Timestamp::now(),
        };
        self.rest.spawn(async move {
            let mut beat = tokio::time::interval(HEARTBEAT_EVERY);
            loop {
                tokio::select! {
                    () = stop.cancelled() => return,
                    _ = beat.tick() => {}
                    () = readiness.changed() => {}
                }
                let troubles = readiness.troubles();
                process.trouble = troubles
                    .iter()
                    .chain(&readiness.notes())
                    .map(|(what, why)| format!("{what}: {why}"))
                    .collect();
                process.seen_at = Timestamp::now();
                if let Err(error) = backend.store.heartbeat(&process).await {
                    tracing::debug!(%error, "no heartbeat");
                }
            }
        });
    }
}

/// The machine's name, as far as it is known without asking the network.
fn hostname() -> String {
    std::fs::read_to_string("/etc/hostname")
        .map(|name| name.trim().to_owned())
        .ok()
        .or_else(|| std::env::var("HOSTNAME").ok())
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "localhost".to_owned())
}
