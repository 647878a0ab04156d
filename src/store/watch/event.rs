//! The errors that end a watch.

use crate::{id::StoreId, protocol::frontier::MissingRange, store::ReadError};

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
