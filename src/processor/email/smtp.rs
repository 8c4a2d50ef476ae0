//! The transport `smtp`: conversations with the relay over connections that are kept open.
//!
//! Speaks through lettre's connection, and keeps the pool itself: lettre's own puts a connection
//! back also when a send is cancelled in the middle, and the next mail would then read the answer
//! to the one before. And only who goes step by step knows whether the relay refused us, our
//! sender, or this recipient.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;

use lettre::Address;
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::authentication::DEFAULT_MECHANISMS;
use lettre::transport::smtp::client::AsyncSmtpConnection;
use lettre::transport::smtp::client::Certificate;
use lettre::transport::smtp::client::TlsParameters;
use lettre::transport::smtp::commands::Data;
use lettre::transport::smtp::commands::Mail;
use lettre::transport::smtp::commands::Noop;
use lettre::transport::smtp::commands::Rcpt;
use lettre::transport::smtp::commands::Rset;
use lettre::transport::smtp::extension::ClientId;
use lettre::transport::smtp::extension::Extension;
use lettre::transport::smtp::extension::MailBodyParameter;
use lettre::transport::smtp::extension::MailParameter;
use lettre::transport::smtp::response::Response;
use tokio::time::Instant;
use tokio::time::timeout_at;

use super::config::Fault;
use super::config::TransportConfig;
use super::failure::Step;
use super::failure::Trouble;
use super::failure::Why;
use super::failure::Words;
use super::failure::queue_id;
use super::pool::Idle;
use crate::failure::Failure;

/// The longest that connecting may take, from the name to being signed in.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// The longest that a connection which waited may take to answer; then a new one is made.
const WAKE_LIMIT: Duration = Duration::from_secs(5);

/// When TLS begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Encryption {
    /// With the first byte.
    Implicit,
    /// By STARTTLS, or nothing is sent.
    Required,
    /// By STARTTLS where the relay offers it.
    Offered,
}

/// The relay, and the connections to it that wait.
pub(super) struct Relay {
    host: String,
    port: u16,
    /// `host:port`, for people.
    name: String,
    encryption: Encryption,
    tls: TlsParameters,
    credentials: Option<Credentials>,
    user: String,
    secret: String,
    hello: ClientId,
    limit: Duration,
    idle: Arc<Idle>,
    /// Whether it was said that the password goes over the network in the clear.
    warned: AtomicBool,
}

/// One mail to one address.
pub(super) struct Envelope<'a> {
    pub(super) from: &'a Address,
    pub(super) to: &'a Address,
    pub(super) content: &'a [u8],
}

impl Relay {
    /// Reads what it needs, the authorities' file too; connects to nothing.
    pub(super) fn new(
        config: &TransportConfig,
        host: String,
        port: u16,
        concurrency: usize,
    ) -> Result<Self, Fault> {
        let encryption = match (config.secure(), config.require_tls) {
            (true, _) => Encryption::Implicit,
            (false, Some(true)) => Encryption::Required,
            (false, _) => Encryption::Offered,
        };
        let credentials = config.credentials();
        let pool = config.pool_size.map_or(concurrency, usize::from);
        Ok(Self {
            name: format!("{host}:{port}"),
            encryption,
            tls: tls(&host, config.ca_file.as_deref())?,
            user: credentials.map_or_else(String::new, |(user, _)| user.to_owned()),
            secret: credentials.map_or_else(String::new, |(_, secret)| secret.expose().to_owned()),
            credentials: credentials.map(|(user, secret)| {
                Credentials::new(user.to_owned(), secret.expose().to_owned())
            }),
            hello: ClientId::default(),
            limit: config.time_limit()?,
            idle: Arc::new(Idle::new(pool)),
            warned: AtomicBool::new(false),
            host,
            port,
        })
    }

    /// Sends one mail, and returns the id that the relay gave it.
    pub(super) async fn send(&self, envelope: &Envelope<'_>) -> Result<Option<String>, Failure> {
        let words = self.words(envelope.to.as_ref());
        let deadline = Instant::now() + self.limit;
        let sent = match self.send_on_waiting(envelope, deadline).await {
            Some(sent) => sent,
            None => self.send_on_new(envelope, deadline).await,
        };
        match sent {
            Ok(answer) => {
                let text: Vec<_> = answer.message().collect();
                Ok(queue_id(&text.join(" "), &words))
            }
            Err(trouble) => Err(trouble.into_failure(&words)),
        }
    }

    /// Connects anew, signs in, has the sender accepted, and says how; sends nothing.
    pub(super) async fn probe(&self, from: &Address) -> Result<String, Failure> {
        let deadline = Instant::now() + self.limit;
        self.try_out(from, deadline)
            .await
            .map_err(|trouble| trouble.into_failure(&self.words("")))
    }

    async fn try_out(&self, from: &Address, deadline: Instant) -> Result<String, Trouble> {
        let mut connection = self.connect(deadline).await?;
        let encrypted = connection.is_encrypted();
        let mail = Mail::new(Some(from.clone()), Vec::new());
        step(Step::Sender, deadline, connection.command(mail)).await?;
        step(Step::Sender, deadline, connection.command(Rset)).await?;
        step(Step::Sender, deadline, connection.command(Noop)).await?;
        self.idle.put(connection);
        let how = match (encrypted, self.encryption) {
            (true, Encryption::Implicit) => "TLS",
            (true, _) => "STARTTLS",
            (false, _) => "not encrypted",
        };
        let who = match self.user.as_str() {
            "" => "not signed in".to_owned(),
            user => format!("signed in as {user}"),
        };
        Ok(format!("{} {how}, {who}", self.name))
    }

    fn words<'a>(&'a self, recipient: &'a str) -> Words<'a> {
        Words {
            relay: &self.name,
            recipient,
            secret: &self.secret,
        }
    }

    /// Sends on a connection that waited. `None` where there is none, or where it turned out to
    /// be gone before any content was sent: relays close what waits, and that is no failure.
    async fn send_on_waiting(
        &self,
        envelope: &Envelope<'_>,
        deadline: Instant,
    ) -> Option<Result<Response, Trouble>> {
        let mut connection = self.idle.take()?;
        let wake = deadline.min(Instant::now() + WAKE_LIMIT);
        if let Err(trouble) = offer(&mut connection, envelope, wake, deadline).await {
            if trouble.is_stale() {
                return None;
            }
            if !trouble.is_broken() {
                self.recover(connection, deadline).await;
            }
            return Some(Err(trouble));
        }
        Some(self.hand_over(connection, envelope, deadline).await)
    }

    async fn send_on_new(
        &self,
        envelope: &Envelope<'_>,
        deadline: Instant,
    ) -> Result<Response, Trouble> {
        let mut connection = self.connect(deadline).await?;
        if let Err(trouble) = offer(&mut connection, envelope, deadline, deadline).await {
            if !trouble.is_broken() {
                self.recover(connection, deadline).await;
            }
            return Err(trouble);
        }
        self.hand_over(connection, envelope, deadline).await
    }

    /// Sends the content of a mail whose sender and recipient were taken.
    async fn hand_over(
        &self,
        mut connection: AsyncSmtpConnection,
        envelope: &Envelope<'_>,
        deadline: Instant,
    ) -> Result<Response, Trouble> {
        let content = connection.message(envelope.content);
        let sent = step(Step::Content, deadline, content).await;
        match &sent {
            Ok(_) => self.idle.put(connection),
            Err(trouble) if trouble.is_broken() => {}
            Err(_) => self.recover(connection, deadline).await,
        }
        sent
    }

    /// Clears away a mail that was refused, so that the connection can serve the next one.
    async fn recover(&self, mut connection: AsyncSmtpConnection, deadline: Instant) {
        let deadline = deadline.min(Instant::now() + WAKE_LIMIT);
        let reset = step(Step::Sender, deadline, connection.command(Rset)).await;
        if reset.is_ok() {
            self.idle.put(connection);
        }
    }

    /// A new connection, encrypted and signed in as configured.
    async fn connect(&self, deadline: Instant) -> Result<AsyncSmtpConnection, Trouble> {
        let deadline = deadline.min(Instant::now() + CONNECT_LIMIT);
        let mut connection = self.open(deadline).await?;
        let offered = connection.can_starttls();
        if self.encryption == Encryption::Required && !offered {
            return Err(trouble(Step::StartTls, Why::NoTls));
        }
        if offered && self.encryption != Encryption::Implicit {
            let starttls = connection.starttls(self.tls.clone(), &self.hello);
            step(Step::StartTls, deadline, starttls).await?;
        }
        let Some(credentials) = &self.credentials else {
            return Ok(connection);
        };
        let known = connection.server_info();
        if known.get_auth_mechanism(DEFAULT_MECHANISMS).is_none() {
            return Err(trouble(Step::SignIn, Why::NoSignIn));
        }
        if !connection.is_encrypted() && !self.warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                relay = self.name,
                "the password goes to the relay unencrypted; requireTls: true forbids that"
            );
        }
        let auth = connection.auth(DEFAULT_MECHANISMS, credentials);
        step(Step::SignIn, deadline, auth).await?;
        Ok(connection)
    }

    /// Connects to the first of the relay's addresses that answers.
    async fn open(&self, deadline: Instant) -> Result<AsyncSmtpConnection, Trouble> {
        let tls = (self.encryption == Encryption::Implicit).then_some(&self.tls);
        let names = tokio::net::lookup_host((self.host.as_str(), self.port));
        let addresses: Vec<_> = match timeout_at(deadline, names).await {
            Ok(Ok(addresses)) => addresses.collect(),
            Ok(Err(_)) => return Err(trouble(Step::Connect, Why::Name)),
            Err(_) => return Err(trouble(Step::Connect, Why::Late)),
        };
        let mut last = trouble(Step::Connect, Why::Name);
        let count = addresses.len();
        for (at, address) in addresses.into_iter().enumerate() {
            // A share of the time each, so that one that is silent does not hide the next.
            let share = deadline.duration_since(Instant::now()) / saturating(count - at);
            let deadline = Instant::now() + share;
            let connection =
                AsyncSmtpConnection::connect_tokio1(address, None, &self.hello, tls.cloned(), None);
            match step(Step::Connect, deadline, connection).await {
                Ok(connection) => return Ok(connection),
                Err(trouble) => last = trouble,
            }
        }
        Err(last)
    }
}

fn saturating(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// Has sender and recipient accepted, and the content asked for; the first answer by `wake`.
async fn offer(
    connection: &mut AsyncSmtpConnection,
    envelope: &Envelope<'_>,
    wake: Instant,
    deadline: Instant,
) -> Result<(), Trouble> {
    let plain = |address: &Address| AsRef::<str>::as_ref(address).is_ascii();
    let mut parameters = Vec::new();
    if !plain(envelope.from) || !plain(envelope.to) {
        let able = |what| connection.server_info().supports_feature(what);
        if !able(Extension::SmtpUtfEight) || !able(Extension::EightBitMime) {
            return Err(trouble(Step::Recipient, Why::NoUtf8));
        }
        parameters.push(MailParameter::SmtpUtfEight);
        parameters.push(MailParameter::Body(MailBodyParameter::EightBitMime));
    }
    let mail = Mail::new(Some(envelope.from.clone()), parameters);
    step(Step::Sender, wake, connection.command(mail)).await?;
    let recipient = Rcpt::new(envelope.to.clone(), Vec::new());
    step(Step::Recipient, deadline, connection.command(recipient)).await?;
    // Before the content nothing can be taken: a lost answer here is no doubt.
    step(Step::Recipient, deadline, connection.command(Data)).await?;
    Ok(())
}

/// Takes one step of the conversation, in time.
async fn step<T>(
    step: Step,
    deadline: Instant,
    doing: impl Future<Output = Result<T, lettre::transport::smtp::Error>>,
) -> Result<T, Trouble> {
    match timeout_at(deadline, doing).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) => Err(trouble(step, Why::Said(error))),
        Err(_) => Err(trouble(step, Why::Late)),
    }
}

fn trouble(step: Step, why: Why) -> Trouble {
    Trouble { step, why }
}

/// Whom to trust: the system's authorities, and those of the file.
fn tls(host: &str, ca_file: Option<&Path>) -> Result<TlsParameters, Fault> {
    const KEY: &str = "transportConfig.caFile";
    let mut builder = TlsParameters::builder(host.to_owned());
    if let Some(file) = ca_file {
        let shown = file.display();
        let pem = std::fs::read(file).map_err(|error| {
            Fault::new(KEY, format!("cannot be read: {error}"), shown.to_string())
        })?;
        let certificate = Certificate::from_pem(&pem)
            .map_err(|_| Fault::new(KEY, "is not a PEM file of certificates", shown.to_string()))?;
        builder = builder.add_root_certificate(certificate);
    }
    builder
        .build()
        .map_err(|error| Fault::new(KEY, format!("cannot be used: {error}"), ""))
}
