//! The sender `email` against a real SMTP server and a real directory.

use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use mail_parser::MessageParser;
use mail_parser::MimeHeaders as _;
use serde_json::Value;
use serde_json::json;
use tidings::catalog::Catalog;
use tidings::catalog::CatalogUser;
use tidings::catalog::file::FileCatalog;
use tidings::failure::Failure;
use tidings::failure::Kind;
use tidings::failure::Reason;
use tidings::notification::Payload;
use tidings::processor::Outcome;
use tidings::processor::Outgoing;
use tidings::processor::Sender as _;
use tidings::processor::email::Email;
use tidings::processor::email::config::EmailConfig;
use tidings::processor::email::outbox_config;
use tidings::time::Timestamp;
use uuid::Uuid;

use crate::support::smtp::Act;
use crate::support::smtp::At;
use crate::support::smtp::Fault;
use crate::support::smtp::Smtp;

const PASSWORD: &str = "canary-hunter2";

/// The people of these tests, and a place for files.
struct Place {
    dir: tempfile::TempDir,
    catalog: Arc<dyn Catalog>,
}

fn place() -> Place {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("people.yaml");
    let people = [
        "annabel@example.com",
        "bo@example.com",
        "o'brien@example.com",
    ];
    let yaml: Vec<_> = people
        .iter()
        .enumerate()
        .map(|(at, email)| {
            format!(
                "apiVersion: backstage.io/v1alpha1\nkind: User\nmetadata: {{ name: p{at} }}\nspec: {{ profile: {{ email: \"{email}\" }} }}\n"
            )
        })
        .collect();
    std::fs::write(&file, yaml.join("---\n")).unwrap();
    let catalog = Arc::new(FileCatalog::open(vec![file]).unwrap());
    Place { dir, catalog }
}

impl Place {
    fn email(&self, config: Value) -> Email {
        let config: EmailConfig = serde_json::from_value(config).unwrap();
        self.build(&config)
    }

    fn build(&self, config: &EmailConfig) -> Email {
        Email::new(config, Arc::clone(&self.catalog), self.dir.path()).unwrap()
    }

    fn outbox(&self) -> PathBuf {
        self.dir.path().join("outbox")
    }

    fn ca_file(&self, smtp: &Smtp) -> PathBuf {
        let file = self.dir.path().join("ca.pem");
        std::fs::write(&file, smtp.ca_pem()).unwrap();
        file
    }

    /// With the transport `smtp` to this server, and more of `transportConfig`.
    fn smtp(&self, smtp: &Smtp, more: Value) -> Email {
        self.smtp_at(smtp.port(), more)
    }

    fn smtp_at(&self, port: u16, more: Value) -> Email {
        let mut transport = json!({"transport": "smtp", "hostname": "localhost", "port": port});
        let fields = transport.as_object_mut().unwrap();
        fields.extend(more.as_object().unwrap().clone());
        self.email(json!({
            "transportConfig": transport,
            "sender": "Tidings <tidings@example.com>",
            "replyTo": "help@example.com",
        }))
    }
}

fn ann() -> CatalogUser {
    person("annabel@example.com")
}

fn person(email: &str) -> CatalogUser {
    CatalogUser {
        reference: "user:default/ann".to_owned(),
        display_name: Some("Ann Ämter".to_owned()),
        email: Some(email.to_owned()),
        ..CatalogUser::default()
    }
}

fn payload(json: Value) -> Payload {
    serde_json::from_value(json).unwrap()
}

fn plain() -> Payload {
    payload(json!({"title": "Payments is down"}))
}

fn outgoing<'a>(payload: &'a Payload, person: Option<&'a CatalogUser>) -> Outgoing<'a> {
    let link = payload.link.as_deref();
    Outgoing {
        delivery: Uuid::from_u128(0xd1),
        notification: Uuid::from_u128(0xa0),
        submission: Uuid::parse_str("01a20edd-cab8-7c52-9a41-0a8f81c4d07e").unwrap(),
        origin: "external:ci",
        payload,
        link: link
            .unwrap_or("http://localhost:3000/notifications")
            .parse()
            .unwrap(),
        created: Timestamp::parse("2026-11-24T18:42:07.123Z").unwrap(),
        user: Some("user:default/ann"),
        person,
        target: "",
        attempt: 1,
    }
}

async fn send(email: &Email, payload: &Payload) -> Outcome {
    email.send(&outgoing(payload, Some(&ann()))).await
}

fn failure(outcome: Outcome) -> Failure {
    let Outcome::Failed(failure) = outcome else {
        panic!("{outcome:?} is no failure");
    };
    let told = failure.to_string();
    assert!(
        !told.contains('@') && !told.contains("annabel") && !told.contains(PASSWORD),
        "tells too much: {told}"
    );
    failure
}

#[tokio::test]
async fn a_mail_says_everything_in_text_and_html() {
    let (place, smtp) = (place(), Smtp::start().await);
    let email = place.smtp(&smtp, json!({}));
    let payload = payload(json!({
        "title": "Zahlungen gestört",
        "description": "First line.\nSecond line.",
        "link": "https://status.example.com/42?a=1&b=2",
        "severity": "critical",
        "topic": "incident",
    }));
    let outcome = send(&email, &payload).await;
    let provider_id = Some("000001".to_owned());
    assert_eq!(outcome, Outcome::Sent { provider_id });

    let mails = smtp.wait_for(1).await;
    let mail = &mails[0];
    assert_eq!(mail.from, "tidings@example.com");
    assert_eq!(mail.to, ["annabel@example.com"]);
    assert_eq!(mail.subject(), "Zahlungen gestört");
    assert_eq!(
        mail.text(),
        "First line.\nSecond line.\n\nhttps://status.example.com/42?a=1&b=2\n\n-- \n\
         critical · incident\nYou get this because external:ci notified user:default/ann.\n"
    );
    let html = mail.html();
    assert!(html.contains("First line.<br>\r\nSecond line."), "{html}");
    assert!(html.contains(r#"href="https://status.example.com/42?a=1&amp;b=2""#));
    assert!(html.contains("critical · incident") && html.contains("Zahlungen gestört"));
    let header = |name| mail.header(name).unwrap();
    assert_eq!(header("From"), "Tidings <tidings@example.com>");
    assert_eq!(header("Reply-To"), "help@example.com");
    assert_eq!(header("Auto-Submitted"), "auto-generated");
    assert_eq!(header("Date"), "Tue, 24 Nov 2026 18:42:07 +0000");
    assert_eq!(
        header("Message-ID"),
        "<00000000-0000-0000-0000-0000000000d1@example.com>"
    );
    assert_eq!(
        header("References"),
        "<00000000-0000-0000-0000-0000000000a0@example.com>"
    );
    let parsed = mail.parsed();
    let to = parsed.to().unwrap().first().unwrap();
    assert_eq!(to.name(), Some("Ann Ämter"));
    assert_eq!(parsed.content_type().unwrap().ctype(), "multipart");
    assert_eq!(
        parsed.content_type().unwrap().subtype(),
        Some("alternative")
    );
}

#[tokio::test]
async fn without_description_and_link_the_mail_leads_to_the_inbox() {
    let (place, smtp) = (place(), Smtp::start().await);
    send(&place.smtp(&smtp, json!({})), &plain()).await;
    let text = smtp.wait_for(1).await[0].text();
    assert!(
        text.starts_with("http://localhost:3000/notifications\n\n-- \nnormal\n"),
        "{text}"
    );
}

#[tokio::test]
async fn markup_is_shown_and_never_run() {
    let (place, smtp) = (place(), Smtp::start().await);
    let evil = "<script>alert('x')</script>\"&";
    let payload = payload(json!({
        "title": evil,
        "description": format!("{evil}\n<img src=x onerror=alert(1)>"),
        "topic": evil,
        "link": "https://example.com/\"><script>alert(2)</script>",
    }));
    send(&place.smtp(&smtp, json!({})), &payload).await;
    let mails = smtp.wait_for(1).await;
    let html = mails[0].html();
    for tag in ["<script", "<img"] {
        // Our own template has no such thing.
        assert!(!html.contains(tag), "{tag} in {html}");
    }
    assert!(
        html.contains("href=\"https://example.com/%22%3E%3Cscript%3E"),
        "{html}"
    );
    assert!(html.contains("&lt;script&gt;alert('x')&lt;/script&gt;&quot;&amp;"));
    assert!(mails[0].text().contains(evil));
    assert_eq!(mails[0].subject(), evil);
}

#[tokio::test]
async fn a_title_with_line_breaks_adds_no_header() {
    let (place, smtp) = (place(), Smtp::start().await);
    let payload = payload(json!({
        "title": "Hello\r\nBcc: evil@example.com\n\nbody \u{85}\u{2028}\u{0}end",
        "topic": "t\r\nX-Evil: 1",
        "description": ".\r\n.\r\nMAIL FROM:<x@y>\r\n..",
    }));
    let mut person = ann();
    person.display_name = Some("Ann\r\nBcc: evil@example.com".to_owned());
    let outcome = place
        .smtp(&smtp, json!({}))
        .send(&outgoing(&payload, Some(&person)))
        .await;
    assert!(matches!(outcome, Outcome::Sent { .. }), "{outcome:?}");
    let mails = smtp.wait_for(1).await;
    let mail = &mails[0];
    assert_eq!(mail.subject(), "Hello Bcc: evil@example.com body end");
    assert_eq!((mail.header("Bcc"), mail.header("X-Evil")), (None, None));
    assert_eq!(mail.to, ["annabel@example.com"]);
    // Lone dots end nothing: the transport's dots are taken away, the text's stay.
    assert!(mail.text().starts_with(".\n.\nMAIL FROM:<x@y>\n..\n"));
    assert_eq!(smtp.mails().len(), 1);
}

#[tokio::test]
async fn the_same_delivery_is_the_same_mail_byte_for_byte() {
    let (place, smtp) = (place(), Smtp::start().await);
    let email = place.smtp(&smtp, json!({}));
    for _ in 0..2 {
        send(&email, &plain()).await;
    }
    let mails = smtp.wait_for(2).await;
    assert_eq!(mails[0].raw, mails[1].raw);
    let counts: Vec<_> = smtp.count_by_message_id().into_values().collect();
    assert_eq!(counts, [2]);
}

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

fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap();
    entries.map(|entry| entry.unwrap().path()).collect()
}

#[tokio::test]
async fn the_outbox_holds_one_readable_file_for_each_delivery() {
    let place = place();
    let email = place.build(&outbox_config(true));
    let payload = payload(json!({
        "title": "Zahlungen gestört",
        "description": "Größe: 5 € = 100 %\n".to_owned() + &"x".repeat(120),
        "severity": "high",
    }));
    let mut paths = Vec::new();
    for _ in 0..2 {
        let Outcome::Sent { provider_id } = send(&email, &payload).await else {
            panic!("not sent");
        };
        paths.push(PathBuf::from(provider_id.unwrap()));
    }
    assert_eq!(files(&place.outbox()), paths[..1]);
    assert_eq!(paths[0], paths[1]);
    assert_eq!(
        paths[0].file_name().unwrap(),
        "20261124T184207Z-81c4d07e-0000000000d1.eml"
    );
    let raw = std::fs::read(&paths[0]).unwrap();
    let text = std::str::from_utf8(&raw).unwrap();
    assert!(
        text.contains("Größe: 5 € = 100 %\r\nxxx"),
        "not readable: {text}"
    );
    let mail = MessageParser::default().parse(&raw).unwrap();
    assert_eq!(mail.subject(), Some("Zahlungen gestört"));
    assert!(mail.body_text(0).unwrap().contains("5 €"));
    assert!(mail.body_html(0).unwrap().contains("5 €"));
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = paths[0].metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "others may read it: {mode:o}");
    }
}

#[tokio::test]
async fn lines_too_long_for_plain_text_are_still_whole_in_the_outbox() {
    let place = place();
    let email = place.build(&outbox_config(false));
    let long = "ä".repeat(3_000);
    let payload = payload(json!({"title": "t", "description": long}));
    send(&email, &payload).await;
    let raw = std::fs::read(&files(&place.outbox())[0]).unwrap();
    let mail = MessageParser::default().parse(&raw).unwrap();
    assert!(mail.body_text(0).unwrap().contains(&long));
    assert!(
        raw.split(|byte| *byte == b'\n')
            .all(|line| line.len() <= 1_000)
    );
}

#[tokio::test]
async fn an_outbox_keeps_its_newest_mails_alone() {
    let place = place();
    let email = place.build(&outbox_config(true)).keeping(1);
    std::fs::create_dir(place.outbox()).unwrap();
    let older = place
        .outbox()
        .join("20250101T000000Z-00000000-000000000000.eml");
    std::fs::write(&older, "old").unwrap();
    send(&email, &plain()).await;
    assert_eq!(files(&place.outbox()).len(), 1);
    assert!(!older.exists());
}

#[tokio::test]
async fn an_outbox_that_cannot_be_written_holds_everything_up() {
    let place = place();
    std::fs::write(place.outbox(), "a file in its place").unwrap();
    let email = place.build(&outbox_config(true));
    let failed = failure(send(&email, &plain()).await);
    assert_eq!(failed.kind, Kind::Dependency);
    assert!(failed.detail.contains("outbox"), "{failed}");
    assert_eq!(email.probe().await.unwrap_err().kind, Kind::Dependency);
}
