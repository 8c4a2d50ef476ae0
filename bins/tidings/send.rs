//! `tidings send`: one notification, from flags or JSON on stdin.

use std::io::IsTerminal as _;
use std::io::Read as _;
use std::process::ExitCode;
use std::time::Duration;
use std::time::Instant;

use reqwest::Method;
use serde_json::Map;
use serde_json::Value;
use serde_json::json;
use tidings::notification::Severity;
use tidings::runner::StartError;
use tidings::store::Timeline;

use crate::client::Client;
use crate::client::ClientArgs;
use crate::client::IN_PART;
use crate::client::NO_ANSWER;
use crate::client::USAGE;
use crate::client::encoded;
use crate::client::error_at;
use crate::render;

/// Send a notification.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  tidings send --to user:default/ann --title Hello --wait
  tidings send --to group:default/payments --exclude user:default/bo --title 'Payments is down' \\
      --severity critical --topic incident --link https://status.example.com/42 --key incident-42
  tidings send --broadcast --title 'Maintenance on Sunday'
  echo '{\"recipients\":{\"type\":\"broadcast\"},\"payload\":{\"title\":\"Hi\"}}' | tidings send --json")]
pub(crate) struct SendArgs {
    /// A person, a group or anything that has an owner; may be repeated
    #[arg(long, value_name = "REF", conflicts_with = "broadcast")]
    to: Vec<String>,
    /// Who does not get it; may be repeated
    #[arg(long, value_name = "REF")]
    exclude: Vec<String>,
    /// Send to everybody
    #[arg(long)]
    broadcast: bool,
    /// One line
    #[arg(long)]
    title: Option<String>,
    /// More text
    #[arg(long)]
    description: Option<String>,
    /// Where it leads: http(s), or a path of the app
    #[arg(long)]
    link: Option<String>,
    /// critical, high, normal or low
    #[arg(long)]
    severity: Option<Severity>,
    /// What people filter and mute by
    #[arg(long)]
    topic: Option<String>,
    /// Later sends with the same scope update this one
    #[arg(long)]
    scope: Option<String>,
    /// Name of an icon
    #[arg(long)]
    icon: Option<String>,
    /// A JSON object to keep beside it
    #[arg(long, value_name = "JSON")]
    metadata: Option<String>,
    /// Idempotency key: the same key again is the same submission
    #[arg(long)]
    key: Option<String>,
    /// Wait until it is stored and every delivery was tried once; seconds, 30 if none are given
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "30")]
    wait: Option<u64>,
    #[command(flatten)]
    client: ClientArgs,
}

/// Sends it.
///
/// # Errors
/// What was wrong with it, or that it was refused.
pub(crate) async fn run(args: &SendArgs) -> Result<ExitCode, StartError> {
    let body = args.body()?;
    let client = args.client.connect()?;
    let begun = Instant::now();
    // The answer to a send is its id; what became of it is asked for afterwards.
    let mut headers = vec![("prefer", "respond-async")];
    if let Some(key) = &args.key {
        headers.push(("idempotency-key", key));
    }
    let path = "/api/notifications";
    let (_, accepted) = client
        .ask(Method::POST, path, Some(&body), &headers, Duration::ZERO)
        .await?;
    let id = accepted["submission"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    let Some(seconds) = args.wait else {
        println!(
            "{}",
            if args.client.json {
                accepted.to_string()
            } else {
                id
            }
        );
        return Ok(ExitCode::SUCCESS);
    };
    if !args.client.json {
        // The id is the result; what follows is talk, so that `ID=$(tidings send …)` works.
        println!(
            "{}",
            if std::io::stdout().is_terminal() {
                format!("accepted  {id}")
            } else {
                id.clone()
            }
        );
    }
    follow(&client, &id, seconds, begun, args.client.json).await
}

impl SendArgs {
    /// The submission: from the flags, or from stdin where no flag says what to send.
    fn body(&self) -> Result<Value, StartError> {
        let usage = |message: &str, place: &str, help: &str| error_at(USAGE, message, place, help);
        let nothing = self.to.is_empty() && !self.broadcast && self.title.is_none();
        if nothing && !std::io::stdin().is_terminal() {
            let mut text = String::new();
            let read = std::io::stdin().read_to_string(&mut text);
            read.map_err(|error| usage(&error.to_string(), "stdin", "pipe one JSON object in"))?;
            return serde_json::from_str(&text).map_err(|error| {
                usage(
                    &format!("not JSON: {error}"),
                    "stdin",
                    "pipe one JSON object in: {\"recipients\":…,\"payload\":{\"title\":…}}",
                )
            });
        }
        let recipients = match (self.broadcast, self.to.is_empty()) {
            (true, _) => json!({"type": "broadcast"}),
            (false, false) if self.exclude.is_empty() => {
                json!({"type": "entity", "entityRef": self.to})
            }
            (false, false) => {
                json!({"type": "entity", "entityRef": self.to, "excludeEntityRef": self.exclude})
            }
            (false, true) => {
                return Err(usage(
                    "nobody to send to",
                    "--to",
                    "name somebody: --to user:default/ann, or --broadcast",
                ));
            }
        };
        let mut payload = Map::new();
        let severity = self.severity.map(|severity| severity.to_string());
        for (name, value) in [
            ("title", &self.title),
            ("description", &self.description),
            ("link", &self.link),
            ("severity", &severity),
            ("topic", &self.topic),
            ("scope", &self.scope),
            ("icon", &self.icon),
        ] {
            if let Some(value) = value {
                payload.insert(name.to_owned(), json!(value));
            }
        }
        if let Some(metadata) = &self.metadata {
            let metadata = serde_json::from_str(metadata).map_err(|error| {
                usage(
                    &format!("not a JSON object: {error}"),
                    "--metadata",
                    "as in '{\"build\": 42}'",
                )
            })?;
            payload.insert("metadata".to_owned(), metadata);
        }
        Ok(json!({"recipients": recipients, "payload": payload}))
    }
}

/// Waits for what becomes of it, and says so.
async fn follow(
    client: &Client,
    id: &str,
    seconds: u64,
    begun: Instant,
    as_json: bool,
) -> Result<ExitCode, StartError> {
    let wait = Duration::from_secs(seconds);
    let mut told = Value::Null;
    while told.is_null() {
        let left = wait.saturating_sub(begun.elapsed());
        let path = format!(
            "/api/tidings/v1/submissions/{}?wait={}",
            encoded(id),
            left.as_secs().min(60)
        );
        match client.ask(Method::GET, &path, None, &[], left).await {
            Ok((_, body)) => told = body,
            Err(error) if left.is_zero() => {
                return Err(error_at(
                    NO_ANSWER,
                    format!("accepted, but not stored within {seconds} s"),
                    id,
                    &format!(
                        "nothing is lost; look later: tidings trace {}",
                        render::short(id)
                    ),
                ))
                .inspect_err(|_| drop(error));
            }
            Err(error) if error.code != crate::client::REFUSED => return Err(error),
            Err(_) => {}
        }
    }
    if as_json {
        println!("{told}");
    }
    if told["status"] == "dead" {
        return Err(error_at(
            crate::client::FAILED,
            format!(
                "refused after it was accepted: {}",
                told["detail"].as_str().unwrap_or_default()
            ),
            &format!("dead letter {}", told["dead"][0]),
            &format!("tidings dead show {}", told["dead"][0]),
        ));
    }
    let timeline: Timeline = serde_json::from_value(told.clone()).map_err(|error| {
        error_at(
            crate::client::FAILED,
            error.to_string(),
            client.base(),
            "is it of another version?",
        )
    })?;
    if told["status"] == "no_recipients" {
        return Err(nobody(&timeline, &told["suggestions"]));
    }
    if !as_json {
        eprint!("{}", render::outcome(&timeline));
        eprintln!("\ntidings trace {}", render::short(id));
    }
    let in_part = told["status"] == "partial" || timeline.tally.iter().any(render::is_failed);
    Ok(if in_part {
        ExitCode::from(IN_PART)
    } else {
        ExitCode::SUCCESS
    })
}

/// Success that reached nobody is none.
fn nobody(timeline: &Timeline, suggestions: &Value) -> StartError {
    let whom: Vec<String> = timeline.refs.iter().map(render::fate).collect();
    let meant = timeline
        .refs
        .iter()
        .find_map(|one| suggestions[&one.entity].as_str());
    let help = match meant {
        Some(meant) => format!("did you mean {meant}?"),
        None => "name somebody whom the catalog knows".to_owned(),
    };
    let whom = if whom.is_empty() {
        "no recipients were named".to_owned()
    } else {
        whom.join("; ")
    };
    error_at(
        IN_PART,
        format!("nobody received it: {whom}"),
        "--to",
        &help,
    )
}
