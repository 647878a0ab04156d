//! A change as a consumer stores it: its place in the log, and its id.

use std::{fmt, sync::Arc};

use bytes::Bytes;
use data_encoding::HEXLOWER_PERMISSIVE as HEX;

use crate::protocol::{
    change::{Change, EntryRef, Kind, Origin},
    gap::Gap,
};

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
    /// Same as `Change::arrived_ms`.
    pub arrived_ms: u64,
    /// Same as `Change::gap_number`.
    pub gap_number: u64,
    /// The missing history; set only for a gap.
    pub gap: Option<Arc<Gap>>,
}

/// Names a change: the same on every node, at every attempt, after every restart. A gap, and the state
/// after it, have other ids after every gap: whoever has forgotten everything must not take a key for
/// one that it knows.
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
            gap_number: change.gap_number,
            gap: change.gap.clone(),
        }
    }
}

impl ChangeRef {
    /// Returns whether this is a live key of the state that follows a gap.
    pub fn is_initial(&self) -> bool {
        self.gap_number > 0 && self.kind != Kind::Gap
    }
}

impl ChangeId {
    /// Returns the id of a change: a hash of its entry, key and kind; for a gap and the state after it,
    /// also of the number of the gap.
    pub fn of(change: &ChangeRef) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("lattice 2026 change id v1");
        let kind = match change.is_initial() {
            true => Origin::Initial.name(),
            false => change.kind.name(),
        };
        hasher
            .update(&change.entry.id.0)
            .update(kind.as_bytes())
            .update(b"\0")
            .update(&change.key);
        if change.gap_number > 0 {
            // No key ends the hash of another change like this: the names of the kinds differ.
            hasher.update(&change.gap_number.to_le_bytes());
        }
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
