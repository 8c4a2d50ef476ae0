//! The store as a few maps, without dates: what it should say, written as plainly as possible.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use tidings::delivery::DeliveryState;
use tidings::notification::Notification;
use tidings::notification::notification_id;
use tidings::store::Change;
use tidings::store::ChunkRows;
use tidings::store::ChunkStored;
use tidings::store::Claim;
use tidings::store::Mark;
use tidings::store::Row;
use tidings::time::Timestamp;
use uuid::Uuid;

use crate::support::store::at;

/// What a person sees of a notification.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    id: Uuid,
    user: Option<String>,
    title: String,
    description: Option<String>,
    created: Timestamp,
    updated: bool,
    pub(super) read: bool,
    pub(super) saved: bool,
    submission: Uuid,
}

impl Seen {
    pub(super) fn of(one: &Notification) -> Self {
        Self {
            id: one.id,
            user: one.user.clone(),
            title: one.payload.title.clone(),
            description: one.payload.description.clone(),
            created: one.created,
            updated: one.updated.is_some(),
            read: one.read.is_some(),
            saved: one.saved.is_some(),
            submission: one.submission,
        }
    }
}

/// A delivery in the model.
#[derive(Clone, Copy, Debug)]
struct Delivery {
    submission: Uuid,
    state: DeliveryState,
    attempts: u32,
    doubtful: bool,
    token: Option<Uuid>,
    /// Its time has not come, or its lease still runs.
    later: bool,
}

/// What persisting should answer.
#[derive(Debug, Default)]
pub(super) struct Answer {
    pub(super) first: bool,
    pub(super) other_body: bool,
    pub(super) rows: Vec<(Uuid, Change)>,
    pub(super) pending: Vec<Uuid>,
}

/// The store.
#[derive(Debug, Default)]
pub(super) struct Model {
    /// Digest and applied rows of each submission, all of which have one chunk.
    submissions: BTreeMap<Uuid, (String, Vec<Uuid>)>,
    /// Each with what was applied last.
    rows: BTreeMap<Uuid, (Seen, (Timestamp, Uuid))>,
    /// Rows that were moved over and whose scope has not been sent since: whose, and which scope.
    moved: BTreeMap<Uuid, (Option<String>, String)>,
    /// Marks on broadcasts: read, saved.
    marks: BTreeMap<(String, Uuid), (bool, bool)>,
    deliveries: BTreeMap<Uuid, Delivery>,
}

impl Model {
    /// `said` lends only the store's dates.
    pub(super) fn persist(&mut self, chunk: &ChunkRows, said: &ChunkStored) -> Answer {
        let id = chunk.header.id;
        let standing = |change: &BTreeMap<Uuid, (Seen, (Timestamp, Uuid))>, row: &Uuid| {
            let same = change[row].1.1 == id;
            let change = if same {
                Change::Same
            } else {
                Change::Superseded
            };
            (*row, change)
        };
        if let Some((digest, applied)) = self.submissions.get(&id) {
            let other_body = *digest != chunk.header.digest;
            let stored = chunk.rows.iter().filter(|row| row.stored);
            let mut rows: Vec<Uuid> = if other_body {
                applied.clone()
            } else {
                stored.map(|row| row.id).collect()
            };
            // Some may have been deleted since.
            rows.retain(|row| self.rows.contains_key(row));
            let pending = self.deliveries.iter().filter(|(_, one)| {
                !other_body && one.submission == id && one.state == DeliveryState::Pending
            });
            return Answer {
                first: false,
                other_body,
                pending: pending.map(|(id, _)| *id).collect(),
                rows: rows.iter().map(|row| standing(&self.rows, row)).collect(),
            };
        }
        let mut answer = Answer {
            first: true,
            ..Answer::default()
        };
        for row in &chunk.rows {
            let change = row.stored.then(|| self.apply(chunk, row, said));
            answer.rows.extend(change.map(|change| (row.id, change)));
            if change == Some(Change::Superseded) {
                continue;
            }
            for delivery in &row.deliveries {
                answer.pending.push(delivery.id);
                let new = Delivery {
                    submission: id,
                    state: DeliveryState::Pending,
                    attempts: 0,
                    doubtful: false,
                    token: None,
                    later: false,
                };
                self.deliveries.insert(delivery.id, new);
            }
        }
        let applied = answer.rows.iter();
        let applied = applied.filter(|(_, change)| *change != Change::Superseded);
        let applied = applied.map(|(id, _)| *id).collect();
        let digest = chunk.header.digest.clone();
        self.submissions.insert(id, (digest, applied));
        answer
    }

    /// Takes over a row; says whether it is new.
    pub(super) fn import(&mut self, row: &Notification) -> bool {
        let user = row.user.as_deref();
        let scope = row.payload.scope();
        let of_scope = notification_id(&row.origin, scope, row.submission, user);
        if self.rows.contains_key(&row.id) || self.rows.contains_key(&of_scope) {
            return false;
        }
        if let Some(scope) = scope {
            let key = (row.user.clone(), scope.to_owned());
            self.moved.insert(row.id, key);
        }
        let applied = (row.created, row.id);
        self.rows.insert(row.id, (Seen::of(row), applied));
        true
    }

    /// The newest row that was moved over gets the id of its scope when that is sent again.
    fn adopt(&mut self, chunk: &ChunkRows, row: &Row) {
        let Some(scope) = chunk.payload.scope() else {
            return;
        };
        let key = (row.user.clone(), scope.to_owned());
        let moved = self.moved.iter().filter(|(_, one)| **one == key);
        let ids = moved.map(|(id, _)| *id);
        let newest = ids.max_by_key(|id| self.rows.get(id).map(|(seen, _)| seen.created));
        if let Some(old) = newest
            && !self.rows.contains_key(&row.id)
            && let Some((mut seen, applied)) = self.rows.remove(&old)
        {
            self.moved.remove(&old);
            seen.id = row.id;
            self.rows.insert(row.id, (seen, applied));
            let marks = std::mem::take(&mut self.marks);
            let renamed = marks.into_iter().map(|((user, id), mark)| {
                let id = if id == old { row.id } else { id };
                ((user, id), mark)
            });
            self.marks = renamed.collect();
        }
    }

    fn apply(&mut self, chunk: &ChunkRows, row: &Row, said: &ChunkStored) -> Change {
        self.adopt(chunk, row);
        let order = (chunk.header.accepted_at, chunk.header.id);
        let Some((seen, applied)) = self.rows.get_mut(&row.id) else {
            let made = said.rows.iter().find(|one| one.notification.id == row.id);
            let created = made.map(|one| one.notification.created);
            let seen = Seen {
                id: row.id,
                user: row.user.clone(),
                title: chunk.payload.title.clone(),
                description: chunk.payload.description.clone(),
                created: created.unwrap_or_default(),
                updated: false,
                read: false,
                saved: false,
                submission: chunk.header.id,
            };
            self.rows.insert(row.id, (seen, order));
            return Change::New;
        };
        if order < *applied {
            return Change::Superseded;
        }
        *applied = order;
        seen.title.clone_from(&chunk.payload.title);
        if let Some(description) = &chunk.payload.description {
            seen.description = Some(description.clone());
        }
        seen.updated = true;
        seen.read = false;
        seen.submission = chunk.header.id;
        Change::Updated
    }

    /// What `user` sees, newest first.
    pub(super) fn inbox(&self, user: &str) -> Vec<Seen> {
        let mut inbox: Vec<Seen> = self
            .rows
            .values()
            .filter(|(row, _)| row.user.as_deref().is_none_or(|owner| owner == user))
            .map(|(row, _)| {
                let mut row = row.clone();
                if row.user.is_none() {
                    let marks = self.marks.get(&(user.to_owned(), row.id));
                    (row.read, row.saved) = marks.copied().unwrap_or_default();
                }
                row
            })
            .collect();
        inbox.sort_by_key(|row| std::cmp::Reverse((row.created, row.id)));
        inbox
    }

    pub(super) fn mark(&mut self, user: &str, ids: &[Uuid], mark: Mark) -> Vec<Seen> {
        let visible: BTreeSet<Uuid> = self.inbox(user).iter().map(|row| row.id).collect();
        for id in ids.iter().filter(|id| visible.contains(id)) {
            let row = &mut self.rows.get_mut(id).unwrap().0;
            let (read, saved) = if row.user.is_none() {
                let marks = self.marks.entry((user.to_owned(), *id)).or_default();
                (&mut marks.0, &mut marks.1)
            } else {
                (&mut row.read, &mut row.saved)
            };
            *read = mark.read.unwrap_or(*read);
            *saved = mark.saved.unwrap_or(*saved);
        }
        let mut inbox = self.inbox(user);
        inbox.retain(|row| ids.contains(&row.id));
        inbox
    }

    pub(super) fn mark_all(&mut self, user: &str) -> u64 {
        let unread = self.inbox(user).into_iter().filter(|row| !row.read);
        let ids: Vec<Uuid> = unread.map(|row| row.id).collect();
        let read = Mark {
            read: Some(true),
            saved: None,
        };
        self.mark(user, &ids, read);
        ids.len() as u64
    }

    /// Deletes those of `old` that may go; says how many.
    pub(super) fn expire(&mut self, old: &[Uuid], saved: bool) -> u64 {
        let mut gone = 0;
        for id in old {
            let marks = self.marks.iter().filter(|((_, row), _)| row == id);
            let is_saved = self.rows[id].0.saved || marks.clone().any(|(_, (_, saved))| *saved);
            if saved || !is_saved {
                self.rows.remove(id);
                self.moved.remove(id);
                self.marks.retain(|(_, row), _| row != id);
                gone += 1;
            }
        }
        gone
    }

    pub(super) fn claim(&mut self, id: Uuid, token: Uuid, long: bool) -> Claim {
        let Some(one) = self.deliveries.get_mut(&id) else {
            return Claim::Done;
        };
        match one.state {
            DeliveryState::Pending | DeliveryState::Claimed if one.later => {
                return Claim::NotBefore(at(0));
            }
            DeliveryState::Pending => {}
            DeliveryState::Claimed => {
                one.attempts += 1;
                one.doubtful = true;
            }
            _ => return Claim::Done,
        }
        one.state = DeliveryState::Claimed;
        one.token = Some(token);
        one.later = long;
        Claim::Mine {
            attempt: one.attempts + 1,
            doubtful: one.doubtful,
        }
    }

    /// The delivery, if `token` holds it.
    fn held(&mut self, id: Uuid, token: Uuid) -> Option<&mut Delivery> {
        self.deliveries
            .get_mut(&id)
            .filter(|one| one.state == DeliveryState::Claimed && one.token == Some(token))
    }

    pub(super) fn record(
        &mut self,
        id: Uuid,
        token: Uuid,
        state: DeliveryState,
        later: bool,
    ) -> bool {
        let Some(one) = self.held(id, token) else {
            return false;
        };
        one.state = state;
        one.attempts += 1;
        one.later = later && state == DeliveryState::Pending;
        true
    }

    pub(super) fn release(&mut self, token: Uuid, ids: &[Uuid]) {
        for id in ids {
            if let Some(one) = self.held(*id, token) {
                one.state = DeliveryState::Pending;
                one.later = false;
            }
        }
    }

    pub(super) fn die(&mut self, ids: &[Uuid]) {
        for id in ids {
            let Some(one) = self.deliveries.get_mut(id) else {
                continue;
            };
            let waits = one.state == DeliveryState::Pending;
            if waits || (one.state == DeliveryState::Claimed && !one.later) {
                one.state = DeliveryState::Failed;
            }
        }
    }

    /// Where the deliveries of a submission stand: state, tries, doubt.
    pub(super) fn deliveries(&self, submission: Uuid) -> Vec<(Uuid, (DeliveryState, u32, bool))> {
        self.deliveries
            .iter()
            .filter(|(_, one)| one.submission == submission)
            .map(|(id, one)| (*id, (one.state, one.attempts, one.doubtful)))
            .collect()
    }
}
