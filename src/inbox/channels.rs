//! The processors that are configured, and the switches of channels.

use axum::Json;
use axum::extract::Path;
use axum::extract::State;
use http::Uri;
use serde::Serialize;
use serde_json::Value;
use serde_json::json;

use super::Parts;
use crate::http::Caller;
use crate::http::HttpError;
use crate::http::no_query;
use crate::topology;

/// What there is to know of a processor from the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Processor {
    /// Its name.
    pub name: String,
    /// `decorator` or `sender`.
    pub kind: &'static str,
    /// `here`: in Tidings' own programs; `queue`: a program of its own.
    pub place: &'static str,
    /// Of a decorator: when it runs, and what its failure means. Of a sender: for whom it sends.
    pub detail: String,
    /// Of a sender: its id in people's settings.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channel: Option<String>,
}

impl Processor {
    /// Its queues.
    fn queues(&self) -> Vec<String> {
        match (self.kind, self.place) {
            ("sender", _) => [false, true]
                .map(|bulk| topology::deliver(&self.name, bulk))
                .to_vec(),
            (_, "queue") => vec![topology::decorate(&self.name)],
            _ => Vec::new(),
        }
    }
}

/// What is configured, in the order in which it runs, with how it is.
pub(super) async fn processors(
    State(parts): State<Parts>,
    caller: Caller,
    uri: Uri,
) -> Result<Json<Value>, HttpError> {
    no_query(&uri)?;
    caller.operator()?;
    let (depths, summary, pauses) = tokio::join!(
        parts.queue.depths(),
        parts.store.summary(),
        parts.store.pauses()
    );
    let (depths, summary, pauses) = (depths.unwrap_or_default(), summary?, pauses?);
    let told = parts.processors.iter().map(|one| {
        let queues = one.queues();
        let depths = depths.iter().filter(|depth| queues.contains(&depth.key));
        let (ready, consumers) = depths.fold((0, 0), |(ready, consumers), depth| {
            (ready + depth.ready, consumers + depth.consumers)
        });
        let channel = summary.channels.iter().find(|row| row.channel == one.name);
        let pause = pauses.iter().find(|pause| pause.channel == one.name);
        let mut told = json!(one);
        if !queues.is_empty() {
            told["ready"] = json!(ready);
            told["consumers"] = json!(consumers);
        }
        if one.kind == "sender" {
            told["state"] = json!(if pause.is_some() { "paused" } else { "on" });
            told["paused"] = json!(pause);
            told["pending"] = json!(channel.map_or(0, |row| row.pending));
            told["lastSent"] = json!(channel.and_then(|row| row.last_sent));
            told["lastFailure"] = json!(channel.and_then(|row| row.last_failure.clone()));
        }
        told
    });
    Ok(Json(json!({"processors": told.collect::<Vec<_>>()})))
}

/// Pauses a channel: its deliveries wait until it is resumed.
pub(super) async fn pause(
    State(parts): State<Parts>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<Json<Value>, HttpError> {
    let by = caller.operator()?.to_owned();
    ours(&parts, &name)?;
    parts.store.pause(&name, &by).await?;
    tracing::info!(channel = name, by, "paused");
    Ok(Json(json!({"channel": name, "state": "paused"})))
}

/// Resumes a channel.
pub(super) async fn resume(
    State(parts): State<Parts>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<Json<Value>, HttpError> {
    let by = caller.operator()?.to_owned();
    // One that is not configured any more may still be paused.
    if !parts.store.resume(&name).await? {
        ours(&parts, &name)?;
    }
    tracing::info!(channel = name, by, "resumed");
    Ok(Json(json!({"channel": name, "state": "on"})))
}

/// Whether this is a sender that our own processes run.
fn ours(parts: &Parts, name: &str) -> Result<(), HttpError> {
    let senders = parts.processors.iter().filter(|one| one.kind == "sender");
    let mut known = Vec::new();
    for sender in senders {
        if sender.name == name && sender.place == "queue" {
            return Err(HttpError::input(format!(
                "`{name}` is sent by programs of its own: stop those, and its deliveries wait"
            )));
        }
        if sender.name == name {
            return Ok(());
        }
        known.push(sender.name.as_str());
    }
    let known = known.join(", ");
    Err(HttpError::input(format!(
        "no sender `{name}` is configured; there are: {known}"
    )))
}
