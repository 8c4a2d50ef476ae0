//! The sender `email` (channel `Email`): a notification becomes a mail, through lettre.
//!
//! `registry.rs` builds it from `notifications.processors.email`; the sender role calls it. The
//! transports are `smtp` and our own `outbox`. Nothing that it says of a failure holds an address,
//! a password or content.

mod address;
pub mod config;
mod failure;
mod message;
pub mod outbox;
mod pace;
mod pool;
mod smtp;

use std::collections::BTreeSet;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use lettre::Address;
use lettre::message::Mailbox;

use self::address::Allowed;
use self::config::EmailConfig;
use self::config::Fault;
use self::config::Receiver;
use self::config::TransportConfig;
use self::config::TransportKind;
use self::message::Encoding;
use self::message::Parties;
use self::message::compose;
use self::outbox::Outbox;
use self::pace::Pace;
use self::smtp::Envelope;
use self::smtp::Relay;
use crate::catalog::Catalog;
use crate::config::ConfigError;
use crate::config::Section;
use crate::failure::Failure;
use crate::failure::Reason;
use crate::processor::Filter;
use crate::processor::Outcome;
use crate::processor::Outgoing;
use crate::processor::Sender;
use crate::processor::registry::Services;

/// The name: config key, queue suffix, command line and metric label.
pub const NAME: &str = "email";
/// The id in people's settings. Source: contract 3.
pub const CHANNEL: &str = "Email";

/// Mails that stay in an outbox when `tidings.retention.outbox` says nothing.
pub const OUTBOX_KEEP: usize = 1_000;

/// Longest display name in `To`, in characters.
const NAME_CHARS_MAX: usize = 100;

/// Sends mail.
pub struct Email {
    transport: Transport,
    from: Mailbox,
    reply_to: Option<Mailbox>,
    receiver: Receiver,
    receiver_emails: Vec<String>,
    filter: Filter,
    allowed: Allowed,
    concurrency: usize,
    pace: Option<Pace>,
    catalog: Arc<dyn Catalog>,
}

enum Transport {
    Smtp(Box<Relay>),
    Outbox(Outbox),
    /// `stream`, in the peer's words.
    Nothing,
}

/// Makes the sender of `notifications.processors.email`. Where nobody wrote it, mail goes to files
/// when Tidings is embedded, and nowhere otherwise.
///
/// # Errors
/// What is missing or cannot be, at its key.
pub fn build(
    section: &Section,
    services: &Services,
) -> Result<Option<Arc<dyn Sender>>, ConfigError> {
    let config = match section.read_if_set::<EmailConfig>()? {
        Some(config) => config.resolved(&section.get("transportConfig")),
        None if services.embedded => outbox_config(services.development),
        None => return Ok(None),
    };
    let catalog = Arc::clone(&services.catalog);
    let email = Email::new(&config, catalog, &services.data).map_err(|fault| {
        let at = fault
            .key
            .split('.')
            .fold(section.clone(), |at, key| at.get(key));
        at.error(format!("`{}` {}", at.key(), fault.message), fault.help)
    })?;
    Ok(Some(Arc::new(email.keeping(services.outbox))))
}

impl Email {
    /// Builds it; connects to nothing and writes nothing. `data` is where files go that the
    /// configuration gives no place.
    ///
    /// # Errors
    /// Names the key that is missing or cannot be.
    pub fn new(
        config: &EmailConfig,
        catalog: Arc<dyn Catalog>,
        data: &Path,
    ) -> Result<Self, Fault> {
        let mut concurrency = config.concurrency()?;
        let pace = match config.throttle_interval {
            Some(interval) => Pace::new(interval.0, concurrency)?,
            None => None,
        };
        if let Some(pace) = &pace {
            concurrency = concurrency.min(pace.line());
        }
        let (transport, kind) = config.transport()?;
        let transport = match kind {
            TransportKind::Smtp { hostname, port } => Transport::Smtp(Box::new(Relay::new(
                transport,
                hostname,
                port,
                concurrency,
            )?)),
            TransportKind::Outbox => {
                let directory = transport.directory.clone();
                let directory = directory.unwrap_or_else(|| outbox_of(data));
                Transport::Outbox(Outbox::new(directory, OUTBOX_KEEP))
            }
            TransportKind::Nothing => Transport::Nothing,
        };
        let broadcast = &config.broadcast_config;
        Ok(Self {
            transport,
            from: config.from()?,
            reply_to: config.answers()?,
            receiver: broadcast.receiver,
            receiver_emails: broadcast.receiver_emails.clone(),
            filter: config.filter.clone(),
            allowed: Allowed::new(config),
            concurrency,
            pace,
            catalog,
        })
    }

    /// The same; of mails in an outbox, the newest `mails` stay (`tidings.retention.outbox`).
    #[must_use]
    pub fn keeping(mut self, mails: usize) -> Self {
        if let Transport::Outbox(outbox) = &mut self.transport {
            outbox.keep = mails;
        }
        self
    }

    /// Who `mail` goes to, and by what name.
    fn recipient(&self, mail: &Outgoing<'_>) -> Result<Mailbox, Outcome> {
        let (address, name) = if mail.target.is_empty() {
            let person = mail
                .person
                .ok_or_else(|| skipped(Reason::NoAddress, "not in the catalog"))?;
            let address = person.email.as_deref().filter(|email| !email.is_empty());
            let address = address.ok_or_else(|| {
                skipped(Reason::NoAddress, "no spec.profile.email in the catalog")
            })?;
            (address, person.display_name.as_deref())
        } else {
            (mail.target, None)
        };
        if let Some((reason, detail)) = self.allowed.objection(address) {
            return Err(skipped(reason, detail));
        }
        let email: Address = address.parse().map_err(|_| {
            let detail = "the address is not one that mail can be sent to";
            skipped(Reason::NoAddress, detail)
        })?;
        let name = name
            .map(|name| message::one_line(name, NAME_CHARS_MAX))
            .filter(|name| !name.is_empty());
        Ok(Mailbox::new(name, email))
    }

    async fn hand_over(&self, to: &Mailbox, mail: &Outgoing<'_>) -> Result<Outcome, Failure> {
        let parties = Parties {
            from: &self.from,
            reply_to: self.reply_to.as_ref(),
            to,
        };
        let compose = |encoding| {
            compose(parties, mail, encoding).map_err(|error| {
                Failure::permanent(
                    Reason::Internal,
                    format!("cannot be written as mail: {error}"),
                )
            })
        };
        let provider_id = match &self.transport {
            Transport::Smtp(relay) => {
                let envelope = Envelope {
                    from: &self.from.email,
                    to: &to.email,
                    content: &compose(Encoding::Transport)?,
                };
                relay.send(&envelope).await?
            }
            Transport::Outbox(outbox) => {
                let content = compose(Encoding::Readable)?;
                Some(outbox.write(mail, content).await?)
            }
            Transport::Nothing => {
                let detail = "the transport `stream` sends nothing";
                return Ok(skipped(Reason::Config, detail));
            }
        };
        Ok(Outcome::Sent { provider_id })
    }
}

#[async_trait]
impl Sender for Email {
    fn name(&self) -> &str {
        NAME
    }

    fn channel(&self) -> &str {
        CHANNEL
    }

    fn filter(&self) -> &Filter {
        &self.filter
    }

    fn concurrency(&self) -> usize {
        self.concurrency
    }

    /// The addresses of a broadcast, each once. Those that may not be written to are left out.
    async fn targets(&self, _: &Outgoing<'_>) -> Result<Vec<String>, Failure> {
        let addresses = match self.receiver {
            Receiver::None => return Ok(Vec::new()),
            Receiver::Users => self.catalog.addresses().await?,
            Receiver::Config => self.receiver_emails.clone(),
        };
        let all: BTreeSet<_> = addresses.into_iter().collect();
        let known = all.len();
        let allowed = |one: &String| self.allowed.objection(one).is_none();
        let targets: Vec<_> = all.into_iter().filter(allowed).collect();
        if targets.len() < known {
            let left_out = known - targets.len();
            tracing::info!(
                left_out,
                "addresses of a broadcast that may not be written to"
            );
        }
        Ok(targets)
    }

    async fn send(&self, mail: &Outgoing<'_>) -> Outcome {
        let to = match self.recipient(mail) {
            Ok(to) => to,
            Err(outcome) => return outcome,
        };
        if let Some(pace) = &self.pace {
            pace.turn().await;
        }
        self.hand_over(&to, mail)
            .await
            .unwrap_or_else(Outcome::Failed)
    }

    async fn probe(&self) -> Result<String, Failure> {
        match &self.transport {
            Transport::Smtp(relay) => relay.probe(&self.from.email).await,
            Transport::Outbox(outbox) => outbox.probe().await,
            Transport::Nothing => Ok("stream: sends nothing".to_owned()),
        }
    }
}

fn skipped(reason: Reason, detail: &str) -> Outcome {
    Outcome::Skipped {
        reason,
        detail: detail.to_owned(),
    }
}

/// Where mails go that have no other place.
pub fn outbox_of(data: &Path) -> PathBuf {
    data.join("outbox")
}

/// What the embedded mode sends with when nothing is configured: files, in `<data>/outbox`. In
/// development a broadcast goes to everybody, so that one can be seen.
pub fn outbox_config(development: bool) -> EmailConfig {
    EmailConfig {
        transport_config: Some(TransportConfig {
            transport: "outbox".to_owned(),
            ..TransportConfig::default()
        }),
        sender: Some("Tidings <tidings@localhost>".to_owned()),
        broadcast_config: config::BroadcastConfig {
            receiver: if development {
                Receiver::Users
            } else {
                Receiver::None
            },
            ..config::BroadcastConfig::default()
        },
        ..EmailConfig::default()
    }
}
