//! A real SMTP server inside a test: it takes mail on a port of its own, keeps what it took, and
//! fails where the script says so.
//!
//! Written here since the crates that offer one block a thread each, and cannot be told to hang,
//! to drop a connection after DATA, or to refuse one recipient. It speaks RFC 5321 with
//! PIPELINING, 8BITMIME, SMTPUTF8, STARTTLS, AUTH PLAIN and AUTH LOGIN.

mod session;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use mail_parser::HeaderName;
use mail_parser::MessageParser;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::pki_types::PrivatePkcs8KeyDer;

use self::session::Session;

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
            let session = Session::new(Arc::clone(&shared));
            // An error means that the client is gone, which is its right.
            state.connections.push(tokio::spawn(async move {
                let _ = session.serve(Box::new(stream)).await;
            }));
        }
    })
}
