//! A plain HTTP service that records what it got, and answers as it is told.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::Mutex;

use axum::Json;
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::Notify;

use crate::support::app::LIMIT;

#[derive(Default)]
struct Inner {
    got: Mutex<Vec<Value>>,
    answers: Mutex<VecDeque<u16>>,
    came: Notify,
}

/// The service; gone with the test's runtime.
pub(super) struct Service {
    inner: Arc<Inner>,
    url: String,
}

impl Service {
    pub(super) async fn start() -> Self {
        let inner = Arc::new(Inner::default());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/notes", listener.local_addr().unwrap());
        let routes = Router::new()
            .route("/notes", post(take))
            .with_state(Arc::clone(&inner));
        tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
        Self { inner, url }
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// How it answers next; with 200 afterwards.
    pub(super) fn answer(&self, statuses: &[u16]) {
        self.inner.answers.lock().unwrap().extend(statuses);
    }

    /// All it got so far.
    pub(super) fn got(&self) -> Vec<Value> {
        self.inner.got.lock().unwrap().clone()
    }

    /// All it got, once that is so many.
    pub(super) async fn wait_for(&self, count: usize) -> Vec<Value> {
        let enough = async {
            loop {
                let came = self.inner.came.notified();
                if count <= self.got().len() {
                    return self.got();
                }
                came.await;
            }
        };
        tokio::time::timeout(LIMIT, enough).await.unwrap()
    }
}

async fn take(State(inner): State<Arc<Inner>>, Json(body): Json<Value>) -> StatusCode {
    inner.got.lock().unwrap().push(body);
    let status = inner.answers.lock().unwrap().pop_front().unwrap_or(200);
    inner.came.notify_waiters();
    StatusCode::from_u16(status).unwrap()
}
