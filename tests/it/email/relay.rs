//! Conversations with the relay: connections, TLS, signing in.

use std::time::Duration;

use serde_json::json;
use tidings::failure::Failure;
use tidings::failure::Kind;
use tidings::failure::Reason;
use tidings::processor::Outcome;
use tidings::processor::Sender as _;

use super::PASSWORD;
use super::failure;
use super::outgoing;
use super::person;
use super::place;
use super::plain;
use super::send;
use crate::support::smtp::Act;
use crate::support::smtp::At;
use crate::support::smtp::Fault;
use crate::support::smtp::Smtp;

#[tokio::test]
async fn connections_are_used_again_and_replaced_when_the_relay_dropped_them() {
    let (place, smtp) = (place(), Smtp::start().await);
    let email = place.smtp(&smtp, json!({}));
    for _ in 0..5 {
        assert!(matches!(send(&email, &plain()).await, Outcome::Sent { .. }));
    }
    assert_eq!(smtp.connections(), 1);
    smtp.drop_connections();
    assert!(matches!(send(&email, &plain()).await, Outcome::Sent { .. }));
    assert_eq!(smtp.connections(), 2);
    // A relay that has had enough of one connection says 421, and takes the next.
    let enough = Act::ReplyAndClose("421 4.7.0 too many messages");
    smtp.fault(Fault::new(At::MailFrom, enough).times(1));
    assert!(matches!(send(&email, &plain()).await, Outcome::Sent { .. }));
    assert_eq!((smtp.connections(), smtp.mails().len()), (3, 7));
}

#[tokio::test]
async fn a_refused_recipient_costs_neither_the_connection_nor_the_next_mail() {
    let (place, smtp) = (place(), Smtp::start().await);
    let email = place.smtp(&smtp, json!({}));
    smtp.fault(Fault::recipient(
        "bo@example.com",
        "550 5.1.1 <bo@example.com>: no such user",
    ));
    let payload = plain();
    let bo = person("bo@example.com");
    let refused = email.send(&outgoing(&payload, Some(&bo))).await;
    let expected = Failure::permanent(Reason::Rejected, "550 5.1.1 (address) no such user");
    assert_eq!(refused, Outcome::Failed(expected));
    assert!(matches!(send(&email, &payload).await, Outcome::Sent { .. }));
    assert_eq!((smtp.connections(), smtp.mails().len()), (1, 1));
}

#[tokio::test]
async fn a_send_that_is_given_up_leaves_no_answer_for_the_next_mail() {
    let (place, smtp) = (place(), Smtp::start().await);
    let email = place.smtp(&smtp, json!({}));
    send(&email, &plain()).await;
    smtp.fault(Fault::new(At::Recipient, Act::Hang).times(1));
    let payload = plain();
    let given_up = tokio::time::timeout(Duration::from_millis(300), send(&email, &payload)).await;
    assert!(given_up.is_err());
    smtp.fault(Fault::recipient("annabel@example.com", "550 5.1.1 no").times(1));
    let kind = failure(send(&email, &payload).await).kind;
    assert_eq!(kind, Kind::Permanent);
    assert!(matches!(send(&email, &payload).await, Outcome::Sent { .. }));
}

#[tokio::test]
async fn it_signs_in_when_both_name_and_password_are_given() {
    let place = place();
    let smtp = Smtp::setup().credentials("notify", PASSWORD).start().await;
    let both = json!({"username": "notify", "password": PASSWORD});
    let email = place.smtp(&smtp, both);
    assert!(matches!(send(&email, &plain()).await, Outcome::Sent { .. }));
    assert_eq!(smtp.mails()[0].user.as_deref(), Some("notify"));

    let without = place.smtp(&smtp, json!({"username": "notify"}));
    let refused = failure(send(&without, &plain()).await);
    assert_eq!(
        (refused.kind, refused.reason),
        (Kind::Dependency, Reason::Auth)
    );

    let wrong = place.smtp(
        &smtp,
        json!({"username": "notify", "password": "canary-hunter2x"}),
    );
    let refused = failure(send(&wrong, &plain()).await);
    assert_eq!(
        (refused.kind, refused.reason),
        (Kind::Dependency, Reason::Auth)
    );
    assert!(refused.detail.contains("535 5.7.8"), "{refused}");
    smtp.fault(Fault::new(
        At::Auth,
        Act::Reply("535 5.7.8 not canary-hunter2x"),
    ));
    failure(send(&wrong, &plain()).await);

    let open = Smtp::start().await;
    let email = place.smtp(&open, json!({"username": "notify", "password": PASSWORD}));
    let refused = failure(send(&email, &plain()).await);
    assert_eq!(
        (refused.kind, refused.reason),
        (Kind::Dependency, Reason::Config)
    );
}

#[tokio::test]
async fn tls_is_used_where_it_is_offered_and_demanded_where_it_is_required() {
    let place = place();
    let smtp = Smtp::setup().starttls().start().await;
    let ca_file = place.ca_file(&smtp);
    for more in [
        json!({"caFile": ca_file}),
        json!({"caFile": ca_file, "requireTls": true}),
    ] {
        let email = place.smtp(&smtp, more);
        assert!(matches!(send(&email, &plain()).await, Outcome::Sent { .. }));
    }
    assert!(smtp.mails().iter().all(|mail| mail.encrypted));
    // Offered with a certificate that nobody vouches for: as in the peer, nothing is sent.
    let refused = failure(send(&place.smtp(&smtp, json!({})), &plain()).await);
    assert_eq!(
        (refused.kind, refused.reason),
        (Kind::Dependency, Reason::Network)
    );
    assert!(refused.detail.contains("caFile"), "{refused}");

    let plain_only = Smtp::start().await;
    let email = place.smtp(&plain_only, json!({"requireTls": true}));
    let refused = failure(send(&email, &plain()).await);
    assert_eq!(
        (refused.kind, refused.reason),
        (Kind::Dependency, Reason::Config)
    );
    assert!(
        refused.detail.contains("does not offer STARTTLS"),
        "{refused}"
    );
    assert!(plain_only.mails().is_empty());
    let mistaken = place.smtp(&plain_only, json!({"secure": true}));
    let refused = failure(send(&mistaken, &plain()).await);
    assert!(refused.detail.contains("does not speak TLS"), "{refused}");

    let implicit = Smtp::setup().implicit_tls().start().await;
    let ca_file = place.ca_file(&implicit);
    let email = place.smtp(&implicit, json!({"secure": true, "caFile": ca_file}));
    assert!(matches!(send(&email, &plain()).await, Outcome::Sent { .. }));
    assert!(implicit.mails()[0].encrypted);
}

#[tokio::test]
async fn probing_says_how_and_sends_nothing() {
    let place = place();
    let setup = Smtp::setup().starttls().credentials("notify", PASSWORD);
    let smtp = setup.start().await;
    let config = json!({
        "caFile": place.ca_file(&smtp), "requireTls": true, "username": "notify", "password": PASSWORD,
    });
    let email = place.smtp(&smtp, config);
    let expected = format!("localhost:{} STARTTLS, signed in as notify", smtp.port());
    assert_eq!(email.probe().await, Ok(expected));
    smtp.fault(Fault::new(
        At::MailFrom,
        Act::Reply("553 5.7.1 not your address"),
    ));
    let refused = email.probe().await.unwrap_err();
    assert!(refused.detail.contains("configured sender"), "{refused}");
    assert!(smtp.mails().is_empty());
    let open = Smtp::start().await;
    let told = place.smtp(&open, json!({})).probe().await.unwrap();
    assert!(told.ends_with(" not encrypted, not signed in"), "{told}");
}
