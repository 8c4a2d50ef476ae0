//! The chain of decorators, in configured order, each under its policy.

use std::collections::HashSet;
use std::panic::AssertUnwindSafe;

use futures::FutureExt as _;

use super::Parcel;
use crate::chunk::Note;
use crate::failure::Failure;
use crate::failure::Reason;
use crate::notification::Payload;
use crate::processor::Decorated;
use crate::processor::Draft;
pub use crate::processor::Link;
pub use crate::processor::Policy;
use crate::processor::Stage;
use crate::processor::personal;
use crate::submission::Submission;
use crate::telemetry::metric;

/// The decorators of this process.
#[derive(Clone, Default)]
pub struct Chain(pub Vec<Link>);

/// What one link made of a notification.
enum Step {
    Kept,
    Changed(Payload),
    Dropped(String),
    Skipped(Failure),
}

impl Chain {
    /// Whether a decorator may still mend what a submission as a whole lacks.
    pub fn decorates_whole(&self) -> bool {
        self.stage(Stage::PerSubmission).next().is_some()
    }

    fn stage(&self, stage: Stage) -> impl Iterator<Item = &Link> {
        self.0
            .iter()
            .filter(move |link| link.decorator.stage() == stage)
    }

    /// Decorates a submission as a whole. Returns what to note, and whether it is dropped.
    pub(super) async fn decorate_whole(
        &self,
        submission: &mut Submission,
    ) -> Result<(Vec<Note>, bool), Failure> {
        let mut notes = Vec::new();
        for link in self.stage(Stage::PerSubmission) {
            let draft = Draft {
                submission: submission.header.id,
                origin: &submission.header.origin,
                user: None,
                payload: &submission.payload,
            };
            let step = link.run(draft).await?;
            let (note, dropped) = apply(link, step, &mut submission.payload);
            notes.extend(note);
            if dropped {
                return Ok((notes, true));
            }
        }
        Ok((notes, false))
    }

    /// Decorates chunks for each of their people. Returns, for each chunk, the people (or, for a
    /// broadcast, the empty string) who are dropped.
    pub(super) async fn decorate_people(
        &self,
        parcels: &mut [Parcel],
    ) -> Result<Vec<HashSet<String>>, Failure> {
        let mut dropped = vec![HashSet::new(); parcels.len()];
        for (parcel, dropped) in parcels.iter_mut().zip(&mut dropped) {
            for link in self.stage(Stage::PerPerson) {
                link.decorate_chunk(parcel, dropped).await?;
            }
        }
        Ok(dropped)
    }
}

impl Link {
    /// Decorates one chunk for each of its people. Equal notes are noted once.
    async fn decorate_chunk(
        &self,
        parcel: &mut Parcel,
        dropped: &mut HashSet<String>,
    ) -> Result<(), Failure> {
        let chunk = &mut parcel.chunk;
        let (submission, origin) = (chunk.header.id, chunk.header.origin.clone());
        let mut notes: Vec<Note> = Vec::new();
        if chunk.broadcast {
            let draft = Draft {
                submission,
                origin: &origin,
                user: None,
                payload: &chunk.payload,
            };
            let step = self.run(draft).await?;
            let (note, drop) = apply(self, step, &mut chunk.payload);
            notes.extend(note);
            if drop {
                dropped.insert(String::new());
            }
        }
        for person in &mut chunk.people {
            if dropped.contains(&person.user) {
                continue;
            }
            let mut own = personal(&chunk.payload, person.patch.as_ref());
            let draft = Draft {
                submission,
                origin: &origin,
                user: Some(&person.user),
                payload: &own,
            };
            let step = self.run(draft).await?;
            let (note, drop) = apply(self, step, &mut own);
            if drop {
                dropped.insert(person.user.clone());
            }
            let patch = chunk.payload.patch_to(&own);
            person.patch = Some(patch).filter(|patch| !patch.is_empty());
            notes.extend(note.filter(|note| !notes.contains(note)));
        }
        chunk.notes.extend(notes);
        Ok(())
    }

    /// Runs the decorator on one notification, if its filter lets it.
    async fn run(&self, draft: Draft<'_>) -> Result<Step, Failure> {
        if !self.decorator.filter().passes(draft.payload) {
            return Ok(Step::Kept);
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
        let (outcome, step) = match result {
            Ok(Decorated::Keep) => ("kept", Ok(Step::Kept)),
            Ok(Decorated::Change(payload)) => ("changed", Ok(Step::Changed(payload))),
            Ok(Decorated::Drop(why)) => ("dropped", Ok(Step::Dropped(why))),
            Err(failure) if self.policy == Policy::Skip => ("failed", Ok(Step::Skipped(failure))),
            Err(failure) => ("failed", Err(failure)),
        };
        metrics::counter!(metric::DECORATIONS,
            "decorator" => self.decorator.name().to_owned(), "outcome" => outcome)
        .increment(1);
        step
    }
}

/// Applies a step to the content. Returns what to note, and whether it is dropped.
fn apply(link: &Link, step: Step, payload: &mut Payload) -> (Option<Note>, bool) {
    let name = link.decorator.name();
    let note = |text: String| {
        Some(Note {
            step: name.to_owned(),
            text,
        })
    };
    match step {
        Step::Kept => (None, false),
        Step::Changed(changed) => {
            let patch = payload.patch_to(&changed);
            *payload = changed;
            let fields: Vec<_> = patch.keys().map(String::as_str).collect();
            if fields.is_empty() {
                return (None, false);
            }
            (note(format!("{} set", fields.join(", "))), false)
        }
        Step::Dropped(why) => (note(format!("dropped: {why}")), true),
        Step::Skipped(failure) => {
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

    async fn run(title: &str, policy: Policy) -> Result<Step, Failure> {
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
            payload: &payload,
        };
        link.run(draft).await
    }

    #[tokio::test]
    async fn a_panic_is_a_failure_like_any_other_and_the_policy_decides() {
        let skipped = run("panic", Policy::Skip).await;
        assert!(matches!(skipped, Ok(Step::Skipped(failure)) if failure.reason == Reason::Panic));
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
