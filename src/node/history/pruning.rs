//! Pruning: the removal of final entries from the logs of this node.

use std::{collections::BTreeSet, sync::Arc};

use crate::{
    log::Pruning,
    node::{
        HistoryError, HistoryPolicy, Node,
        history::{branches::several, outlook::Facts},
    },
    protocol::{
        finality::{BaseState, Chains, DropFacts, DropPoint, NotYet, may_drop},
        placed_act::PlacedAct,
    },
    store::{ReadError, Store, consumers::HeldHistory},
};

/// Entries that were removed from the logs of a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pruned {
    /// Number of the act that had made them final.
    pub act: u64,
    /// Files and branches that were removed.
    pub removed: Pruning,
}

impl Node {
    /// Removes final entries of `store` from the logs of this node, if they take more room than the policy
    /// allows, or are older; `now` removes them in any case. Their rows are in a base by then that is the
    /// same as that of the admin who made them final. Returns `None` when nothing is to be removed. Durable
    /// on return; a dropped call may still remove them.
    ///
    /// # Errors
    /// `NothingFinal`, `NotYet`, `Branches`; `Root`, `Private`; `Read`, `Prune`.
    pub async fn prune(
        &self,
        store: &Store,
        policy: &HistoryPolicy,
        now: bool,
    ) -> Result<Option<Pruned>, HistoryError> {
        let facts = self.facts(store, policy, false).await?;
        if let Some(author) = several(&facts.finality.last()) {
            return Err(HistoryError::Branches { author });
        }
        let folded = store.folded();
        let act = facts.covering(folded.as_ref());
        let act = Arc::clone(act.ok_or(HistoryError::NothingFinal)?);
        if !now && !wants(store, policy, &act).await? {
            return Ok(None);
        }
        let (node, of, placed) = (self.clone(), store.clone(), Arc::clone(&act));
        let looking =
            tokio::task::spawn_blocking(move || node.reasons_to_keep(&of, &facts, &placed));
        let reasons = looking.await.map_err(|_panic| HistoryError::Panicked)??;
        let is_about_base =
            |reason: &NotYet| matches!(reason, NotYet::NoBase | NotYet::OtherBase { .. });
        if !reasons.iter().all(is_about_base) {
            return Err(HistoryError::NotYet(reasons));
        }
        let folded = store.fold(act.act.anchors().clone()).await?;
        let (own, named) = (folded.base.hash, act.act.base().map(|base| base.hash));
        if let Some(named) = named.filter(|named| *named != own) {
            return Err(HistoryError::NotYet(vec![NotYet::OtherBase { own, named }]));
        }
        Ok(Some(Pruned {
            act: act.act.number(),
            removed: store.drop_folded(&folded).await?,
        }))
    }

    /// Returns why the entries that `act` made final cannot be removed yet. That the state is on disk, and
    /// no log damaged, the store sees to when they are removed.
    ///
    /// # Errors
    /// `Read`.
    pub(super) fn reasons_to_keep(
        &self,
        store: &Store,
        facts: &Facts,
        act: &PlacedAct,
    ) -> Result<Vec<NotYet>, HistoryError> {
        let root = self.root();
        let unseen_by = facts.grounds().admins_without(&act.by, act.at, root.log());
        let mut incomplete = BTreeSet::new();
        for (author, anchor) in act.act.anchors().iter() {
            let mut is_applied = false;
            for tip in facts.own.tips(&author) {
                let leads = || Chains::leads(store.log(), &author, anchor, *tip);
                is_applied |= *tip == anchor || leads().map_err(ReadError::from)? == Some(true);
            }
            if !is_applied {
                incomplete.insert(author);
            }
        }
        let folded = store.folded();
        let folded = folded.filter(|folded| folded.anchors == *act.act.anchors());
        let base = folded.map_or(BaseState::NotDurable, |folded| BaseState::Durable {
            own: folded.base.hash,
            named: act.act.base().map(|base| base.hash),
        });
        Ok(may_drop(&DropFacts {
            counts: true,
            unseen_by: unseen_by.map_err(ReadError::from)?,
            incomplete,
            base,
            flushed: true,
            damaged: BTreeSet::new(),
            voided: u64::try_from(facts.branches.void.len()).unwrap_or(u64::MAX),
        }))
    }
}

// Whether the entries that `act` made final are older than the policy keeps them, or take more room, and
// no consumer holds them.
async fn wants(
    store: &Store,
    policy: &HistoryPolicy,
    act: &PlacedAct,
) -> Result<bool, HistoryError> {
    let bytes = store.log().bytes();
    let point = DropPoint {
        // Nothing that it made final came after it.
        arrived_ms: act.act.through_ms(),
        bytes_left: store.bytes_after(act.act.anchors()),
    };
    let begins_there = point.bytes_left >= bytes;
    let now_ms = store.now_ms();
    let retention = &policy.retention;
    if begins_there || retention.dropping(now_ms, bytes, &[point], &[]).points == 0 {
        return Ok(false);
    }
    let held = store.held_history(vec![act.act.anchors().clone()]).await?;
    let holds: Vec<_> = held.iter().map(HeldHistory::as_rule).collect();
    let dropping = retention.dropping(now_ms, bytes, &[point], &holds);
    for held in dropping.held_by.iter().filter_map(|index| held.get(*index)) {
        tracing::debug!(store = %store.id(), consumer = held.consumer, "a consumer holds history");
    }
    Ok(dropping.points > 0)
}
