//! What operators see and keep: tokens, processes, sums, retention.

use serde::Deserialize;
use serde::Serialize;
use uuid::Uuid;

use crate::failure::Reason;
use crate::time::Timestamp;

/// An API token. Only its hash is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// SHA-256 of the token, in hex.
    pub hash: String,
    /// Who its bearer is: the origin of what they send.
    pub subject: String,
    /// `send`, `operate`.
    pub scopes: Vec<String>,
    /// When it was made.
    pub created: Timestamp,
    /// When it ends.
    pub expires: Option<Timestamp>,
    /// When it was last used, to the minute.
    pub last_used: Option<Timestamp>,
}

/// The public half of a key that a process signs plugin tokens with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PluginKey {
    /// Its id, which the tokens name.
    pub kid: String,
    /// The key as a JSON Web Key.
    pub jwk: serde_json::Value,
    /// No token that it signed holds longer.
    pub ends: Timestamp,
}

/// A running process, as its heartbeat says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Drawn at start.
    pub id: Uuid,
    /// `up`, `ingest`, `decorator`, `sender email`, `inbox`.
    pub role: String,
    /// The machine.
    pub host: String,
    /// The operating system's number.
    pub pid: u32,
    /// `0.1.0+commit`.
    pub version: String,
    /// Where its health and metrics are.
    pub admin: Option<String>,
    /// What is not well; empty when ready.
    pub trouble: Vec<String>,
    /// When it started.
    pub started_at: Timestamp,
    /// When it was last heard of.
    pub seen_at: Timestamp,
}

/// A channel that an operator has paused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    /// The sender's name.
    pub channel: String,
    /// Since when.
    pub since: Timestamp,
    /// Who did it.
    pub by: String,
}

/// What an operator sees at a glance.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Inbox rows and broadcasts.
    pub notifications: u64,
    /// Deliveries by channel.
    pub channels: Vec<ChannelSummary>,
    /// Dead letters not replayed, by reason.
    pub dead: Vec<(Reason, u64)>,
    /// When the oldest of them died.
    pub dead_oldest: Option<Timestamp>,
}

/// One channel at a glance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChannelSummary {
    /// The sender's name.
    pub channel: String,
    /// Deliveries sent.
    pub sent: u64,
    /// Deliveries waiting for their first or next try.
    pub pending: u64,
    /// Deliveries given up.
    pub failed: u64,
    /// The last success.
    pub last_sent: Option<Timestamp>,
    /// The last try that failed.
    pub last_failed: Option<Timestamp>,
    /// What it said.
    pub last_failure: Option<String>,
}

/// What to delete: everything older than these moments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Submissions with their chunks and final deliveries, accepted before.
    pub submissions: Timestamp,
    /// Dead letters that died before.
    pub dead_letters: Timestamp,
    /// Processes last heard of before.
    pub processes: Timestamp,
}
