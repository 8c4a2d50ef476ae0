//! The live catalog, against a stand-in that answers as `@backstage/plugin-catalog-backend` does.

mod stand_in;

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use serde_json::json;
use tidings::backstage::Backstage;
use tidings::backstage::Discovery;
use tidings::backstage::FixedToken;
use tidings::catalog::Catalog as _;
use tidings::catalog::backstage::BackstageCatalog;
use tidings::config::BackstageSettings;
use tidings::config::CatalogSettings;
use tidings::config::CatalogSource;
use tidings::failure::Kind;
use tidings::failure::Reason;

use self::stand_in::StandIn;
use self::stand_in::TOKEN;

const DAY: Duration = Duration::from_secs(86_400);

/// The catalog of a stand-in; answers are believed for `ttl`, and serve for `stale`.
fn catalog(at: &str, token: &str, ttl: Duration, stale: Duration) -> BackstageCatalog {
    let settings = BackstageSettings {
        base_url: Some(at.parse().unwrap()),
        ..BackstageSettings::default()
    };
    let tokens = Arc::new(FixedToken::new(token));
    let backstage = Backstage::new(Discovery::new(&settings), tokens).unwrap();
    let settings = CatalogSettings {
        source: CatalogSource::Backstage,
        files: Vec::new(),
        ttl,
        people_ttl: ttl,
        stale,
    };
    BackstageCatalog::new(backstage, &settings)
}

fn user(name: &str) -> Value {
    json!({"kind": "User", "metadata": {"name": name, "namespace": "default", "uid": name},
        "spec": {"profile": {"displayName": name, "email": format!("{name}@example.com")}}})
}

fn group(name: &str, members: &[String]) -> Value {
    let member = |one: &String| json!({"type": "hasMember", "targetRef": one});
    let relations: Vec<Value> = members.iter().map(member).collect();
    json!({"kind": "Group", "metadata": {"name": name}, "spec": {"type": "team"},
        "relations": relations})
}

fn strings(refs: &[&str]) -> Vec<String> {
    refs.iter().map(|one| (*one).to_owned()).collect()
}

#[tokio::test]
async fn people_and_groups_are_found_and_what_is_known_is_not_asked_again() {
    let team = group("team", &strings(&["user:default/ann"]));
    let stand_in = StandIn::start(vec![user("ann"), user("bob"), team]).await;
    let catalog = catalog(&stand_in.url(), TOKEN, DAY, DAY);
    for _ in 0..2 {
        let refs = strings(&["User:Ann", "user:nobody", "group:team", "user:default/bob"]);
        let people = catalog.people(&refs).await.unwrap();
        let ann = people[0].as_ref().unwrap();
        assert_eq!(ann.reference, "user:default/ann");
        assert_eq!(ann.email.as_deref(), Some("ann@example.com"));
        assert_eq!(
            people[3].as_ref().unwrap().display_name.as_deref(),
            Some("bob")
        );
        assert_eq!((&people[1], &people[2]), (&None, &None));
        let found = catalog.entities(&strings(&["group:team"])).await.unwrap();
        assert_eq!(found[0].relations[0].target_ref, "user:default/ann");
    }
    assert_eq!(stand_in.asked(), 2);
    assert_eq!(catalog.describe().await.unwrap(), "2 users, 1 group");
    assert_eq!(catalog.refs().await, None);
}

#[tokio::test]
async fn refs_are_asked_for_in_hundreds_and_everybody_page_by_page() {
    let names: Vec<String> = (0..2_050).map(|no| format!("u{no:04}")).collect();
    let stand_in = StandIn::start(names.iter().map(|name| user(name)).collect()).await;
    let catalog = catalog(&stand_in.url(), TOKEN, DAY, DAY);
    let refs: Vec<String> = names
        .iter()
        .map(|name| format!("user:default/{name}"))
        .collect();
    let people = catalog.people(&refs).await.unwrap();
    assert!(people.iter().all(Option::is_some));
    assert_eq!(stand_in.asked(), 21);
    assert_eq!(stand_in.largest_question(), 100);
    let addresses = catalog.addresses().await.unwrap();
    assert_eq!(
        (addresses.len(), &*addresses[2_049]),
        (2_050, "u2049@example.com")
    );
    assert_eq!(stand_in.asked(), 24);
}

#[tokio::test]
async fn those_who_ask_the_same_at_once_ask_once() {
    let stand_in = StandIn::start(vec![user("ann")]).await;
    let catalog = catalog(&stand_in.url(), TOKEN, DAY, DAY);
    let refs = strings(&["user:ann"]);
    let held = stand_in.hold();
    let asking = futures::future::join_all((0..20).map(|_| catalog.people(&refs)));
    let (answers, ()) = tokio::join!(asking, async {
        stand_in.question().await;
        drop(held);
    });
    assert!(answers.iter().all(|one| one.as_ref().unwrap()[0].is_some()));
    assert_eq!(stand_in.asked(), 1);
}

#[tokio::test]
async fn while_it_is_away_old_answers_serve_but_not_that_somebody_was_unknown() {
    let stand_in = StandIn::start(vec![user("ann")]).await;
    let catalog = catalog(&stand_in.url(), TOKEN, Duration::ZERO, DAY);
    let ann = strings(&["user:ann"]);
    let known = catalog.people(&ann).await.unwrap();
    let nobody = strings(&["user:new"]);
    assert_eq!(catalog.people(&nobody).await.unwrap(), [None]);
    stand_in.answer_with(503);
    assert_eq!(catalog.people(&ann).await.unwrap(), known);
    let asked = stand_in.asked();
    assert_eq!(catalog.people(&ann).await.unwrap(), known);
    assert_eq!(stand_in.asked(), asked, "it is given a pause");
    let failure = catalog.people(&nobody).await.unwrap_err();
    assert_eq!(
        (failure.kind, failure.reason),
        (Kind::Dependency, Reason::Server)
    );
    assert!(catalog.ready().await.is_err());
    stand_in.answer_well();
    catalog.ready().await.unwrap();
    stand_in.add(user("new"));
    assert!(catalog.people(&nobody).await.unwrap()[0].is_some());
}

#[tokio::test]
async fn without_stale_answers_everything_waits_for_the_catalog() {
    let stand_in = StandIn::start(vec![user("ann")]).await;
    let catalog = catalog(&stand_in.url(), TOKEN, Duration::ZERO, Duration::ZERO);
    let ann = strings(&["user:ann"]);
    assert!(catalog.people(&ann).await.unwrap()[0].is_some());
    stand_in.answer_with(500);
    let failure = catalog.people(&ann).await.unwrap_err();
    assert_eq!(failure.kind, Kind::Dependency);
}

#[tokio::test]
async fn a_refused_token_and_a_wrong_address_are_said_with_what_to_do() {
    let stand_in = StandIn::start(vec![]).await;
    let ann = strings(&["user:ann"]);
    let wrong = catalog(&stand_in.url(), "canary-token", DAY, DAY);
    let failure = wrong.people(&ann).await.unwrap_err();
    assert_eq!(
        (failure.kind, failure.reason),
        (Kind::Dependency, Reason::Auth)
    );
    assert!(failure.detail.contains("externalAccess"), "{failure}");
    assert!(!failure.detail.contains("canary"), "{failure}");
    let elsewhere = catalog(&format!("{}/x", stand_in.url()), TOKEN, DAY, DAY);
    let failure = elsewhere.people(&ann).await.unwrap_err();
    assert_eq!(
        (failure.kind, failure.reason),
        (Kind::Dependency, Reason::Config)
    );
    assert!(failure.detail.contains("no such route"), "{failure}");
    let nobody = catalog(&stand_in.url(), TOKEN, DAY, DAY);
    let described = nobody.describe().await.unwrap();
    assert!(described.contains("permission"), "{described}");
}

#[tokio::test]
async fn a_group_of_a_hundred_thousand_is_one_question() {
    let members: Vec<String> = (0..100_000)
        .map(|no| format!("user:default/u{no}"))
        .collect();
    let stand_in = StandIn::start(vec![group("all", &members)]).await;
    let catalog = catalog(&stand_in.url(), TOKEN, DAY, DAY);
    for _ in 0..2 {
        let found = catalog.entities(&strings(&["group:all"])).await.unwrap();
        assert_eq!(found[0].relations.len(), 100_000);
    }
    assert_eq!(stand_in.asked(), 1);
}
