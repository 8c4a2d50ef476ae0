//! What operators look at: everything at a glance, and somebody's inbox.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use http::Uri;
use serde_json::Value;
use serde_json::json;

use super::Parts;
use super::query;
use super::rest;
use crate::http::Caller;
use crate::http::HttpError;
use crate::http::no_query;
use crate::queue::Depth;
use crate::store::ChannelSummary;
use crate::store::EndpointState;
use crate::store::Process;
use crate::time::Timestamp;

/// A process that was not heard of for so long has died, or cannot reach the store.
const SILENT_AFTER: Duration = Duration::from_secs(60);

/// A message that waits for so long while nobody takes it means that a role is missing.
const STUCK_AFTER: Duration = Duration::from_secs(30);

pub(super) async fn inbox(
    State(parts): State<Parts>,
    caller: Caller,
    uri: Uri,
) -> Result<Json<Value>, HttpError> {
    let (user, query) = query::list_of(&uri)?;
    caller.operator()?;
    Ok(Json(rest::page(&parts.store.list(&user, &query).await?)))
}

/// Processes, queues, channels, dead letters; and what is not well, in words. It answers also
/// while the store or the queue is away, and says so.
pub(super) async fn status(
    State(parts): State<Parts>,
    caller: Caller,
    uri: Uri,
) -> Result<Json<Value>, HttpError> {
    no_query(&uri)?;
    caller.operator()?;
    let now = Timestamp::now();
    let (processes, summary, depths, endpoints, pauses) = tokio::join!(
        parts.store.processes(),
        parts.store.summary(),
        parts.queue.depths(),
        parts.store.endpoints(),
        parts.store.pauses()
    );
    let mut degraded: Vec<String> = parts
        .readiness
        .troubles()
        .into_iter()
        .map(|(what, detail)| format!("{what}: {detail}"))
        .collect();
    let mut or_default = |error: String| degraded.push(error);
    let processes = processes.unwrap_or_else(|error| {
        or_default(error.to_string());
        Vec::new()
    });
    let summary = summary.unwrap_or_default();
    let depths = depths.unwrap_or_else(|error| {
        or_default(error.to_string());
        Vec::new()
    });
    degraded.extend(processes.iter().flat_map(|one| process_troubles(one, now)));
    degraded.extend(depths.iter().filter_map(|one| queue_trouble(one, now)));
    degraded.extend(summary.channels.iter().filter_map(channel_trouble));
    // Where the store is away, that is told already.
    degraded.extend(endpoints.iter().flatten().filter_map(endpoint_trouble));
    degraded.sort();
    degraded.dedup();
    Ok(Json(json!({
        "now": now,
        "version": env!("CARGO_PKG_VERSION"),
        "degraded": degraded,
        "processes": processes,
        "queues": depths.iter().map(|one| queue(one, now)).collect::<Vec<_>>(),
        "summary": summary,
        "paused": pauses.unwrap_or_default(),
    })))
}

fn queue(depth: &Depth, now: Timestamp) -> Value {
    json!({
        "queue": depth.key,
        "ready": depth.ready,
        "consumers": depth.consumers,
        "oldest": depth.oldest,
        "oldestSeconds": depth.oldest.map(|oldest| now.since(oldest).as_secs()),
    })
}

fn process_troubles(process: &Process, now: Timestamp) -> Vec<String> {
    let name = format!("{} (pid {} on {})", process.role, process.pid, process.host);
    let silent = now.since(process.seen_at);
    if SILENT_AFTER < silent {
        return vec![format!("{name}: not heard of for {} s", silent.as_secs())];
    }
    process
        .trouble
        .iter()
        .map(|trouble| format!("{name}: {trouble}"))
        .collect()
}

fn queue_trouble(depth: &Depth, now: Timestamp) -> Option<String> {
    let waited = now.since(depth.oldest?);
    let stuck = depth.ready > 0 && depth.consumers == 0 && STUCK_AFTER < waited;
    stuck.then(|| {
        format!(
            "queue {}: {} wait for {} s and nobody takes them",
            depth.key,
            depth.ready,
            waited.as_secs()
        )
    })
}

/// An endpoint that was disabled.
fn endpoint_trouble(endpoint: &EndpointState) -> Option<String> {
    let EndpointState {
        channel,
        name,
        detail,
        ..
    } = endpoint;
    let at = endpoint.disabled_at?;
    Some(format!(
        "endpoint {channel} {name} is disabled since {at}: {detail}; to take it up again: \
         tidings endpoints enable {channel} {name}"
    ))
}

/// A channel whose last try failed while others wait.
fn channel_trouble(channel: &ChannelSummary) -> Option<String> {
    let failing = channel.last_sent < channel.last_failed && channel.pending > 0;
    failing.then(|| {
        let why = channel
            .last_failure
            .as_deref()
            .unwrap_or("the last try failed");
        format!(
            "channel {}: {} wait; {why}",
            channel.channel, channel.pending
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_is_stuck_when_messages_wait_and_nobody_takes_them() {
        let now = Timestamp::from_millis(1_000_000);
        let depth = |ready, consumers, age| Depth {
            key: "chunks".into(),
            ready,
            consumers,
            oldest: Some(now.minus(Duration::from_secs(age))),
        };
        assert!(queue_trouble(&depth(1, 0, 31), now).is_some());
        assert!(queue_trouble(&depth(1, 1, 31), now).is_none());
        assert!(queue_trouble(&depth(1, 0, 5), now).is_none());
        assert!(queue_trouble(&depth(0, 0, 99), now).is_none());
    }

    #[test]
    fn a_channel_is_in_trouble_while_its_last_try_failed_and_others_wait() {
        let at = |ms| Some(Timestamp::from_millis(ms));
        let channel = |pending, sent, failed| ChannelSummary {
            channel: "email".into(),
            sent: 0,
            pending,
            failed: 0,
            last_sent: sent,
            last_failed: failed,
            last_failure: Some("451 later".into()),
        };
        assert!(channel_trouble(&channel(1, None, at(1))).is_some());
        assert!(channel_trouble(&channel(1, at(2), at(1))).is_none());
        assert!(channel_trouble(&channel(0, None, at(1))).is_none());
    }
}
