//! The decorator `http`: asks an external service what to make of a notification.
//!
//! It posts `{"submission", "origin", "user"?, "payload"}` and takes one of these answers: 204, or
//! 200 with `{}`: leave it; 200 with `{"set": {…}}`: these fields instead, `null` removes one; 200
//! with `{"drop": "why"}`: do not send it. A service that is down is left alone for a while, so
//! that a flood of notifications does not wait for it one by one; the decorator's policy applies
//! to those at once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use reqwest::Client;
use reqwest::StatusCode;
use reqwest::header::HeaderMap;
use reqwest::header::HeaderName;
use reqwest::header::HeaderValue;
use serde::Deserialize;
use serde::Serialize;
use serde_json::Map;
use serde_json::Value;
use url::Url;
use uuid::Uuid;

use crate::client;
use crate::config::ConfigError;
use crate::config::Section;
use crate::failure::Failure;
use crate::failure::Reason;
use crate::notification::Payload;
use crate::processor::Decorated;
use crate::processor::Decorator;
use crate::processor::Draft;
use crate::processor::Filter;
use crate::processor::Stage;
use crate::processor::breaker::Breakers;
use crate::processor::breaker::Pass;
use crate::processor::registry::Services;
use crate::submission::check_content;

/// The wire name: config key and metric label.
pub const NAME: &str = "http";

/// Largest answer that is read: a payload cannot be larger than the largest submission.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// What stands in `tidings.decorators[]` beside `name`, `policy` and `timeout`.
///
/// ```yaml
/// - name: http
///   timeout: 2s
///   url: https://enrich.example.com/decorate
///   headers: { Authorization: "Bearer ${ENRICH_TOKEN}" }
/// ```
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Options {
    url: String,
    /// May hold secrets.
    #[serde(default)]
    headers: BTreeMap<String, String>,
    /// Once for each person rather than once for each submission.
    #[serde(default)]
    per_person: bool,
    #[serde(default)]
    filter: Filter,
}

/// The decorator.
struct Http {
    client: Client,
    url: Url,
    headers: HeaderMap,
    stage: Stage,
    filter: Filter,
    app_base_url: Url,
    breakers: Breakers,
}

/// What the service is asked.
#[derive(Serialize)]
struct Question<'a> {
    submission: Uuid,
    origin: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    payload: &'a Payload,
}

/// What it answers.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Answer {
    #[serde(default)]
    set: Map<String, Value>,
    drop: Option<String>,
}

/// Makes the decorator of an item of `tidings.decorators`.
///
/// # Errors
/// What is wrong with the options, at its place; a header's value is not repeated.
pub fn build(section: &Section, services: &Services) -> Result<Arc<dyn Decorator>, ConfigError> {
    let options: Options = section.read()?;
    let at = section.get("url");
    let url = Url::parse(&options.url).ok();
    let url = url.filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    let url = url.ok_or_else(|| {
        let what = format!("`{}` must be an http or https address", at.key());
        at.error(what, "write it as https://enrich.example.com/decorate")
    })?;
    let mut headers = HeaderMap::new();
    for (name, value) in &options.headers {
        let at = section.get("headers").get(name);
        let wrong = |what: &str| at.error(format!("`{}` is {what}", at.key()), "see RFC 9110");
        let name: HeaderName = name.parse().map_err(|_| wrong("no name of a header"))?;
        let mut value: HeaderValue = value.parse().map_err(|_| wrong("no value of a header"))?;
        value.set_sensitive(true);
        headers.insert(name, value);
    }
    let client = client::builder().build().map_err(|error| {
        section.error(
            format!("no HTTP client can be made: {error}"),
            "report this",
        )
    })?;
    Ok(Arc::new(Http {
        client,
        url,
        headers,
        stage: if options.per_person {
            Stage::PerPerson
        } else {
            Stage::PerSubmission
        },
        filter: options.filter,
        app_base_url: services.app_base_url.clone(),
        breakers: Breakers::default(),
    }))
}

impl Http {
    /// Asks; a failure is one of the service as a whole, or of this notification.
    async fn ask(&self, draft: &Draft<'_>) -> Result<Answer, Asked> {
        let question = Question {
            submission: draft.submission,
            origin: draft.origin,
            user: draft.user,
            payload: draft.payload,
        };
        let request = self.client.post(self.url.clone());
        let request = request.headers(self.headers.clone()).json(&question);
        let mut answer = request.send().await.map_err(|error| {
            let (reason, what) = if error.is_timeout() {
                (Reason::Timeout, "no answer in time")
            } else {
                (Reason::Network, "no connection to the service")
            };
            Asked::Down(Failure::transient(reason, what))
        })?;
        let status = answer.status();
        match status {
            StatusCode::NO_CONTENT => return Ok(Answer::default()),
            StatusCode::OK => {}
            _ => return Err(of_status(status)),
        }
        let invalid =
            |what: &str| Asked::Failed(Failure::permanent(Reason::Invalid, what.to_owned()));
        let mut body = Vec::new();
        while let Some(part) = answer.chunk().await.map_err(|_| {
            Asked::Down(Failure::transient(
                Reason::Network,
                "the answer was cut off",
            ))
        })? {
            if ANSWER_BYTES_MAX < body.len() + part.len() {
                return Err(invalid("the service's answer is longer than 1 MiB"));
            }
            body.extend_from_slice(&part);
        }
        serde_json::from_slice(&body)
            .map_err(|_| invalid("the service's answer is not {\"set\": …} or {\"drop\": …}"))
    }

    /// What the answer makes of the content.
    fn apply(&self, payload: &Payload, answer: Answer) -> Result<Decorated, Failure> {
        if let Some(why) = answer.drop {
            return Ok(Decorated::Drop(why.chars().take(200).collect()));
        }
        let refuse = |why: String| Failure::permanent(Reason::Invalid, why);
        let changed = payload
            .patched(&answer.set)
            .map_err(|_| refuse("the service's answer makes no notification".to_owned()))?;
        check_content(&changed, &self.app_base_url)
            .map_err(|invalid| refuse(format!("the service's answer: {}", invalid.with_place())))?;
        if &changed == payload {
            return Ok(Decorated::Keep);
        }
        Ok(Decorated::Change(changed))
    }
}

/// A question that is given up, since it takes longer than the decorator may, is a service that is
/// down.
struct Hanging<'a>(Option<Pass<'a>>);

impl Drop for Hanging<'_> {
    fn drop(&mut self) {
        if let Some(pass) = self.0.take() {
            let failure = Failure::transient(Reason::Timeout, "no answer in time");
            pass.down(failure, Instant::now());
        }
    }
}

/// Why there is no answer.
enum Asked {
    /// The service is down.
    Down(Failure),
    /// It would not have this one.
    Failed(Failure),
}

fn of_status(status: StatusCode) -> Asked {
    let what = format!("the service answered {}", status.as_u16());
    match status.as_u16() {
        401 | 403 => Asked::Failed(Failure::permanent(Reason::Auth, what)),
        429 => Asked::Failed(Failure::transient(Reason::Rate, what)),
        500.. => Asked::Down(Failure::transient(Reason::Server, what)),
        _ => Asked::Failed(Failure::permanent(Reason::Rejected, what)),
    }
}

#[async_trait]
impl Decorator for Http {
    fn name(&self) -> &str {
        NAME
    }

    fn stage(&self) -> Stage {
        self.stage
    }

    fn filter(&self) -> &Filter {
        &self.filter
    }

    async fn decorate(&self, draft: Draft<'_>) -> Result<Decorated, Failure> {
        let pass = self.breakers.ask(NAME, Instant::now()).map_err(|wait| {
            let what = format!("the service is down; asked again in {} s", wait.as_secs());
            Failure::transient(Reason::Server, what)
        })?;
        let mut hanging = Hanging(Some(pass));
        let asked = self.ask(&draft).await;
        let Some(pass) = hanging.0.take() else {
            return Ok(Decorated::Keep);
        };
        match asked {
            Ok(answer) => {
                pass.well();
                self.apply(draft.payload, answer)
            }
            Err(Asked::Failed(failure)) => {
                pass.well();
                Err(failure)
            }
            Err(Asked::Down(failure)) => {
                pass.down(failure.clone(), Instant::now());
                Err(failure)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::time::Duration;

    use axum::Json;
    use axum::Router;
    use axum::http::HeaderMap;
    use axum::response::IntoResponse as _;
    use axum::response::Response;
    use axum::routing::post;
    use serde_json::json;

    use super::*;
    use crate::processor::registry;

    /// What a service was asked, with its `Authorization`.
    type Asked = Arc<Mutex<Vec<(String, Value)>>>;

    /// A service that answers as the title says.
    async fn service() -> (String, Asked) {
        let asked = Asked::default();
        let seen = Arc::clone(&asked);
        let answer = move |headers: HeaderMap, Json(question): Json<Value>| async move {
            let token = headers["authorization"].to_str().unwrap().to_owned();
            let title = question["payload"]["title"].as_str().unwrap().to_owned();
            seen.lock().unwrap().push((token, question));
            answer(&title).await
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/decorate", listener.local_addr().unwrap());
        let routes = Router::new().route("/decorate", post(answer));
        tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
        (url, asked)
    }

    async fn answer(title: &str) -> Response {
        match title {
            "set" => Json(json!({"set": {"icon": "sun", "link": null}})).into_response(),
            "drop" => Json(json!({"drop": "not today"})).into_response(),
            "keep" => StatusCode::NO_CONTENT.into_response(),
            "script" => Json(json!({"set": {"link": "javascript:1"}})).into_response(),
            "html" => "<html>".into_response(),
            "moved" => (StatusCode::FOUND, [("location", "http://127.0.0.1:1/")]).into_response(),
            "hang" => std::future::pending().await,
            status => {
                let status: u16 = status.parse().unwrap();
                StatusCode::from_u16(status).unwrap().into_response()
            }
        }
    }

    fn decorator(url: &str) -> Arc<dyn Decorator> {
        let item = format!(
            "{{ name: http, url: \"{url}\", headers: {{ Authorization: \"Bearer canary\" }} }}"
        );
        registry::tests::one_decorator(&item).unwrap()
    }

    async fn ask(decorator: &dyn Decorator, title: &str) -> Result<Decorated, Failure> {
        let payload = Payload {
            title: title.to_owned(),
            link: Some("/x".to_owned()),
            ..Payload::default()
        };
        let draft = Draft {
            submission: Uuid::nil(),
            origin: "ci",
            user: None,
            person: None,
            payload: &payload,
        };
        decorator.decorate(draft).await
    }

    #[tokio::test]
    async fn a_service_sets_drops_and_leaves_alone() {
        let (url, asked) = service().await;
        let decorator = decorator(&url);
        let Decorated::Change(changed) = ask(&*decorator, "set").await.unwrap() else {
            panic!("kept");
        };
        assert_eq!((changed.icon.as_deref(), changed.link), (Some("sun"), None));
        let dropped = Decorated::Drop("not today".to_owned());
        assert_eq!(ask(&*decorator, "drop").await, Ok(dropped));
        assert_eq!(ask(&*decorator, "keep").await, Ok(Decorated::Keep));
        let asked = asked.lock().unwrap();
        assert_eq!(asked[0].0, "Bearer canary");
        assert_eq!(asked[0].1["origin"], "ci");
    }

    #[tokio::test]
    async fn what_a_service_should_not_answer_is_a_failure_of_this_notification() {
        let (url, asked) = service().await;
        let decorator = decorator(&url);
        for (title, reason) in [
            ("script", Reason::Invalid),
            ("html", Reason::Invalid),
            ("moved", Reason::Rejected),
            ("401", Reason::Auth),
            ("429", Reason::Rate),
            ("422", Reason::Rejected),
        ] {
            let failure = ask(&*decorator, title).await.unwrap_err();
            assert_eq!(failure.reason, reason, "{title}: {failure}");
            assert!(!failure.detail.contains("canary"), "{failure}");
        }
        assert_eq!(asked.lock().unwrap().len(), 6, "each was asked");
    }

    #[tokio::test]
    async fn a_service_that_is_down_is_left_alone_for_a_while() {
        for title in ["503", "hang"] {
            let (url, asked) = service().await;
            let decorator = decorator(&url);
            let first = ask(&*decorator, title);
            let first = tokio::time::timeout(Duration::from_millis(300), first).await;
            assert!(!matches!(first, Ok(Ok(_))));
            let failure = ask(&*decorator, "set").await.unwrap_err();
            assert!(failure.detail.contains("the service is down"), "{failure}");
            assert_eq!(asked.lock().unwrap().len(), 1);
        }
        let nobody = decorator("http://127.0.0.1:1/");
        assert_eq!(
            ask(&*nobody, "set").await.unwrap_err().reason,
            Reason::Network
        );
    }

    #[test]
    fn what_cannot_work_is_found_at_the_start_and_no_secret_is_shown() {
        for (options, words) in [
            ("url: \"ftp://x\"", "http or https address"),
            (
                "url: \"http://x\", headers: { \"a b\": canary }",
                "no name of a header",
            ),
            (
                "url: \"http://x\", headers: { A: \"canary\\n\" }",
                "no value of a header",
            ),
        ] {
            let item = format!("{{ name: http, {options} }}");
            let error = registry::tests::one_decorator(&item).err().unwrap();
            let message = &error.message;
            assert!(message.contains(words), "{words} in {message}");
            assert!(!message.contains("canary"), "{message}");
        }
    }
}
