//! `tidings token`: the API tokens in the store.

use std::process::ExitCode;
use std::time::Duration;

use clap::Subcommand;
use serde_json::json;
use tidings::runner::StartError;
use tidings::time::Timestamp;

use crate::client::ClientArgs;
use crate::client::REFUSED;
use crate::client::encoded;
use crate::client::error_at;
use crate::paint::Paint;
use crate::render;

/// Make, list and end API tokens.
#[derive(clap::Args, Debug)]
pub(crate) struct TokenArgs {
    #[command(subcommand)]
    command: Token,
}

#[derive(Subcommand, Debug)]
enum Token {
    /// Make one; its secret is shown this once
    #[command(after_help = "Examples:
  tidings token create --subject external:ci
  tidings token create --subject external:ops --scope operate --expires 90d")]
    Create {
        /// Who bears it: the origin of what they send
        #[arg(long)]
        subject: String,
        /// What they may do: send or operate; may be repeated
        #[arg(long, default_value = "send", value_parser = ["send", "operate"])]
        scope: Vec<String>,
        /// How long it is good for, as in 90d or 12h [default: until it is revoked]
        #[arg(long, value_parser = span)]
        expires: Option<Duration>,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// List them; secrets are not kept, only their hashes
    List {
        #[command(flatten)]
        client: ClientArgs,
    },
    /// End one
    Revoke {
        /// The beginning of its hash, as listed; at least 8 digits
        hash: String,
        #[command(flatten)]
        client: ClientArgs,
    },
}

fn span(text: &str) -> Result<Duration, String> {
    let span: jiff::SignedDuration = text
        .parse()
        .map_err(|error: jiff::Error| error.to_string())?;
    Duration::try_from(span).map_err(|error| error.to_string())
}

/// Does it.
///
/// # Errors
/// That nobody answers, or it is refused.
pub(crate) async fn run(args: &TokenArgs) -> Result<ExitCode, StartError> {
    match &args.command {
        Token::Create {
            subject,
            scope,
            expires,
            client,
        } => {
            let end = expires.map(|span| Timestamp::now().plus(span));
            let mut body = json!({"subject": subject, "scopes": scope});
            if let Some(end) = end {
                body["expires"] = json!(end);
            }
            let told = client
                .connect()?
                .post("/api/tidings/v1/tokens", &body)
                .await?;
            if client.json {
                println!("{told}");
            } else {
                println!(
                    "{}",
                    told["secret"]
                        .as_str()
                        .or_else(|| told["token"].as_str())
                        .unwrap_or_default()
                );
                eprintln!(
                    "keep it: it is not shown again. For {subject}, scope {}.",
                    scope.join(", ")
                );
            }
        }
        Token::List { client } => {
            let told = client.connect()?.get("/api/tidings/v1/tokens").await?;
            let tokens = told["tokens"].as_array().cloned().unwrap_or_default();
            if client.json {
                tokens.iter().for_each(|token| println!("{token}"));
                return Ok(ExitCode::SUCCESS);
            }
            let head = format!(
                "{:<12} {:<28} {:<16} {:<20} {}",
                "HASH", "SUBJECT", "SCOPES", "ENDS", "LAST USED"
            );
            println!("{}", Paint::stdout().bold(&head));
            for token in &tokens {
                let text = |name: &str| token[name].as_str().unwrap_or_default();
                let day = |name: &str, none: &str| {
                    Timestamp::parse(text(name)).map_or_else(|| none.to_owned(), render::clock)
                };
                let scopes: Vec<&str> = token["scopes"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter_map(|one| one.as_str())
                    .collect();
                let hash: String = text("hash").chars().take(12).collect();
                println!(
                    "{hash:<12} {:<28} {:<16} {:<20} {}",
                    text("subject"),
                    scopes.join(","),
                    day("expires", "never"),
                    day("last_used", "never")
                );
            }
        }
        Token::Revoke { hash, client } => {
            let told = client
                .connect()?
                .delete(&format!("/api/tidings/v1/tokens/{}", encoded(hash)))
                .await?;
            let count = told["revoked"]
                .as_u64()
                .or_else(|| told["count"].as_u64())
                .unwrap_or(0);
            if count == 0 {
                return Err(error_at(
                    REFUSED,
                    "no token has such a hash",
                    hash,
                    "tidings token list shows them",
                ));
            }
            println!("{} revoked.", render::count(count, "token", "tokens"));
        }
    }
    Ok(ExitCode::SUCCESS)
}
