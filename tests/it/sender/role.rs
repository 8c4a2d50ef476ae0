//! What the sender role keeps, whatever the sender.

use std::sync::Arc;
use std::sync::Mutex;

use async_trait::async_trait;
use serde_json::json;
use tidings::delivery::DeliveryState;
use tidings::failure::Failure;
use tidings::failure::Reason;
use tidings::processor::Audience;
use tidings::processor::Outcome;
use tidings::processor::Outgoing;
use tidings::processor::Sender;

use super::house;

/// Panics at one of its targets.
#[derive(Default)]
struct Nervous(Mutex<Vec<String>>);

#[async_trait]
impl Sender for Nervous {
    fn name(&self) -> &str {
        "nervous"
    }

    fn audience(&self) -> Audience {
        Audience::PerSubmission
    }

    async fn targets(&self, _: &Outgoing<'_>) -> Result<Vec<String>, Failure> {
        Ok(["a", "bad", "c"].map(str::to_owned).to_vec())
    }

    async fn send(&self, one: &Outgoing<'_>) -> Outcome {
        assert_ne!(one.target, "bad", "this is a test of panics");
        self.0.lock().unwrap().push(one.target.to_owned());
        Outcome::Sent { provider_id: None }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_fails_its_own_delivery_and_none_beside_it() {
    let sender = Arc::new(Nervous::default());
    let house = house(Arc::clone(&sender) as Arc<dyn Sender>).await;
    let recipients = json!({"type": "broadcast"});
    let story = house
        .story_of("external:ci", recipients, json!({"title": "t"}))
        .await;
    let mut sent = sender.0.lock().unwrap().clone();
    sent.sort();
    assert_eq!(sent, ["a", "c"]);
    let ended: Vec<_> = story
        .deliveries
        .iter()
        .filter(|one| one.state == DeliveryState::Failed)
        .map(|one| (one.target.as_str(), one.reason, one.attempts))
        .collect();
    assert_eq!(ended, [("bad", Some(Reason::Panic), 1)]);
}
