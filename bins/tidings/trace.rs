//! `tidings trace`: the story of one submission.

use std::process::ExitCode;

use tidings::runner::StartError;
use tidings::store::Timeline;

use crate::client::ClientArgs;
use crate::client::FAILED;
use crate::client::USAGE;
use crate::client::error_at;
use crate::client::strange;
use crate::out;
use crate::out::say;
use crate::render;

/// Most deliveries that are listed.
const ALL: u32 = 10_000;

/// Show what became of a submission.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  tidings trace 6f3f2d10                                the last 8 digits are enough
  tidings trace 01a20edd-cab8-7c52-9a41-0a8f6f3f2d10 --all
  tidings trace --key incident-42 --origin external:ci
  tidings trace 6f3f2d10 --user user:default/ann --json")]
pub(crate) struct TraceArgs {
    /// Its id, or the last 8 digits of it
    #[arg(required_unless_present = "key")]
    id: Option<String>,
    /// Find it by the producer's idempotency key
    #[arg(long, conflicts_with = "id")]
    key: Option<String>,
    /// Whose key it is [default: the token's own]
    #[arg(long, requires = "key")]
    origin: Option<String>,
    /// List every delivery
    #[arg(long)]
    all: bool,
    /// One person's deliveries
    #[arg(long, value_name = "REF")]
    user: Option<String>,
    #[command(flatten)]
    client: ClientArgs,
}

/// Shows it.
///
/// # Errors
/// That it is not known, or nobody answers.
pub(crate) async fn run(args: &TraceArgs) -> Result<ExitCode, StartError> {
    let mut path = vec!["submissions"];
    let mut query = Vec::new();
    match (&args.id, &args.key) {
        (Some(id), _) => path.push(id),
        (None, Some(key)) => query.push(("key", key.clone())),
        (None, None) => {
            return Err(error_at(
                USAGE,
                "which submission?",
                "ID",
                "give its id, or --key",
            ));
        }
    }
    query.extend(args.origin.iter().map(|origin| ("origin", origin.clone())));
    query.extend(args.user.iter().map(|user| ("user", user.clone())));
    let all = args.all || args.user.is_some();
    if all {
        query.push(("deliveries", ALL.to_string()));
    }
    let client = args.client.connect()?;
    let told = client.get(&path, &query).await?;
    if args.client.json {
        say!("{told}");
        return Ok(ExitCode::SUCCESS);
    }
    if told["status"] == "dead" {
        let id = &told["dead"][0];
        say!(
            "Submission  {}",
            told["submission"].as_str().unwrap_or_default()
        );
        say!(
            "Dead        {}: {}",
            told["reason"].as_str().unwrap_or_default(),
            told["detail"].as_str().unwrap_or_default()
        );
        say!("\n  look    tidings dead show {id}\n  replay  tidings dead replay {id}");
        return Ok(ExitCode::from(FAILED));
    }
    let suggestions = told["suggestions"].clone();
    let timeline: Timeline =
        serde_json::from_value(told).map_err(|error| strange(&client, &error))?;
    out::put(render::timeline(&timeline, all));
    if let Some(meant) = render::meant(&timeline, &suggestions) {
        say!("Did you mean {meant}?");
    }
    Ok(ExitCode::SUCCESS)
}
