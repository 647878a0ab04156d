//! The turns of this node with its peers: one for each peer and store.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::watch;

use crate::{
    id::{Author, StoreId},
    protocol::sync,
};

/// The turn with each peer in each store.
#[derive(Debug, Default)]
pub(super) struct Turns(
    // Bounded by members and stores. Never held across an await; no other lock is taken meanwhile.
    Mutex<BTreeMap<(Author, StoreId), Arc<Turn>>>,
);

/// The turn with one peer in one store; the rule is `protocol::sync::Turn`.
#[derive(Debug, Default)]
pub(super) struct Turn {
    // Held while a session goes on, across awaits. An own session waits for it; a session that the
    // peer has opened takes it when it is free, and goes on without it when it is not.
    pub(super) session: tokio::sync::Mutex<()>,
    // Changed only by the own session that holds `session`. Watched by sessions that the peer has
    // opened. Never closed: the receiver's task holds the turn.
    pub(super) rule: watch::Sender<sync::Turn>,
}

impl Turns {
    /// Returns the turn with `node` in `store`.
    pub(super) fn of(&self, node: &Author, store: &StoreId) -> Arc<Turn> {
        let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(turns.entry((*node, *store)).or_default())
    }
}
