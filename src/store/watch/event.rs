//! What a watch says, and why it ends.

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

/// What a watch says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WatchEvent {
    /// A key changed.
    Change(Arc<Change>),
    /// The state, or what lay before, is done; from here on things are live. Comes again after a
    /// watch has lagged and caught up from the log.
    CaughtUp,
    /// Everything up to the cursor was delivered; also the heartbeat.
    Progress,
    /// History is unreadable, or the state that follows lacks what could not be read, or has it
    /// again. The full state follows: forget keys not named before `CaughtUp`.
    Gap {
        /// What is missing, or is back.
        reason: String,
    },
    /// A key is live and its value cannot be read: the log is damaged where the winner is. Stands
    /// in the place of the `Change` that the state at the start would have; the watch goes on with
    /// the next key.
    Damaged {
        /// The key.
        key: Bytes,
        /// Its winner: author and place.
        entry: EntryRef,
        /// What is wrong, and where in which file.
        what: String,
    },
}

/// Why a watch ended.
#[derive(Debug, Clone, thiserror::Error)]
pub enum WatchError {
    /// The cursor is of another store.
    #[error("the cursor is of store {cursor}, this is {store}")]
    ForeignCursor {
        /// The cursor's.
        cursor: StoreId,
        /// This one.
        store: StoreId,
    },
    /// The cursor is ahead of this node.
    #[error("the cursor is ahead of this node: {}", ranges(.missing))]
    Behind {
        /// What this node lacks.
        missing: Vec<MissingRange>,
    },
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
    /// Files could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

fn ranges(missing: &[MissingRange]) -> String {
    let range = |range: &MissingRange| {
        format!(
            "it lacks entries {} to {} of {}",
            range.after + 1,
            range.through,
            range.author
        )
    };
    missing.iter().map(range).collect::<Vec<_>>().join("; ")
}
