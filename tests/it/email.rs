//! The sender `email` against a real SMTP server and a real directory.

mod failure;
mod message;
mod outbox;
mod people;
mod relay;

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::Value;
use serde_json::json;
use tidings::catalog::Catalog;
use tidings::catalog::CatalogUser;
use tidings::catalog::file::FileCatalog;
use tidings::failure::Failure;
use tidings::notification::Payload;
use tidings::processor::Outcome;
use tidings::processor::Outgoing;
use tidings::processor::Sender as _;
use tidings::processor::email::Email;
use tidings::processor::email::config::EmailConfig;
use tidings::time::Timestamp;
use uuid::Uuid;

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
        recipients: &[],
        target: "",
        earlier: None,
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
