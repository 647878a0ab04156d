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
//! count the same. So the removal of a node by itself keeps all that the node has, in all stores,
//! and ends no spending, unless the node is an admin (`Member::kept_through`).
//!
//! Forks below an anchor are void and count as none (`Finality::forks`): a node that got the anchor
//! first never took them in. So an anchor can end that a key is spent; nothing else does.
//!
//! A node takes in no more than `FORKS_MAX` forks and one, and passes on what shows them: the entries
//! with which the branches begin. Other nodes count them themselves. What comes after these entries
//! stays where it is until a removal names it.

use std::collections::BTreeSet;

use crate::{
    id::Author,
    limits::FORKS_MAX,
    protocol::{frontier::Frontier, membership::Members},
};

/// Returns whether the key of an author with this number of forks above its anchors is spent.
pub fn is_spent(forks: usize) -> bool {
    forks > FORKS_MAX
}

/// The spent keys of one store, as a sync session offers them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SpentKeys {
    /// Authors of whom no entries are asked for.
    pub authors: BTreeSet<Author>,
    /// Tips of the entries that show the forks: of those authors whose keys are not known to be spent
    /// from the root store.
    pub proof: Frontier,
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
