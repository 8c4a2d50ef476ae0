//! `tidings status`: everything at a glance; exit code 1 when something is not well.

use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use serde_json::Value;
use tidings::runner::StartError;
use tidings::store::Process;
use tidings::store::Summary;
use tidings::time::Timestamp;

use crate::client::Client;
use crate::client::ClientArgs;
use crate::client::FAILED;
use crate::paint::Paint;
use crate::render::ago;
use crate::render::grouped;

/// Between two looks.
const EVERY: Duration = Duration::from_secs(2);

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
    loop {
        let well = look(&client, args).await?;
        if !args.watch {
            return Ok(if well {
                ExitCode::SUCCESS
            } else {
                ExitCode::from(FAILED)
            });
        }
        tokio::select! {
            () = tokio::time::sleep(EVERY) => {}
            _ = tokio::signal::ctrl_c() => return Ok(ExitCode::from(130)),
        }
    }
}

async fn look(client: &Client, args: &StatusArgs) -> Result<bool, StartError> {
    let told = client.get("/api/tidings/v1/status").await?;
    let well = told["degraded"].as_array().is_none_or(Vec::is_empty);
    if args.client.json {
        println!("{told}");
    } else {
        if args.watch {
            // Clears the screen and goes to its first line (ECMA-48).
            print!("\x1b[2J\x1b[H");
        }
        print!("{}", render(&told, Paint::stdout()));
    }
    Ok(well)
}

fn render(told: &Value, paint: Paint) -> String {
    let now = read(told, "now").unwrap_or_else(Timestamp::now);
    let mut out = String::new();
    let degraded: Vec<String> = read(told, "degraded").unwrap_or_default();
    if degraded.is_empty() {
        let _ = writeln!(out, "{}", paint.green("All is well."));
    }
    for trouble in &degraded {
        let _ = writeln!(out, "{} {trouble}", paint.red("not well:"));
    }
    let _ = writeln!(
        out,
        "\n{}",
        paint.bold(&format!(
            "{:<20} {:<8} {:<22} {:<10} {}",
            "PROCESS", "PID", "VERSION", "UP", "HEALTH AT"
        ))
    );
    let processes: Vec<Process> = read(told, "processes").unwrap_or_default();
    for one in &processes {
        let admin = one.admin.as_deref().unwrap_or("–");
        let _ = writeln!(
            out,
            "{:<20} {:<8} {:<22} {:<10} {admin}",
            one.role,
            one.pid,
            one.version,
            ago(one.started_at, now)
        );
    }
    let _ = writeln!(
        out,
        "\n{}",
        paint.bold(&format!(
            "{:<24} {:>9} {:>10}   {}",
            "QUEUE", "WAITING", "CONSUMERS", "OLDEST"
        ))
    );
    for queue in told["queues"].as_array().into_iter().flatten() {
        let number = |name: &str| grouped(queue[name].as_u64().unwrap_or(0));
        let oldest = queue["oldestSeconds"]
            .as_u64()
            .map_or_else(|| "–".to_owned(), |age| format!("{age} s"));
        let name = queue["queue"].as_str().unwrap_or_default();
        let _ = writeln!(
            out,
            "{name:<24} {:>9} {:>10}   {oldest}",
            number("ready"),
            number("consumers")
        );
    }
    let summary: Summary = read(told, "summary").unwrap_or_default();
    let _ = writeln!(
        out,
        "\n{}",
        paint.bold(&format!(
            "{:<12} {:>9} {:>9} {:>9}   {:<12} {}",
            "CHANNEL", "SENT", "WAITING", "FAILED", "LAST SENT", "LAST FAILURE"
        ))
    );
    for one in &summary.channels {
        let last = |at: Option<Timestamp>| {
            at.map_or_else(|| "–".to_owned(), |at| format!("{} ago", ago(at, now)))
        };
        let why = one.last_failure.as_deref().unwrap_or_default();
        let failure = one.last_failed.map_or_else(
            || "–".to_owned(),
            |at| format!("{} ago: {why}", ago(at, now)),
        );
        let _ = writeln!(
            out,
            "{:<12} {:>9} {:>9} {:>9}   {:<12} {failure}",
            one.channel,
            grouped(one.sent),
            grouped(one.pending),
            grouped(one.failed),
            last(one.last_sent)
        );
    }
    let dead: u64 = summary.dead.iter().map(|(_, count)| count).sum();
    if dead == 0 {
        let _ = writeln!(
            out,
            "\nNo dead letters. {} notifications.",
            grouped(summary.notifications)
        );
    } else {
        let words: Vec<String> = summary
            .dead
            .iter()
            .map(|(reason, count)| format!("{} {reason}", grouped(*count)))
            .collect();
        let oldest = summary
            .dead_oldest
            .map_or_else(String::new, |at| format!(", oldest {}", ago(at, now)));
        let _ = writeln!(
            out,
            "\nDead letters: {}{oldest}: tidings dead list",
            words.join(", ")
        );
    }
    out
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
        let text = render(&told, Paint::stdout());
        assert!(text.starts_with("not well: queue: away"), "{text}");
        assert!(
            text.contains("Dead letters: 2 server: tidings dead list"),
            "{text}"
        );
    }
}
