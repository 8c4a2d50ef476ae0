//! Connections to the relay that wait for the next mail.
//!
//! A connection is in here only while nothing is under way on it, so that a send that is
//! cancelled takes its connection with it.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;

use lettre::transport::smtp::client::AsyncSmtpConnection;
use tokio::time::Instant;

/// How long a connection may wait for the next mail. Relays give five minutes, as a rule.
const IDLE_LIMIT: Duration = Duration::from_secs(60);

/// The connections on which nothing is under way.
pub(super) struct Idle {
    size: usize,
    state: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    connections: Vec<(Instant, AsyncSmtpConnection)>,
    /// Whether a task closes those that waited too long.
    swept: bool,
}

impl Idle {
    pub(super) fn new(size: usize) -> Self {
        Self {
            size,
            state: Mutex::default(),
        }
    }

    /// The one that waited the shortest; those that waited too long are closed.
    pub(super) fn take(&self) -> Option<AsyncSmtpConnection> {
        let mut state = self.lock();
        state.sweep();
        state.connections.pop().map(|(_, connection)| connection)
    }

    /// Keeps it for the next mail if there is room, and closes it when none comes.
    pub(super) fn put(self: &Arc<Self>, connection: AsyncSmtpConnection) {
        let mut state = self.lock();
        if self.size <= state.connections.len() {
            return;
        }
        state.connections.push((Instant::now(), connection));
        if std::mem::replace(&mut state.swept, true) {
            return;
        }
        drop(state);
        let idle = Arc::downgrade(self);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(IDLE_LIMIT).await;
                let Some(idle) = idle.upgrade() else { return };
                let mut state = idle.lock();
                state.sweep();
                if state.connections.is_empty() {
                    state.swept = false;
                    return;
                }
            }
        });
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    fn sweep(&mut self) {
        self.connections
            .retain(|(since, _)| since.elapsed() < IDLE_LIMIT);
    }
}
