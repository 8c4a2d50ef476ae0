//! `tidings endpoints`: those that fail, and enabling one that was disabled.

use std::process::ExitCode;

use clap::Subcommand;
use serde_json::Value;
use tidings::runner::StartError;
use tidings::store::EndpointState;
use tidings::time::Timestamp;

use crate::client::ClientArgs;
use crate::client::FAILED;
use crate::out;
use crate::out::say;
use crate::paint::Paint;
use crate::table::Table;
use crate::words::ago;

/// See which endpoints fail, and enable one that was disabled.
#[derive(clap::Args, Debug)]
pub(crate) struct EndpointsArgs {
    #[command(subcommand)]
    command: Endpoints,
}

#[derive(Subcommand, Debug)]
enum Endpoints {
    /// List those that fail, or were disabled; one that is well is not listed
    List {
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Take one up again
    #[command(after_help = "Examples:
  tidings endpoints enable webhook deploy-bot")]
    Enable {
        /// The sender, as listed
        channel: String,
        /// The endpoint's name, as listed
        name: String,
        #[command(flatten)]
        client: ClientArgs,
    },
}

/// Does it.
///
/// # Errors
/// That nobody answers, or it is refused.
pub(crate) async fn run(args: &EndpointsArgs) -> Result<ExitCode, StartError> {
    match &args.command {
        Endpoints::List { client } => {
            let told = client.connect()?.get(&["endpoints"], &[]).await?;
            let endpoints = told["endpoints"].as_array().cloned().unwrap_or_default();
            if client.json {
                endpoints.iter().for_each(|one| say!("{one}"));
            } else if endpoints.is_empty() {
                say!("No endpoint fails.");
            } else {
                out::put(table(&endpoints, Timestamp::now()).render(Paint::stdout()));
            }
        }
        Endpoints::Enable {
            channel,
            name,
            client,
        } => {
            let path = ["endpoints", channel, name];
            let told = client.connect()?.delete(&path).await?;
            if client.json {
                say!("{told}");
            } else if told["enabled"] == true {
                say!("{channel} {name} is enabled.");
            } else {
                say!("{channel} {name} neither failed nor was disabled.");
                return Ok(ExitCode::from(FAILED));
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn table(endpoints: &[Value], now: Timestamp) -> Table {
    let mut table = Table::new(
        &["CHANNEL", "ENDPOINT", "FAILS FOR", "DISABLED", "WHY"],
        &[],
    );
    let states = endpoints.iter().filter_map(|one| {
        // One of a newer version that cannot be read is left out.
        serde_json::from_value::<EndpointState>(one.clone()).ok()
    });
    for one in states {
        let disabled = one
            .disabled_at
            .map_or_else(|| "no".to_owned(), |at| format!("{} ago", ago(at, now)));
        table.row([
            one.channel,
            one.name,
            ago(one.failing_since, now),
            disabled,
            format!("{}: {}", one.reason, one.detail),
        ]);
    }
    table
}
