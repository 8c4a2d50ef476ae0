//! Talking to a running Tidings: where it is, who we are, and what its answers mean.

use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::net::SocketAddr;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use reqwest::RequestBuilder;
use reqwest::StatusCode;
use reqwest::Url;
use serde_json::Value;
use tidings::config::Config;
use tidings::config::Environment;
use tidings::runner::StartError;

use crate::words;

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
/// Somebody pressed Ctrl-C.
pub(crate) const INTERRUPTED: u8 = 130;

/// The longest a request may take, beside what it asks to wait for.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Which Tidings, and with which token.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct ClientArgs {
    /// Address of a running Tidings [default: tidings.listen of the configuration]
    #[arg(long, env = "TIDINGS_URL", value_name = "URL")]
    url: Option<String>,
    /// File that holds the API token [default: `TIDINGS_TOKEN`, else the file `token` in the data
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
    base: Url,
    token: String,
    /// The answer is for a program, which gets it as it is.
    json: bool,
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
        let mut http = tidings::client::builder().redirect(reqwest::redirect::Policy::default());
        if is_here(&base) {
            // A proxy for the world outside knows nothing of this machine.
            http = http.no_proxy();
        }
        let http = http
            .build()
            .map_err(|error| error_at(FAILED, error.to_string(), base.as_str(), "report this"))?;
        Ok(Client {
            http,
            base,
            token,
            json: self.json,
        })
    }

    /// The address, and the data directory.
    fn place(&self) -> Result<(Url, PathBuf), StartError> {
        if let (Some(url), true) = (&self.url, self.token_file.is_some()) {
            return Ok((base(url)?, PathBuf::new()));
        }
        let config = Config::load_default(&self.config, &[], &Environment::process())?;
        let settings = config.settings()?;
        let url = match &self.url {
            Some(url) => url.clone(),
            None => format!("http://{}", reachable(settings.listen)),
        };
        Ok((base(&url)?, settings.data))
    }
}

fn base(text: &str) -> Result<Url, StartError> {
    match Url::parse(text) {
        Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => Ok(url),
        _ => Err(error_at(
            USAGE,
            format!("`{text}` is not the address of a Tidings"),
            "--url",
            "write it as http://127.0.0.1:7117",
        )),
    }
}

/// Where to knock for a Tidings that listens there: one that listens everywhere is also here.
pub(crate) fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

fn is_here(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let ip = host.trim_matches(['[', ']']).parse::<IpAddr>();
    host == "localhost" || ip.is_ok_and(|ip| ip.is_loopback())
}

fn read_token(file: &Path) -> Result<String, StartError> {
    let text = std::fs::read_to_string(file).map_err(|error| {
        let why = match error.kind() {
            std::io::ErrorKind::NotFound => "there is no such file".to_owned(),
            _ => error.to_string(),
        };
        error_at(
            CONFIG,
            format!("no API token: {why}"),
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

/// That an answer is not what this version expects.
pub(crate) fn strange(client: &Client, error: &serde_json::Error) -> StartError {
    let place = client.base.as_str();
    error_at(
        FAILED,
        error.to_string(),
        place,
        "is it of another version?",
    )
}

impl Client {
    /// Where it is.
    pub(crate) fn base(&self) -> &str {
        self.base.as_str().trim_end_matches('/')
    }

    /// Reads what is at a path of our API.
    ///
    /// # Errors
    /// As all requests: that nobody answered, or the server's refusal in its own words.
    pub(crate) async fn get(
        &self,
        path: &[&str],
        query: &[(&str, String)],
    ) -> Result<Value, StartError> {
        let request = self.http.get(self.ours(path, query));
        self.ask(request, Duration::ZERO)
            .await
            .map_err(StartError::from)
    }

    /// As [`Client::get`] where the answer may take `wait`; `None` for what is not there.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub(crate) async fn find(
        &self,
        path: &[&str],
        query: &[(&str, String)],
        wait: Duration,
    ) -> Result<Option<Value>, StartError> {
        match self.ask(self.http.get(self.ours(path, query)), wait).await {
            Ok(found) => Ok(Some(found)),
            Err(Refused {
                status: Some(StatusCode::NOT_FOUND),
                ..
            }) => Ok(None),
            Err(refused) => Err(refused.error),
        }
    }

    /// Posts JSON to a path of our API.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub(crate) async fn post(&self, path: &[&str], body: &Value) -> Result<Value, StartError> {
        let request = self.http.post(self.ours(path, &[])).json(body);
        self.ask(request, Duration::ZERO)
            .await
            .map_err(StartError::from)
    }

    /// Deletes what is at a path of our API.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub(crate) async fn delete(&self, path: &[&str]) -> Result<Value, StartError> {
        let request = self.http.delete(self.ours(path, &[]));
        self.ask(request, Duration::ZERO)
            .await
            .map_err(StartError::from)
    }

    /// Sends a notification, at the peer's address.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub(crate) async fn submit(
        &self,
        body: &Value,
        headers: &[(&str, &str)],
    ) -> Result<Value, StartError> {
        let url = self.url(&["api", "notifications"], &[]);
        let mut request = self.http.post(url).json(body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.ask(request, Duration::ZERO)
            .await
            .map_err(StartError::from)
    }

    fn ours(&self, path: &[&str], query: &[(&str, String)]) -> Url {
        self.url(&[&["api", "tidings", "v1"], path].concat(), query)
    }

    /// The address of a path, each part of which may hold anything.
    fn url(&self, path: &[&str], query: &[(&str, String)]) -> Url {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        url
    }

    /// One request; `wait` is what it asks the server to wait.
    async fn ask(&self, request: RequestBuilder, wait: Duration) -> Result<Value, Refused> {
        let request = request.bearer_auth(&self.token).timeout(TIMEOUT + wait);
        let response = request
            .send()
            .await
            .map_err(|error| self.no_answer(&error))?;
        let (status, url) = (response.status(), response.url().clone());
        let text = response
            .text()
            .await
            .map_err(|error| self.no_answer(&error))?;
        let mut body: Value = serde_json::from_str(&text).unwrap_or(Value::Null);
        if !self.json {
            body = words::cleaned(body);
        }
        if status.is_success() {
            return Ok(body);
        }
        Err(Refused {
            status: Some(status),
            error: refusal(status, &body, &url),
        })
    }

    fn no_answer(&self, error: &reqwest::Error) -> Refused {
        let why = if error.is_timeout() {
            "it did not answer in time"
        } else if error.is_connect() {
            "nothing listens there"
        } else {
            "the connection broke"
        };
        Refused {
            status: None,
            error: error_at(
                NO_ANSWER,
                format!("no answer from Tidings: {why}"),
                self.base(),
                "start it with `tidings up`, or name another with --url",
            ),
        }
    }
}

/// A request that did not get what it asked for.
struct Refused {
    status: Option<StatusCode>,
    error: StartError,
}

impl From<Refused> for StartError {
    fn from(refused: Refused) -> Self {
        refused.error
    }
}

fn refusal(status: StatusCode, body: &Value, url: &Url) -> StartError {
    let message = body["error"]["message"]
        .as_str()
        .map_or_else(|| format!("the server answered {status}"), str::to_owned);
    let pointer = body["error"]["errors"][0]["pointer"].as_str();
    let place = pointer.map_or_else(|| url.to_string(), str::to_owned);
    let help = match status.as_u16() {
        401 => "the token is unknown here: name another with --token-file or TIDINGS_TOKEN",
        403 => "this token may not do that: `tidings token create` makes one that may",
        404 => "is it spelled right? what was just sent may not be stored yet",
        503 => "the queue or the store is away: `tidings status` says which",
        _ => "mend what it names and try again",
    };
    error_at(REFUSED, message, &place, help)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_listens_everywhere_is_asked_here() {
        let at = |text: &str| reachable(text.parse().unwrap()).to_string();
        assert_eq!(at("0.0.0.0:7117"), "127.0.0.1:7117");
        assert_eq!(at("[::]:7117"), "[::1]:7117");
        assert_eq!(at("10.0.0.1:7117"), "10.0.0.1:7117");
    }

    #[test]
    fn a_path_may_hold_anything_and_the_address_may_have_one_of_its_own() {
        let client = |text: &str| Client {
            http: reqwest::Client::new(),
            base: base(text).unwrap(),
            token: String::new(),
            json: false,
        };
        let _ = rustls::crypto::ring::default_provider().install_default();
        let query = [("user", "user:default/a b".to_owned())];
        let url = client("http://h:1").ours(&["submissions", "a/b?c"], &query);
        assert_eq!(
            url.as_str(),
            "http://h:1/api/tidings/v1/submissions/a%2Fb%3Fc?user=user%3Adefault%2Fa+b"
        );
        let url = client("https://h/tidings/").ours(&["status"], &[]);
        assert_eq!(url.as_str(), "https://h/tidings/api/tidings/v1/status");
        assert!(base("127.0.0.1:7117").is_err());
    }
}
