//! Dead letters: messages that were given up.

use serde::Deserialize;
use serde::Serialize;
use uuid::Uuid;

use crate::failure::Reason;
use crate::queue::HEADER_DETAIL;
use crate::queue::HEADER_MESSAGE;
use crate::queue::HEADER_REASON;
use crate::queue::HEADER_REPLAYS;
use crate::queue::HEADER_STAGE;
use crate::queue::HEADER_TRIES;
use crate::queue::Message;
use crate::time::Timestamp;

/// A message that was given up.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// Its number; 0 until it is filed.
    pub id: i64,
    /// Distinct for each death, so that filing twice files once.
    pub message: String,
    /// The queue where it died.
    pub stage: String,
    /// Why.
    pub reason: Reason,
    /// One sentence on it.
    pub detail: String,
    /// How often it was tried.
    pub tries: u32,
    /// When.
    pub died_at: Timestamp,
    /// The submission it belongs to, if its body says so.
    pub submission: Option<Uuid>,
    /// Who sent it, if known.
    pub origin: Option<String>,
    /// The deliveries in it, to be made pending again on replay.
    pub deliveries: Vec<Uuid>,
    /// Its headers.
    pub headers: crate::queue::Headers,
    /// Its body, as it was; in JSON as text, or as `{"base64": …}` where it is none.
    #[serde(with = "body_as_text")]
    pub body: Vec<u8>,
    /// When it was put back on its queue.
    pub replayed_at: Option<Timestamp>,
}

/// A body is nearly always JSON, and a person should be able to read it.
mod body_as_text {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use serde::Deserialize;
    use serde::Deserializer;
    use serde::Serialize;
    use serde::Serializer;

    #[derive(Deserialize, Serialize)]
    #[serde(untagged)]
    enum Body {
        Text(String),
        Bytes { base64: String },
    }

    pub(super) fn serialize<S: Serializer>(body: &[u8], to: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(body) {
            Ok(text) => to.serialize_str(text),
            Err(_) => {
                let base64 = STANDARD.encode(body);
                Body::Bytes { base64 }.serialize(to)
            }
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        match Body::deserialize(from)? {
            Body::Text(text) => Ok(text.into_bytes()),
            Body::Bytes { base64 } => STANDARD.decode(base64).map_err(serde::de::Error::custom),
        }
    }
}

impl DeadLetter {
    /// The message that gives it another chance: for the queue where it died, without its
    /// post-mortem.
    pub fn revive(&self) -> Message {
        let mut headers = self.headers.clone();
        let stage = headers
            .remove(HEADER_STAGE)
            .unwrap_or_else(|| self.stage.clone());
        for name in [HEADER_REASON, HEADER_DETAIL, HEADER_TRIES] {
            headers.remove(name);
        }
        let replays = headers
            .get(HEADER_REPLAYS)
            .and_then(|count| count.parse().ok());
        let replays = replays.unwrap_or(0_u32) + 1;
        headers.insert(HEADER_REPLAYS.to_owned(), replays.to_string());
        let id = match (headers.remove(HEADER_MESSAGE), self.submission) {
            (Some(id), _) => id,
            (None, Some(submission)) => submission.to_string(),
            (None, None) => format!("replay-of-{}", self.id),
        };
        Message {
            headers,
            ..Message::new(stage, id, self.body.clone())
        }
    }
}

/// Which dead letters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeadFilter {
    /// These numbers.
    pub ids: Vec<i64>,
    /// Of this reason.
    pub reason: Option<Reason>,
    /// That died at this stage.
    pub stage: Option<String>,
    /// That died before.
    pub before: Option<Timestamp>,
    /// That died at or after.
    pub after: Option<Timestamp>,
    /// Also those that were replayed.
    pub replayed: bool,
    /// At most so many, newest first; 0 is all.
    pub limit: u32,
}

/// What is to become of dead letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settle {
    /// About to be put back on their queue: their failed deliveries become pending, with the
    /// whole retry schedule before them.
    Reopen,
    /// They were put back on their queue.
    Replayed,
    /// They are dropped.
    Discard,
}
