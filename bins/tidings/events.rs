//! One line for each event that `tidings up` shows. What comes in crowds (the two thousand mails
//! of one submission) is gathered for a moment and told in one line.

use std::collections::VecDeque;
use std::time::Duration;
use std::time::Instant;

use tidings::failure::Reason;
use tidings::telemetry::Event;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::out;
use crate::out::plain;
use crate::paint::Paint;
use crate::words;

/// How long one that may be the first of a crowd is held back.
const QUIET: Duration = Duration::from_millis(200);
/// How long after the last of a crowd its line comes: senders pause between their turns.
const CROWD_QUIET: Duration = Duration::from_millis(800);
/// The longest a crowd is gathered before what there is of it is told.
const LONGEST: Duration = Duration::from_secs(2);
/// How many open crowds are looked through for the one that an event belongs to.
const LOOKED_THROUGH: usize = 256;

/// Prints a line for each event until `stop`, and then what is left.
pub(crate) async fn follow(mut events: Receiver<Event>, stop: CancellationToken) {
    let mut lines = Lines::new(Paint::stdout());
    loop {
        let due = lines.due();
        let wait = async {
            match due {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            event = events.recv() => match event {
                Ok(event) => lines.take(&event, Instant::now()),
                Err(RecvError::Lagged(missed)) => lines.missed(missed, Instant::now()),
                Err(RecvError::Closed) => break,
            },
            () = wait => {}
            () = stop.cancelled() => break,
        }
        out::put(lines.told(Instant::now()));
    }
    while let Ok(event) = events.try_recv() {
        lines.take(&event, Instant::now());
    }
    out::put(lines.rest());
}

/// What has happened and is not told yet, oldest first.
struct Lines {
    paint: Paint,
    open: VecDeque<Crowd>,
}

/// Events that are told together.
struct Crowd {
    clock: String,
    stage: String,
    submission: Option<Uuid>,
    what: What,
    count: u64,
    begun: Instant,
    last: Instant,
}

/// What all of a crowd have in common, with the words for one that stays alone.
#[derive(Clone, Debug)]
enum What {
    /// Told at once and never joined; with what to do, if something needs doing.
    Alone {
        text: String,
        help: Option<String>,
    },
    /// Inbox rows.
    Stored,
    Sent {
        alone: String,
    },
    Failed {
        reason: Reason,
        next: String,
        to: String,
        detail: String,
    },
}

impl What {
    fn joins(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Stored, Self::Stored) | (Self::Sent { .. }, Self::Sent { .. }) => true,
            (
                Self::Failed { reason, next, .. },
                Self::Failed {
                    reason: other,
                    next: then,
                    ..
                },
            ) => reason == other && next == then,
            _ => false,
        }
    }
}

impl Crowd {
    fn due(&self) -> Instant {
        match self.what {
            What::Alone { .. } => self.begun,
            _ if self.count == 1 => self.last + QUIET,
            _ => (self.last + CROWD_QUIET).min(self.begun + LONGEST),
        }
    }
}

impl Lines {
    fn new(paint: Paint) -> Self {
        Self {
            paint,
            open: VecDeque::new(),
        }
    }

    fn take(&mut self, event: &Event, now: Instant) {
        let (stage, submission, what, count) = read(event);
        let same = self.open.iter_mut().rev().take(LOOKED_THROUGH);
        let same = same
            .filter(|crowd| crowd.submission == submission && crowd.stage == stage)
            .find(|crowd| crowd.what.joins(&what));
        if let Some(crowd) = same {
            crowd.count += count;
            crowd.last = now;
            return;
        }
        self.open.push_back(Crowd {
            clock: jiff::ZonedDateTime::now().strftime("%H:%M:%S").to_string(),
            stage,
            submission,
            what,
            count,
            begun: now,
            last: now,
        });
    }

    /// Events that came faster than they could be read.
    fn missed(&mut self, count: u64, now: Instant) {
        self.open.push_back(Crowd {
            clock: jiff::ZonedDateTime::now().strftime("%H:%M:%S").to_string(),
            stage: "…".to_owned(),
            submission: None,
            what: What::Alone {
                text: format!(
                    "{} too fast to show",
                    words::count(count, "event", "events")
                ),
                help: Some("tidings status".to_owned()),
            },
            count,
            begun: now,
            last: now,
        });
    }

    /// When there is something to tell.
    fn due(&self) -> Option<Instant> {
        self.open.front().map(Crowd::due)
    }

    /// What is due, in the order in which it began.
    fn told(&mut self, now: Instant) -> String {
        let mut out = String::new();
        while let Some(crowd) = self.open.pop_front_if(|crowd| crowd.due() <= now) {
            out.push_str(&line(&crowd, self.paint));
        }
        out
    }

    /// All that is left.
    fn rest(&mut self) -> String {
        let paint = self.paint;
        self.open
            .drain(..)
            .map(|crowd| line(&crowd, paint))
            .collect()
    }
}

fn read(event: &Event) -> (String, Option<Uuid>, What, u64) {
    match event {
        Event::Accepted {
            submission,
            title,
            origin,
        } => {
            let text = format!("\"{}\" from {}", plain(title), plain(origin));
            let what = What::Alone { text, help: None };
            ("accepted".to_owned(), Some(*submission), what, 1)
        }
        Event::Stored {
            submission,
            broadcast: true,
            ..
        } => {
            let what = What::Alone {
                text: "everybody".to_owned(),
                help: None,
            };
            ("inbox".to_owned(), Some(*submission), what, 1)
        }
        Event::Stored {
            submission, people, ..
        } => ("inbox".to_owned(), Some(*submission), What::Stored, *people),
        Event::NoRecipients { submission, refs } => {
            let what = What::Alone {
                text: format!("nobody received it: {}", plain(&refs.join(", "))),
                help: Some("is the ref spelled as in the catalog?".to_owned()),
            };
            ("inbox".to_owned(), Some(*submission), what, 1)
        }
        Event::Sent {
            submission,
            channel,
            to,
            at,
        } => {
            let at = at
                .as_ref()
                .map_or_else(String::new, |at| format!(" → {}", plain(at)));
            let alone = format!("{}{at}", plain(to));
            (channel.clone(), Some(*submission), What::Sent { alone }, 1)
        }
        Event::Failed {
            submission,
            stage,
            to,
            reason,
            detail,
            next,
        } => {
            let what = What::Failed {
                reason: *reason,
                next: next.clone(),
                to: plain(to),
                detail: plain(detail),
            };
            (stage.clone(), *submission, what, 1)
        }
    }
}

/// A crowd as a line, or two where something needs doing.
fn line(crowd: &Crowd, paint: Paint) -> String {
    let short = crowd.submission.map(|id| paint.short(id));
    let mut text = match &crowd.what {
        What::Alone { text, help: None } => text.clone(),
        What::Alone { text, .. } => paint.red(text),
        What::Stored => words::count(crowd.count, "person", "people"),
        What::Sent { alone } if crowd.count == 1 => alone.clone(),
        What::Sent { .. } => format!("{} sent", words::grouped(crowd.count)),
        What::Failed {
            reason,
            next,
            to,
            detail,
        } => {
            let whom = match crowd.count {
                1 => to.clone(),
                count => format!("{} recipients", words::grouped(count)),
            };
            let reason = reason.as_str().replace('_', " ");
            let text = format!("{whom}: {detail} ({reason}; {next})");
            if next == SKIPPED {
                text
            } else {
                paint.red(&text)
            }
        }
    };
    let help = match &crowd.what {
        What::Alone { help, .. } => help.clone(),
        What::Failed { next, .. } if next == DEAD => Some("tidings dead list".to_owned()),
        What::Failed { .. } => short.as_ref().map(|id| format!("tidings trace {id}")),
        What::Stored | What::Sent { .. } => None,
    };
    if let Some(help) = help {
        text.push_str(&format!("\n{:20}{} {help}", "", paint.dim("help:")));
    }
    let id = short.unwrap_or_else(|| "–".to_owned());
    let clock = paint.dim(&crowd.clock);
    format!("{clock}  {:<8}  {id:<8}  {text}\n", crowd.stage)
}

/// What an event says happens now: not sent, and nothing is wrong.
const SKIPPED: &str = "skipped";
/// What an event says happens now: given up.
const DEAD: &str = "dead letter";

#[cfg(test)]
mod tests {
    use super::*;

    const ID: Uuid = Uuid::from_u128(0x6f3f_2d10);

    fn sent(to: &str) -> Event {
        Event::Sent {
            submission: ID,
            channel: "email".into(),
            to: to.into(),
            at: None,
        }
    }

    fn failed(to: &str, reason: Reason, next: &str) -> Event {
        Event::Failed {
            submission: Some(ID),
            stage: "email".into(),
            to: to.into(),
            reason,
            detail: "451 4.3.0 try again later".into(),
            next: next.into(),
        }
    }

    fn all(events: &[Event]) -> Vec<String> {
        let mut lines = Lines::new(Paint::never());
        for event in events {
            lines.take(event, Instant::now());
        }
        let without_clock = |line: &str| line.get(10..).unwrap_or(line).to_owned();
        lines.rest().lines().map(without_clock).collect()
    }

    #[test]
    fn a_failure_says_what_happens_now_and_what_to_type() {
        let told = all(&[failed("di@example.com", Reason::Server, "again in 10 s")]);
        assert_eq!(
            told,
            [
                "email     6f3f2d10  di@example.com: 451 4.3.0 try again later (server; again in 10 s)",
                "          help: tidings trace 6f3f2d10"
            ]
        );
        let told = all(&[failed("di@example.com", Reason::Rejected, DEAD)]);
        assert_eq!(told[1].trim(), "help: tidings dead list");
    }

    #[test]
    fn two_thousand_mails_of_a_submission_are_one_line_and_its_failures_another() {
        let mut events = vec![
            Event::Stored {
                submission: ID,
                people: 500,
                broadcast: false,
            };
            4
        ];
        for number in 0..2_000 {
            events.push(sent(&format!("p{number}@example.com")));
            if number % 1_000 == 0 {
                events.push(failed("x@example.com", Reason::Server, "again in 10 s"));
            }
        }
        assert_eq!(
            all(&events),
            [
                "inbox     6f3f2d10  2,000 people",
                "email     6f3f2d10  2,000 sent",
                "email     6f3f2d10  2 recipients: 451 4.3.0 try again later (server; again in 10 s)",
                "          help: tidings trace 6f3f2d10",
            ]
        );
    }

    #[test]
    fn other_submissions_channels_and_reasons_stay_apart() {
        let mut other = sent("b@example.com");
        if let Event::Sent { submission, .. } = &mut other {
            *submission = Uuid::from_u128(1);
        }
        let told = all(&[
            sent("a@example.com"),
            other,
            failed("c@example.com", Reason::Server, "again in 10 s"),
            failed("d@example.com", Reason::Dns, "again in 10 s"),
        ]);
        assert_eq!(told[0], "email     6f3f2d10  a@example.com");
        assert_eq!(told[1], "email     00000001  b@example.com");
        assert_eq!(told.len(), 6, "{told:?}");
    }

    #[test]
    fn a_crowd_is_told_when_it_is_quiet_and_a_long_one_while_it_goes_on() {
        let mut lines = Lines::new(Paint::never());
        let begun = Instant::now();
        lines.take(&sent("a@example.com"), begun);
        assert_eq!(lines.told(begun + QUIET / 2), "");
        assert!(lines.told(begun + QUIET).ends_with("a@example.com\n"));
        let mut told = String::new();
        let mut now = begun;
        while now < begun + LONGEST * 2 {
            lines.take(&sent("a@example.com"), now);
            now += QUIET / 2;
            told.push_str(&lines.told(now));
        }
        assert_eq!(told.lines().count(), 2, "{told}");
        assert!(lines.due().is_none() || told.contains(" sent"), "{told}");
    }

    #[test]
    fn what_is_accepted_is_told_at_once_and_a_title_cannot_move_the_cursor() {
        let mut lines = Lines::new(Paint::never());
        let now = Instant::now();
        let event = Event::Accepted {
            submission: ID,
            title: "Hi\x1b[2J\n".into(),
            origin: "external:ci".into(),
        };
        lines.take(&event, now);
        let told = lines.told(now);
        assert!(told.ends_with("\"Hi [2J \" from external:ci\n"), "{told}");
    }

    #[test]
    fn what_is_skipped_is_no_alarm() {
        let paint = Paint::always();
        let mut lines = Lines::new(paint);
        lines.take(
            &failed("user:a/b", Reason::NoAddress, SKIPPED),
            Instant::now(),
        );
        assert!(!lines.rest().contains("\x1b[31m"));
        lines.take(&failed("user:a/b", Reason::Server, DEAD), Instant::now());
        assert!(lines.rest().contains("\x1b[31m"));
    }
}
