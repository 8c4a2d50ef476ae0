//! The pool of connections, and how work is done on them: within a time, and again where that
//! helps.

use std::fmt;
use std::time::Duration;

use deadpool_postgres::Client;
use deadpool_postgres::ClientWrapper;
use deadpool_postgres::Manager;
use deadpool_postgres::Object;
use deadpool_postgres::Pool;
use deadpool_postgres::Runtime;
use rand::Rng as _;
use tokio_postgres::Config;
use tokio_postgres::config::Host;

use super::error;
use super::error::Fault;
use super::error::Remedy;
use super::tls::Tls;
use crate::store::StoreError;

/// Longest wait for a free connection, for a new one, and for a sign of life of an old one.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Longest time for one transaction of the pipeline. Twice this is a short lease's end.
pub(super) const WORK_TIMEOUT: Duration = Duration::from_secs(30);

/// Longest time for what goes over whole tables: migration, recount, retention.
pub(super) const UPKEEP_TIMEOUT: Duration = Duration::from_secs(1800);

/// A transaction is tried so often before its caller hears of it.
const TRIES_MAX: u32 = 5;

/// The longest pause before the second try; it doubles with each.
const FIRST_PAUSE_MS: u64 = 20;

/// Connections to one database, made when they are needed. Clones share them.
#[derive(Clone)]
pub(super) struct Connections {
    pool: Pool,
    /// Host and port, for errors.
    place: String,
}

impl fmt::Debug for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connections")
            .field("place", &self.place)
            .finish_non_exhaustive()
    }
}

impl Connections {
    /// At most `connections` to the database at `url`; none yet.
    ///
    /// # Errors
    /// [`StoreError::Schema`] says what is wrong with the URL, without repeating it.
    pub(super) fn open(url: &str, connections: usize) -> Result<Self, StoreError> {
        let wrong = |why: String| {
            StoreError::Schema(format!(
                "tidings.store.url: {why}; expected postgres://user:password@host:5432/database"
            ))
        };
        if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
            return Err(wrong("not a PostgreSQL URL".to_owned()));
        }
        let (url, tls) = Tls::split(url).map_err(wrong)?;
        let mut config: Config = url
            .parse()
            .map_err(|error| wrong(error::describe(&error)))?;
        config.ssl_mode(tls.mode);
        settle(&mut config);
        let place = place(&config).ok_or_else(|| wrong("it names no host".to_owned()))?;
        let connector = tls.connector().map_err(wrong)?;
        let pool = Pool::builder(Manager::new(config, connector))
            .max_size(connections.max(1))
            .wait_timeout(Some(CONNECT_TIMEOUT))
            .create_timeout(Some(CONNECT_TIMEOUT))
            .recycle_timeout(Some(CONNECT_TIMEOUT))
            .runtime(Runtime::Tokio1)
            .build()
            .map_err(|error| wrong(error.to_string()))?;
        Ok(Self { pool, place })
    }

    /// A connection, which goes back to the others when it is dropped.
    pub(super) async fn get(&self) -> Result<Client, StoreError> {
        self.pool
            .get()
            .await
            .map_err(|error| error::of_pool(&error, &self.place))
    }

    /// A connection that is closed when it is dropped.
    pub(super) async fn take(&self) -> Result<ClientWrapper, StoreError> {
        Ok(Object::take(self.get().await?))
    }

    /// Lets no new work begin; connections close when theirs is done.
    pub(super) fn close(&self) {
        self.pool.close();
    }

    /// No answer came within `limit`.
    pub(super) fn silent(&self, limit: Duration) -> StoreError {
        StoreError::Unavailable(format!(
            "PostgreSQL at {} did not answer within {} s",
            self.place,
            limit.as_secs()
        ))
    }
}

/// What the URL leaves open.
pub(super) fn settle(config: &mut Config) {
    if config.get_connect_timeout().is_none() {
        config.connect_timeout(CONNECT_TIMEOUT);
    }
    if config.get_application_name().is_none() {
        config.application_name("tidings");
    }
    if config.get_tcp_user_timeout().is_none() {
        config.tcp_user_timeout(WORK_TIMEOUT);
    }
    // A host that vanished without a word is noticed within a minute.
    config.keepalives_idle(WORK_TIMEOUT);
}

/// Host and port of the first host.
pub(super) fn place(config: &Config) -> Option<String> {
    let port = config.get_ports().first().unwrap_or(&5432);
    match config.get_hosts().first() {
        Some(Host::Tcp(host)) => Some(format!("{host}:{port}")),
        #[cfg(unix)]
        Some(Host::Unix(path)) => Some(format!("{}:{port}", path.display())),
        None => {
            let address = config.get_hostaddrs().first()?;
            Some(format!("{address}:{port}"))
        }
    }
}

/// The tries of one piece of work.
pub(super) struct Turn {
    limit: Duration,
    tries: u32,
    /// A connection was lost on the way: the work may have been committed.
    pub(super) maybe_done: bool,
}

impl Turn {
    pub(super) fn new(limit: Duration) -> Self {
        Self {
            limit,
            tries: 0,
            maybe_done: false,
        }
    }

    /// Looks at what came of a try (`None`: no answer in time). `Ok(None)` is: try again.
    pub(super) fn end<T>(
        &mut self,
        client: Client,
        outcome: Option<Result<T, Fault>>,
        connections: &Connections,
    ) -> Result<Option<T>, StoreError> {
        self.tries += 1;
        let fault = match outcome {
            Some(Ok(value)) => return Ok(Some(value)),
            Some(Err(fault)) => fault,
            None => {
                // Whatever it is still doing, nobody else shall wait behind it.
                drop(Object::take(client));
                return Err(connections.silent(self.limit));
            }
        };
        let again = match fault.remedy() {
            Remedy::Again => true,
            Remedy::Reconnect => {
                drop(Object::take(client));
                self.maybe_done = true;
                true
            }
            Remedy::Nothing => false,
        };
        if again && self.tries < TRIES_MAX {
            Ok(None)
        } else {
            Err(fault.into())
        }
    }

    /// Waits a moment that grows with the tries and differs between those who met.
    pub(super) async fn pause(&self) {
        let longest = FIRST_PAUSE_MS << self.tries.min(6);
        let ms = rand::rng().random_range(1..=longest);
        tracing::debug!(tries = self.tries, "store: trying again");
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }
}

/// Does a piece of work on a connection, and does it again where that helps: all work of this
/// store may be done twice. `$again` says that an earlier try may have been committed. A macro,
/// since the work borrows both the connection and the caller's arguments.
macro_rules! work {
    ($store:ident, |$client:ident, $again:pat_param| $work:expr) => {
        work!($store within WORK_TIMEOUT, |$client, $again| $work)
    };
    ($store:ident within $limit:ident, |$client:ident, $again:pat_param| $work:expr) => {{
        let mut turn = $crate::store::postgres::pool::Turn::new($limit);
        loop {
            let mut connection = $store.connections.get().await?;
            let outcome = {
                let ($client, $again) = (&mut connection, turn.maybe_done);
                timeout($limit, $work).await.ok()
            };
            if let Some(value) = turn.end(connection, outcome, &$store.connections)? {
                return Ok(value);
            }
            turn.pause().await;
        }
    }};
}
