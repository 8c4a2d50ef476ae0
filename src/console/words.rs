//! How the page says when something was, and who somebody is.

use std::time::Duration;

use crate::notification::EntityRef;
use crate::time::Timestamp;

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// When `at` was, seen from `now`; a date once it is a week ago.
pub(super) fn ago(at: Timestamp, now: Timestamp) -> String {
    let seconds = now.since(at).as_secs();
    match seconds {
        0..45 => "just now".to_owned(),
        45..HOUR => format!("{} min ago", (seconds / MINUTE).max(1)),
        HOUR..DAY => format!("{} h ago", seconds / HOUR),
        _ if now.since(at) < Duration::from_secs(2 * DAY) => "yesterday".to_owned(),
        _ if seconds < 7 * DAY => format!("{} days ago", seconds / DAY),
        _ => format_utc(at, "%-d %B %Y"),
    }
}

/// The exact moment, for a tooltip.
pub(super) fn exact(at: Timestamp) -> String {
    format_utc(at, "%a %-d %B %Y, %H:%M UTC")
}

fn format_utc(at: Timestamp, format: &str) -> String {
    match jiff::Timestamp::from_millisecond(at.as_millis()) {
        Ok(moment) => moment.strftime(format).to_string(),
        Err(_) => at.to_string(),
    }
}

/// A short name for a ref: `guest` of `user:default/guest`.
pub(super) fn name(reference: &str) -> String {
    reference
        .parse::<EntityRef>()
        .map_or_else(|_| reference.to_owned(), |one| one.name)
}

/// A count and its noun.
pub(super) fn count(number: u64, one: &str, many: &str) -> String {
    if number == 1 {
        format!("1 {one}")
    } else {
        format!("{number} {many}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_said_as_people_say_it() {
        let now = Timestamp::parse("2026-11-24T12:00:00Z").unwrap();
        let said = |seconds| ago(now.minus(Duration::from_secs(seconds)), now);
        assert_eq!(said(0), "just now");
        assert_eq!(said(50), "1 min ago");
        assert_eq!(said(3 * MINUTE), "3 min ago");
        assert_eq!(said(5 * HOUR), "5 h ago");
        assert_eq!(said(30 * HOUR), "yesterday");
        assert_eq!(said(3 * DAY), "3 days ago");
        assert_eq!(said(10 * DAY), "14 November 2026");
        assert_eq!(exact(now), "Tue 24 November 2026, 12:00 UTC");
        // A clock that is a little ahead is no reason for nonsense.
        assert_eq!(ago(now.plus(Duration::from_secs(5)), now), "just now");
    }

    #[test]
    fn names_are_short() {
        assert_eq!(name("user:development/guest"), "guest");
        assert_eq!(name("somebody"), "somebody");
        assert_eq!(count(1, "person", "people"), "1 person");
    }
}
