//! Talking to a running Tidings: where it is, who we are, and what its answers mean.

use std::path::PathBuf;
use std::time::Duration;

use reqwest::Method;
use reqwest::StatusCode;
use serde_json::Value;
use tidings::config::Config;
use tidings::config::Environment;
use tidings::runner::StartError;

/// Something failed, or the service is degraded.
pub(crate) const FAILED: u8 = 1;
/// The call is wrong.
pub(crate) const USAGE: u8 = 2;
/// The configuration is wrong.
pub(crate) const CONFIG: u8 = 3;
/// Nobody answered, or not in time.
pub(crate) const NO_ANSWER: u8 = 4;
/// The answer was no.
pub(crate) const REFUSED: u8 = 5;
/// Part of it is done.
pub(crate) const IN_PART: u8 = 6;

/// The longest a request may take, beside what it asks to wait for.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Which Tidings, and with which token.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct ClientArgs {
    /// Address of a running Tidings [default: tidings.listen of the configuration]
    #[arg(long, env = "TIDINGS_URL", value_name = "URL")]
    url: Option<String>,
    /// File that holds the API token [default: TIDINGS_TOKEN, else the file `token` in the data
    /// directory]
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Configuration file, for the address and the data directory; may be repeated
    #[arg(long, value_name = "FILE")]
    config: Vec<PathBuf>,
    /// Machine-readable: one JSON object on each line
    #[arg(long)]
    pub(crate) json: bool,
}

/// A running Tidings, as this command sees it.
pub(crate) struct Client {
    http: reqwest::Client,
    base: String,
    token: String,
}

impl ClientArgs {
    /// Finds the address and the token.
    ///
    /// # Errors
    /// What is missing, and where it was looked for.
    pub(crate) fn connect(&self) -> Result<Client, StartError> {
        let (base, data) = self.place()?;
        let token = match (&self.token_file, std::env::var("TIDINGS_TOKEN")) {
            (Some(file), _) => read_token(file)?,
            (None, Ok(token)) if !token.is_empty() => token,
            _ => read_token(&data.join("token"))?,
        };
        // Fails only when a provider is installed already, which serves as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder()
            .user_agent(concat!("tidings/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(Duration::from_secs(5))
            .build()
            .map_err(|error| error_at(FAILED, error.to_string(), &base, "report this"))?;
        Ok(Client {
            http,
            base: base.trim_end_matches('/').to_owned(),
            token,
        })
    }

    /// The address, and the data directory.
    fn place(&self) -> Result<(String, PathBuf), StartError> {
        let given = (self.url.clone(), self.token_file.is_some());
        if let (Some(url), true) = given {
            return Ok((url, PathBuf::new()));
        }
        let config = Config::load_default(&self.config, &[], &Environment::process())?;
        let settings = config.settings()?;
        let url = self
            .url
            .clone()
            .unwrap_or_else(|| format!("http://{}", settings.listen));
        Ok((url, settings.data))
    }
}

fn read_token(file: &std::path::Path) -> Result<String, StartError> {
    let text = std::fs::read_to_string(file).map_err(|error| {
        error_at(
            CONFIG,
            format!("no API token: {error}"),
            &file.display().to_string(),
            "name its file with --token-file, or set TIDINGS_TOKEN; the first token lies in the data directory of a running Tidings",
        )
    })?;
    Ok(text.trim().to_owned())
}

/// An error of this command, in the form that all print.
pub(crate) fn error_at(
    code: u8,
    message: impl Into<String>,
    place: &str,
    help: &str,
) -> StartError {
    StartError {
        code,
        ..StartError::new(message, place, help)
    }
}

impl Client {
    /// Where it is.
    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    /// Reads a path.
    pub(crate) async fn get(&self, path: &str) -> Result<Value, StartError> {
        let (_, body) = self
            .ask(Method::GET, path, None, &[], Duration::ZERO)
            .await?;
        Ok(body)
    }

    /// Posts JSON to a path.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> Result<Value, StartError> {
        let (_, body) = self
            .ask(Method::POST, path, Some(body), &[], Duration::ZERO)
            .await?;
        Ok(body)
    }

    /// Deletes what is at a path.
    pub(crate) async fn delete(&self, path: &str) -> Result<Value, StartError> {
        let (_, body) = self
            .ask(Method::DELETE, path, None, &[], Duration::ZERO)
            .await?;
        Ok(body)
    }

    /// One request; `wait` is what it asks the server to wait.
    ///
    /// # Errors
    /// That nobody answered, or the server's refusal in its own words.
    pub(crate) async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        headers: &[(&str, &str)],
        wait: Duration,
    ) -> Result<(StatusCode, Value), StartError> {
        let url = format!("{}{path}", self.base);
        let mut request = self
            .http
            .request(method, &url)
            .bearer_auth(&self.token)
            .timeout(TIMEOUT + wait);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request
            .send()
            .await
            .map_err(|error| self.no_answer(&error))?;
        let status = response.status();
        let text = response
            .text()
            .await
            .map_err(|error| self.no_answer(&error))?;
        let body: Value = serde_json::from_str(&text).unwrap_or(Value::Null);
        if status.is_success() {
            return Ok((status, body));
        }
        Err(self.refusal(status, &body, path))
    }

    fn no_answer(&self, error: &reqwest::Error) -> StartError {
        let why = if error.is_timeout() {
            "it did not answer in time"
        } else if error.is_connect() {
            "nothing listens there"
        } else {
            "the connection broke"
        };
        error_at(
            NO_ANSWER,
            format!("no answer from Tidings: {why}"),
            &self.base,
            "start it with `tidings up`, or name another with --url",
        )
    }

    fn refusal(&self, status: StatusCode, body: &Value, path: &str) -> StartError {
        let message = body["error"]["message"]
            .as_str()
            .map_or_else(|| format!("the server answered {status}"), str::to_owned);
        let place = body["error"]["errors"][0]["pointer"]
            .as_str()
            .map_or_else(|| format!("{}{path}", self.base), str::to_owned);
        let help = match status.as_u16() {
            401 => "the token is unknown here: name another with --token-file or TIDINGS_TOKEN",
            403 => "this token may not do that: `tidings token create` makes one that may",
            404 => "is the id right? what was just sent may not be stored yet",
            503 => "the queue or the store is away: `tidings status` says which",
            _ => "mend what it names and try again",
        };
        error_at(REFUSED, message, &place, help)
    }
}

/// Percent-encodes a query value or path segment.
pub(crate) fn encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                char::from(byte).to_string()
            }
            _ => format!("%{byte:02X}"),
        })
        .collect()
}
