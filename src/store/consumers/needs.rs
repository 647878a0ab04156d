//! The changes that a consumer has not finished.

use crate::{
    protocol::change::{EntryRef, Kind},
    store::{consumers::ConsumerStart, watch::position::Position},
};

/// The changes that a consumer has not read, and those that it has not finished.
#[derive(Debug)]
pub(super) struct Needs {
    /// `None`: it begins at a time.
    pub(super) position: Option<Position>,
    pub(super) start: ConsumerStart,
    /// Entries of outstanding and dead changes.
    pub(super) entries: Vec<EntryRef>,
}

/// Returns whether a change is read from the log when it is delivered again.
pub(super) fn is_of_log(kind: Kind) -> bool {
    matches!(kind, Kind::Put | Kind::Delete)
}
