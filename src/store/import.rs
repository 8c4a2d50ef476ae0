//! What is taken over from another system: rows as they stand there, with their ids and marks.

use serde::Deserialize;
use serde::Serialize;
use uuid::Uuid;

use crate::notification::Notification;
use crate::settings::Setting;
use crate::time::Timestamp;

/// Rows of one kind, in the order of their keys.
#[derive(Clone, Debug, PartialEq)]
pub enum ImportRows {
    /// To everybody.
    Broadcasts(Vec<Notification>),
    /// What people did with those.
    Marks(Vec<ImportMark>),
    /// Of people, with their marks.
    Notifications(Vec<Notification>),
    /// What people switched on and off.
    Settings(Vec<Setting>),
}

impl ImportRows {
    /// How many they are.
    pub fn len(&self) -> usize {
        match self {
            Self::Broadcasts(rows) | Self::Notifications(rows) => rows.len(),
            Self::Marks(rows) => rows.len(),
            Self::Settings(rows) => rows.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What a person did with a broadcast.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImportMark {
    /// Whose.
    pub user: String,
    /// With which broadcast.
    pub broadcast: Uuid,
    /// When it was read.
    pub read: Option<Timestamp>,
    /// When it was saved.
    pub saved: Option<Timestamp>,
}

/// The kinds of rows, in the order in which they are taken over: a mark needs its broadcast.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ImportPart {
    /// [`ImportRows::Broadcasts`].
    Broadcasts,
    /// [`ImportRows::Marks`].
    Marks,
    /// [`ImportRows::Notifications`].
    Notifications,
    /// [`ImportRows::Settings`].
    Settings,
}

impl ImportPart {
    /// All of them, in order.
    pub const ALL: [Self; 4] = [
        Self::Broadcasts,
        Self::Marks,
        Self::Notifications,
        Self::Settings,
    ];

    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Broadcasts => "broadcasts",
            Self::Marks => "marks",
            Self::Notifications => "notifications",
            Self::Settings => "settings",
        }
    }

    /// The part of that name.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|part| part.as_str() == word)
    }
}

/// How far an import has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImportStand {
    /// What is being taken over; the parts before it are done.
    pub part: ImportPart,
    /// The key of its last row that was; empty at its beginning.
    pub after: Vec<String>,
    /// How many of its rows were.
    pub rows: u64,
}
