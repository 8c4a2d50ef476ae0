//! What `tidings up` shows on a terminal: the first screen, and one line for each event.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use tidings::runner::VERSION;
use tidings::store::Summary;
use tidings::telemetry::Event;
use uuid::Uuid;

use crate::paint::Paint;

/// What the first screen says.
pub(crate) struct First {
    pub(crate) development: bool,
    pub(crate) inbox: String,
    pub(crate) mail: String,
    pub(crate) people: String,
    pub(crate) data: String,
    pub(crate) embedded: bool,
    pub(crate) kept: Option<String>,
    pub(crate) base: String,
    pub(crate) command: String,
}

impl First {
    pub(crate) fn render(&self, took: Duration, ready: bool) -> String {
        let paint = Paint::stdout();
        let mut out = String::new();
        let mode = if self.development {
            " · development mode: demo user, mail to files; not for production"
        } else {
            ""
        };
        let _ = writeln!(out, "{}{mode}\n", paint.bold(&format!("Tidings {VERSION}")));
        let mut row = |name: &str, text: &str| {
            let _ = writeln!(out, "  {} {text}", paint.dim(&format!("{name:<8}")));
        };
        row("Inbox", &self.inbox);
        row("API", &format!("{}/api/notifications", self.base));
        row("Mail", &self.mail);
        row("People", &self.people);
        if self.embedded {
            row(
                "Data",
                &format!(
                    "{}/   (kept between starts; delete it to start over)",
                    self.data
                ),
            );
        }
        if let Some(kept) = &self.kept {
            row("Kept", kept);
        }
        let to = if self.development {
            tidings::runner::GUEST
        } else {
            "user:default/you"
        };
        let (command, base, data) = (&self.command, &self.base, &self.data);
        let config = if self.development {
            ""
        } else {
            " --config …"
        };
        let _ = write!(
            out,
            r#"
Send something, in another terminal:

  {command} send{config} --to {to} --title "Hello" --wait

  curl {base}/api/notifications \
    -H "Authorization: Bearer $(cat {data}/token)" -H "Content-Type: application/json" \
    -d '{{"recipients":{{"type":"entity","entityRef":"{to}"}},"payload":{{"title":"Hello"}}}}'

"#
        );
        let word = if ready { "Ready" } else { "Not ready" };
        let _ = writeln!(
            out,
            "{} in {} ms. Ctrl-C stops.\n",
            paint.bold(word),
            took.as_millis()
        );
        out
    }
}

/// What an earlier start left; `None` for nothing.
pub(crate) fn kept(held: &Summary) -> Option<String> {
    let mails: u64 = held
        .channels
        .iter()
        .filter(|one| one.channel == "email")
        .map(|one| one.sent)
        .sum();
    let dead: u64 = held.dead.iter().map(|(_, count)| count).sum();
    if held.notifications + mails + dead == 0 {
        return None;
    }
    Some(format!(
        "{}, {}, {}",
        count(held.notifications, "notification"),
        count(mails, "mail"),
        count(dead, "dead letter")
    ))
}

/// The last line.
pub(crate) fn farewell(drained: bool, took: Duration, kept: u64, data: &Path) -> String {
    let how = if drained {
        "Drained"
    } else {
        "Not all of it ended"
    };
    format!(
        "{how} in {:.1} s; {} kept in {}/.",
        took.as_secs_f64(),
        count(kept, "notification"),
        data.display()
    )
}

fn count(number: u64, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// An event as a line, or two where something needs doing.
pub(crate) fn event(event: &Event) -> String {
    let paint = Paint::stdout();
    let time = jiff::ZonedDateTime::now().strftime("%H:%M:%S").to_string();
    let line = |stage: &str, id: Option<Uuid>, text: String| {
        let id = id.map_or_else(|| "–".to_owned(), |id| paint.short(id));
        format!("{}  {stage:<8}  {id:<8}  {text}\n", paint.dim(&time))
    };
    match event {
        Event::Accepted {
            submission,
            title,
            origin,
        } => line(
            "accepted",
            Some(*submission),
            format!("{title:?} from {origin}"),
        ),
        Event::Stored {
            submission,
            broadcast: true,
            ..
        } => line("inbox", Some(*submission), "everybody".to_owned()),
        Event::Stored {
            submission, people, ..
        } => {
            let noun = if *people == 1 { "person" } else { "people" };
            line("inbox", Some(*submission), format!("{people} {noun}"))
        }
        Event::NoRecipients { submission, refs } => {
            let text = format!("nobody received it: {}", refs.join(", "));
            let help = "is the ref spelled as in the catalog?";
            format!(
                "{}{}",
                line("inbox", Some(*submission), paint.red(&text)),
                help_line(&paint, help)
            )
        }
        Event::Sent {
            submission,
            channel,
            to,
            at,
        } => {
            let at = at
                .as_ref()
                .map_or_else(String::new, |at| format!(" → {at}"));
            line(channel, Some(*submission), format!("{to}{at}"))
        }
        Event::Failed {
            submission,
            stage,
            to,
            reason,
            detail,
            next,
        } => {
            let text = format!("{to}: {reason}: {detail} ({next})");
            let help = match next.as_str() {
                "dead letter" => "tidings dead list".to_owned(),
                _ => submission.map_or_else(String::new, |id| {
                    format!("tidings trace {}", paint.short(id))
                }),
            };
            format!(
                "{}{}",
                line(stage, *submission, paint.red(&text)),
                help_line(&paint, &help)
            )
        }
    }
}

fn help_line(paint: &Paint, help: &str) -> String {
    if help.is_empty() {
        return String::new();
    }
    format!("{:20}{} {help}\n", "", paint.dim("help:"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_says_what_happens_now_and_what_to_type() {
        let text = event(&Event::Failed {
            submission: Some(Uuid::from_u128(0x6f3f_2d10)),
            stage: "email".into(),
            to: "di@example.com".into(),
            reason: tidings::failure::Reason::Server,
            detail: "451 4.3.0 try again later".into(),
            next: "again in 10 s".into(),
        });
        assert!(text.contains("6f3f2d10"), "{text}");
        assert!(text.contains("(again in 10 s)"), "{text}");
        assert!(text.contains("tidings trace 6f3f2d10"), "{text}");
    }

    #[test]
    fn a_first_start_keeps_nothing_and_a_second_says_what_it_holds() {
        assert_eq!(kept(&Summary::default()), None);
        let held = Summary {
            notifications: 1,
            ..Summary::default()
        };
        assert_eq!(
            kept(&held).unwrap(),
            "1 notification, 0 mails, 0 dead letters"
        );
    }
}
