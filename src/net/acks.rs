//! Which member has which entries on disk: the latest acks of each member.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::sync::watch;

use crate::{
    id::{Author, StoreId},
    protocol::{
        ack::Ack,
        acked::Acked,
        frontier::{Frontier, FrontierTip},
    },
    store::Store,
};

/// The difference between a member and this node in one store, by the member's acks.
#[derive(Debug)]
pub(super) enum Apart {
    /// The member has not sent a whole ack yet.
    Unknown,
    /// Each has what the other has.
    InStep,
    /// One of them lacks entries.
    Differ {
        /// Frontier of this node; empty if the member lacks nothing of it.
        behind: Frontier,
        /// Frontier of the member; empty if this node lacks nothing of it.
        ahead: Frontier,
    },
}

/// The latest acks of each member in each store, joined.
#[derive(Debug)]
pub(super) struct Acks {
    // Callers of `take` let only members, open stores and known authors in, which bounds it. Never
    // held across an await; no other lock is taken meanwhile.
    latest: Mutex<BTreeMap<(StoreId, Author), Acked>>,
    // Counts acks that were kept, so that waiting tasks look again. Dropped with the mesh.
    news: watch::Sender<u64>,
    // Greater than at any earlier start of this node. Replaced by `begin_again`.
    incarnation: AtomicU64,
    // Counter of the next own ack or announcement: orders those of one incarnation.
    counter: AtomicU64,
}

impl Acks {
    /// Returns a table without acks. `incarnation` is the number of this start of this node.
    pub(super) fn new(incarnation: u64) -> Self {
        Self {
            latest: Mutex::default(),
            news: watch::Sender::new(0),
            incarnation: AtomicU64::new(incarnation),
            counter: AtomicU64::new(0),
        }
    }

    /// Returns whether an ack says anything that is not known.
    pub(super) fn is_news(&self, ack: &Ack) -> bool {
        let latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        let known = latest.get(&(ack.store, ack.node));
        known.is_none_or(|known| known.is_news(ack))
    }

    /// Joins an ack with the earlier ones of its node in its store. Returns whether it says anything
    /// that was not known.
    pub(super) fn take(&self, ack: &Ack) -> bool {
        {
            let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
            let acked = latest.entry((ack.store, ack.node)).or_default();
            if !acked.is_news(ack) {
                return false;
            }
            acked.join(ack);
        }
        self.news
            .send_modify(|count| *count = count.wrapping_add(1));
        true
    }

    /// Returns a receiver that changes when an ack was kept.
    pub(super) fn news(&self) -> watch::Receiver<u64> {
        self.news.subscribe()
    }

    /// Returns the nodes whose acks cover the entry of `author` at `tip`. Reads the log if `author`
    /// has forked.
    pub(super) fn who_has(&self, store: &Store, author: &Author, tip: FrontierTip) -> Vec<Author> {
        let own = store.frontier();
        // An unreadable frame hides the answer: then the acks show nothing.
        let leads = |at, end| store.leads(author, at, end).unwrap_or(None);
        let of_store = (store.id(), Author([0; 32]))..=(store.id(), Author([0xff; 32]));
        // Only acks that need the log are copied: it is not read under the lock.
        let mut doubtful = Vec::new();
        let mut nodes = Vec::new();
        {
            let latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
            for ((_, node), acked) in latest.range(of_store) {
                let mut needs_log = false;
                let asks = |_, _| {
                    needs_log = true;
                    None
                };
                if acked.covers(author, tip, &own, asks) {
                    nodes.push(*node);
                } else if needs_log {
                    doubtful.push((*node, acked.clone()));
                }
            }
        }
        let covers =
            |(node, acked): (Author, Acked)| acked.covers(author, tip, &own, leads).then_some(node);
        nodes.extend(doubtful.into_iter().filter_map(covers));
        nodes
    }

    /// Returns how many entries of this node the acks of `node` do not cover. `None` without a whole
    /// ack.
    pub(super) fn behind(&self, store: &Store, node: &Author) -> Option<u64> {
        let latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        let acked = latest.get(&(store.id(), *node))?.frontier()?;
        Some(store.frontier().entries_beyond(acked))
    }

    /// Returns how many entries of the acks of `node` are not here. `None` without a whole ack.
    pub(super) fn ahead(&self, store: &Store, node: &Author) -> Option<u64> {
        let latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        let acked = latest.get(&(store.id(), *node))?.frontier()?;
        Some(acked.entries_beyond(&store.frontier()))
    }

    /// Returns the entries that `node` lacks by its acks, and those that this node lacks.
    pub(super) fn apart(&self, store: &Store, node: &Author) -> Apart {
        let own = store.frontier();
        let latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        let acked = latest.get(&(store.id(), *node));
        let Some(acked) = acked.and_then(Acked::frontier) else {
            return Apart::Unknown;
        };
        let (is_behind, is_ahead) = (
            own.entries_beyond(acked) > 0,
            acked.entries_beyond(&own) > 0,
        );
        if !is_behind && !is_ahead {
            return Apart::InStep;
        }
        Apart::Differ {
            behind: if is_behind { own } else { Frontier::default() },
            ahead: if is_ahead {
                acked.clone()
            } else {
                Frontier::default()
            },
        }
    }

    /// Returns whether `node` or this node still lacks what it lacked `before`.
    pub(super) fn is_still_apart(&self, store: &Store, node: &Author, before: &Apart) -> bool {
        let latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        let acked = latest.get(&(store.id(), *node));
        let acked = acked.and_then(Acked::frontier);
        match (before, acked) {
            (Apart::InStep, _) => false,
            (Apart::Unknown, acked) => acked.is_none(),
            (Apart::Differ { .. }, None) => true,
            (Apart::Differ { behind, ahead }, Some(acked)) => {
                behind.entries_beyond(acked) > 0 || ahead.entries_beyond(&store.frontier()) > 0
            }
        }
    }

    /// Replaces the acks of another start of the node by `ack`, which that node has just sent
    /// itself. The other start was a copy of its data directory that ran, too.
    pub(super) fn restart(&self, ack: &Ack) {
        {
            let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
            latest.remove(&(ack.store, ack.node));
        }
        self.take(ack);
    }

    /// Returns the number of a later start whose acks hide `ack`.
    pub(super) fn later_start(&self, ack: &Ack) -> Option<u64> {
        let latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        let known = latest.get(&(ack.store, ack.node))?.incarnation();
        (known > ack.incarnation).then_some(known)
    }

    /// Gives the next own acks the number `incarnation`, which is greater than that of any copy of
    /// this node: acks of this node count from here on.
    pub(super) fn begin_again(&self, incarnation: u64) {
        self.incarnation.fetch_max(incarnation, Ordering::Relaxed);
    }

    fn incarnation(&self) -> u64 {
        self.incarnation.load(Ordering::Relaxed)
    }

    /// Returns the place of the next own announcement: the number of this start, and a counter.
    pub(super) fn next_place(&self) -> (u64, u64) {
        let counter = self.counter.fetch_add(1, Ordering::Relaxed);
        (self.incarnation(), counter)
    }

    /// Returns the next ack of `node`, which is this node, in `store`, which may be `root`, the root store.
    /// It has the root of the state if that is known.
    pub(super) fn own(&self, node: Author, store: &Store, root: &Store) -> Ack {
        let settled = store.settled_root();
        let frontier = settled.as_ref().map_or_else(
            || store.frontier(),
            |settled| Frontier::clone(&settled.frontier),
        );
        Ack {
            node,
            store: store.id(),
            incarnation: self.incarnation(),
            counter: self.counter.fetch_add(1, Ordering::Relaxed),
            is_part: false,
            // All of it is on disk: an entry is applied after its fsync.
            frontier,
            state: settled.map(|settled| settled.acked()),
            root_frontier: (store.id() != root.id()).then(|| root.frontier().hash()),
        }
    }
}
