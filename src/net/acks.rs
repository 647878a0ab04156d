//! Which member has which entries on disk: the latest ack of each member.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::sync::watch;

use crate::{
    id::{Author, StoreId},
    protocol::{ack::Ack, frontier::FrontierTip},
    store::Store,
};

/// The latest ack of each member in each store.
#[derive(Debug)]
pub(super) struct Acks {
    // Callers of `take` let only members and open stores in, which bounds it. Never held across an
    // await; no other lock is taken meanwhile.
    latest: Mutex<BTreeMap<(StoreId, Author), Arc<Ack>>>,
    // Counts acks that were kept, so that waiting tasks look again. Dropped with the mesh.
    news: watch::Sender<u64>,
    // Greater than at any earlier start of this node.
    incarnation: u64,
    // Counter of the next own ack: orders the own acks of one incarnation.
    counter: AtomicU64,
}

impl Acks {
    /// Returns a table without acks. `incarnation` is the number of this start of this node.
    pub(super) fn new(incarnation: u64) -> Self {
        Self {
            latest: Mutex::default(),
            news: watch::Sender::new(0),
            incarnation,
            counter: AtomicU64::new(0),
        }
    }

    /// Keeps an ack if it is later than the last one of its node in its store.
    pub(super) fn take(&self, ack: Ack) {
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        let place = (ack.store, ack.node);
        if latest
            .get(&place)
            .is_none_or(|known| ack.is_later_than(known))
        {
            latest.insert(place, Arc::new(ack));
            drop(latest);
            self.news
                .send_modify(|count| *count = count.wrapping_add(1));
        }
    }

    /// Returns a receiver that changes when an ack was kept.
    pub(super) fn news(&self) -> watch::Receiver<u64> {
        self.news.subscribe()
    }

    /// Returns the nodes whose last ack covers the entry of `author` at `tip`.
    pub(super) fn who_has(
        &self,
        store: &StoreId,
        author: &Author,
        tip: FrontierTip,
    ) -> Vec<Author> {
        let latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        let acks = latest.iter().filter(|((of, _), _)| of == store);
        acks.filter(|(_, ack)| ack.covers(author, tip))
            .map(|((_, node), _)| *node)
            .collect()
    }

    /// Returns how many entries of this node the last ack of `node` does not cover. `None` without
    /// an ack.
    pub(super) fn behind(&self, store: &Store, node: &Author) -> Option<u64> {
        let latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        let ack = latest.get(&(store.id(), *node))?;
        let missing = store.frontier().missing_from(&ack.frontier);
        Some(
            missing
                .iter()
                .map(|range| range.through - range.after)
                .sum(),
        )
    }

    /// Returns how many entries of the last ack of `node` are not here. `None` without an ack.
    pub(super) fn ahead(&self, store: &Store, node: &Author) -> Option<u64> {
        let latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        let ack = latest.get(&(store.id(), *node))?;
        let missing = ack.frontier.missing_from(&store.frontier());
        Some(
            missing
                .iter()
                .map(|range| range.through - range.after)
                .sum(),
        )
    }

    /// Returns the next ack of `node`, which is this node, in `store`.
    pub(super) fn own(&self, node: Author, store: &Store) -> Ack {
        Ack {
            node,
            store: store.id(),
            incarnation: self.incarnation,
            counter: self.counter.fetch_add(1, Ordering::Relaxed),
            // All of it is on disk: an entry is applied after its fsync.
            frontier: store.frontier(),
        }
    }
}
