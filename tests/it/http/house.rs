//! A whole Tidings on one SQLite file, put together by the test: ingest, decorator, senders,
//! inbox, signals and page behind one address.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tidings::auth::Auth;
#[cfg(feature = "backstage")]
use tidings::auth::PluginKeys;
use tidings::auth::Scopes;
use tidings::auth::StaticToken;
use tidings::auth::Trust;
use tidings::auth::UserKey;
use tidings::catalog::Catalog;
use tidings::catalog::file::FileCatalog;
use tidings::console;
use tidings::console::ConsoleParts;
use tidings::decorator::Chain;
use tidings::decorator::Chunks;
use tidings::decorator::Intake;
use tidings::decorator::Pipeline;
use tidings::decorator::Undertaker;
use tidings::failure::RetrySchedule;
use tidings::http::app;
use tidings::inbox;
use tidings::inbox::InboxParts;
use tidings::ingest;
use tidings::ingest::IngestParts;
use tidings::ingest::Waiter;
use tidings::processor::Sender;
use tidings::processor::switchboard;
use tidings::queue::DEAD;
use tidings::queue::Queue;
use tidings::queue::sqlite::SqliteQueue;
use tidings::sender::Deliveries;
use tidings::settings::Defaults;
use tidings::signals;
use tidings::signals::Hub;
use tidings::sqlite::Sqlite;
use tidings::store::Store;
use tidings::store::sqlite::SqliteStore;
use tidings::telemetry::Events;
use tidings::telemetry::Readiness;
use tidings::topology;
use tidings::worker::Work;
use tidings::worker::Worker;
use tokio_util::sync::CancellationToken;
use url::Url;

use super::Served;

/// Where links of the app lead, as in the cases of the peer.
pub(crate) const APP: &str = "http://localhost:3000";

/// The operator's token.
pub(crate) const OPERATOR: &str = "token-of-the-operator";

/// What a house is built from.
#[derive(Clone, Default)]
pub(crate) struct Plan {
    /// Subjects that may send, each with the token of [`House::token`].
    pub(crate) subjects: Vec<String>,
    /// Entities of the catalog.
    pub(crate) catalog: Vec<Value>,
    /// `notifications.defaultSettings`.
    pub(crate) defaults: Defaults,
    /// Decorators.
    pub(crate) chain: Chain,
    /// Senders.
    pub(crate) senders: Vec<Arc<dyn Sender>>,
    /// The time between two sends of each of them.
    pub(crate) rate: Option<Duration>,
    /// Whom else to believe; who knows the groups is the catalog above.
    pub(crate) trust: Trust,
}

impl Plan {
    /// Every work queue that it needs.
    pub(crate) fn queues(&self) -> Vec<topology::QueueSpec> {
        let names = self.senders.iter().map(|one| one.name().to_owned());
        topology::queues(&names.collect::<Vec<_>>())
    }
}

/// A Tidings that runs until it is dropped.
pub(crate) struct House {
    pub(crate) served: Served,
    pub(crate) queue: Arc<dyn Queue>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) auth: Auth,
    pub(crate) key: UserKey,
    #[cfg(feature = "backstage")]
    pub(crate) plugin_keys: PluginKeys,
    stop: CancellationToken,
    _dir: TempDir,
}

impl Drop for House {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// What the roles share while they are put together.
struct Site {
    queue: Arc<dyn Queue>,
    store: Arc<dyn Store>,
    catalog: Arc<dyn Catalog>,
    auth: Auth,
    #[cfg(feature = "backstage")]
    plugin_keys: PluginKeys,
    base_url: Url,
    stop: CancellationToken,
}

impl House {
    pub(crate) async fn build(plan: Plan) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let sqlite = Sqlite::open(dir.path()).unwrap();
        let queue = SqliteQueue::new(Arc::clone(&sqlite), &plan.queues());
        Self::on(
            plan,
            dir,
            Arc::new(queue),
            Arc::new(SqliteStore::new(sqlite)),
        )
        .await
    }

    /// On these two doors.
    pub(crate) async fn on(
        plan: Plan,
        dir: TempDir,
        queue: Arc<dyn Queue>,
        store: Arc<dyn Store>,
    ) -> Self {
        let operator = StaticToken {
            token: OPERATOR.into(),
            subject: "external:operator".into(),
            scopes: Scopes::OPERATE,
            plugins: None,
        };
        let senders = plan.subjects.iter().map(|subject| StaticToken {
            token: Self::token(subject),
            subject: subject.clone(),
            scopes: Scopes::SEND,
            plugins: None,
        });
        let key = UserKey::from_bytes(&[5; 32]);
        let catalog = catalog(dir.path(), &plan.catalog);
        let trust = Trust {
            catalog: Some(Arc::clone(&catalog)),
            ..plan.trust.clone()
        };
        let site = Site {
            #[cfg(feature = "backstage")]
            plugin_keys: PluginKeys::new(Arc::clone(&store)),
            queue,
            store,
            catalog,
            auth: Auth::trusting(
                senders.chain([operator]).collect(),
                Some(key.clone()),
                &trust,
            ),
            base_url: APP.parse().unwrap(),
            stop: CancellationToken::new(),
        };
        #[cfg(feature = "backstage")]
        tokio::spawn({
            let (keys, stop) = (site.plugin_keys.clone(), site.stop.clone());
            async move { stop.run_until_cancelled(keys.run(Duration::ZERO)).await }
        });
        site.start_decorator(&plan);
        site.start_senders(&plan.senders, plan.rate);
        let served = site.serve(&plan).await;
        Self {
            served,
            queue: site.queue,
            store: site.store,
            auth: site.auth,
            key,
            #[cfg(feature = "backstage")]
            plugin_keys: site.plugin_keys,
            stop: site.stop,
            _dir: dir,
        }
    }

    /// The token of a subject of the plan.
    pub(crate) fn token(subject: &str) -> String {
        format!("token-of-{}", subject.replace(char::is_whitespace, ""))
    }

    /// A token of a person.
    pub(crate) fn user_token(&self, reference: &str) -> String {
        self.key.sign(reference, Duration::from_secs(600)).unwrap()
    }
}

fn catalog(dir: &Path, entities: &[Value]) -> Arc<dyn Catalog> {
    let file = dir.join("people.yaml");
    // JSON is YAML.
    let documents: Vec<String> = entities.iter().map(Value::to_string).collect();
    std::fs::write(&file, documents.join("\n---\n")).unwrap();
    Arc::new(FileCatalog::open(vec![file]).unwrap())
}

impl Site {
    fn work(&self, lanes: &[&str], work: Arc<dyn Work>) {
        let worker = Worker {
            queue: Arc::clone(&self.queue),
            lanes: lanes.iter().map(|lane| (*lane).to_owned()).collect(),
            work,
            schedule: RetrySchedule::default(),
            hold: tidings::worker::HOLD_MAX,
            readiness: Readiness::default(),
            paused: tidings::worker::never_paused(),
            stop: self.stop.clone(),
        };
        tokio::spawn(worker.run());
    }

    fn start_decorator(&self, plan: &Plan) {
        let pipeline = Arc::new(Pipeline {
            catalog: Arc::clone(&self.catalog),
            store: Arc::clone(&self.store),
            queue: Arc::clone(&self.queue),
            chain: plan.chain.clone(),
            senders: plan.senders.clone(),
            foreign: Vec::new(),
            defaults: plan.defaults.clone(),
            app_base_url: self.base_url.clone(),
            origins: Default::default(),
            body_limit: 1 << 20,
            schedule: RetrySchedule::default(),
            seal: Default::default(),
            events: Events::default(),
        });
        let lanes = [topology::SUBMISSIONS, topology::SUBMISSIONS_BULK];
        self.work(&lanes, Arc::new(Intake(Arc::clone(&pipeline))));
        self.work(&[topology::CHUNKS], Arc::new(Chunks(Arc::clone(&pipeline))));
        self.work(&[DEAD], Arc::new(Undertaker(pipeline)));
    }

    fn start_senders(&self, senders: &[Arc<dyn Sender>], rate: Option<Duration>) {
        for sender in senders {
            let lanes = [false, true].map(|bulk| topology::deliver(sender.name(), bulk));
            let work = Deliveries {
                sender: Arc::clone(sender),
                store: Arc::clone(&self.store),
                catalog: Arc::clone(&self.catalog),
                lease: std::time::Duration::from_secs(60),
                rate,
                endpoints: Default::default(),
                schedule: RetrySchedule::default(),
                app_base_url: self.base_url.clone(),
                events: Events::default(),
                gate: tokio::sync::Semaphore::new(4),
            };
            self.work(&[&lanes[0], &lanes[1]], Arc::new(work));
        }
    }

    async fn serve(&self, plan: &Plan) -> Served {
        let (waiter, hub) = (Waiter::default(), Hub::default());
        tokio::spawn(
            waiter
                .clone()
                .run(Arc::clone(&self.queue), self.stop.clone()),
        );
        tokio::spawn(hub.clone().run(Arc::clone(&self.queue), self.stop.clone()));
        while !waiter.is_open() {
            tokio::task::yield_now().await;
        }
        let ingest = IngestParts {
            queue: Arc::clone(&self.queue),
            waiter,
            events: Events::default(),
            base_url: self.base_url.clone(),
            body_limit: ingest::BODY_LIMIT_DEFAULT,
            wait: Duration::ZERO,
            deadline: Duration::from_secs(5),
            defer_content: plan.chain.decorates_whole(),
        };
        let board = switchboard(&plan.senders, plan.defaults.clone());
        let inbox = InboxParts {
            store: Arc::clone(&self.store),
            queue: Arc::clone(&self.queue),
            catalog: Arc::clone(&self.catalog),
            auth: self.auth.clone(),
            readiness: Readiness::default(),
            board: board.clone(),
            processors: Default::default(),
            backup: None,
        };
        let page = ConsoleParts {
            store: Arc::clone(&self.store),
            queue: Arc::clone(&self.queue),
            auth: self.auth.clone(),
            hub: hub.clone(),
            board,
            base_url: self.base_url.clone(),
        };
        #[cfg(feature = "backstage")]
        let keys = tidings::http::key_routes(self.plugin_keys.clone());
        #[cfg(not(feature = "backstage"))]
        let keys = axum::Router::new();
        let routes = ingest::routes(ingest)
            .merge(keys)
            .merge(inbox::routes(inbox))
            .merge(signals::routes(hub, self.auth.clone()))
            .merge(console::routes(page));
        Served::start(app(routes, &self.auth)).await
    }
}
