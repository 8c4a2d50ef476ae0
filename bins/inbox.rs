//! `tidings-inbox`: serves the inbox, signals, the page and the operators.

use std::process::ExitCode;

use clap::Parser;
use tidings::runner::Roles;
use tidings::runner::VERSION;
use tidings::runner::process;
use tidings::runner::process::ProcessArgs;

/// Serve the inbox, signals, the page and the operators' API.
///
/// It takes submissions too, since they are posted to a path that is also read.
#[derive(Parser)]
#[command(name = "tidings-inbox", version = VERSION, after_help = "Examples:
  tidings-inbox --config tidings.yaml
  tidings-inbox --config tidings.yaml --listen 0.0.0.0:7117 --log json")]
struct Cli {
    #[command(flatten)]
    process: ProcessArgs,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let roles = Roles {
        ingest: true,
        inbox: true,
        ..Roles::default()
    };
    process::run(&cli.process, "tidings.listen", roles)
}
