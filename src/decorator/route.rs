//! What follows from what was stored: deliveries, signals, answers, and what is told.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::collections::HashSet;

use serde_json::Map;
use serde_json::Value;
use uuid::Uuid;

use super::Parcel;
use super::Pipeline;
use super::to_body;
use crate::chunk::Chunk;
use crate::delivery::DELIVERIES_PER_MESSAGE_MAX;
use crate::delivery::DeliveryBatch;
use crate::delivery::DeliveryItem;
use crate::failure::Failure;
use crate::notification::Severity;
use crate::queue::Message;
use crate::reply::Reply;
use crate::signal::Signal;
use crate::store::Change;
use crate::store::ChunkRows;
use crate::store::ChunkStored;
use crate::store::Row;
use crate::store::RowStored;
use crate::telemetry::Event;
use crate::telemetry::metric;
use crate::topology;
use crate::view;

impl Pipeline {
    /// The deliveries that are pending, as messages for their senders.
    pub(super) async fn deliveries(
        &self,
        chunk: &Chunk,
        plan: &ChunkRows,
        stored: &ChunkStored,
    ) -> Result<Vec<Message>, Failure> {
        if stored.pending.is_empty() {
            return Ok(Vec::new());
        }
        let pending: HashSet<Uuid> = stored.pending.iter().copied().collect();
        let created: HashMap<Uuid, _> = stored
            .rows
            .iter()
            .map(|row| (row.notification.id, row.notification.created))
            .collect();
        let mut items: BTreeMap<(&str, bool), Vec<DeliveryItem>> = BTreeMap::new();
        for row in &plan.rows {
            let patch = row.payload.as_ref().map(|own| chunk.payload.patch_to(own));
            for delivery in row
                .deliveries
                .iter()
                .filter(|one| pending.contains(&one.id))
            {
                items
                    .entry((delivery.channel.as_str(), row.user.is_some()))
                    .or_default()
                    .push(DeliveryItem {
                        id: delivery.id,
                        notification: row.id,
                        user: row.user.clone(),
                        target: delivery.target.clone(),
                        person: None,
                        tries: 0,
                        patch: patch.clone(),
                        created: created.get(&row.id).copied().unwrap_or(chunk.started_at),
                    });
            }
        }
        let mut messages = Vec::new();
        for ((channel, personal), mut items) in items {
            self.introduce(channel, &mut items).await?;
            let refs = chunk.refs.iter().filter(|_| !personal);
            let batch = DeliveryBatch {
                header: chunk.header.clone(),
                channel: channel.to_owned(),
                payload: chunk.payload.clone(),
                recipients: refs.map(|one| one.entity.clone()).collect(),
                items,
                extra: Map::new(),
            };
            messages.extend(delivery_messages(batch, takes_bulk_lane(chunk))?);
        }
        Ok(messages)
    }

    /// Tells a foreign sender how to reach the people, since it has no catalog to ask.
    pub(super) async fn introduce(
        &self,
        channel: &str,
        items: &mut [DeliveryItem],
    ) -> Result<(), Failure> {
        let Some(sender) = self.foreign.iter().find(|one| one.name == channel) else {
            return Ok(());
        };
        let (mut places, mut refs) = (Vec::new(), Vec::new());
        for (place, item) in items.iter().enumerate() {
            if let Some(user) = &item.user {
                places.push(place);
                refs.push(user.clone());
            }
        }
        if refs.is_empty() {
            return Ok(());
        }
        let people = self.catalog.people(&refs).await?;
        for (place, person) in places.into_iter().zip(people) {
            items[place].person = person.map(|person| sender.contact(&person));
        }
        Ok(())
    }

    /// Tells open pages of every row that is new or changed; also when the work is repeated,
    /// since a page may have missed it the first time.
    pub(super) async fn signal(&self, stored: &ChunkStored) {
        for row in stored
            .rows
            .iter()
            .filter(|row| row.change != Change::Superseded)
        {
            let notification = &row.notification;
            let signal = Signal::new_notification(notification.user.as_deref(), notification.id);
            if let Ok(body) = to_body(&signal) {
                self.queue.announce(body.into()).await;
            }
        }
    }

    /// Answers whoever waits: with the notifications if the submission is one chunk.
    pub(super) async fn answer(&self, parcel: &Parcel, stored: &ChunkStored) {
        let Some(reply) = &parcel.reply else { return };
        let chunk = &parcel.chunk;
        let answer = if chunk.of == 1 {
            Reply::stored(
                chunk.header.id,
                notifications(chunk, stored),
                chunk.refs.clone(),
            )
        } else {
            Reply::accepted(chunk.header.id)
        };
        if let Ok(body) = to_body(&answer) {
            self.queue.answer(reply, body.into()).await;
        }
    }

    /// Counts, and tells the terminal.
    pub(super) fn tell(&self, parcel: &Parcel, plan: &ChunkRows, stored: &ChunkStored) {
        let header = &plan.header;
        let (origin, submission) = (header.origin.clone(), header.id);
        if !stored.first {
            metrics::counter!(metric::SUBMISSIONS, "origin" => origin, "outcome" => "repeated")
                .increment(1);
            if stored.other_body {
                tracing::warn!(submission.id = %submission, origin = header.origin,
                    "another body came under the same key and was ignored; the first one stands");
            }
            return;
        }
        for (change, word) in [
            (Change::New, "new"),
            (Change::Updated, "updated"),
            (Change::Superseded, "superseded"),
        ] {
            let count = stored
                .rows
                .iter()
                .filter(|row| row.change == change)
                .count();
            metrics::counter!(metric::ROWS, "change" => word).increment(count as u64);
        }
        let reached = |row: &Row| row.stored || row.user.is_some();
        let nobody = !plan.rows.iter().any(reached) && plan.dropped == 0 && plan.of == 1;
        if nobody && !plan.refs.is_empty() {
            let refs: Vec<String> = plan.refs.iter().map(|one| one.entity.clone()).collect();
            tracing::warn!(submission.id = %submission, origin, refs = refs.join(" "),
                "nobody received it");
            metrics::counter!(metric::SUBMISSIONS, "origin" => origin, "outcome" => "no_recipients")
                .increment(1);
            self.events.tell(Event::NoRecipients { submission, refs });
            return;
        }
        let people = stored.rows.len() as u64;
        tracing::info!(submission.id = %submission, origin, chunk.no = plan.no, chunk.of = plan.of,
            rows = people, deliveries = stored.pending.len(), "stored");
        let broadcast = parcel.chunk.broadcast;
        self.events.tell(Event::Stored {
            submission,
            people,
            broadcast,
        });
    }
}

/// A large audience takes the slow lane, unless it is critical.
fn takes_bulk_lane(chunk: &Chunk) -> bool {
    let many = chunk.broadcast || 1 < chunk.of || topology::BULK_PEOPLE < chunk.people.len();
    many && chunk.payload.severity() != Severity::Critical
}

/// One batch as messages of at most [`DELIVERIES_PER_MESSAGE_MAX`] deliveries.
///
/// # Errors
/// None that a well-formed batch can cause.
pub(crate) fn delivery_messages(
    mut batch: DeliveryBatch,
    bulk: bool,
) -> Result<Vec<Message>, Failure> {
    let items = std::mem::take(&mut batch.items);
    let key = topology::deliver(&batch.channel, bulk);
    items
        .chunks(DELIVERIES_PER_MESSAGE_MAX)
        .map(|part| {
            batch.items = part.to_vec();
            let id = part
                .first()
                .map_or_else(String::new, |first| first.id.to_string());
            Ok(Message::new(key.clone(), id, to_body(&batch)?))
        })
        .collect()
}

/// The stored rows as the peer answers a send: in the order in which people were found.
fn notifications(chunk: &Chunk, stored: &ChunkStored) -> Vec<Value> {
    let order: HashMap<&str, usize> = chunk
        .people
        .iter()
        .enumerate()
        .map(|(index, person)| (person.user.as_str(), index))
        .collect();
    let mut rows: Vec<&RowStored> = stored.rows.iter().collect();
    rows.sort_by_key(|row| {
        let user = row.notification.user.as_deref().unwrap_or_default();
        order.get(user).copied()
    });
    rows.into_iter()
        .map(|row| {
            let notification = &row.notification;
            let as_given = row.change == Change::New
                || (row.change == Change::Updated && notification.user.is_none());
            if !as_given {
                return view::read(notification);
            }
            let person = notification.user.as_deref().and_then(|user| {
                let index = order.get(user)?;
                chunk.people.get(*index)?.patch.as_ref()
            });
            view::sent(
                notification,
                &crate::processor::personal(&chunk.payload, person),
            )
        })
        .collect()
}
