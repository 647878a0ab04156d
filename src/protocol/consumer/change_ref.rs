//! A change as a consumer stores it: its place in the log, and its id.

use std::fmt;

use bytes::Bytes;
use data_encoding::HEXLOWER_PERMISSIVE as HEX;

use crate::protocol::change::{Change, EntryRef, Kind};

/// The part of a change that a consumer stores. The log has the rest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangeRef {
    /// Key that changed.
    pub key: Bytes,
    /// Kind of the change.
    pub kind: Kind,
    /// Entry that made the change; for an expiry, the winner that expired.
    pub entry: EntryRef,
    /// Index of the op in its entry.
    pub op_index: u32,
    /// Same as `Change::expires_ms`.
    pub expires_ms: Option<u64>,
    /// Time when the entry arrived in this node's log, ms since 1970.
    pub arrived_ms: u64,
}

/// Names a change: the same on every node, at every attempt, after every restart.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChangeId(pub [u8; 16]);

impl From<&Change> for ChangeRef {
    fn from(change: &Change) -> Self {
        Self {
            // A copy: the change's own key keeps its whole entry in memory.
            key: Bytes::copy_from_slice(&change.key),
            kind: change.kind,
            entry: change.entry,
            op_index: change.op_index,
            expires_ms: change.expires_ms,
            arrived_ms: change.arrived_ms,
        }
    }
}

impl ChangeId {
    /// Returns the id of a change: a hash of its entry, key and kind.
    pub fn of(change: &ChangeRef) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("lattice 2026 change id v1");
        hasher
            .update(&change.entry.id.0)
            .update(change.kind.name().as_bytes())
            .update(b"\0")
            .update(&change.key);
        let mut id = [0; 16];
        hasher.finalize_xof().fill(&mut id);
        Self(id)
    }
}

impl fmt::Display for ChangeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEX.encode(&self.0))
    }
}

impl fmt::Debug for ChangeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ChangeId({self})")
    }
}
