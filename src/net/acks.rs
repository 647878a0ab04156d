//! Who has what on disk: the latest ack of each member, and this node's own.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use iroh_gossip::api::GossipSender;
use tokio::sync::{Notify, watch};

use crate::{
    id::{Author, StoreId},
    limits::{ANNOUNCE_EVERY, GOSSIP_ENTRY_BYTES_MAX},
    net::{Mesh, gossip},
    protocol::{ack::Ack, frontier::FrontierTip},
    store::Store,
    wire::net,
};

/// The latest ack of each member in each store.
#[derive(Debug)]
pub(super) struct Acks {
    latest: Mutex<BTreeMap<(StoreId, Author), Arc<Ack>>>,
    // Counts what came: who waits looks again.
    news: watch::Sender<u64>,
    incarnation: u64,
    counter: AtomicU64,
}

impl Acks {
    /// Begins with none; `incarnation` is of this start of this node.
    pub(super) fn new(incarnation: u64) -> Self {
        Self {
            latest: Mutex::default(),
            news: watch::Sender::new(0),
            incarnation,
            counter: AtomicU64::new(0),
        }
    }

    /// Keeps an ack if it is the latest of its node.
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

    /// Returns what tells that an ack has come.
    pub(super) fn news(&self) -> watch::Receiver<u64> {
        self.news.subscribe()
    }

    /// Returns the members that say they have the entry of `author` at `tip`.
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

    /// Returns how many entries of `frontier` the last ack of `node` lacks; `None`: it never said.
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

    /// Returns how many entries of the last ack of `node` this node lacks; `None`: it never said.
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

    fn own(&self, mesh: &Mesh, store: &Store) -> Ack {
        Ack {
            node: mesh.node.id(),
            store: store.id(),
            incarnation: self.incarnation,
            counter: self.counter.fetch_add(1, Ordering::Relaxed),
            // What is in it is on disk: an entry is applied after its fsync.
            frontier: store.frontier(),
        }
    }
}

impl Mesh {
    /// Returns this node's acks of all stores, signed, for a peer that has just come.
    pub(super) fn own_acks(&self) -> Vec<Bytes> {
        let stores = self.node.open_stores();
        let acks = stores.iter().map(|store| self.acks.own(self, store));
        acks.map(|ack| self.node.sign_ack(&ack)).collect()
    }

    /// Takes an ack from elsewhere; false when it is none.
    pub(super) fn take_ack(&self, bytes: Bytes) -> bool {
        match Ack::open(bytes) {
            // Only members are kept, so their number bounds the memory.
            Ok(ack) => {
                if self.gate.admits(&ack.node) && self.node.open_store(&ack.store).is_some() {
                    self.acks.take(ack);
                }
                true
            }
            Err(error) => {
                tracing::debug!(%error, "an ack was refused");
                false
            }
        }
    }
}

/// Tells the neighbours what this node has, each time `wanted` says that there is more of it.
pub(super) async fn tell(mesh: &Mesh, store: &Store, sender: &GossipSender, wanted: &Notify) {
    loop {
        wanted.notified().await;
        let ack = mesh.node.sign_ack(&mesh.acks.own(mesh, store));
        if ack.len() <= GOSSIP_ENTRY_BYTES_MAX {
            gossip::broadcast(sender, net::gossip::Kind::Ack(ack)).await;
        }
        // One for all that comes in the meantime.
        tokio::time::sleep(ANNOUNCE_EVERY).await;
    }
}
