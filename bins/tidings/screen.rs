//! The first screen of `tidings up`, and its last line.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use tidings::runner::VERSION;
use tidings::store::Summary;

use crate::paint::Paint;
use crate::words::count;

/// A line of the first screen: what, where, and a remark.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) value: String,
    pub(crate) note: String,
}

impl Row {
    pub(crate) fn new(
        name: &'static str,
        value: impl Into<String>,
        note: impl Into<String>,
    ) -> Self {
        Self {
            name,
            value: value.into(),
            note: note.into(),
        }
    }
}

/// What the first screen says.
pub(crate) struct First {
    pub(crate) development: bool,
    pub(crate) rows: Vec<Row>,
    /// Where it listens, as a URL.
    pub(crate) base: String,
    /// `tidings send`, as one would type it here to reach this Tidings.
    pub(crate) send: String,
    /// Who is written to in the examples.
    pub(crate) to: String,
    /// The file with the first token.
    pub(crate) token: String,
}

impl First {
    pub(crate) fn render(&self, paint: Paint) -> String {
        let mut out = String::new();
        let mode = if self.development {
            " · development mode: demo user, mail to files; not for production"
        } else {
            ""
        };
        let _ = writeln!(out, "{}{mode}\n", paint.bold(&format!("Tidings {VERSION}")));
        // The login link is longer than all else: its remark stands by itself.
        let aligned = self.rows.iter().filter(|row| row.name != "Inbox");
        let width = aligned
            .filter(|row| !row.note.is_empty())
            .map(|row| row.value.chars().count())
            .max()
            .unwrap_or(0);
        for row in &self.rows {
            let name = paint.dim(&format!("{:<8}", row.name));
            let note = match row.note.as_str() {
                "" => String::new(),
                note => format!("   ({note})"),
            };
            let value = if note.is_empty() || row.name == "Inbox" {
                row.value.clone()
            } else {
                format!("{:<width$}", row.value)
            };
            let _ = writeln!(out, "  {name} {value}{}", paint.dim(&note));
        }
        let (send, base, to, token) = (&self.send, &self.base, &self.to, &self.token);
        let _ = writeln!(
            out,
            r#"
Send something, in another terminal:

  {send} --to {to} --title "Hello" --wait

  curl {base}/api/notifications \
    -H "Authorization: Bearer $(cat {token})" -H "Content-Type: application/json" \
    -d '{{"recipients":{{"type":"entity","entityRef":"{to}"}},"payload":{{"title":"Hello"}}}}'
"#
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
        count(held.notifications, "notification", "notifications"),
        count(mails, "mail", "mails"),
        count(dead, "dead letter", "dead letters")
    ))
}

/// The last line; `kept` is how many notifications lie in which directory, where they do.
pub(crate) fn farewell(drained: bool, took: Duration, kept: Option<(u64, &Path)>) -> String {
    let how = if drained {
        "Drained"
    } else {
        "Not all of it ended; what was in hand comes again. Stopped"
    };
    let kept = kept.map_or_else(String::new, |(kept, data)| {
        let kept = count(kept, "notification", "notifications");
        format!("; {kept} kept in {}", directory(data))
    });
    format!("{how} in {:.1} s{kept}.", took.as_secs_f64())
}

/// A directory as a person would type it.
pub(crate) fn directory(path: &Path) -> String {
    format!("{}/", short(path))
}

/// A path as a person would type it from here: without `./`, and without the way to here.
pub(crate) fn short(path: &Path) -> String {
    let here = std::env::current_dir().unwrap_or_default();
    let path = path.strip_prefix(&here).unwrap_or(path);
    let path = path.strip_prefix(".").unwrap_or(path);
    match path.display().to_string() {
        text if text.is_empty() => ".".to_owned(),
        text => text,
    }
}

/// A word for a shell.
pub(crate) fn quoted(text: &str) -> String {
    let bare = |char: char| char.is_ascii_alphanumeric() || "-_./:@%+=,".contains(char);
    if !text.is_empty() && text.chars().all(bare) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first() -> First {
        First {
            development: true,
            rows: vec![
                Row::new("Inbox", "http://h/login/code", "you are user:a/b"),
                Row::new("API", "http://h/api/notifications", ""),
                Row::new("Mail", "d/outbox/", "no relay configured"),
                Row::new("People", "d/people.yaml", "1 user"),
            ],
            base: "http://h".into(),
            send: "target/release/tidings send".into(),
            to: "user:a/b".into(),
            token: "d/token".into(),
        }
    }

    #[test]
    fn the_remarks_of_the_first_screen_stand_below_each_other() {
        let text = first().render(Paint::never());
        let rows: Vec<&str> = text.lines().skip(2).take(4).collect();
        assert_eq!(
            rows,
            [
                "  Inbox    http://h/login/code   (you are user:a/b)",
                "  API      http://h/api/notifications",
                "  Mail     d/outbox/       (no relay configured)",
                "  People   d/people.yaml   (1 user)",
            ]
        );
        assert!(
            text.contains(
                "\n  target/release/tidings send --to user:a/b --title \"Hello\" --wait\n"
            ),
            "{text}"
        );
        assert!(text.contains("Bearer $(cat d/token)\""), "{text}");
        let configured = First {
            development: false,
            ..first()
        };
        let text = configured.render(Paint::never());
        assert!(!text.contains("development mode"), "{text}");
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

    #[test]
    fn the_last_line_says_where_what_is_kept_lies() {
        let took = Duration::from_millis(120);
        assert_eq!(
            farewell(true, took, Some((1, Path::new("./tidings-data")))),
            "Drained in 0.1 s; 1 notification kept in tidings-data/."
        );
        assert_eq!(farewell(true, took, None), "Drained in 0.1 s.");
        assert!(farewell(false, took, None).starts_with("Not all of it ended"));
    }

    #[test]
    fn paths_are_as_one_would_type_them_here() {
        assert_eq!(short(Path::new("./tidings-data")), "tidings-data");
        let here = std::env::current_dir().unwrap();
        assert_eq!(short(&here.join("a/b")), "a/b");
        assert_eq!(short(&here), ".");
        assert_eq!(short(Path::new("/elsewhere/b")), "/elsewhere/b");
        assert_eq!(quoted("a/b.yaml"), "a/b.yaml");
        assert_eq!(quoted("my file's"), r"'my file'\''s'");
    }
}
