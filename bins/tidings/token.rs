//! `tidings token`: the API tokens in the store.

use std::process::ExitCode;
use std::time::Duration;

use clap::Subcommand;
use serde_json::Value;
use serde_json::json;
use tidings::runner::StartError;
use tidings::time::Timestamp;

use crate::client::ClientArgs;
use crate::out;
use crate::out::say;
use crate::paint::Paint;
use crate::table::Table;
use crate::words;

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
        /// Its id, as listed; the first 8 digits are enough
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
            let told = client.connect()?.post(&["tokens"], &body).await?;
            if client.json {
                say!("{told}");
            } else {
                say!("{}", told["token"].as_str().unwrap_or_default());
                eprintln!(
                    "keep it: it is not shown again. For {subject}, scope {}.",
                    scope.join(", ")
                );
            }
        }
        Token::List { client } => {
            let told = client.connect()?.get(&["tokens"], &[]).await?;
            let tokens = told["tokens"].as_array().cloned().unwrap_or_default();
            if client.json {
                tokens.iter().for_each(|token| say!("{token}"));
                return Ok(ExitCode::SUCCESS);
            }
            out::put(table(&tokens).render(Paint::stdout()));
        }
        Token::Revoke { hash, client } => {
            let told = client.connect()?.delete(&["tokens", hash]).await?;
            let count = told["revoked"].as_u64().unwrap_or(0);
            say!("{} revoked.", words::count(count, "token", "tokens"));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn table(tokens: &[Value]) -> Table {
    let mut table = Table::new(&["ID", "SUBJECT", "SCOPES", "ENDS", "LAST USED"], &[]);
    for token in tokens {
        let text = |name: &str| token[name].as_str().unwrap_or_default();
        let moment = |name: &str| {
            Timestamp::parse(text(name)).map_or_else(|| "never".to_owned(), words::clock)
        };
        let scopes = token["scopes"].as_array().into_iter().flatten();
        let scopes: Vec<&str> = scopes.filter_map(Value::as_str).collect();
        table.row([
            text("id").to_owned(),
            text("subject").to_owned(),
            scopes.join(","),
            moment("expires"),
            moment("last_used"),
        ]);
    }
    table
}
