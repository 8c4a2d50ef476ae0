//! Numbers, ids and moments as people read them, and text that cannot harm a terminal.

use serde_json::Value;
use tidings::time::Timestamp;

/// The last eight digits of an id: what `trace` takes.
pub(crate) fn short(id: &str) -> &str {
    id.len()
        .checked_sub(8)
        .and_then(|at| id.get(at..))
        .unwrap_or(id)
}

/// A number with its noun.
pub(crate) fn count(number: u64, one: &str, many: &str) -> String {
    format!(
        "{} {}",
        grouped(number),
        if number == 1 { one } else { many }
    )
}

/// A number with thousands set apart.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A distance in time.
pub(crate) fn span(ms: u128) -> String {
    match ms {
        0..10_000 => format!("{ms} ms"),
        10_000..600_000 => format!("{:.1} s", ms as f64 / 1_000.0),
        _ => format!("{} min", ms / 60_000),
    }
}

fn zoned(at: Timestamp) -> Option<jiff::ZonedDateTime> {
    let at = jiff::Timestamp::from_millisecond(at.as_millis()).ok()?;
    Some(at.to_zoned_datetime(jiff::tz::TimeZone::system()))
}

/// A moment in full, in the reader's time zone.
pub(crate) fn moment(at: Timestamp) -> String {
    zoned(at).map_or_else(
        || at.to_string(),
        |at| at.strftime("%a %Y-%m-%d %H:%M:%S%.3f %:z").to_string(),
    )
}

/// A time of day; with the day where it is not today.
pub(crate) fn clock(at: Timestamp) -> String {
    let Some(at) = zoned(at) else {
        return at.to_string();
    };
    let today = at.date() == jiff::ZonedDateTime::now().date();
    at.strftime(if today { "%H:%M:%S" } else { "%a %H:%M" })
        .to_string()
}

/// How long ago, roughly.
pub(crate) fn ago(at: Timestamp, now: Timestamp) -> String {
    match now.since(at).as_secs() {
        0..60 => format!("{} s", now.since(at).as_secs()),
        seconds @ 60..3_600 => format!("{} min", seconds / 60),
        seconds @ 3_600..172_800 => format!("{} h", seconds / 3_600),
        seconds => format!("{} days", seconds / 86_400),
    }
}

/// An answer with everything taken out of its texts that a terminal would obey: content comes from
/// producers, and an operator only wants to read it.
pub(crate) fn cleaned(mut answer: Value) -> Value {
    fn clean(value: &mut Value) {
        match value {
            Value::String(text) if text.contains(char::is_control) => {
                *text = text.replace(char::is_control, " ");
            }
            Value::Array(items) => items.iter_mut().for_each(clean),
            Value::Object(fields) => fields.values_mut().for_each(clean),
            _ => {}
        }
    }
    clean(&mut answer);
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_distances_are_easy_to_read() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(1_234_567), "1,234,567");
        assert_eq!(count(1, "person", "people"), "1 person");
        assert_eq!(count(2_000, "person", "people"), "2,000 people");
        assert_eq!(short("01a20edd-cab8-7c52-9a41-0a8f6f3f2d10"), "6f3f2d10");
        assert_eq!(
            (span(42), span(12_340), span(900_000)),
            ("42 ms".into(), "12.3 s".into(), "15 min".into())
        );
        let ago = |seconds: i64| {
            ago(
                Timestamp::from_millis(0),
                Timestamp::from_millis(seconds * 1000),
            )
        };
        assert_eq!(
            [ago(59), ago(61), ago(7_200), ago(172_800)],
            ["59 s", "1 min", "2 h", "2 days"]
        );
    }

    #[test]
    fn a_title_cannot_command_the_terminal() {
        let answer =
            serde_json::json!({"a": ["\u{1b}]0;pwned\u{7}", "\u{9b}2J", "naïve ✓"], "n": 1});
        let expected = serde_json::json!({"a": [" ]0;pwned ", " 2J", "naïve ✓"], "n": 1});
        assert_eq!(cleaned(answer), expected);
    }
}
