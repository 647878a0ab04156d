//! Applying an entry of the logs to rows, when a state is built again or a base is made.

use bytes::Bytes;

use crate::{
    log::{LogDamage, LogError, LogReader},
    protocol::{
        entry::{Op, Parent, VerifiedEntry},
        fork::taken_back_by,
        heads::{Before, Head, Heads},
    },
    state::{Staging, StateError},
};

/// Why an entry was not applied.
#[derive(Debug)]
pub(super) enum NotApplied {
    /// The rows cannot be read.
    State(StateError),
    /// The logs cannot be read.
    Log(LogError),
}

impl From<StateError> for NotApplied {
    fn from(error: StateError) -> Self {
        Self::State(error)
    }
}

impl From<LogError> for NotApplied {
    fn from(error: LogError) -> Self {
        Self::Log(error)
    }
}

/// Applies `entry`, which counts, after all entries that come before it in the logs. `absent` returns its
/// parents that are not among these, given the heads of its keys. `unreadable` gets damage that hides what
/// it supersedes: then less is superseded.
///
/// # Errors
/// `NotApplied`.
pub(super) fn apply(
    rows: &mut impl Staging,
    entry: &VerifiedEntry,
    log: &LogReader,
    absent: impl FnOnce(&[Heads]) -> Result<Vec<Parent>, LogError>,
    unreadable: &mut dyn FnMut(LogDamage),
) -> Result<(), NotApplied> {
    take_back(rows, entry, log, unreadable)?;
    let keys = entry.ops.iter().map(Op::key);
    let heads = keys.map(|key| rows.heads(key)).collect::<Result<_, _>>()?;
    let mut before = before(entry, heads, log, unreadable)?;
    before.absent = absent(&before.heads)?;
    rows.stage_over(entry, before)?;
    Ok(())
}

// Notes the entries that `entry` takes back, and lowers the heads of those that are applied.
fn take_back(
    rows: &mut impl Staging,
    entry: &VerifiedEntry,
    log: &LogReader,
    unreadable: &mut dyn FnMut(LogDamage),
) -> Result<(), NotApplied> {
    for place in taken_back_by(entry) {
        if !rows.take_back(&entry.author(), &place.id)? {
            continue;
        }
        match log.entry(&entry.author(), place.seq, &place.id) {
            Ok(Some((taken, _record))) => {
                let keys: Vec<Bytes> = taken.ops.iter().map(Op::key).cloned().collect();
                rows.lower(&taken.id, &keys)?;
            }
            Ok(None) => {}
            Err(LogError::Damaged(found)) => unreadable(found),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

// A head of which damage hides whether it is an ancestor stays.
fn before(
    entry: &VerifiedEntry,
    heads: Vec<Heads>,
    log: &LogReader,
    unreadable: &mut dyn FnMut(LogDamage),
) -> Result<Before, LogError> {
    Before::new(entry, heads, |head: &Head| {
        match log.is_ancestor(entry, head) {
            Err(LogError::Damaged(found)) => {
                unreadable(found);
                Ok(false)
            }
            answer => answer,
        }
    })
}
