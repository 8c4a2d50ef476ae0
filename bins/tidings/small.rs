//! The small commands: a user token, a backup, shell completions.

use std::process::ExitCode;
use std::time::Duration;

use clap::CommandFactory;
use clap_complete::Shell;
use serde_json::json;
use tidings::auth::UserKey;
use tidings::notification::EntityRef;
use tidings::runner::StartError;
use tidings::runner::process::ProcessArgs;

use crate::client::ClientArgs;
use crate::client::FAILED;
use crate::client::error_at;
use crate::render;

/// Sign a token for a person, with the key in the data directory.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  tidings user-token user:default/ann
  curl -H \"Authorization: Bearer $(tidings user-token user:default/ann)\" \\
      http://127.0.0.1:7117/api/notifications/notifications")]
pub(crate) struct UserTokenArgs {
    /// Whose, as user:namespace/name
    reference: EntityRef,
    /// How many hours it is good for
    #[arg(long, default_value_t = 1)]
    hours: u64,
    #[command(flatten)]
    process: ProcessArgs,
}

/// Prints the token.
///
/// # Errors
/// That there is no key to sign with.
pub(crate) fn user_token(args: &UserTokenArgs) -> Result<ExitCode, StartError> {
    let settings = args.process.load("tidings.listen")?.settings()?;
    let place = settings.data.display().to_string();
    let failed = |error: std::io::Error| {
        error_at(
            FAILED,
            error.to_string(),
            &place,
            "run it where the data directory of Tidings is, or name its configuration with --config",
        )
    };
    let key = UserKey::open(&settings.data).map_err(failed)?;
    let ttl = Duration::from_secs(args.hours.saturating_mul(3_600));
    let reference = &args.reference;
    let reference = format!(
        "{}:{}/{}",
        reference.kind, reference.namespace, reference.name
    );
    println!("{}", key.sign(&reference, ttl).map_err(failed)?);
    Ok(ExitCode::SUCCESS)
}

/// Copy everything to a file, while Tidings runs.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  tidings backup
  tidings backup backup.sqlite      and move the copy here (same machine)")]
pub(crate) struct BackupArgs {
    /// Where to put the copy [default: backups/ in the data directory of the server]
    file: Option<std::path::PathBuf>,
    #[command(flatten)]
    client: ClientArgs,
}

/// Takes the copy.
///
/// # Errors
/// That it is refused, or the copy cannot be moved.
pub(crate) async fn backup(args: &BackupArgs) -> Result<ExitCode, StartError> {
    let mut told = args
        .client
        .connect()?
        .post("/api/tidings/v1/backup", &json!({}))
        .await?;
    if let Some(file) = &args.file {
        let from = told["file"].as_str().unwrap_or_default().to_owned();
        if file.exists() {
            return Err(error_at(
                FAILED,
                "there is such a file already",
                &file.display().to_string(),
                &format!("name another; the copy lies in {from}"),
            ));
        }
        // Another file system needs a copy and a removal.
        let moved = std::fs::rename(&from, file)
            .or_else(|_| std::fs::copy(&from, file).and_then(|_| std::fs::remove_file(&from)));
        moved.map_err(|error| {
            error_at(
                FAILED,
                error.to_string(),
                &file.display().to_string(),
                &format!("the copy lies on the server, in {from}"),
            )
        })?;
        told["file"] = json!(file);
    }
    if args.client.json {
        println!("{told}");
    } else {
        let bytes = told["bytes"].as_u64().unwrap_or(0);
        println!("{}", told["file"].as_str().unwrap_or_default());
        eprintln!(
            "{} bytes. To restore: stop Tidings, put it in place of tidings.sqlite in the data directory, start.",
            render::grouped(bytes)
        );
    }
    Ok(ExitCode::SUCCESS)
}

/// Print completions for a shell.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  tidings completions bash > ~/.local/share/bash-completion/completions/tidings")]
pub(crate) struct CompletionsArgs {
    /// bash, zsh, fish, elvish or powershell
    shell: Shell,
}

/// Prints them.
pub(crate) fn completions(args: &CompletionsArgs) -> ExitCode {
    let mut command = crate::Cli::command();
    clap_complete::generate(args.shell, &mut command, "tidings", &mut std::io::stdout());
    ExitCode::SUCCESS
}
