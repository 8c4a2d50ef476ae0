//! Who is written to, and who is not.

use serde_json::Value;
use serde_json::json;
use tidings::catalog::CatalogUser;
use tidings::failure::Kind;
use tidings::failure::Reason;
use tidings::processor::Outcome;
use tidings::processor::Outgoing;
use tidings::processor::Sender as _;

use super::ann;
use super::failure;
use super::outgoing;
use super::person;
use super::place;
use super::plain;
use super::send;
use crate::support::smtp::Smtp;

#[tokio::test]
async fn who_has_no_usable_address_is_skipped_with_the_reason() {
    let (place, smtp) = (place(), Smtp::start().await);
    let email = place.smtp(&smtp, json!({}));
    let payload = plain();
    let nowhere = CatalogUser::default();
    for (person, says) in [
        (None, "not in the catalog"),
        (Some(&nowhere), "no spec.profile.email in the catalog"),
        (Some(&person("o'brien@example.com")), "not one plain"),
        (Some(&person(" annabel@example.com")), "not one plain"),
        (Some(&person("annabel@example..com")), "not one that mail"),
    ] {
        let outcome = email.send(&outgoing(&payload, person)).await;
        let Outcome::Skipped { reason, detail } = outcome else {
            panic!("{outcome:?} for {person:?}");
        };
        assert_eq!(reason, Reason::NoAddress);
        assert!(
            detail.contains(says) && !detail.contains("example"),
            "{detail}"
        );
    }
    assert!(smtp.mails().is_empty());
}

#[tokio::test]
async fn an_address_beyond_ascii_is_written_to_where_the_relay_can() {
    let (place, payload) = (place(), plain());
    let joerg = person("jörg@example.com");
    let able = Smtp::start().await;
    let sent = place
        .smtp(&able, json!({}))
        .send(&outgoing(&payload, Some(&joerg)))
        .await;
    assert!(matches!(sent, Outcome::Sent { .. }), "{sent:?}");
    assert_eq!(able.mails()[0].to, ["jörg@example.com"]);
    let unable = Smtp::setup().without_utf8().start().await;
    let email = place.smtp(&unable, json!({}));
    let refused = failure(email.send(&outgoing(&payload, Some(&joerg))).await);
    assert_eq!(
        (refused.kind, refused.reason),
        (Kind::Permanent, Reason::Rejected)
    );
    assert!(matches!(send(&email, &payload).await, Outcome::Sent { .. }));
}

#[tokio::test]
async fn a_broadcast_goes_to_whom_the_configuration_says_each_once() {
    let place = place();
    let email = |more: Value| {
        let mut config =
            json!({"transportConfig": {"transport": "stream"}, "sender": "t@example.com"});
        config
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        place.email(config)
    };
    let payload = plain();
    let broadcast = Outgoing {
        user: None,
        ..outgoing(&payload, None)
    };
    for (config, expected) in [
        (json!({}), vec![]),
        (json!({"broadcastConfig": {"receiver": "none"}}), vec![]),
        (
            json!({"broadcastConfig": {"receiver": "users"}}),
            vec!["annabel@example.com", "bo@example.com"],
        ),
        (
            json!({"broadcastConfig": {"receiver": "config", "receiverEmails": ["z@b.c", "a@b.c", "z@b.c"]}}),
            vec!["a@b.c", "z@b.c"],
        ),
        (
            json!({"broadcastConfig": {"receiver": "users"}, "denylistEmailAddresses": ["BO@example.com"]}),
            vec!["annabel@example.com"],
        ),
    ] {
        let targets = email(config.clone()).targets(&broadcast).await.unwrap();
        assert_eq!(targets, expected, "{config}");
    }
    let smtp = Smtp::start().await;
    let outgoing = Outgoing {
        target: "ops@example.com",
        ..broadcast
    };
    place.smtp(&smtp, json!({})).send(&outgoing).await;
    let mails = smtp.wait_for(1).await;
    assert_eq!(mails[0].to, ["ops@example.com"]);
    assert!(
        mails[0]
            .text()
            .ends_with("external:ci notified everybody.\n")
    );
}

#[tokio::test]
async fn the_lists_of_addresses_hold_for_people_too() {
    let (place, payload) = (place(), plain());
    let email = place.email(json!({
        "transportConfig": {"transport": "stream"}, "sender": "t@example.com",
        "allowedEmailDomains": ["other.example"],
    }));
    let outcome = email.send(&outgoing(&payload, Some(&ann()))).await;
    let Outcome::Skipped { reason, detail } = outcome else {
        panic!("{outcome:?}");
    };
    assert_eq!(reason, Reason::Muted);
    assert!(detail.contains("allowedEmailDomains"), "{detail}");
}
