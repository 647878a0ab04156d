//! The cause of an entry that a consumer writes when it handles a change.

use crate::protocol::{
    change::{Change, Kind},
    consumer::change_ref::{ChangeId, ChangeRef},
    entry::cause::Cause,
};

/// Returns the cause of an entry that `consumer` writes when it handles `change`.
///
/// The same change gives the same cause on every node and at every attempt, so an entry that an
/// earlier attempt wrote is found again. A live key of the state after a gap has the same cause after
/// every gap, as long as the same entry wins; it is not the cause of the put itself.
pub fn cause_of(consumer: &str, change: &Change) -> Cause {
    let is_initial = change.gap_number > 0 && change.kind != Kind::Gap;
    let consumer = match change.kind {
        Kind::Put | Kind::Delete if !is_initial => consumer.to_owned(),
        // One entry can have several changes of these kinds, and none of them comes from an op of
        // the entry, or the op is not known: the id of the change keeps their causes apart.
        Kind::Put | Kind::Delete | Kind::Expire | Kind::Retract | Kind::Gap => {
            let mut change = ChangeRef::from(change);
            if is_initial {
                change.gap_number = 1;
            }
            format!("{consumer}#{}", ChangeId::of(&change))
        }
    };
    Cause {
        consumer,
        trigger: change.entry.id,
        position: change.op_index,
        depth: change.depth.saturating_add(1),
    }
}
