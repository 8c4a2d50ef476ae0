//! Where a value of the configuration was written, and how that is shown without its secrets.

use std::fmt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

/// A configuration file as it was read.
pub(super) struct SourceFile {
    path: PathBuf,
    lines: Vec<String>,
    /// What must never be shown, found by the keys that stand above it.
    secrets: Vec<Span>,
}

/// A stretch of a file: the start is inside, the end is not. Lines and columns count from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Span {
    pub(super) start: (usize, usize),
    pub(super) end: (usize, usize),
}

impl SourceFile {
    pub(super) fn new(path: &Path, text: &str, secrets: Vec<Span>) -> Self {
        Self {
            path: path.to_owned(),
            lines: text.lines().map(str::to_owned).collect(),
            secrets,
        }
    }

    /// The directory that relative paths in the file start from.
    pub(super) fn directory(&self) -> &Path {
        self.path.parent().unwrap_or_else(|| Path::new(""))
    }
}

/// Where a value was written.
#[derive(Clone)]
pub struct Place(Arc<At>);

#[derive(Clone)]
pub(super) enum At {
    /// A stretch of a file.
    Span(Arc<SourceFile>, Span),
    /// A file as a whole.
    File(PathBuf),
    /// An environment variable.
    Variable(String),
    /// A flag of the command line that sets this key.
    Flag(String),
    /// A key that nobody wrote.
    Absent(String),
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The file's lines may hold secrets.
        write!(f, "{self}")
    }
}

impl Place {
    pub(super) fn new(at: At) -> Self {
        Self(Arc::new(at))
    }

    /// Whether it is a whole file, of which nothing more could be said.
    pub(super) fn is_file(&self) -> bool {
        matches!(*self.0, At::File(_))
    }

    /// The directory that relative paths written here start from: that of the file, or the
    /// working directory.
    pub(super) fn directory(&self) -> &Path {
        match &*self.0 {
            At::Span(file, _) => file.directory(),
            _ => Path::new(""),
        }
    }

    /// The line as it was written, without its secrets, with the place underlined.
    pub(super) fn excerpt(&self) -> Option<String> {
        let At::Span(file, span) = &*self.0 else {
            return None;
        };
        let no = span.start.0;
        let line = file.lines.get(no.checked_sub(1)?)?;
        let length = line.chars().count();
        let end = if span.end.0 == no {
            span.end.1
        } else {
            length + 1
        };
        let (shown, columns) = mask(line, &file.hidden(no, line));
        let column = |wanted: usize| columns.get(wanted - 1).copied().unwrap_or(columns.len());
        let from = column(span.start.1);
        let carets = column(end).saturating_sub(from).max(1);
        let number = no.to_string();
        let margin = " ".repeat(number.len());
        let indent = " ".repeat(from);
        let carets = "^".repeat(carets);
        Some(format!(
            " {margin} |\n {number} | {}\n {margin} | {indent}{carets}",
            shown.trim_end()
        ))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.0 {
            At::Span(file, span) => {
                let (line, column) = span.start;
                write!(f, "{}:{line}:{column}", file.path.display())
            }
            At::File(path) => write!(f, "{}", path.display()),
            At::Variable(name) => write!(f, "{name} (environment)"),
            At::Flag(key) => write!(f, "{key} (flag)"),
            At::Absent(key) => f.write_str(key),
        }
    }
}

impl SourceFile {
    /// The columns of line `no` that must not be shown, as half-open ranges from 0, sorted.
    fn hidden(&self, no: usize, line: &str) -> Vec<(usize, usize)> {
        let length = line.chars().count();
        let mut hidden: Vec<(usize, usize)> = self
            .secrets
            .iter()
            .filter(|span| span.start.0 <= no && no <= span.end.0)
            .map(|span| {
                let from = if span.start.0 == no {
                    span.start.1 - 1
                } else {
                    0
                };
                let to = if span.end.0 == no {
                    span.end.1 - 1
                } else {
                    length
                };
                (from, to)
            })
            .chain(password_in_url(line))
            .chain(after_secret_word(line).filter(|_| self.secrets.is_empty()))
            .filter(|(from, to)| from < to)
            .collect();
        hidden.sort_unstable();
        hidden
    }
}

/// The line with four stars for each hidden range, and for each column of the line the column
/// where it is now (one more at the end).
fn mask(line: &str, hidden: &[(usize, usize)]) -> (String, Vec<usize>) {
    let mut shown = String::new();
    let mut width = 0;
    let mut columns = Vec::new();
    let mut covered = false;
    for (at, letter) in line.chars().enumerate() {
        let hide = hidden.iter().any(|(from, to)| *from <= at && at < *to);
        if hide && !covered {
            columns.push(width);
            shown.push_str("****");
            width += 4;
        } else if hide {
            columns.push(width - 4);
        } else {
            columns.push(width);
            // A tab would be drawn wider than the caret under it.
            shown.push(if letter == '\t' { ' ' } else { letter });
            width += 1;
        }
        covered = hide;
    }
    columns.push(width);
    (shown, columns)
}

/// Whether values under a key of this name are kept from every screen and log.
pub(super) fn is_secret(key: &str) -> bool {
    const WORDS: [&str; 10] = [
        "token",
        "password",
        "passwd",
        "passphrase",
        "secret",
        "credential",
        "accesskey",
        "apikey",
        "privatekey",
        "webhookurl",
    ];
    let key: String = key
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .collect::<String>()
        .to_ascii_lowercase();
    // `urls` are those of services, which hold their tokens.
    WORDS.iter().any(|word| key.contains(word)) || ["key", "pass", "urls"].contains(&key.as_str())
}

/// The password of `scheme://user:password@host`, wherever it stands in the line.
fn password_in_url(line: &str) -> Option<(usize, usize)> {
    let letters: Vec<char> = line.chars().collect();
    let scheme = letters
        .windows(3)
        .position(|three| three == [':', '/', '/'])?
        + 3;
    let authority = letters[scheme..]
        .iter()
        .position(|one| matches!(one, '/' | '?' | '#' | '"' | '\'' | ' '))
        .map_or(letters.len(), |end| scheme + end);
    let at = letters[scheme..authority]
        .iter()
        .rposition(|one| *one == '@')?
        + scheme;
    let colon = letters[scheme..at].iter().position(|one| *one == ':')? + scheme;
    Some((colon + 1, at))
}

/// Everything after the first key that looks secret: for files that could not be parsed, where
/// nothing better is known.
fn after_secret_word(line: &str) -> Option<(usize, usize)> {
    let letters: Vec<char> = line.chars().collect();
    let colon = (0..letters.len()).find(|at| {
        let before: String = letters[..*at]
            .iter()
            .rev()
            .take_while(|one| one.is_alphanumeric())
            .collect();
        letters[*at] == ':' && is_secret(&before.chars().rev().collect::<String>())
    })?;
    Some((colon + 1, letters.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(line: &str) -> String {
        mask(line, &password_in_url(line).into_iter().collect::<Vec<_>>()).0
    }

    #[test]
    fn the_password_of_an_address_is_not_shown() {
        assert_eq!(
            shown("url: amqp://me:s3c:r@t@mq:5671/v"),
            "url: amqp://me:****@mq:5671/v"
        );
        assert_eq!(shown("url: amqp://mq/v@x:y"), "url: amqp://mq/v@x:y");
        assert_eq!(shown("plain: text"), "plain: text");
    }

    #[test]
    fn keys_that_name_a_secret_are_known() {
        for key in [
            "token",
            "botToken",
            "smtp_password",
            "clientSecret",
            "accessKey",
            "key",
        ] {
            assert!(is_secret(key), "{key}");
        }
        for key in ["sender", "keys", "title", "monkey", "listen"] {
            assert!(!is_secret(key), "{key}");
        }
    }

    #[test]
    fn a_line_that_cannot_be_parsed_is_hidden_after_a_secret_key() {
        let line = "  - { token: abc, subject: [x }";
        let hidden: Vec<_> = after_secret_word(line).into_iter().collect();
        assert_eq!(mask(line, &hidden).0, "  - { token:****");
    }
}
