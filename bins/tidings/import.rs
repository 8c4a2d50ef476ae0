//! `tidings import`: moves what another system holds into the store.

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Instant;

use indicatif::ProgressBar;
use indicatif::ProgressDrawTarget;
use indicatif::ProgressStyle;
use serde_json::json;
use tidings::config::Settings;
use tidings::runner::ImportEvent;
use tidings::runner::ImportReport;
use tidings::runner::StartError;
use tidings::runner::import;
use tidings::runner::process;
use tidings::runner::process::ProcessArgs;

use crate::client::INTERRUPTED;
use crate::client::USAGE;
use crate::client::error_at;
use crate::out::say;
use crate::words;

/// Odd rows that are named one by one; the rest is counted.
const ODD_NAMED: u64 = 20;

/// Move what another system holds into the store.
#[derive(clap::Args, Debug)]
pub(crate) struct ImportArgs {
    #[command(subcommand)]
    source: Source,
}

#[derive(clap::Subcommand, Debug)]
enum Source {
    Backstage(BackstageArgs),
}

/// Move over from the tables of Backstage's own notifications backend.
///
/// Notifications, broadcasts, read and saved marks and personal settings are copied with their ids
/// and dates. It may be cut off at any moment and run again: it goes on where it stopped. Run again
/// when it is done, it adds what is new there and changes nothing that is here.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  tidings import backstage --from postgres://backstage@db.example.com --dry-run
  PGPASSWORD=… tidings import backstage --from postgres://backstage@db.example.com
  tidings import backstage --from-file /run/secrets/backstage-database-url --config tidings.yaml

Without a database in the URL it is backstage_plugin_notifications. A password belongs into
PGPASSWORD, ~/.pgpass, the file or TIDINGS_IMPORT_FROM: a command line can be read by everybody on
the machine. On one SQLite file, Tidings must not run meanwhile; on PostgreSQL it may, and the role
in tidings.store.url must be one that may write all tables, as that of `tidings migrate`.")]
struct BackstageArgs {
    /// Backstage's database, as in `postgres://user@host:5432/backstage_plugin_notifications`;
    /// `sslmode` and `sslrootcert` as in `tidings.store.url`
    #[arg(
        long,
        env = "TIDINGS_IMPORT_FROM",
        hide_env_values = true,
        value_name = "URL",
        required_unless_present = "from_file"
    )]
    from: Option<String>,
    /// File that holds this URL
    #[arg(long, value_name = "FILE")]
    from_file: Option<PathBuf>,
    /// Read everything, write nothing, and say what would be copied
    #[arg(long)]
    dry_run: bool,
    /// Machine-readable: one JSON object on each line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    process: ProcessArgs,
}

/// Imports.
///
/// # Errors
/// What keeps it from being done.
pub(crate) fn run(args: &ImportArgs) -> Result<ExitCode, StartError> {
    let Source::Backstage(args) = &args.source;
    let settings = args.process.load("tidings.listen")?.settings()?;
    let from = args.source()?;
    process::block_on(async {
        tokio::select! {
            done = backstage(args, &settings, &from) => done,
            Ok(()) = tokio::signal::ctrl_c() => {
                eprintln!("\nStopped. Run it again: it goes on where it stopped.");
                Ok(ExitCode::from(INTERRUPTED))
            }
        }
    })
}

impl BackstageArgs {
    fn source(&self) -> Result<String, StartError> {
        let Some(file) = &self.from_file else {
            return Ok(self.from.clone().unwrap_or_default());
        };
        match std::fs::read_to_string(file) {
            Ok(text) => Ok(text.trim().to_owned()),
            Err(error) => Err(error_at(
                USAGE,
                error.to_string(),
                &file.display().to_string(),
                "name a file that holds the URL of Backstage's database",
            )),
        }
    }
}

async fn backstage(
    args: &BackstageArgs,
    settings: &Settings,
    from: &str,
) -> Result<ExitCode, StartError> {
    let began = Instant::now();
    let progress = Progress::new();
    let done = import(settings, from, args.dry_run, &|event| progress.tell(event)).await;
    progress.end();
    let report = done?;
    if args.json {
        for line in lines(&report, args.dry_run) {
            say!("{line}");
        }
    } else {
        say!("{}", text(&report, args.dry_run));
        eprintln!("{}", words::span(began.elapsed().as_millis()));
    }
    Ok(ExitCode::SUCCESS)
}

/// One JSON object for each part.
fn lines(report: &ImportReport, dry: bool) -> Vec<serde_json::Value> {
    let of = |one: &tidings::runner::PartReport| {
        json!({
            "source": report.source,
            "part": one.part,
            "there": one.there,
            "before": one.before,
            "read": one.read,
            "new": one.new,
            "dryRun": dry,
        })
    };
    report.parts.iter().map(of).collect()
}

/// A table, and what it means.
fn text(report: &ImportReport, dry: bool) -> String {
    let mut out = String::new();
    for one in &report.parts {
        let there = words::grouped(one.there);
        out.push_str(&format!("{:<14} {there:>12} there", one.part.as_str()));
        if !dry {
            let new = words::grouped(one.new);
            out.push_str(&format!("  {new:>12} new"));
        }
        if 0 < one.before {
            let before = words::grouped(one.before);
            out.push_str(&format!("  {before:>12} by an earlier run"));
        }
        out.push('\n');
    }
    if 0 < report.odd {
        let odd = words::count(report.odd, "thing", "things");
        out.push_str(&format!(
            "{odd} could not be taken as they stood; see above.\n"
        ));
    }
    out.push_str(&match dry {
        true => format!("From {}. Nothing was written.", report.source),
        false => format!("From {}.", report.source),
    });
    out
}

/// A bar on a terminal, else a line for each part.
struct Progress(Mutex<State>);

struct State {
    bar: Option<ProgressBar>,
    odd: u64,
}

impl Progress {
    fn new() -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            let style = "{msg:<14} {wide_bar} {human_pos} of {human_len}  {eta}";
            // The template is a constant: were it wrong, the default would do.
            bar.with_style(
                ProgressStyle::with_template(style)
                    .unwrap_or_else(|_| ProgressStyle::default_bar()),
            )
        });
        Self(Mutex::new(State { bar, odd: 0 }))
    }

    fn tell(&self, event: ImportEvent) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            ImportEvent::Begins { part, there, done } => match &state.bar {
                Some(bar) => {
                    bar.reset();
                    bar.set_message(part.as_str());
                    bar.set_length(there);
                    bar.set_position(done);
                }
                None => eprintln!("{}: {} there", part.as_str(), words::grouped(there)),
            },
            ImportEvent::Done(rows) => {
                if let Some(bar) = &state.bar {
                    bar.set_position(rows);
                }
            }
            ImportEvent::Odd(sentence) => {
                state.odd += 1;
                if state.odd <= ODD_NAMED {
                    let line = format!("note: {}", crate::out::plain(&sentence));
                    match &state.bar {
                        Some(bar) => bar.println(line),
                        None => eprintln!("{line}"),
                    }
                }
            }
        }
    }

    fn end(&self) {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bar) = &state.bar {
            bar.finish_and_clear();
        }
        if ODD_NAMED < state.odd {
            let more = words::count(state.odd - ODD_NAMED, "more", "more");
            eprintln!("note: and {more}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidings::runner::PartReport;
    use tidings::store::ImportPart;

    #[test]
    fn the_result_is_a_table_by_part() {
        let part = |part, there, before, new| PartReport {
            part,
            there,
            before,
            read: there - before,
            new,
        };
        let report = ImportReport {
            source: "db:5432/backstage_plugin_notifications".to_owned(),
            parts: vec![
                part(ImportPart::Broadcasts, 12, 12, 0),
                part(ImportPart::Notifications, 200_000, 0, 199_998),
            ],
            odd: 1,
        };
        let expected = "\
broadcasts               12 there             0 new            12 by an earlier run
notifications       200,000 there       199,998 new
1 thing could not be taken as they stood; see above.
From db:5432/backstage_plugin_notifications.";
        assert_eq!(text(&report, false), expected);
        assert_eq!(lines(&report, true)[1]["part"], "notifications");
        assert!(text(&report, true).ends_with("Nothing was written."));
    }
}
