//! The unit in which a source is read: some changes, and the position after the last of them.

use std::sync::Arc;

use crate::{
    bus::{Batch, Published},
    protocol::change::Change,
    store::{ReadError, WatchError},
};

/// Changes to deliver, in order.
#[derive(Debug, Clone)]
pub(super) struct Piece {
    pub(super) changes: Arc<[Arc<Change>]>,
    /// The position after the last change. `None` for a piece of the state at the start: the
    /// position moves only when all of that state was delivered.
    pub(super) then: Option<Arc<Published>>,
}

impl Piece {
    /// Returns the changes of a batch from the bus as a piece.
    pub(super) fn of(batch: &Batch) -> Self {
        Self {
            changes: Arc::clone(&batch.changes),
            then: Some(Arc::clone(&batch.published)),
        }
    }
}

/// The result of one read of a source.
#[derive(Debug)]
pub(super) enum Read {
    /// Changes, perhaps none. The source may have more to read.
    Piece(Piece),
    /// A live key whose value is damaged in the log. `change` has no value.
    Damaged { change: Box<Change>, what: String },
    /// The source was read to its end.
    End,
}

/// Why a source cannot be opened, or cannot be read further.
#[derive(Debug)]
pub(super) enum SourceError {
    /// The log is damaged where the watch needs it, or begins later: the watch reports a gap and
    /// continues from the state.
    Gap {
        reason: String,
        /// As in `WatchEvent::Gap`.
        reach_ms: Option<u64>,
    },
    /// The watch ends, or waits for missing entries.
    Watch(WatchError),
}

impl SourceError {
    /// Sorts an error of opening a source: where the log is damaged or begins later, it cannot be read
    /// from the position.
    pub(super) fn of_open(error: WatchError) -> Self {
        match error {
            WatchError::Read(ReadError::Damaged { what }) => Self::Gap {
                reason: what,
                reach_ms: None,
            },
            WatchError::Read(ReadError::Pruned(pruned)) => Self::Gap {
                reason: pruned.to_string(),
                reach_ms: Some(pruned.reach_ms),
            },
            error => Self::Watch(error),
        }
    }
}

impl From<ReadError> for SourceError {
    fn from(error: ReadError) -> Self {
        Self::Watch(WatchError::Read(error))
    }
}
