//! Jinja for the decorators that use it: what expressions and templates see, and what they can do
//! beside Jinja's own.
//!
//! Everything is plain text: nothing is escaped here, since every sender escapes for its own
//! medium. Absent fields are undefined: they print nothing and are false.

use std::collections::HashSet;
use std::sync::LazyLock;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use minijinja::AutoEscape;
use minijinja::Environment;
use minijinja::Error;
use minijinja::ErrorKind;
use minijinja::State;
use minijinja::UndefinedBehavior;
use minijinja::value::Serde;
use minijinja::value::Value;
use serde::Deserialize;
use serde::Serialize;

use crate::catalog::CatalogUser;
use crate::notification::Payload;
use crate::notification::Severity;
use crate::processor::Draft;

/// The names that can be used: the fields of [`Context`].
pub(super) const VARIABLES: [&str; 14] = [
    "title",
    "description",
    "link",
    "severity",
    "urgency",
    "topic",
    "scope",
    "icon",
    "metadata",
    "origin",
    "user",
    "name",
    "locale",
    "timezone",
];

/// Those that are another for each person.
const PERSONAL: [&str; 4] = ["user", "name", "locale", "timezone"];

/// How `localtime` writes a time when it is not told.
const TIME_FORMAT: &str = "%Y-%m-%d %H:%M %Z";

/// What an expression or template sees.
#[derive(Serialize)]
pub(super) struct Context<'a> {
    title: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    link: Option<&'a str>,
    severity: Severity,
    /// The severity as a number, to compare: 1 low, 2 normal, 3 high, 4 critical.
    urgency: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    topic: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    icon: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<&'a serde_json::Map<String, serde_json::Value>>,
    origin: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    locale: &'a str,
    timezone: &'a str,
}

impl<'a> Context<'a> {
    pub(super) fn of(draft: &Draft<'a>, payload: &'a Payload, regions: &'a Regions) -> Self {
        Self {
            title: &payload.title,
            description: payload.description.as_deref(),
            link: payload.link.as_deref(),
            severity: payload.severity(),
            urgency: match payload.severity() {
                Severity::Low => 1,
                Severity::Normal => 2,
                Severity::High => 3,
                Severity::Critical => 4,
            },
            topic: payload.topic.as_deref(),
            scope: payload.scope.as_deref(),
            icon: payload.icon.as_deref(),
            metadata: payload.metadata.as_ref(),
            origin: draft.origin,
            user: draft.user,
            name: draft.person.and_then(|one| one.display_name.as_deref()),
            locale: regions.locale(draft.person),
            timezone: regions.timezone(draft.person),
        }
    }

    pub(super) fn value(&'a self) -> Value {
        Value::from(Serde(self))
    }
}

/// Where people are: which annotations of the catalog say it, and what holds for the others.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Regions {
    /// The annotation with a person's language, as in `de` or `de-CH` (BCP 47).
    pub locale_annotation: String,
    /// The annotation with a person's time zone, as in `Europe/Zurich` (IANA).
    pub timezone_annotation: String,
    /// The language of those who have none.
    pub locale: String,
    /// The time zone of those who have none, or one that this machine does not know.
    pub timezone: String,
}

impl Default for Regions {
    fn default() -> Self {
        Self {
            locale_annotation: "tidings/locale".to_owned(),
            timezone_annotation: "tidings/timezone".to_owned(),
            locale: "en".to_owned(),
            timezone: "UTC".to_owned(),
        }
    }
}

impl Regions {
    /// A person's language.
    pub(super) fn locale<'a>(&'a self, person: Option<&'a CatalogUser>) -> &'a str {
        annotation(person, &self.locale_annotation).unwrap_or(&self.locale)
    }

    fn timezone<'a>(&'a self, person: Option<&'a CatalogUser>) -> &'a str {
        annotation(person, &self.timezone_annotation)
            .filter(|name| TimeZone::get(name).is_ok())
            .unwrap_or(&self.timezone)
    }

    /// Whether the default time zone is one.
    pub(super) fn knows_its_zone(&self) -> bool {
        TimeZone::get(&self.timezone).is_ok()
    }
}

fn annotation<'a>(person: Option<&'a CatalogUser>, name: &str) -> Option<&'a str> {
    let value = person?.annotations.get(name)?.trim();
    Some(value).filter(|value| !value.is_empty())
}

/// Jinja with what is ours: plain text, lookups in what is absent that print nothing, and the
/// filter `localtime`.
pub(super) fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_undefined_behavior(UndefinedBehavior::Chainable);
    environment.add_filter("localtime", localtime);
    environment
}

/// The same, for expressions that outlive whoever compiles them.
pub(super) fn shared_environment() -> &'static Environment<'static> {
    static SHARED: LazyLock<Environment<'static>> = LazyLock::new(environment);
    &SHARED
}

/// A time (RFC 3339, or seconds since 1970) as the person's clock shows it, by a format of
/// `strftime`.
fn localtime(state: &State<'_, '_>, time: &Value, format: Option<&str>) -> Result<String, Error> {
    if time.is_undefined() || time.is_none() {
        return Ok(String::new());
    }
    let wrong = |what: String| Error::new(ErrorKind::InvalidOperation, what);
    let parsed = match (time.as_str(), i64::try_from(time.clone())) {
        (Some(text), _) => text.parse::<Timestamp>().ok(),
        (None, Ok(seconds)) => Timestamp::from_second(seconds).ok(),
        (None, Err(_)) => None,
    };
    let parsed = parsed.ok_or_else(|| wrong("localtime needs a time".to_owned()))?;
    let zone = state.lookup("timezone");
    let zone = zone.as_ref().and_then(Value::as_str).unwrap_or("UTC");
    let zone = TimeZone::get(zone).unwrap_or(TimeZone::UTC);
    let local = parsed.to_zoned_datetime(zone);
    let format = format.unwrap_or(TIME_FORMAT);
    jiff::fmt::strtime::format(format, &local)
        .map_err(|error| wrong(format!("`{format}` is not a format of localtime: {error}")))
}

/// Whether one of these is another for each person.
pub(super) fn is_personal(variables: &HashSet<String>) -> bool {
    PERSONAL.iter().any(|one| variables.contains(*one))
}

/// The first name, by the alphabet, that nothing stands for.
pub(super) fn unknown(variables: &HashSet<String>, functions: &HashSet<&str>) -> Option<String> {
    let mut unknown: Vec<&String> = variables
        .iter()
        .filter(|name| !VARIABLES.contains(&name.as_str()) && !functions.contains(name.as_str()))
        .collect();
    unknown.sort_unstable();
    unknown.first().map(|name| (*name).clone())
}

/// The name that was probably meant.
pub(super) fn nearest(name: &str) -> Option<&'static str> {
    VARIABLES
        .iter()
        .map(|one| (strsim::damerau_levenshtein(name, one), *one))
        .min()
        .filter(|(distance, _)| *distance <= 2)
        .map(|(_, one)| one)
}

/// What is wrong, in one line.
pub(super) fn error_text(error: &Error) -> String {
    match error.detail() {
        Some(detail) => format!("{}: {detail}", error.kind()),
        None => error.kind().to_string(),
    }
}

/// A notification with every field, to try expressions and templates on.
pub(super) fn try_on<T>(work: impl FnOnce(Value) -> T) -> T {
    let text = || Some("text".to_owned());
    let payload = Payload {
        title: "text".to_owned(),
        description: text(),
        link: text(),
        topic: text(),
        scope: text(),
        icon: text(),
        ..Payload::default()
    };
    let regions = Regions::default();
    let draft = Draft {
        submission: uuid::Uuid::nil(),
        origin: "text",
        user: Some("user:default/guest"),
        person: None,
        payload: &payload,
    };
    work(Context::of(&draft, &payload, &regions).value())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_as_the_persons_clock_shows_it() {
        let person = CatalogUser {
            annotations: [("tidings/timezone".to_owned(), "Asia/Tokyo".to_owned())].into(),
            ..CatalogUser::default()
        };
        let nowhere = CatalogUser {
            annotations: [("tidings/timezone".to_owned(), "Moon/Base".to_owned())].into(),
            ..CatalogUser::default()
        };
        let payload = Payload {
            title: "t".to_owned(),
            metadata: serde_json::from_str(r#"{"at": "2026-11-24T23:30:00Z", "epoch": 0}"#)
                .unwrap(),
            ..Payload::default()
        };
        let regions = Regions::default();
        let environment = environment();
        let render = |person, text: &str| {
            let draft = Draft {
                submission: uuid::Uuid::nil(),
                origin: "ci",
                user: None,
                person,
                payload: &payload,
            };
            let context = Context::of(&draft, &payload, &regions);
            environment.render_str(text, context.value())
        };
        let at = "{{ metadata.at | localtime }}";
        assert_eq!(render(Some(&person), at).unwrap(), "2026-11-25 08:30 JST");
        assert_eq!(render(Some(&nowhere), at).unwrap(), "2026-11-24 23:30 UTC");
        assert_eq!(render(None, at).unwrap(), "2026-11-24 23:30 UTC");
        let year = "{{ metadata.epoch | localtime('%Y') }}{{ metadata.none | localtime }}";
        assert_eq!(render(None, year).unwrap(), "1970");
        assert!(render(None, "{{ title | localtime }}").is_err());
    }
}
