//! `tidings completions`: prints completions for a shell.

use std::process::ExitCode;

use clap::CommandFactory as _;
use clap_complete::Shell;

/// Print completions for a shell.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  tidings completions bash > ~/.local/share/bash-completion/completions/tidings")]
pub(crate) struct CompletionsArgs {
    /// bash, zsh, fish, elvish or powershell
    shell: Shell,
}

/// Prints them.
pub(crate) fn run(args: &CompletionsArgs) -> ExitCode {
    let mut command = crate::Cli::command();
    clap_complete::generate(args.shell, &mut command, "tidings", &mut std::io::stdout());
    ExitCode::SUCCESS
}
