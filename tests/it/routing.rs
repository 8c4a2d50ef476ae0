//! For whom senders send: each person, those who are named, once per submission; what they are
//! given, and what comes of waiting.
#![cfg(feature = "sqlite")]

use std::collections::HashMap;
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
use tidings::store::Timeline;

use crate::http::client;
use crate::http::house::House;
use crate::http::house::Plan;
use crate::support::app::eventually;

/// What a sender was given: user, target, recipients, earlier.
type Given = (Option<String>, String, Vec<String>, Option<String>);

/// A sender that remembers.
struct Memory {
    name: &'static str,
    audience: Audience,
    targets: Vec<&'static str>,
    fans_out: bool,
    /// How often it says that it waits before it sends, by target.
    waits: Mutex<HashMap<String, u32>>,
    given: Mutex<Vec<Given>>,
}

impl Memory {
    fn new(name: &'static str, audience: Audience, targets: &[&'static str]) -> Self {
        Self {
            name,
            audience,
            targets: targets.to_vec(),
            fans_out: false,
            waits: Mutex::default(),
            given: Mutex::default(),
        }
    }

    /// What it was given, sorted.
    fn given(&self) -> Vec<Given> {
        let mut given = self.given.lock().unwrap().clone();
        given.sort();
        given
    }
}

#[async_trait]
impl Sender for Memory {
    fn name(&self) -> &str {
        self.name
    }

    fn audience(&self) -> Audience {
        self.audience
    }

    fn fans_out(&self) -> bool {
        self.fans_out
    }

    fn updates(&self) -> bool {
        true
    }

    async fn targets(&self, _: &Outgoing<'_>) -> Result<Vec<String>, Failure> {
        Ok(self.targets.iter().map(|one| (*one).to_owned()).collect())
    }

    async fn send(&self, one: &Outgoing<'_>) -> Outcome {
        let mut given = self.given.lock().unwrap();
        if let Some(left) = self.waits.lock().unwrap().get_mut(one.target)
            && 0 < *left
        {
            *left -= 1;
            return Outcome::Waits {
                after: Duration::from_millis(1),
                reason: Reason::Rate,
                detail: "full for now".to_owned(),
            };
        }
        given.push((
            one.user.map(str::to_owned),
            one.target.to_owned(),
            one.recipients.to_vec(),
            one.earlier.map(str::to_owned),
        ));
        Outcome::Sent {
            provider_id: Some(format!("{}-{}", self.name, given.len())),
        }
    }
}

async fn house(senders: &[&Arc<Memory>]) -> House {
    let entity = |kind: &str, name: &str, spec: Value| {
        json!({"apiVersion": "backstage.io/v1alpha1", "kind": kind, "metadata": {"name": name},
            "spec": spec})
    };
    House::build(Plan {
        subjects: vec!["ci".into()],
        catalog: vec![
            entity("User", "ann", json!({"memberOf": ["payments"]})),
            entity("User", "bo", json!({"memberOf": ["payments"]})),
            entity("Group", "payments", json!({"type": "team", "children": []})),
            entity("Group", "empty", json!({"type": "team", "children": []})),
        ],
        senders: senders
            .iter()
            .map(|one| Arc::clone(one) as Arc<dyn Sender>)
            .collect(),
        ..Plan::default()
    })
    .await
}

impl House {
    /// Sends as `ci`, and returns the submission's story once none of its deliveries is open.
    pub(crate) async fn story(&self, recipients: Value, payload: Value) -> Timeline {
        self.story_of("ci", recipients, payload).await
    }

    /// The same, sent by somebody.
    pub(crate) async fn story_of(
        &self,
        origin: &str,
        recipients: Value,
        payload: Value,
    ) -> Timeline {
        let body = json!({"recipients": recipients, "payload": payload});
        let answer = client()
            .post(self.served.url("/api/notifications/notifications"))
            .bearer_auth(Self::token(origin))
            .json(&body)
            .send()
            .await
            .unwrap();
        let answer: Value = answer.json().await.unwrap();
        let id = answer["submission"].as_str().unwrap().parse().unwrap();
        eventually("every delivery to end", async || {
            let story = self
                .store
                .timeline(&Find::Id(id), None, 100)
                .await
                .unwrap()?;
            let ended = story.deliveries.iter().all(|one| one.state.is_final());
            ended.then_some(story)
        })
        .await
    }
}

fn entities(refs: &[&str]) -> Value {
    json!({"type": "entity", "entityRef": refs})
}

fn person(name: &str, target: &str) -> Given {
    (
        Some(format!("user:default/{name}")),
        target.to_owned(),
        vec![],
        None,
    )
}

fn whole(target: &str, recipients: &[&str]) -> Given {
    let recipients = recipients.iter().map(|one| (*one).to_owned()).collect();
    (None, target.to_owned(), recipients, None)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_audience_gets_its_own_deliveries() {
    let each = Arc::new(Memory::new("each", Audience::PerPerson, &[]));
    let once = Arc::new(Memory::new("once", Audience::PerSubmission, &[]));
    let rooms = Arc::new(Memory::new(
        "rooms",
        Audience::NamedAndSubmission,
        &["#a", "#b"],
    ));
    let house = house(&[&each, &once, &rooms]).await;
    // A person is named as somebody wrote it; the members of the group are not named.
    let refs = ["group:default/payments", "User:ANN", "user:default/zoe"];
    house.story(entities(&refs), json!({"title": "t"})).await;
    let mut people: Vec<_> = each.given().into_iter().filter_map(|one| one.0).collect();
    people.sort();
    assert_eq!(people.len(), 4, "{people:?}");
    assert_eq!(once.given(), [whole("", &refs)]);
    let mut named = vec![
        whole("#a", &refs),
        whole("#b", &refs),
        person("ann", ""),
        person("zoe", ""),
        (Some("User:ANN".to_owned()), String::new(), vec![], None),
    ];
    named.sort();
    assert_eq!(rooms.given(), named);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_submission_to_people_alone_asks_for_no_rooms_and_an_empty_group_for_its_own() {
    let once = Arc::new(Memory::new("once", Audience::PerSubmission, &[]));
    let rooms = Arc::new(Memory::new("rooms", Audience::NamedAndSubmission, &["#a"]));
    let house = house(&[&once, &rooms]).await;
    let story = house
        .story(entities(&["user:default/ann"]), json!({"title": "t"}))
        .await;
    assert_eq!(story.deliveries.len(), 2, "{:?}", story.deliveries);
    assert_eq!(rooms.given(), [person("ann", "")]);
    let empty = ["group:default/empty"];
    house.story(entities(&empty), json!({"title": "t"})).await;
    assert_eq!(rooms.given(), [whole("#a", &empty), person("ann", "")]);
    // A typo alone is told to nobody.
    let story = house
        .story(entities(&["group:default/typo"]), json!({"title": "t"}))
        .await;
    assert_eq!(story.deliveries, []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broadcast_goes_to_the_targets_alone() {
    let once = Arc::new(Memory::new("once", Audience::PerSubmission, &[]));
    let rooms = Arc::new(Memory::new(
        "rooms",
        Audience::NamedAndSubmission,
        &["#a", "#a"],
    ));
    let none = Arc::new(Memory::new("none", Audience::NamedAndSubmission, &[]));
    let house = house(&[&once, &rooms, &none]).await;
    let story = house
        .story(json!({"type": "broadcast"}), json!({"title": "t"}))
        .await;
    assert_eq!(once.given(), [whole("", &[])]);
    assert_eq!(rooms.given(), [whole("#a", &[])]);
    assert_eq!(none.given(), []);
    let skipped = story
        .deliveries
        .iter()
        .find(|one| one.channel == "none")
        .unwrap();
    assert_eq!(skipped.state, DeliveryState::Skipped);
    assert_eq!(skipped.reason, Some(Reason::NoAddress));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_may_have_several_targets() {
    let spaces = Arc::new(Memory {
        fans_out: true,
        ..Memory::new("spaces", Audience::PerPerson, &["one", "two"])
    });
    let house = house(&[&spaces]).await;
    house
        .story(entities(&["user:default/ann"]), json!({"title": "t"}))
        .await;
    assert_eq!(spaces.given(), [person("ann", "one"), person("ann", "two")]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delivery_that_waits_comes_again_uncounted_and_holds_up_no_other() {
    let rooms = Arc::new(Memory::new(
        "rooms",
        Audience::PerSubmission,
        &["#full", "#free"],
    ));
    // More often than the schedule has tries.
    rooms.waits.lock().unwrap().insert("#full".to_owned(), 12);
    let house = house(&[&rooms]).await;
    let refs = ["group:default/payments"];
    let story = house.story(entities(&refs), json!({"title": "t"})).await;
    let given: Vec<_> = rooms
        .given
        .lock()
        .unwrap()
        .iter()
        .map(|one| one.1.clone())
        .collect();
    assert_eq!(given, ["#free", "#full"]);
    let full = story
        .deliveries
        .iter()
        .find(|one| one.target == "#full")
        .unwrap();
    assert_eq!((full.state, full.attempts), (DeliveryState::Sent, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sender_that_updates_knows_what_it_sent_for_the_scope() {
    let rooms = Arc::new(Memory::new("rooms", Audience::NamedAndSubmission, &["#a"]));
    let house = house(&[&rooms]).await;
    for title in ["one", "two"] {
        let payload = json!({"title": title, "scope": "s"});
        house.story(json!({"type": "broadcast"}), payload).await;
    }
    house
        .story(json!({"type": "broadcast"}), json!({"title": "three"}))
        .await;
    let earlier: Vec<_> = rooms
        .given
        .lock()
        .unwrap()
        .iter()
        .map(|one| one.3.clone())
        .collect();
    assert_eq!(earlier, [None, Some("rooms-1".to_owned()), None]);
}
