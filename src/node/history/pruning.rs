//! Pruning: the removal of final entries from the logs of this node.

use std::{collections::BTreeSet, sync::Arc};

use crate::{
    log::Pruning,
    node::{
        HistoryError, HistoryPolicy, Node,
        history::{
            branches::several,
            facts::Facts,
            points::{Point, arrival, covers},
        },
    },
    protocol::{
        finality::{BaseState, Chains, Collections, DropFacts, NotYet, Taking, may_drop},
        placed_act::PlacedAct,
    },
    store::{FoldedBase, ReadError, Store, consumers::HeldHistory},
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
        let _turn = self.history_turn(&store.id()).await;
        let facts = Arc::new(self.facts(store, policy, false).await?);
        if let Some(author) = several(&facts.finality.last()) {
            return Err(HistoryError::Branches { author });
        }
        let points = facts.points(store).await?;
        let point = match now {
            true => points.len().checked_sub(1),
            false => wanted(store, policy, &points).await?,
        };
        let Some(act) = point.and_then(|at| points.get(at)).map(|at| &at.act) else {
            let has_base = facts.acts.iter().any(|placed| placed.act.base().is_some());
            return match has_base {
                true => Ok(None),
                false => Err(HistoryError::NothingFinal),
            };
        };
        let (number, anchors) = (act.act.number(), act.act.anchors().clone());
        let (node, of, placed) = (self.clone(), store.clone(), Arc::clone(act));
        let known = Arc::clone(&facts);
        let looking =
            tokio::task::spawn_blocking(move || node.reasons_to_keep(&of, &known, &placed));
        let reasons = looking.await.map_err(|_panic| HistoryError::Panicked)??;
        if !reasons.iter().all(|reason| *reason == NotYet::NoBase) {
            return Err(HistoryError::NotYet(reasons));
        }
        let folded = match facts.base_with(store, act) {
            Some(folded) => folded,
            None => {
                let acts = || facts.acts.iter().map(Arc::as_ref);
                let collections = Collections::of_base(act, acts());
                let taking = Taking::new(collections, store.collected(), acts());
                store.fold(anchors.clone(), taking).await?
            }
        };
        match base_state(&facts, &folded) {
            BaseState::Durable {
                own,
                named: Some(named),
            } if own != named => {
                return Err(HistoryError::NotYet(vec![NotYet::OtherBase { own, named }]));
            }
            BaseState::Durable { named: None, .. } => {
                return Err(HistoryError::NotYet(vec![NotYet::Uncompared]));
            }
            BaseState::Durable { .. } | BaseState::Joined | BaseState::NotDurable => {}
        }
        Ok(Some(Pruned {
            act: number,
            removed: store.drop_through(&folded, anchors).await?,
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
        let folded = facts.base_with(store, act);
        let base = folded.map_or(BaseState::NotDurable, |folded| base_state(facts, &folded));
        // By then an admin has had the time to look at what the act made void.
        let kept_ms = facts.policy.retention.hold_ms;
        let arrived_ms = arrival(root.log(), &act.by, act.at).map_err(ReadError::from)?;
        let since_ms = act.act.through_ms().max(arrived_ms);
        let is_settled = since_ms.saturating_add(kept_ms) <= store.now_ms();
        let void = facts.branches.void.len();
        let voided = if is_settled { 0 } else { void };
        Ok(may_drop(&DropFacts {
            counts: true,
            unseen_by: unseen_by.map_err(ReadError::from)?,
            incomplete,
            base,
            flushed: true,
            damaged: BTreeSet::new(),
            voided: u64::try_from(voided).unwrap_or(u64::MAX),
        }))
    }
}

impl Facts {
    // The newest base, if it has all entries that `act` makes final, and no effect of an act that other nodes
    // do not know or that does not count any more.
    fn base_with(&self, store: &Store, act: &PlacedAct) -> Option<FoldedBase> {
        let folded = store.folded()?;
        let acts = || self.acts.iter().map(Arc::as_ref);
        let is_of = |act: &PlacedAct| {
            let is_named = act.act.base() == Some(folded.base);
            is_named
                && *act.act.anchors() == folded.anchors
                && Collections::of_base(act, acts()).hash() == folded.collected
        };
        let is_named = acts().any(is_of);
        let is_sound = || {
            let collections = Collections::of_base(act, acts());
            let here = BTreeSet::from([folded.collected]);
            Taking::new(collections, here, acts()).may_begin_with(folded.collected)
        };
        let is_whole = covers(&folded.anchors, act.act.anchors());
        (is_whole && (is_named || is_sound())).then_some(folded)
    }
}

// The state of `folded`, the newest base, beside what admins say of it.
fn base_state(facts: &Facts, folded: &FoldedBase) -> BaseState {
    match facts.named(folded) {
        // It is that of several acts, all of which count.
        None if covers(&facts.finality.last(), &folded.anchors) => BaseState::Joined,
        named => BaseState::Durable {
            own: folded.base.hash,
            named: named.map(|base| base.hash),
        },
    }
}

// The last of the points through which entries are older than the policy keeps them, or take more room,
// and that no consumer holds.
async fn wanted(
    store: &Store,
    policy: &HistoryPolicy,
    points: &[Point],
) -> Result<Option<usize>, HistoryError> {
    let Some(newest) = points.last() else {
        return Ok(None);
    };
    let anchors = |point: &Point| point.act.act.anchors().clone();
    // Entries that are not final do not count: else whoever writes many of them ends the history of all.
    let open_bytes = store.bytes_after(&anchors(newest));
    let bytes = store.log_bytes().saturating_sub(open_bytes);
    let bytes = bytes.saturating_add(newest.rule.bytes_left);
    let rules: Vec<_> = points.iter().map(|point| point.rule).collect();
    let (now_ms, retention) = (store.now_ms(), &policy.retention);
    if retention.dropping(now_ms, bytes, &rules, &[]).points == 0 {
        return Ok(None);
    }
    let held = store.held_history(points.iter().map(anchors).collect());
    let held = held.await?;
    let holds: Vec<_> = held.iter().map(HeldHistory::as_rule).collect();
    let dropping = retention.dropping(now_ms, bytes, &rules, &holds);
    for held in dropping.held_by.iter().filter_map(|index| held.get(*index)) {
        tracing::debug!(store = %store.id(), consumer = held.consumer, "a consumer holds history");
    }
    Ok(dropping.points.checked_sub(1))
}
