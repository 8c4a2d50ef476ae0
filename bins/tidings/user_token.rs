//! `tidings user-token`: signs a token for a person, with the key in the data directory.

use std::process::ExitCode;
use std::time::Duration;

use tidings::auth::UserKey;
use tidings::config::CatalogSource;
use tidings::notification::EntityRef;
use tidings::runner::StartError;
use tidings::runner::process::ProcessArgs;

use crate::client::FAILED;
use crate::client::error_at;
use crate::out::say;

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
pub(crate) fn run(args: &UserTokenArgs) -> Result<ExitCode, StartError> {
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
    if !settings.user_issuers.is_empty() || settings.catalog.source == CatalogSource::Backstage {
        eprintln!(
            "warning: by this configuration others sign people's tokens; Tidings will not take this one"
        );
    }
    let key = UserKey::open(&settings.data).map_err(failed)?;
    let ttl = Duration::from_secs(args.hours.saturating_mul(3_600));
    let reference = &args.reference;
    let reference = format!(
        "{}:{}/{}",
        reference.kind, reference.namespace, reference.name
    );
    say!("{}", key.sign(&reference, ttl).map_err(failed)?);
    Ok(ExitCode::SUCCESS)
}
