//! Holds `schemas/`, its examples and the code's types to each other: whatever one of them takes,
//! the others take, and what one refuses, they refuse at the same place.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::path::PathBuf;

use jsonschema::Validator;
use jsonschema::error::ValidationErrorKind;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::json;
use tidings::chunk::Chunk;
use tidings::delivery::Attempt;
use tidings::delivery::DeliveryBatch;
use tidings::delivery::DeliveryState;
use tidings::failure::Reason;
use tidings::notification::Severity;
use tidings::reply::Reply;
use tidings::signal::Signal;
use tidings::store::DeadLetter;
use tidings::submission::Draft;
use tidings::submission::Submission;

/// Reads a form and writes it again; an error is why it is refused.
type RoundTrip = fn(&Value) -> Result<Value, String>;

const FORMS: [(&str, RoundTrip); 9] = [
    ("submission", draft),
    ("accepted-submission", serde::<Submission>),
    ("chunk", serde::<Chunk>),
    ("delivery", serde::<DeliveryBatch>),
    ("attempt", serde::<Attempt>),
    ("signal", serde::<Signal>),
    ("reply", serde::<Reply>),
    ("dead-letter", serde::<DeadLetter>),
    ("webhook", serde::<tidings::processor::webhook::Body>),
];

fn serde<T: Serialize + DeserializeOwned>(body: &Value) -> Result<Value, String> {
    let form: T = serde_json::from_value(body.clone()).map_err(|error| error.to_string())?;
    serde_json::to_value(form).map_err(|error| error.to_string())
}

fn draft(body: &Value) -> Result<Value, String> {
    let draft = Draft::parse(body).map_err(|invalid| invalid.to_string())?;
    let mut written = json!({"recipients": draft.recipients, "payload": draft.payload});
    written.as_object_mut().unwrap().extend(draft.extra);
    // One ref and an array of one are the same; the code writes the array.
    if let Some(one @ Value::String(_)) = body.pointer("/recipients/entityRef")
        && written["recipients"]["entityRef"] == json!([one])
    {
        written["recipients"]["entityRef"] = one.clone();
    }
    if let Some(one @ Value::String(_)) = body.pointer("/recipients/excludeEntityRef")
        && written["recipients"]["excludeEntityRef"] == json!([one])
    {
        written["recipients"]["excludeEntityRef"] = one.clone();
    }
    Ok(written)
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas")
}

fn read(file: &Path) -> Value {
    let text = fs::read_to_string(file).unwrap();
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

fn schema(form: &str) -> Value {
    read(&folder().join(format!("{form}.schema.json")))
}

fn validator(form: &str) -> Validator {
    jsonschema::options()
        .should_validate_formats(true)
        .build(&schema(form))
        .unwrap_or_else(|error| panic!("{form}: {error}"))
}

/// The examples of a form, by case.
fn examples(form: &str) -> BTreeMap<String, Value> {
    fs::read_dir(folder().join("examples").join(form))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|file| {
            let case = file.file_stem().unwrap().to_str().unwrap().to_owned();
            (case, read(&file))
        })
        .collect()
}

/// Where a schema finds fault, as the code writes it.
fn pointers(validator: &Validator, body: &Value) -> BTreeSet<String> {
    validator
        .iter_errors(body)
        .map(|error| match error.kind() {
            ValidationErrorKind::Required { property } => {
                let property = property.as_str().unwrap();
                format!("#{}/{property}", error.instance_path())
            }
            _ => format!("#{}", error.instance_path()),
        })
        .collect()
}

#[test]
fn every_form_has_a_schema_and_examples_of_both_kinds() {
    let forms: BTreeSet<String> = FORMS.iter().map(|(form, _)| (*form).to_owned()).collect();
    let schemas: BTreeSet<String> = fs::read_dir(folder())
        .unwrap()
        .filter_map(|entry| {
            let name = entry.unwrap().file_name().into_string().unwrap();
            name.strip_suffix(".schema.json").map(str::to_owned)
        })
        .collect();
    assert_eq!(schemas, forms);
    for (form, _) in FORMS {
        let schema = schema(form);
        let meta = "https://json-schema.org/draft/2020-12/schema";
        assert_eq!(schema["$schema"], meta, "{form}");
        assert_eq!(
            schema["$id"],
            format!("tidings:/schemas/{form}.schema.json")
        );
        let examples = examples(form);
        for kind in ["valid-", "invalid-"] {
            let found = examples.keys().any(|case| case.starts_with(kind));
            assert!(found, "{form} has no {kind}…");
        }
    }
}

#[test]
fn every_valid_example_is_taken_by_schema_and_code_and_comes_back_unchanged() {
    for (form, round_trip) in FORMS {
        let validator = validator(form);
        for (case, body) in examples(form) {
            if !case.starts_with("valid-") {
                continue;
            }
            let faults: Vec<String> = validator
                .iter_errors(&body)
                .map(|e| e.to_string())
                .collect();
            assert!(faults.is_empty(), "{form}/{case}: {faults:?}");
            assert_eq!(round_trip(&body).as_ref(), Ok(&body), "{form}/{case}");
        }
    }
}

#[test]
fn every_invalid_example_is_refused_by_schema_and_code() {
    for (form, round_trip) in FORMS {
        let validator = validator(form);
        for (case, body) in examples(form) {
            if case.starts_with("invalid-") {
                assert!(
                    !validator.is_valid(&body),
                    "{form}/{case}: the schema takes it"
                );
                assert!(
                    round_trip(&body).is_err(),
                    "{form}/{case}: the code takes it"
                );
            }
        }
    }
}

#[test]
fn schema_and_code_name_the_same_fields_of_an_invalid_submission() {
    let validator = validator("submission");
    for (case, body) in examples("submission") {
        if let Err(invalid) = Draft::parse(&body) {
            let code: BTreeSet<String> = invalid
                .faults
                .into_iter()
                .map(|fault| fault.pointer)
                .collect();
            assert_eq!(code, pointers(&validator, &body), "{case}");
        }
    }
}

#[test]
fn definitions_are_the_same_in_every_schema() {
    let mut first: BTreeMap<String, (Value, &str)> = BTreeMap::new();
    for (form, _) in FORMS {
        let Some(definitions) = schema(form)["$defs"].as_object().cloned() else {
            continue;
        };
        for (name, definition) in definitions {
            let (other, at) = first
                .entry(name.clone())
                .or_insert((definition.clone(), form));
            assert_eq!(&definition, other, "{name} in {form} and {at}");
        }
    }
}

#[test]
fn the_words_in_the_schemas_are_those_of_the_code() {
    let words = |form: &str, pointer: &str| -> Vec<String> {
        let found = schema(form).pointer(pointer).cloned();
        serde_json::from_value(found.unwrap_or_else(|| panic!("{form} has no {pointer}"))).unwrap()
    };
    assert_eq!(
        words("submission", "/$defs/severity/enum"),
        Severity::ALL.map(|one| one.as_str().to_owned())
    );
    assert_eq!(
        words("attempt", "/$defs/reason/enum"),
        Reason::ALL.map(|one| one.as_str().to_owned())
    );
    for state in words("attempt", "/properties/state/enum") {
        assert!(DeliveryState::from_word(&state).is_some(), "{state}");
    }
}
