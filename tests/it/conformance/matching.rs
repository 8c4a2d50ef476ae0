//! Whether an answer is what a case expects, with the cases' wildcards.

use std::collections::BTreeMap;

use serde_json::Value;
use tidings::time::Timestamp;
use uuid::Uuid;

/// How objects are compared.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum How {
    /// No other keys.
    Exact,
    /// The listed keys.
    Subset,
}

/// `expected` with `{{name}}` replaced by what was kept under the name.
pub(super) fn fill(expected: &Value, kept: &BTreeMap<String, Value>) -> Value {
    match expected {
        Value::String(text) => fill_text(text, kept),
        Value::Array(items) => items.iter().map(|item| fill(item, kept)).collect(),
        Value::Object(fields) => fields
            .iter()
            .map(|(key, value)| (key.clone(), fill(value, kept)))
            .collect(),
        other => other.clone(),
    }
}

fn fill_text(text: &str, kept: &BTreeMap<String, Value>) -> Value {
    let mut filled = text.to_owned();
    for (name, value) in kept {
        let mark = format!("{{{{{name}}}}}");
        if filled == mark {
            return value.clone();
        }
        let plain = value.as_str().map_or(value.to_string(), str::to_owned);
        filled = filled.replace(&mark, &plain);
    }
    Value::String(filled)
}

/// The value at a dotted path; an empty one is the whole.
pub(super) fn at<'a>(value: &'a Value, path: &str) -> Option<&'a Value> {
    let mut found = value;
    for step in path.split('.').filter(|step| !step.is_empty()) {
        found = match found {
            Value::Array(items) => items.get(step.parse::<usize>().ok()?)?,
            other => other.get(step)?,
        };
    }
    Some(found)
}

/// Says where and how `actual` differs.
pub(super) fn check(how: How, expected: &Value, actual: &Value, path: &str) -> Result<(), String> {
    let differs = || Err(format!("{path}: expected {expected}, got {actual}"));
    match expected {
        Value::String(mark) if mark.starts_with('$') => {
            if wildcard(mark, actual) {
                Ok(())
            } else {
                differs()
            }
        }
        Value::Object(fields) if fields.contains_key("$contains") => {
            let part = fields["$contains"].as_str().unwrap_or_default();
            match actual.as_str() {
                Some(text) if text.contains(part) => Ok(()),
                _ => differs(),
            }
        }
        Value::Object(fields) => {
            let Some(given) = actual.as_object() else {
                return differs();
            };
            for (key, wanted) in fields {
                let path = format!("{path}.{key}");
                match given.get(key) {
                    None if wanted == "$absent" => {}
                    None => return Err(format!("{path}: is missing")),
                    Some(value) if wanted == "$absent" => {
                        return Err(format!("{path}: must be absent, got {value}"));
                    }
                    Some(value) => check(how, wanted, value, &path)?,
                }
            }
            match given.keys().find(|key| !fields.contains_key(*key)) {
                Some(key) if how == How::Exact => Err(format!("{path}.{key}: must be absent")),
                _ => Ok(()),
            }
        }
        Value::Array(items) => match actual.as_array() {
            Some(given) if given.len() == items.len() => items
                .iter()
                .zip(given)
                .enumerate()
                .try_for_each(|(index, (wanted, value))| {
                    check(how, wanted, value, &format!("{path}.{index}"))
                }),
            _ => differs(),
        },
        other if other == actual => Ok(()),
        _ => differs(),
    }
}

fn wildcard(mark: &str, actual: &Value) -> bool {
    let text = actual.as_str();
    match mark {
        "$any" => true,
        "$string" => text.is_some(),
        "$uuid" => text.is_some_and(|text| Uuid::try_parse(text).is_ok()),
        "$iso" => {
            text.is_some_and(|text| Timestamp::parse(text).is_some_and(|at| at.to_string() == text))
        }
        _ => panic!("an unknown wildcard: {mark}"),
    }
}

#[test]
fn a_checker_that_accepts_everything_would_prove_nothing() {
    use serde_json::json;
    let whole = json!({"id": Uuid::nil(), "at": "2026-11-24T18:42:26.104Z", "list": [1, null]});
    let yes = |how, expected: Value| check(how, &expected, &whole, "").is_ok();
    assert!(yes(How::Subset, json!({"id": "$uuid", "more": "$absent"})));
    assert!(!yes(How::Exact, json!({"id": "$uuid"})));
    assert!(!yes(How::Subset, json!({"id": "$iso"})));
    assert!(!yes(How::Subset, json!({"id": "$absent"})));
    assert!(!yes(How::Subset, json!({"list": [1]})));
    assert!(!yes(How::Subset, json!({"list": [1, "$string"]})));
    assert!(!yes(How::Subset, json!({"none": "$any"})));
    assert!(yes(
        How::Exact,
        json!({"id": "$any", "at": {"$contains": "T18"}, "list": [1, null]})
    ));
    let kept = BTreeMap::from([("n".to_owned(), json!("x"))]);
    assert_eq!(
        fill(&json!(["{{n}}", "a/{{n}}"]), &kept),
        json!(["x", "a/x"])
    );
    assert_eq!(at(&whole, "list.0"), Some(&json!(1)));
}
