//! Nodes that have proven their membership before the root store here names them.
//!
//! Such a node is let in, and the sync that follows brings the grants that it has shown. From then
//! on the root store names it. In memory only: after a restart the node shows its proof again.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::{Mutex, PoisonError},
};

use bytes::Bytes;

use crate::{
    id::Author,
    limits::PROVEN_MAX,
    protocol::membership::role::Role,
    store::{ProveError, Store},
};

/// The nodes that are let in because of a proof.
#[derive(Debug, Default)]
pub(super) struct Proven(
    // Oldest first, each node once. At most PROVEN_MAX: then the oldest goes. Never held across an
    // await; no other lock is taken meanwhile.
    Mutex<VecDeque<(Author, Vec<Bytes>)>>,
);

impl Proven {
    /// Checks the proof that `node` shows, and keeps it if it holds. Returns the proven role.
    ///
    /// # Errors
    /// `ProveError`. Nothing is kept then.
    pub(super) async fn check(
        &self,
        root: &Store,
        node: &Author,
        proof: Vec<Bytes>,
    ) -> Result<Role, ProveError> {
        let role = root.role_by(node, &proof).await?;
        let mut proven = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        proven.retain(|(known, _)| known != node);
        if proven.len() == PROVEN_MAX {
            proven.pop_front();
        }
        proven.push_back((*node, proof));
        Ok(role)
    }

    /// Checks all proofs again after the members have changed. A node that the root store names
    /// needs none any more, and a proof may hold no longer.
    pub(super) async fn check_again(&self, root: &Store) {
        let shown = {
            let proven = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            proven.clone()
        };
        for (node, proof) in shown {
            let named = root.members().borrow().get(&node).is_some();
            if named || root.role_by(&node, &proof).await.is_err() {
                let mut proven = self.0.lock().unwrap_or_else(PoisonError::into_inner);
                proven.retain(|known| *known != (node, proof.clone()));
            }
        }
    }

    /// Returns the nodes that have a proof that holds.
    pub(super) fn nodes(&self) -> BTreeSet<Author> {
        let proven = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        proven.iter().map(|(node, _)| *node).collect()
    }
}
