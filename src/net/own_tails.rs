//! Own writes that wait because this node may lack the end of its own log: its disk was lost,
//! and it gets its log back from other members.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use crate::{
    id::StoreId,
    store::{Store, WritePause},
};

/// The stores in which own writes wait until a session with a peer has brought the entries of this node.
#[derive(Debug, Default)]
pub(super) struct OwnTails(
    // Never held across an await; no other lock is taken meanwhile.
    Mutex<BTreeMap<StoreId, WritePause>>,
);

impl OwnTails {
    /// Lets own writes of `store` go on.
    pub(super) fn release(&self, store: &StoreId) {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        held.remove(store);
    }

    /// Lets own writes of `store` wait. Returns whether they were not held before.
    pub(super) fn hold(&self, store: &Store) -> bool {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if held.contains_key(&store.id()) {
            return false;
        }
        held.insert(store.id(), store.pause_writes());
        true
    }
}
