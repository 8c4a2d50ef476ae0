//! The sender `email` and a relay.

use std::sync::Arc;

use serde_json::json;
use tidings::catalog::file::FileCatalog;
use tidings::failure::Reason;
use tidings::processor::Filter;
use tidings::processor::Sender;
use tidings::processor::email::Email;
use tidings::processor::email::config::EmailConfig;

use super::Means;
use super::Service;
use crate::support::smtp::Act;
use crate::support::smtp::At;
use crate::support::smtp::Fault;
use crate::support::smtp::Smtp;

pub(crate) struct Mail(Smtp);

impl Service for Mail {
    type Act = (At, Act);

    async fn start() -> Self {
        let relay = Smtp::setup().credentials("tidings", "canary");
        Self(relay.start().await)
    }

    fn sender(&self, filter: Filter) -> Arc<dyn Sender> {
        let config = json!({
            "transportConfig": {"transport": "smtp", "hostname": "localhost",
                "port": self.0.port(), "username": "tidings", "password": "canary",
                "timeout": "1s"},
            "sender": "tidings@example.com",
        });
        let config: EmailConfig = serde_json::from_value(config).unwrap();
        let config = EmailConfig { filter, ..config };
        let catalog = Arc::new(FileCatalog::open(vec![]).unwrap());
        Arc::new(Email::new(&config, catalog, std::path::Path::new("unused")).unwrap())
    }

    fn act(&self, act: Option<(At, Act)>) {
        self.0.mend();
        if let Some((at, act)) = act {
            self.0.fault(Fault::new(at, act));
        }
    }

    fn answers() -> Vec<((At, Act), Means)> {
        let answer = |at, text, means| ((at, Act::Reply(text)), means);
        vec![
            answer(At::Content, "250 2.0.0 queued", Means::Sent),
            answer(
                At::Recipient,
                "450 4.2.1 <canary@example.com> busy",
                Means::Transient(Reason::Server),
            ),
            answer(
                At::Recipient,
                "452 4.2.2 <canary@example.com> full",
                Means::Transient(Reason::Rate),
            ),
            answer(
                At::Recipient,
                "550 5.1.1 <canary@example.com> unknown",
                Means::Permanent(Reason::Rejected),
            ),
            answer(
                At::Content,
                "554 5.7.1 refused",
                Means::Permanent(Reason::Rejected),
            ),
            answer(
                At::Greeting,
                "554 5.3.2 go away",
                Means::Away(Reason::Server),
            ),
            answer(At::Auth, "535 5.7.8 no", Means::Away(Reason::Auth)),
        ]
    }

    fn silences() -> Vec<(At, Act)> {
        vec![
            (At::Greeting, Act::Hang),
            (At::Greeting, Act::Close),
            (At::Recipient, Act::Close),
            (At::Content, Act::Hang),
            (At::Content, Act::Close),
            (At::Content, Act::TakeAndClose),
        ]
    }

    fn keys(&self) -> Vec<String> {
        let mails = self.0.mails();
        mails.into_iter().map(|mail| mail.message_id).collect()
    }
}
