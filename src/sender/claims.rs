//! Claiming: which deliveries of a batch are ours to send now, and giving them back.

use uuid::Uuid;

use super::Deliveries;
use crate::delivery::DeliveryBatch;
use crate::delivery::DeliveryItem;
use crate::failure::Failure;
use crate::store::Claim;
use crate::store::NewDelivery;
use crate::time::Timestamp;

/// A delivery that is ours until the lease runs out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Claimed<'a> {
    /// Which batch of the turn it came in.
    pub(super) index: usize,
    pub(super) batch: &'a DeliveryBatch,
    pub(super) item: &'a DeliveryItem,
    /// Which try this is, from 1.
    pub(super) attempt: u32,
}

impl Claimed<'_> {
    /// Whether it stands for many targets that are still to be found.
    pub(super) fn wants_targets(&self) -> bool {
        self.item.user.is_none() && self.item.target.is_empty()
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
                    });
                }
                Claim::NotBefore(at) => turn.later.push((index, item, at)),
                Claim::Done => {}
            }
        }
        Ok(turn)
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
