//! Anchors: the act by which an admin makes entries of a store final.

use std::{
    collections::BTreeMap,
    sync::{Arc, MutexGuard, PoisonError},
};

use crate::{
    id::{EntryId, StoreId},
    node::{
        HistoryError, HistoryPolicy, Node,
        history::{branches::several, facts::Facts, points::covers},
    },
    protocol::{
        anchors_act::{ActCollection, AnchorsAct},
        entry::Op,
        finality::{Collections, Stability, Taking, is_act_due, is_collection_due},
        frontier::Frontier,
        heads::hash_of,
        membership::role::Role,
        placed_act::{PlacedAct, anchors_key},
    },
    store::{Condition, ReadError, Store, Write, WriteError},
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
    /// disk. Takes the tombstones of entries that were removed from the logs here, once all writers have
    /// those. Returns `None` when there is nothing of both, or too little for an act, or when another admin's
    /// act comes meanwhile; `now` makes the act for any number, however young. Durable on return; a dropped
    /// call may still publish the act.
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
        // First: the base has the effect of the acts that the entry of the new one cites, and of no others.
        let cited = self.root().heads(&anchors_key(&store.id())).await?;
        let cites: Vec<EntryId> = cited.iter().map(|head| head.entry.id).collect();
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
        let acts = || acts.iter().map(Arc::as_ref);
        let condition = Condition::Heads(hash_of(cites.iter().copied()));
        let to_be = PlacedAct::to_be(self.id(), store.id(), cites, act(None)?);
        let collections = Collections::of_base(&to_be, acts());
        let taking = Taking::new(collections, store.collected(), acts());
        // No base can be made where an author has several final branches. An act without a base makes
        // entries final, and lets nobody remove them.
        let base = match several(&next.anchors) {
            Some(_author) => None,
            None => {
                let folded = store.fold(next.anchors.clone(), taking).await?;
                // An earlier base that no act names may have had later entries.
                (folded.anchors == next.anchors).then_some(folded.base)
            }
        };
        match self.publish(store, &act(base)?, Some(condition)).await {
            Err(HistoryError::Write(WriteError::PreconditionFailed { .. })) => return Ok(None),
            published => published?,
        }
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
        self.publish(store, act, None).await
    }

    async fn publish(
        &self,
        store: &Store,
        act: &AnchorsAct,
        condition: Option<Condition>,
    ) -> Result<(), HistoryError> {
        let put = Op::Put {
            key: anchors_key(&store.id()),
            value: act.encode(),
            expires_ms: None,
        };
        let write = Write {
            ops: vec![put],
            atomic: false,
            condition,
            cause: None,
        };
        self.root().write_own(write).await?;
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
        let collection = self.collection(store, facts, &anchors)?;
        // The same again, with later anchors, takes less.
        let collection = collection.filter(|it| facts.takes_more(it));
        let takes_more = collection.is_some();
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
    // The newest act through which the logs here were removed, once consumers hold nothing of that time on
    // any node: the tombstones go when the history ends that has them.
    fn ended(&self, store: &Store) -> Option<&PlacedAct> {
        let begins = store.begins();
        let before_ms = store.now_ms().saturating_sub(self.policy.retention.hold_ms);
        let mut acts = self.acts.iter().map(Arc::as_ref);
        acts.find(|placed| {
            let act = &placed.act;
            act.through_ms() <= before_ms
                && several(act.anchors()).is_none()
                && covers(&begins, act.anchors())
        })
    }

    // Whether `ordered` may take tombstones that no act has taken: no other collection is about as many
    // entries.
    fn takes_more(&self, ordered: &ActCollection) -> bool {
        let anchors = |before| {
            let mut acts = self.acts.iter();
            let act = acts.find(|placed| placed.at.id == before)?;
            Some(act.act.anchors())
        };
        let Some(ordered) = anchors(ordered.before) else {
            return false;
        };
        let taken = self
            .acts
            .iter()
            .filter_map(|placed| placed.act.collection());
        let mut taken = taken.filter_map(|taken| anchors(taken.before));
        !taken.any(|taken| covers(taken, ordered))
    }
}

impl Node {
    // Notes the writers that have all of an act: its tombstones go next.
    fn hear(&self, store: &Store, facts: &Facts) -> Result<(), HistoryError> {
        let mut known = self.stability();
        let last = known.remove(&store.id()).filter(|stability| {
            let mut acts = facts.acts.iter();
            acts.any(|placed| placed.at.id == stability.act())
        });
        let next = || Some(Stability::new(facts.ended(store)?));
        let Some(mut stability) = last.or_else(next) else {
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
