//! Query parameters as the peer reads them (contract 1.3): strictly, and with its own words.

use std::collections::BTreeMap;

use http::Uri;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use url::form_urlencoded;

use crate::http::HttpError;
use crate::notification::Severity;
use crate::store::Direction;
use crate::store::OrderField;
use crate::store::Query;
use crate::time::Timestamp;

/// What `/notifications` understands.
const LIST: &[&str] = &[
    "limit",
    "offset",
    "orderField",
    "search",
    "read",
    "saved",
    "createdAfter",
    "minimumSeverity",
    "topic",
];
/// What `/topics` understands.
const TOPICS: &[&str] = &["search", "read", "saved", "createdAfter", "minimumSeverity"];

/// The parameters of a request, by name, each with its values in order.
#[derive(Debug)]
pub(super) struct Params(BTreeMap<String, Vec<String>>);

impl Params {
    /// Reads those that are `known`.
    ///
    /// # Errors
    /// 400 in the peer's words for an unknown one, an empty value, or a repeated one (only
    /// `orderField` may be repeated).
    pub(super) fn read(uri: &Uri, known: &[&str]) -> Result<Self, HttpError> {
        let mut params = BTreeMap::<String, Vec<String>>::new();
        let query = uri.query().unwrap_or("");
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let name = match &*name {
                "orderField[]" => "orderField",
                other => other,
            };
            if !known.contains(&name) {
                return Err(HttpError::unknown_parameter(name));
            }
            if value.is_empty() {
                return Err(HttpError::input(format!(
                    "Empty value found for query parameter '{name}'"
                )));
            }
            if value.contains('\0') {
                return Err(HttpError::input(format!(
                    "query parameter '{name}' must not contain the character U+0000"
                )));
            }
            let values = params.entry(name.to_owned()).or_default();
            values.push(value.into_owned());
            if values.len() > 1 && name != "orderField" {
                return Err(HttpError::input(format!(
                    "query parameter '{name}' must be given once"
                )));
            }
        }
        Ok(Self(params))
    }

    /// The value of `name`.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.first().map(String::as_str)
    }

    /// The value of `name` as whatever `T` is.
    pub(super) fn parse<T>(
        &self,
        name: &str,
        wanted: &str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, HttpError> {
        let Some(text) = self.text(name) else {
            return Ok(None);
        };
        match read(text) {
            Some(value) => Ok(Some(value)),
            None => Err(HttpError::input(format!(
                "query parameter '{name}' must be {wanted}"
            ))),
        }
    }

    /// A whole number, at least 0.
    pub(super) fn number(&self, name: &str) -> Result<Option<u64>, HttpError> {
        self.parse(name, "an integer that is at least 0", |text| {
            let digits = text.bytes().all(|byte| byte.is_ascii_digit());
            // A larger number than there are rows asks for the same as the largest.
            digits.then(|| text.parse().unwrap_or(u64::MAX >> 1))
        })
    }

    /// Exactly `true` or `false`.
    pub(super) fn flag(&self, name: &str) -> Result<Option<bool>, HttpError> {
        self.parse(name, "true or false", |text| text.parse().ok())
    }

    /// A date and time.
    pub(super) fn date(&self, name: &str) -> Result<Option<Timestamp>, HttpError> {
        let Some(text) = self.text(name) else {
            return Ok(None);
        };
        match read_date(text) {
            Some(at) => Ok(Some(at)),
            None => Err(HttpError::input("Unexpected date format")),
        }
    }
}

/// The query of a list.
pub(super) fn list(uri: &Uri) -> Result<Query, HttpError> {
    read(&Params::read(uri, LIST)?)
}

/// The query of a list on somebody else's behalf: with `user`.
pub(super) fn list_of(uri: &Uri) -> Result<(String, Query), HttpError> {
    let params = Params::read(uri, &[LIST, &["user"]].concat())?;
    let user = params
        .text("user")
        .ok_or_else(|| HttpError::input("query parameter 'user' is missing: whose inbox?"))?;
    Ok((user.to_owned(), read(&params)?))
}

/// The query of topics.
pub(super) fn topics(uri: &Uri) -> Result<Query, HttpError> {
    read(&Params::read(uri, TOPICS)?)
}

fn read(params: &Params) -> Result<Query, HttpError> {
    let order = params.0.get("orderField").map_or(&[][..], Vec::as_slice);
    let severity = |text: &str| text.parse::<Severity>().ok();
    Ok(Query {
        limit: params.number("limit")?,
        offset: params.number("offset")?.unwrap_or(0),
        order: order
            .iter()
            .map(|text| read_order(text))
            .collect::<Result<_, _>>()?,
        search: params.text("search").map(str::to_owned),
        read: params.flag("read")?,
        saved: params.flag("saved")?,
        created_after: params.date("createdAfter")?,
        minimum_severity: params.parse(
            "minimumSeverity",
            "one of critical, high, normal, low",
            severity,
        )?,
        topic: params.text("topic").map(str::to_owned),
    })
}

fn read_order(text: &str) -> Result<(OrderField, Direction), HttpError> {
    let (name, direction) = text.split_once(',').unwrap_or((text, "asc"));
    let direction = match direction {
        "asc" => Direction::Ascending,
        "desc" => Direction::Descending,
        _ => {
            return Err(HttpError::input(
                "Invalid order field order, must be asc or desc",
            ));
        }
    };
    match OrderField::from_name(name) {
        Some(field) => Ok((field, direction)),
        None => {
            let all: Vec<_> = OrderField::ALL.iter().map(|(name, _)| *name).collect();
            Err(HttpError::input(format!(
                "Invalid order field '{name}', must be one of {}",
                all.join(", ")
            )))
        }
    }
}

/// A date as JavaScript's `Date.parse` takes it, as far as anybody sends one: ISO 8601 and its
/// parts, RFC 2822, and what `Date` itself prints. Without a zone it is UTC.
pub(super) fn read_date(text: &str) -> Option<Timestamp> {
    const ZONED: [&str; 2] = ["%a %b %d %Y %H:%M:%S GMT%z", "%a, %d %b %Y %H:%M:%S GMT"];
    const CIVIL: [&str; 4] = ["%Y-%m-%d", "%m/%d/%Y", "%B %d, %Y", "%d %B %Y"];
    let text = text.trim();
    if let Some(at) = Timestamp::parse(text) {
        return Some(at);
    }
    let at = |at: jiff::Timestamp| Timestamp::from_millis(at.as_millisecond());
    let utc = |civil: DateTime| TimeZone::UTC.to_timestamp(civil).ok().map(at);
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        let year = text.parse().ok().filter(|_| text.len() == 4)?;
        return utc(jiff::civil::Date::new(year, 1, 1)
            .ok()?
            .to_datetime(jiff::civil::Time::MIN));
    }
    if let Ok(civil) = text.parse::<DateTime>() {
        return utc(civil);
    }
    if let Ok(month) = DateTime::strptime("%Y-%m-%d", format!("{text}-01")) {
        return utc(month);
    }
    if let Ok(zoned) = jiff::fmt::rfc2822::parse(text) {
        return Some(at(zoned.timestamp()));
    }
    // `Date`'s own text ends in the zone's name, which says nothing new.
    let bare = text.split(" (").next().unwrap_or(text);
    if let Some(found) = ZONED
        .iter()
        .find_map(|format| jiff::Timestamp::strptime(format, bare).ok())
    {
        return Some(at(found));
    }
    CIVIL
        .iter()
        .find_map(|format| jiff::civil::Date::strptime(format, text).ok())
        .and_then(|date| utc(date.to_datetime(jiff::civil::Time::MIN)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(query: &str) -> String {
        let uri = format!("/notifications?{query}").parse().unwrap();
        list(&uri).unwrap_err().message().to_owned()
    }

    #[test]
    fn every_parameter_of_the_peer_is_read() {
        let uri = "/notifications?limit=3&offset=2&orderField=severity,asc&orderField%5B%5D=created,desc\
            &orderField=id&search=a+b&read=true&saved=false&createdAfter=2026-11-24T18:42:26.104Z\
            &minimumSeverity=high&topic=t";
        let query = list(&uri.parse().unwrap()).unwrap();
        assert_eq!((query.limit, query.offset), (Some(3), 2));
        assert_eq!(
            query.order,
            [
                (OrderField::Severity, Direction::Ascending),
                (OrderField::Created, Direction::Descending),
                (OrderField::Id, Direction::Ascending),
            ]
        );
        assert_eq!(query.search.as_deref(), Some("a b"));
        assert_eq!((query.read, query.saved), (Some(true), Some(false)));
        assert_eq!(query.minimum_severity, Some(Severity::High));
        assert_eq!(query.topic.as_deref(), Some("t"));
        assert_eq!(
            query.created_after.unwrap().to_string(),
            "2026-11-24T18:42:26.104Z"
        );
        assert_eq!(
            list(&"/notifications?".parse().unwrap()).unwrap(),
            Query::default()
        );
    }

    #[test]
    fn what_is_wrong_is_said_in_the_peers_words() {
        assert_eq!(message("sort=created"), "Unknown query parameter 'sort'");
        assert_eq!(
            message("search="),
            "Empty value found for query parameter 'search'"
        );
        assert_eq!(
            message("orderField=created,DESC"),
            "Invalid order field order, must be asc or desc"
        );
        assert_eq!(
            message("createdAfter=1700000000000"),
            "Unexpected date format"
        );
        for bad in [
            "limit=-1",
            "limit=1.5",
            "offset=-1",
            "limit=1&limit=2",
            "read=1",
            "saved=True",
            "minimumSeverity=High",
            "orderField=colour",
            "createdAfter=soon",
        ] {
            assert!(!message(bad).is_empty());
        }
        let uri = "/topics?topic=x".parse().unwrap();
        assert!(topics(&uri).is_err());
    }

    #[test]
    fn dates_are_read_as_javascript_reads_them() {
        let day = Some("2026-11-24T00:00:00.000Z".to_owned());
        let of = |text: &str| read_date(text).map(|at| at.to_string());
        for text in [
            "2026-11-24",
            "2026-11-24T00:00",
            "2026-11-24T01:00:00+01:00",
            "2026-11-24 00:00:00",
            "Tue, 24 Nov 2026 00:00:00 GMT",
            "Tue, 24 Nov 2026 01:00:00 +0100",
            "Tue Nov 24 2026 01:00:00 GMT+0100 (Central European Standard Time)",
            "11/24/2026",
            "November 24, 2026",
        ] {
            assert_eq!(of(text), day, "{text}");
        }
        assert_eq!(of("2026-11").unwrap(), "2026-11-01T00:00:00.000Z");
        assert_eq!(of("2020").unwrap(), "2020-01-01T00:00:00.000Z");
        assert_eq!(of("20261"), None);
    }
}
