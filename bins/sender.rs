//! `tidings-sender`: delivers by the channels named.

use std::process::ExitCode;

use clap::Parser;
use tidings::runner::Roles;
use tidings::runner::VERSION;
use tidings::runner::process;
use tidings::runner::process::ProcessArgs;

/// Deliver notifications by the channels named.
///
/// Run as many as you like: no delivery is sent by two of them.
#[derive(Parser)]
#[command(name = "tidings-sender", version = VERSION, after_help = "Examples:
  tidings-sender email --config tidings.yaml
  tidings-sender email --config tidings.yaml --admin-listen 127.0.0.1:7122 --log json")]
struct Cli {
    /// The senders' names, as under notifications.processors
    #[arg(required = true, value_name = "CHANNEL")]
    channels: Vec<String>,
    #[command(flatten)]
    process: ProcessArgs,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let roles = Roles {
        senders: cli.channels,
        ..Roles::default()
    };
    process::run(&cli.process, "tidings.listen", roles)
}
