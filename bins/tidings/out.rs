//! Standard output, and how a command says that it failed.

use std::fmt;
use std::io::ErrorKind;
use std::io::Write as _;

use clap::error::ContextKind;
use clap::error::ContextValue;
use tidings::runner::StartError;

use crate::client::USAGE;
use crate::client::error_at;
use crate::paint::Paint;

/// Prints a line of the result. Ends the process, as one that is done, when nobody reads any more
/// (`tidings list | head -1`), where `println!` would panic.
macro_rules! say {
    ($($text:tt)*) => {
        $crate::out::put(format_args!("{}\n", format_args!($($text)*)))
    };
}
pub(crate) use say;

/// Prints a part of the result, as [`say`] does.
pub(crate) fn put(text: impl fmt::Display) {
    let mut out = std::io::stdout().lock();
    let written = write!(out, "{text}").and_then(|()| out.flush());
    match written {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => std::process::exit(0),
        // A full disk: what is missing there is not to look like success.
        Err(error) => {
            eprintln!("error: cannot write the result: {error}\n  --> standard output");
            std::process::exit(1);
        }
        Ok(()) => {}
    }
}

/// Says why a command failed.
pub(crate) fn complain(error: &StartError) {
    eprintln!("{}", painted(&error.to_string(), Paint::stderr()));
}

fn painted(text: &str, paint: Paint) -> String {
    let line = |line: &str| {
        for (word, colour) in [
            ("error:", Paint::alarm as fn(Paint, &str) -> String),
            ("help:", Paint::bold),
        ] {
            if let Some(rest) = line.strip_prefix(word) {
                return format!("{}{}", colour(paint, word), plain(rest));
            }
        }
        plain(line)
    };
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}

/// Text from elsewhere, without what a terminal would obey.
pub(crate) fn plain(text: &str) -> String {
    text.chars()
        .map(|char| if char.is_control() { ' ' } else { char })
        .collect()
}

/// The same for many lines.
pub(crate) fn plain_lines(text: &str) -> String {
    text.split('\n').map(plain).collect::<Vec<_>>().join("\n")
}

/// What is wrong with a command line, in the form of all errors.
pub(crate) fn usage(error: &clap::Error) -> StartError {
    let rendered = error.render().to_string();
    let mut message = Vec::new();
    let mut help = Vec::new();
    for line in rendered.lines() {
        if let Some(tip) = line.trim_start().strip_prefix("tip: ") {
            help.push(tip.to_owned());
        } else if line.starts_with("Usage:") || line.starts_with("For more information") {
            break;
        } else if help.is_empty() && !line.is_empty() {
            message.push(line.trim());
        }
    }
    let message = message.join(" ");
    let message = message.strip_prefix("error: ").unwrap_or(&message);
    let named = error.get(ContextKind::InvalidArg);
    let place = match named.or_else(|| error.get(ContextKind::InvalidSubcommand)) {
        Some(ContextValue::String(arg)) => arg.clone(),
        Some(ContextValue::Strings(args)) => args.join(" "),
        _ => "the command line".to_owned(),
    };
    if help.is_empty() {
        let usage = rendered
            .lines()
            .find_map(|line| line.strip_prefix("Usage: "));
        help.push(match usage {
            Some(usage) => usage.to_owned(),
            None => "--help shows what there is".to_owned(),
        });
    }
    error_at(USAGE, message, &place, &help.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    fn of(line: &[&str]) -> String {
        let Err(error) = crate::Cli::try_parse_from([&["tidings"], line].concat()) else {
            panic!("{line:?} is right");
        };
        usage(&error).to_string()
    }

    #[test]
    fn a_wrong_command_line_is_said_like_every_error() {
        assert_eq!(
            of(&["list"]),
            "error: the following required arguments were not provided: --user <REF>\n  --> --user <REF>\nhelp: tidings list --user <REF>"
        );
        let text = of(&["send", "--titel", "x"]);
        assert!(
            text.starts_with("error: unexpected argument '--titel' found\n  --> --titel\n"),
            "{text}"
        );
        assert!(
            text.ends_with("help: a similar argument exists: '--title'"),
            "{text}"
        );
        let text = of(&["send", "--severity", "bad"]);
        assert!(
            text.contains("is not one of critical, high, normal, low\n  --> --severity"),
            "{text}"
        );
        let text = of(&["sned"]);
        assert!(text.contains("\n  --> sned\n"), "{text}");
        assert!(
            text.contains("help: a similar subcommand exists: 'send'"),
            "{text}"
        );
    }

    #[test]
    fn only_the_words_of_the_form_are_coloured_and_nothing_else_moves_the_cursor() {
        let text = "error: no\x1b[2J\n  --> here\nhelp: mend it";
        let painted = painted(text, Paint::always());
        assert!(painted.ends_with("\x1b[0m mend it"), "{painted:?}");
        assert!(!painted.contains("\x1b[2J"), "{painted:?}");
        assert_eq!(super::painted("a\nb", Paint::never()), "a\nb");
    }
}
