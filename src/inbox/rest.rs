//! The peer's routes for a person's inbox (contract 1.3, 1.4, 1.7).

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::Path;
use axum::extract::Request;
use axum::extract::State;
use http::HeaderValue;
use http::Uri;
use http::header::CONTENT_TYPE;
use serde_json::Value;
use serde_json::json;
use uuid::Uuid;

use super::Parts;
use super::query;
use crate::http::Caller;
use crate::http::HttpError;
use crate::http::no_query;
use crate::http::read_json;
use crate::notification::Notification;
use crate::signal::Signal;
use crate::store::Counts;
use crate::store::Mark;
use crate::store::Page;
use crate::submission::Fault;
use crate::submission::Invalid;
use crate::view;

/// Largest body of an update: the ids of about 100,000 notifications, since "mark all read" of
/// the peer's page sends them all.
const UPDATE_BODY_MAX: usize = 8 << 20;

/// Most ids that a signal names, as many as the peer takes in one body. Of more it names none:
/// pages read their list anew, whatever it names.
const SIGNAL_IDS_MAX: usize = 2_600;

/// A page of an inbox as JSON.
pub(super) fn page(page: &Page) -> Value {
    let rows: Vec<_> = page.notifications.iter().map(view::read).collect();
    json!({"totalCount": page.total, "notifications": rows})
}

pub(super) async fn list(
    State(parts): State<Parts>,
    caller: Caller,
    uri: Uri,
) -> Result<Json<Value>, HttpError> {
    let query = query::list(&uri)?;
    let user = caller.user()?;
    Ok(Json(page(&parts.store.list(&user, &query).await?)))
}

pub(super) async fn one(
    State(parts): State<Parts>,
    caller: Caller,
    uri: Uri,
    Path(params): Path<BTreeMap<String, String>>,
) -> Result<Json<Value>, HttpError> {
    no_query(&uri)?;
    let user = caller.user()?;
    let missing = || HttpError::not_found("Not found");
    let id = params.get("id").map_or("", String::as_str);
    let id = Uuid::try_parse(id).map_err(|_| missing())?;
    let found = parts.store.get(&user, id).await?;
    let notification = found.ok_or_else(missing)?;
    Ok(Json(view::read(&notification)))
}

pub(super) async fn status(
    State(parts): State<Parts>,
    caller: Caller,
    uri: Uri,
) -> Result<Json<Counts>, HttpError> {
    no_query(&uri)?;
    let user = caller.user()?;
    Ok(Json(parts.store.counts(&user).await?))
}

pub(super) async fn topics(
    State(parts): State<Parts>,
    caller: Caller,
    uri: Uri,
) -> Result<Json<Value>, HttpError> {
    let query = query::topics(&uri)?;
    let user = caller.user()?;
    let topics = parts.store.topics(&user, &query).await?;
    Ok(Json(json!({"topics": topics})))
}

/// The peer's own description of its API, for any caller.
pub(super) async fn openapi(_: Caller) -> ([(http::HeaderName, HeaderValue); 1], &'static str) {
    const DOCUMENT: &str = include_str!("openapi.json");
    let json = HeaderValue::from_static("application/json");
    ([(CONTENT_TYPE, json)], DOCUMENT)
}

/// What an update asks for.
#[derive(Debug, PartialEq)]
struct Update {
    ids: Vec<Uuid>,
    /// As they were sent, for the signal.
    texts: Vec<String>,
    mark: Mark,
}

impl Update {
    fn parse(body: &Value) -> Result<Self, Invalid> {
        let mut faults = Vec::new();
        let mut fault = |pointer: String, message: &str| {
            faults.push(Fault {
                pointer,
                message: message.to_owned(),
            });
        };
        if !body.is_object() {
            fault("#".to_owned(), "must be an object with `ids`");
        }
        let mut flag = |name: &str| match body.get(name) {
            None => None,
            Some(Value::Bool(flag)) => Some(*flag),
            Some(_) => {
                fault(format!("#/{name}"), "must be true or false");
                None
            }
        };
        let mark = Mark {
            read: flag("read"),
            saved: flag("saved"),
        };
        let (mut ids, mut texts) = (Vec::new(), Vec::new());
        match body.get("ids") {
            Some(Value::Array(items)) => {
                for (index, item) in items.iter().enumerate() {
                    match item.as_str().map(|text| (text, Uuid::try_parse(text))) {
                        Some((text, Ok(id))) => {
                            ids.push(id);
                            texts.push(text.to_owned());
                        }
                        _ => fault(format!("#/ids/{index}"), "must be the id of a notification"),
                    }
                }
            }
            Some(_) => fault("#/ids".to_owned(), "must be an array of ids"),
            None if body.is_object() => fault("#/ids".to_owned(), "is missing"),
            None => {}
        }
        if faults.is_empty() {
            return Ok(Self { ids, texts, mark });
        }
        let words: Vec<_> = faults
            .iter()
            .take(10)
            .map(|one| format!("{} {}", one.pointer, one.message))
            .collect();
        Err(Invalid {
            message: words.join("; "),
            faults,
        })
    }
}

pub(super) async fn update(
    State(parts): State<Parts>,
    caller: Caller,
    uri: Uri,
    request: Request,
) -> Result<Json<Vec<Value>>, HttpError> {
    no_query(&uri)?;
    let body = read_json(request, UPDATE_BODY_MAX).await?;
    let update = Update::parse(&body)?;
    let user = caller.user()?;
    let rows = mark(&parts, &user, &update.ids, update.mark).await?;
    if let Some(read) = update.mark.read {
        // As in the peer: with the ids as they were sent, whosever they are, and never for
        // `saved`.
        let named = if update.texts.len() <= SIGNAL_IDS_MAX {
            update.texts.as_slice()
        } else {
            &[]
        };
        let signal = Signal::marked(&user, named, read);
        parts.signal(&signal).await;
    }
    Ok(Json(rows.iter().map(view::read).collect()))
}

async fn mark(
    parts: &Parts,
    user: &str,
    ids: &[Uuid],
    mark: Mark,
) -> Result<Vec<Notification>, HttpError> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    Ok(parts.store.mark(user, ids, mark).await?)
}

/// Ours: what the peer's page does by sending every id.
pub(super) async fn mark_all_read(
    State(parts): State<Parts>,
    caller: Caller,
) -> Result<Json<Value>, HttpError> {
    let user = caller.user()?;
    let count = parts.store.mark_all_read(&user).await?;
    if count > 0 {
        parts.signal(&Signal::marked(&user, &[], true)).await;
    }
    Ok(Json(json!({"count": count})))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_of_an_update_is_named() {
        let faults = |body: Value| -> Vec<String> {
            let invalid = Update::parse(&body).unwrap_err();
            invalid.faults.into_iter().map(|one| one.pointer).collect()
        };
        assert_eq!(faults(json!([])), ["#"]);
        assert_eq!(faults(json!({})), ["#/ids"]);
        assert_eq!(faults(json!({"ids": "x"})), ["#/ids"]);
        assert_eq!(
            faults(json!({"ids": [1, "x"], "read": null, "saved": "yes"})),
            ["#/read", "#/saved", "#/ids/0", "#/ids/1"]
        );
        let id = Uuid::from_u128(1);
        let update = Update::parse(&json!({"ids": [id], "read": true})).unwrap();
        assert_eq!(update.ids, [id]);
        assert_eq!(update.mark.read, Some(true));
        assert_eq!(update.mark.saved, None);
    }
}
