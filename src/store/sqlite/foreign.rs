//! Deliveries in the hands of foreign senders, who claim nothing and report what they did.

use rusqlite::Connection;
use rusqlite::OptionalExtension;
use rusqlite::params;

use super::stranded;
use super::types::Json;
use crate::delivery::Attempt;
use crate::delivery::DeliveryState;
use crate::failure::Reason;
use crate::store::NOBODY_REPORTED;
use crate::store::Reported;
use crate::time::Timestamp;

/// See [`crate::store::Store::report`].
pub(super) fn report(
    to: &Connection,
    channels: &[String],
    attempts: &[Attempt],
) -> rusqlite::Result<Vec<Reported>> {
    let now = Timestamp::now();
    let channels = Json(channels);
    let mut update = to.prepare_cached(
        "update delivery set
           state = ?3, reason = ?4, detail = ?5, provider_id = ifnull(?6, provider_id),
           due_at = ifnull(?7, ?8), sweep_at = ifnull(?7, ?8), claim_token = null,
           attempts = attempts + ?9, updated_at = ?8,
           failed_at = iif(?3 in ('pending', 'failed'), ?8, failed_at),
           failure = iif(?3 in ('pending', 'failed'), ?5, failure)
         where id = ?1 and channel in (select value from json_each(?2))
           and state in ('pending', 'claimed', 'unknown')",
    )?;
    let mut look = to.prepare_cached(
        "select attempts, channel from delivery
         where id = ?1 and channel in (select value from json_each(?2)) and state = ?3",
    )?;
    let mut reported = Vec::with_capacity(attempts.len());
    for attempt in attempts {
        update.execute(params![
            attempt.delivery,
            channels,
            attempt.state,
            attempt.reason,
            attempt.detail,
            attempt.provider_id,
            attempt.next_at,
            now,
            u32::from(!attempt.uncounted),
        ])?;
        let stands = look
            .query_row(params![attempt.delivery, channels, attempt.state], |row| {
                Ok((row.get::<_, u32>(0)?, row.get::<_, String>(1)?))
            })
            .optional()?;
        let Some((tries, channel)) = stands else {
            continue;
        };
        if let Some(batch) = stranded::alone(to, &channel, attempt.delivery)? {
            reported.push(Reported {
                delivery: attempt.delivery,
                tries,
                batch,
            });
        }
    }
    Ok(reported)
}

/// See [`crate::store::Store::overdue`].
pub(super) fn overdue(
    to: &Connection,
    channel: &str,
    due_before: Timestamp,
    limit: u32,
) -> rusqlite::Result<u64> {
    let given_up = to
        .prepare_cached(
            "update delivery set state = ?4, reason = ?5, detail = ?6, updated_at = ?7
             where id in (
               select id from delivery
               where channel = ?1 and state in ('pending', 'claimed') and sweep_at < ?2
                 and due_at < ?2
               order by sweep_at, id limit ?3)",
        )?
        .execute(params![
            channel,
            due_before,
            limit,
            DeliveryState::Unknown,
            Reason::Timeout,
            NOBODY_REPORTED,
            Timestamp::now(),
        ])?;
    Ok(given_up as u64)
}
