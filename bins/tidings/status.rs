//! `tidings status`: everything at a glance; exit code 1 when something is not well.

use std::fmt::Write as _;
use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::time::Duration;

use serde_json::Value;
use tidings::runner::StartError;
use tidings::store::Pause;
use tidings::store::Process;
use tidings::store::Summary;
use tidings::time::Timestamp;

use crate::client::ClientArgs;
use crate::client::FAILED;
use crate::client::INTERRUPTED;
use crate::client::NO_ANSWER;
use crate::out;
use crate::paint::Paint;
use crate::table::Table;
use crate::words::ago;
use crate::words::count;
use crate::words::grouped;

/// Between two looks.
const EVERY: Duration = Duration::from_secs(2);

/// Where there is nothing to tell.
const NONE: &str = "–";

/// Show processes, queues, channels and dead letters; exits with 1 when something is not well.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  tidings status
  tidings status --watch
  tidings status --json | jq .degraded")]
pub(crate) struct StatusArgs {
    /// Look again every 2 seconds, until Ctrl-C
    #[arg(long)]
    watch: bool,
    #[command(flatten)]
    client: ClientArgs,
}

/// Shows it.
///
/// # Errors
/// That nobody answers, or the token may not operate.
pub(crate) async fn run(args: &StatusArgs) -> Result<ExitCode, StartError> {
    let client = args.client.connect()?;
    if !args.watch {
        let told = client.get(&["status"], &[]).await?;
        out::put(shown(&told, args));
        return Ok(if is_well(&told) {
            ExitCode::SUCCESS
        } else {
            ExitCode::from(FAILED)
        });
    }
    loop {
        // Whoever watches wants to see it come back.
        let text = match client.get(&["status"], &[]).await {
            Ok(told) => shown(&told, args),
            Err(error) if error.code == NO_ANSWER => format!("{error}\n"),
            Err(error) => return Err(error),
        };
        if std::io::stdout().is_terminal() && !args.client.json {
            // Clears the screen and goes to its first line (ECMA-48).
            out::put("\x1b[2J\x1b[H");
        }
        out::put(&text);
        tokio::select! {
            () = tokio::time::sleep(EVERY) => {}
            _ = tokio::signal::ctrl_c() => return Ok(ExitCode::from(INTERRUPTED)),
        }
    }
}

fn is_well(told: &Value) -> bool {
    told["degraded"].as_array().is_none_or(Vec::is_empty)
}

fn shown(told: &Value, args: &StatusArgs) -> String {
    if args.client.json {
        return format!("{told}\n");
    }
    render(told, Paint::stdout())
}

fn render(told: &Value, paint: Paint) -> String {
    let now = read(told, "now").unwrap_or_else(Timestamp::now);
    let summary: Summary = read(told, "summary").unwrap_or_default();
    let mut out = String::new();
    let degraded: Vec<String> = read(told, "degraded").unwrap_or_default();
    if degraded.is_empty() {
        let _ = writeln!(out, "{}", paint.green("All is well."));
    }
    for trouble in &degraded {
        let _ = writeln!(out, "{} {trouble}", paint.red("not well:"));
    }
    for one in read::<Vec<Pause>>(told, "paused").unwrap_or_default() {
        let (channel, since) = (&one.channel, ago(one.since, now));
        let _ = writeln!(
            out,
            "paused: {channel}, {since} by {}; resume it: tidings resume {channel}",
            one.by
        );
    }
    for table in [
        processes(told, now),
        queues(told, now),
        channels(&summary, now),
    ] {
        let _ = write!(out, "\n{}", table.render(paint));
    }
    let dead: u64 = summary.dead.iter().map(|(_, count)| count).sum();
    if dead == 0 {
        let kept = count(summary.notifications, "notification", "notifications");
        let _ = writeln!(out, "\nNo dead letters. {kept}.");
    } else {
        let words = summary
            .dead
            .iter()
            .map(|(reason, count)| format!("{} {reason}", grouped(*count)));
        let words = words.collect::<Vec<_>>().join(", ");
        let oldest = summary
            .dead_oldest
            .map_or_else(String::new, |at| format!("; oldest {}", ago(at, now)));
        let _ = writeln!(
            out,
            "\nDead letters: {words}{oldest}. Look: tidings dead list"
        );
    }
    out
}

fn processes(told: &Value, now: Timestamp) -> Table {
    let mut table = Table::new(
        &["PROCESS", "HOST", "PID", "VERSION", "UP", "HEALTH AT"],
        &[2],
    );
    let processes: Vec<Process> = read(told, "processes").unwrap_or_default();
    for one in processes {
        let up = ago(one.started_at, now);
        let admin = one.admin.unwrap_or_else(|| NONE.to_owned());
        table.row([
            one.role,
            one.host,
            one.pid.to_string(),
            one.version,
            up,
            admin,
        ]);
    }
    table
}

fn queues(told: &Value, now: Timestamp) -> Table {
    let mut table = Table::new(&["QUEUE", "WAITING", "CONSUMERS", "OLDEST"], &[1, 2]);
    for queue in told["queues"].as_array().into_iter().flatten() {
        let number = |name: &str| {
            queue[name]
                .as_u64()
                .map_or_else(|| NONE.to_owned(), grouped)
        };
        let oldest = read::<Timestamp>(queue, "oldest");
        table.row([
            queue["queue"].as_str().unwrap_or_default().to_owned(),
            number("ready"),
            number("consumers"),
            oldest.map_or_else(|| NONE.to_owned(), |at| ago(at, now)),
        ]);
    }
    table
}

fn channels(summary: &Summary, now: Timestamp) -> Table {
    let head = [
        "CHANNEL",
        "SENT",
        "WAITING",
        "FAILED",
        "LAST SENT",
        "LAST FAILURE",
    ];
    let mut table = Table::new(&head, &[1, 2, 3]);
    for one in &summary.channels {
        let last = |at: Option<Timestamp>| {
            at.map_or_else(|| NONE.to_owned(), |at| format!("{} ago", ago(at, now)))
        };
        let why = one
            .last_failure
            .as_ref()
            .filter(|_| one.last_failed.is_some());
        let why = why.map_or_else(String::new, |why| format!(": {why}"));
        table.row([
            one.channel.clone(),
            grouped(one.sent),
            grouped(one.pending),
            grouped(one.failed),
            last(one.last_sent),
            format!("{}{why}", last(one.last_failed)),
        ]);
    }
    table
}

fn read<T: serde::de::DeserializeOwned>(told: &Value, name: &str) -> Option<T> {
    serde_json::from_value(told[name].clone()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_well_comes_first_and_unknown_parts_are_empty() {
        let told = serde_json::json!({"degraded": ["queue: away"], "summary": {"notifications": 1200,
            "channels": [], "dead": [["server", 2]], "dead_oldest": null}});
        let text = render(&told, Paint::never());
        assert!(text.starts_with("not well: queue: away"), "{text}");
        assert!(
            text.contains("Dead letters: 2 server. Look: tidings dead list"),
            "{text}"
        );
    }
}
