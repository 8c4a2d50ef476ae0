//! Gives one origin an icon, and sends an e-mail by itself.

use std::error::Error;

use async_trait::async_trait;
use lettre::message::Message;
use lettre::{AsyncSmtpTransport, AsyncTransport, Tokio1Executor};
use tidings::failure::{Failure, Reason};
use tidings::processor::{Decorated, Decorator, Draft, Outcome, Outgoing, Sender, Stage};
use tidings::runner::External;

/// Its section of the configuration: `notifications.processors.greeter`.
#[derive(serde::Deserialize)]
struct Greeter {
    host: String,
    port: u16,
    origin: String,
    icon: String,
}

#[async_trait]
impl Decorator for Greeter {
    fn name(&self) -> &str {
        "greeter"
    }

    fn stage(&self) -> Stage {
        Stage::PerPerson
    }

    async fn decorate(&self, draft: Draft<'_>) -> Result<Decorated, Failure> {
        if draft.origin != self.origin {
            return Ok(Decorated::Keep);
        }
        let mut payload = draft.payload.clone();
        payload.icon = Some(self.icon.clone());
        Ok(Decorated::Change(payload))
    }
}

#[async_trait]
impl Sender for Greeter {
    fn name(&self) -> &str {
        "greeter"
    }

    async fn send(&self, notification: &Outgoing<'_>) -> Outcome {
        let detail = "no address".to_owned();
        let Some(address) = notification.person.and_then(|one| one.email.as_deref()) else {
            let reason = Reason::NoAddress;
            return Outcome::Skipped { reason, detail };
        };
        let Ok(mail) = mail(address, notification) else {
            return Outcome::Failed(Failure::permanent(Reason::Invalid, "cannot be a mail"));
        };
        let relay = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(&self.host);
        match relay.port(self.port).build().send(mail).await {
            Ok(_) => Outcome::Sent { provider_id: None },
            Err(error) if error.is_permanent() => {
                Outcome::Failed(Failure::permanent(Reason::Rejected, "the relay refused it"))
            }
            Err(_) => Outcome::Failed(Failure::dependency(Reason::Network, "the relay is away")),
        }
    }
}

fn mail(to: &str, notification: &Outgoing<'_>) -> Result<Message, Box<dyn Error>> {
    Ok(Message::builder()
        .from("greeter@example.com".parse()?)
        .to(to.parse()?)
        .message_id(Some(format!("<{}@greeter>", notification.delivery)))
        .subject(&notification.payload.title)
        .body(notification.link.to_string())?)
}

fn main() -> std::process::ExitCode {
    External::processor("greeter", |section| section.read::<Greeter>()).run()
}
