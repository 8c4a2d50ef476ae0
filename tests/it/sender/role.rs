//! What the sender role keeps, whatever the sender.

use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;
use serde_json::json;
use tidings::delivery::DeliveryState;
use tidings::failure::Failure;
use tidings::failure::Reason;
use tidings::processor::Audience;
use tidings::processor::Outcome;
use tidings::processor::Outgoing;
use tidings::processor::Sender;
use tidings::store::Find;

use super::house;
use crate::http::client;
use crate::http::house::House;
use crate::http::house::Plan;
use crate::support::app::eventually;

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
async fn what_is_above_the_rate_waits_uncounted() {
    let sender = Arc::new(Nervous::default());
    let house = House::build(Plan {
        subjects: vec!["external:ci".into()],
        senders: vec![Arc::clone(&sender) as Arc<dyn Sender>],
        rate: Some(Duration::from_secs(3_600)),
        ..Plan::default()
    })
    .await;
    let body = json!({"recipients": {"type": "broadcast"}, "payload": {"title": "t"}});
    let answer = client()
        .post(house.served.url("/api/notifications/notifications"))
        .bearer_auth(House::token("external:ci"))
        .json(&body)
        .send()
        .await
        .unwrap();
    let answer: Value = answer.json().await.unwrap();
    let id = answer["submission"].as_str().unwrap().parse().unwrap();
    let waiting = eventually("two to be put off", async || {
        let story = house.store.timeline(&Find::Id(id), None, 10).await;
        let mut waiting = story.unwrap()?.deliveries;
        waiting.retain(|one| one.reason == Some(Reason::Rate));
        (waiting.len() == 2).then_some(waiting)
    })
    .await;
    for one in waiting {
        assert_eq!((one.state, one.attempts), (DeliveryState::Pending, 0));
    }
    assert!(sender.0.lock().unwrap().len() <= 1);
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
