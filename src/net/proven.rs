//! Nodes that have shown why they are members before the root store here says so.
//!
//! They are let in, and the sync that follows brings what they have shown: from then on the root
//! store speaks for them. In memory only: after a restart they show it again.

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

/// Who is let in because of a proof.
#[derive(Debug, Default)]
pub(super) struct Proven(
    // Oldest first. Bounded by PROVEN_MAX: the oldest goes.
    Mutex<VecDeque<(Author, Vec<Bytes>)>>,
);

impl Proven {
    /// Looks at what `node` shows, and keeps it if it holds.
    ///
    /// # Errors
    /// `ProveError`; nothing is kept then.
    pub(super) async fn look(
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

    /// Looks again, after the members have changed: who is named by the root store needs no proof
    /// any more, and one that was shown may hold no longer.
    pub(super) async fn look_again(&self, root: &Store) {
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

    /// Returns who is let in.
    pub(super) fn nodes(&self) -> BTreeSet<Author> {
        let proven = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        proven.iter().map(|(node, _)| *node).collect()
    }
}
