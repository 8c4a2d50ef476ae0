//! The processors of the cases: each is a decorator of submissions, one of people, and a sender,
//! as the peer's one interface is all three; and each tells when it was called.

use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use serde::Deserialize;
use serde_json::Value;
use serde_json::json;
use tidings::decorator::Link;
use tidings::decorator::Policy;
use tidings::failure::Failure;
use tidings::failure::Reason;
use tidings::notification::Payload;
use tidings::processor::Decorated;
use tidings::processor::Decorator;
use tidings::processor::Draft;
use tidings::processor::Filter;
use tidings::processor::Outcome;
use tidings::processor::Outgoing;
use tidings::processor::Sender;
use tidings::processor::Stage;

/// The hooks that were called, in order.
pub(super) type Calls = Arc<Mutex<Vec<Value>>>;

/// A processor as a case describes it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Described {
    name: String,
    #[serde(default)]
    filters: Filter,
    throw_on: Option<String>,
    set_title: Option<String>,
}

impl Described {
    /// A name alone, or an object.
    pub(super) fn read(value: &Value) -> Self {
        match value.as_str() {
            Some(name) => Self {
                name: name.to_owned(),
                ..Self::default()
            },
            None => serde_json::from_value(value.clone()).unwrap(),
        }
    }
}

/// One hook of a described processor.
struct Hook {
    described: Described,
    stage: Stage,
    word: &'static str,
    /// Lower-case.
    name: String,
    calls: Calls,
}

impl Hook {
    fn new(described: &Described, stage: Stage, word: &'static str, calls: &Calls) -> Self {
        Self {
            described: described.clone(),
            stage,
            word,
            name: described.name.to_lowercase(),
            calls: Arc::clone(calls),
        }
    }

    fn called(&self) -> Result<(), Failure> {
        let call = json!({"hook": self.word, "name": self.described.name});
        self.calls.lock().unwrap().push(call);
        if self.described.throw_on.as_deref() == Some(self.word) {
            return Err(Failure::permanent(Reason::Internal, "as the case wants it"));
        }
        Ok(())
    }
}

/// All hooks of a processor.
pub(super) fn hooks(described: &Described, calls: &Calls) -> (Vec<Link>, Arc<dyn Sender>) {
    let link = |stage, word| Link {
        decorator: Arc::new(Hook::new(described, stage, word, calls)),
        policy: Policy::Skip,
        timeout: Duration::from_secs(5),
    };
    let links = vec![
        link(Stage::PerSubmission, "processOptions"),
        link(Stage::PerPerson, "preProcess"),
    ];
    let sender = Hook::new(described, Stage::PerPerson, "postProcess", calls);
    (links, Arc::new(sender))
}

#[async_trait]
impl Decorator for Hook {
    fn name(&self) -> &str {
        &self.name
    }

    fn stage(&self) -> Stage {
        self.stage
    }

    fn filter(&self) -> &Filter {
        &self.described.filters
    }

    async fn decorate(&self, draft: Draft<'_>) -> Result<Decorated, Failure> {
        self.called()?;
        Ok(match (&self.described.set_title, self.stage) {
            (Some(title), Stage::PerSubmission) => Decorated::Change(Payload {
                title: title.clone(),
                ..draft.payload.clone()
            }),
            _ => Decorated::Keep,
        })
    }
}

#[async_trait]
impl Sender for Hook {
    fn name(&self) -> &str {
        &self.name
    }

    fn channel(&self) -> &str {
        &self.described.name
    }

    fn filter(&self) -> &Filter {
        &self.described.filters
    }

    /// A broadcast is told once.
    async fn targets(&self, _: &Outgoing<'_>) -> Result<Vec<String>, Failure> {
        Ok(vec!["everybody".to_owned()])
    }

    async fn send(&self, _: &Outgoing<'_>) -> Outcome {
        match self.called() {
            Ok(()) => Outcome::Sent { provider_id: None },
            Err(failure) => Outcome::Failed(failure),
        }
    }
}
