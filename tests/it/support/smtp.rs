//! A real SMTP server inside a test: it takes mail on a port of its own, keeps what it took, and
//! fails where the script says so.
//!
//! Written here since the crates that offer one block a thread each, and cannot be told to hang,
//! to drop a connection after DATA, or to refuse one recipient. It speaks RFC 5321 with
//! PIPELINING, 8BITMIME, SMTPUTF8, STARTTLS, AUTH PLAIN and AUTH LOGIN.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mail_parser::HeaderName;
use mail_parser::MessageParser;
use tokio::io::AsyncBufReadExt as _;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::io::AsyncWriteExt as _;
use tokio::io::BufReader;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::pki_types::PrivatePkcs8KeyDer;

/// How long [`Smtp::wait_for`] waits.
const PATIENCE: Duration = Duration::from_secs(60);

/// A mail that the server took.
#[derive(Clone, Debug)]
pub(crate) struct Mail {
    /// The envelope's sender.
    pub(crate) from: String,
    /// The envelope's recipients.
    pub(crate) to: Vec<String>,
    /// As it came, without the dots of the transport.
    pub(crate) raw: Vec<u8>,
    /// `Message-ID` without its brackets.
    pub(crate) message_id: String,
    /// Which connection brought it, from 1.
    pub(crate) connection: usize,
    /// Whether it came over TLS.
    pub(crate) encrypted: bool,
    /// Who had signed in.
    pub(crate) user: Option<String>,
}

impl Mail {
    /// The mail, read by a parser that is not the one that wrote it.
    pub(crate) fn parsed(&self) -> mail_parser::Message<'_> {
        MessageParser::default().parse(&self.raw).expect("a mail")
    }

    /// The subject, decoded.
    pub(crate) fn subject(&self) -> String {
        self.parsed().subject().unwrap_or_default().to_owned()
    }

    /// The text part, decoded, with plain line ends.
    pub(crate) fn text(&self) -> String {
        let mail = self.parsed();
        let text = mail.body_text(0).unwrap_or_default();
        text.replace("\r\n", "\n")
    }

    /// The HTML part, decoded.
    pub(crate) fn html(&self) -> String {
        self.parsed().body_html(0).unwrap_or_default().into_owned()
    }

    /// A header as it was written, unfolded and trimmed.
    pub(crate) fn header(&self, name: &str) -> Option<String> {
        self.parsed()
            .header_raw(HeaderName::parse(name)?)
            .map(|value| value.replace("\r\n", "").trim().to_owned())
    }
}

/// Where in the conversation something goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum At {
    /// Before the first line.
    Greeting,
    /// At EHLO.
    Ehlo,
    /// At AUTH.
    Auth,
    /// At MAIL FROM.
    MailFrom,
    /// At RCPT TO.
    Recipient,
    /// At DATA, before the content.
    Data,
    /// After the content.
    Content,
}

/// What goes wrong.
#[derive(Clone, Debug)]
pub(crate) enum Act {
    /// This answer, in place of the right one.
    Reply(&'static str),
    /// This answer, and then the connection is closed.
    ReplyAndClose(&'static str),
    /// No answer, ever.
    Hang,
    /// The connection is closed without an answer.
    Close,
    /// The mail is taken, and the connection closed without an answer; only at [`At::Content`].
    TakeAndClose,
}

/// A thing that goes wrong, and how often.
#[derive(Clone, Debug)]
pub(crate) struct Fault {
    at: At,
    recipient: Option<String>,
    act: Act,
    times: usize,
}

impl Fault {
    /// Goes wrong every time.
    pub(crate) fn new(at: At, act: Act) -> Self {
        Self {
            at,
            recipient: None,
            act,
            times: usize::MAX,
        }
    }

    /// This answer to this recipient, every time.
    pub(crate) fn recipient(address: &str, reply: &'static str) -> Self {
        Self {
            recipient: Some(address.to_owned()),
            ..Self::new(At::Recipient, Act::Reply(reply))
        }
    }

    /// Goes wrong so often, and then no more.
    pub(crate) fn times(self, times: usize) -> Self {
        Self { times, ..self }
    }
}

/// How the server protects its connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tls {
    None,
    Offered,
    Implicit,
}

/// What a server is to be like.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    tls: Tls,
    credentials: Option<(String, String)>,
    utf8: bool,
}

impl Setup {
    /// Offers STARTTLS, with a certificate for `localhost` that only [`Smtp::ca_pem`] vouches for.
    pub(crate) fn starttls(self) -> Self {
        Self {
            tls: Tls::Offered,
            ..self
        }
    }

    /// Speaks TLS from the first byte, with that certificate.
    pub(crate) fn implicit_tls(self) -> Self {
        Self {
            tls: Tls::Implicit,
            ..self
        }
    }

    /// Takes mail only from who signs in so.
    pub(crate) fn credentials(self, user: &str, password: &str) -> Self {
        Self {
            credentials: Some((user.to_owned(), password.to_owned())),
            ..self
        }
    }

    /// Does not take addresses beyond ASCII.
    pub(crate) fn without_utf8(self) -> Self {
        Self {
            utf8: false,
            ..self
        }
    }

    /// Starts it.
    pub(crate) async fn start(self) -> Smtp {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let (certificate, acceptor) = certificate();
        let shared = Arc::new(Shared {
            setup: self,
            acceptor,
            state: Mutex::default(),
            changed: watch::channel(0).0,
        });
        Smtp {
            address: listener.local_addr().expect("an address"),
            ca_pem: certificate,
            accepting: Mutex::new(Some(accept(listener, Arc::clone(&shared)))),
            shared,
        }
    }
}

/// The server. It stops when this is dropped.
#[derive(Debug)]
pub(crate) struct Smtp {
    address: SocketAddr,
    ca_pem: String,
    accepting: Mutex<Option<JoinHandle<()>>>,
    shared: Arc<Shared>,
}

struct Shared {
    setup: Setup,
    acceptor: TlsAcceptor,
    state: Mutex<State>,
    /// Counts mails taken.
    changed: watch::Sender<usize>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

#[derive(Default)]
struct State {
    mails: Vec<Mail>,
    faults: Vec<Fault>,
    connections: Vec<JoinHandle<()>>,
}

impl Smtp {
    /// A server that takes everything.
    pub(crate) async fn start() -> Self {
        Self::setup().start().await
    }

    /// A server that takes everything, to be made stricter.
    pub(crate) fn setup() -> Setup {
        Setup {
            tls: Tls::None,
            credentials: None,
            utf8: true,
        }
    }

    /// Where it listens, on `localhost`.
    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// The certificate that vouches for the server's own.
    pub(crate) fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// Makes something go wrong from now on.
    pub(crate) fn fault(&self, fault: Fault) {
        self.state().faults.push(fault);
    }

    /// Nothing goes wrong from now on.
    pub(crate) fn mend(&self) {
        self.state().faults.clear();
    }

    /// Refuses connections and drops those there are, until [`Self::reopen`].
    pub(crate) async fn close(&self) {
        let accepting = self.accepting.lock().unwrap().take();
        if let Some(task) = accepting {
            task.abort();
            // The port is free only when the listener is gone.
            let _ = task.await;
        }
        self.drop_connections();
    }

    /// Takes connections again, on the same port.
    pub(crate) async fn reopen(&self) {
        let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
        socket.set_reuseaddr(true).expect("the port again");
        socket.bind(self.address).expect("the port again");
        let listener = socket.listen(64).expect("the port again");
        let task = accept(listener, Arc::clone(&self.shared));
        *self.accepting.lock().unwrap() = Some(task);
    }

    /// Drops the connections there are, as an idle timeout does.
    pub(crate) fn drop_connections(&self) {
        for task in &self.state().connections {
            task.abort();
        }
    }

    /// How many connections were taken so far.
    pub(crate) fn connections(&self) -> usize {
        self.state().connections.len()
    }

    /// What was taken so far.
    pub(crate) fn mails(&self) -> Vec<Mail> {
        self.state().mails.clone()
    }

    /// What was taken, as soon as it is at least `count` mails; a minute at most.
    pub(crate) async fn wait_for(&self, count: usize) -> Vec<Mail> {
        let mut changed = self.shared.changed.subscribe();
        let enough = changed.wait_for(|taken| *taken >= count);
        if tokio::time::timeout(PATIENCE, enough).await.is_err() {
            panic!("{} mails of {count} in {PATIENCE:?}", self.mails().len());
        }
        self.mails()
    }

    /// How many copies of each mail were taken.
    pub(crate) fn count_by_message_id(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for mail in &self.state().mails {
            *counts.entry(mail.message_id.clone()).or_default() += 1;
        }
        counts
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.shared.state.lock().unwrap()
    }
}

impl Drop for Smtp {
    fn drop(&mut self) {
        if let Some(task) = self.accepting.lock().unwrap().take() {
            task.abort();
        }
        self.drop_connections();
    }
}

/// A self-signed certificate for `localhost`, as PEM, and what serves with it.
fn certificate() -> (String, TlsAcceptor) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("TLS versions")
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .expect("a server's certificate");
    (made.cert.pem(), TlsAcceptor::from(Arc::new(config)))
}

fn accept(listener: TcpListener, shared: Arc<Shared>) -> JoinHandle<()> {
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let _ = stream.set_nodelay(true);
            let mut state = shared.state.lock().unwrap();
            let number = state.connections.len() + 1;
            let session = Session::new(Arc::clone(&shared), number);
            // An error means that the client is gone, which is its right.
            state.connections.push(tokio::spawn(async move {
                let _ = session.serve(Box::new(stream)).await;
            }));
        }
    })
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

type Wire = BufReader<Box<dyn Stream>>;

/// What to do after a command.
enum Then {
    Say(String),
    StartTls,
    TakeContent,
    SayAndClose(String),
    Close,
    /// Only after the content.
    TakeAndClose,
}

fn say(text: &str) -> Then {
    Then::Say(text.to_owned())
}

struct Session {
    shared: Arc<Shared>,
    number: usize,
    encrypted: bool,
    user: Option<String>,
    from: Option<String>,
    to: Vec<String>,
}

impl Session {
    fn new(shared: Arc<Shared>, number: usize) -> Self {
        Self {
            shared,
            number,
            encrypted: false,
            user: None,
            from: None,
            to: Vec::new(),
        }
    }

    async fn serve(mut self, stream: Box<dyn Stream>) -> std::io::Result<()> {
        let acceptor = self.shared.acceptor.clone();
        let mut wire: Wire = if self.shared.setup.tls == Tls::Implicit {
            self.encrypted = true;
            BufReader::new(Box::new(acceptor.accept(stream).await?))
        } else {
            BufReader::new(stream)
        };
        let mut then = match self.faulty(At::Greeting, None).await {
            Some(then) => then,
            None => say("220 localhost ESMTP"),
        };
        loop {
            match then {
                Then::Say(text) => write(&mut wire, &text).await?,
                Then::SayAndClose(text) => {
                    write(&mut wire, &text).await?;
                    return Ok(());
                }
                Then::Close | Then::TakeAndClose => return Ok(()),
                Then::StartTls => {
                    write(&mut wire, "220 2.0.0 go on").await?;
                    wire = BufReader::new(Box::new(acceptor.accept(wire.into_inner()).await?));
                    self.encrypted = true;
                }
                Then::TakeContent => {
                    write(&mut wire, "354 end with a dot").await?;
                    let content = content(&mut wire).await?;
                    then = self.content(content).await;
                    continue;
                }
            }
            let mut line = String::new();
            if wire.read_line(&mut line).await? == 0 {
                return Ok(());
            }
            then = self.command(line.trim_end(), &mut wire).await?;
        }
    }

    async fn command(&mut self, line: &str, wire: &mut Wire) -> std::io::Result<Then> {
        let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
        let verb = verb.to_ascii_uppercase();
        let (at, recipient) = match verb.as_str() {
            "EHLO" => (Some(At::Ehlo), None),
            "AUTH" => (Some(At::Auth), None),
            "MAIL" => (Some(At::MailFrom), None),
            "RCPT" => (Some(At::Recipient), Some(address(rest))),
            "DATA" => (Some(At::Data), None),
            _ => (None, None),
        };
        if let Some(at) = at
            && let Some(then) = self.faulty(at, recipient.as_deref()).await
        {
            return Ok(then);
        }
        let open = self.shared.setup.credentials.is_none() || self.user.is_some();
        Ok(match verb.as_str() {
            "EHLO" => Then::Say(self.abilities()),
            "HELO" | "NOOP" => say("250 2.0.0 ok"),
            "STARTTLS" if self.shared.setup.tls == Tls::Offered && !self.encrypted => {
                Then::StartTls
            }
            "AUTH" => self.auth(rest, wire).await?,
            "MAIL" | "RCPT" | "DATA" if !open => say("530 5.7.0 sign in first"),
            "MAIL" => {
                (self.from, self.to) = (Some(address(rest)), Vec::new());
                say("250 2.1.0 ok")
            }
            "RCPT" if self.from.is_some() => {
                self.to.extend(recipient);
                say("250 2.1.5 ok")
            }
            "DATA" if !self.to.is_empty() => Then::TakeContent,
            "RSET" => {
                (self.from, self.to) = (None, Vec::new());
                say("250 2.0.0 ok")
            }
            "QUIT" => Then::SayAndClose("221 2.0.0 bye".to_owned()),
            _ => say("503 5.5.1 not now"),
        })
    }

    fn abilities(&self) -> String {
        let setup = &self.shared.setup;
        let mut lines = vec!["localhost", "PIPELINING", "8BITMIME", "ENHANCEDSTATUSCODES"];
        if setup.utf8 {
            lines.push("SMTPUTF8");
        }
        if setup.tls == Tls::Offered && !self.encrypted {
            lines.push("STARTTLS");
        }
        if setup.credentials.is_some() {
            lines.push("AUTH PLAIN LOGIN");
        }
        let last = lines.len() - 1;
        let line = |(at, text)| format!("250{}{text}", if at == last { ' ' } else { '-' });
        let lines: Vec<_> = lines.into_iter().enumerate().map(line).collect();
        lines.join("\r\n")
    }

    async fn auth(&mut self, rest: &str, wire: &mut Wire) -> std::io::Result<Then> {
        let (mechanism, initial) = rest.split_once(' ').unwrap_or((rest, ""));
        let given = if mechanism.eq_ignore_ascii_case("PLAIN") {
            let answer = match initial {
                "" => ask(wire, "").await?,
                initial => decode(initial),
            };
            let mut parts = answer.split('\0').skip(1).map(str::to_owned);
            parts.next().zip(parts.next())
        } else {
            let user = match initial {
                "" => ask(wire, "Username:").await?,
                initial => decode(initial),
            };
            Some((user, ask(wire, "Password:").await?))
        };
        if given.is_some() && given == self.shared.setup.credentials {
            self.user = given.map(|(user, _)| user);
            return Ok(say("235 2.7.0 welcome"));
        }
        Ok(say("535 5.7.8 authentication failed"))
    }

    async fn content(&mut self, raw: Vec<u8>) -> Then {
        let close = match self.faulty(At::Content, None).await {
            None => false,
            Some(Then::TakeAndClose) => true,
            Some(then) => return then,
        };
        let id = MessageParser::default()
            .parse(&raw)
            .and_then(|mail| mail.message_id().map(str::to_owned));
        let mail = Mail {
            from: self.from.take().unwrap_or_default(),
            to: std::mem::take(&mut self.to),
            raw,
            message_id: id.unwrap_or_default(),
            connection: self.number,
            encrypted: self.encrypted,
            user: self.user.clone(),
        };
        let taken = {
            let mut state = self.shared.state.lock().unwrap();
            state.mails.push(mail);
            state.mails.len()
        };
        self.shared.changed.send_replace(taken);
        if close {
            return Then::Close;
        }
        Then::Say(format!("250 2.0.0 Ok: queued as {taken:06X}"))
    }

    /// What goes wrong here, if anything.
    async fn faulty(&self, at: At, recipient: Option<&str>) -> Option<Then> {
        let act = {
            let mut state = self.shared.state.lock().unwrap();
            let fault = state.faults.iter_mut().find(|fault| {
                fault.at == at
                    && fault.times > 0
                    && (fault.recipient.is_none() || fault.recipient.as_deref() == recipient)
            })?;
            fault.times -= 1;
            fault.act.clone()
        };
        Some(match act {
            Act::Reply(text) => say(text),
            Act::ReplyAndClose(text) => Then::SayAndClose(text.to_owned()),
            Act::Close => Then::Close,
            Act::TakeAndClose => Then::TakeAndClose,
            Act::Hang => std::future::pending().await,
        })
    }
}

/// The address between the angle brackets.
fn address(rest: &str) -> String {
    let inner = rest
        .split_once('<')
        .and_then(|(_, rest)| rest.split_once('>'));
    inner.map_or_else(String::new, |(address, _)| address.to_owned())
}

fn decode(text: &str) -> String {
    let bytes = STANDARD.decode(text.trim()).unwrap_or_default();
    String::from_utf8(bytes).unwrap_or_default()
}

async fn ask(wire: &mut Wire, question: &str) -> std::io::Result<String> {
    write(wire, &format!("334 {}", STANDARD.encode(question))).await?;
    let mut line = String::new();
    wire.read_line(&mut line).await?;
    Ok(decode(&line))
}

async fn write(wire: &mut Wire, text: &str) -> std::io::Result<()> {
    wire.write_all(format!("{text}\r\n").as_bytes()).await?;
    wire.flush().await
}

/// Reads up to the lone dot, and takes the transport's dots away.
async fn content(wire: &mut Wire) -> std::io::Result<Vec<u8>> {
    let mut all = Vec::new();
    loop {
        let mut line = Vec::new();
        if wire.read_until(b'\n', &mut line).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        if line == b".\r\n" {
            return Ok(all);
        }
        let line = line.strip_prefix(b".").unwrap_or(&line);
        all.extend_from_slice(line);
    }
}
