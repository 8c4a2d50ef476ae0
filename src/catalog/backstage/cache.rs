//! What the catalog answered, kept for a while: fresh answers spare the question, old ones serve
//! while the catalog is away, and whoever asks for what is being asked already waits for that
//! answer.

use std::collections::HashMap;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use futures::future::Shared;
use futures::future::join_all;
use quick_cache::OptionsBuilder;
use quick_cache::Weighter;
use quick_cache::sync::Cache as Kept;
use quick_cache::sync::DefaultLifecycle;
use tokio::time::Instant;

use crate::failure::Failure;
use crate::failure::Kind;
use crate::failure::Reason;
use crate::telemetry::metric;

/// Most refs in one question.
pub(super) const REFS_PER_QUESTION: usize = 100;

/// The most that one cache holds, in bytes, roughly.
const BYTES_MAX: u64 = 64 << 20;

/// How many answers it makes room for at once.
const ANSWERS: usize = 10_000;

/// After the catalog failed, old answers serve for so long before it is asked for them again.
const PAUSE: Duration = Duration::from_secs(5);

/// For how long an answer serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Times {
    /// Before it is asked for again.
    pub(super) fresh: Duration,
    /// The same, for an answer that there is no such entity.
    pub(super) unknown: Duration,
    /// While the catalog is away, from when it was given; zero is never.
    pub(super) stale: Duration,
}

/// Roughly how many bytes it takes.
pub(super) trait Size {
    fn bytes(&self) -> usize;
}

/// An answer, and when it was given. `None`: there is no such entity.
#[derive(Debug)]
struct Answer<V> {
    value: Option<Arc<V>>,
    at: Instant,
}

impl<V> Clone for Answer<V> {
    fn clone(&self) -> Self {
        Self {
            value: self.value.clone(),
            at: self.at,
        }
    }
}

impl<V> Answer<V> {
    fn is_fresh(&self, times: Times) -> bool {
        let limit = match self.value {
            Some(_) => times.fresh,
            None => times.unknown,
        };
        self.at.elapsed() < limit
    }

    /// That something was not there is no reason to believe that it still is not.
    fn serves_while_away(&self, times: Times) -> bool {
        self.value.is_some() && self.at.elapsed() < times.stale
    }
}

/// What is known, by ref.
pub(super) type Found<V> = HashMap<String, Arc<V>>;

/// What need not be asked, what may serve if asking fails, and what must be asked.
struct Known<V> {
    found: Found<V>,
    old: Found<V>,
    wanted: Vec<String>,
}

type Answers<V> = Arc<HashMap<String, Answer<V>>>;
type Asking<V> = Shared<BoxFuture<'static, Result<Answers<V>, Failure>>>;

/// A question that is under way.
struct Flight<V> {
    no: u64,
    asking: Asking<V>,
}

impl<V> Clone for Flight<V> {
    fn clone(&self) -> Self {
        Self {
            no: self.no,
            asking: self.asking.clone(),
        }
    }
}

/// The questions that are under way, by ref.
struct Flights<V> {
    next: u64,
    by_ref: HashMap<String, Flight<V>>,
    /// When the catalog last failed to answer.
    failed: Option<Instant>,
}

#[derive(Clone)]
struct ByBytes;

impl<V: Size> Weighter<String, Answer<V>> for ByBytes {
    fn weight(&self, reference: &String, answer: &Answer<V>) -> u64 {
        let value = answer.value.as_ref().map_or(0, |value| value.bytes());
        // The ref, the entry and what it is kept in.
        (reference.len() + value + 128) as u64
    }
}

struct Inner<V> {
    kept: Kept<String, Answer<V>, ByBytes>,
    flights: Mutex<Flights<V>>,
    times: Times,
}

/// Answers of one kind. Cheap to clone.
pub(super) struct Cache<V>(Arc<Inner<V>>);

impl<V: Size + Send + Sync + 'static> Cache<V> {
    pub(super) fn new(times: Times) -> Self {
        // One shard: the largest group must fit in.
        let options = OptionsBuilder::new()
            .estimated_items_capacity(ANSWERS)
            .weight_capacity(BYTES_MAX)
            .shards(1)
            .build();
        let kept = match options {
            Ok(options) => Kept::with_options(
                options,
                ByBytes,
                quick_cache::DefaultHashBuilder::default(),
                DefaultLifecycle::default(),
            ),
            Err(_) => Kept::with_weighter(ANSWERS, BYTES_MAX, ByBytes),
        };
        Self(Arc::new(Inner {
            kept,
            flights: Mutex::new(Flights {
                next: 0,
                by_ref: HashMap::new(),
                failed: None,
            }),
            times,
        }))
    }

    /// What these canonical refs are; those that are nowhere are left out. `ask` is called with at
    /// most [`REFS_PER_QUESTION`] of them, and only for what is not known.
    ///
    /// # Errors
    /// Why the catalog cannot be asked for one of which there is no answer that may serve.
    pub(super) async fn get<F, A>(&self, refs: &[String], ask: F) -> Result<Found<V>, Failure>
    where
        F: Fn(Vec<String>) -> A,
        A: Future<Output = Result<Found<V>, Failure>> + Send + 'static,
    {
        let Known {
            mut found,
            mut old,
            wanted,
        } = self.known(refs);
        let (mut asked, mut stale) = (0, 0);
        for (refs, answers) in self.ask(wanted, ask).await {
            for one in refs {
                let value = match (&answers, old.remove(&one)) {
                    (Ok(answers), _) => {
                        asked += 1;
                        answers.get(&one).and_then(|answer| answer.value.clone())
                    }
                    (Err(failure), Some(value)) if failure.kind == Kind::Dependency => {
                        stale += 1;
                        Some(value)
                    }
                    (Err(failure), _) => return Err(failure.clone()),
                };
                found.extend(value.map(|value| (one, value)));
            }
        }
        count("catalog", asked);
        count("stale", stale);
        Ok(found)
    }

    /// What need not be asked, and what must be.
    fn known(&self, refs: &[String]) -> Known<V> {
        let mut known = Known {
            found: HashMap::new(),
            old: HashMap::new(),
            wanted: Vec::new(),
        };
        let times = self.0.times;
        let paused = self.is_paused();
        let (mut fresh, mut stale) = (0, 0);
        for reference in refs.iter().collect::<HashSet<_>>() {
            let answer = self.0.kept.get(reference);
            let serves = match &answer {
                Some(answer) if answer.is_fresh(times) => {
                    fresh += 1;
                    true
                }
                Some(answer) if paused && answer.serves_while_away(times) => {
                    stale += 1;
                    true
                }
                _ => false,
            };
            let place = if serves {
                &mut known.found
            } else {
                known.wanted.push(reference.clone());
                &mut known.old
            };
            let value = answer
                .filter(|answer| serves || answer.serves_while_away(times))
                .and_then(|answer| answer.value);
            place.extend(value.map(|value| (reference.clone(), value)));
        }
        count("cache", fresh);
        count("stale", stale);
        known
    }

    /// Asks, or waits for whoever does already; each answer with the refs that it is for.
    async fn ask<F, A>(
        &self,
        wanted: Vec<String>,
        ask: F,
    ) -> Vec<(Vec<String>, Result<Answers<V>, Failure>)>
    where
        F: Fn(Vec<String>) -> A,
        A: Future<Output = Result<Found<V>, Failure>> + Send + 'static,
    {
        let flights = self.board(wanted, ask);
        let asking = flights
            .into_values()
            .map(|(refs, flight)| async { (refs, flight.asking.await) });
        join_all(asking).await
    }

    /// The questions that answer for these refs, by number.
    fn board<F, A>(&self, wanted: Vec<String>, ask: F) -> HashMap<u64, (Vec<String>, Flight<V>)>
    where
        F: Fn(Vec<String>) -> A,
        A: Future<Output = Result<Found<V>, Failure>> + Send + 'static,
    {
        let mut boarded: HashMap<u64, (Vec<String>, Flight<V>)> = HashMap::new();
        let mut alone = Vec::new();
        let mut flights = self.flights();
        for reference in wanted {
            match flights.by_ref.get(&reference) {
                Some(flight) => boarded
                    .entry(flight.no)
                    .or_insert_with(|| (Vec::new(), flight.clone()))
                    .0
                    .push(reference),
                None => alone.push(reference),
            }
        }
        for refs in alone.chunks(REFS_PER_QUESTION) {
            let no = flights.next;
            flights.next += 1;
            let flight = Flight {
                no,
                asking: self.depart(refs.to_vec(), ask(refs.to_vec())),
            };
            for reference in refs {
                flights.by_ref.insert(reference.clone(), flight.clone());
            }
            boarded.insert(no, (refs.to_vec(), flight));
        }
        boarded
    }

    /// Asks in a task of its own: whoever does not wait for the answer spoils it for nobody.
    fn depart<A>(&self, refs: Vec<String>, asked: A) -> Asking<V>
    where
        A: Future<Output = Result<Found<V>, Failure>> + Send + 'static,
    {
        let landing = Landing {
            inner: Arc::clone(&self.0),
            refs,
        };
        let task = tokio::spawn(async move {
            let answer = asked.await;
            landing.keep(answer)
        });
        async move {
            task.await.unwrap_or_else(|_| {
                let detail = "a question to the catalog broke off";
                Err(Failure::dependency(Reason::Internal, detail))
            })
        }
        .boxed()
        .shared()
    }

    fn is_paused(&self) -> bool {
        let failed = self.flights().failed;
        failed.is_some_and(|failed| failed.elapsed() < PAUSE)
    }

    fn flights(&self) -> MutexGuard<'_, Flights<V>> {
        lock(&self.0)
    }
}

fn lock<V>(inner: &Inner<V>) -> MutexGuard<'_, Flights<V>> {
    inner.flights.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes a question off the list when it ends, however it does.
struct Landing<V: Size> {
    inner: Arc<Inner<V>>,
    refs: Vec<String>,
}

impl<V: Size> Landing<V> {
    /// Keeps what was answered.
    fn keep(self, answer: Result<Found<V>, Failure>) -> Result<Answers<V>, Failure> {
        let away = matches!(&answer, Err(failure) if failure.kind == Kind::Dependency);
        lock(&self.inner).failed = away.then(Instant::now);
        let mut found = answer?;
        let at = Instant::now();
        let mut answers = HashMap::with_capacity(self.refs.len());
        for reference in &self.refs {
            let value = found.remove(reference);
            let answer = Answer { value, at };
            self.inner.kept.insert(reference.clone(), answer.clone());
            answers.insert(reference.clone(), answer);
        }
        Ok(Arc::new(answers))
    }
}

impl<V: Size> Drop for Landing<V> {
    fn drop(&mut self) {
        let mut flights = lock(&self.inner);
        for reference in &self.refs {
            flights.by_ref.remove(reference);
        }
    }
}

fn count(from: &'static str, how_many: u64) {
    if how_many > 0 {
        metrics::counter!(metric::CATALOG_ANSWERS, "from" => from).increment(how_many);
    }
}
