//! The routing slip: how a chunk goes through the workers of others and comes back.
//!
//! A foreign decorator consumes `decorate.<name>`, changes the content, takes people out or
//! patches them, takes its own step off the slip and publishes to the next, which is `chunks`:
//! our workers, who run what stands in between. What nobody takes in time, what is rejected and
//! what kills its worker comes to `chunks` from the broker, its step still on the slip.
//!
//! Of what comes back only payload, patches, missing people and notes are read. The rest is taken
//! from the seal, which goes along and which only we can make: with the rights of a foreign
//! worker nobody can post in another's name, or past people's settings.

use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use hmac::Hmac;
use hmac::Mac;
use serde::Deserialize;
use serde::Serialize;
use serde_json::Map;
use serde_json::Value;
use sha2::Sha256;

use super::Pipeline;
use super::chain::Chain;
use crate::chunk::Chunk;
use crate::chunk::Note;
use crate::chunk::Person;
use crate::chunk::RefReport;
use crate::failure::Failure;
use crate::failure::Reason;
use crate::processor::Policy;
use crate::processor::QueueStep;
use crate::queue::HEADER_REASON;
use crate::queue::HEADER_TRIES;
use crate::queue::Message;
use crate::queue::Received;
use crate::queue::ReplyTo;
use crate::submission::Header;
use crate::submission::check_content;
use crate::telemetry::metric;
use crate::time::Timestamp;
use crate::topology;
use crate::topology::CHUNKS;

/// The name of the secret that chunks are sealed with.
const SECRET: &str = "seal";

/// Most notes that a foreign worker may add at one step, and most characters in one.
const NOTES_MAX: usize = 20;
const NOTE_CHARS_MAX: usize = 200;

/// What a foreign worker may not change.
#[derive(Serialize, Deserialize)]
struct Sealed {
    #[serde(flatten)]
    header: Header,
    no: u32,
    of: u32,
    broadcast: bool,
    people: Vec<Person>,
    refs: Vec<RefReport>,
    dropped: u32,
    notes: Vec<Note>,
    slip: Vec<String>,
    started_at: Timestamp,
}

/// Where a chunk that came to `chunks` goes on.
pub(super) enum Arrived {
    /// Through our own steps.
    Here(Box<Chunk>),
    /// Once more to the worker that missed it.
    Again(Message),
}

impl Chain {
    /// The steps that a chunk of this content has before it.
    fn slip(&self, chunk: &Chunk) -> Vec<String> {
        self.queues()
            .filter(|step| step.filter.passes(&chunk.payload))
            .flat_map(|step| [topology::decorate(&step.name), CHUNKS.to_owned()])
            .collect()
    }

    fn queue(&self, name: &str) -> Option<&QueueStep> {
        self.queues().find(|step| step.name == name)
    }
}

impl Pipeline {
    /// Whether chunks of this process may come from the hands of others.
    fn has_foreign(&self) -> bool {
        self.chain.queues().next().is_some()
    }

    /// Gives the chunks of a submission their slips.
    pub(super) fn hand_slips(&self, first: &mut Chunk, rest: &mut [Chunk]) {
        if !self.has_foreign() {
            return;
        }
        first.slip = self.chain.slip(first);
        for chunk in rest {
            // The others begin with a way to our own workers.
            chunk.slip = std::iter::once(CHUNKS.to_owned())
                .chain(first.slip.iter().cloned())
                .collect();
        }
    }

    /// A chunk on its way to the queue that its slip names first.
    pub(super) async fn forward(
        &self,
        mut chunk: Chunk,
        reply: Option<ReplyTo>,
    ) -> Result<Message, Failure> {
        let key = chunk.slip.first().map_or(CHUNKS, String::as_str).to_owned();
        if self.has_foreign() {
            chunk.seal = Some(self.seal(&chunk).await?);
        }
        let step = topology::decorator(&key).and_then(|name| self.chain.queue(name));
        let id = format!("{}/{}", chunk.header.id, chunk.no);
        Ok(Message {
            expires: step.map(|step| step.timeout),
            reply,
            ..Message::new(key, id, super::to_body(&chunk)?)
        })
    }

    /// Takes up what came to `chunks`.
    pub(super) async fn arrive(&self, message: &Received) -> Result<Arrived, Failure> {
        let mut chunk: Chunk = serde_json::from_slice(&message.body).map_err(|error| {
            Failure::permanent(Reason::Invalid, format!("is not a chunk: {error}"))
        })?;
        if self.has_foreign() {
            let sealed = self.open(chunk.seal.as_deref()).await?;
            sealed.onto(&mut chunk);
            self.check(&mut chunk)?;
        }
        chunk.seal = None;
        match chunk.slip.first().map(String::as_str) {
            Some(CHUNKS) => {
                chunk.slip.remove(0);
            }
            Some(key) => {
                let name = topology::decorator(key).unwrap_or(key).to_owned();
                if let Some(again) = self.missed(&mut chunk, &name, message).await? {
                    return Ok(Arrived::Again(again));
                }
            }
            None => {}
        }
        Ok(Arrived::Here(Box::new(chunk)))
    }

    /// Holds what a foreign worker wrote to the rules that its producer kept.
    fn check(&self, chunk: &mut Chunk) -> Result<(), Failure> {
        let base = &self.app_base_url;
        check_content(&chunk.payload, base).map_err(|invalid| {
            let detail = format!("a foreign decorator broke it: {}", invalid.with_place());
            Failure::permanent(Reason::Invalid, detail)
        })?;
        let payload = &chunk.payload;
        for person in &mut chunk.people {
            let fits = |patch: &Map<String, Value>| {
                let own = payload.patched(patch).ok();
                own.is_some_and(|own| check_content(&own, base).is_ok())
            };
            if person.patch.as_ref().is_some_and(|patch| !fits(patch)) {
                tracing::warn!(submission.id = %chunk.header.id, user = person.user,
                    "a patch of a foreign decorator breaks the rules and was ignored");
                person.patch = None;
            }
        }
        Ok(())
    }

    /// What happens to a chunk whose step nobody took: by the step's policy it goes on without it,
    /// or comes round again until the schedule ends.
    async fn missed(
        &self,
        chunk: &mut Chunk,
        name: &str,
        message: &Received,
    ) -> Result<Option<Message>, Failure> {
        let step = self.chain.queue(name);
        let reason = message.headers.get(HEADER_REASON).map(String::as_str);
        let text = match reason {
            Some("rejected") => "the worker rejected it".to_owned(),
            Some("delivery_limit") => "it was handed out too often and never finished".to_owned(),
            _ => match step {
                Some(step) => format!("no answer within {} ms", step.timeout.as_millis()),
                None => "no answer in time".to_owned(),
            },
        };
        metrics::counter!(metric::DECORATIONS,
            "decorator" => name.to_owned(), "outcome" => "failed")
        .increment(1);
        if let Some(step) = step.filter(|step| step.policy == Policy::Retry) {
            let tries = message.tries() + 1;
            let Some(wait) = self.schedule.wait_after(tries, None) else {
                let detail = format!("decorator {name}: {text}, {tries} times");
                return Err(Failure::permanent(Reason::Timeout, detail));
            };
            let mut again = self.forward(chunk.clone(), message.reply.clone()).await?;
            again
                .headers
                .insert(HEADER_TRIES.to_owned(), tries.to_string());
            again.delay = Some(wait);
            again.expires = Some(step.timeout);
            return Ok(Some(again));
        }
        tracing::warn!(decorator = name, submission.id = %chunk.header.id, chunk.no = chunk.no,
            why = text, "a foreign decorator was skipped");
        chunk.notes.push(Note {
            step: name.to_owned(),
            text: format!("skipped: {text}"),
        });
        // Its step, and the way from it to us.
        let taken = chunk.slip.len().min(2);
        chunk.slip.drain(..taken);
        Ok(None)
    }

    async fn mac(&self) -> Result<Hmac<Sha256>, Failure> {
        let secret = self
            .seal
            .get_or_try_init(|| self.store.secret(SECRET))
            .await?;
        Hmac::new_from_slice(secret)
            .map_err(|error| Failure::permanent(Reason::Internal, error.to_string()))
    }

    async fn seal(&self, chunk: &Chunk) -> Result<String, Failure> {
        let sealed = Sealed {
            header: chunk.header.clone(),
            no: chunk.no,
            of: chunk.of,
            broadcast: chunk.broadcast,
            people: chunk
                .people
                .iter()
                .map(|one| Person {
                    patch: None,
                    ..one.clone()
                })
                .collect(),
            refs: chunk.refs.clone(),
            dropped: chunk.dropped,
            notes: chunk.notes.clone(),
            slip: chunk.slip.clone(),
            started_at: chunk.started_at,
        };
        let body = super::to_body(&sealed)?;
        let mut mac = self.mac().await?;
        mac.update(&body);
        let tag = mac.finalize().into_bytes();
        let text = |bytes: &[u8]| STANDARD_NO_PAD.encode(bytes);
        Ok(format!("{}.{}", text(&body), text(&tag)))
    }

    async fn open(&self, seal: Option<&str>) -> Result<Sealed, Failure> {
        let broken = |why: &str| {
            let detail = format!(
                "its seal {why}: a foreign decorator must carry the field `seal` along unchanged"
            );
            Failure::permanent(Reason::Invalid, detail)
        };
        let seal = seal.ok_or_else(|| broken("is missing"))?;
        let (body, tag) = seal.split_once('.').ok_or_else(|| broken("is cut"))?;
        let bytes = |text: &str| {
            let read = STANDARD_NO_PAD.decode(text);
            read.map_err(|_| broken("cannot be read"))
        };
        let (body, tag) = (bytes(body)?, bytes(tag)?);
        let mut mac = self.mac().await?;
        mac.update(&body);
        mac.verify_slice(&tag)
            .map_err(|_| broken("does not hold"))?;
        serde_json::from_slice(&body).map_err(|error| broken(&error.to_string()))
    }
}

impl Sealed {
    /// Puts what is sealed back in its place, and keeps of the rest what a foreign worker may
    /// change.
    fn onto(self, chunk: &mut Chunk) {
        let taken = chunk.slip.len() < self.slip.len();
        let mut came: HashMap<String, _> = std::mem::take(&mut chunk.people)
            .into_iter()
            .map(|person| (person.user, person.patch))
            .collect();
        let before = self.people.len();
        chunk.people = self
            .people
            .into_iter()
            .filter_map(|person| {
                let patch = came.remove(&person.user)?;
                Some(Person { patch, ..person })
            })
            .collect();
        let missing = u32::try_from(before - chunk.people.len()).unwrap_or(u32::MAX);
        let whole = self.broadcast && 0 < chunk.dropped;
        let step = self.slip.first().and_then(|key| topology::decorator(key));
        let known = self.notes.len();
        let news = std::mem::take(&mut chunk.notes).into_iter().skip(known);
        chunk.notes = self.notes;
        if let Some(step) = step.filter(|_| taken) {
            chunk.notes.extend(news.take(NOTES_MAX).map(|note| Note {
                step: step.to_owned(),
                text: note.text.chars().take(NOTE_CHARS_MAX).collect(),
            }));
            let outcome = if 0 < missing || whole {
                "dropped"
            } else {
                "changed"
            };
            metrics::counter!(metric::DECORATIONS,
                "decorator" => step.to_owned(), "outcome" => outcome)
            .increment(1);
        }
        chunk.header = self.header;
        chunk.no = self.no;
        chunk.of = self.of;
        chunk.broadcast = self.broadcast;
        chunk.refs = self.refs;
        chunk.dropped = self.dropped + missing + u32::from(whole && self.dropped == 0);
        chunk.started_at = self.started_at;
        // A step is taken once it is off the slip; a worker adds none and skips none but its own.
        chunk.slip = self.slip;
        if taken && step_is_first(&chunk.slip) {
            chunk.slip.remove(0);
        }
    }
}

/// Whether a foreign worker's step is the next on the slip.
fn step_is_first(slip: &[String]) -> bool {
    slip.first()
        .is_some_and(|key| topology::decorator(key).is_some())
}
