//! A submission: what a producer hands in, once, and the rules it must keep.
//!
//! The same checks serve the HTTP endpoint and producers on the queue. They collect every fault
//! with its JSON pointer, so that a producer mends all of them at once.

mod parse;

use serde::Deserialize;
use serde::Serialize;
use serde_json::Map;
use serde_json::Value;
use sha2::Digest;
use sha2::Sha256;
use url::Url;
use uuid::Uuid;

use crate::notification::Payload;
use crate::notification::Recipients;
use crate::time::Timestamp;

/// Longest title, topic, scope and icon, in characters: the width of Backstage's columns.
pub const TEXT_CHARS_MAX: usize = 255;

/// Longest idempotency key, in bytes of visible ASCII.
pub const KEY_BYTES_MAX: usize = 255;

/// Most faults that are told: a list of a million numbers has a million, and the answer must not
/// be larger than the question.
pub const FAULTS_MAX: usize = 100;

/// So many of them are in the message too; the rest is counted there.
const FAULTS_IN_MESSAGE: usize = 10;

/// A fault of one field.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// Where: an RFC 6901 pointer as a URI fragment, `#/payload/title`.
    pub pointer: String,
    /// What is wrong and what would be right.
    pub message: String,
}

/// Why a submission is refused. The message is in the peer's words; the faults name the fields.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("{message}")]
pub struct Invalid {
    /// One sentence for a person.
    pub message: String,
    /// Every fault found, up to [`FAULTS_MAX`].
    pub faults: Vec<Fault>,
}

impl Invalid {
    /// One fault.
    pub fn at(pointer: &str, message: &str) -> Self {
        Self::one(format!("{pointer} {message}"), pointer, message)
    }

    fn of(faults: Vec<Fault>) -> Self {
        let mut words: Vec<String> = faults
            .iter()
            .take(FAULTS_IN_MESSAGE)
            .map(|fault| format!("{} {}", fault.pointer, fault.message))
            .collect();
        if FAULTS_IN_MESSAGE < faults.len() {
            words.push(format!("and {} more", faults.len() - FAULTS_IN_MESSAGE));
        }
        let message = words.join("; ");
        Self { message, faults }
    }

    /// The message, with the field of the first fault where the peer's words do not name it.
    pub fn with_place(&self) -> String {
        match self.faults.first() {
            Some(fault) if !self.message.contains(&fault.pointer) => {
                format!("{} (at {})", self.message, fault.pointer)
            }
            _ => self.message.clone(),
        }
    }

    fn one(message: String, pointer: &str, detail: &str) -> Self {
        Self {
            message,
            faults: vec![Fault {
                pointer: pointer.to_owned(),
                message: detail.to_owned(),
            }],
        }
    }
}

/// How a submission came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Via {
    /// The HTTP endpoint.
    Http,
    /// The producers' exchange.
    Queue,
}

/// What a submission and everything cut from it carry: who sent it, when, under which name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// Version 7, or derived from origin and key.
    pub id: Uuid,
    /// From credentials, never from the body.
    pub origin: String,
    /// The producer's idempotency key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// When it was accepted.
    pub accepted_at: Timestamp,
    /// How it came in.
    pub via: Via,
    /// SHA-256 of recipients and payload as submitted, so that another body under the same key
    /// is noticed.
    pub digest: String,
}

/// The names of [`Header`]'s fields: nobody else's.
const HEADER_FIELDS: [&str; 6] = ["id", "origin", "key", "accepted_at", "via", "digest"];

/// A submission on its way to the decorator.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Submission {
    /// Its identity.
    #[serde(flatten)]
    pub header: Header,
    /// For whom.
    pub recipients: Recipients,
    /// What.
    pub payload: Payload,
    /// Fields this version does not know.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// The body of a submission, valid by schema, not yet anybody's.
#[derive(Clone, Debug, PartialEq)]
pub struct Draft {
    /// For whom.
    pub recipients: Recipients,
    /// What.
    pub payload: Payload,
    /// Fields beside the two.
    pub extra: Map<String, Value>,
}

impl Draft {
    /// Reads the body of a send; see `schemas/submission.schema.json`.
    ///
    /// Checks shape, lengths and refs. The rules of [`check_content`] come later, since
    /// decorators may still mend what they ask for.
    ///
    /// # Errors
    /// [`Invalid`] with every fault and its pointer.
    pub fn parse(body: &Value) -> Result<Self, Invalid> {
        let (fields, recipients, payload) = parse::read(body)?;
        let mut extra = fields.clone();
        extra.remove("recipients");
        extra.remove("payload");
        Ok(Self {
            recipients,
            payload,
            extra,
        })
    }

    /// SHA-256, in hex, of what the producer wrote.
    pub fn digest(&self) -> String {
        // A map of serde_json keeps its keys sorted, so equal bodies give equal bytes.
        let body = serde_json::json!({"recipients": self.recipients, "payload": self.payload});
        hex(&Sha256::digest(body.to_string().as_bytes()))
    }

    /// Makes it a submission of `origin`.
    pub fn submit(self, origin: &str, key: Option<String>, via: Via, now: Timestamp) -> Submission {
        let id = match &key {
            Some(key) => crate::notification::keyed_submission_id(origin, key),
            None => Uuid::now_v7(),
        };
        let digest = self.digest();
        let mut extra = self.extra;
        // A producer's field of such a name would stand beside the header's own, as a forgery.
        for name in HEADER_FIELDS {
            extra.remove(name);
        }
        Submission {
            header: Header {
                id,
                origin: origin.to_owned(),
                key,
                accepted_at: now,
                via,
                digest,
            },
            recipients: self.recipients,
            payload: self.payload,
            extra,
        }
    }
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Whether `key` can be an idempotency key: 1 to [`KEY_BYTES_MAX`] visible ASCII characters.
pub fn is_key(key: &str) -> bool {
    (1..=KEY_BYTES_MAX).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic())
}

/// The rules that hold once every decorator of whole submissions has run: a title, and a link
/// that leads to a page.
///
/// # Errors
/// [`Invalid`] in the peer's words.
pub fn check_content(payload: &Payload, base: &Url) -> Result<(), Invalid> {
    if payload.title.is_empty() {
        return Err(Invalid::one(
            "Invalid notification request received: missing title".to_owned(),
            "#/payload/title",
            "must not be empty",
        ));
    }
    match payload.link.as_deref() {
        None | Some("") => Ok(()),
        Some(link) => resolve_link(link, base).map(|_| ()).map_err(|why| {
            Invalid::one(
                format!("Invalid link provided; {why}"),
                "#/payload/link",
                &why,
            )
        }),
    }
}

/// The absolute address of a link: one leading `/` goes, the rest is resolved against
/// `app.baseUrl`. Source: contract 1.6.
///
/// # Errors
/// Says why it is no http(s) address.
pub fn resolve_link(link: &str, base: &Url) -> Result<Url, String> {
    let mut root = base.clone();
    if !root.path().ends_with('/') {
        root.set_path(&format!("{}/", base.path()));
    }
    let url = root
        .join(link.strip_prefix('/').unwrap_or(link))
        .map_err(|error| format!("it cannot be read as a URL ({error})"))?;
    match url.scheme() {
        "http" | "https" => Ok(url),
        other => Err(format!(
            "only http, https and paths of the app are allowed, not `{other}:`"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pointers(body: Value) -> Vec<String> {
        let faults = Draft::parse(&body).unwrap_err().faults;
        faults.into_iter().map(|fault| fault.pointer).collect()
    }

    #[test]
    fn a_body_of_nothing_but_faults_gets_an_answer_of_bounded_size() {
        for one in [json!(1), json!("not a ref")] {
            let refs = vec![one; 10_000];
            let body = json!({"recipients": {"type": "entity", "entityRef": refs},
                "payload": {"title": "t"}});
            let invalid = Draft::parse(&body).unwrap_err();
            assert_eq!(invalid.faults.len(), FAULTS_MAX);
            assert!(invalid.message.len() < 2_000, "{}", invalid.message);
            assert!(invalid.with_place().contains("#/recipients/entityRef/0"));
        }
    }

    #[test]
    fn every_fault_is_named_with_its_pointer_at_once() {
        let body = json!({"recipients": {"type": "entity", "entityRef": [1]},
            "payload": {"severity": "urgent", "description": null, "topic": "x".repeat(256)}});
        assert_eq!(
            pointers(body),
            [
                "#/recipients/entityRef/0",
                "#/payload/title",
                "#/payload/description",
                "#/payload/topic",
                "#/payload/severity"
            ]
        );
        assert_eq!(pointers(json!([])), ["#"]);
        assert_eq!(pointers(json!({})), ["#/recipients", "#/payload"]);
    }

    #[test]
    fn a_malformed_ref_refuses_the_whole_submission() {
        let body = json!({"recipients": {"type": "entity", "entityRef": ["user:a", "nokind"]},
            "payload": {"title": "t"}});
        assert_eq!(pointers(body), ["#/recipients/entityRef/1"]);
        let single = json!({"recipients": {"type": "entity", "entityRef": "nokind"},
            "payload": {"title": "t"}});
        assert_eq!(pointers(single), ["#/recipients/entityRef"]);
    }

    #[test]
    fn unknown_fields_are_carried_along_and_count_in_the_digest() {
        let body = json!({"recipients": {"type": "broadcast", "entityRef": "x"},
            "payload": {"title": "t", "foo": 1}, "extra": 2});
        let draft = Draft::parse(&body).unwrap();
        assert_eq!(draft.recipients, Recipients::Broadcast);
        assert_eq!(draft.payload.extra["foo"], 1);
        assert_eq!(draft.extra["extra"], 2);
        let other = Draft {
            payload: Payload::default(),
            ..draft.clone()
        };
        assert_ne!(draft.digest(), other.digest());
        let submission = draft.submit("ci", Some("k".into()), Via::Http, Timestamp::default());
        let text = serde_json::to_string(&submission).unwrap();
        assert_eq!(
            serde_json::from_str::<Submission>(&text).unwrap(),
            submission
        );
    }

    #[test]
    fn a_producer_cannot_write_the_header() {
        let body = json!({"recipients": {"type": "broadcast"}, "payload": {"title": "t"},
            "id": Uuid::nil(), "origin": "forged", "key": "forged", "accepted_at": "x", "later": 1});
        let draft = Draft::parse(&body).unwrap();
        let submission = draft.submit("ci", None, Via::Http, Timestamp::default());
        let text = serde_json::to_string(&submission).unwrap();
        assert!(!text.contains("forged"), "{text}");
        assert_eq!(
            serde_json::from_str::<Submission>(&text).unwrap(),
            submission
        );
    }

    #[test]
    fn only_links_to_pages_are_allowed() {
        let base = Url::parse("https://portal.example.com/app").unwrap();
        let at = |link| resolve_link(link, &base).map(String::from);
        assert_eq!(
            at("/catalog?x#y").unwrap(),
            "https://portal.example.com/app/catalog?x#y"
        );
        assert_eq!(
            at("//evil.com/x").unwrap(),
            "https://portal.example.com/evil.com/x"
        );
        assert_eq!(at("http://foo.com/bar").unwrap(), "http://foo.com/bar");
        for bad in ["javascript:alert(1)", "ftp://x/y", "mailto:a@b", "http://"] {
            assert!(at(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn keys_are_visible_ascii_within_the_limit() {
        assert!(is_key("build-42"));
        for bad in ["", "a b", "ü", &"x".repeat(256)] {
            assert!(!is_key(bad), "{bad}");
        }
    }
}
