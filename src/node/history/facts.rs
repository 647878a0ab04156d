//! Facts: what decisions about the history of a store follow from.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::{
    id::Author,
    node::{HistoryError, HistoryPolicy, Node},
    protocol::{
        finality::{Finality, Grounds, Proven},
        frontier::Frontier,
        membership::Members,
        placed_act::PlacedAct,
    },
    store::{OpenBranches, ReadError, Store},
};

/// Everything that decisions about a store follow from.
#[derive(Debug)]
pub(super) struct Facts {
    pub(super) members: Arc<Members>,
    pub(super) dormant: BTreeSet<Author>,
    pub(super) proven: BTreeMap<Author, Proven>,
    pub(super) finality: Arc<Finality>,
    pub(super) own: Frontier,
    pub(super) branches: OpenBranches,
    pub(super) before_ms: Option<u64>,
    // The newest first.
    pub(super) acts: Vec<Arc<PlacedAct>>,
    pub(super) policy: HistoryPolicy,
}

impl Facts {
    pub(super) fn grounds(&self) -> Grounds<'_> {
        Grounds {
            members: &self.members,
            dormant: &self.dormant,
            proven: &self.proven,
            finality: &self.finality,
            own: &self.own,
            open_forks: &self.branches.open,
            before_ms: self.before_ms,
        }
    }
}

impl Node {
    /// Gathers what decisions about `store` follow from. `now`: entries are not too young.
    ///
    /// # Errors
    /// `Root`, `Private`, `Read`.
    pub(super) async fn facts(
        &self,
        store: &Store,
        policy: &HistoryPolicy,
        now: bool,
    ) -> Result<Facts, HistoryError> {
        loop {
            let facts = self.gather(store, policy, now).await?;
            // A member that was admitted meanwhile is asked, too.
            if Arc::ptr_eq(&facts.members, &self.members()) {
                return Ok(facts);
            }
        }
    }

    async fn gather(
        &self,
        store: &Store,
        policy: &HistoryPolicy,
        now: bool,
    ) -> Result<Facts, HistoryError> {
        let root = self.root();
        self.check_shared(store)?;
        let members = self.members();
        let mut dormant = BTreeSet::new();
        for (node, _member) in members.iter() {
            if *node != self.id() && self.is_dormant(node).await? {
                dormant.insert(*node);
            }
        }
        let mut acts: Vec<_> = members.anchors_acts(&store.id()).cloned().collect();
        acts.sort_by_key(|placed| (placed.act.number(), placed.act.through_ms(), placed.at.id));
        acts.reverse();
        let (node, store, policy) = (self.clone(), store.clone(), *policy);
        let gathering = tokio::task::spawn_blocking(move || -> Result<Facts, HistoryError> {
            let finality = store.finality();
            let open_bytes = store.bytes_after(&finality.last());
            let before_ms = policy.store.before_ms(store.now_ms(), open_bytes);
            // First: what is acknowledged later is not taken to be here.
            let own = store.frontier();
            let (of_store, of_root) = ((store.id(), store.log()), (root.id(), root.log()));
            let proven = node.0.heard.proven(of_store, of_root, &members);
            let mut proven = proven.map_err(ReadError::from)?;
            proven.insert(node.id(), Proven::own(own.clone(), root.frontier()));
            Ok(Facts {
                members,
                dormant,
                proven,
                finality,
                own,
                branches: store.open_branches()?,
                before_ms: before_ms.filter(|_| !now),
                acts,
                policy,
            })
        });
        gathering.await.map_err(|_panic| HistoryError::Panicked)?
    }
}
