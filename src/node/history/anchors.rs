//! Anchors: the act by which an admin makes entries of a store final.

use std::{
    collections::BTreeMap,
    sync::{Arc, MutexGuard, PoisonError},
};

use crate::{
    id::StoreId,
    node::{
        HistoryError, HistoryPolicy, Node,
        history::{branches::several, facts::Facts},
    },
    protocol::{
        anchors_act::{ActCollection, AnchorsAct},
        entry::Op,
        finality::{Collections, Stability, is_act_due, is_collection_due},
        frontier::Frontier,
        membership::role::Role,
        placed_act::anchors_key,
    },
    store::{ReadError, Store, Write},
};

/// An act that was published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Final {
    /// Number of the act.
    pub number: u64,
    /// The last final entry of each author.
    pub anchors: Frontier,
    /// About how many bytes of the logs here became final.
    pub bytes: u64,
}

impl Node {
    /// Makes entries of `store` final on all nodes: those that every member which is waited for has on
    /// disk. Takes the tombstones of an earlier act, once all writers have that. Returns `None` when there is
    /// nothing of both, or too little for an act; `now` makes the act for any number, however young. Durable on return; a dropped call may still publish the act.
    ///
    /// # Errors
    /// `NotAdmin`; `AckMissing`; `Root`, `Private`; `Read`, `Prune`, `Write`, `Act`.
    pub async fn make_final(
        &self,
        store: &Store,
        policy: &HistoryPolicy,
        now: bool,
    ) -> Result<Option<Final>, HistoryError> {
        let _turn = self.history_turn(&store.id()).await;
        let role = self.members().role(&self.id());
        if role != Some(Role::Admin) {
            return Err(HistoryError::NotAdmin { role });
        }
        let facts = self.facts(store, policy, now).await?;
        let (node, of, acts) = (self.clone(), store.clone(), facts.acts.clone());
        let looking = tokio::task::spawn_blocking(move || node.next_act(&of, &facts, now));
        let next = looking.await.map_err(|_panic| HistoryError::Panicked)??;
        let Some((next, ordered)) = next else {
            return Ok(None);
        };
        // Not after the stamp of its entry: the clock is read before that.
        let through_ms = store.now_ms();
        let act = |base| {
            let (anchors, ordered) = (next.anchors.clone(), ordered.clone());
            AnchorsAct::new(next.number, base, through_ms, anchors, ordered)
        };
        let collections = Collections::of_next(&act(None)?, acts.iter().map(Arc::as_ref));
        // No base can be made where an author has several final branches. An act without a base makes
        // entries final, and lets nobody remove them.
        let base = match several(&next.anchors) {
            Some(_author) => None,
            None => Some(store.fold(next.anchors.clone(), collections).await?.base),
        };
        self.publish_act(store, &act(base)?).await?;
        if let Some(ordered) = ordered {
            // The tombstones of the new act are next.
            let mut known = self.stability();
            if known.get(&store.id()).map(Stability::act) == Some(ordered.before) {
                known.remove(&store.id());
            }
        }
        Ok(Some(next))
    }

    /// Publishes an act about `store` whatever it names. For tests: [`make_final`](Self::make_final)
    /// computes it.
    ///
    /// # Errors
    /// `Write`.
    #[doc(hidden)]
    pub async fn publish_act(&self, store: &Store, act: &AnchorsAct) -> Result<(), HistoryError> {
        let put = Op::Put {
            key: anchors_key(&store.id()),
            value: act.encode(),
            expires_ms: None,
        };
        self.root().write_own(write(put)).await?;
        store.reconsider().await;
        Ok(())
    }

    fn next_act(
        &self,
        store: &Store,
        facts: &Facts,
        now: bool,
    ) -> Result<Option<(Final, Option<ActCollection>)>, HistoryError> {
        let root = self.root();
        self.hear(store, facts)?;
        let watermark = facts.grounds().watermark(store.log(), root.log());
        let watermark = watermark.map_err(ReadError::from)??;
        let last = facts.finality.last();
        let anchors = watermark.anchors;
        let bytes = store
            .bytes_after(&last)
            .saturating_sub(store.bytes_after(&anchors));
        let newest = facts.acts.first();
        let before_ms = newest.map_or(0, |placed| placed.act.through_ms());
        let now_ms = store.now_ms();
        // A clock that was ahead must not keep acts away for ever.
        let is_ahead = before_ms.saturating_sub(now_ms) > DRIFT_MS;
        let since_ms = if is_ahead {
            u64::MAX
        } else {
            now_ms.saturating_sub(before_ms)
        };
        let turn_ms = self.place_among_admins(facts).saturating_mul(TURN_MS);
        let collection = match facts.policy.takes_tombstones {
            true => self.collection(store, facts, &anchors)?,
            false => None,
        };
        let takes_more = collection.as_ref().is_some_and(|it| facts.takes_more(it));
        let is_due = is_act_due(bytes, since_ms) || (takes_more && is_collection_due(since_ms));
        let is_something = anchors != last || takes_more;
        if !is_something || !(now || (is_due && since_ms >= turn_ms)) {
            return Ok(None);
        }
        let next = Final {
            number: newest
                .map_or(0, |placed| placed.act.number())
                .saturating_add(1),
            anchors,
            bytes,
        };
        Ok(Some((next, collection)))
    }
}

impl Facts {
    // Whether `ordered` may take tombstones that no act has taken: it is about more entries than the last
    // collection.
    fn takes_more(&self, ordered: &ActCollection) -> bool {
        let anchors = |before| {
            let mut acts = self.acts.iter();
            let act = acts.find(|placed| placed.at.id == before)?;
            Some(act.act.anchors())
        };
        let mut acts = self.acts.iter();
        let last = acts.find_map(|placed| placed.act.collection());
        last.and_then(|last| anchors(last.before)) != anchors(ordered.before)
    }
}

impl Node {
    // Notes the writers that have all of the last act: the tombstones of that one go next.
    fn hear(&self, store: &Store, facts: &Facts) -> Result<(), HistoryError> {
        let mut known = self.stability();
        let acts = || facts.acts.iter();
        let last = known.remove(&store.id()).filter(|stability| {
            let mut acts = acts();
            acts.any(|placed| placed.at.id == stability.act())
        });
        let newest = || Some(Stability::new(acts().next()?));
        let Some(mut stability) = last.or_else(newest) else {
            return Ok(());
        };
        let heard = stability.hear(&facts.grounds(), store.log());
        known.insert(store.id(), stability);
        Ok(heard.map_err(ReadError::from)?)
    }

    fn stability(&self) -> MutexGuard<'_, BTreeMap<StoreId, Stability>> {
        let known = self.0.stability.lock();
        known.unwrap_or_else(PoisonError::into_inner)
    }

    // Returns the collection that an act with `anchors` can order.
    fn collection(
        &self,
        store: &Store,
        facts: &Facts,
        anchors: &Frontier,
    ) -> Result<Option<ActCollection>, HistoryError> {
        match self.stability().get(&store.id()) {
            Some(stability) => {
                let ordered = stability.order(&facts.grounds(), anchors, store.log());
                Ok(ordered.map_err(ReadError::from)?)
            }
            None => Ok(None),
        }
    }
}

impl Node {
    // Number of admins that are waited for and have a better rank: those act first.
    fn place_among_admins(&self, facts: &Facts) -> u64 {
        let own = facts.members.get(&self.id()).and_then(|member| member.rank);
        let grounds = facts.grounds();
        let better = grounds.active().filter(|node| {
            let is_admin = facts.members.role(node) == Some(Role::Admin);
            let rank = facts.members.get(node).and_then(|member| member.rank);
            is_admin && (rank, *node) < (own, self.id())
        });
        u64::try_from(better.count()).unwrap_or(u64::MAX)
    }
}

// Time that an admin leaves to each one that ranks better.
const TURN_MS: u64 = 1_200_000;
// Clocks may differ by this much.
const DRIFT_MS: u64 = 3_600_000;

fn write(op: Op) -> Write {
    Write {
        ops: vec![op],
        atomic: false,
        condition: None,
        cause: None,
    }
}
