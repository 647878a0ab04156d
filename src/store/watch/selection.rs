//! Which changes a watch delivers, once their keys match.

use std::sync::Arc;

use crate::{
    protocol::change::Change,
    store::{Shared, WatchMode, WatchOptions},
};

/// True for a change that the options select.
#[inline]
pub(super) fn is_wanted(shared: &Shared, options: &WatchOptions, change: &Change) -> bool {
    options.selects(&change.key)
        && options.in_time(change)
        && options
            .kinds
            .as_ref()
            .is_none_or(|kinds| kinds.contains(&change.kind))
        && (!options.conflicts_only || change.is_conflict())
        && options
            .author
            .is_none_or(|author| author == change.entry.author)
        && (options.mode == WatchMode::Every || is_current(shared, change))
}

/// Returns the change as the options ask for it: with or without its value.
#[inline]
pub(super) fn shown(options: &WatchOptions, change: Arc<Change>) -> Arc<Change> {
    if !options.keys_only || change.value.is_none() {
        return change;
    }
    Arc::new(Change {
        value: None,
        ..Change::clone(&change)
    })
}

// True while the change's entry is a head of its key, and also when the heads cannot be read.
fn is_current(shared: &Shared, change: &Change) -> bool {
    let heads = shared.state.view().heads(&change.key);
    heads.map_or(true, |heads| {
        heads
            .as_slice()
            .iter()
            .any(|head| head.id == change.entry.id)
    })
}
