//! Values whose time is over when they come to a watch: each is put, and expires at once.
//!
//! A position says through when its reader was told expiries, on whatever replica. So of all that it
//! covers, what expires by then was told, and nothing else: on a replica whose clock is behind, what
//! the reader was told elsewhere is not told again, and what the reader had not, is told when it
//! comes.

use std::sync::Arc;

use crate::{
    bus::Batch,
    protocol::change::{Change, Changes, Kind},
    store::watch::position::Position,
};

impl Position {
    /// Comes to the time of `batch`. What expires by then was told before it, unless it is what the
    /// batch tells.
    pub(super) fn join(&mut self, batch: &Batch) {
        let tells_expiries = |change: &Arc<Change>| change.kind == Kind::Expire;
        if !batch.changes.iter().any(tells_expiries) {
            let told_ms = batch.published.expired_through_ms;
            self.expired_through_ms = self.expired_through_ms.max(told_ms);
        }
    }

    /// Returns `changes` as who stands here is told them: without the expiries that were, and with
    /// one of each value that is over already and that `tells` names, behind it or behind its batch.
    pub(super) fn tell(&self, changes: Changes, tells: impl Fn(&Change) -> bool) -> Changes {
        if !changes.iter().any(|change| self.is_over(change)) {
            return changes;
        }
        let (mut told, mut lapsed) = (Vec::with_capacity(changes.len()), Vec::new());
        for (at, change) in changes.iter().enumerate() {
            if self.is_lapse(change) {
                continue;
            }
            told.push(Arc::clone(change));
            if self.is_over(change) && tells(change) {
                lapsed.extend(lapse(change).map(Arc::new));
            }
            let goes_on = |next: &Arc<Change>| {
                matches!(next.kind, Kind::Put | Kind::Delete) && next.entry.id == change.entry.id
            };
            if !change.atomic || !changes.get(at + 1).is_some_and(goes_on) {
                told.append(&mut lapsed);
            }
        }
        told.into()
    }

    /// True for the expiry of what was over here before it: it comes with the value, or was told.
    pub(super) fn is_lapse(&self, change: &Change) -> bool {
        change.kind == Kind::Expire && self.is_over(change)
    }

    // True where the change is of a winner that expires by the time that was told.
    fn is_over(&self, change: &Change) -> bool {
        let is_due = |ms| ms <= self.expired_through_ms;
        !change.late && change.expires_ms.is_some_and(is_due)
    }
}

fn lapse(put: &Change) -> Option<Change> {
    let heads = put.heads.clone();
    Change::expiry(
        put.key.clone(),
        put.expires_ms?,
        heads,
        put.origin,
        put.arrived_ms,
    )
}
