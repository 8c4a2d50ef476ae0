//! One conversation with a client: the commands, and where the script makes them go wrong.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mail_parser::MessageParser;
use tokio::io::AsyncBufReadExt as _;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::io::AsyncWriteExt as _;
use tokio::io::BufReader;

use super::Act;
use super::At;
use super::Mail;
use super::Shared;
use super::Tls;

/// What a conversation goes over.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
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

/// A conversation under way.
pub(super) struct Session {
    shared: Arc<Shared>,
    encrypted: bool,
    user: Option<String>,
    from: Option<String>,
    to: Vec<String>,
}

impl Session {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            encrypted: false,
            user: None,
            from: None,
            to: Vec::new(),
        }
    }

    pub(super) async fn serve(mut self, stream: Box<dyn Stream>) -> std::io::Result<()> {
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
