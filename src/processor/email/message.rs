//! From a notification to a mail: text and HTML beside each other, the same bytes every time.
//!
//! Everything of the producer's is escaped or encoded here; `page` below is the whole look.

use lettre::message::Body;
use lettre::message::Mailbox;
use lettre::message::MultiPart;
use lettre::message::SinglePart;
use lettre::message::header::ContentTransferEncoding;
use lettre::message::header::ContentType;
use lettre::message::header::HeaderName;
use lettre::message::header::HeaderValue;
use maud::DOCTYPE;
use maud::Markup;
use maud::html;

use crate::notification::Severity;
use crate::processor::Outgoing;

/// Longest subject, in characters: a title has at most 255.
const SUBJECT_CHARS_MAX: usize = 255;
/// Longest line of a mail that is not encoded, in bytes. Source: RFC 5322, 2.1.1.
const LINE_BYTES_MAX: usize = 998;

/// Who writes to whom.
#[derive(Clone, Copy, Debug)]
pub(super) struct Parties<'a> {
    pub(super) from: &'a Mailbox,
    pub(super) reply_to: Option<&'a Mailbox>,
    pub(super) to: &'a Mailbox,
}

/// How the parts are encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    /// As every relay takes it.
    Transport,
    /// As a person reads it in an editor.
    Readable,
}

/// The mail of one delivery, ready to be sent.
///
/// # Errors
/// Says what could not be written; nothing that a valid notification holds.
pub(super) fn compose(
    parties: Parties<'_>,
    mail: &Outgoing<'_>,
    encoding: Encoding,
) -> Result<Vec<u8>, String> {
    let domain = parties.from.email.domain();
    let mut builder = lettre::Message::builder()
        .from(parties.from.clone())
        .to(parties.to.clone())
        .subject(one_line(&mail.payload.title, SUBJECT_CHARS_MAX))
        .date(mail.created.into())
        // The same on every try: whoever gets it twice can tell.
        .message_id(Some(format!("<{}@{domain}>", mail.delivery)))
        // Later mails of one scope tell of the same notification: one thread.
        .references(format!("<{}@{domain}>", mail.notification))
        // Keeps holiday replies away (RFC 3834).
        .raw_header(HeaderValue::new(
            HeaderName::new_from_ascii_str("Auto-Submitted"),
            "auto-generated".to_owned(),
        ));
    if let Some(reply_to) = parties.reply_to {
        builder = builder.reply_to(reply_to.clone());
    }
    let part = |kind, content| {
        SinglePart::builder()
            .header(kind)
            .body(encode(content, encoding))
    };
    let parts = MultiPart::alternative()
        .boundary(mail.delivery.simple().to_string())
        .singlepart(part(ContentType::TEXT_PLAIN, text(mail)))
        .singlepart(part(ContentType::TEXT_HTML, page(mail).into_string()));
    let message = builder
        .multipart(parts)
        .map_err(|error| error.to_string())?;
    Ok(message.formatted())
}

/// Text that every relay takes; or, for a person with an editor, as it is.
fn encode(content: String, encoding: Encoding) -> Body {
    let longest = content.lines().map(str::len).max().unwrap_or_default();
    if encoding == Encoding::Transport {
        return Body::new(content);
    }
    if LINE_BYTES_MAX < longest {
        // Readable all the same, as `=C3=A4` goes. It suits any text, so this never gives it back.
        return Body::new_with_encoding(content, ContentTransferEncoding::QuotedPrintable)
            .unwrap_or_else(Body::new);
    }
    let content = content.replace('\n', "\r\n").into_bytes();
    Body::dangerous_pre_encoded(content, ContentTransferEncoding::EightBit)
}

/// As in the peer: the description, an empty line, the link; and who sent it below.
fn text(mail: &Outgoing<'_>) -> String {
    let mut text = String::new();
    if let Some(description) = description(mail) {
        text.push_str(&description);
        text.push_str("\n\n");
    }
    text.push_str(mail.link.as_str());
    // "-- " alone on a line: what follows is a signature, and is left out of replies.
    text.push_str("\n\n-- \n");
    text.push_str(&facts(mail));
    text.push('\n');
    text.push_str(&why(mail));
    text.push('\n');
    text
}

/// The description without characters that no text has; `None` where there is none.
fn description(mail: &Outgoing<'_>) -> Option<String> {
    let text = mail.payload.description.as_deref()?.replace("\r\n", "\n");
    let text: String = text
        .replace('\r', "\n")
        .chars()
        .filter(|c| !c.is_control() || matches!(c, '\n' | '\t'))
        .collect();
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

/// `critical · incident`.
fn facts(mail: &Outgoing<'_>) -> String {
    let severity = mail.payload.severity();
    match mail.payload.topic.as_deref() {
        Some(topic) if !topic.is_empty() => format!("{severity} · {}", one_line(topic, 255)),
        _ => severity.to_string(),
    }
}

/// Why one gets it.
fn why(mail: &Outgoing<'_>) -> String {
    let to = mail.user.unwrap_or("everybody");
    let (origin, to) = (one_line(mail.origin, 255), one_line(to, 255));
    format!("You get this because {origin} notified {to}.")
}

/// One line of at most `most` characters: control characters and line breaks are spaces.
pub(super) fn one_line(text: &str, most: usize) -> String {
    let unfit = |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}');
    let text: String = text
        .chars()
        .map(|c| if unfit(c) { ' ' } else { c })
        .collect();
    let words: Vec<_> = text.split_whitespace().collect();
    words.join(" ").chars().take(most).collect()
}

/// The colour of the bar at the top: the only thing that shouts.
const fn colour(severity: Severity) -> &'static str {
    match severity {
        Severity::Critical => "#c62828",
        Severity::High => "#bf360c",
        Severity::Normal => "#1565c0",
        Severity::Low => "#546e7a",
    }
}

/// The HTML part. Tables and styles in place, since that is what mail clients keep.
fn page(mail: &Outgoing<'_>) -> Markup {
    let colour = colour(mail.payload.severity());
    let title = one_line(&mail.payload.title, SUBJECT_CHARS_MAX);
    let description = description(mail);
    let link = mail.link.as_str();
    let is_web = matches!(mail.link.scheme(), "http" | "https");
    html! {
        (DOCTYPE) "\n"
        html { "\n"
            head { "\n"
                meta charset="utf-8"; "\n"
                meta name="viewport" content="width=device-width, initial-scale=1"; "\n"
                title { (title) } "\n"
            } "\n"
            body style="margin:0;padding:24px 12px;background-color:#f4f5f7" { "\n"
                table role="presentation" width="100%" cellpadding="0" cellspacing="0" border="0" { tr { td align="center" { "\n"
                    table role="presentation" width="100%" cellpadding="0" cellspacing="0" border="0"
                        style="max-width:600px;background-color:#ffffff;border:1px solid #dfe1e6;border-radius:6px;\
                               text-align:left;font-family:-apple-system,'Segoe UI',Roboto,Helvetica,Arial,sans-serif" { "\n"
                        tr { td style={ "padding:0;height:4px;line-height:4px;font-size:0;border-radius:6px 6px 0 0;background-color:" (colour) } { "\u{a0}" } } "\n"
                        tr { td style="padding:24px 28px 28px" { "\n"
                            p style={ "margin:0 0 8px;font-size:13px;line-height:18px;color:" (colour) } dir="auto" { (facts(mail)) } "\n"
                            h1 style="margin:0 0 16px;font-size:20px;line-height:28px;font-weight:600;color:#172b4d;text-align:start;overflow-wrap:anywhere" dir="auto" { (title) } "\n"
                            @if let Some(description) = description {
                                p style="margin:0 0 24px;font-size:15px;line-height:23px;color:#253858;text-align:start;overflow-wrap:anywhere" dir="auto" { "\n"
                                    (lines(&description))
                                } "\n"
                            }
                            @if is_web {
                                table role="presentation" cellpadding="0" cellspacing="0" border="0" { tr {
                                    td style="border-radius:4px;background-color:#172b4d" {
                                        a href=(link) style="display:inline-block;padding:10px 20px;font-size:15px;line-height:20px;\
                                                             font-weight:600;color:#ffffff;text-decoration:none" { "Open" }
                                    }
                                } } "\n"
                            }
                            p style="margin:12px 0 0;font-size:12px;line-height:18px;color:#5e6c84;overflow-wrap:anywhere;word-break:break-all" { (link) } "\n"
                        } } "\n"
                    } "\n"
                    p style="max-width:600px;margin:16px auto 0;font-size:12px;line-height:18px;color:#5e6c84;overflow-wrap:anywhere;\
                             font-family:-apple-system,'Segoe UI',Roboto,Helvetica,Arial,sans-serif" { (why(mail)) } "\n"
                } } } "\n"
            } "\n"
        } "\n"
    }
}

/// Line breaks kept, by `<br>` since some clients know nothing else.
fn lines(text: &str) -> Markup {
    html! {
        @for (at, line) in text.lines().enumerate() {
            @if at > 0 { br; "\n" }
            (line)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_title_is_one_line_whatever_it_holds() {
        assert_eq!(
            one_line("a\r\nBcc: x@y\u{0}\u{2028} b", 255),
            "a Bcc: x@y b"
        );
        assert_eq!(one_line(&"ä".repeat(300), 255).chars().count(), 255);
    }
}
