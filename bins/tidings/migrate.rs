//! `tidings migrate`: brings the schema of the store up to date.

use std::process::ExitCode;

use crate::out::say;
use tidings::runner::StartError;
use tidings::runner::process;
use tidings::runner::process::ProcessArgs;

/// Bring the schema of the store up to date.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  tidings migrate --config tidings.yaml       with a role that may create tables")]
pub(crate) struct MigrateArgs {
    #[command(flatten)]
    process: ProcessArgs,
}

/// Migrates.
///
/// # Errors
/// What keeps the schema from being brought up to date.
pub(crate) fn run(args: &MigrateArgs) -> Result<ExitCode, StartError> {
    let settings = args.process.load("tidings.listen")?.settings()?;
    process::block_on(async {
        say!("{}", process::migrate(&settings).await?);
        Ok(ExitCode::SUCCESS)
    })
}
