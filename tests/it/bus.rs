//! Signals of other plugins of a Backstage, over its events bus, against a stand-in with the
//! routes and answers of the real one.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use axum::Json;
use axum::Router;
use axum::body::Body;
use axum::extract::Path;
use axum::extract::State;
use axum::response::IntoResponse as _;
use axum::response::Response;
use axum::routing::get;
use axum::routing::put;
use futures::stream;
use http::HeaderMap;
use http::StatusCode;
use serde_json::Value;
use serde_json::json;
use tidings::auth::Auth;
use tidings::auth::UserKey;
use tidings::backstage::Backstage;
use tidings::backstage::Discovery;
use tidings::backstage::FixedToken;
use tidings::config::BackstageSettings;
use tidings::http::app;
use tidings::signals;
use tidings::signals::Bus;
use tidings::signals::Hub;
use tidings::telemetry::Readiness;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::http::Served;
use crate::support::app::eventually;
use crate::support::page::Page;

const GUEST: &str = "user:default/guest";
const TOKEN: &str = "token-of-signals";

/// The bus: what waits for each subscription, and how it fails.
#[derive(Clone)]
struct StandIn(Arc<Mutex<Waiting>>, watch::Sender<u64>);

#[derive(Default)]
struct Waiting {
    events: HashMap<String, Vec<Value>>,
    subscribed: Vec<String>,
    polls: usize,
    /// Answered to everything, if set.
    broken: Option<StatusCode>,
}

impl StandIn {
    async fn start() -> (Self, Served) {
        let bus = Self(Arc::default(), watch::channel(0).0);
        let routes = Router::new()
            .route("/api/events/bus/v1/subscriptions/{id}", put(subscribe))
            .route("/api/events/bus/v1/subscriptions/{id}/events", get(poll))
            .with_state(bus.clone());
        let served = Served::start(routes).await;
        (bus, served)
    }

    fn publish(&self, payload: Value) {
        let event = json!({"topic": "signals", "payload": payload});
        for waiting in self.0.lock().unwrap().events.values_mut() {
            waiting.push(event.clone());
        }
        self.1.send_modify(|news| *news += 1);
    }

    /// Loses all its subscriptions, as at a restart without a database.
    fn forget(&self) {
        self.0.lock().unwrap().events.clear();
        self.1.send_modify(|news| *news += 1);
    }

    fn fail(&self, with: Option<StatusCode>) {
        self.0.lock().unwrap().broken = with;
        self.1.send_modify(|news| *news += 1);
    }

    fn subscribed(&self) -> Vec<String> {
        self.0.lock().unwrap().subscribed.clone()
    }

    /// Waits until `count` subscriptions were made in all.
    async fn until_subscribed(&self, count: usize) {
        eventually("a subscription", async || {
            (count <= self.subscribed().len()).then_some(())
        })
        .await;
    }
}

fn refused(headers: &HeaderMap, waiting: &Waiting) -> Option<StatusCode> {
    let bearer = headers.get("authorization")?.to_str().ok()?;
    if bearer != format!("Bearer {TOKEN}") {
        return Some(StatusCode::UNAUTHORIZED);
    }
    waiting.broken
}

async fn subscribe(
    State(bus): State<StandIn>,
    Path(id): Path<String>,
    headers: HeaderMap,
    Json(body): Json<Value>,
) -> StatusCode {
    let mut waiting = bus.0.lock().unwrap();
    if let Some(status) = refused(&headers, &waiting) {
        return status;
    }
    assert_eq!(body, json!({"topics": ["signals"]}));
    waiting.events.insert(id.clone(), Vec::new());
    waiting.subscribed.push(id);
    StatusCode::CREATED
}

async fn poll(State(bus): State<StandIn>, Path(id): Path<String>, headers: HeaderMap) -> Response {
    let mut news = bus.1.subscribe();
    let mut waiting = bus.0.lock().unwrap();
    waiting.polls += 1;
    if let Some(status) = refused(&headers, &waiting) {
        return status.into_response();
    }
    let Some(events) = waiting.events.get_mut(&id) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let events = std::mem::take(events);
    if !events.is_empty() {
        return Json(json!({"events": events})).into_response();
    }
    // The body ends, with nothing in it, when there is news.
    let body = stream::once(async move {
        let _ = news.changed().await;
        Ok::<_, std::io::Error>(bytes::Bytes::new())
    });
    let held = [("backstage-events-notify-timeout", "55000")];
    (StatusCode::ACCEPTED, held, Body::from_stream(body)).into_response()
}

/// A process with one page of the guest, that hears a stand-in.
struct Site {
    bus: StandIn,
    page: Page,
    readiness: Readiness,
    stop: CancellationToken,
    _served: [Served; 2],
}

impl Drop for Site {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Site {
    async fn start(required: bool, broken: Option<StatusCode>) -> Self {
        let (bus, stand_in) = StandIn::start().await;
        bus.fail(broken);
        let key = UserKey::from_bytes(&[4; 32]);
        let auth = Auth::new(vec![], Some(key.clone()));
        let hub = Hub::default();
        let served = Served::start(app(signals::routes(hub.clone(), auth.clone()), &auth)).await;
        let token = key.sign(GUEST, Duration::from_secs(60)).unwrap();
        let mut page = Page::open(&served.address.to_string(), &token)
            .await
            .unwrap();
        page.subscribe("user-settings").await;
        let discovery = Discovery::new(&BackstageSettings {
            base_url: Some(stand_in.url("").parse().unwrap()),
            ..BackstageSettings::default()
        });
        let (readiness, stop) = (Readiness::default(), CancellationToken::new());
        let subscription = Bus {
            backstage: Backstage::new(discovery, Arc::new(FixedToken::new(TOKEN))).unwrap(),
            hub,
            readiness: readiness.clone(),
            required,
        };
        tokio::spawn(subscription.run(stop.clone()));
        Self {
            bus,
            page,
            readiness,
            stop,
            _served: [served, stand_in],
        }
    }
}

fn signal(to: &str, value: &str) -> Value {
    json!({"recipients": {"type": "user", "entityRef": to}, "channel": "user-settings",
        "message": {"value": value}})
}

#[tokio::test]
async fn what_another_plugin_publishes_reaches_the_page_and_nonsense_does_not() {
    let mut site = Site::start(false, None).await;
    site.bus.until_subscribed(1).await;
    site.bus
        .publish(json!({"recipients": null, "channel": "user-settings"}));
    site.bus.publish(json!("nonsense"));
    site.bus.publish(signal("user:default/other", "not ours"));
    let large = "x".repeat(4 << 20);
    site.bus.publish(signal(GUEST, &large));
    let heard = site.page.next().await.unwrap();
    assert_eq!(heard["message"]["value"].as_str().unwrap().len(), 4 << 20);
    // Held by a poll that was answered 202.
    for number in ["one", "two"] {
        site.bus.publish(signal(GUEST, number));
        let heard = site.page.next().await.unwrap();
        let wanted = json!({"channel": "user-settings", "message": {"value": number}});
        assert_eq!(heard, wanted);
    }
    assert_eq!(site.bus.subscribed().len(), 1);
}

#[tokio::test]
async fn a_bus_that_forgets_or_fails_is_subscribed_to_again_under_the_same_id() {
    let mut site = Site::start(false, None).await;
    site.bus.until_subscribed(1).await;
    site.bus.forget();
    site.bus.until_subscribed(2).await;
    site.bus.publish(signal(GUEST, "after it forgot"));
    site.page.until("after it forgot").await;
    site.bus.fail(Some(StatusCode::INTERNAL_SERVER_ERROR));
    eventually("a word in readyz", async || {
        let detail = site.readiness.notes().remove("events bus")?;
        detail.contains("500").then_some(())
    })
    .await;
    assert!(site.readiness.troubles().is_empty());
    site.bus.fail(None);
    site.bus.until_subscribed(3).await;
    site.bus.publish(signal(GUEST, "after it failed"));
    site.page.until("after it failed").await;
    assert!(site.readiness.notes().is_empty());
    let mut ids = site.bus.subscribed();
    ids.dedup();
    assert_eq!(ids.len(), 1);
}

#[tokio::test]
async fn a_backstage_without_a_bus_is_a_fault_only_where_one_is_demanded() {
    let site = Site::start(true, Some(StatusCode::NOT_FOUND)).await;
    eventually("a word in readyz", async || {
        site.readiness.notes().remove("events bus")
    })
    .await;
    // A refused token is said in any case.
    let site = Site::start(false, Some(StatusCode::FORBIDDEN)).await;
    let word = eventually("a word in readyz", async || {
        site.readiness.notes().remove("events bus")
    })
    .await;
    assert!(word.contains("403") && !word.contains(TOKEN), "{word}");
}
