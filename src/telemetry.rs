//! What Tidings tells of itself: logs, metrics, and the events that the terminal shows.
//!
//! Logs and metrics carry ids, refs, counts and reasons, never title, text, link, metadata or
//! address. Events may carry a title, since they reach only the terminal of the person who
//! started `tidings up`.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

use metrics_exporter_prometheus::PrometheusBuilder;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::sync::Notify;
use tokio::sync::broadcast;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use uuid::Uuid;

use crate::failure::Reason;

/// Something that happened to a notification, for the terminal.
#[derive(Clone, Debug)]
pub enum Event {
    /// A submission was accepted.
    Accepted {
        /// The submission.
        submission: Uuid,
        /// Its title.
        title: String,
        /// Who sent it.
        origin: String,
    },
    /// A chunk of it was stored.
    Stored {
        /// The submission.
        submission: Uuid,
        /// Inbox rows made or updated.
        people: u64,
        /// For everybody.
        broadcast: bool,
    },
    /// Nobody received it.
    NoRecipients {
        /// The submission.
        submission: Uuid,
        /// The refs that reached nobody.
        refs: Vec<String>,
    },
    /// A delivery was sent.
    Sent {
        /// The submission.
        submission: Uuid,
        /// The sender's name.
        channel: String,
        /// To whom, for a person to read.
        to: String,
        /// Where it lies, if that is known (the file of a mail).
        at: Option<String>,
    },
    /// Something failed; `next` says what happens now, `help` what to do.
    Failed {
        /// The submission, if it has one.
        submission: Option<Uuid>,
        /// The sender's name or the stage.
        stage: String,
        /// To whom, for a person to read.
        to: String,
        /// The word.
        reason: Reason,
        /// One sentence.
        detail: String,
        /// What happens now: "again in 10 s", "dead letter".
        next: String,
    },
}

/// The stream of events of this process. Nobody needs to listen.
#[derive(Clone, Debug)]
pub struct Events(broadcast::Sender<Event>);

/// How many events a listener may be behind: a crowd of deliveries ends within one turn.
const EVENTS_KEPT: usize = 4096;

impl Default for Events {
    fn default() -> Self {
        Self(broadcast::channel(EVENTS_KEPT).0)
    }
}

impl Events {
    /// Tells whoever listens.
    pub fn tell(&self, event: Event) {
        // No listener is the normal case: only a terminal listens.
        let _ = self.0.send(event);
    }

    /// Whether somebody listens, so that the words need not be made in vain.
    pub fn is_heard(&self) -> bool {
        self.0.receiver_count() > 0
    }

    /// Listens from now on.
    pub fn listen(&self) -> broadcast::Receiver<Event> {
        self.0.subscribe()
    }
}

/// Names of the metrics, with their labels. One list, so that dashboards and code agree.
pub mod metric {
    /// Counter, by `origin` and `outcome` (`accepted`, `repeated`, `invalid`, `refused`,
    /// `unavailable`, `no_recipients`).
    pub const SUBMISSIONS: &str = "tidings_submissions_total";
    /// Histogram of seconds, by `stage` (`accept`, `intake`, `persist`, `deliver.<channel>`).
    pub const STAGE_SECONDS: &str = "tidings_stage_seconds";
    /// Counter, by `channel`, `outcome` and `reason`.
    pub const DELIVERIES: &str = "tidings_deliveries_total";
    /// Gauge of seconds, by `queue`: the age of the oldest message that waits.
    pub const QUEUE_OLDEST_SECONDS: &str = "tidings_queue_oldest_seconds";
    /// Gauge, by `queue`: messages that wait.
    pub const QUEUE_READY: &str = "tidings_queue_ready";
    /// Counter, by `channel`: endpoints that were disabled since they failed for too long.
    pub const ENDPOINTS_DISABLED: &str = "tidings_endpoints_disabled_total";
    /// Counter, by `stage` and `reason`.
    pub const DEAD_LETTERS: &str = "tidings_dead_letters_total";
    /// Counter, by `decorator` and `outcome` (`kept`, `changed`, `dropped`, `failed`).
    pub const DECORATIONS: &str = "tidings_decorations_total";
    /// Counter: inbox rows, by `change` (`new`, `updated`, `superseded`, `expired`).
    pub const ROWS: &str = "tidings_inbox_rows_total";
    /// Counter, by `outcome` (`ok`, or the reason of a failure): questions to a live catalog.
    pub const CATALOG_REQUESTS: &str = "tidings_catalog_requests_total";
    /// Counter, by `from` (`cache`, `catalog`, `stale`): entities and people that were looked up in
    /// a live catalog, and where the answer came from.
    pub const CATALOG_ANSWERS: &str = "tidings_catalog_answers_total";
    /// Gauge: open pages.
    pub const STREAMS: &str = "tidings_streams_open";
    /// Counter: events of a Backstage's bus, by `outcome` (`told`, `ignored`).
    pub const BUS_EVENTS: &str = "tidings_bus_events_total";
    /// Gauge: 1 while this process hears a Backstage's bus.
    pub const BUS_SUBSCRIBED: &str = "tidings_bus_subscribed";
    /// Counter, by `issuer` (`users`, `plugins`, `external`) and `outcome` (`ok`, `failed`): fetches
    /// of the public keys that tokens are verified with.
    pub const KEY_FETCHES: &str = "tidings_key_fetches_total";
}

/// Upper bounds, in seconds, of the buckets of [`metric::STAGE_SECONDS`].
const SECONDS: [f64; 12] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0,
];

/// How logs are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One line of text for each record.
    Text,
    /// One JSON object for each record.
    Json,
    /// Warnings and errors alone, as text: a person watches the events instead.
    Quiet,
}

/// Starts logging to stderr; `RUST_LOG` overrides the level. Called once, by a binary.
pub fn init_logs(format: LogFormat) {
    // The broker's client says again what we say of a connection.
    let level = if format == LogFormat::Quiet {
        "error,lapin=off"
    } else {
        "info,refinery_core=warn,lapin=off"
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    // It logs the whole body of a message that no queue takes: never, whatever RUST_LOG says.
    let filter = match "lapin::returned_messages=off".parse() {
        Ok(silence) => filter.add_directive(silence),
        Err(_) => filter,
    };
    let layer = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let registry = tracing_subscriber::registry().with(filter);
    // A second start in the same process (a test) keeps the first one's logs.
    let _ = match format {
        LogFormat::Json => registry.with(layer.json().flatten_event(true)).try_init(),
        LogFormat::Text | LogFormat::Quiet => registry.with(layer.with_target(false)).try_init(),
    };
}

/// The process's metrics, in Prometheus' text format by [`PrometheusHandle::render`]. There is
/// one recorder in a process; later calls hand out the same.
pub fn metrics_handle() -> PrometheusHandle {
    static HANDLE: Mutex<Option<PrometheusHandle>> = Mutex::new(None);
    let mut handle = HANDLE.lock().unwrap_or_else(PoisonError::into_inner);
    handle
        .get_or_insert_with(|| {
            let builder = PrometheusBuilder::new();
            let builder = builder
                .set_buckets(&SECONDS)
                .unwrap_or_else(|_| PrometheusBuilder::new());
            let recorder = builder.build_recorder();
            let handle = recorder.handle();
            // Fails only when somebody embeds the library and records elsewhere; then that is
            // where the figures go.
            let _ = metrics::set_global_recorder(recorder);
            describe();
            handle
        })
        .clone()
}

fn describe() {
    metrics::describe_counter!(metric::SUBMISSIONS, "Submissions by origin and outcome.");
    metrics::describe_histogram!(metric::STAGE_SECONDS, "Seconds that a stage takes.");
    metrics::describe_counter!(
        metric::DELIVERIES,
        "Deliveries by channel, outcome and reason."
    );
    metrics::describe_gauge!(
        metric::QUEUE_OLDEST_SECONDS,
        "Age of the oldest waiting message."
    );
    metrics::describe_gauge!(metric::QUEUE_READY, "Messages that wait.");
    metrics::describe_counter!(metric::DEAD_LETTERS, "Dead letters by stage and reason.");
    metrics::describe_counter!(metric::DECORATIONS, "Decorations by decorator and outcome.");
    metrics::describe_counter!(metric::ROWS, "Inbox rows by what was done to them.");
    metrics::describe_counter!(
        metric::CATALOG_REQUESTS,
        "Questions to a live catalog by outcome."
    );
    metrics::describe_counter!(
        metric::CATALOG_ANSWERS,
        "Look-ups in a live catalog by where the answer came from."
    );
    metrics::describe_gauge!(metric::STREAMS, "Open pages.");
    metrics::describe_counter!(
        metric::BUS_EVENTS,
        "Events of a Backstage's bus by outcome."
    );
    metrics::describe_gauge!(
        metric::BUS_SUBSCRIBED,
        "Whether this process hears a Backstage's bus."
    );
    metrics::describe_counter!(
        metric::KEY_FETCHES,
        "Fetches of issuers' public keys by whose they are and outcome."
    );
}

/// What keeps this process from doing its work, by the name of what is missing; empty is ready.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<Troubles>);

#[derive(Debug, Default)]
struct Troubles {
    now: Mutex<Wrong>,
    changed: Notify,
}

/// What is wrong, by what is concerned.
#[derive(Debug, Default)]
struct Wrong {
    /// The process cannot do its work.
    troubles: BTreeMap<String, String>,
    /// A part of its work: the rest is worth going on with.
    notes: BTreeMap<String, String>,
}

impl Readiness {
    /// `what` is in trouble.
    pub fn trouble(&self, what: &str, detail: &str) {
        let mut wrong = self.lock();
        let before = wrong.troubles.insert(what.to_owned(), detail.to_owned());
        drop(wrong);
        if before.as_deref() != Some(detail) {
            tracing::warn!(dependency = what, detail, "not ready");
            self.0.changed.notify_one();
        }
    }

    /// `what` is in trouble, and concerns a part of the work alone: the process stays ready, since
    /// taking it out of service would end the rest too and mend nothing.
    pub fn note(&self, what: &str, detail: &str) {
        let mut wrong = self.lock();
        let before = wrong.notes.insert(what.to_owned(), detail.to_owned());
        drop(wrong);
        if before.as_deref() != Some(detail) {
            tracing::warn!(what, detail, "degraded");
            self.0.changed.notify_one();
        }
    }

    /// `what` is well (again).
    pub fn well(&self, what: &str) {
        let mut wrong = self.lock();
        let before = wrong.troubles.remove(what).or(wrong.notes.remove(what));
        drop(wrong);
        if before.is_some() {
            tracing::info!(dependency = what, "ready again");
            self.0.changed.notify_one();
        }
    }

    /// What is in trouble now.
    pub fn troubles(&self) -> BTreeMap<String, String> {
        self.lock().troubles.clone()
    }

    /// What is in trouble now and keeps only a part of the work from being done.
    pub fn notes(&self) -> BTreeMap<String, String> {
        self.lock().notes.clone()
    }

    /// Completes when something has changed since this last completed. For one listener.
    pub async fn changed(&self) {
        self.0.changed.notified().await;
    }

    fn lock(&self) -> MutexGuard<'_, Wrong> {
        self.0.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
