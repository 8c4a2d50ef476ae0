//! Mails as files.

use std::path::Path;
use std::path::PathBuf;

use mail_parser::MessageParser;
use serde_json::json;
use tidings::failure::Kind;
use tidings::processor::Outcome;
use tidings::processor::Sender as _;
use tidings::processor::email::outbox_config;

use super::failure;
use super::payload;
use super::place;
use super::plain;
use super::send;

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
