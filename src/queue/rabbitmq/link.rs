//! A connection that is made again whenever it is lost, for as long as it is wanted.
//!
//! There are two in a process, since an alarm of the broker blocks those that publish: one
//! publishes, the other consumes. The client's own recovery is not used: it gives up after a
//! while, and it replays acknowledgements and confirms of a connection that is gone.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use lapin::Channel;
use lapin::Connection;
use lapin::ConnectionProperties;
use lapin::Event;
use lapin::tcp::OwnedTLSConfig;
use lapin::uri::AMQPUri;
use rand::Rng;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::wire::trouble;
use crate::queue::QueueError;

/// Longest that one question to the broker may take; the same for making a connection.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// First wait before a lost connection is made again; doubles up to [`BACKOFF_MAX`].
const BACKOFF_MIN: Duration = Duration::from_millis(100);
/// Longest wait between two tries.
const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// A dead peer is noticed within about two of these, in seconds; the URL may say otherwise.
const HEARTBEAT: u16 = 10;
/// How often a connection is looked at, should no event tell of its end.
const LOOK: Duration = Duration::from_secs(1);

/// A connection that stands, or stood a moment ago.
#[derive(Clone)]
pub(super) struct Live {
    /// Which one, counted from 1.
    pub(super) generation: u64,
    connection: Arc<Connection>,
}

impl Live {
    /// A new channel on it.
    pub(super) async fn channel(&self) -> Result<Channel, QueueError> {
        within(self.connection.create_channel()).await
    }
}

/// Waits for an answer of the broker, but not for ever.
pub(super) async fn within<T>(
    answer: impl Future<Output = lapin::Result<T>>,
) -> Result<T, QueueError> {
    match timeout(PATIENCE, answer).await {
        Ok(answer) => answer.map_err(|error| trouble(&error)),
        Err(_) => Err(silent()),
    }
}

fn silent() -> QueueError {
    let seconds = PATIENCE.as_secs();
    QueueError::Unavailable(format!("the broker did not answer within {seconds} s"))
}

/// How it stands with a connection.
#[derive(Clone)]
pub(super) enum State {
    /// There is none, and why.
    Down(QueueError),
    /// It works.
    Up(Live),
    /// The broker takes nothing from it for now, and why.
    Blocked(Live, String),
}

impl State {
    /// Whether all is well; says what is not.
    pub(super) fn well(&self) -> Result<(), QueueError> {
        match self {
            Self::Up(_) => Ok(()),
            Self::Down(why) => Err(why.clone()),
            Self::Blocked(_, why) => Err(QueueError::Unavailable(format!(
                "the broker blocks publishers: {why}"
            ))),
        }
    }

    fn live(&self) -> Option<&Live> {
        match self {
            Self::Up(live) | Self::Blocked(live, _) => Some(live),
            Self::Down(_) => None,
        }
    }
}

/// Where a connection leads.
#[derive(Clone)]
pub(super) struct Target {
    uri: AMQPUri,
    name: String,
}

impl Target {
    /// Of a URL like `amqp://user:password@host:5672/vhost`; `name` is shown by the broker.
    ///
    /// # Errors
    /// Says what is wrong with the URL, without repeating it: it holds a password.
    pub(super) fn new(url: &str, name: String) -> Result<Self, String> {
        let mut uri: AMQPUri = url.parse().map_err(|_| {
            "not a URL like amqp://user:password@host:5672/vhost (amqps:// for TLS; / in a \
             vhost is written %2f)"
                .to_owned()
        })?;
        uri.query.heartbeat.get_or_insert(HEARTBEAT);
        Ok(Self { uri, name })
    }

    fn place(&self) -> String {
        format!("{}:{}", self.uri.authority.host, self.uri.authority.port)
    }

    pub(super) async fn connect(&self) -> Result<Connection, QueueError> {
        let properties =
            ConnectionProperties::default().with_connection_name(self.name.as_str().into());
        let runtime = lapin::runtime::default_runtime().map_err(|error| trouble(&error))?;
        let made = Connection::connect_uri_with_config(
            self.uri.clone(),
            properties,
            OwnedTLSConfig::default(),
            runtime,
        );
        let error = match timeout(PATIENCE, made).await {
            Ok(Ok(connection)) => return Ok(connection),
            Ok(Err(error)) => trouble(&error),
            Err(_) => silent(),
        };
        let place = self.place();
        Err(match error {
            QueueError::Unavailable(why) => QueueError::Unavailable(format!("{place}: {why}")),
            QueueError::Topology(why) => QueueError::Topology(format!(
                "the broker at {place} refuses user `{}` in vhost `{}`: {why}",
                self.uri.authority.userinfo.username, self.uri.vhost
            )),
            full @ QueueError::Full { .. } => full,
        })
    }
}

/// A supervised connection, as its users see it.
#[derive(Clone)]
pub(super) struct Link(watch::Receiver<State>);

impl Link {
    /// Starts to connect. `prepare` is done with each new connection before anybody gets it.
    /// Ends when `stop` is cancelled.
    pub(super) fn start<P, F>(target: Target, stop: CancellationToken, prepare: P) -> Self
    where
        P: Fn(Live) -> F + Send + Sync + 'static,
        F: Future<Output = Result<(), QueueError>> + Send + 'static,
    {
        let down = QueueError::Unavailable("not connected yet".to_owned());
        let (state, link) = watch::channel(State::Down(down));
        tokio::spawn(supervise(target, stop, prepare, state));
        Self(link)
    }

    /// One that never comes up.
    pub(super) fn broken(why: QueueError) -> Self {
        Self(watch::channel(State::Down(why)).1)
    }

    /// How it stands now.
    pub(super) fn state(&self) -> State {
        self.0.borrow().clone()
    }

    /// The connection, as soon as there is one; `None` when there will be no more.
    pub(super) async fn live(&mut self) -> Option<Live> {
        let state = self.0.wait_for(|state| state.live().is_some()).await;
        state.ok().and_then(|state| state.live().cloned())
    }

    /// The connection, as soon as there is one that takes messages; `None` when there will be
    /// no more.
    pub(super) async fn open(&mut self) -> Option<Live> {
        let open = |state: &State| matches!(state, State::Up(_));
        let state = self.0.wait_for(open).await;
        state.ok().and_then(|state| state.live().cloned())
    }

    /// The connection, or why there is none after a while.
    pub(super) async fn live_soon(&mut self) -> Result<Live, QueueError> {
        match timeout(PATIENCE, self.live()).await {
            Ok(Some(live)) => Ok(live),
            _ => Err(match self.state() {
                State::Down(why) => why,
                _ => silent(),
            }),
        }
    }

    /// Returns when there will be no more connections.
    pub(super) async fn closed(mut self) {
        while self.0.changed().await.is_ok() {}
    }

    /// Returns when the connection of `generation` is gone.
    pub(super) async fn lost(&mut self, generation: u64) {
        let gone = |state: &State| {
            state
                .live()
                .is_none_or(|live| live.generation != generation)
        };
        // An error means that nobody supervises any more: gone as well.
        let _ = self.0.wait_for(gone).await;
    }
}

async fn supervise<P, F>(
    target: Target,
    stop: CancellationToken,
    prepare: P,
    state: watch::Sender<State>,
) where
    P: Fn(Live) -> F + Send + Sync + 'static,
    F: Future<Output = Result<(), QueueError>> + Send + 'static,
{
    let mut generation = 0;
    let mut backoff = BACKOFF_MIN;
    while !stop.is_cancelled() {
        generation += 1;
        let made = stop.run_until_cancelled(make(&target, generation, &prepare));
        let why = match made.await {
            None => break,
            Some(Ok(live)) => {
                backoff = BACKOFF_MIN;
                tracing::info!(
                    connection = target.name,
                    broker = target.place(),
                    "connected"
                );
                hold(live, &state, &stop).await
            }
            Some(Err(why)) => why,
        };
        if !stop.is_cancelled() {
            tracing::warn!(connection = target.name, broker = target.place(), error = %why,
                again_in_ms = backoff.as_millis(), "no connection");
        }
        state.send_replace(State::Down(why));
        // Spread out, so that a broker that comes back is not met by everybody at once.
        let wait = backoff.mul_f64(rand::rng().random_range(0.75..1.0));
        let _ = stop.run_until_cancelled(tokio::time::sleep(wait)).await;
        backoff = (backoff * 2).min(BACKOFF_MAX);
    }
}

async fn make<P, F>(target: &Target, generation: u64, prepare: &P) -> Result<Live, QueueError>
where
    P: Fn(Live) -> F,
    F: Future<Output = Result<(), QueueError>>,
{
    let connection = Arc::new(target.connect().await?);
    let live = Live {
        generation,
        connection,
    };
    prepare(live.clone()).await?;
    Ok(live)
}

/// Watches a connection until it is lost, and says why it was.
async fn hold(live: Live, state: &watch::Sender<State>, stop: &CancellationToken) -> QueueError {
    let mut events = std::pin::pin!(live.connection.events_listener());
    let mut look = tokio::time::interval(LOOK);
    let mut why = QueueError::Unavailable("the connection was lost".to_owned());
    state.send_replace(State::Up(live.clone()));
    loop {
        let event = tokio::select! {
            () = stop.cancelled() => {
                let bye = live.connection.close(200, "stopping".into());
                // The broker need not answer: we are going anyway.
                let _ = timeout(LOOK, bye).await;
                return QueueError::Unavailable("stopped".to_owned());
            }
            event = events.next() => event,
            _ = look.tick() => None,
        };
        match event {
            Some(Event::ConnectionBlocked(reason)) => {
                tracing::warn!(reason, "the broker blocks publishers");
                state.send_replace(State::Blocked(live.clone(), reason));
            }
            Some(Event::ConnectionUnblocked) => {
                tracing::info!("the broker takes messages again");
                state.send_replace(State::Up(live.clone()));
            }
            // Errors of a channel are told here too; those are for the channel's user.
            Some(Event::Error(error)) if !live.connection.status().connected() => {
                why = trouble(&error);
            }
            _ => {}
        }
        if !live.connection.status().connected() {
            return why;
        }
    }
}
