//! Claiming: which deliveries of a batch are ours to send now, and giving them back.

use uuid::Uuid;

use super::Deliveries;
use crate::delivery::DeliveryBatch;
use crate::delivery::DeliveryItem;
use crate::failure::Failure;
use crate::failure::Reason;
use crate::processor::Outcome;
use crate::processor::personal;
use crate::store::Claim;
use crate::store::Earlier;
use crate::store::NewDelivery;
use crate::time::Timestamp;

/// A delivery that is ours until the lease runs out.
#[derive(Clone, Debug)]
pub(super) struct Claimed<'a> {
    /// Which batch of the turn it came in.
    pub(super) index: usize,
    pub(super) batch: &'a DeliveryBatch,
    pub(super) item: &'a DeliveryItem,
    /// Which try this is, from 1.
    pub(super) attempt: u32,
    /// What was sent to the same target for another submission of its scope.
    pub(super) earlier: Option<Earlier>,
}

impl Claimed<'_> {
    /// What becomes of it where a later submission of its scope came first: sent now, it would
    /// put the older content over the newer.
    pub(super) fn superseded(&self) -> Option<Outcome> {
        let (earlier, mine) = (self.earlier.as_ref()?, &self.batch.header);
        let newer = (mine.accepted_at, mine.id) < (earlier.accepted_at, earlier.submission);
        newer.then(|| Outcome::Skipped {
            reason: Reason::Superseded,
            detail: "a later submission of its scope was sent first".to_owned(),
        })
    }
}

/// What one turn of the loop has to do.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    pub(super) token: Uuid,
    /// Each with the queue it came from.
    pub(super) batches: &'a [(String, DeliveryBatch)],
    pub(super) mine: Vec<Claimed<'a>>,
    /// Deliveries whose time has not come, or that somebody else holds: batch, item, when.
    pub(super) later: Vec<(usize, &'a DeliveryItem, Timestamp)>,
}

impl Deliveries {
    /// Claims every delivery of these batches that nobody has sent or holds.
    pub(super) async fn claim<'a>(
        &self,
        batches: &'a [(String, DeliveryBatch)],
        token: Uuid,
    ) -> Result<Turn<'a>, Failure> {
        let items: Vec<(usize, &DeliveryBatch, &DeliveryItem)> = batches
            .iter()
            .enumerate()
            .flat_map(|(index, (_, batch))| {
                batch.items.iter().map(move |item| (index, batch, item))
            })
            .collect();
        let ids: Vec<Uuid> = items.iter().map(|(_, _, item)| item.id).collect();
        let claims = if ids.is_empty() {
            Vec::new()
        } else {
            self.store.claim(&ids, token, self.lease).await?
        };
        let mut turn = Turn {
            token,
            batches,
            mine: Vec::new(),
            later: Vec::new(),
        };
        for ((index, batch, item), claim) in items.into_iter().zip(claims) {
            match claim {
                Claim::Mine { attempt, doubtful } => {
                    if doubtful {
                        tracing::warn!(delivery = %item.id, channel = batch.channel,
                            "an earlier sender vanished while it held this; it may go out twice");
                    }
                    turn.mine.push(Claimed {
                        index,
                        batch,
                        item,
                        attempt,
                        earlier: None,
                    });
                }
                Claim::NotBefore(at) => turn.later.push((index, item, at)),
                Claim::Done => {}
            }
        }
        Ok(turn)
    }

    /// Finds what was sent before for the same scopes, if the sender updates it.
    pub(super) async fn find_earlier(&self, turn: &mut Turn<'_>) -> Result<(), Failure> {
        if !self.sender.updates() {
            return Ok(());
        }
        let scoped = |one: &&mut Claimed<'_>| {
            let patch = one.item.patch.as_ref();
            personal(&one.batch.payload, patch).scope().is_some()
        };
        let scoped: Vec<&mut Claimed<'_>> = turn.mine.iter_mut().filter(scoped).collect();
        if scoped.is_empty() {
            return Ok(());
        }
        let ids: Vec<Uuid> = scoped.iter().map(|one| one.item.id).collect();
        let found = self.store.earlier(&ids).await?;
        for (one, earlier) in scoped.into_iter().zip(found) {
            one.earlier = earlier;
        }
        Ok(())
    }

    /// Gives back, untried, whatever of the turn is still claimed.
    pub(super) async fn give_back<T>(&self, turn: &Turn<'_>, why: Failure) -> Result<T, Failure> {
        let ids: Vec<Uuid> = turn.mine.iter().map(|one| one.item.id).collect();
        if let Err(error) = self.store.release(turn.token, &ids).await {
            // Their lease runs out by itself.
            tracing::warn!(%error, "claimed deliveries could not be given back");
        }
        Err(why)
    }

    /// The deliveries that replace one with many targets.
    pub(super) fn children(claimed: &Claimed<'_>, targets: Vec<String>) -> Vec<NewDelivery> {
        let (notification, revision) = (claimed.item.notification, claimed.batch.header.id);
        let channel = &claimed.batch.channel;
        let mut children: Vec<NewDelivery> = targets
            .into_iter()
            .map(|target| NewDelivery {
                id: crate::notification::delivery_id(notification, revision, channel, &target),
                channel: channel.clone(),
                target,
                state: crate::delivery::DeliveryState::Pending,
                reason: None,
                detail: None,
            })
            .collect();
        children.sort_by_key(|child| child.id);
        children.dedup_by_key(|child| child.id);
        children
    }
}
