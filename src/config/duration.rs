//! Spans of time and sizes as people write them.
//!
//! Durations are Backstage's: `10s`, `1m`, `30d`; ISO 8601 as `PT1M`; or `{ minutes: 1 }`. Use with
//! `#[serde(with = "tidings::config::duration")]`. Years count 365 days, months 30.

use std::fmt;
use std::time::Duration;

use serde::Deserialize;
use serde::Deserializer;
use serde::de;
use serde::de::Visitor;

const HELP: &str = "write it as 10s, 5m, 2h or 30d, as PT1M, or as { minutes: 5 }";

/// Reads a duration.
///
/// # Errors
/// That it is none.
pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    Setting::deserialize(from).map(|setting| setting.0)
}

/// A duration for fields that hold several, or an optional one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setting(pub Duration);

impl<'de> Deserialize<'de> for Setting {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(DurationVisitor).map(Self)
    }
}

struct DurationVisitor;

impl<'de> Visitor<'de> for DurationVisitor {
    type Value = Duration;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a duration, as in 10s, 5m, 2h, 30d, PT1M or { minutes: 5 }")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Duration, E> {
        parse(text).ok_or_else(|| E::custom(format!("is not a duration\n{HELP}")))
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Duration, E> {
        match number {
            0 => Ok(Duration::ZERO),
            _ => Err(E::custom(format!("needs a unit\n{HELP}"))),
        }
    }

    fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Duration, A::Error> {
        let parts = Parts::deserialize(de::value::MapAccessDeserializer::new(map))?;
        let days = parts.years * 365.0 + parts.months * 30.0 + parts.weeks * 7.0 + parts.days;
        let hours = days * 24.0 + parts.hours;
        let seconds = (hours * 60.0 + parts.minutes) * 60.0 + parts.seconds;
        Duration::try_from_secs_f64(seconds + parts.milliseconds / 1000.0)
            .map_err(|_| de::Error::custom("must not be negative or so long"))
    }
}

/// Backstage's duration object.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
#[derive(Default)]
struct Parts {
    years: f64,
    months: f64,
    weeks: f64,
    days: f64,
    hours: f64,
    minutes: f64,
    seconds: f64,
    milliseconds: f64,
}

/// Reads `10s`, `1.5h`, `2 days` or `PT1M`; `None` where it is none, and where it is negative.
pub fn parse(text: &str) -> Option<Duration> {
    let text = text.trim();
    if text.starts_with(['P', 'p']) {
        return iso(text);
    }
    let split = text.find(|one: char| !one.is_ascii_digit() && one != '.')?;
    let (number, unit) = text.split_at(split);
    let number: f64 = number.parse().ok()?;
    let seconds = match unit.trim().to_ascii_lowercase().as_str() {
        "ms" | "msec" | "msecs" | "millisecond" | "milliseconds" => 0.001,
        "s" | "sec" | "secs" | "second" | "seconds" => 1.0,
        "m" | "min" | "mins" | "minute" | "minutes" => 60.0,
        "h" | "hr" | "hrs" | "hour" | "hours" => 3_600.0,
        "d" | "day" | "days" => 86_400.0,
        "w" | "week" | "weeks" => 7.0 * 86_400.0,
        "y" | "yr" | "yrs" | "year" | "years" => 365.0 * 86_400.0,
        _ => return None,
    };
    Duration::try_from_secs_f64(number * seconds).ok()
}

fn iso(text: &str) -> Option<Duration> {
    let span: jiff::Span = text.parse().ok()?;
    let days = i64::from(span.get_years()) * 365
        + i64::from(span.get_months()) * 30
        + i64::from(span.get_weeks()) * 7
        + i64::from(span.get_days());
    let time = span.years(0).months(0).weeks(0).days(0);
    let time = time
        .to_duration(jiff::SpanRelativeTo::days_are_24_hours())
        .ok()?;
    let days = jiff::SignedDuration::from_hours(days.checked_mul(24)?);
    days.checked_add(time)?.try_into().ok()
}

/// How often something may happen, as the time between two: `50/s`, `600/m`, `10/h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate(pub Duration);

impl<'de> Deserialize<'de> for Rate {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_str(RateVisitor).map(Self)
    }
}

struct RateVisitor;

impl Visitor<'_> for RateVisitor {
    type Value = Duration;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a rate, as in 50/s, 600/m or 10/h")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Duration, E> {
        rate(text).ok_or_else(|| {
            E::custom("is not a rate of 1/h to 100000/s\nwrite it as 50/s, 600/m or 10/h")
        })
    }
}

fn rate(text: &str) -> Option<Duration> {
    let (count, unit) = text.split_once('/')?;
    let count: u32 = count.trim().parse().ok()?;
    let seconds = match unit.trim() {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        _ => return None,
    };
    let gap = Duration::from_secs(seconds).checked_div(count)?;
    (Duration::from_micros(10) <= gap).then_some(gap)
}

/// A number of bytes: a number, or `64KiB`, `1MiB`, `10MB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bytes(pub usize);

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(BytesVisitor).map(Self)
    }
}

struct BytesVisitor;

impl Visitor<'_> for BytesVisitor {
    type Value = usize;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a size, as in 64KiB, 1MiB or a number of bytes")
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<usize, E> {
        usize::try_from(number).map_err(|_| E::custom("is larger than this machine"))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<usize, E> {
        bytes(text)
            .ok_or_else(|| E::custom("is not a size\nwrite it as 64KiB, 1MiB or a number of bytes"))
    }
}

fn bytes(text: &str) -> Option<usize> {
    let text = text.trim();
    let split = text
        .find(|one: char| !one.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let unit: usize = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        _ => return None,
    };
    number.parse::<usize>().ok()?.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(text: &str) -> Option<f64> {
        parse(text).map(|duration| duration.as_secs_f64())
    }

    #[test]
    fn a_rate_is_the_time_between_two() {
        let gap = |text: &str| rate(text).map(|gap| gap.as_micros());
        assert_eq!(gap("50/s"), Some(20_000));
        assert_eq!(gap("600/m"), Some(100_000));
        assert_eq!(gap("10 / h"), Some(360_000_000));
        for text in ["50", "0/s", "-1/s", "1/d", "1000000/s", "/s"] {
            assert_eq!(gap(text), None, "{text}");
        }
    }

    #[test]
    fn durations_are_read_in_every_form_of_backstage() {
        assert_eq!(seconds("10s"), Some(10.0));
        assert_eq!(seconds("1.5h"), Some(5_400.0));
        assert_eq!(seconds("250ms"), Some(0.25));
        assert_eq!(seconds("30d"), Some(2_592_000.0));
        assert_eq!(seconds("2 days"), Some(172_800.0));
        assert_eq!(seconds("PT1M"), Some(60.0));
        assert_eq!(seconds("P1DT2H"), Some(93_600.0));
        assert_eq!(seconds("P1Y"), Some(31_536_000.0));
        for none in ["", "10", "s", "-1s", "1 fortnight", "P", "-PT1M"] {
            assert_eq!(seconds(none), None, "{none}");
        }
        let object: Setting = serde_json::from_str(r#"{"hours":1,"minutes":30}"#).unwrap();
        assert_eq!(object.0, Duration::from_secs(5_400));
        assert!(serde_json::from_str::<Setting>("5").is_err());
    }

    #[test]
    fn sizes_are_read_with_and_without_units() {
        assert_eq!(bytes("1MiB"), Some(1_048_576));
        assert_eq!(bytes("64 KiB"), Some(65_536));
        assert_eq!(bytes("10MB"), Some(10_000_000));
        assert_eq!(bytes("512"), Some(512));
        assert_eq!(bytes("1.5MiB"), None);
        assert_eq!(bytes("lots"), None);
    }
}
