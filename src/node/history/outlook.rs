//! Outlook: which entries of a store are final, which may become final, and who is in the way.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::{
    id::Author,
    node::{HistoryError, HistoryPolicy, Node, history::branches::several},
    protocol::{
        finality::{AckMissing, Finality, Grounds, NotYet, Proven, Watermark},
        frontier::Frontier,
        membership::Members,
        placed_act::PlacedAct,
    },
    store::{FoldedBase, OpenBranches, ReadError, Store},
};

/// The history of a store, as this node sees it.
#[derive(Debug, Clone)]
pub struct Outlook {
    /// The last final entry of each author, as far as they are here.
    pub anchors: Frontier,
    /// Number of the newest anchors act that counts; `None` before the first one.
    pub act: Option<u64>,
    /// Time of that act, in ms since 1970, by its author's clock.
    pub through_ms: Option<u64>,
    /// Entries that could become final now, and who holds the rest; or whose acks are missing.
    pub watermark: Result<Watermark, AckMissing>,
    /// Bytes of the logs here.
    pub log_bytes: u64,
    /// About how many of them are not final.
    pub open_bytes: u64,
    /// About how many of these could become final now.
    pub ready_bytes: u64,
    /// Members that are not waited for.
    pub dormant: BTreeSet<Author>,
    /// The newest base; `None` before the first one.
    pub base: Option<FoldedBase>,
    /// Why final entries cannot be removed yet; empty if they can be, or if there are none.
    pub not_yet: Vec<NotYet>,
    /// An author with several final branches: as long as there is one, nothing can be removed.
    pub branches: Option<Author>,
}

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

    /// Returns an act that has all final entries, and whose base is known: of several one whose base is
    /// `folded`, else the newest one.
    pub(super) fn covering(&self, folded: Option<&FoldedBase>) -> Option<&Arc<PlacedAct>> {
        let last = self.finality.last();
        let has_base =
            |placed: &&Arc<PlacedAct>| *placed.act.anchors() == last && placed.act.base().is_some();
        let is_same = |placed: &&Arc<PlacedAct>| {
            folded.is_some_and(|folded| {
                folded.anchors == last && placed.act.base() == Some(folded.base)
            })
        };
        let acts = || self.acts.iter().filter(has_base);
        acts().find(is_same).or_else(|| acts().next())
    }
}

impl Node {
    /// Returns which entries of `store` are final, which may become so, and who is in the way. `now`: no
    /// entry is too young.
    ///
    /// # Errors
    /// `Root`, `Private`, `Read`.
    pub async fn outlook(
        &self,
        store: &Store,
        policy: &HistoryPolicy,
        now: bool,
    ) -> Result<Outlook, HistoryError> {
        let facts = self.facts(store, policy, now).await?;
        let (node, store) = (self.clone(), store.clone());
        let looking = tokio::task::spawn_blocking(move || node.look(&store, &facts));
        looking.await.map_err(|_panic| HistoryError::Panicked)?
    }

    fn look(&self, store: &Store, facts: &Facts) -> Result<Outlook, HistoryError> {
        let root = self.root();
        let anchors = facts.finality.last();
        let watermark = facts.grounds().watermark(store.log(), root.log());
        let watermark = watermark.map_err(ReadError::from)?;
        let open_bytes = store.bytes_after(&anchors);
        let ready_bytes = watermark.as_ref().map_or(0, |watermark| {
            open_bytes.saturating_sub(store.bytes_after(&watermark.anchors))
        });
        let newest = facts.acts.first();
        let base = store.folded();
        let not_yet = match facts.covering(base.as_ref()) {
            Some(act) => self.reasons_to_keep(store, facts, act)?,
            None => Vec::new(),
        };
        Ok(Outlook {
            branches: several(&anchors),
            anchors,
            act: newest.map(|placed| placed.act.number()),
            through_ms: newest.map(|placed| placed.act.through_ms()),
            watermark,
            log_bytes: store.log().bytes(),
            open_bytes,
            ready_bytes,
            dormant: facts.dormant.clone(),
            base,
            not_yet,
        })
    }

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
        if store.id() == root.id() {
            return Err(HistoryError::Root);
        }
        if self.shared_store(&store.id()).is_none() {
            return Err(HistoryError::Private);
        }
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
            })
        });
        gathering.await.map_err(|_panic| HistoryError::Panicked)?
    }
}
