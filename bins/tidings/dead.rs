//! `tidings dead`: look at what was given up, put it back, or drop it.

use std::collections::BTreeMap;
use std::process::ExitCode;

use clap::Subcommand;
use serde_json::Value;
use serde_json::json;
use tidings::failure::Reason;
use tidings::runner::StartError;
use tidings::store::DeadLetter;
use tidings::time::Timestamp;

use crate::client::Client;
use crate::client::ClientArgs;
use crate::client::IN_PART;
use crate::client::REFUSED;
use crate::client::USAGE;
use crate::client::error_at;
use crate::client::strange;
use crate::out;
use crate::out::plain_lines;
use crate::out::say;
use crate::paint::Paint;
use crate::table::Table;
use crate::words;

/// Look at dead letters, put them back on their queue, or drop them.
#[derive(clap::Args, Debug)]
pub(crate) struct DeadArgs {
    #[command(subcommand)]
    command: Dead,
}

#[derive(Subcommand, Debug)]
enum Dead {
    /// List them, newest first
    List {
        #[command(flatten)]
        which: Which,
        /// Also those that were put back
        #[arg(long)]
        replayed: bool,
        /// At most so many
        #[arg(long, default_value_t = 50)]
        limit: u32,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Show one with its headers; its content is masked unless --payload is given
    Show {
        /// Its number
        id: i64,
        /// Show the content too
        #[arg(long)]
        payload: bool,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Put them back on the queue where they died
    Replay {
        #[command(flatten)]
        settle: Settle,
    },
    /// Drop them for good
    Discard {
        #[command(flatten)]
        settle: Settle,
    },
}

/// Which dead letters.
#[derive(clap::Args, Debug, Default)]
struct Which {
    /// Of this reason: server, rejected, invalid, …
    #[arg(long)]
    reason: Option<Reason>,
    /// That died at this stage: submit, chunks, deliver.email, …
    #[arg(long)]
    stage: Option<String>,
    /// That died before this moment (RFC 3339)
    #[arg(long, value_parser = moment)]
    before: Option<Timestamp>,
    /// That died at or after this moment (RFC 3339)
    #[arg(long, value_parser = moment)]
    after: Option<Timestamp>,
}

#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  tidings dead replay 480 481
  tidings dead replay --reason server --dry-run
  tidings dead discard --stage submit --all")]
struct Settle {
    /// Their numbers
    ids: Vec<i64>,
    #[command(flatten)]
    which: Which,
    /// Really all of them
    #[arg(long)]
    all: bool,
    /// Only say how many it would be
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    client: ClientArgs,
}

fn moment(text: &str) -> Result<Timestamp, String> {
    Timestamp::parse(text).ok_or_else(|| "not a moment as in 2026-11-24T19:42:00Z".to_owned())
}

/// Does it.
///
/// # Errors
/// That nobody answers, or it is refused.
pub(crate) async fn run(args: &DeadArgs) -> Result<ExitCode, StartError> {
    match &args.command {
        Dead::List {
            which,
            replayed,
            limit,
            client,
        } => {
            let connected = client.connect()?;
            list(&connected, which, *replayed, *limit, client.json).await
        }
        Dead::Show {
            id,
            payload,
            client,
        } => show(&client.connect()?, *id, *payload, client.json).await,
        Dead::Replay { settle } => settle.run("replay").await,
        Dead::Discard { settle } => settle.run("discard").await,
    }
}

async fn list(
    client: &Client,
    which: &Which,
    replayed: bool,
    limit: u32,
    as_json: bool,
) -> Result<ExitCode, StartError> {
    let mut query = vec![
        ("limit", limit.to_string()),
        ("replayed", replayed.to_string()),
    ];
    let filters = which.filters().into_iter();
    query
        .extend(filters.map(|(name, value)| (name, value.as_str().unwrap_or_default().to_owned())));
    let told = client.get(&["dead-letters"], &query).await?;
    let letters = told["deadLetters"].as_array().cloned().unwrap_or_default();
    if as_json {
        letters.iter().for_each(|letter| say!("{letter}"));
    } else {
        out::put(overview(&letters, Timestamp::now(), Paint::stdout()));
    }
    Ok(ExitCode::SUCCESS)
}

/// The table, the sum, and what to type next.
fn overview(letters: &[Value], now: Timestamp, paint: Paint) -> String {
    let Some(newest) = letters.first() else {
        return "No dead letters.\n".to_owned();
    };
    let head = [
        "ID",
        "STAGE",
        "REASON",
        "TRIES",
        "DIED",
        "SUBMISSION",
        "WHAT",
    ];
    let mut table = Table::new(&head, &[3]);
    let mut reasons: BTreeMap<&str, u64> = BTreeMap::new();
    let mut oldest = now;
    for letter in letters {
        let text = |name: &str| letter[name].as_str().unwrap_or_default();
        let died = Timestamp::parse(text("died_at")).unwrap_or(now);
        oldest = oldest.min(died);
        table.row([
            letter["id"].to_string(),
            text("stage").to_owned(),
            text("reason").to_owned(),
            letter["tries"].to_string(),
            format!("{}  {} ago", words::clock(died), words::ago(died, now)),
            letter["submission"]
                .as_str()
                .map_or("–", words::short)
                .to_owned(),
            text("detail").to_owned(),
        ]);
        *reasons
            .entry(letter["reason"].as_str().unwrap_or_default())
            .or_default() += 1;
    }
    let mut most: Vec<(&str, u64)> = reasons.into_iter().collect();
    most.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let words: Vec<String> = most
        .iter()
        .map(|(reason, count)| format!("{count} {reason}"))
        .collect();
    let total = words::count(letters.len() as u64, "dead letter", "dead letters");
    format!(
        "{}\n{total}: {}. Oldest {}.\n  look    tidings dead show {}\n  replay  tidings dead replay --reason {} --dry-run\n",
        table.render(paint),
        words.join(", "),
        words::ago(oldest, now),
        newest["id"],
        most.first().map_or("server", |(reason, _)| reason),
    )
}

async fn show(
    client: &Client,
    id: i64,
    payload: bool,
    as_json: bool,
) -> Result<ExitCode, StartError> {
    let told = client.get(&["dead-letters", &id.to_string()], &[]).await?;
    let mut letter: DeadLetter =
        serde_json::from_value(told).map_err(|error| strange(client, &error))?;
    if !payload {
        letter.body = mask(&letter.body);
    }
    if as_json {
        say!("{}", json!(letter));
        return Ok(ExitCode::SUCCESS);
    }
    say!("Dead letter {}\n", letter.id);
    say!("Stage       {}", letter.stage);
    say!("Reason      {}: {}", letter.reason, letter.detail);
    say!("Tries       {}", letter.tries);
    say!("Died        {}", words::moment(letter.died_at));
    if let Some(submission) = letter.submission {
        say!("Submission  {submission}");
    }
    if let Some(origin) = &letter.origin {
        say!("Origin      {origin}");
    }
    if let Some(at) = letter.replayed_at {
        say!("Put back    {}", words::moment(at));
    }
    for (name, value) in &letter.headers {
        say!("Header      {name}: {}", value);
    }
    let body = serde_json::from_slice::<Value>(&letter.body)
        .and_then(|body| serde_json::to_string_pretty(&words::cleaned(body)))
        .unwrap_or_else(|_| String::from_utf8_lossy(&letter.body).into_owned());
    say!("\n{}", plain_lines(&body));
    if !payload {
        say!("\nThe content is masked; --payload shows it.");
    }
    Ok(ExitCode::SUCCESS)
}

/// The body with the texts of its payloads covered, since they may be private.
fn mask(body: &[u8]) -> Vec<u8> {
    fn cover(value: &mut Value, inside: bool) {
        match value {
            Value::Object(fields) => {
                for (name, value) in fields {
                    cover(
                        value,
                        inside || matches!(name.as_str(), "payload" | "patch"),
                    );
                }
            }
            Value::Array(items) => items.iter_mut().for_each(|item| cover(item, inside)),
            Value::String(text) if inside => *text = "•••".to_owned(),
            _ => {}
        }
    }
    match serde_json::from_slice::<Value>(body) {
        Ok(mut value) => {
            cover(&mut value, false);
            value.to_string().into_bytes()
        }
        Err(_) => format!("{} bytes that are not JSON", body.len()).into_bytes(),
    }
}

impl Which {
    /// What is given, under the names of the API.
    fn filters(&self) -> Vec<(&'static str, Value)> {
        let filters = [
            ("reason", self.reason.map(|reason| json!(reason))),
            ("stage", self.stage.as_ref().map(|stage| json!(stage))),
            ("before", self.before.map(|at| json!(at))),
            ("after", self.after.map(|at| json!(at))),
        ];
        let given = filters.into_iter();
        given
            .filter_map(|(name, value)| Some((name, value?)))
            .collect()
    }
}

impl Settle {
    async fn run(&self, what: &str) -> Result<ExitCode, StartError> {
        let filters = self.which.filters();
        if self.ids.is_empty() && filters.is_empty() && !self.all {
            return Err(error_at(
                USAGE,
                "which dead letters?",
                &format!("tidings dead {what}"),
                "give their numbers, a filter (--reason, --stage, --before, --after), or --all",
            ));
        }
        let mut body = json!({"ids": self.ids, "all": self.all, "dryRun": self.dry_run});
        for (name, value) in filters {
            body[name] = value;
        }
        let client = self.client.connect()?;
        let told = client.post(&["dead-letters", what], &body).await?;
        let count = told["count"].as_u64().unwrap_or(0);
        let missing = missing(&self.ids, &told["ids"]);
        if self.client.json {
            say!("{told}");
        } else if count > 0 || missing.is_empty() {
            let letters = words::count(count, "dead letter", "dead letters");
            let done = match (what, self.dry_run) {
                ("replay", true) => "would be put back",
                ("replay", false) => "put back",
                (_, true) => "would be dropped",
                (_, false) => "dropped",
            };
            say!("{letters} {done}.");
        }
        if missing.is_empty() {
            return Ok(ExitCode::SUCCESS);
        }
        Err(error_at(
            if count > 0 { IN_PART } else { REFUSED },
            format!("there is no dead letter {}", missing.join(", ")),
            &format!("tidings dead {what}"),
            "`tidings dead list` shows them; one that was put back is not put back again",
        ))
    }
}

/// Those that were asked for by number and are not among what was settled.
fn missing(asked: &[i64], settled: &Value) -> Vec<String> {
    let settled = settled.as_array().map(Vec::as_slice).unwrap_or_default();
    asked
        .iter()
        .filter(|id| !settled.contains(&json!(id)))
        .map(i64::to_string)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_were_not_there_are_named_once_each_that_was_is_not() {
        assert_eq!(missing(&[1, 2, 2, 9], &json!([2, 1])), ["9"]);
        assert_eq!(missing(&[], &json!([2, 1])), [""; 0]);
    }

    #[test]
    fn content_is_covered_and_identity_is_not() {
        let body = br#"{"id":"x","origin":"ci","payload":{"title":"secret","metadata":{"a":["b"]}},"items":[{"user":"user:a","patch":{"title":"own"}}]}"#;
        let text = String::from_utf8(mask(body)).unwrap();
        assert!(text.contains("user:a") && text.contains("ci"), "{text}");
        for word in ["secret", "own", "\"b\""] {
            assert!(!text.contains(word), "{text}");
        }
        assert_eq!(mask(b"\xff\xff"), b"2 bytes that are not JSON");
    }
}
