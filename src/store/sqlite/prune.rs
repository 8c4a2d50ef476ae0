//! Deleting what is too old. What is still open is not: a chunk stays as long as one of its
//! deliveries may have to be made again from it.

use rusqlite::Connection;
use rusqlite::params;

use crate::store::Retention;

/// What is deleted, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    Deliveries,
    Chunks,
    DeadLetters,
    Processes,
}

impl What {
    pub(super) const ALL: [Self; 4] = [
        Self::Deliveries,
        Self::Chunks,
        Self::DeadLetters,
        Self::Processes,
    ];

    fn sql(self) -> &'static str {
        match self {
            Self::Deliveries => {
                "delete from delivery where id in (
                   select d.id from submission_chunk c
                   join delivery d on d.submission = c.submission and d.chunk = c.no
                   where c.accepted_at < ?1 and d.state not in ('pending', 'claimed') limit ?2)"
            }
            // All chunks of a submission or none: the rest would look unfinished.
            Self::Chunks => {
                "delete from submission_chunk where (submission, no) in (
                   select c.submission, c.no from submission_chunk c
                   where c.accepted_at < ?1 and not exists (
                     select 1 from delivery d where d.submission = c.submission)
                   limit ?2)"
            }
            Self::DeadLetters => {
                "delete from dead_letter where id in (
                   select id from dead_letter where died_at < ?1 limit ?2)"
            }
            Self::Processes => {
                "delete from process where id in (
                   select id from process where seen_at < ?1 limit ?2)"
            }
        }
    }
}

/// Deletes up to `batch` rows; says how many there were.
pub(super) fn prune(
    to: &Connection,
    what: What,
    retention: &Retention,
    batch: u32,
) -> rusqlite::Result<u64> {
    let before = match what {
        What::Deliveries | What::Chunks => retention.submissions,
        What::DeadLetters => retention.dead_letters,
        What::Processes => retention.processes,
    };
    // A batch of nothing would never end.
    let gone = to
        .prepare_cached(what.sql())?
        .execute(params![before, batch.max(1)])?;
    Ok(gone as u64)
}
