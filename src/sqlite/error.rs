//! Why the file did not do what it was asked, and what to do about it.
//!
//! No error that leaves here carries content: SQLite names columns and constraints, never values.

use std::path::Path;
use std::path::PathBuf;

use rusqlite::ErrorCode;

/// Why the file did not do what it was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SqliteError {
    /// Another process holds the directory.
    #[error("the data directory {} is in use by another Tidings{}", dir.display(), process(*holder))]
    InUse {
        /// Which directory.
        dir: PathBuf,
        /// The process's number, where it could be read.
        holder: Option<u32>,
    },
    /// The disk is full, cannot be written, or is busy. Try again.
    #[error("{0}")]
    Unavailable(String),
    /// A row breaks a rule of the tables.
    #[error("{0}")]
    Refused(String),
    /// The file is damaged, or not of this version. An operator must act.
    #[error("{0}")]
    Unusable(String),
    /// A newer Tidings wrote the file.
    #[error("{} is of a newer Tidings: it needs schema {needed}, and this one knows {known}", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// What it needs.
        needed: u32,
        /// What this version knows.
        known: u32,
    },
}

fn process(holder: Option<u32>) -> String {
    holder.map_or_else(String::new, |number| format!(" (process {number})"))
}

impl SqliteError {
    /// What to do about it.
    pub fn help(&self) -> &'static str {
        match self {
            Self::InUse { .. } => {
                "stop the other one, or choose another directory with `tidings.data`"
            }
            Self::Unavailable(_) => "look at the disk's free space and the directory's permissions",
            Self::Refused(_) => "this is a fault of Tidings: please report it",
            Self::Unusable(_) => {
                "put a backup in its place, or move the directory away to begin anew"
            }
            Self::Newer { .. } => "start that version, or put a backup of this one in its place",
        }
    }

    /// The same, with the file's name, for the start.
    pub(super) fn opening(path: &Path, error: &Self) -> Self {
        let at = path.display();
        match error {
            Self::InUse { .. } | Self::Newer { .. } => error.clone(),
            Self::Unavailable(why) => Self::Unavailable(format!("{at} cannot be opened: {why}")),
            Self::Refused(why) | Self::Unusable(why) => {
                Self::Unusable(format!("{at} cannot be used: {why}"))
            }
        }
    }
}

impl From<rusqlite::Error> for SqliteError {
    fn from(error: rusqlite::Error) -> Self {
        let (failure, message) = match &error {
            rusqlite::Error::SqliteFailure(failure, message) => (failure, message.as_deref()),
            rusqlite::Error::SqlInputError { error, msg, .. } => (error, Some(msg.as_str())),
            rusqlite::Error::FromSqlConversionFailure(column, ..)
            | rusqlite::Error::IntegralValueOutOfRange(column, _)
            | rusqlite::Error::InvalidColumnType(column, ..) => {
                let why = format!("column {column} of a row holds what this version cannot read");
                return Self::Refused(why);
            }
            rusqlite::Error::ToSqlConversionFailure(_) => {
                return Self::Refused("a value cannot be written".to_owned());
            }
            other => return Self::Refused(other.to_string()),
        };
        let text = message.map_or_else(|| failure.to_string(), str::to_owned);
        match failure.code {
            ErrorCode::DiskFull => Self::Unavailable("the disk is full".to_owned()),
            ErrorCode::SystemIoFailure
            | ErrorCode::CannotOpen
            | ErrorCode::ReadOnly
            | ErrorCode::PermissionDenied
            | ErrorCode::DatabaseBusy
            | ErrorCode::DatabaseLocked
            | ErrorCode::FileLockingProtocolFailed
            | ErrorCode::OutOfMemory
            | ErrorCode::OperationInterrupted => Self::Unavailable(text),
            ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => {
                Self::Unusable(format!("the file is damaged ({text})"))
            }
            _ => Self::Refused(text),
        }
    }
}
