//! `tidings test`: one real message through a channel, and what the service answered.
//!
//! It sends by itself, with the configuration that is given: no Tidings needs to run, and nothing
//! is kept.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use serde_json::json;
use tidings::catalog::CatalogUser;
use tidings::config::Config;
use tidings::config::Environment;
use tidings::notification::EntityRef;
use tidings::notification::Payload;
use tidings::processor::Outcome;
use tidings::processor::Outgoing;
use tidings::processor::Sender;
use tidings::runner::Roles;
use tidings::runner::Services;
use tidings::runner::StartError;
use tidings::sender::absolute_link;
use tidings::time::Timestamp;
use uuid::Uuid;

use crate::client::FAILED;
use crate::client::REFUSED;
use crate::client::USAGE;
use crate::out::say;

/// Send one real message through a channel, and say what the service answered
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  tidings test email --to user:default/ann
  tidings test email --to ann@example.com
  tidings test slack --to C0123456789 --title \"Hello from Tidings\"")]
pub(crate) struct TestArgs {
    /// The sender's name, as under notifications.processors
    channel: String,
    /// A person of the catalog, an e-mail address, or what the channel knows by name: a room, an
    /// endpoint
    #[arg(long, value_name = "REF|ADDRESS|TARGET")]
    to: Option<String>,
    /// What it says
    #[arg(long, default_value = "A test of this channel by Tidings")]
    title: String,
    /// Configuration file; may be repeated
    #[arg(long, value_name = "FILE")]
    config: Vec<PathBuf>,
    /// Machine-readable: one JSON object
    #[arg(long)]
    json: bool,
}

/// For whom it is.
#[derive(Default)]
struct To {
    user: Option<String>,
    person: Option<CatalogUser>,
    target: String,
}

/// Sends it.
///
/// # Errors
/// That it cannot be tried: no such channel, nobody of that name.
pub(crate) async fn run(args: &TestArgs) -> Result<ExitCode, StartError> {
    let config = Config::load_default(&args.config, &[], &Environment::process())?;
    let settings = config.settings()?;
    let services = Services::build(&config, &settings, &Roles::default())?;
    let sender = services
        .senders
        .iter()
        .find(|one| one.name() == args.channel);
    let sender = sender.ok_or_else(|| {
        let known = services.sender_names().join(", ");
        StartError {
            code: USAGE,
            ..StartError::new(
                format!("there is no sender `{}` to test", args.channel),
                format!("notifications.processors.{}", args.channel),
                format!("configured are: {known}"),
            )
        }
    })?;
    let to = whom(args.to.as_deref(), &services).await?;
    let payload = Payload {
        title: args.title.clone(),
        description: Some(
            "Somebody who operates Tidings tried whether messages arrive here.".to_owned(),
        ),
        topic: Some("test".to_owned()),
        ..Payload::default()
    };
    let recipients: Vec<String> = to.user.iter().cloned().collect();
    let outgoing = Outgoing {
        delivery: Uuid::new_v4(),
        notification: Uuid::new_v4(),
        submission: Uuid::now_v7(),
        origin: "external:cli",
        payload: &payload,
        link: absolute_link(None, &settings.app_base_url),
        created: Timestamp::now(),
        user: to.user.as_deref(),
        person: to.person.as_ref(),
        recipients: &recipients,
        target: &to.target,
        earlier: None,
        attempt: 1,
    };
    tell(args, send(sender, &outgoing).await)
}

/// Sends, to every target where the sender finds its own.
async fn send(sender: &Arc<dyn Sender>, outgoing: &Outgoing<'_>) -> Vec<(String, Outcome)> {
    let own = outgoing.target.is_empty() && (outgoing.user.is_none() || sender.fans_out());
    let targets = if own {
        match sender.targets(outgoing).await {
            Ok(targets) => targets,
            Err(failure) => return vec![(String::new(), Outcome::Failed(failure))],
        }
    } else {
        Vec::new()
    };
    if targets.is_empty() {
        return vec![(outgoing.target.to_owned(), sender.send(outgoing).await)];
    }
    let mut outcomes = Vec::new();
    for target in targets {
        let one = Outgoing {
            target: &target,
            ..outgoing.clone()
        };
        let outcome = sender.send(&one).await;
        outcomes.push((target, outcome));
    }
    outcomes
}

async fn whom(to: Option<&str>, services: &Services) -> Result<To, StartError> {
    let Some(to) = to else {
        return Ok(To::default());
    };
    let person = to.parse::<EntityRef>().ok().filter(EntityRef::is_user);
    if person.is_some() {
        let found = services.catalog.people(&[to.to_owned()]).await;
        let found = found.map_err(|failure| {
            StartError::new(failure.detail, "the catalog", "try again when it is back")
        })?;
        let known = found.into_iter().next().flatten();
        let known = known.ok_or_else(|| StartError {
            code: USAGE,
            ..StartError::new(
                format!("{to} is not in the catalog"),
                "--to",
                "write a ref as in user:default/ann, or an e-mail address",
            )
        })?;
        return Ok(To {
            user: Some(to.to_owned()),
            person: Some(known),
            target: String::new(),
        });
    }
    if to.contains('@') {
        let person = CatalogUser {
            email: Some(to.to_owned()),
            ..CatalogUser::default()
        };
        return Ok(To {
            user: Some("user:default/test".to_owned()),
            person: Some(person),
            target: String::new(),
        });
    }
    Ok(To {
        target: to.to_owned(),
        ..To::default()
    })
}

/// Says what came of it; the exit code is that of the worst.
fn tell(args: &TestArgs, outcomes: Vec<(String, Outcome)>) -> Result<ExitCode, StartError> {
    let mut code = 0;
    for (target, outcome) in outcomes {
        let (state, reason, detail, own) = match outcome {
            Outcome::Sent { provider_id } => {
                let id = provider_id.clone();
                let detail = id.map_or_else(String::new, |id| format!("; its id there is {id}"));
                ("sent", None, detail, 0)
            }
            Outcome::Skipped { reason, detail } => ("skipped", Some(reason), detail, FAILED),
            Outcome::Gone { detail } => (
                "gone",
                Some(tidings::failure::Reason::Rejected),
                detail,
                REFUSED,
            ),
            Outcome::Waits { reason, detail, .. } => ("waits", Some(reason), detail, FAILED),
            Outcome::Failed(failure) => ("failed", Some(failure.reason), failure.detail, REFUSED),
        };
        code = code.max(own);
        let to = if target.is_empty() {
            String::new()
        } else {
            format!(" to {target}")
        };
        if args.json {
            let told = json!({"channel": args.channel, "target": target, "state": state,
                "reason": reason, "detail": detail});
            say!("{told}");
        } else if let Some(reason) = reason {
            say!("{state}{to}: {reason}: {detail}");
        } else {
            say!("{state}{to}: the service took it{detail}");
        }
    }
    Ok(ExitCode::from(code))
}
