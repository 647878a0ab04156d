//! The cause of an entry that a consumer writes when it handles a change.

use crate::protocol::{
    change::{Change, Kind},
    consumer::change_ref::{ChangeId, ChangeRef},
    entry::cause::Cause,
};

/// Returns the cause of an entry that `consumer` writes when it handles `change`.
///
/// The same change gives the same cause on every node and at every attempt, so an entry that an
/// earlier attempt wrote is found again.
pub fn cause_of(consumer: &str, change: &Change) -> Cause {
    let consumer = match change.kind {
        Kind::Put | Kind::Delete => consumer.to_owned(),
        // One entry can have several changes of these kinds, and none of them comes from an op of
        // the entry: the id of the change keeps their causes apart.
        Kind::Expire | Kind::Retract => {
            format!("{consumer}#{}", ChangeId::of(&ChangeRef::from(change)))
        }
    };
    Cause {
        consumer,
        trigger: change.entry.id,
        position: change.op_index,
        depth: change.depth.saturating_add(1),
    }
}
