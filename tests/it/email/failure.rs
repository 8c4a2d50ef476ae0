//! Which failures are the relay's, and which the mail's.

use serde_json::json;
use tidings::failure::Kind;
use tidings::failure::Reason;
use tidings::processor::Outcome;

use super::failure;
use super::place;
use super::plain;
use super::send;
use crate::support::smtp::Act;
use crate::support::smtp::At;
use crate::support::smtp::Fault;
use crate::support::smtp::Smtp;

#[tokio::test]
async fn every_failure_is_of_its_kind() {
    use Act::Close;
    use Act::Reply;
    let transient = Kind::Transient { after: None };
    for (at, act, kind, reason) in [
        (
            At::Greeting,
            Reply("554 5.3.2 go away"),
            Kind::Dependency,
            Reason::Server,
        ),
        (
            At::Greeting,
            Reply("421 4.3.2 too busy"),
            Kind::Dependency,
            Reason::Rate,
        ),
        (At::Greeting, Close, Kind::Dependency, Reason::Network),
        (
            At::MailFrom,
            Reply("553 5.7.1 not your address"),
            Kind::Dependency,
            Reason::Rejected,
        ),
        (
            At::MailFrom,
            Reply("452 4.3.1 disk full"),
            Kind::Dependency,
            Reason::Rate,
        ),
        (
            At::MailFrom,
            Reply("530 5.7.0 sign in first"),
            Kind::Dependency,
            Reason::Auth,
        ),
        (
            At::Recipient,
            Reply("450 4.2.1 busy"),
            transient,
            Reason::Server,
        ),
        (
            At::Recipient,
            Reply("451 4.7.1 greylisted"),
            transient,
            Reason::Server,
        ),
        (
            At::Recipient,
            Reply("452 4.2.2 full"),
            transient,
            Reason::Rate,
        ),
        (
            At::Recipient,
            Reply("421 4.7.0 slow down"),
            transient,
            Reason::Rate,
        ),
        (
            At::Recipient,
            Reply("550 5.1.1 unknown"),
            Kind::Permanent,
            Reason::Rejected,
        ),
        (At::Recipient, Close, transient, Reason::Network),
        (
            At::Data,
            Reply("451 4.3.0 later"),
            transient,
            Reason::Server,
        ),
        (
            At::Data,
            Reply("554 5.5.1 no"),
            Kind::Permanent,
            Reason::Rejected,
        ),
        (
            At::Content,
            Reply("451 4.3.0 later"),
            transient,
            Reason::Server,
        ),
        (
            At::Content,
            Reply("552 5.3.4 too large"),
            Kind::Permanent,
            Reason::Rejected,
        ),
        (
            At::Content,
            Reply("554 5.7.1 spam"),
            Kind::Permanent,
            Reason::Rejected,
        ),
        (At::Content, Close, transient, Reason::Network),
    ] {
        let (place, smtp) = (place(), Smtp::start().await);
        smtp.fault(Fault::new(at, act.clone()));
        let email = place.smtp(&smtp, json!({}));
        let failed = failure(send(&email, &plain()).await);
        assert_eq!(
            (failed.kind, failed.reason),
            (kind, reason),
            "{at:?} {act:?}: {failed}"
        );
        let doubt = failed.detail.contains("twice");
        assert_eq!(
            doubt,
            (at, reason) == (At::Content, Reason::Network),
            "{failed}"
        );
        if let Reply(text) = act {
            assert!(
                failed.detail.contains(text),
                "{failed} does not tell {text}"
            );
        }
    }
}

#[tokio::test]
async fn a_relay_that_is_away_silent_or_unknown_is_a_failure_of_the_dependency() {
    let (place, smtp) = (place(), Smtp::start().await);
    let email = place.smtp(&smtp, json!({"timeout": "1s"}));
    smtp.close().await;
    let refused = failure(send(&email, &plain()).await);
    assert_eq!(refused.kind, Kind::Dependency);
    assert!(refused.detail.contains("refused"), "{refused}");
    smtp.reopen().await;
    smtp.fault(Fault::new(At::Greeting, Act::Hang).times(2));
    let silent = failure(send(&email, &plain()).await);
    assert_eq!(
        (silent.kind, silent.reason),
        (Kind::Dependency, Reason::Timeout)
    );
    smtp.mend();
    assert!(matches!(send(&email, &plain()).await, Outcome::Sent { .. }));
    smtp.fault(Fault::new(At::Content, Act::Hang).times(1));
    let doubtful = failure(send(&email, &plain()).await);
    assert_eq!(doubtful.kind, Kind::Transient { after: None });
    assert!(doubtful.detail.contains("twice"), "{doubtful}");

    let unknown = place.email(json!({
        "transportConfig": {"transport": "smtp", "hostname": "no-such-relay.invalid", "port": 25},
        "sender": "tidings@example.com",
    }));
    let unknown = failure(send(&unknown, &plain()).await);
    assert_eq!(
        (unknown.kind, unknown.reason),
        (Kind::Dependency, Reason::Dns)
    );
}

#[tokio::test]
async fn a_mail_whose_answer_was_lost_comes_again_under_its_id() {
    let (place, smtp) = (place(), Smtp::start().await);
    let email = place.smtp(&smtp, json!({}));
    smtp.fault(Fault::new(At::Content, Act::TakeAndClose).times(1));
    let lost = failure(send(&email, &plain()).await);
    assert!(lost.detail.contains("may have been delivered"), "{lost}");
    assert!(matches!(send(&email, &plain()).await, Outcome::Sent { .. }));
    assert_eq!(
        smtp.count_by_message_id().into_values().collect::<Vec<_>>(),
        [2]
    );
}
