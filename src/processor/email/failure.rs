//! What the relay's answers mean: which failures are the relay's, which the mail's, and which
//! will pass. The words are ours, with the relay's answer in them and no address.
//!
//! | when | what | kind |
//! | --- | --- | --- |
//! | name, connection, greeting, EHLO, TLS, signing in | anything | dependency |
//! | our sender (MAIL FROM) | anything: it is the same for every mail | dependency |
//! | the recipient (RCPT) | 4xx | transient |
//! | | 5xx | permanent, `rejected` |
//! | the content (DATA) | 4xx | transient |
//! | | 5xx (552 too large, 554 refused) | permanent, `rejected` |
//! | any | 530, 534, 535, 538: not signed in (any more) | dependency, `auth` |
//! | after the sender | 421, the connection lost, no answer in time | transient |
//!
//! What goes wrong after the sender was taken is counted as the mail's, even a lost connection: a
//! mail that makes the relay hang up must not hold up all the others.

use std::error::Error as _;
use std::io;

use lettre::transport::smtp::Error;

use crate::failure::Failure;
use crate::failure::Reason;

/// Longest answer that is kept, in characters.
const ANSWER_CHARS_MAX: usize = 200;

/// How far a conversation with the relay had come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Connect,
    StartTls,
    SignIn,
    Sender,
    Recipient,
    Content,
}

/// Why a step did not work.
#[derive(Debug)]
pub(super) enum Why {
    /// The name of the relay is not known.
    Name,
    /// STARTTLS is required and not offered.
    NoTls,
    /// Signing in is configured and not offered.
    NoSignIn,
    /// The address is beyond ASCII, and the relay does not take such.
    NoUtf8,
    /// No answer in the time allowed.
    Late,
    /// The relay or the network said no.
    Said(Error),
}

/// What went wrong, and when.
#[derive(Debug)]
pub(super) struct Trouble {
    pub(super) step: Step,
    pub(super) why: Why,
}

/// What must not stand in a detail, and what may.
#[derive(Clone, Copy, Debug)]
pub(super) struct Words<'a> {
    /// `host:port` of the relay.
    pub(super) relay: &'a str,
    /// The address that is written to.
    pub(super) recipient: &'a str,
    /// The password, if there is one.
    pub(super) secret: &'a str,
}

impl Trouble {
    /// The code of the relay's answer, if it gave one.
    pub(super) fn code(&self) -> Option<u16> {
        match &self.why {
            Why::Said(error) => error.status().map(u16::from),
            _ => None,
        }
    }

    /// Whether the connection is of no more use: it broke, or the relay ends it (421).
    pub(super) fn is_broken(&self) -> bool {
        match &self.why {
            Why::Said(_) => matches!(self.code(), None | Some(421)),
            Why::NoUtf8 => false,
            _ => true,
        }
    }

    /// Whether a connection that had waited turned out to be gone, so that a new one may do.
    pub(super) fn is_stale(&self) -> bool {
        let slow = matches!(self.why, Why::Late) && self.step != Step::Sender;
        self.is_broken() && !slow
    }

    /// What it means for the mail.
    pub(super) fn into_failure(self, words: &Words<'_>) -> Failure {
        let relay = words.relay;
        match (&self.why, self.step) {
            (Why::Name, _) => Failure::dependency(
                Reason::Dns,
                format!("the name of the relay {relay} is not known"),
            ),
            (Why::NoTls, _) => Failure::dependency(
                Reason::Config,
                format!(
                    "{relay} does not offer STARTTLS, which requireTls demands; nothing was sent"
                ),
            ),
            (Why::NoSignIn, _) => Failure::dependency(
                Reason::Config,
                format!("{relay} does not let us sign in (no AUTH PLAIN or LOGIN)"),
            ),
            (Why::NoUtf8, _) => Failure::permanent(
                Reason::Rejected,
                "the relay does not take addresses beyond ASCII (no SMTPUTF8)",
            ),
            (Why::Late, step) => late(step, relay),
            (Why::Said(error), step) => match self.code() {
                Some(code) => answered(step, code, &answer(code, error, words), relay),
                None => broke(step, error, relay),
            },
        }
    }
}

/// No answer in time.
fn late(step: Step, relay: &str) -> Failure {
    match step {
        Step::Connect | Step::StartTls | Step::SignIn | Step::Sender => {
            Failure::dependency(Reason::Timeout, format!("{relay} does not answer in time"))
        }
        Step::Recipient => Failure::transient(
            Reason::Timeout,
            "the relay gave no answer in time; nothing was sent",
        ),
        Step::Content => Failure::transient(
            Reason::Timeout,
            "the relay gave no answer to the content in time: it may have been delivered, and the next try may deliver it twice",
        ),
    }
}

/// The relay answered with a refusal.
fn answered(step: Step, code: u16, answer: &str, relay: &str) -> Failure {
    if matches!(code, 530 | 534 | 535 | 538) {
        return Failure::dependency(
            Reason::Auth,
            format!("{relay} refuses to let us in: {answer}"),
        );
    }
    let reason = match code {
        421 | 452 => Reason::Rate,
        ..500 => Reason::Server,
        _ => Reason::Rejected,
    };
    match step {
        Step::Connect => Failure::dependency(
            if code < 500 { reason } else { Reason::Server },
            format!("{relay} turns us away: {answer}"),
        ),
        Step::StartTls => Failure::dependency(
            Reason::Server,
            format!("{relay} refuses STARTTLS: {answer}"),
        ),
        Step::SignIn => Failure::dependency(
            if code < 500 {
                Reason::Server
            } else {
                Reason::Auth
            },
            format!("{relay} refuses to let us in: {answer}"),
        ),
        Step::Sender => Failure::dependency(
            reason,
            format!("{relay} refuses mail from the configured sender: {answer}"),
        ),
        Step::Recipient | Step::Content if code < 500 => {
            Failure::transient(reason, answer.to_owned())
        }
        Step::Recipient | Step::Content => Failure::permanent(reason, answer.to_owned()),
    }
}

/// The connection could not be made, or broke.
fn broke(step: Step, error: &Error, relay: &str) -> Failure {
    let what = cause(error);
    match step {
        Step::Connect | Step::StartTls | Step::SignIn | Step::Sender => {
            let reason = if what == TIMED_OUT {
                Reason::Timeout
            } else {
                Reason::Network
            };
            Failure::dependency(reason, format!("{relay}: {what}"))
        }
        Step::Recipient => Failure::transient(Reason::Network, format!("{what}; nothing was sent")),
        Step::Content => Failure::transient(
            Reason::Network,
            format!(
                "{what} before the relay's answer to the content came: it may have been delivered, and the next try may deliver it twice"
            ),
        ),
    }
}

const TIMED_OUT: &str = "no connection in time";

/// The cause of a failed connection, in our words.
fn cause(error: &Error) -> String {
    let mut source = error.source();
    while let Some(one) = source {
        if let Some(io) = one.downcast_ref::<io::Error>() {
            return io_cause(io);
        }
        if let Some(tls) = one.downcast_ref::<rustls::Error>() {
            return tls_cause(tls);
        }
        source = one.source();
    }
    if error.is_response() {
        return "the relay hung up, or does not speak SMTP here".to_owned();
    }
    "the conversation broke off".to_owned()
}

fn io_cause(error: &io::Error) -> String {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
    if let Some(tls) = inner {
        return tls_cause(tls);
    }
    match error.kind() {
        io::ErrorKind::TimedOut => TIMED_OUT.to_owned(),
        io::ErrorKind::ConnectionRefused => "the connection was refused".to_owned(),
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
            "there is no way to it in the network".to_owned()
        }
        io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::UnexpectedEof => "the connection was lost".to_owned(),
        kind => format!("the connection failed ({kind})"),
    }
}

fn tls_cause(error: &rustls::Error) -> String {
    match error {
        rustls::Error::InvalidCertificate(why) => format!(
            "its certificate is not to be trusted ({why}); an authority of your own goes into transportConfig.caFile"
        ),
        rustls::Error::InvalidMessage(_) => {
            "it does not speak TLS on this port; `secure: true` is for port 465, as a rule"
                .to_owned()
        }
        other => format!("TLS failed ({other})"),
    }
}

/// The relay's answer, on one line, without anything that looks like an address.
fn answer(code: u16, error: &Error, words: &Words<'_>) -> String {
    let text = error.source().map(ToString::to_string).unwrap_or_default();
    let text = redact(&text, words);
    format!("{code} {text}").trim_end().to_owned()
}

/// `text` on one line and not too long, without addresses, the recipient's name, or the secret.
pub(super) fn redact(text: &str, words: &Words<'_>) -> String {
    let text = match words.secret {
        "" => text.to_owned(),
        secret => text.replace(secret, "(password)"),
    };
    let name = words.recipient.split('@').next().unwrap_or_default();
    let told: Vec<_> = text
        .split(|c: char| c.is_whitespace() || c.is_control())
        .filter(|word| !word.is_empty())
        .map(|word| {
            let bare = word.trim_matches(|c: char| !c.is_alphanumeric());
            let names = !name.is_empty() && bare.eq_ignore_ascii_case(name);
            if word.contains('@') || names {
                "(address)"
            } else {
                word
            }
        })
        .collect();
    let told = told.join(" ");
    match told.char_indices().nth(ANSWER_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &told[..end]),
        None => told,
    }
}

/// The id that a relay gave a mail, out of its last answer.
pub(super) fn queue_id(answer: &str, words: &Words<'_>) -> Option<String> {
    let after = |mark: &str| {
        let at = answer.to_ascii_lowercase().find(mark)?;
        answer.get(at + mark.len()..)?.split_whitespace().next()
    };
    let id = match after("queued as ").or_else(|| after("id=")) {
        Some(id) => redact(id.trim_end_matches(['.', ',', ';', ')']), words),
        None => redact(answer, words),
    };
    (!id.is_empty()).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Kind;

    const WORDS: Words<'_> = Words {
        relay: "smtp.internal:587",
        recipient: "jane.doe@example.com",
        secret: "canary",
    };

    #[test]
    fn an_answer_is_told_without_addresses_names_and_secrets() {
        let told = redact(
            "5.1.1 <jane.doe@example.com>:\r\n Recipient 'Jane.Doe' rejected (pass canary), see x@y\u{7}",
            &WORDS,
        );
        assert_eq!(
            told,
            "5.1.1 (address) Recipient (address) rejected (pass (password)), see (address)"
        );
        assert_eq!(redact(&"ä".repeat(900), &WORDS).chars().count(), 201);
    }

    #[test]
    fn the_relays_id_is_found_where_relays_put_it() {
        for (answer, id) in [
            ("2.0.0 Ok: queued as 4XyZ1a", "4XyZ1a"),
            ("OK id=1tF2-0003.", "1tF2-0003"),
            ("Ok 010001-abc", "Ok 010001-abc"),
            (
                "2.6.0 <a@b> Queued mail for delivery",
                "2.6.0 (address) Queued mail for delivery",
            ),
        ] {
            assert_eq!(queue_id(answer, &WORDS).as_deref(), Some(id));
        }
        assert_eq!(queue_id("", &WORDS), None);
    }

    #[test]
    fn an_answer_is_the_mails_only_after_the_sender_was_taken() {
        let permanent = |failure: &Failure| failure.kind == Kind::Permanent;
        let dependency = |failure: &Failure| failure.kind == Kind::Dependency;
        let at = |step, code| answered(step, code, "x", "r:1");
        for step in [Step::Connect, Step::StartTls, Step::SignIn, Step::Sender] {
            for code in [421, 450, 550, 535, 554] {
                assert!(dependency(&at(step, code)), "{step:?} {code}");
                assert!(dependency(&late(step, "r:1")));
            }
        }
        for step in [Step::Recipient, Step::Content] {
            for code in [421, 450, 451, 452] {
                assert_eq!(at(step, code).kind, Kind::Transient { after: None });
            }
            for code in [550, 552, 553, 554] {
                assert!(permanent(&at(step, code)));
                assert_eq!(at(step, code).reason, Reason::Rejected);
            }
            for code in [530, 534, 535, 538] {
                assert!(dependency(&at(step, code)));
                assert_eq!(at(step, code).reason, Reason::Auth);
            }
        }
        assert!(late(Step::Content, "r:1").detail.contains("twice"));
    }
}
