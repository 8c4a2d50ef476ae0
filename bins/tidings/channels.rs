//! `tidings processors`, `tidings pause` and `tidings resume`: what is configured, and the switches
//! of channels.

use std::process::ExitCode;

use serde_json::Value;
use serde_json::json;
use tidings::runner::StartError;

use crate::client::ClientArgs;
use crate::out;
use crate::out::say;
use crate::paint::Paint;
use crate::table::Table;

/// What stands where there is nothing to say.
const NONE: &str = "–";

/// List decorators and senders in the order in which they run, and how they are
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  tidings processors
  tidings processors --json")]
pub(crate) struct ProcessorsArgs {
    #[command(flatten)]
    client: ClientArgs,
}

/// Hold a channel: its deliveries wait, also over a restart, until it is resumed
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  tidings pause email
  tidings status")]
pub(crate) struct PauseArgs {
    /// The sender's name, as `tidings processors` lists it
    channel: String,
    #[command(flatten)]
    client: ClientArgs,
}

/// Let a channel go on
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  tidings resume email")]
pub(crate) struct ResumeArgs {
    /// The sender's name, as `tidings processors` lists it
    channel: String,
    #[command(flatten)]
    client: ClientArgs,
}

/// Lists what is configured.
///
/// # Errors
/// That nobody answers, or it is refused.
pub(crate) async fn processors(args: &ProcessorsArgs) -> Result<ExitCode, StartError> {
    let told = args.client.connect()?.get(&["processors"], &[]).await?;
    let all = told["processors"].as_array().cloned().unwrap_or_default();
    if args.client.json {
        all.iter().for_each(|one| say!("{one}"));
        return Ok(ExitCode::SUCCESS);
    }
    out::put(table(&all).render(Paint::stdout()));
    Ok(ExitCode::SUCCESS)
}

/// Pauses a channel.
///
/// # Errors
/// That nobody answers, or it is refused.
pub(crate) async fn pause(args: &PauseArgs) -> Result<ExitCode, StartError> {
    switch(&args.client, &args.channel, "pause").await?;
    if !args.client.json {
        let channel = &args.channel;
        say!("{channel} is paused: its deliveries wait. Let it go on: tidings resume {channel}");
    }
    Ok(ExitCode::SUCCESS)
}

/// Resumes a channel.
///
/// # Errors
/// That nobody answers, or it is refused.
pub(crate) async fn resume(args: &ResumeArgs) -> Result<ExitCode, StartError> {
    switch(&args.client, &args.channel, "resume").await?;
    if !args.client.json {
        say!("{} goes on.", args.channel);
    }
    Ok(ExitCode::SUCCESS)
}

async fn switch(client: &ClientArgs, channel: &str, verb: &str) -> Result<(), StartError> {
    let path = ["channels", channel, verb];
    let told = client.connect()?.post(&path, &json!({})).await?;
    if client.json {
        say!("{told}");
    }
    Ok(())
}

fn table(all: &[Value]) -> Table {
    let head = [
        "PROCESSOR",
        "KIND",
        "WHERE",
        "CHANNEL",
        "STATE",
        "WAIT",
        "HOW",
    ];
    let mut table = Table::new(&head, &[5]);
    for one in all {
        let text = |name: &str| one[name].as_str().unwrap_or(NONE).to_owned();
        let wait = one["pending"].as_u64().or_else(|| one["ready"].as_u64());
        table.row([
            text("name"),
            text("kind"),
            text("place"),
            text("channel"),
            text("state"),
            wait.map_or_else(|| NONE.to_owned(), |wait| wait.to_string()),
            text("detail"),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_processor_is_a_line() {
        let all = [
            json!({"name": "rules", "kind": "decorator", "place": "here", "detail": "once"}),
            json!({"name": "email", "kind": "sender", "place": "here", "detail": "to each person",
                "channel": "Email", "state": "paused", "pending": 7, "ready": 1}),
        ];
        let text = table(&all).render(Paint::stdout());
        let lines: Vec<&str> = text.lines().collect();
        assert!(
            lines[1].starts_with("rules") && lines[1].contains(NONE),
            "{text}"
        );
        for word in ["email", "Email", "paused", "7"] {
            assert!(lines[2].contains(word), "{word} in {text}");
        }
    }
}
