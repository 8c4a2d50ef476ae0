//! `tidings-ingest`: accepts submissions over HTTP and publishes them.

use std::process::ExitCode;

use clap::Parser;
use tidings::runner::Roles;
use tidings::runner::VERSION;
use tidings::runner::process;
use tidings::runner::process::ProcessArgs;

/// Accept submissions over HTTP and publish them to the queue.
///
/// It needs the queue alone: while the database is away it keeps accepting, with the tokens it
/// knows.
#[derive(Parser)]
#[command(name = "tidings-ingest", version = VERSION, after_help = "Examples:
  tidings-ingest --config tidings.yaml
  tidings-ingest --config tidings.yaml --listen 0.0.0.0:7118 --admin-listen 127.0.0.1:7120
  tidings-ingest --config app-config.yaml --config tidings.yaml --log json")]
struct Cli {
    #[command(flatten)]
    process: ProcessArgs,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let roles = Roles {
        ingest: true,
        ..Roles::default()
    };
    process::run(&cli.process, "tidings.ingest.listen", roles)
}
