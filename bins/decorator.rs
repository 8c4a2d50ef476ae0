//! `tidings-decorator`: expands, decorates, stores and routes.

use std::process::ExitCode;

use clap::Parser;
use tidings::runner::Roles;
use tidings::runner::VERSION;
use tidings::runner::process;
use tidings::runner::process::ProcessArgs;

/// Expand recipients, decorate, store, and put deliveries on the queue.
///
/// Run as many as you like: they share the work.
#[derive(Parser)]
#[command(name = "tidings-decorator", version = VERSION, after_help = "Examples:
  tidings-decorator --config tidings.yaml
  tidings-decorator --config tidings.yaml --admin-listen 127.0.0.1:7121 --log json")]
struct Cli {
    #[command(flatten)]
    process: ProcessArgs,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let roles = Roles {
        decorator: true,
        ..Roles::default()
    };
    process::run(&cli.process, "tidings.listen", roles)
}
