//! The live catalog of a Backstage, asked by refs in batches, with a cache in front.
//!
//! A group is one question for its relations; the people of an audience are asked for only when
//! something is sent to them. Answers serve for a while, and longer while the catalog is away;
//! without one, whoever asks waits for the catalog. Source: contract 2.2 and 8.4, and the routes of
//! `@backstage/plugin-catalog-backend` 4.0.5.

mod cache;
mod wire;

use std::collections::BTreeSet;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use async_trait::async_trait;
use http::Method;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use url::form_urlencoded;

use self::cache::Cache;
use self::cache::Found;
use self::cache::Size;
use self::cache::Times;
use self::wire::Batch;
use self::wire::Item;
use self::wire::Page;
use crate::backstage::Backstage;
use crate::catalog::Catalog;
use crate::catalog::CatalogUser;
use crate::catalog::Counts;
use crate::catalog::Entity;
use crate::config::CatalogSettings;
use crate::failure::Failure;
use crate::failure::Kind;
use crate::failure::Reason;
use crate::notification::EntityRef;
use crate::telemetry::metric;

/// The plugin that is asked.
const PLUGIN: &str = "catalog";

/// Questions under way at once, in each process.
const AT_ONCE: usize = 4;

/// The longest that one answer may take.
const TIMEOUT: Duration = Duration::from_secs(15);

/// The same for a question whose answer is small.
const SMALL_TIMEOUT: Duration = Duration::from_secs(5);

/// The largest answer in bytes: a group of half a million people.
const ANSWER_MAX: usize = 64 << 20;

/// People on one page of everybody.
const PAGE: usize = 1_000;

/// The most people with an address: beyond them a broadcast is no mail.
const ADDRESSES_MAX: usize = 500_000;

/// A catalog that answered this short a time ago is believed to be well.
const WELL: Duration = Duration::from_secs(30);

/// What is asked of entities on the way from refs to people.
const ENTITY_FIELDS: [&str; 5] = [
    "kind",
    "metadata.name",
    "metadata.namespace",
    "metadata.annotations",
    "relations",
];

/// What is asked of people.
const PERSON_FIELDS: [&str; 6] = [
    "kind",
    "metadata.name",
    "metadata.namespace",
    "metadata.annotations",
    "spec.profile.displayName",
    "spec.profile.email",
];

/// How long it is remembered that an entity is nowhere: it may be made at any time.
const UNKNOWN_ENTITY: Duration = Duration::from_secs(10);

/// The same for a person.
const UNKNOWN_PERSON: Duration = Duration::from_secs(60);

/// The one entry of [`BackstageCatalog::addresses`].
const EVERYBODY: &str = "*";

/// The live catalog.
pub struct BackstageCatalog {
    asker: Asker,
    entities: Cache<Entity>,
    people: Cache<CatalogUser>,
    addresses: Cache<Vec<String>>,
}

impl BackstageCatalog {
    /// The catalog of this Backstage.
    pub fn new(backstage: Backstage, settings: &CatalogSettings) -> Self {
        let times = |fresh: Duration, unknown: Duration| Times {
            fresh,
            unknown: unknown.min(fresh),
            stale: settings.stale,
        };
        let people = times(settings.people_ttl, UNKNOWN_PERSON);
        Self {
            asker: Asker(Arc::new(Asking {
                backstage,
                gate: Semaphore::new(AT_ONCE),
                last: Mutex::new(None),
            })),
            entities: Cache::new(times(settings.ttl, UNKNOWN_ENTITY)),
            people: Cache::new(people),
            addresses: Cache::new(people),
        }
    }
}

#[async_trait]
impl Catalog for BackstageCatalog {
    async fn entities(&self, refs: &[String]) -> Result<Vec<Entity>, Failure> {
        let refs: Vec<String> = refs.iter().filter_map(|one| canonical(one)).collect();
        let asker = self.asker.clone();
        let ask = move |refs| asker.clone().by_refs(refs, &ENTITY_FIELDS, Item::entity);
        let found = self.entities.get(&refs, ask).await?;
        Ok(found.into_values().map(Arc::unwrap_or_clone).collect())
    }

    async fn people(&self, refs: &[String]) -> Result<Vec<Option<CatalogUser>>, Failure> {
        let refs: Vec<Option<String>> = refs.iter().map(|one| canonical_user(one)).collect();
        let wanted: Vec<String> = refs.iter().flatten().cloned().collect();
        let asker = self.asker.clone();
        let ask = move |refs| asker.clone().by_refs(refs, &PERSON_FIELDS, Item::person);
        let found = self.people.get(&wanted, ask).await?;
        let person = |one: Option<String>| found.get(&one?).map(|person| (**person).clone());
        Ok(refs.into_iter().map(person).collect())
    }

    async fn addresses(&self) -> Result<Vec<String>, Failure> {
        let asker = self.asker.clone();
        let ask = move |_| asker.clone().everybody();
        let found = self.addresses.get(&[EVERYBODY.to_owned()], ask).await?;
        let all = found.into_values().next();
        Ok(all.map(Arc::unwrap_or_clone).unwrap_or_default())
    }

    async fn refs(&self) -> Option<Vec<String>> {
        None
    }

    async fn describe(&self) -> Result<String, Failure> {
        let (users, groups) =
            futures::try_join!(self.asker.count("user"), self.asker.count("group"))?;
        if users == 0 {
            return Ok(
                "nobody: does Backstage's permission policy let Tidings read users?".to_owned(),
            );
        }
        Ok(Counts((users, groups)).to_string())
    }

    async fn ready(&self) -> Result<(), Failure> {
        self.asker.ready().await
    }
}

fn canonical(reference: &str) -> Option<String> {
    let parsed: EntityRef = reference.parse().ok()?;
    Some(parsed.canonical())
}

fn canonical_user(reference: &str) -> Option<String> {
    let parsed: EntityRef = reference.parse().ok()?;
    parsed.is_user().then(|| parsed.canonical())
}

/// Asks the catalog. Cheap to clone.
#[derive(Clone)]
struct Asker(Arc<Asking>);

struct Asking {
    backstage: Backstage,
    gate: Semaphore,
    /// What came of the last question, and when.
    last: Mutex<Option<(Instant, Result<(), Failure>)>>,
}

impl Asker {
    /// What these canonical refs are, by ref.
    async fn by_refs<V: Size>(
        self,
        refs: Vec<String>,
        fields: &'static [&'static str],
        read: fn(Item) -> Option<(String, V)>,
    ) -> Result<Found<V>, Failure> {
        let mut found = HashMap::with_capacity(refs.len());
        let mut todo = vec![refs];
        while let Some(mut refs) = todo.pop() {
            let body = json!({"entityRefs": refs, "fields": fields});
            let answer: Option<Batch> = self
                .ask(Method::POST, "/entities/by-refs", Some(&body), TIMEOUT)
                .await?;
            if let Some(answer) = answer {
                let items = answer.items.into_iter().flatten().filter_map(read);
                found.extend(items.map(|(reference, value)| (reference, Arc::new(value))));
            } else if let [alone] = refs.as_slice() {
                let detail = format!("{alone} takes more than {ANSWER_MAX} bytes in the catalog");
                return Err(Failure::permanent(Reason::Rejected, detail));
            } else {
                let second = refs.split_off(refs.len() / 2);
                todo.extend([second, refs]);
            }
        }
        Ok(found)
    }

    /// Every address of a person, page by page.
    async fn everybody(self) -> Result<Found<Vec<String>>, Failure> {
        let mut all = BTreeSet::new();
        let mut cursor: Option<String> = None;
        loop {
            let page = self.page(cursor.as_deref()).await?;
            all.extend(page.items.into_iter().filter_map(Item::email));
            if ADDRESSES_MAX < all.len() {
                let detail = format!("more than {ADDRESSES_MAX} people have an address");
                return Err(Failure::permanent(Reason::Rejected, detail));
            }
            let next = page.page_info.next_cursor;
            if next.is_none() || next == cursor {
                let all = Arc::new(all.into_iter().collect());
                return Ok(HashMap::from([(EVERYBODY.to_owned(), all)]));
            }
            cursor = next;
        }
    }

    async fn page(&self, cursor: Option<&str>) -> Result<Page, Failure> {
        let from = match cursor {
            Some(cursor) => ("cursor", cursor),
            None => ("filter", "kind=user,spec.profile.email"),
        };
        let query = form_urlencoded::Serializer::new(String::new())
            .append_pair("fields", "spec.profile.email")
            .append_pair("limit", &PAGE.to_string())
            .append_pair(from.0, from.1)
            .finish();
        self.by_query(&query, TIMEOUT).await
    }

    /// How many entities of a kind there are.
    async fn count(&self, kind: &str) -> Result<usize, Failure> {
        let query = format!("filter=kind%3D{kind}&limit=0");
        Ok(self.by_query(&query, SMALL_TIMEOUT).await?.total_items)
    }

    async fn by_query(&self, query: &str, timeout: Duration) -> Result<Page, Failure> {
        let path = format!("/entities/by-query?{query}");
        let page = self.ask(Method::GET, &path, None, timeout).await?;
        page.ok_or_else(|| {
            let detail = format!("a page of the catalog is larger than {ANSWER_MAX} bytes");
            Failure::dependency(Reason::Server, detail)
        })
    }

    /// Whether the catalog answers; asks only if it is not known to have done so lately.
    async fn ready(&self) -> Result<(), Failure> {
        let last = self.last().clone();
        if matches!(last, Some((at, Ok(()))) if at.elapsed() < WELL) {
            return Ok(());
        }
        let body = json!({"entityRefs": [], "fields": ["kind"]});
        let asked = self.ask::<Batch>(
            Method::POST,
            "/entities/by-refs",
            Some(&body),
            SMALL_TIMEOUT,
        );
        asked.await.map(|_| ())
    }

    /// Asks once there is room for it; `None` where the answer is too large.
    async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        timeout: Duration,
    ) -> Result<Option<T>, Failure> {
        // The gate is never closed; if it were, asking without it would still be right.
        let _room = self.0.gate.acquire().await.ok();
        let backstage = &self.0.backstage;
        let answer = async {
            let response = backstage.send(PLUGIN, method, path, body, timeout).await?;
            backstage.read_up_to(PLUGIN, response, ANSWER_MAX).await
        };
        let answer = answer.await;
        let (outcome, came) = match &answer {
            Ok(_) => ("ok", Ok(())),
            // Whoever refuses a question is there.
            Err(failure) if failure.kind != Kind::Dependency => (failure.reason.as_str(), Ok(())),
            Err(failure) => (failure.reason.as_str(), Err(failure.clone())),
        };
        metrics::counter!(metric::CATALOG_REQUESTS, "outcome" => outcome).increment(1);
        *self.last() = Some((Instant::now(), came));
        answer
    }

    fn last(&self) -> std::sync::MutexGuard<'_, Option<(Instant, Result<(), Failure>)>> {
        self.0.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
