//! The items of a watch, and the errors that end it.

use std::sync::Arc;

use bytes::Bytes;

use crate::{
    id::StoreId,
    protocol::{
        change::{Change, EntryRef},
        frontier::MissingRange,
    },
    store::ReadError,
};

/// One item of a watch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WatchEvent {
    /// A key changed.
    Change(Arc<Change>),
    /// The state or the history before is delivered; the changes after this are live. Delivered
    /// again after the watch has lagged and caught up from the log.
    CaughtUp,
    /// Everything up to the cursor was delivered. A heartbeat is this event, too.
    Progress,
    /// The changes since the last item cannot be delivered: history is unreadable, or the state is
    /// missing entries that could not be read, or has them again. The full state follows: forget
    /// keys that are not named before `CaughtUp`.
    Gap {
        /// Which history is missing, or is readable again.
        reason: String,
        /// The greatest stamp of an entry that was removed from the logs, ms since 1970: the logs have
        /// all entries stamped later. `None`: the gap has another reason.
        reach_ms: Option<u64>,
    },
    /// A key is live but its value cannot be read, because the log is damaged at the winner. Takes
    /// the place of the key's `Change` in the state at the start; the watch continues with the next
    /// key.
    Damaged {
        /// The live key.
        key: Bytes,
        /// The entry that holds the value.
        entry: EntryRef,
        /// The damage, with file and offset.
        what: String,
    },
}

/// Why a watch ended, or could not begin.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum WatchError {
    /// The cursor belongs to another store.
    #[error("the cursor belongs to store {cursor}; this store is {store}")]
    ForeignCursor {
        /// Store of the cursor.
        cursor: StoreId,
        /// This store.
        store: StoreId,
    },
    /// The cursor names entries that this node is missing.
    #[error("the cursor is ahead of this node: {}", ranges(.missing))]
    Behind {
        /// The missing entries.
        missing: Vec<MissingRange>,
    },
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
    /// The log or the state could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

fn ranges(missing: &[MissingRange]) -> String {
    let range = |range: &MissingRange| {
        format!(
            "it is missing entries {} to {} of {}",
            range.after + 1,
            range.through,
            range.author
        )
    };
    missing.iter().map(range).collect::<Vec<_>>().join("; ")
}
