//! The root of a state: the state after a set of entries, in one hash.

use std::sync::Arc;

use crate::{
    protocol::{
        ack::AckedState,
        agreement::StateClaim,
        frontier::Frontier,
        membership::{ActsHash, Members},
        merkle::TreeRoot,
    },
    state::StateMark,
};

/// The state after a set of entries, in one hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateRoot {
    /// Root over the rows of all keys, or of those with a prefix. A key with a tombstone has a row.
    pub root: TreeRoot,
    /// The entries that make the state, together with the acts that count.
    pub frontier: Arc<Frontier>,
    /// The acts that count.
    pub acts: ActsHash,
}

impl StateRoot {
    /// Returns the claim that the root of all keys makes.
    pub fn claim(&self) -> StateClaim {
        StateClaim {
            frontier: self.frontier.hash(),
            acts: self.acts,
            root: self.root,
        }
    }

    /// Returns the root and the acts as an ack of these entries has them.
    pub fn acked(&self) -> AckedState {
        AckedState {
            root: self.root,
            acts: self.acts,
        }
    }
}

/// A root of all keys, and the state and the members that it is of.
#[derive(Debug, Clone)]
pub(super) struct SettledRoot {
    pub(super) root: StateRoot,
    pub(super) mark: StateMark,
    pub(super) members: Arc<Members>,
}
