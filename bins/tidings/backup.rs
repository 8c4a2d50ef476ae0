//! `tidings backup`: copies everything to a file, while Tidings runs.

use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::json;
use tidings::runner::StartError;

use crate::client::ClientArgs;
use crate::client::FAILED;
use crate::client::error_at;
use crate::out::say;
use crate::words;

/// Copy everything to a file, while Tidings runs.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  tidings backup
  tidings backup backup.sqlite      and move the copy here (same machine)")]
pub(crate) struct BackupArgs {
    /// Where to put the copy [default: backups/ in the data directory of the server]
    file: Option<PathBuf>,
    #[command(flatten)]
    client: ClientArgs,
}

/// Takes the copy.
///
/// # Errors
/// That it is refused, or the copy cannot be moved.
pub(crate) async fn run(args: &BackupArgs) -> Result<ExitCode, StartError> {
    let mut told = args.client.connect()?.post(&["backup"], &json!({})).await?;
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
        say!("{told}");
    } else {
        let bytes = told["bytes"].as_u64().unwrap_or(0);
        say!("{}", told["file"].as_str().unwrap_or_default());
        eprintln!(
            "{} bytes. To restore: stop Tidings, put it in place of tidings.sqlite in the data directory, start.",
            words::grouped(bytes)
        );
    }
    Ok(ExitCode::SUCCESS)
}
