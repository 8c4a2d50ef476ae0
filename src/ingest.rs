//! The small HTTP endpoint for producers: who calls, is it valid, publish, answer.
//!
//! It needs the queue and nothing else. An answer of 2xx means that the broker has confirmed the
//! submission. What the decorator finds later comes back as a reply, if the caller waits for it.

mod share;
mod waiter;
mod wish;

use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use axum::Json;
use axum::Router;
use axum::extract::Request;
use axum::extract::State;
use axum::response::IntoResponse;
use axum::response::Response;
use axum::routing::post;
use http::HeaderValue;
use http::StatusCode;
use http::header::LOCATION;
use serde_json::json;
use url::Url;
use uuid::Uuid;

pub use self::waiter::Waiter;

use self::share::Shares;
use self::wish::PREFERENCE_APPLIED;
use self::wish::Wish;
use crate::auth::Principal;
use crate::http::Caller;
use crate::http::HttpError;
use crate::http::no_query;
use crate::http::read_json;
use crate::notification::REPEAT_PREFIX;
use crate::notification::Severity;
use crate::queue::Message;
use crate::queue::Queue;
use crate::queue::QueueError;
use crate::reply::Reply;
use crate::reply::ReplyStatus;
use crate::submission::Draft;
use crate::submission::Submission;
use crate::submission::Via;
use crate::submission::check_content;
use crate::telemetry::Event;
use crate::telemetry::Events;
use crate::telemetry::metric;
use crate::time::Timestamp;
use crate::topology::SUBMISSIONS;
use crate::topology::SUBMISSIONS_BULK;

/// Largest body of a send, unless configured otherwise.
pub const BODY_LIMIT_DEFAULT: usize = 1 << 20;

/// The first pause before publishing is tried again; it doubles.
const PAUSE_FIRST: Duration = Duration::from_millis(50);
/// The longest such pause.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// What the endpoint works with.
#[derive(Clone)]
pub struct IngestParts {
    /// Where submissions go.
    pub queue: Arc<dyn Queue>,
    /// Hears what became of them.
    pub waiter: Waiter,
    /// Told of each that is accepted.
    pub events: Events,
    /// `app.baseUrl`, which links are resolved against.
    pub base_url: Url,
    /// Largest body, in bytes.
    pub body_limit: usize,
    /// How long an answer is held when the caller does not say (`tidings.ingest.wait`).
    pub wait: Duration,
    /// How long publishing is tried before 503.
    pub deadline: Duration,
    /// A decorator of whole submissions may still mend title or link, so that the rules on them
    /// are checked after it.
    pub defer_content: bool,
}

/// The send routes, to be merged with others and wrapped by [`crate::http::app`].
pub fn routes(parts: IngestParts) -> Router {
    Router::new()
        .route("/api/notifications", post(send))
        .route("/api/notifications/notifications", post(send))
        .with_state(Arc::new(Endpoint {
            parts,
            shares: Shares::default(),
        }))
}

/// The endpoint and what it remembers.
struct Endpoint {
    parts: IngestParts,
    shares: Shares,
}

async fn send(
    State(endpoint): State<Arc<Endpoint>>,
    caller: Caller,
    request: Request,
) -> Result<Response, HttpError> {
    let started = Instant::now();
    let origin = match &caller.0 {
        Principal::Service { subject, .. } => subject.clone(),
        Principal::User { .. } => "(user)".to_owned(),
    };
    let answer = accept(&endpoint, caller, request).await;
    let outcome = match &answer {
        Ok(_) => "accepted",
        Err(error) => match error.status() {
            StatusCode::BAD_REQUEST => "invalid",
            StatusCode::FORBIDDEN => "refused",
            _ => "unavailable",
        },
    };
    metrics::counter!(metric::SUBMISSIONS, "origin" => origin, "outcome" => outcome).increment(1);
    let (submission, wish) = answer?;
    metrics::histogram!(metric::STAGE_SECONDS, "stage" => "accept")
        .record(started.elapsed().as_secs_f64());
    submission.answer(&wish).await
}

/// Checks a request and publishes it. As in the peer: what it says (400) comes before who says
/// it (403), and the rules on its content come last.
async fn accept(
    endpoint: &Endpoint,
    caller: Caller,
    request: Request,
) -> Result<(Accepted, Wish), HttpError> {
    let parts = &endpoint.parts;
    no_query(request.uri())?;
    let wish = Wish::read(request.headers(), parts.wait)?;
    let body = read_json(request, parts.body_limit).await?;
    let draft = Draft::parse(&body)?;
    let origin = caller.sender()?;
    if !parts.defer_content {
        check_content(&draft.payload, &parts.base_url)?;
    }
    let submission = draft.submit(&origin, wish.key.clone(), Via::Http, Timestamp::now());
    let lane = endpoint.lane(&submission);
    let accepted = publish(parts, &submission, &wish, lane).await?;
    if parts.events.is_heard() {
        parts.events.tell(Event::Accepted {
            submission: submission.header.id,
            title: submission.payload.title,
            origin,
        });
    }
    Ok((accepted, wish))
}

impl Endpoint {
    /// The slow lane for an origin above its share; what is critical is never slow.
    fn lane(&self, submission: &Submission) -> &'static str {
        let urgent = submission.payload.severity() == Severity::Critical;
        if urgent || self.shares.take(&submission.header.origin, Instant::now()) {
            SUBMISSIONS
        } else {
            SUBMISSIONS_BULK
        }
    }
}

/// A submission that the queue has, and who may hear of it.
struct Accepted {
    id: Uuid,
    ticket: Option<waiter::Ticket>,
}

/// Publishes until the queue confirms or the deadline passes: always under the same id, so that
/// repeating does no harm.
async fn publish(
    parts: &IngestParts,
    submission: &Submission,
    wish: &Wish,
    lane: &str,
) -> Result<Accepted, HttpError> {
    let id = submission.header.id;
    let ticket = match wish.wait {
        Some(_) => parts.waiter.ticket(id),
        None => None,
    };
    let body = serde_json::to_vec(submission).map_err(|error| HttpError::internal(&error))?;
    let message = Message {
        reply: ticket.as_ref().map(waiter::Ticket::reply_to),
        ..Message::new(lane, id.to_string(), body)
    };
    let end = tokio::time::Instant::now() + parts.deadline;
    let mut pause = PAUSE_FIRST;
    loop {
        let tried = tokio::time::timeout_at(end, parts.queue.publish(vec![message.clone()])).await;
        let error = match tried {
            Ok(Ok(())) => return Ok(Accepted { id, ticket }),
            Ok(Err(error)) => error,
            Err(_) => QueueError::Unavailable("it did not confirm in time".to_owned()),
        };
        if end <= tokio::time::Instant::now() + pause {
            return Err(in_doubt(id, wish, &error));
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// 503: the queue did not confirm, so it may or may not have the submission.
fn in_doubt(id: Uuid, wish: &Wish, error: &QueueError) -> HttpError {
    tracing::warn!(submission = %id, %error, "a submission was not confirmed");
    let key = match &wish.key {
        Some(key) => key.clone(),
        None => format!("{REPEAT_PREFIX}{id}"),
    };
    HttpError::unavailable(format!(
        "submission {id} was not confirmed in time; repeat the request with the header Idempotency-Key: {key}, then it is delivered once"
    ))
    .with("submission", json!(id))
    .with("idempotencyKey", json!(key))
}

impl Accepted {
    /// 200 with what was stored, if that is known while the caller waits; else 202.
    async fn answer(self, wish: &Wish) -> Result<Response, HttpError> {
        let reply = match (self.ticket, wish.wait) {
            (Some(ticket), Some(wait)) => ticket.wait(wait).await,
            _ => None,
        };
        let mut response = match reply {
            Some(Reply {
                status: ReplyStatus::Stored,
                notifications: Some(stored),
                ..
            }) => Json(stored).into_response(),
            Some(Reply {
                error: Some(error), ..
            }) => return Err(HttpError::from(error).with("submission", json!(self.id))),
            _ => {
                let body = json!({"submission": self.id, "status": "accepted"});
                (StatusCode::ACCEPTED, Json(body)).into_response()
            }
        };
        let headers = response.headers_mut();
        let location = format!("/api/tidings/v1/submissions/{}", self.id);
        if let Ok(location) = HeaderValue::try_from(location) {
            headers.insert(LOCATION, location);
        }
        if let Some(applied) = wish.applied() {
            headers.insert(PREFERENCE_APPLIED, applied);
        }
        Ok(response)
    }
}
