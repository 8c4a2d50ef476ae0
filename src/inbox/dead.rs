//! Dead letters: look, put back, drop.

use axum::Json;
use axum::extract::Path;
use axum::extract::Request;
use axum::extract::State;
use http::Uri;
use serde::Deserialize;
use serde_json::Value;
use serde_json::json;

use super::Parts;
use super::query::Params;
use crate::failure::Reason;
use crate::http::Caller;
use crate::http::HttpError;
use crate::http::read_json;
use crate::queue::QueueError;
use crate::store::DeadFilter;
use crate::store::DeadLetter;
use crate::store::Settle;
use crate::time::Timestamp;

/// How many a list has when the caller does not say.
const LIST_DEFAULT: u64 = 100;

/// Most that one list has, and most that a dry run counts.
const LIST_MAX: u32 = 10_000;

/// How many are settled at once.
const BATCH: u32 = 100;

/// Largest body: a filter, or many ids.
const BODY_MAX: usize = 1 << 20;

pub(super) async fn list(
    State(parts): State<Parts>,
    caller: Caller,
    uri: Uri,
) -> Result<Json<Value>, HttpError> {
    caller.operator()?;
    let known = &["reason", "stage", "before", "after", "replayed", "limit"];
    let params = Params::read(&uri, known)?;
    let limit = params.number("limit")?.unwrap_or(LIST_DEFAULT);
    let filter = DeadFilter {
        ids: Vec::new(),
        reason: params.parse("reason", &reasons(), |text| text.parse().ok())?,
        stage: params.text("stage").map(str::to_owned),
        before: params.date("before")?,
        after: params.date("after")?,
        replayed: params.flag("replayed")?.unwrap_or(false),
        limit: u32::try_from(limit).unwrap_or(LIST_MAX).clamp(1, LIST_MAX),
    };
    let letters = parts.store.dead_letters(&filter).await?;
    let letters: Vec<_> = letters.iter().map(line).collect();
    Ok(Json(json!({"deadLetters": letters})))
}

/// A dead letter in a list: without what may be large.
fn line(letter: &DeadLetter) -> Value {
    let mut line = json!(letter);
    if let Some(fields) = line.as_object_mut() {
        fields.remove("body");
        fields.remove("headers");
    }
    line
}

pub(super) async fn show(
    State(parts): State<Parts>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<DeadLetter>, HttpError> {
    caller.operator()?;
    let missing = || HttpError::not_found(format!("there is no dead letter {id}"));
    let filter = DeadFilter {
        ids: vec![id.parse().map_err(|_| missing())?],
        replayed: true,
        ..DeadFilter::default()
    };
    let letters = parts.store.dead_letters(&filter).await?;
    letters.into_iter().next().map(Json).ok_or_else(missing)
}

/// Which dead letters an operator means.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Which {
    #[serde(default)]
    ids: Vec<i64>,
    reason: Option<Reason>,
    stage: Option<String>,
    before: Option<Timestamp>,
    after: Option<Timestamp>,
    /// Really all of them.
    #[serde(default)]
    all: bool,
    /// Only count them.
    #[serde(default, alias = "dry_run")]
    dry_run: bool,
}

impl Which {
    async fn read(request: Request) -> Result<Self, HttpError> {
        let body = read_json(request, BODY_MAX).await?;
        let which: Self = serde_path_to_error::deserialize(&body)
            .map_err(|error| HttpError::input(format!("in {}: {}", error.path(), error.inner())))?;
        let filtered = !which.ids.is_empty()
            || which.reason.is_some()
            || which.stage.is_some()
            || which.before.is_some()
            || which.after.is_some();
        if filtered || which.all {
            return Ok(which);
        }
        Err(HttpError::input(
            "say which: `ids`, or a filter (`reason`, `stage`, `before`, `after`), or `all`: true",
        ))
    }

    /// As a filter that does not see what dies from now on, so that a letter that dies again is
    /// not taken twice.
    fn filter(self, limit: u32) -> DeadFilter {
        let now = Timestamp::now();
        DeadFilter {
            ids: self.ids,
            reason: self.reason,
            stage: self.stage,
            before: Some(self.before.map_or(now, |before| before.min(now))),
            after: self.after,
            replayed: false,
            limit,
        }
    }
}

pub(super) async fn replay(
    State(parts): State<Parts>,
    caller: Caller,
    request: Request,
) -> Result<Json<Value>, HttpError> {
    settle(parts, caller, request, Settle::Replayed).await
}

pub(super) async fn discard(
    State(parts): State<Parts>,
    caller: Caller,
    request: Request,
) -> Result<Json<Value>, HttpError> {
    settle(parts, caller, request, Settle::Discard).await
}

async fn settle(
    parts: Parts,
    caller: Caller,
    request: Request,
    how: Settle,
) -> Result<Json<Value>, HttpError> {
    let which = Which::read(request).await?;
    let operator = caller.operator()?;
    if which.dry_run {
        let letters = parts.store.dead_letters(&which.filter(LIST_MAX)).await?;
        let ids: Vec<_> = letters.iter().map(|letter| letter.id).collect();
        return Ok(Json(
            json!({"count": ids.len(), "ids": ids, "dryRun": true}),
        ));
    }
    let filter = which.filter(BATCH);
    let mut done = Vec::new();
    loop {
        let letters = parts.store.dead_letters(&filter).await?;
        let ids: Vec<i64> = letters.iter().map(|letter| letter.id).collect();
        if ids.is_empty() || done.contains(&ids[0]) {
            break;
        }
        if how == Settle::Replayed {
            put_back(&parts, &letters).await.map_err(|error| {
                let detail = format!("{error}; {} were put back before it", done.len());
                HttpError::unavailable(detail)
            })?;
        }
        parts.store.settle_dead(&ids, how).await?;
        done.extend(ids);
    }
    tracing::info!(operator, ?how, count = done.len(), "dead letters settled");
    Ok(Json(
        json!({"count": done.len(), "ids": done, "dryRun": false}),
    ))
}

/// Back on their queues. First their deliveries become pending again, or a sender would find
/// nothing to do; should publishing fail then, they are swept up or put back another time.
async fn put_back(parts: &Parts, letters: &[DeadLetter]) -> Result<(), PutBackError> {
    let ids: Vec<i64> = letters.iter().map(|letter| letter.id).collect();
    parts.store.settle_dead(&ids, Settle::Reopen).await?;
    let messages = letters.iter().map(DeadLetter::revive).collect();
    Ok(parts.queue.publish(messages).await?)
}

#[derive(Debug, thiserror::Error)]
enum PutBackError {
    #[error(transparent)]
    Store(#[from] crate::store::StoreError),
    #[error(transparent)]
    Queue(#[from] QueueError),
}

/// Every reason, for an error.
fn reasons() -> String {
    let all: Vec<_> = Reason::ALL.iter().map(|one| one.as_str()).collect();
    format!("one of {}", all.join(", "))
}
