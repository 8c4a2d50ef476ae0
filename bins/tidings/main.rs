//! `tidings`: everything in one process, and the operators' commands.

mod backup;
mod channels;
mod check;
mod client;
mod completions;
mod dead;
mod endpoints;
mod events;
mod import;
mod list;
mod migrate;
mod out;
mod paint;
mod render;
mod screen;
mod send;
mod status;
mod table;
mod test;
mod token;
mod trace;
mod up;
mod user_token;
mod words;

use std::process::ExitCode;

use clap::Parser;
use clap::Subcommand;
use clap::error::ErrorKind;
use tidings::runner::StartError;
use tidings::runner::VERSION;
use tidings::runner::process::block_on;

/// Notifications: send once; inbox, open page and mailbox, nothing lost, nothing doubled.
#[derive(Parser)]
#[command(
    name = "tidings",
    version = VERSION,
    after_help = "Exit codes: 0 done, 1 failed or degraded, 2 usage, 3 configuration, 4 no answer or \
timed out, 5 refused, 6 done in part, 130 interrupted."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Up(up::UpArgs),
    Send(send::SendArgs),
    List(list::ListArgs),
    Trace(trace::TraceArgs),
    Status(status::StatusArgs),
    Dead(dead::DeadArgs),
    Endpoints(endpoints::EndpointsArgs),
    Processors(channels::ProcessorsArgs),
    Pause(channels::PauseArgs),
    Resume(channels::ResumeArgs),
    Test(test::TestArgs),
    Token(token::TokenArgs),
    UserToken(user_token::UserTokenArgs),
    Check(check::CheckArgs),
    Migrate(migrate::MigrateArgs),
    Import(import::ImportArgs),
    Backup(backup::BackupArgs),
    Completions(completions::CompletionsArgs),
}

fn main() -> ExitCode {
    let result = match Cli::try_parse() {
        Ok(cli) => run(cli.command),
        // Help and the version are results, and a bare `tidings` wants help.
        Err(error) if !error.use_stderr() || error.kind() == HELP_INSTEAD => error.exit(),
        Err(error) => Err(out::usage(&error)),
    };
    result.unwrap_or_else(|error| {
        out::complain(&error);
        ExitCode::from(error.code)
    })
}

/// The command line stops where a command is expected.
const HELP_INSTEAD: ErrorKind = ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand;

fn run(command: Command) -> Result<ExitCode, StartError> {
    match command {
        Command::Up(args) => up::run(&args),
        Command::Send(args) => asked(send::run(&args)),
        Command::List(args) => asked(list::run(&args)),
        Command::Trace(args) => asked(trace::run(&args)),
        Command::Status(args) => asked(status::run(&args)),
        Command::Dead(args) => asked(dead::run(&args)),
        Command::Endpoints(args) => asked(endpoints::run(&args)),
        Command::Processors(args) => asked(channels::processors(&args)),
        Command::Pause(args) => asked(channels::pause(&args)),
        Command::Resume(args) => asked(channels::resume(&args)),
        Command::Test(args) => asked(test::run(&args)),
        Command::Token(args) => asked(token::run(&args)),
        Command::UserToken(args) => user_token::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Migrate(args) => migrate::run(&args),
        Command::Import(args) => import::run(&args),
        Command::Backup(args) => asked(backup::run(&args)),
        Command::Completions(args) => Ok(completions::run(&args)),
    }
}

/// Runs a command that asks a server, until it is done or somebody presses Ctrl-C.
fn asked(
    command: impl Future<Output = Result<ExitCode, StartError>>,
) -> Result<ExitCode, StartError> {
    block_on(async {
        tokio::select! {
            result = command => result,
            Ok(()) = tokio::signal::ctrl_c() => Ok(ExitCode::from(client::INTERRUPTED)),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }
}
