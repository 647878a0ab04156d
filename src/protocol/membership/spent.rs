//! Spent: a key that has forked more often than `FORKS_MAX` in one store.
//!
//! Each fork is a branch, and each branch costs every node a file and look-ups, so a node stops taking
//! them in at some number. Whichever branches it then has, other nodes may have other ones. The one
//! rule with the same outcome on all of them is that none counts:
//!
//! - Of a spent key nothing counts in that store, but for what removals that speak of the store keep.
//! - In the root store the key of an admin is never spent. Any other node whose key is spent there is
//!   no member any more, its removals of itself are void, and its key is spent in all stores. A removal
//!   by an admin, or a lowering to reader, ends that: what it keeps counts.
//!
//! A node can remove itself by an entry of its own, in the root store. Another node may get that entry
//! before the forks, or never, because it has the forks and takes in no more of that key. Both must
//! count the same. So the removal of a node by itself keeps all that the node has in the root store,
//! unless the node is an admin (`Member::kept_through`).
//!
//! A key stays spent: entries only come. A node passes on what it has of a spent key, so that others
//! count its branches themselves; it takes in no more than `FORKS_MAX` forks and one.

use std::collections::BTreeSet;

use crate::{id::Author, limits::FORKS_MAX, protocol::membership::Members};

/// Returns whether the key of an author with this number of branches is spent.
///
/// `branches`: chains of the author of which no entry is before another one's first. One more than its
/// forks.
pub fn is_spent(branches: usize) -> bool {
    branches > FORKS_MAX.saturating_add(1)
}

impl Members {
    /// Returns the members when the keys of `spent` are spent in the root store.
    #[must_use]
    pub fn spend(mut self, spent: &BTreeSet<Author>) -> Self {
        for node in spent {
            let Some(member) = self.nodes.get_mut(node) else {
                continue;
            };
            let is_removed = member.removals.values().any(|removal| removal.by != *node);
            if member.rank.is_some() || is_removed || member.is_lowered_to_reader() {
                continue;
            }
            member.spent = true;
            // Its removals of itself are entries of a spent key.
            for (entry, _leave) in std::mem::take(&mut member.removals) {
                self.counting.remove(&(entry, *node));
            }
        }
        self
    }
}
