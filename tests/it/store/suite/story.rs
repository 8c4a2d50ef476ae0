//! Random stories, told to the store and to a model of a few maps: after every step both must say
//! the same of every inbox, counter and delivery.

mod model;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::Config;
use proptest::test_runner::TestCaseError;
use proptest::test_runner::TestRunner;
use tidings::delivery::Attempt;
use tidings::delivery::DeliveryState;
use tidings::failure::Reason;
use tidings::notification::Notification;
use tidings::queue::Headers;
use tidings::store::ChunkRows;
use tidings::store::Claim;
use tidings::store::DeadLetter;
use tidings::store::Find;
use tidings::store::ImportRows;
use tidings::store::Mark;
use tidings::store::Query;
use tidings::store::Store;
use tidings::submission::Header;
use tidings::time::Timestamp;
use uuid::Uuid;

use self::model::Model;
use self::model::Seen;
use super::LONG;
use super::deliveries::ended;
use crate::store::Harness;
use crate::support::store::at;
use crate::support::store::header;
use crate::support::store::scoped;
use crate::support::store::titled;
use crate::support::store::to_everybody;
use crate::support::store::to_people;

/// Who may appear in a story; the last one is never written to.
const PEOPLE: [&str; 4] = ["user:a", "user:b", "user:c", "user:nobody"];

/// Something that happens. Numbers choose among what is there, whatever their size.
#[derive(Clone, Debug)]
enum Step {
    /// A submission: to whom (nobody is everybody), and whose inbox is switched off.
    Send {
        people: Vec<bool>,
        muted: Vec<bool>,
        scope: Option<u8>,
        moment: i64,
        described: bool,
    },
    /// An earlier chunk comes again, from this body or another.
    Repeat {
        which: usize,
        other_body: bool,
    },
    Mark {
        user: usize,
        which: Vec<usize>,
        read: Option<bool>,
        saved: Option<bool>,
    },
    MarkAll {
        user: usize,
    },
    /// Under a new token.
    Claim {
        which: Vec<usize>,
        long: bool,
    },
    /// By the holder of an earlier claim.
    Record {
        claim: usize,
        which: Vec<usize>,
        state: DeliveryState,
        later: bool,
    },
    Release {
        claim: usize,
        which: Vec<usize>,
    },
    /// What is as old as one of these goes.
    Expire {
        which: usize,
        saved: bool,
        batch: u32,
    },
    /// Rows of another system come, of these people or of everybody.
    Import {
        user: usize,
        scope: u8,
        read: bool,
        saved: bool,
        again: bool,
    },
    /// The message that carried these is dead.
    Die {
        which: Vec<usize>,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let bits = || prop::collection::vec(any::<bool>(), 3);
    let some = || prop::collection::vec(any::<usize>(), 0..5);
    let mark = || prop::option::of(any::<bool>());
    let state = prop::sample::select(vec![
        DeliveryState::Sent,
        DeliveryState::Skipped,
        DeliveryState::Failed,
        DeliveryState::Pending,
    ]);
    prop_oneof![
        4 => (bits(), bits(), prop::option::of(0..2_u8), 0..6_i64, any::<bool>()).prop_map(
            |(people, muted, scope, moment, described)| Step::Send {
                people, muted, scope, moment, described,
            }),
        2 => (any::<usize>(), any::<bool>())
            .prop_map(|(which, other_body)| Step::Repeat { which, other_body }),
        3 => (0..4_usize, some(), mark(), mark())
            .prop_map(|(user, which, read, saved)| Step::Mark { user, which, read, saved }),
        1 => (0..4_usize).prop_map(|user| Step::MarkAll { user }),
        3 => (some(), any::<bool>()).prop_map(|(which, long)| Step::Claim { which, long }),
        3 => (any::<usize>(), some(), state, any::<bool>())
            .prop_map(|(claim, which, state, later)| Step::Record { claim, which, state, later }),
        1 => (any::<usize>(), some()).prop_map(|(claim, which)| Step::Release { claim, which }),
        1 => (any::<usize>(), any::<bool>(), 1..4_u32)
            .prop_map(|(which, saved, batch)| Step::Expire { which, saved, batch }),
        1 => (0..4_usize, 0..3_u8, any::<bool>(), any::<bool>(), any::<bool>()).prop_map(
            |(user, scope, read, saved, again)| Step::Import { user, scope, read, saved, again }),
        1 => some().prop_map(|which| Step::Die { which }),
    ]
}

/// Tells random stories to a back end; the shortest that ends wrongly is shown.
pub(crate) fn tell<H: Harness>() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let config = Config {
        cases: H::STORIES,
        max_shrink_iters: 200,
        failure_persistence: None,
        ..Config::default()
    };
    let told = TestRunner::new(config).run(&prop::collection::vec(step(), 1..40), |steps| {
        runtime.block_on(async {
            let harness = H::start().await;
            let end = Story::new(harness.store()).run(steps).await;
            harness.stop().await;
            end
        })
    });
    if let Err(error) = told {
        panic!("{error}");
    }
}

/// A story under way.
struct Story {
    store: Arc<dyn Store>,
    model: Model,
    chunks: Vec<ChunkRows>,
    notifications: Vec<Uuid>,
    deliveries: Vec<Uuid>,
    imported: Vec<Notification>,
    tokens: Vec<Uuid>,
}

/// Chooses among what is there.
fn choose<T: Copy + Ord>(from: &[T], which: &[usize]) -> Vec<T> {
    let mut chosen: Vec<T> = which
        .iter()
        .filter_map(|n| from.get(n.checked_rem(from.len())?).copied())
        .collect();
    chosen.sort_unstable();
    chosen.dedup();
    chosen
}

impl Story {
    fn new(store: Arc<dyn Store>) -> Self {
        Self {
            store,
            model: Model::default(),
            chunks: Vec::new(),
            notifications: Vec::new(),
            deliveries: Vec::new(),
            imported: Vec::new(),
            // One that nobody ever claimed under.
            tokens: vec![Uuid::new_v4()],
        }
    }

    async fn run(mut self, steps: Vec<Step>) -> Result<(), TestCaseError> {
        for step in steps {
            self.take(step).await?;
            self.compare().await?;
        }
        self.compare_deliveries().await
    }

    async fn take(&mut self, step: Step) -> Result<(), TestCaseError> {
        match step {
            Step::Send { .. } => {
                let chunk = plan(&step, self.chunks.len());
                self.chunks.push(chunk.clone());
                self.persist(&chunk).await
            }
            Step::Repeat { which, other_body } => {
                let Some(index) = which.checked_rem(self.chunks.len()) else {
                    return Ok(());
                };
                let mut chunk = self.chunks[index].clone();
                if other_body {
                    chunk.header.digest = "of another body".to_owned();
                    chunk.payload = titled("another body");
                }
                self.persist(&chunk).await
            }
            Step::Mark {
                user,
                which,
                read,
                saved,
            } => {
                let ids = choose(&self.notifications, &which);
                self.mark(PEOPLE[user], &ids, Mark { read, saved }).await
            }
            Step::MarkAll { user } => {
                let count = self.store.mark_all_read(PEOPLE[user]).await.unwrap();
                prop_assert_eq!(count, self.model.mark_all(PEOPLE[user]));
                Ok(())
            }
            Step::Claim { which, long } => self.claim(&which, long).await,
            Step::Record {
                claim,
                which,
                state,
                later,
            } => self.record(claim, &which, state, later).await,
            Step::Release { claim, which } => {
                let ids = choose(&self.deliveries, &which);
                let token = self.tokens[claim % self.tokens.len()];
                self.store.release(token, &ids).await.unwrap();
                self.model.release(token, &ids);
                Ok(())
            }
            Step::Expire {
                which,
                saved,
                batch,
            } => self.expire(which, saved, batch).await,
            Step::Import {
                user,
                scope,
                read,
                saved,
                again,
            } => {
                let row = match self.imported.last() {
                    Some(row) if again => row.clone(),
                    _ => moved(self.imported.len(), user, scope, read, saved),
                };
                self.import(row).await
            }
            Step::Die { which } => {
                let ids = choose(&self.deliveries, &which);
                self.store.file_dead(&[letter(&ids)]).await.unwrap();
                self.model.die(&ids);
                Ok(())
            }
        }
    }

    async fn persist(&mut self, chunk: &ChunkRows) -> Result<(), TestCaseError> {
        let stored = self.store.persist(std::slice::from_ref(chunk)).await;
        let stored = stored.unwrap().remove(0);
        let mut expected = self.model.persist(chunk, &stored);
        let mut pending = stored.pending.clone();
        pending.sort_unstable();
        expected.pending.sort_unstable();
        prop_assert_eq!(stored.first, expected.first);
        prop_assert_eq!(stored.other_body, expected.other_body);
        prop_assert_eq!(pending, expected.pending);
        let mut rows: Vec<_> = stored
            .rows
            .iter()
            .map(|row| (row.notification.id, row.change))
            .collect();
        rows.sort_by_key(|(id, _)| *id);
        expected.rows.sort_by_key(|(id, _)| *id);
        prop_assert_eq!(rows, expected.rows);
        for row in &chunk.rows {
            if !self.notifications.contains(&row.id) {
                self.notifications.push(row.id);
            }
            self.deliveries
                .extend(row.deliveries.iter().map(|one| one.id));
        }
        Ok(())
    }

    async fn mark(&mut self, user: &str, ids: &[Uuid], mark: Mark) -> Result<(), TestCaseError> {
        let marked = self.store.mark(user, ids, mark).await.unwrap();
        let marked: Vec<Seen> = marked.iter().map(Seen::of).collect();
        prop_assert_eq!(marked, self.model.mark(user, ids, mark));
        Ok(())
    }

    async fn expire(&mut self, which: usize, saved: bool, batch: u32) -> Result<(), TestCaseError> {
        let mut ages = BTreeMap::new();
        for user in PEOPLE {
            let page = self.store.list(user, &Query::default()).await.unwrap();
            for one in page.notifications {
                ages.insert(one.id, one.updated.unwrap_or(one.created));
            }
        }
        let moments: Vec<Timestamp> = ages.values().copied().collect();
        let Some(before) = choose(&moments, &[which]).first().copied() else {
            return Ok(());
        };
        let gone = self.store.expire(before, saved, batch).await.unwrap();
        let old = ages.into_iter().filter(|(_, age)| *age <= before);
        let old: Vec<Uuid> = old.map(|(id, _)| id).collect();
        prop_assert_eq!(gone, self.model.expire(&old, saved));
        Ok(())
    }

    async fn import(&mut self, row: Notification) -> Result<(), TestCaseError> {
        let rows = match &row.user {
            Some(_) => ImportRows::Notifications(vec![row.clone()]),
            None => ImportRows::Broadcasts(vec![row.clone()]),
        };
        let new = self.store.import("another", &rows, None).await.unwrap();
        prop_assert_eq!(new, u64::from(self.model.import(&row)));
        self.notifications.push(row.id);
        self.imported.push(row);
        Ok(())
    }

    async fn claim(&mut self, which: &[usize], long: bool) -> Result<(), TestCaseError> {
        let ids = choose(&self.deliveries, which);
        let token = Uuid::new_v4();
        self.tokens.push(token);
        let lease = if long { LONG } else { Duration::ZERO };
        let claims = self.store.claim(&ids, token, lease).await.unwrap();
        prop_assert_eq!(claims.len(), ids.len());
        for (id, claim) in ids.into_iter().zip(claims) {
            // Until when somebody else has it is another test's matter.
            let claim = match claim {
                Claim::NotBefore(_) => Claim::NotBefore(at(0)),
                other => other,
            };
            prop_assert_eq!(claim, self.model.claim(id, token, long));
        }
        Ok(())
    }

    async fn record(
        &mut self,
        claim: usize,
        which: &[usize],
        state: DeliveryState,
        later: bool,
    ) -> Result<(), TestCaseError> {
        let token = self.tokens[claim % self.tokens.len()];
        let ids = choose(&self.deliveries, which);
        let attempts: Vec<Attempt> = ids
            .iter()
            .map(|id| Attempt {
                next_at: (later && state == DeliveryState::Pending)
                    .then(|| Timestamp::now().plus(LONG)),
                ..ended(*id, state)
            })
            .collect();
        let mut recorded = self.store.record(token, &attempts, &[]).await.unwrap();
        recorded.sort_unstable();
        let expected: Vec<Uuid> = ids
            .into_iter()
            .filter(|id| self.model.record(*id, token, state, later))
            .collect();
        prop_assert_eq!(recorded, expected);
        Ok(())
    }

    /// What every person sees, and whether the counters are right.
    async fn compare(&self) -> Result<(), TestCaseError> {
        prop_assert_eq!(self.store.recount(false).await.unwrap(), 0);
        for user in PEOPLE {
            let expected = self.model.inbox(user);
            let queries = [
                Query::default(),
                Query {
                    read: Some(false),
                    ..Query::default()
                },
                Query {
                    read: Some(true),
                    saved: Some(true),
                    limit: Some(2),
                    ..Query::default()
                },
            ];
            for query in queries {
                let page = self.store.list(user, &query).await.unwrap();
                let seen: Vec<Seen> = page.notifications.iter().map(Seen::of).collect();
                let wanted = |one: &&Seen| {
                    query.read.is_none_or(|read| read == one.read)
                        && query.saved.is_none_or(|saved| saved == one.saved)
                };
                let all: Vec<Seen> = expected.iter().filter(wanted).cloned().collect();
                prop_assert_eq!(page.total, all.len() as u64);
                let limit = query.limit.map_or(all.len(), |limit| limit as usize);
                prop_assert_eq!(&seen[..], &all[..limit.min(all.len())]);
            }
            let counts = self.store.counts(user).await.unwrap();
            let unread = expected.iter().filter(|one| !one.read).count() as u64;
            let read = expected.len() as u64 - unread;
            prop_assert_eq!((counts.unread, counts.read), (unread, read));
        }
        Ok(())
    }

    /// Where every delivery stands.
    async fn compare_deliveries(&self) -> Result<(), TestCaseError> {
        for chunk in &self.chunks {
            let find = Find::Id(chunk.header.id);
            let timeline = self.store.timeline(&find, None, 100).await.unwrap();
            let timeline = timeline.ok_or_else(|| TestCaseError::fail("no timeline"))?;
            let mut lines: Vec<_> = timeline
                .deliveries
                .iter()
                .map(|line| (line.id, (line.state, line.attempts, line.doubtful)))
                .collect();
            lines.sort_by_key(|(id, _)| *id);
            prop_assert_eq!(lines, self.model.deliveries(chunk.header.id));
        }
        Ok(())
    }
}

/// The chunk of a [`Step::Send`].
fn plan(step: &Step, number: usize) -> ChunkRows {
    let Step::Send {
        people,
        muted,
        scope,
        moment,
        described,
    } = step
    else {
        unreachable!("only sends are planned");
    };
    let header = Header {
        origin: "external:story".to_owned(),
        ..header(*moment)
    };
    let title = format!("number {number}");
    let mut payload = match scope {
        Some(scope) => scoped(&title, &scope.to_string()),
        None => titled(&title),
    };
    payload.description = described.then(|| format!("description of {number}"));
    let users: Vec<&str> = PEOPLE
        .into_iter()
        .zip(people)
        .filter_map(|(user, wanted)| wanted.then_some(user))
        .collect();
    if users.is_empty() {
        return to_everybody(&header, &payload);
    }
    let mut chunk = to_people(&header, &payload, &users);
    for (row, muted) in chunk.rows.iter_mut().zip(muted) {
        row.stored = !muted;
    }
    chunk
}

/// The row of a [`Step::Import`]: the last person is everybody, the last scope none.
fn moved(number: usize, user: usize, scope: u8, read: bool, saved: bool) -> Notification {
    let title = format!("moved {number}");
    // Each at another moment, some of them among those of the sends.
    let created = at(number as i64 - 2);
    let user = PEOPLE[..3].get(user).map(|user| (*user).to_owned());
    let id = Uuid::new_v4();
    Notification {
        id,
        origin: "external:story".to_owned(),
        created,
        updated: None,
        read: (read && user.is_some()).then_some(created),
        saved: (saved && user.is_some()).then_some(created),
        payload: match scope {
            2 => titled(&title),
            scope => scoped(&title, &scope.to_string()),
        },
        submission: id,
        user,
    }
}

fn letter(ids: &[Uuid]) -> DeadLetter {
    DeadLetter {
        id: 0,
        message: Uuid::new_v4().to_string(),
        stage: "deliver.email".to_owned(),
        reason: Reason::DeliveryLimit,
        detail: String::new(),
        tries: 1,
        died_at: at(0),
        submission: None,
        origin: None,
        deliveries: ids.to_vec(),
        headers: Headers::new(),
        body: Vec::new(),
        replayed_at: None,
    }
}
