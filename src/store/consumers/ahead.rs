//! Changes that a consumer has read ahead, in memory.

use std::sync::Arc;

use bytes::Bytes;

use crate::protocol::change::{Change, Origin};

/// Returns the change with copies of key and value: slices would keep the whole entry in memory.
pub(super) fn compact(change: Arc<Change>) -> Arc<Change> {
    // In the state, every value counts as the only op of its entry.
    if change.op_count < 2 && change.origin != Origin::Initial {
        return change;
    }
    Arc::new(Change {
        key: Bytes::copy_from_slice(&change.key),
        value: change.value.as_deref().map(Bytes::copy_from_slice),
        ..Change::clone(&change)
    })
}

/// Returns roughly the bytes that a change takes in memory.
pub(super) fn memory_bytes(change: &Change) -> usize {
    let value = change.value.as_ref().map_or(0, Bytes::len);
    size_of::<Change>() + change.key.len() + value
}
