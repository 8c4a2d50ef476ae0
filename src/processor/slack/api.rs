//! Slack's Web API: one call, and what its answers mean.
//!
//! Nothing that is said of a failure holds a token, an address or content: of an answer, the code
//! of the error alone is repeated.

use std::time::Duration;

use reqwest::StatusCode;
use reqwest::header::CONTENT_TYPE;
use reqwest::header::RETRY_AFTER;
use serde_json::Value;
use url::Url;

use crate::config::Secret;
use crate::failure::Reason;

/// What of an answer is read at most.
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// Until when a limit holds that names no time.
const LIMITED: Duration = Duration::from_secs(30);
/// Longest code of an error that is repeated.
const CODE_CHARS_MAX: usize = 60;

/// What an error of a call means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Means {
    /// Nobody was reached: nothing was handed over, and nothing else would be.
    Away,
    /// The workspace takes nothing from this app.
    Closed,
    /// The workspace takes no more for so long.
    Limited(Duration),
    /// It went wrong on the way, and may pass.
    MayPass,
    /// This message is refused.
    Refused,
}

/// Why a call did not do what it should.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) means: Means,
    pub(super) reason: Reason,
    pub(super) detail: String,
    /// Slack's own code, where it gave one.
    pub(super) code: String,
}

/// What Slack answered to a call that worked.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) body: Value,
    /// What the token may do, where Slack says so.
    pub(super) scopes: Option<Vec<String>>,
}

/// The errors that are not about one message. Any other is: it is refused.
/// Source: Slack, "chat.postMessage", errors; the classes are ours.
const ERRORS: &[(&str, Means, Reason)] = &[
    ("ratelimited", Means::Limited(LIMITED), Reason::Rate),
    ("rate_limited", Means::Limited(LIMITED), Reason::Rate),
    (
        "message_limit_exceeded",
        Means::Limited(LIMITED),
        Reason::Rate,
    ),
    ("invalid_auth", Means::Closed, Reason::Auth),
    ("not_authed", Means::Closed, Reason::Auth),
    ("account_inactive", Means::Closed, Reason::Auth),
    ("token_revoked", Means::Closed, Reason::Auth),
    ("token_expired", Means::Closed, Reason::Auth),
    ("org_login_required", Means::Closed, Reason::Auth),
    ("two_factor_setup_required", Means::Closed, Reason::Auth),
    ("ekm_access_denied", Means::Closed, Reason::Auth),
    ("access_denied", Means::Closed, Reason::Auth),
    ("no_permission", Means::Closed, Reason::Auth),
    ("missing_scope", Means::Closed, Reason::Auth),
    ("not_allowed_token_type", Means::Closed, Reason::Auth),
    ("deprecated_endpoint", Means::Closed, Reason::Config),
    ("method_deprecated", Means::Closed, Reason::Config),
    ("unknown_method", Means::Closed, Reason::Config),
    ("team_access_not_granted", Means::Closed, Reason::Auth),
    ("team_added_to_org", Means::MayPass, Reason::Server),
    ("internal_error", Means::MayPass, Reason::Server),
    ("fatal_error", Means::MayPass, Reason::Server),
    ("service_unavailable", Means::MayPass, Reason::Server),
    ("request_timeout", Means::MayPass, Reason::Timeout),
    ("accesslimited", Means::MayPass, Reason::Server),
];

/// The Web API, as one app sees one workspace.
pub(super) struct Api {
    http: reqwest::Client,
    base: Url,
    token: Secret,
}

impl Api {
    pub(super) fn new(base: Url, token: Secret, limit: Duration) -> Result<Self, reqwest::Error> {
        Ok(Self {
            http: crate::client::builder().timeout(limit).build()?,
            base,
            token,
        })
    }

    /// Calls a method with a body of JSON.
    pub(super) async fn call(&self, method: &str, body: &Value) -> Result<Answer, Fault> {
        let request = self.request(method)?.json(body);
        self.exchange(request).await
    }

    /// Calls a method that takes no JSON.
    pub(super) async fn ask(&self, method: &str, fields: &[(&str, &str)]) -> Result<Answer, Fault> {
        let form = url::form_urlencoded::Serializer::new(String::new())
            .extend_pairs(fields)
            .finish();
        let request = self
            .request(method)?
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(form);
        self.exchange(request).await
    }

    fn request(&self, method: &str) -> Result<reqwest::RequestBuilder, Fault> {
        let url = self.base.join(method).map_err(|error| {
            Fault::new(Means::Closed, Reason::Config, format!("`apiUrl`: {error}"))
        })?;
        Ok(self.http.post(url).bearer_auth(self.token.expose()))
    }

    async fn exchange(&self, request: reqwest::RequestBuilder) -> Result<Answer, Fault> {
        let response = request.send().await.map_err(|error| on_the_way(&error))?;
        let (status, headers) = (response.status(), response.headers());
        if status == StatusCode::TOO_MANY_REQUESTS {
            let after = headers.get(RETRY_AFTER).and_then(|after| {
                let seconds = after.to_str().ok()?.trim().parse().ok()?;
                Some(Duration::from_secs(seconds))
            });
            return Err(limited(after.unwrap_or(LIMITED)));
        }
        if !status.is_success() {
            let means = if status.is_server_error() {
                (Means::MayPass, Reason::Server)
            } else {
                (Means::Closed, Reason::Config)
            };
            return Err(Fault::new(
                means.0,
                means.1,
                format!("Slack answered {status}"),
            ));
        }
        let scopes = headers.get("x-oauth-scopes").and_then(|scopes| {
            let scopes = scopes.to_str().ok()?.split(',');
            Some(scopes.map(|one| one.trim().to_owned()).collect())
        });
        let body: Value = serde_json::from_slice(&bytes(response).await?).map_err(|_| {
            let detail = "the answer is not JSON: is `apiUrl` right?";
            Fault::new(Means::MayPass, Reason::Server, detail)
        })?;
        if body["ok"] == true {
            return Ok(Answer { body, scopes });
        }
        Err(said(body["error"].as_str().unwrap_or_default()))
    }
}

impl Fault {
    fn new(means: Means, reason: Reason, detail: impl Into<String>) -> Self {
        Self {
            means,
            reason,
            detail: detail.into(),
            code: String::new(),
        }
    }
}

/// What an error of Slack's means.
fn said(code: &str) -> Fault {
    let fit = |one: &char| one.is_ascii_alphanumeric() || *one == '_';
    let code: String = code.chars().filter(fit).take(CODE_CHARS_MAX).collect();
    let known = ERRORS.iter().find(|(known, ..)| *known == code);
    let (means, reason) = known.map_or((Means::Refused, Reason::Rejected), |one| (one.1, one.2));
    let advice = match code.as_str() {
        "channel_not_found" => ": no such channel, or a private one that the app is not in",
        "not_in_channel" => ": invite the app to the channel, or give it chat:write.public",
        "is_archived" => ": the channel is archived",
        "missing_scope" => ": the app needs chat:write, and users:read.email to look people up",
        _ => "",
    };
    Fault {
        code: code.clone(),
        ..Fault::new(means, reason, format!("Slack says {code}{advice}"))
    }
}

fn limited(after: Duration) -> Fault {
    let detail = format!("Slack takes no more for {} s", after.as_secs());
    Fault::new(Means::Limited(after), Reason::Rate, detail)
}

/// What went wrong before there was an answer. The error's own words hold the URL, and of that the
/// host is enough.
fn on_the_way(error: &reqwest::Error) -> Fault {
    let host = error
        .url()
        .and_then(Url::host_str)
        .unwrap_or("Slack")
        .to_owned();
    if error.is_connect() {
        let detail = format!("no connection to {host}");
        return Fault::new(Means::Away, Reason::Network, detail);
    }
    if error.is_timeout() {
        let detail = format!("no answer of {host} in time");
        return Fault::new(Means::MayPass, Reason::Timeout, detail);
    }
    let detail = format!("the connection to {host} broke");
    Fault::new(Means::MayPass, Reason::Network, detail)
}

async fn bytes(mut response: reqwest::Response) -> Result<Vec<u8>, Fault> {
    let mut all = Vec::new();
    while let Some(part) = response.chunk().await.map_err(|error| on_the_way(&error))? {
        if ANSWER_BYTES_MAX < all.len() + part.len() {
            let detail = format!("the answer is longer than {ANSWER_BYTES_MAX} bytes");
            return Err(Fault::new(Means::MayPass, Reason::Server, detail));
        }
        all.extend_from_slice(&part);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_error_of_slack_has_its_meaning_and_an_unknown_one_is_about_the_message() {
        for (code, means, reason) in [
            ("invalid_auth", Means::Closed, Reason::Auth),
            ("missing_scope", Means::Closed, Reason::Auth),
            ("ratelimited", Means::Limited(LIMITED), Reason::Rate),
            ("fatal_error", Means::MayPass, Reason::Server),
            ("channel_not_found", Means::Refused, Reason::Rejected),
            ("is_archived", Means::Refused, Reason::Rejected),
            ("something_new", Means::Refused, Reason::Rejected),
        ] {
            let fault = said(code);
            assert_eq!((fault.means, fault.reason), (means, reason), "{code}");
            assert!(fault.detail.contains(code), "{}", fault.detail);
        }
        let long = said(&"<x> ".repeat(100));
        assert_eq!(long.code.len(), CODE_CHARS_MAX);
        assert!(!long.detail.contains('<'), "{}", long.detail);
    }
}
