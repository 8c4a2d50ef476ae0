//! Reading the body of a send: every fault with its pointer, all at once.

use serde_json::Map;
use serde_json::Value;

use super::FAULTS_MAX;
use super::Fault;
use super::Invalid;
use super::TEXT_CHARS_MAX;
use crate::notification::EntityRef;
use crate::notification::Payload;
use crate::notification::Recipients;
use crate::notification::Severity;

/// The fields of the body, its recipients and its payload.
pub(super) fn read(body: &Value) -> Result<(&Map<String, Value>, Recipients, Payload), Invalid> {
    let mut faults = Faults::default();
    let Some(fields) = body.as_object() else {
        faults.add("#", "must be an object with `recipients` and `payload`");
        return Err(Invalid::of(faults.0));
    };
    let recipients = read_recipients(fields.get("recipients"), &mut faults);
    let payload = read_payload(fields.get("payload"), &mut faults);
    let (Some(recipients), Some(payload), true) = (recipients, payload, faults.0.is_empty()) else {
        return Err(Invalid::of(faults.0));
    };
    let single = body
        .pointer("/recipients/entityRef")
        .is_some_and(Value::is_string);
    check_refs(&recipients, single)?;
    Ok((fields, recipients, payload))
}

#[derive(Default)]
struct Faults(Vec<Fault>);

impl Faults {
    fn add(&mut self, pointer: &str, message: impl Into<String>) {
        if FAULTS_MAX <= self.0.len() {
            return;
        }
        self.0.push(Fault {
            pointer: pointer.to_owned(),
            message: message.into(),
        });
    }
}

fn read_recipients(value: Option<&Value>, faults: &mut Faults) -> Option<Recipients> {
    const AT: &str = "#/recipients";
    let Some(value) = value else {
        faults.add(AT, "is missing");
        return None;
    };
    let Some(fields) = value.as_object() else {
        faults.add(AT, "must be an object");
        return None;
    };
    match fields.get("type").and_then(Value::as_str) {
        Some("broadcast") => Some(Recipients::Broadcast),
        Some("entity") => {
            let refs = read_refs(
                fields.get("entityRef"),
                "#/recipients/entityRef",
                true,
                faults,
            );
            let exclude = read_refs(
                fields.get("excludeEntityRef"),
                "#/recipients/excludeEntityRef",
                false,
                faults,
            );
            Some(Recipients::Entity {
                refs: refs?,
                exclude: exclude?,
            })
        }
        _ => {
            faults.add("#/recipients/type", "must be `entity` or `broadcast`");
            None
        }
    }
}

fn read_refs(
    value: Option<&Value>,
    at: &str,
    required: bool,
    faults: &mut Faults,
) -> Option<Vec<String>> {
    match value {
        None if required => {
            faults.add(at, "is missing");
            None
        }
        None => Some(Vec::new()),
        Some(Value::String(one)) => Some(vec![one.clone()]),
        Some(Value::Array(many)) => {
            let refs: Vec<String> = many
                .iter()
                .filter_map(|one| one.as_str().map(str::to_owned))
                .collect();
            if refs.len() == many.len() {
                return Some(refs);
            }
            for (index, one) in many.iter().enumerate().filter(|(_, one)| !one.is_string()) {
                faults.add(
                    &format!("{at}/{index}"),
                    format!("must be a string, not {}", kind_of(one)),
                );
            }
            None
        }
        Some(other) => {
            faults.add(
                at,
                format!(
                    "must be a string or an array of strings, not {}",
                    kind_of(other)
                ),
            );
            None
        }
    }
}

fn read_payload(value: Option<&Value>, faults: &mut Faults) -> Option<Payload> {
    let Some(value) = value else {
        faults.add("#/payload", "is missing");
        return None;
    };
    let Some(fields) = value.as_object() else {
        faults.add("#/payload", "must be an object");
        return None;
    };
    let before = faults.0.len();
    if !fields.contains_key("title") {
        faults.add("#/payload/title", "is missing");
    }
    for name in ["title", "description", "link", "topic", "scope", "icon"] {
        let at = format!("#/payload/{name}");
        let limited = !matches!(name, "description" | "link");
        match fields.get(name) {
            None => {}
            Some(Value::String(text)) if text.contains('\0') => {
                faults.add(&at, "must not contain the character U+0000");
            }
            Some(Value::String(text)) if limited && text.chars().count() > TEXT_CHARS_MAX => {
                faults.add(
                    &at,
                    format!(
                        "is {} characters long; at most {TEXT_CHARS_MAX} are stored",
                        text.chars().count()
                    ),
                );
            }
            Some(Value::String(_)) => {}
            Some(other) => faults.add(&at, format!("must be a string, not {}", kind_of(other))),
        }
    }
    if let Some(severity) = fields.get("severity") {
        match severity.as_str().map(str::parse::<Severity>) {
            Some(Ok(_)) => {}
            Some(Err(why)) => faults.add("#/payload/severity", why),
            None => faults.add(
                "#/payload/severity",
                format!("must be a string, not {}", kind_of(severity)),
            ),
        }
    }
    if let Some(metadata) = fields.get("metadata").filter(|value| !value.is_object()) {
        faults.add(
            "#/payload/metadata",
            format!("must be an object, not {}", kind_of(metadata)),
        );
    }
    if faults.0.len() > before {
        return None;
    }
    match serde_json::from_value(value.clone()) {
        Ok(payload) => Some(payload),
        Err(error) => {
            faults.add("#/payload", error.to_string());
            None
        }
    }
}

/// Whether every ref is one; `single` says that there is one, not in an array.
fn check_refs(recipients: &Recipients, single: bool) -> Result<(), Invalid> {
    let Recipients::Entity { refs, .. } = recipients else {
        return Ok(());
    };
    let faults: Vec<Fault> = refs
        .iter()
        .enumerate()
        .filter_map(|(index, text)| {
            let too_long = text.chars().count() > TEXT_CHARS_MAX;
            let message = match text.parse::<EntityRef>() {
                Err(why) => why,
                Ok(_) if too_long => format!("is longer than {TEXT_CHARS_MAX} characters"),
                Ok(_) => return None,
            };
            let pointer = if single {
                "#/recipients/entityRef".to_owned()
            } else {
                format!("#/recipients/entityRef/{index}")
            };
            Some(Fault { pointer, message })
        })
        .take(FAULTS_MAX)
        .collect();
    match faults.first() {
        None => Ok(()),
        Some(first) => Err(Invalid {
            message: format!(
                "Failed to send user notifications; caused by {}",
                first.message
            ),
            faults,
        }),
    }
}

/// What a JSON value is, for a person.
fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}
