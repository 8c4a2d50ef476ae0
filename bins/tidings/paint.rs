//! Colour, where there is a terminal that wants it. See <https://no-color.org>.

use std::fmt::Write as _;
use std::io::IsTerminal as _;

use anstyle::AnsiColor;
use anstyle::Style;
use uuid::Uuid;

/// Whether to colour.
#[derive(Clone, Copy)]
pub(crate) struct Paint(bool);

impl Paint {
    /// For standard output.
    pub(crate) fn stdout() -> Self {
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self(wanted && std::io::stdout().is_terminal())
    }

    /// For standard error.
    pub(crate) fn stderr() -> Self {
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self(wanted && std::io::stderr().is_terminal())
    }

    /// Without colour.
    #[cfg(test)]
    pub(crate) const fn never() -> Self {
        Self(false)
    }

    /// With colour, wherever it goes.
    #[cfg(test)]
    pub(crate) const fn always() -> Self {
        Self(true)
    }

    fn with(self, style: Style, text: &str) -> String {
        if !self.0 || text.is_empty() {
            return text.to_owned();
        }
        let mut out = String::new();
        let _ = write!(out, "{style}{text}{style:#}");
        out
    }

    pub(crate) fn bold(self, text: &str) -> String {
        self.with(Style::new().bold(), text)
    }

    pub(crate) fn dim(self, text: &str) -> String {
        self.with(Style::new().dimmed(), text)
    }

    pub(crate) fn red(self, text: &str) -> String {
        self.with(AnsiColor::Red.on_default(), text)
    }

    pub(crate) fn yellow(self, text: &str) -> String {
        self.with(AnsiColor::Yellow.on_default(), text)
    }

    /// What an error begins with.
    pub(crate) fn alarm(self, text: &str) -> String {
        self.with(AnsiColor::Red.on_default().bold(), text)
    }

    pub(crate) fn green(self, text: &str) -> String {
        self.with(AnsiColor::Green.on_default(), text)
    }

    /// The last eight digits of an id: what `tidings trace` takes.
    pub(crate) fn short(self, id: Uuid) -> String {
        let text = id.simple().to_string();
        text.get(24..).unwrap_or(&text).to_owned()
    }
}
