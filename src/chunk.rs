//! A chunk: up to 500 people of one submission, with its content once.
//!
//! Chunks are cut from the sorted audience, so that a repeated expansion cuts the same ones.

use serde::Deserialize;
use serde::Serialize;
use serde_json::Map;
use serde_json::Value;

use crate::notification::Payload;
use crate::submission::Header;
use crate::time::Timestamp;

/// Most people in one chunk.
pub const CHUNK_PEOPLE_MAX: usize = 500;

/// One part of a submission's audience, on its way through the decorators to the store.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Chunk {
    /// The submission's identity.
    #[serde(flatten)]
    pub header: Header,
    /// The content that everybody in it gets, unless a person's patch says otherwise.
    pub payload: Payload,
    /// Which chunk of the submission, from 0.
    pub no: u32,
    /// How many chunks the submission has.
    pub of: u32,
    /// For everybody: one row, no people.
    #[serde(default)]
    pub broadcast: bool,
    /// The people, sorted by ref. Whom a decorator drops is taken out.
    #[serde(default)]
    pub people: Vec<Person>,
    /// What became of each ref of the submission; in chunk 0 alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refs: Vec<RefReport>,
    /// How many people decorators dropped so far; of a broadcast, 1 is all of it.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub dropped: u32,
    /// Steps still to take: routing keys, the first of which is where it is going or lies. A step
    /// of a foreign decorator is always followed by `chunks`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub slip: Vec<String>,
    /// What a foreign decorator may not change, signed by us; opaque to it, carried along.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seal: Option<String>,
    /// What decorators did or failed to do, for the timeline.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<Note>,
    /// When the decorator took the submission up.
    pub started_at: Timestamp,
    /// Fields this version does not know.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

#[allow(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde asks for a reference"
)]
fn is_zero(count: &u32) -> bool {
    *count == 0
}

impl Chunk {
    /// Whether nobody is left to hear of it.
    pub fn is_for_nobody(&self) -> bool {
        self.people.is_empty() && (!self.broadcast || 0 < self.dropped)
    }
}

/// A person in a chunk.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Person {
    /// The user's ref, as the producer or the catalog wrote it.
    pub user: String,
    /// The submission names them itself, and not only a group of theirs.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub named: bool,
    /// What a decorator changed for this person alone; see [`Payload::patched`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub patch: Option<Map<String, Value>>,
}

/// What became of one ref of a submission.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefReport {
    /// The ref as the producer wrote it.
    #[serde(rename = "ref")]
    pub entity: String,
    /// Its fate.
    pub outcome: RefOutcome,
    /// How many people it stands for, before duplicates between refs are folded.
    pub people: u32,
}

/// The fate of a ref.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RefOutcome {
    /// It stands for at least one person.
    Expanded,
    /// The catalog does not have it.
    Unknown,
    /// The catalog has it, and nobody belongs to it.
    Empty,
    /// Everybody it stands for was excluded.
    Excluded,
}

/// One line of the timeline about a decorator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// The decorator's name.
    pub step: String,
    /// What it did, without content: which fields it set, or why it was skipped.
    pub text: String,
}
