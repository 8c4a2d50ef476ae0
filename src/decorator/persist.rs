//! Deciding what is stored and who might be told, and storing it.

use uuid::Uuid;

use super::Parcel;
use super::Pipeline;
use super::expand::waves;
use crate::chunk::Chunk;
use crate::chunk::Person;
use crate::chunk::RefOutcome;
use crate::chunk::RefReport;
use crate::delivery::DeliveryState;
use crate::failure::Failure;
use crate::failure::Reason;
use crate::notification::Payload;
use crate::notification::delivery_id;
use crate::notification::notification_id;
use crate::processor::Sender;
use crate::processor::personal;
use crate::settings::Preferences;
use crate::settings::WEB;
use crate::store::ChunkRows;
use crate::store::ChunkStored;
use crate::store::NewDelivery;
use crate::store::Row;

impl Pipeline {
    /// What the people of these chunks switched on and off.
    pub(super) async fn preferences(&self, parcels: &[Parcel]) -> Result<Preferences<'_>, Failure> {
        let mut users: Vec<String> = parcels
            .iter()
            .flat_map(|parcel| parcel.chunk.people.iter().map(|person| person.user.clone()))
            .collect();
        users.sort_unstable();
        users.dedup();
        let stored = if users.is_empty() {
            Vec::new()
        } else {
            self.store.settings(&users).await?
        };
        Ok(Preferences::new(&self.defaults, stored))
    }

    /// Decides, for every person of every chunk, whether the inbox gets a row and which senders
    /// get a delivery. The decision is frozen by what is stored from it.
    pub(super) fn plan(&self, parcels: &[Parcel], preferences: &Preferences<'_>) -> Vec<ChunkRows> {
        parcels
            .iter()
            .map(|parcel| self.rows(&parcel.chunk, preferences))
            .collect()
    }

    fn rows(&self, chunk: &Chunk, preferences: &Preferences<'_>) -> ChunkRows {
        let mut muted = 0;
        let mut rows = Vec::with_capacity(chunk.people.len() + 1);
        if chunk.broadcast && chunk.dropped == 0 {
            rows.push(self.broadcast_row(chunk));
        }
        for person in &chunk.people {
            let own = person
                .patch
                .as_ref()
                .map(|patch| personal(&chunk.payload, Some(patch)));
            let row = self.personal_row(chunk, person, own, preferences);
            muted += u32::from(!row.stored);
            rows.push(row);
        }
        rows.sort_by(|a, b| a.user.cmp(&b.user));
        let somebody = !rows.is_empty() || (chunk.dropped == 0 && names_something(chunk));
        if chunk.no == 0 && !chunk.broadcast && somebody {
            rows.extend(self.submission_row(chunk));
        }
        ChunkRows {
            header: chunk.header.clone(),
            no: chunk.no,
            of: chunk.of,
            broadcast: chunk.broadcast,
            payload: chunk.payload.clone(),
            rows,
            muted,
            dropped: chunk.dropped,
            refs: chunk.refs.clone(),
            notes: chunk.notes.clone(),
            started_at: chunk.started_at,
        }
    }

    fn personal_row(
        &self,
        chunk: &Chunk,
        person: &Person,
        own: Option<Payload>,
        preferences: &Preferences<'_>,
    ) -> Row {
        let (header, payload) = (&chunk.header, own.as_ref().unwrap_or(&chunk.payload));
        let user = person.user.as_str();
        let id = notification_id(&header.origin, payload.scope(), header.id, Some(user));
        let topic = payload.topic.as_deref();
        let wants = |channel: &str| preferences.wants(user, channel, &header.origin, topic);
        let deliveries = self
            .senders(payload)
            .filter(|sender| sender.audience().includes(person.named))
            .map(|sender| {
                let mut delivery = pending(id, header.id, sender.name());
                if !wants(sender.channel()) {
                    delivery.state = DeliveryState::Skipped;
                    delivery.reason = Some(Reason::Muted);
                    let topic = topic.map_or_else(String::new, |topic| format!(", {topic}"));
                    let (channel, origin) = (sender.channel(), &header.origin);
                    delivery.detail = Some(format!(
                        "switched off (settings: {channel}, {origin}{topic})"
                    ));
                }
                delivery
            })
            .collect();
        let stored = wants(WEB);
        Row {
            id,
            user: Some(user.to_owned()),
            payload: own,
            stored,
            deliveries,
        }
    }

    /// A broadcast asks nobody's settings, on any channel. Source: contract 3.
    fn broadcast_row(&self, chunk: &Chunk) -> Row {
        let (header, payload) = (&chunk.header, &chunk.payload);
        let id = notification_id(&header.origin, payload.scope(), header.id, None);
        let deliveries = self
            .senders(payload)
            .map(|sender| pending(id, header.id, sender.name()))
            .collect();
        Row {
            id,
            user: None,
            payload: None,
            stored: true,
            deliveries,
        }
    }

    /// The deliveries that a submission to people makes once, whoever they are.
    fn submission_row(&self, chunk: &Chunk) -> Option<Row> {
        let (header, payload) = (&chunk.header, &chunk.payload);
        let id = notification_id(&header.origin, payload.scope(), header.id, Some(""));
        let deliveries: Vec<_> = self
            .senders(payload)
            .filter(|sender| sender.audience().includes_submission(&chunk.refs))
            .map(|sender| pending(id, header.id, sender.name()))
            .collect();
        (!deliveries.is_empty()).then_some(Row {
            id,
            user: None,
            payload: None,
            stored: false,
            deliveries,
        })
    }

    fn senders(&self, payload: &Payload) -> impl Iterator<Item = &dyn Sender> {
        self.senders
            .iter()
            .map(AsRef::as_ref)
            .filter(move |sender| sender.filter().passes(payload))
    }

    /// Persists the chunks, as many in one transaction as touch different rows.
    pub(super) async fn persist(&self, plans: &[ChunkRows]) -> Result<Vec<ChunkStored>, Failure> {
        let keys: Vec<_> = plans
            .iter()
            .map(|plan| {
                let chunk = Uuid::from_u128(plan.header.id.as_u128() ^ (u128::from(plan.no) + 1));
                let rows = plan.rows.iter().filter(|row| row.stored).map(|row| row.id);
                (plan.header.accepted_at, rows.chain([chunk]).collect())
            })
            .collect();
        let waves = waves(&keys);
        if waves.len() <= 1 {
            // The common case: nothing in hand concerns the same row.
            return Ok(self.store.persist(plans).await?);
        }
        let mut stored: Vec<Option<ChunkStored>> = vec![None; plans.len()];
        for wave in waves {
            let chunks: Vec<ChunkRows> = wave.iter().map(|index| plans[*index].clone()).collect();
            let answers = self.store.persist(&chunks).await?;
            for (index, answer) in wave.into_iter().zip(answers) {
                stored[index] = Some(answer);
            }
        }
        let all: Vec<ChunkStored> = stored.into_iter().flatten().collect();
        if all.len() == plans.len() {
            return Ok(all);
        }
        Err(Failure::permanent(
            Reason::Internal,
            "the store answered for fewer chunks than it was given",
        ))
    }
}

/// Whether the submission is more than a typo. A group without members may have a channel.
fn names_something(chunk: &Chunk) -> bool {
    let known = |one: &RefReport| one.outcome != RefOutcome::Unknown;
    chunk.refs.iter().any(known)
}

fn pending(notification: Uuid, revision: Uuid, sender: &str) -> NewDelivery {
    NewDelivery {
        id: delivery_id(notification, revision, sender, ""),
        channel: sender.to_owned(),
        target: String::new(),
        state: DeliveryState::Pending,
        reason: None,
        detail: None,
    }
}
