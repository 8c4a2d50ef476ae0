//! The chain of decorators, in configured order, each under its policy.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;

use futures::FutureExt as _;

use crate::catalog::Catalog;
use crate::catalog::CatalogUser;
use crate::chunk::Chunk;
use crate::chunk::Note;
use crate::failure::Failure;
use crate::failure::Reason;
use crate::notification::Payload;
use crate::processor::Decorated;
use crate::processor::Draft;
pub use crate::processor::Link;
pub use crate::processor::Policy;
pub use crate::processor::QueueStep;
use crate::processor::Stage;
pub use crate::processor::Step;
use crate::processor::personal;
use crate::submission::Submission;
use crate::telemetry::metric;
use crate::topology;

/// The steps of decoration, in configured order.
#[derive(Clone, Default)]
pub struct Chain(pub Vec<Step>);

/// What one link made of a notification.
enum Made {
    Kept,
    Changed(Payload),
    Dropped(String),
    Skipped(Failure),
}

impl From<Vec<Link>> for Chain {
    fn from(links: Vec<Link>) -> Self {
        Self(links.into_iter().map(Step::Here).collect())
    }
}

impl Chain {
    /// Whether a decorator may still mend what a submission as a whole lacks.
    pub fn decorates_whole(&self) -> bool {
        self.whole().next().is_some()
    }

    /// The steps of foreign workers.
    pub fn queues(&self) -> impl Iterator<Item = &QueueStep> {
        self.0.iter().filter_map(|step| match step {
            Step::Here(_) => None,
            Step::Queue(step) => Some(step),
        })
    }

    /// The links that run once for a submission.
    fn whole(&self) -> impl Iterator<Item = &Link> {
        links(&self.0).filter(|link| link.decorator.stage() == Stage::PerSubmission)
    }

    /// The links that run for each person, up to the step of the foreign worker `next`, or to the
    /// end: those since the foreign step before it.
    fn until(&self, next: Option<&str>) -> impl Iterator<Item = &Link> {
        let end = next
            .and_then(|next| {
                self.0
                    .iter()
                    .position(|step| matches!(step, Step::Queue(queue) if queue.name == next))
            })
            .unwrap_or(self.0.len());
        let begin = self.0[..end]
            .iter()
            .rposition(|step| matches!(step, Step::Queue(_)))
            .map_or(0, |last| last + 1);
        links(&self.0[begin..end]).filter(|link| link.decorator.stage() == Stage::PerPerson)
    }

    /// Decorates a submission as a whole. Returns what to note, and whether it is dropped.
    pub(super) async fn decorate_whole(
        &self,
        submission: &mut Submission,
    ) -> Result<(Vec<Note>, bool), Failure> {
        let mut notes = Vec::new();
        for link in self.whole() {
            let draft = Draft {
                submission: submission.header.id,
                origin: &submission.header.origin,
                user: None,
                person: None,
                payload: &submission.payload,
            };
            let made = link.run(draft).await?;
            let (note, dropped) = apply(link, made, &mut submission.payload);
            notes.extend(note);
            if dropped {
                return Ok((notes, true));
            }
        }
        Ok((notes, false))
    }

    /// Decorates a chunk for each of its people, up to the next foreign step on its slip. `wants`:
    /// whether a person wants what the processor of a name does with this content.
    pub(super) async fn decorate_people(
        &self,
        chunk: &mut Chunk,
        catalog: &dyn Catalog,
        wants: impl Fn(&str, &str, &Payload) -> bool + Send + Sync,
    ) -> Result<(), Failure> {
        let next = chunk
            .slip
            .first()
            .and_then(|key| topology::decorator(key))
            .map(str::to_owned);
        let links: Vec<&Link> = self.until(next.as_deref()).collect();
        let mut people = HashMap::new();
        if links.iter().any(|link| link.decorator.wants_people()) && !chunk.people.is_empty() {
            let refs: Vec<String> = chunk.people.iter().map(|one| one.user.clone()).collect();
            let known = catalog.people(&refs).await?;
            people.extend(refs.into_iter().zip(known));
        }
        for link in links {
            let name = link.decorator.name();
            let wanted = |user: &str, payload: &Payload| wants(name, user, payload);
            link.decorate_chunk(chunk, &people, wanted).await?;
        }
        Ok(())
    }
}

fn links(steps: &[Step]) -> impl Iterator<Item = &Link> {
    steps.iter().filter_map(|step| match step {
        Step::Here(link) => Some(link),
        Step::Queue(_) => None,
    })
}

impl Link {
    /// Decorates one chunk for each of its people who wants it; who is dropped is taken out. Equal
    /// notes are noted once. `people`: what the catalog knows of them, where a decorator wants it.
    ///
    /// # Errors
    /// What failed, where the policy is not to skip it; the chunk is then worth nothing.
    pub async fn decorate_chunk(
        &self,
        chunk: &mut Chunk,
        people: &HashMap<String, Option<CatalogUser>>,
        wanted: impl Fn(&str, &Payload) -> bool + Send + Sync,
    ) -> Result<(), Failure> {
        let (submission, origin) = (chunk.header.id, chunk.header.origin.clone());
        let mut notes: Vec<Note> = Vec::new();
        if chunk.broadcast && chunk.dropped == 0 {
            let draft = Draft {
                submission,
                origin: &origin,
                user: None,
                person: None,
                payload: &chunk.payload,
            };
            let made = self.run(draft).await?;
            let (note, drop) = apply(self, made, &mut chunk.payload);
            notes.extend(note);
            chunk.dropped += u32::from(drop);
        }
        let mut kept = Vec::with_capacity(chunk.people.len());
        for mut person in std::mem::take(&mut chunk.people) {
            let mut own = personal(&chunk.payload, person.patch.as_ref());
            if !wanted(&person.user, &own) {
                kept.push(person);
                continue;
            }
            let draft = Draft {
                submission,
                origin: &origin,
                user: Some(&person.user),
                person: people.get(&person.user).and_then(Option::as_ref),
                payload: &own,
            };
            let made = self.run(draft).await?;
            let (note, drop) = apply(self, made, &mut own);
            notes.extend(note.filter(|note| !notes.contains(note)));
            if drop {
                chunk.dropped += 1;
                continue;
            }
            let patch = chunk.payload.patch_to(&own);
            person.patch = Some(patch).filter(|patch| !patch.is_empty());
            kept.push(person);
        }
        chunk.people = kept;
        chunk.notes.extend(notes);
        Ok(())
    }

    /// Runs the decorator on one notification, if its filter lets it.
    async fn run(&self, draft: Draft<'_>) -> Result<Made, Failure> {
        if !self.decorator.filter().passes(draft.payload) {
            return Ok(Made::Kept);
        }
        let work = AssertUnwindSafe(self.decorator.decorate(draft)).catch_unwind();
        let result = match tokio::time::timeout(self.timeout, work).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(Failure::permanent(Reason::Panic, "it panicked")),
            Err(_) => Err(Failure::transient(
                Reason::Timeout,
                format!("took longer than {} ms", self.timeout.as_millis()),
            )),
        };
        let (outcome, made) = match result {
            Ok(Decorated::Keep) => ("kept", Ok(Made::Kept)),
            Ok(Decorated::Change(payload)) => ("changed", Ok(Made::Changed(payload))),
            Ok(Decorated::Drop(why)) => ("dropped", Ok(Made::Dropped(why))),
            Err(failure) if self.policy == Policy::Skip => ("failed", Ok(Made::Skipped(failure))),
            Err(failure) => ("failed", Err(failure)),
        };
        metrics::counter!(metric::DECORATIONS,
            "decorator" => self.decorator.name().to_owned(), "outcome" => outcome)
        .increment(1);
        made
    }
}

/// Applies what a link made to the content. Returns what to note, and whether it is dropped.
fn apply(link: &Link, made: Made, payload: &mut Payload) -> (Option<Note>, bool) {
    let name = link.decorator.name();
    let note = |text: String| {
        Some(Note {
            step: name.to_owned(),
            text,
        })
    };
    match made {
        Made::Kept => (None, false),
        Made::Changed(changed) => {
            let patch = payload.patch_to(&changed);
            *payload = changed;
            let fields: Vec<_> = patch.keys().map(String::as_str).collect();
            if fields.is_empty() {
                return (None, false);
            }
            (note(format!("{} set", fields.join(", "))), false)
        }
        Made::Dropped(why) => (note(format!("dropped: {why}")), true),
        Made::Skipped(failure) => {
            tracing::warn!(decorator = name, reason = %failure.reason, detail = failure.detail,
                "a decorator failed and was skipped");
            (note(format!("skipped: {failure}")), false)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use async_trait::async_trait;
    use uuid::Uuid;

    use super::*;
    use crate::processor::Decorator;

    /// Does what the title says.
    struct Fickle;

    #[async_trait]
    impl Decorator for Fickle {
        fn name(&self) -> &str {
            "fickle"
        }

        fn stage(&self) -> Stage {
            Stage::PerSubmission
        }

        async fn decorate(&self, draft: Draft<'_>) -> Result<Decorated, Failure> {
            assert_ne!(draft.payload.title, "panic", "on purpose");
            Ok(Decorated::Drop("not wanted".to_owned()))
        }
    }

    async fn run(title: &str, policy: Policy) -> Result<Made, Failure> {
        let link = Link {
            decorator: Arc::new(Fickle),
            policy,
            timeout: Duration::from_secs(5),
        };
        let payload = Payload {
            title: title.to_owned(),
            ..Payload::default()
        };
        let draft = Draft {
            submission: Uuid::nil(),
            origin: "ci",
            user: None,
            person: None,
            payload: &payload,
        };
        link.run(draft).await
    }

    #[tokio::test]
    async fn a_panic_is_a_failure_like_any_other_and_the_policy_decides() {
        let skipped = run("panic", Policy::Skip).await;
        assert!(matches!(skipped, Ok(Made::Skipped(failure)) if failure.reason == Reason::Panic));
        let failed = run("panic", Policy::Retry).await;
        assert!(matches!(failed, Err(failure) if failure.reason == Reason::Panic));
    }

    #[tokio::test]
    async fn what_is_dropped_is_noted_with_why() {
        let link = Link {
            decorator: Arc::new(Fickle),
            policy: Policy::Skip,
            timeout: Duration::from_secs(5),
        };
        let step = run("anything", Policy::Skip).await.unwrap();
        let (note, dropped) = apply(&link, step, &mut Payload::default());
        assert!(dropped);
        assert_eq!(note.unwrap().text, "dropped: not wanted");
    }
}
