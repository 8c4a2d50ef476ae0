//! `tidings send`: one notification, from flags or JSON on stdin.

use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::time::Duration;
use std::time::Instant;

use indicatif::ProgressBar;
use serde_json::Map;
use serde_json::Value;
use serde_json::json;
use tidings::notification::Severity;
use tidings::runner::StartError;
use tidings::store::Timeline;

use crate::client::Client;
use crate::client::ClientArgs;
use crate::client::FAILED;
use crate::client::IN_PART;
use crate::client::NO_ANSWER;
use crate::client::USAGE;
use crate::client::error_at;
use crate::client::strange;
use crate::out::say;
use crate::render;
use crate::words;

/// Longest wait that the server grants in one request, in seconds.
const ASK_MAX: u128 = 60;

/// Between two such requests, should the server not wait at all.
const PAUSE: Duration = Duration::from_millis(50);

/// Send a notification.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  tidings send --to user:default/ann --title Hello --wait
  tidings send --to group:default/payments --exclude user:default/bo --title 'Payments is down' \\
      --severity critical --topic incident --link https://status.example.com/42 --key incident-42
  tidings send --broadcast --title 'Maintenance on Sunday'
  echo '{\"recipients\":{\"type\":\"broadcast\"},\"payload\":{\"title\":\"Hi\"}}' | tidings send
  tidings send --severity high < notification.json     flags go before what is in it")]
pub(crate) struct SendArgs {
    /// A person, a group or anything that has an owner; may be repeated
    #[arg(long, value_name = "REF", conflicts_with = "broadcast")]
    to: Vec<String>,
    /// Who does not get it; may be repeated
    #[arg(long, value_name = "REF", requires = "to")]
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
    let body = args.body(args.piped().await?.as_deref())?;
    let client = args.client.connect()?;
    // The answer to a send is its id; what became of it is asked for afterwards.
    let mut headers = vec![("prefer", "respond-async")];
    if let Some(key) = &args.key {
        headers.push(("idempotency-key", key));
    }
    let accepted = client
        .submit(&body, &headers)
        .await
        .map_err(|error| args.in_flags(error))?;
    let id = accepted["submission"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    let Some(seconds) = args.wait else {
        say!(
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
        say!(
            "{}",
            if std::io::stdout().is_terminal() {
                format!("accepted  {id}")
            } else {
                id.clone()
            }
        );
    }
    follow(&client, &id, seconds, args.client.json).await
}

impl SendArgs {
    /// Whether nothing on the command line says what to send: stdin does.
    fn is_piped(&self) -> bool {
        let silent = self.to.is_empty() && !self.broadcast && self.title.is_none();
        silent && !std::io::stdin().is_terminal()
    }

    /// A refusal, with the flag in place of the field that it is about.
    fn in_flags(&self, mut error: StartError) -> StartError {
        let Some(pointer) = error.place.clone().filter(|_| !self.is_piped()) else {
            return error;
        };
        let mut parts = pointer.split('/');
        let flag = match (parts.next(), parts.next(), parts.next()) {
            (Some("#"), Some("payload"), Some(field)) => format!("--{field}"),
            (Some("#"), Some("recipients"), Some("excludeEntityRef")) => "--exclude".to_owned(),
            (Some("#"), Some("recipients"), _) => "--to".to_owned(),
            _ => return error,
        };
        error.message = error.message.replace(&pointer, &flag);
        error.place = Some(flag);
        error
    }

    /// What stdin holds, where it is what is to be sent.
    async fn piped(&self) -> Result<Option<String>, StartError> {
        if !self.is_piped() {
            return Ok(None);
        }
        // In a thread of its own, so that Ctrl-C is heard while nothing comes.
        let read = tokio::task::spawn_blocking(|| std::io::read_to_string(std::io::stdin())).await;
        let text = match read {
            Ok(Ok(text)) => text,
            Ok(Err(error)) => return Err(not_piped(&error.to_string())),
            Err(error) => return Err(not_piped(&error.to_string())),
        };
        Ok(Some(text).filter(|text| !text.trim().is_empty()))
    }

    /// The submission: from the flags alone, or what was piped in with the flags laid over it.
    fn body(&self, piped: Option<&str>) -> Result<Value, StartError> {
        let mut body = match piped {
            Some(text) => serde_json::from_str(text)
                .map_err(|error| not_piped(&format!("not JSON: {error}")))?,
            None => json!({"recipients": self.recipients()?, "payload": {}}),
        };
        let payload = self.payload()?;
        if let Some(fields) = body.as_object_mut().filter(|_| !payload.is_empty()) {
            let under = fields.entry("payload").or_insert_with(|| json!({}));
            if let Some(under) = under.as_object_mut() {
                under.extend(payload);
            }
        }
        Ok(body)
    }

    fn recipients(&self) -> Result<Value, StartError> {
        if self.broadcast {
            return Ok(json!({"type": "broadcast"}));
        }
        if self.to.is_empty() {
            return Err(error_at(
                USAGE,
                "nobody to send to",
                "--to",
                "name somebody: --to user:default/ann, or --broadcast; or pipe the JSON in",
            ));
        }
        let mut recipients = json!({"type": "entity", "entityRef": self.to});
        if !self.exclude.is_empty() {
            recipients["excludeEntityRef"] = json!(self.exclude);
        }
        Ok(recipients)
    }

    /// What the flags say of the payload.
    fn payload(&self) -> Result<Map<String, Value>, StartError> {
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
            let metadata: Map<String, Value> = serde_json::from_str(metadata).map_err(|error| {
                let message = format!("not a JSON object: {error}");
                error_at(USAGE, message, "--metadata", "as in '{\"build\": 42}'")
            })?;
            payload.insert("metadata".to_owned(), json!(metadata));
        }
        Ok(payload)
    }
}

fn not_piped(message: &str) -> StartError {
    error_at(
        USAGE,
        message,
        "stdin",
        "pipe one JSON object in: {\"recipients\":…,\"payload\":{\"title\":…}}",
    )
}

/// Waits for what becomes of it, and says so.
async fn follow(
    client: &Client,
    id: &str,
    seconds: u64,
    as_json: bool,
) -> Result<ExitCode, StartError> {
    let told = wait(client, id, Duration::from_secs(seconds)).await?;
    if as_json && let Some(told) = &told {
        say!("{told}");
    }
    let short = words::short(id);
    let late = |what: &str| {
        let help = format!("nothing is lost; look later: tidings trace {short}");
        error_at(
            NO_ANSWER,
            format!("accepted, but {what} within {seconds} s"),
            id,
            &help,
        )
    };
    let Some(told) = told else {
        return Err(late("not stored"));
    };
    if told["status"] == "dead" {
        let (letter, why) = (
            &told["dead"][0],
            told["detail"].as_str().unwrap_or_default(),
        );
        return Err(error_at(
            FAILED,
            format!("refused after it was accepted: {why}"),
            &format!("dead letter {letter}"),
            &format!("tidings dead show {letter}"),
        ));
    }
    let timeline: Timeline =
        serde_json::from_value(told.clone()).map_err(|error| strange(client, &error))?;
    if told["status"] == "no_recipients" {
        return Err(nobody(&timeline, &told["suggestions"]));
    }
    if !as_json {
        eprint!("{}", render::outcome(&timeline));
        eprintln!("\ntidings trace {short}");
    }
    if !render::is_tried(&timeline) {
        return Err(late("not all of it was tried"));
    }
    let in_part = told["status"] == "partial" || timeline.tally.iter().any(render::is_failed);
    Ok(if in_part {
        ExitCode::from(IN_PART)
    } else {
        ExitCode::SUCCESS
    })
}

/// What became of it, as soon as it is complete or as it stands when the time is over; `None` if
/// nothing of it is stored by then.
async fn wait(client: &Client, id: &str, limit: Duration) -> Result<Option<Value>, StartError> {
    let _spinner = Spinner::start("waiting for what becomes of it");
    let begun = Instant::now();
    loop {
        let left = limit.saturating_sub(begun.elapsed());
        // Rounded up, or the last second would be asked for again and again.
        let seconds = left.as_millis().div_ceil(1000).min(ASK_MAX);
        let query = [("wait", seconds.to_string())];
        let told = client.find(&["submissions", id], &query, left).await?;
        let open = told.as_ref().is_none_or(is_open);
        if !open || left.is_zero() {
            return Ok(told);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Whether more will become of it soon.
fn is_open(told: &Value) -> bool {
    let timeline = serde_json::from_value::<Timeline>(told.clone());
    timeline.is_ok_and(|timeline| !render::is_tried(&timeline))
}

/// Shows on a terminal that something is under way.
struct Spinner(Option<ProgressBar>);

impl Spinner {
    fn start(what: &'static str) -> Self {
        Self(std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new_spinner().with_message(what);
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        }))
    }
}

impl Drop for Spinner {
    fn drop(&mut self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}

/// Success that reached nobody is none.
fn nobody(timeline: &Timeline, suggestions: &Value) -> StartError {
    let whom: Vec<String> = timeline.refs.iter().map(render::fate).collect();
    let help = match render::meant(timeline, suggestions) {
        Some(meant) => format!("did you mean {meant}?"),
        None => "name somebody whom the catalog knows".to_owned(),
    };
    let whom = if whom.is_empty() {
        "no recipients were named".to_owned()
    } else {
        whom.join("; ")
    };
    let message = format!("nobody received it: {whom}");
    error_at(IN_PART, message, "--to", &help)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        send: SendArgs,
    }

    fn args(line: &[&str]) -> SendArgs {
        Line::parse_from([&["send"], line].concat()).send
    }

    #[test]
    fn every_field_of_a_notification_has_its_flag() {
        let line = "--to a --to b --exclude c --title t --description d --link /l --severity high \
            --topic o --scope s --icon i --metadata {\"a\":1}";
        let line: Vec<&str> = line
            .split_whitespace()
            .filter(|word| *word != "\\")
            .collect();
        let expected = json!({
            "recipients": {"type": "entity", "entityRef": ["a", "b"], "excludeEntityRef": ["c"]},
            "payload": {"title": "t", "description": "d", "link": "/l", "severity": "high",
                "topic": "o", "scope": "s", "icon": "i", "metadata": {"a": 1}},
        });
        assert_eq!(args(&line).body(None).unwrap(), expected);
        let everybody = args(&["--broadcast", "--title", "t"]).body(None).unwrap();
        assert_eq!(everybody["recipients"], json!({"type": "broadcast"}));
    }

    #[test]
    fn flags_go_before_what_is_piped_in() {
        let piped =
            json!({"recipients": {"type": "broadcast"}, "payload": {"title": "t", "topic": "o"}});
        let body = |line: &[&str]| args(line).body(Some(&piped.to_string())).unwrap();
        assert_eq!(body(&[]), piped);
        let over = body(&["--severity", "high", "--topic", "other"]);
        let expected = json!({"title": "t", "topic": "other", "severity": "high"});
        assert_eq!(over["payload"], expected);
        assert_eq!(over["recipients"], piped["recipients"]);
        let error = args(&["--title", "t"]).body(None).unwrap_err();
        assert_eq!((error.code, error.place.as_deref()), (USAGE, Some("--to")));
    }

    #[test]
    fn what_the_server_refuses_is_said_of_the_flag() {
        let place = |pointer: &str| {
            let error = error_at(5, "no", pointer, "mend");
            args(&["--to", "a"]).in_flags(error).place.unwrap()
        };
        assert_eq!(place("#/payload/link"), "--link");
        assert_eq!(place("#/recipients/entityRef/0"), "--to");
        assert_eq!(place("#/recipients/excludeEntityRef"), "--exclude");
        assert_eq!(place("http://h/x"), "http://h/x");
    }
}
