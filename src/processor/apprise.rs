//! The sender `apprise`: a notification is handed to an Apprise API server, which knows more than
//! a hundred services.
//!
//! What stands behind Apprise is a room or a list as a rule, so it gets a notification once per
//! submission, with the recipients listed, whatever the settings of people. With routes, each that
//! takes a notification is a target. `registry.rs` builds it from
//! `notifications.processors.apprise`.

pub mod config;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use reqwest::StatusCode;
use reqwest::header::RETRY_AFTER;
use serde_json::Value;
use serde_json::json;
use url::Url;

use self::config::AppriseConfig;
use self::config::Services as Behind;
use crate::config::ConfigError;
use crate::config::Section;
use crate::failure::Failure;
use crate::failure::Reason;
use crate::notification::Severity;
use crate::processor::Audience;
use crate::processor::Filter;
use crate::processor::Outcome;
use crate::processor::Outgoing;
use crate::processor::Sender;
use crate::processor::registry::Services;

/// The name: config key, queue suffix, command line, metric label, and the id in settings.
pub const NAME: &str = "apprise";

/// Most recipients that are listed; the rest is counted.
const RECIPIENTS_MAX: usize = 10;
/// Until when a limit holds that names no time.
const LIMITED: Duration = Duration::from_secs(30);

/// Hands notifications to an Apprise API server.
pub struct Apprise {
    config: AppriseConfig,
    http: reqwest::Client,
}

/// Makes the sender of `notifications.processors.apprise`, if somebody wrote it.
///
/// # Errors
/// What is missing or cannot be, at its key.
pub fn build(section: &Section, _: &Services) -> Result<Option<Arc<dyn Sender>>, ConfigError> {
    let Some(config) = AppriseConfig::read(section)? else {
        return Ok(None);
    };
    let apprise = Apprise::new(config)
        .map_err(|why| section.error(format!("`{}`: {why}", section.key()), ""))?;
    Ok(Some(Arc::new(apprise)))
}

impl Apprise {
    /// Builds it; connects to nothing.
    ///
    /// # Errors
    /// Says why there can be no client.
    pub fn new(config: AppriseConfig) -> Result<Self, String> {
        let http = crate::client::builder().timeout(config.timeout()).build();
        Ok(Self {
            http: http.map_err(|error| error.to_string())?,
            config,
        })
    }

    /// The services of a target, if there are any.
    fn behind(&self, target: &str) -> Option<Behind<'_>> {
        match target {
            "" => self.config.services(),
            name => self.config.of_route(self.config.route(name)?),
        }
    }

    /// A path of the server.
    fn url(&self, path: &[&str]) -> Result<Url, Failure> {
        let mut url = self.config.url.clone();
        let Ok(mut segments) = url.path_segments_mut() else {
            return Err(Failure::dependency(Reason::Config, "`url` has no path"));
        };
        segments.pop_if_empty().extend(path);
        drop(segments);
        Ok(url)
    }

    fn signed(&self, request: reqwest::RequestBuilder) -> reqwest::RequestBuilder {
        match (&self.config.username, &self.config.password) {
            (Some(user), Some(password)) => request.basic_auth(user, Some(password.expose())),
            _ => request,
        }
    }

    async fn hand_over(&self, one: &Outgoing<'_>, behind: Behind<'_>) -> Result<(), Failure> {
        let (url, body, several) = match behind {
            Behind::Kept { key, tags } => {
                let mut body = message(one);
                if !tags.is_empty() {
                    body["tag"] = json!(tags);
                }
                (self.url(&["notify", key])?, body, true)
            }
            Behind::Named(urls) => {
                let mut body = message(one);
                let urls: Vec<&str> = urls.iter().map(|one| one.expose()).collect();
                body["urls"] = json!(urls);
                (self.url(&["notify"])?, body, 1 < urls.len())
            }
        };
        let request = self
            .http
            .post(url)
            .header("idempotency-key", one.delivery.to_string())
            .json(&body);
        let response = self
            .signed(request)
            .send()
            .await
            .map_err(|error| self.away(&error))?;
        let after = response.headers().get(RETRY_AFTER).and_then(|after| {
            let seconds = after.to_str().ok()?.trim().parse().ok()?;
            Some(Duration::from_secs(seconds))
        });
        judge(response.status(), after, several)
    }

    /// What went wrong before there was an answer. Of the address, the host is enough.
    fn away(&self, error: &reqwest::Error) -> Failure {
        let host = self.config.url.host_str().unwrap_or_default();
        if error.is_connect() {
            Failure::dependency(Reason::Network, format!("no connection to {host}"))
        } else if error.is_timeout() {
            Failure::transient(Reason::Timeout, format!("no answer of {host} in time"))
        } else {
            Failure::transient(Reason::Network, format!("the connection to {host} broke"))
        }
    }
}

/// What an answer means. `several`: more than one service may stand behind, so that trying again
/// would tell those twice that took it.
/// Source: Apprise API, "API Details"; the classes are ours.
fn judge(status: StatusCode, after: Option<Duration>, several: bool) -> Result<(), Failure> {
    let says = format!("Apprise answered {}", status.as_u16());
    Err(match status.as_u16() {
        204 => Failure::permanent(
            Reason::Config,
            format!("{says}: it keeps no service under this key and these tags"),
        ),
        200..=299 => return Ok(()),
        424 if several => Failure::permanent(
            Reason::Rejected,
            format!(
                "{says}: at least one service did not take it; not tried again, since others may have"
            ),
        ),
        424 => Failure::transient(
            Reason::Rejected,
            format!("{says}: the service did not take it"),
        ),
        429 => Failure::later(Reason::Rate, after.unwrap_or(LIMITED), says),
        401 | 403 | 407 => Failure::dependency(Reason::Auth, says),
        404 | 405 => Failure::dependency(Reason::Config, format!("{says}: is `url` right?")),
        300..=399 => Failure::dependency(
            Reason::Config,
            format!("{says}: redirects are not followed"),
        ),
        400..=499 => Failure::permanent(Reason::Rejected, says),
        _ => Failure::transient(Reason::Server, says),
    })
}

/// The body of a call, but for where it goes.
fn message(one: &Outgoing<'_>) -> Value {
    let payload = one.payload;
    let kind = match payload.severity() {
        Severity::Critical => "failure",
        Severity::High => "warning",
        Severity::Normal | Severity::Low => "info",
    };
    let given = |text: &Option<String>| text.as_deref().is_some_and(|text| !text.trim().is_empty());
    let mut parts = Vec::new();
    if given(&payload.description) {
        parts.extend(payload.description.clone());
    }
    if given(&payload.link) {
        parts.push(one.link.to_string());
    }
    parts.push(format!("For {}", recipients(one.recipients)));
    json!({"title": payload.title, "body": parts.join("\n\n"), "type": kind, "format": "text"})
}

/// For whom it is, in words.
fn recipients(refs: &[String]) -> String {
    if refs.is_empty() {
        return "everybody".to_owned();
    }
    let listed = refs.iter().take(RECIPIENTS_MAX).map(String::as_str);
    let listed = listed.collect::<Vec<_>>().join(", ");
    match refs.len().saturating_sub(RECIPIENTS_MAX) {
        0 => listed,
        more => format!("{listed} and {more} more"),
    }
}

#[async_trait]
impl Sender for Apprise {
    fn name(&self) -> &str {
        NAME
    }

    fn audience(&self) -> Audience {
        Audience::PerSubmission
    }

    fn filter(&self) -> &Filter {
        &self.config.filter
    }

    /// The routes that take it; none means the services of what has no route.
    async fn targets(&self, one: &Outgoing<'_>) -> Result<Vec<String>, Failure> {
        let routes = self.config.routes.iter().enumerate();
        let taking = routes.filter(|(_, route)| route.takes(one));
        Ok(taking.map(|(no, route)| route.name(no)).collect())
    }

    async fn send(&self, one: &Outgoing<'_>) -> Outcome {
        let Some(behind) = self.behind(one.target) else {
            return match one.target {
                "" => Outcome::Skipped {
                    reason: Reason::Muted,
                    detail: "no route takes it".to_owned(),
                },
                name => Outcome::Skipped {
                    reason: Reason::Config,
                    detail: format!("there is no route {name} any more"),
                },
            };
        };
        match self.hand_over(one, behind).await {
            Ok(()) => Outcome::Sent { provider_id: None },
            Err(failure) => Outcome::Failed(failure),
        }
    }

    /// Asks the server how it is.
    async fn probe(&self) -> Result<String, Failure> {
        let request = self.signed(self.http.get(self.url(&["status"])?));
        let response = request
            .send()
            .await
            .map_err(|error| Failure::dependency(Reason::Network, self.away(&error).detail))?;
        match response.status().as_u16() {
            200..=299 => Ok("it is well".to_owned()),
            404 => Ok("it answers, and has no /status".to_owned()),
            401 | 403 => Err(Failure::dependency(
                Reason::Auth,
                "it refuses `username` and `password`",
            )),
            status => Err(Failure::dependency(
                Reason::Server,
                format!("/status answers {status}"),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recipients_are_listed_and_many_are_counted() {
        let refs: Vec<String> = (0..12).map(|n| format!("user:u{n}")).collect();
        assert_eq!(recipients(&refs[..2]), "user:u0, user:u1");
        assert!(recipients(&refs).ends_with("user:u9 and 2 more"));
        assert_eq!(recipients(&[]), "everybody");
    }
}
