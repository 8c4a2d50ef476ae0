//! `notifications.processors.email`: the peer's keys, and a few of our own that say so.
//!
//! The section is read into [`EmailConfig`], whose methods say what no type can. Nothing here
//! prints the password.

use std::path::PathBuf;
use std::time::Duration;

use lettre::message::Mailbox;
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::config::Secret;
use crate::config::Section;
use crate::config::duration::Setting;
use crate::processor::Filter;

/// How long one mail may take. With the wait for its turn, below the half minute that the sender
/// role gives a send, so that it is this side that says what was slow.
const TIMEOUT: Duration = Duration::from_secs(25);
/// Mails under way at once when nothing is configured.
const CONCURRENCY: usize = 8;

/// `notifications.processors.email`. Source: contract 5; what is ours is marked so.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EmailConfig {
    /// How mail leaves. Required.
    pub transport_config: Option<TransportConfig>,
    /// `From`, as `name@domain` or `Name <name@domain>`. Required.
    pub sender: Option<String>,
    /// `Reply-To`.
    pub reply_to: Option<String>,
    /// Who gets a broadcast. Absent: nobody.
    #[serde(default)]
    pub broadcast_config: BroadcastConfig,
    /// Mails under way at once in this process. Default 8 (the peer's is 2).
    pub concurrency_limit: Option<u16>,
    /// When given, at most `concurrencyLimit` mails begin in each interval, in this process.
    /// Absent: as fast as the relay takes them. (The peer's default is 100 ms; there it paces the
    /// mails of one broadcast alone.)
    pub throttle_interval: Option<Setting>,
    /// Accepted for the peer's sake. The catalog keeps its own copy of addresses.
    pub cache: Option<IgnoredAny>,
    /// Which notifications become mail.
    #[serde(default)]
    pub filter: Filter,
    /// Only addresses of these domains.
    pub allowed_email_domains: Option<Vec<String>>,
    /// These addresses as well; alone, only these.
    pub allowlist_email_addresses: Option<Vec<String>>,
    /// Never these addresses.
    pub denylist_email_addresses: Option<Vec<String>>,
    /// Accepted for the peer's sake; of the transport `ses` alone.
    pub ses_config: Option<IgnoredAny>,
}

/// `transportConfig`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TransportConfig {
    /// `smtp`, `stream`, or our own `outbox`.
    pub transport: String,
    /// The relay. Required for `smtp`.
    pub hostname: Option<String>,
    /// Its port. Required for `smtp`.
    pub port: Option<u16>,
    /// TLS from the first byte (port 465, as a rule).
    pub secure: Option<bool>,
    /// No mail without STARTTLS. Where it is not required, it is used if it is offered, as in the
    /// peer.
    pub require_tls: Option<bool>,
    /// Signs in when the password is given too.
    pub username: Option<String>,
    /// Signs in when the username is given too.
    pub password: Option<Secret>,
    /// Ours: how long one mail may take, from the connection to the relay's last answer; 1 s to
    /// 25 s. Default 25 s.
    pub timeout: Option<Setting>,
    /// Ours: connections kept open between mails. Default: `concurrencyLimit`.
    pub pool_size: Option<u16>,
    /// Ours: a PEM file of authorities to trust beside the system's.
    pub ca_file: Option<PathBuf>,
    /// Ours: where the transport `outbox` writes. Default: `<tidings.data>/outbox`.
    pub directory: Option<PathBuf>,
    /// Of `ses`, which is not served yet: known so that the error is about the transport.
    pub account_id: Option<IgnoredAny>,
    /// Of `ses`.
    pub region: Option<IgnoredAny>,
    /// Of `ses`.
    pub api_version: Option<IgnoredAny>,
    /// Of `ses` and `azure`.
    pub endpoint: Option<IgnoredAny>,
    /// Of `azure`.
    pub access_key: Option<IgnoredAny>,
    /// Of `sendmail`.
    pub path: Option<IgnoredAny>,
    /// Of `sendmail`.
    pub newline: Option<IgnoredAny>,
}

/// `broadcastConfig`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BroadcastConfig {
    /// Who.
    #[serde(default)]
    pub receiver: Receiver,
    /// The addresses of `receiver: config`.
    #[serde(default)]
    pub receiver_emails: Vec<String>,
}

/// Who gets the mail of a broadcast.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Receiver {
    /// Nobody.
    #[default]
    None,
    /// Everybody in the catalog who has an address.
    Users,
    /// `receiverEmails`.
    Config,
}

/// Something in the section that cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{key}` {message}; {help}")]
pub struct Fault {
    /// The key, from the section down.
    pub key: &'static str,
    /// What is wrong, after the key.
    pub message: String,
    /// What would be right.
    pub help: String,
}

impl Fault {
    pub(super) fn new(
        key: &'static str,
        message: impl Into<String>,
        help: impl Into<String>,
    ) -> Self {
        Self {
            key,
            message: message.into(),
            help: help.into(),
        }
    }
}

/// How mail leaves, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum TransportKind {
    Smtp { hostname: String, port: u16 },
    Outbox,
    Nothing,
}

impl EmailConfig {
    /// Its paths, from the directory of the file that they stand in.
    pub(super) fn resolved(mut self, transport: &Section) -> Self {
        if let Some(config) = &mut self.transport_config {
            for (key, path) in [
                ("caFile", &mut config.ca_file),
                ("directory", &mut config.directory),
            ] {
                *path = path.take().map(|path| transport.get(key).resolve(&path));
            }
        }
        self
    }

    /// The transport, if it is one that is served.
    pub(super) fn transport(&self) -> Result<(&TransportConfig, TransportKind), Fault> {
        let transport = self.transport_config.as_ref().ok_or_else(|| {
            Fault::new(
                "transportConfig",
                "is missing",
                "say how mail leaves, as in { transport: smtp, hostname: smtp.example.com, port: 587 }",
            )
        })?;
        let kind = match transport.transport.as_str() {
            "smtp" => transport.relay()?,
            "outbox" => TransportKind::Outbox,
            "stream" => TransportKind::Nothing,
            "ses" | "azure" | "sendmail" => {
                return Err(Fault::new(
                    "transportConfig.transport",
                    format!("`{}` is not served yet", transport.transport),
                    "use smtp: all of these take mail by SMTP too",
                ));
            }
            other => {
                return Err(Fault::new(
                    "transportConfig.transport",
                    format!("`{other}` is not a transport"),
                    "one of smtp, outbox, stream",
                ));
            }
        };
        Ok((transport, kind))
    }

    /// `From`.
    pub(super) fn from(&self) -> Result<Mailbox, Fault> {
        let sender = self.sender.as_deref().ok_or_else(|| {
            Fault::new(
                "sender",
                "is missing",
                "the address that mail comes from, as in Tidings <tidings@example.com>",
            )
        })?;
        mailbox("sender", sender)
    }

    /// `Reply-To`.
    pub(super) fn answers(&self) -> Result<Option<Mailbox>, Fault> {
        let mailbox = |text| mailbox("replyTo", text);
        self.reply_to.as_deref().map(mailbox).transpose()
    }

    /// Mails under way at once.
    pub(super) fn concurrency(&self) -> Result<usize, Fault> {
        match self.concurrency_limit {
            Some(0) => Err(Fault::new("concurrencyLimit", "must be at least 1", "")),
            Some(limit) => Ok(usize::from(limit)),
            None => Ok(CONCURRENCY),
        }
    }
}

impl TransportConfig {
    fn relay(&self) -> Result<TransportKind, Fault> {
        let hostname = self
            .hostname
            .clone()
            .filter(|host| !host.trim().is_empty())
            .ok_or_else(|| {
                Fault::new(
                    "transportConfig.hostname",
                    "is missing",
                    "the relay, as in smtp.example.com",
                )
            })?;
        let port = self.port.filter(|port| *port != 0).ok_or_else(|| {
            Fault::new(
                "transportConfig.port",
                "is missing",
                "as a rule 587, 465 with `secure: true`, or 25",
            )
        })?;
        if self.secure() && self.require_tls == Some(true) {
            return Err(Fault::new(
                "transportConfig.requireTls",
                "demands STARTTLS, and `secure` is TLS from the first byte",
                "choose one: `secure` for port 465, `requireTls` for 587",
            ));
        }
        Ok(TransportKind::Smtp { hostname, port })
    }

    pub(super) fn secure(&self) -> bool {
        self.secure.unwrap_or(false)
    }

    /// Both, or neither: as in the peer, one alone does not sign in, nor does an empty one.
    pub(super) fn credentials(&self) -> Option<(&str, &Secret)> {
        let user = self.username.as_deref().filter(|user| !user.is_empty())?;
        let password = self.password.as_ref()?;
        (!password.expose().is_empty()).then_some((user, password))
    }

    /// How long one mail may take.
    pub(super) fn time_limit(&self) -> Result<Duration, Fault> {
        let limit = self.timeout.map_or(TIMEOUT, |limit| limit.0);
        if !(Duration::from_secs(1)..=TIMEOUT).contains(&limit) {
            return Err(Fault::new(
                "transportConfig.timeout",
                "must be from 1s to 25s",
                "a sender is given half a minute for each mail",
            ));
        }
        Ok(limit)
    }
}

fn mailbox(key: &'static str, text: &str) -> Result<Mailbox, Fault> {
    text.parse().map_err(|error| {
        Fault::new(
            key,
            format!("is not a mail address ({error})"),
            "write it as name@domain or Name <name@domain>",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::config::Environment;

    fn read(yaml: &str) -> Result<EmailConfig, String> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("tidings.yaml");
        let yaml = format!("notifications: {{ processors: {{ email: {yaml} }} }}");
        std::fs::write(&file, yaml).unwrap();
        let config = Config::load(&[file], &[], &Environment::default()).unwrap();
        let section = config.section("notifications.processors.email");
        section.read().map_err(|error| error.to_string())
    }

    fn fault(yaml: &str) -> Fault {
        let config = read(yaml).unwrap();
        let transport = config.transport().map(|_| ());
        transport.and(config.from().map(|_| ())).unwrap_err()
    }

    #[test]
    fn the_peers_section_is_read_as_it_is() {
        let config = read(
            r#"{"transportConfig":{"transport":"smtp","hostname":"smtp.internal","port":"587",
                "secure":"false","requireTls":true,"username":"notify","password":"p"},
                "sender":"Tidings <tidings@example.com>","replyTo":"no-reply@example.com",
                "broadcastConfig":{"receiver":"config","receiverEmails":["a@b.c"]},
                "concurrencyLimit":10,"throttleInterval":{"seconds":1},"cache":{"ttl":{"hours":1}},
                "filter":{"minSeverity":"high"},"allowedEmailDomains":["example.com"]}"#,
        )
        .unwrap();
        let (transport, kind) = config.transport().unwrap();
        let relay = TransportKind::Smtp {
            hostname: "smtp.internal".into(),
            port: 587,
        };
        assert_eq!(kind, relay);
        assert_eq!(transport.require_tls, Some(true));
        assert!(!transport.secure() && transport.credentials().is_some());
        assert_eq!(
            config.from().unwrap().email.to_string(),
            "tidings@example.com"
        );
        assert_eq!(
            config.throttle_interval,
            Some(Setting(Duration::from_secs(1)))
        );
        assert_eq!(config.broadcast_config.receiver, Receiver::Config);
    }

    #[test]
    fn a_fault_names_its_key_and_what_would_be_right() {
        for (json, key, says) in [
            ("{}", "transportConfig", "transport: smtp"),
            (
                r#"{"transportConfig":{"transport":"ses","region":"eu-west-1"}}"#,
                "transportConfig.transport",
                "not served yet",
            ),
            (
                r#"{"transportConfig":{"transport":"smpt"}}"#,
                "transportConfig.transport",
                "one of smtp",
            ),
            (
                r#"{"transportConfig":{"transport":"smtp","port":25}}"#,
                "transportConfig.hostname",
                "is missing",
            ),
            (
                r#"{"transportConfig":{"transport":"smtp","hostname":"h"}}"#,
                "transportConfig.port",
                "587",
            ),
            (
                r#"{"transportConfig":{"transport":"smtp","hostname":"h","port":1,"secure":true,"requireTls":true}}"#,
                "transportConfig.requireTls",
                "choose one",
            ),
            (
                r#"{"transportConfig":{"transport":"stream"}}"#,
                "sender",
                "is missing",
            ),
            (
                r#"{"transportConfig":{"transport":"stream"},"sender":"nobody"}"#,
                "sender",
                "name@domain",
            ),
        ] {
            let fault = fault(json);
            assert_eq!(fault.key, key, "{json}");
            assert!(fault.to_string().contains(says), "{fault}");
        }
        let error = read(r#"{"senders":"a@b.c"}"#).unwrap_err();
        assert!(error.contains("did you mean `sender`"), "{error}");
        assert!(read(r#"{"throttleInterval":"soon"}"#).is_err());
    }

    #[test]
    fn a_password_is_never_printed() {
        let text = r#"{"transportConfig":{"transport":"smtp","password":"canary-7"}}"#;
        let shown = format!("{:?}", read(text).unwrap());
        assert!(!shown.contains("canary-7"), "{shown}");
        let wrong = r#"{"transportConfig":{"transport":"smtp","password":7270077}}"#;
        let error = read(wrong).unwrap_err();
        assert!(
            error.contains("quotes") && !error.contains("7270077"),
            "{error}"
        );
    }
}
