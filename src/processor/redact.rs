//! The decorator `redact`: takes out of a notification what must not be in it, before anything is
//! stored or sent.
//!
//! It runs once for each submission, over every text: title, description, link, topic, scope,
//! icon, and the texts in metadata and in fields that this version does not know.

use std::sync::Arc;

use async_trait::async_trait;
use regex::Regex;
use serde::Deserialize;
use serde_json::Map;
use serde_json::Value;

use crate::config::ConfigError;
use crate::config::Section;
use crate::failure::Failure;
use crate::notification::Payload;
use crate::processor::Decorated;
use crate::processor::Decorator;
use crate::processor::Draft;
use crate::processor::Filter;
use crate::processor::Stage;
use crate::processor::registry::Services;
use crate::submission::TEXT_CHARS_MAX;

/// The wire name: config key and metric label.
pub const NAME: &str = "redact";

/// What stands in the place of what is taken out.
const REDACTED: &str = "[redacted]";

/// Patterns by name.
const KNOWN: &[(&str, &str)] = &[
    ("aws-key", r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"),
    ("bearer", r"(?i)\bbearer\s+[a-z0-9._~+/-]{8,}=*"),
    ("email", r"(?i)\b[a-z0-9._%+-]+@[a-z0-9.-]+\.[a-z]{2,}\b"),
    ("github-token", r"\bgh[pousr]_[A-Za-z0-9]{36,}\b"),
    ("ipv4", r"\b(?:\d{1,3}\.){3}\d{1,3}\b"),
    (
        "jwt",
        r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+",
    ),
    (
        "private-key",
        r"(?s)-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\z)",
    ),
    (
        "url-password",
        r"(?i)\b[a-z][a-z0-9+.-]*://[^\s/:@]+:[^\s/@]+@",
    ),
];

/// What stands in `tidings.decorators[]` beside `name`, `policy` and `timeout`.
///
/// ```yaml
/// - name: redact
///   patterns:
///     - { known: bearer }
///     - { regex: "CUST-[0-9]{6}", with: "[customer]" }
/// ```
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Options {
    patterns: Vec<Pattern>,
    #[serde(default)]
    filter: Filter,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Pattern {
    /// A pattern that comes with Tidings.
    known: Option<String>,
    /// A pattern of your own, in the syntax of the crate `regex`.
    regex: Option<String>,
    /// What stands in its place; `$1` is the first group.
    with: Option<String>,
}

/// The decorator.
struct Redact {
    patterns: Vec<(Regex, String)>,
    filter: Filter,
}

/// Makes the decorator of an item of `tidings.decorators`.
///
/// # Errors
/// What is wrong with a pattern, at its place.
pub fn build(section: &Section, _: &Services) -> Result<Arc<dyn Decorator>, ConfigError> {
    let options: Options = section.read()?;
    if options.patterns.is_empty() {
        let at = section.get("patterns");
        return Err(at.error("there is nothing to redact", help()));
    }
    let places = section.get("patterns").items();
    let mut patterns = Vec::with_capacity(places.len());
    for (pattern, place) in options.patterns.into_iter().zip(&places) {
        patterns.push((
            regex(&pattern, place)?,
            pattern.with.unwrap_or_else(|| REDACTED.to_owned()),
        ));
    }
    Ok(Arc::new(Redact {
        patterns,
        filter: options.filter,
    }))
}

fn regex(pattern: &Pattern, place: &Section) -> Result<Regex, ConfigError> {
    let (text, at) = match (&pattern.known, &pattern.regex) {
        (Some(name), None) => {
            let Some((_, text)) = KNOWN.iter().find(|(known, _)| known == name) else {
                let at = place.get("known");
                return Err(at.error(format!("no pattern `{name}` comes with Tidings"), help()));
            };
            (*text, place.get("known"))
        }
        (None, Some(text)) => (text.as_str(), place.get("regex")),
        _ => return Err(place.error("a pattern is either `known` or a `regex`", help())),
    };
    let regex = Regex::new(text).map_err(|error| {
        let why = error.to_string();
        let why = why
            .lines()
            .last()
            .unwrap_or_default()
            .trim_start_matches("error: ");
        at.error(
            format!("`{}` is no regular expression: {why}", at.key()),
            "the syntax is that of https://docs.rs/regex: no look-around, no back-references",
        )
    })?;
    if regex.is_match("") {
        let what = format!("`{}` matches where there is nothing", at.key());
        return Err(at.error(what, "use + in place of *"));
    }
    Ok(regex)
}

fn help() -> String {
    let names: Vec<&str> = KNOWN.iter().map(|(name, _)| *name).collect();
    format!(
        "write {{ regex: \"…\" }}, or {{ known: … }} with one of {}",
        names.join(", ")
    )
}

impl Redact {
    fn text(&self, text: &mut String) {
        for (regex, with) in &self.patterns {
            if let std::borrow::Cow::Owned(clean) = regex.replace_all(text, with) {
                *text = clean;
            }
        }
    }

    /// A text that has a longest length, which a replacement may have passed.
    fn short(&self, text: &mut String) {
        self.text(text);
        if let Some((end, _)) = text.char_indices().nth(TEXT_CHARS_MAX) {
            text.truncate(end);
        }
    }

    fn value(&self, value: &mut Value) {
        match value {
            Value::String(text) => self.text(text),
            Value::Array(items) => items.iter_mut().for_each(|item| self.value(item)),
            Value::Object(fields) => self.object(fields),
            _ => {}
        }
    }

    fn object(&self, fields: &mut Map<String, Value>) {
        fields.values_mut().for_each(|value| self.value(value));
    }
}

#[async_trait]
impl Decorator for Redact {
    fn name(&self) -> &str {
        NAME
    }

    fn stage(&self) -> Stage {
        Stage::PerSubmission
    }

    fn filter(&self) -> &Filter {
        &self.filter
    }

    async fn decorate(&self, draft: Draft<'_>) -> Result<Decorated, Failure> {
        let mut payload: Payload = draft.payload.clone();
        self.short(&mut payload.title);
        for text in [&mut payload.topic, &mut payload.scope, &mut payload.icon] {
            text.iter_mut().for_each(|text| self.short(text));
        }
        for text in [&mut payload.description, &mut payload.link] {
            text.iter_mut().for_each(|text| self.text(text));
        }
        if let Some(metadata) = &mut payload.metadata {
            self.object(metadata);
        }
        self.object(&mut payload.extra);
        if &payload == draft.payload {
            return Ok(Decorated::Keep);
        }
        Ok(Decorated::Change(payload))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::processor::registry;

    fn redact(patterns: &str) -> Result<Arc<dyn Decorator>, ConfigError> {
        registry::tests::one_decorator(&format!("{{ name: redact, patterns: {patterns} }}"))
    }

    async fn run(patterns: &str, fields: Value) -> Option<Value> {
        let payload: Payload = serde_json::from_value(fields).unwrap();
        let draft = Draft {
            submission: uuid::Uuid::nil(),
            origin: "ci",
            user: None,
            person: None,
            payload: &payload,
        };
        match redact(patterns).unwrap().decorate(draft).await.unwrap() {
            Decorated::Keep => None,
            Decorated::Change(payload) => Some(serde_json::to_value(payload).unwrap()),
            Decorated::Drop(why) => panic!("{why}"),
        }
    }

    #[tokio::test]
    async fn every_text_is_looked_at_and_what_matches_is_nowhere() {
        let fields = json!({
            "title": "canary-1", "description": "a canary-2 b canary-3", "link": "/x?canary-4",
            "topic": "canary-5", "scope": "canary-6", "icon": "canary-7",
            "metadata": {"deep": [{"er": "canary-8"}], "number": 1}, "unknown": "canary-9"
        });
        let clean = run("[ { regex: \"canary-[0-9]\" } ]", fields)
            .await
            .unwrap();
        assert!(!clean.to_string().contains("canary"), "{clean}");
        assert_eq!(clean["description"], "a [redacted] b [redacted]");
        assert_eq!(clean["metadata"]["number"], 1);
    }

    #[tokio::test]
    async fn the_patterns_that_come_with_it_find_what_they_are_named_for() {
        let all: Vec<String> = KNOWN
            .iter()
            .map(|(name, _)| format!("{{ known: {name} }}"))
            .collect();
        let all = format!("[ {} ]", all.join(", "));
        for secret in [
            "AKIAIOSFODNN7EXAMPLE",
            "Authorization: Bearer abcdefgh.12345678",
            "ann@example.com",
            "ghp_0123456789abcdefghijklmnopqrstuvwxyz",
            "10.0.0.1",
            "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhIn0.c2lnbmF0dXJl",
            "-----BEGIN RSA PRIVATE KEY-----\nabc\n-----END RSA PRIVATE KEY-----",
            "postgres://user:password@host/db",
        ] {
            let text = format!("before {secret} after");
            let clean = run(&all, json!({"title": "t", "description": text})).await;
            let clean = clean.unwrap_or_else(|| panic!("{secret} is not found"));
            let text = clean["description"].as_str().unwrap();
            assert!(
                text.contains("before") && text.contains("[redacted]"),
                "{text}"
            );
        }
        let harmless = json!({"title": "Build 42 failed", "link": "https://ci.example.com/42"});
        assert_eq!(run(&all, harmless).await, None);
    }

    #[tokio::test]
    async fn a_replacement_may_keep_a_part_and_never_outgrows_a_column() {
        let some =
            "[ { regex: \"(CUST)-[0-9]+\", with: \"$1-…\" }, { regex: x, with: \"0123456789\" } ]";
        let fields = json!({"title": "x".repeat(200), "description": "CUST-4711"});
        let clean = run(some, fields).await.unwrap();
        assert_eq!(clean["description"], "CUST-…");
        assert_eq!(
            clean["title"].as_str().unwrap().chars().count(),
            TEXT_CHARS_MAX
        );
    }

    #[test]
    fn what_cannot_work_is_found_at_the_start() {
        for (patterns, words) in [
            ("[]", "nothing to redact"),
            ("[ { known: passport } ]", "aws-key, bearer"),
            (
                "[ { regex: \"(\" } ]",
                "no regular expression: unclosed group",
            ),
            ("[ { regex: \"a*\" } ]", "matches where there is nothing"),
            (
                "[ { known: jwt, regex: x } ]",
                "either `known` or a `regex`",
            ),
        ] {
            let error = redact(patterns).err().map(|error| error.to_string());
            let error = error.unwrap_or_else(|| panic!("{patterns} is taken"));
            assert!(error.contains(words), "{words} in {error}");
        }
    }
}
