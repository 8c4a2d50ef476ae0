//! What a mail says, and how.

use mail_parser::MimeHeaders as _;
use serde_json::json;
use tidings::processor::Outcome;
use tidings::processor::Sender as _;

use super::ann;
use super::outgoing;
use super::payload;
use super::place;
use super::plain;
use super::send;
use crate::support::smtp::Smtp;

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
