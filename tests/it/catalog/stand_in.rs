//! A catalog that answers as Backstage's does, and counts what it is asked.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::Mutex;

use axum::Json;
use axum::Router;
use axum::extract::Query;
use axum::extract::State;
use axum::response::IntoResponse;
use axum::response::Response;
use axum::routing::get;
use axum::routing::post;
use http::HeaderMap;
use http::StatusCode;
use serde_json::Value;
use serde_json::json;
use tokio::sync::Notify;
use tokio::sync::RwLock;

/// The token that it takes.
pub(crate) const TOKEN: &str = "token-of-the-catalog";

#[derive(Default)]
struct Inner {
    entities: Mutex<Vec<Value>>,
    /// How many refs each question named; for a page, none.
    questions: Mutex<Vec<usize>>,
    status: Mutex<Option<StatusCode>>,
    gate: Arc<RwLock<()>>,
    came: Notify,
}

/// A catalog that serves until it is dropped.
pub(crate) struct StandIn {
    inner: Arc<Inner>,
    address: std::net::SocketAddr,
    serving: tokio::task::JoinHandle<()>,
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl StandIn {
    pub(crate) async fn start(entities: Vec<Value>) -> Self {
        let inner = Arc::new(Inner {
            entities: Mutex::new(entities),
            ..Inner::default()
        });
        let routes = Router::new()
            .route("/api/catalog/entities/by-refs", post(by_refs))
            .route("/api/catalog/entities/by-query", get(by_query))
            .with_state(Arc::clone(&inner));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
        Self {
            inner,
            address,
            serving,
        }
    }

    /// `backend.baseUrl`.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn add(&self, entity: Value) {
        self.inner.entities.lock().unwrap().push(entity);
    }

    /// How many questions came.
    pub(crate) fn asked(&self) -> usize {
        self.inner.questions.lock().unwrap().len()
    }

    pub(crate) fn largest_question(&self) -> usize {
        *self.inner.questions.lock().unwrap().iter().max().unwrap()
    }

    /// From now on it answers every question with this status.
    pub(crate) fn answer_with(&self, status: u16) {
        *self.inner.status.lock().unwrap() = Some(StatusCode::from_u16(status).unwrap());
    }

    pub(crate) fn answer_well(&self) {
        *self.inner.status.lock().unwrap() = None;
    }

    /// It answers nothing before this is dropped.
    pub(crate) fn hold(&self) -> tokio::sync::OwnedRwLockWriteGuard<()> {
        Arc::clone(&self.inner.gate).try_write_owned().unwrap()
    }

    /// Waits until a question came.
    pub(crate) async fn question(&self) {
        self.inner.came.notified().await;
    }
}

/// Counts a question; an answer where it is refused.
async fn refused(inner: &Inner, headers: &HeaderMap, refs: usize) -> Option<Response> {
    inner.questions.lock().unwrap().push(refs);
    inner.came.notify_one();
    let _ = inner.gate.read().await;
    let status = *inner.status.lock().unwrap();
    let known = headers["authorization"] == format!("Bearer {TOKEN}");
    let status = status.or((!known).then_some(StatusCode::UNAUTHORIZED))?;
    let body = json!({"error": {"name": "Error", "message": "no"},
        "response": {"statusCode": status.as_u16()}});
    Some((status, Json(body)).into_response())
}

fn reference(entity: &Value) -> String {
    let metadata = &entity["metadata"];
    let namespace = metadata["namespace"].as_str().unwrap_or("default");
    let (kind, name) = (&entity["kind"], &metadata["name"]);
    format!(
        "{}:{namespace}/{}",
        kind.as_str().unwrap(),
        name.as_str().unwrap()
    )
    .to_lowercase()
}

/// Only these fields of an entity.
fn pick(entity: &Value, fields: &[String]) -> Value {
    let mut picked = json!({});
    for field in fields {
        let pointer = format!("/{}", field.replace('.', "/"));
        let Some(value) = entity.pointer(&pointer) else {
            continue;
        };
        let mut at = &mut picked;
        for part in field.split('.') {
            at = &mut at[part];
        }
        *at = value.clone();
    }
    picked
}

async fn by_refs(
    State(inner): State<Arc<Inner>>,
    headers: HeaderMap,
    Json(body): Json<Value>,
) -> Response {
    let strings = |name: &str| serde_json::from_value::<Vec<String>>(body[name].clone()).unwrap();
    let (refs, fields) = (strings("entityRefs"), strings("fields"));
    if let Some(refused) = refused(&inner, &headers, refs.len()).await {
        return refused;
    }
    let entities = inner.entities.lock().unwrap();
    let by_ref: HashMap<String, &Value> =
        entities.iter().map(|one| (reference(one), one)).collect();
    let found = |one: &String| {
        by_ref
            .get(&one.to_lowercase())
            .map(|one| pick(one, &fields))
    };
    let items: Vec<Option<Value>> = refs.iter().map(found).collect();
    Json(json!({"items": items})).into_response()
}

async fn by_query(
    State(inner): State<Arc<Inner>>,
    headers: HeaderMap,
    Query(query): Query<HashMap<String, String>>,
) -> Response {
    if let Some(refused) = refused(&inner, &headers, 0).await {
        return refused;
    }
    // The real cursor is opaque too; it holds the filter.
    let cursor = query
        .get("cursor")
        .cloned()
        .unwrap_or_else(|| format!("0 {}", query["filter"]));
    let (from, filter) = cursor.split_once(' ').unwrap();
    let from: usize = from.parse().unwrap();
    let limit: usize = query["limit"].parse().unwrap();
    let mut conditions = filter.split(',');
    let kind = conditions.next().unwrap().strip_prefix("kind=").unwrap();
    let with_email = conditions
        .next()
        .is_some_and(|one| one == "spec.profile.email");
    let fields: Vec<String> = query
        .get("fields")
        .map(|fields| fields.split(',').map(str::to_owned).collect())
        .unwrap_or_default();
    let entities = inner.entities.lock().unwrap();
    let all: Vec<&Value> = entities
        .iter()
        .filter(|one| one["kind"].as_str().unwrap().eq_ignore_ascii_case(kind))
        .filter(|one| !with_email || one.pointer("/spec/profile/email").is_some())
        .collect();
    let items: Vec<Value> = all
        .iter()
        .skip(from)
        .take(limit)
        .map(|one| pick(one, &fields))
        .collect();
    let next = from + limit;
    let page_info = if 0 < limit && next < all.len() {
        json!({"nextCursor": format!("{next} {filter}")})
    } else {
        json!({})
    };
    Json(json!({"items": items, "totalItems": all.len(), "pageInfo": page_info})).into_response()
}
