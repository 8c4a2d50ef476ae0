//! `tidings check`: the configuration, and whether everything it names can be reached. Starts and
//! changes nothing, unless `--mend` asks for it.

use std::fmt::Write as _;
use std::process::ExitCode;

use serde_json::json;
use tidings::config::ConfigError;
use tidings::config::Settings;
use tidings::runner::Finding;
use tidings::runner::Level;
use tidings::runner::StartError;
use tidings::runner::look;
use tidings::runner::process;
use tidings::runner::process::ProcessArgs;

use crate::client::CONFIG;
use crate::client::FAILED;
use crate::out;
use crate::paint::Paint;
use crate::words;

/// Check the configuration and everything it names; starts and changes nothing.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  tidings check
  tidings check --config app-config.yaml --config tidings.yaml
  tidings check --counts          count every inbox again, and say whose counters are wrong
  tidings check --counts --mend   and mend them

Exit codes: 0 all is well, 1 something cannot be reached, 3 the configuration is wrong.")]
pub(crate) struct CheckArgs {
    /// Count every inbox again; takes a while where there are many
    #[arg(long)]
    counts: bool,
    /// Mend the counters that are wrong
    #[arg(long, requires = "counts")]
    mend: bool,
    /// Machine-readable: one JSON object on each line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    process: ProcessArgs,
}

/// Everything that was found out.
#[derive(Default)]
struct Report {
    /// What keeps a process from starting.
    faults: Vec<StartError>,
    findings: Vec<Finding>,
}

/// Checks.
///
/// # Errors
/// A configuration file that cannot be read at all.
pub(crate) fn run(args: &CheckArgs) -> Result<ExitCode, StartError> {
    let config = args.process.load("tidings.listen")?;
    let (settings, faults) = config.examine();
    process::block_on(async {
        let mut report = Report::default();
        report
            .faults
            .extend(faults.into_iter().map(StartError::from));
        if let Some(settings) = &settings {
            let found = look(&config, settings).await;
            report.faults.extend(found.faults);
            report.findings.extend(found.findings);
            if args.counts {
                report.findings.push(counts(settings, args.mend).await);
            }
        }
        report
            .findings
            .extend(config.warnings().iter().map(warning));
        if args.json {
            out::put(report.lines());
        } else {
            out::put(report.text(Paint::stdout(), args.mend));
        }
        Ok(report.code())
    })
}

async fn counts(settings: &Settings, mend: bool) -> Finding {
    let (level, detail) = match process::recount(settings, mend).await {
        Ok(0) => (Level::Ok, "all right".to_owned()),
        Ok(wrong) => {
            let people = words::count(wrong, "person's are wrong", "people's are wrong");
            let next = if mend {
                "; mended"
            } else {
                "; --mend mends them"
            };
            (Level::Warn, format!("{people}{next}"))
        }
        Err(error) => (Level::Error, error.message),
    };
    Finding {
        level,
        what: "counts".to_owned(),
        place: "inbox counters".to_owned(),
        detail,
    }
}

fn warning(warning: &ConfigError) -> Finding {
    Finding {
        level: Level::Warn,
        what: warning.key.clone().unwrap_or_default(),
        place: String::new(),
        detail: warning.line(),
    }
}

impl Report {
    fn count(&self, level: Level) -> u64 {
        let of_level = self.findings.iter().filter(|one| one.level == level);
        of_level.count() as u64
    }

    fn code(&self) -> ExitCode {
        if !self.faults.is_empty() {
            ExitCode::from(CONFIG)
        } else if self.count(Level::Error) > 0 {
            ExitCode::from(FAILED)
        } else {
            ExitCode::SUCCESS
        }
    }

    /// One JSON object on each line.
    fn lines(&self) -> String {
        let faults = self.faults.iter().map(|fault| {
            json!({"level": "error", "what": "configuration", "place": fault.place, "detail": fault.message})
        });
        let findings = self.findings.iter().map(|finding| json!(finding));
        faults.chain(findings).fold(String::new(), |mut out, line| {
            let _ = writeln!(out, "{line}");
            out
        })
    }

    fn text(&self, paint: Paint, mended: bool) -> String {
        let mut out = String::new();
        for fault in &self.faults {
            let _ = writeln!(out, "{fault}\n");
        }
        let width = |of: fn(&Finding) -> &str| {
            let places = self.findings.iter().filter(|one| !one.place.is_empty());
            places.map(|one| of(one).chars().count()).max().unwrap_or(0)
        };
        let (what, place) = (width(|one| &one.what), width(|one| &one.place));
        for one in &self.findings {
            let level = match one.level {
                Level::Ok => paint.green("ok  "),
                Level::Warn => paint.yellow("warn"),
                Level::Error => paint.red("fail"),
            };
            // A key is long and has no place of its own: it takes both columns.
            let _ = match one.place.as_str() {
                "" => writeln!(out, "  {level}  {}  {}", one.what, one.detail),
                at => writeln!(
                    out,
                    "  {level}  {:<what$}  {at:<place$}  {}",
                    one.what, one.detail
                ),
            };
        }
        let errors = self.faults.len() as u64 + self.count(Level::Error);
        let done = if mended {
            "Nothing was started."
        } else {
            "Nothing was started or changed."
        };
        let _ = writeln!(
            out,
            "\n{}, {}. {done}",
            words::count(errors, "error", "errors"),
            words::count(self.count(Level::Warn), "warning", "warnings"),
        );
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(level: Level, what: &str, place: &str, detail: &str) -> Finding {
        Finding {
            level,
            what: what.to_owned(),
            place: place.to_owned(),
            detail: detail.to_owned(),
        }
    }

    #[test]
    fn the_report_has_faults_first_then_a_table_then_the_sum() {
        let report = Report {
            faults: vec![StartError::new(
                "unknown key `tidings.retries`",
                "tidings.yaml:9:3",
                "did you mean `retry`?",
            )],
            findings: vec![
                finding(
                    Level::Ok,
                    "queue",
                    "amqps://mq:5671/tidings",
                    "12 queues, all there",
                ),
                finding(Level::Error, "sender", "email", "no connection"),
                finding(
                    Level::Warn,
                    "notifications.processors.msteams",
                    "",
                    "a.yaml:88:5: no such processor here",
                ),
            ],
        };
        let expected = "\
error: unknown key `tidings.retries`
  --> tidings.yaml:9:3
help: did you mean `retry`?

  ok    queue   amqps://mq:5671/tidings  12 queues, all there
  fail  sender  email                    no connection
  warn  notifications.processors.msteams  a.yaml:88:5: no such processor here

2 errors, 1 warning. Nothing was started or changed.
";
        assert_eq!(report.text(Paint::never(), false), expected);
        assert_eq!(report.lines().lines().count(), 4);
    }
}
