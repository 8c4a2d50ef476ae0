//! `tidings list`: somebody's inbox, as an operator sees it.

use std::process::ExitCode;

use tidings::notification::EntityRef;
use tidings::runner::StartError;
use tidings::time::Timestamp;

use crate::client::ClientArgs;
use crate::out::say;
use crate::paint::Paint;
use crate::words;

/// List a person's inbox.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  tidings list --user user:default/ann
  tidings list --user user:default/ann --unread --limit 5 --json")]
pub(crate) struct ListArgs {
    /// Whose inbox
    #[arg(long, value_name = "REF", value_parser = reference)]
    user: String,
    /// Unread alone
    #[arg(long)]
    unread: bool,
    /// At most so many
    #[arg(long, default_value_t = 20)]
    limit: u32,
    #[command(flatten)]
    client: ClientArgs,
}

/// A ref as it was typed: the server knows the spelling.
fn reference(text: &str) -> Result<String, String> {
    text.parse::<EntityRef>().map(|_| text.to_owned())
}

/// Lists it.
///
/// # Errors
/// That nobody answers, or the token may not operate.
pub(crate) async fn run(args: &ListArgs) -> Result<ExitCode, StartError> {
    let mut query = vec![
        ("user", args.user.clone()),
        ("limit", args.limit.to_string()),
    ];
    if args.unread {
        query.push(("read", "false".to_owned()));
    }
    let told = args.client.connect()?.get(&["inbox"], &query).await?;
    let rows = told["notifications"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    if args.client.json {
        rows.iter().for_each(|row| say!("{row}"));
        return Ok(ExitCode::SUCCESS);
    }
    let paint = Paint::stdout();
    let now = Timestamp::now();
    for row in &rows {
        let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        let payload = &row["payload"];
        let when = Timestamp::parse(&text(&row["created"])).unwrap_or(now);
        let title = text(&payload["title"]);
        let title = if row["read"].is_null() {
            paint.bold(&title)
        } else {
            title
        };
        let severity = text(&payload["severity"]);
        let mark = if row["read"].is_null() { "•" } else { " " };
        say!(
            "{mark} {:>8}  {severity:<8}  {:<24}  {title}",
            words::ago(when, now),
            text(&row["origin"])
        );
    }
    let total = told["totalCount"].as_u64().unwrap_or(0);
    eprintln!(
        "{} of {}",
        words::grouped(rows.len() as u64),
        words::count(total, "notification", "notifications")
    );
    Ok(ExitCode::SUCCESS)
}
