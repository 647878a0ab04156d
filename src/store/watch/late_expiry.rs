//! Late expiries: a value that had expired before it reached a watch is delivered as a put,
//! directly followed by its expiry.
//!
//! A position has the time through which its reader has seen expiries, on whatever replica. For the
//! entries that it covers, the reader has seen exactly the expiries through that time. So on a
//! replica whose clock is behind, an expiry that the reader saw elsewhere is not delivered again;
//! and the expiry of an entry that the reader has not seen is delivered together with the entry.

use std::sync::Arc;

use crate::{
    bus::Batch,
    protocol::change::{Change, Changes, Kind},
    store::watch::position::Position,
};

impl Position {
    /// Moves to the time of `batch`, before its changes are delivered; not if the batch holds the
    /// expiries through that time itself.
    #[inline]
    pub(super) fn reach_time_of(&mut self, batch: &Batch) {
        let is_expiry = |change: &Arc<Change>| change.kind == Kind::Expire;
        if !batch.changes.iter().any(is_expiry) {
            let batch_ms = batch.published.expired_through_ms;
            self.expired_through_ms = self.expired_through_ms.max(batch_ms);
        }
    }

    /// Returns `changes` as a watch at this position must deliver them.
    ///
    /// Expiries that were delivered already are dropped. Each put that has expired already, and for
    /// which `reports` is true, is followed by its expiry; in an atomic batch the expiries follow
    /// the batch.
    #[inline]
    pub(super) fn adjust_expiries(
        &self,
        changes: Changes,
        reports: impl Fn(&Change) -> bool,
    ) -> Changes {
        if !changes.iter().any(|change| self.has_expired(change)) {
            return changes;
        }
        let (mut adjusted, mut expiries) = (Vec::with_capacity(changes.len()), Vec::new());
        for (at, change) in changes.iter().enumerate() {
            if self.is_late_expiry(change) {
                continue;
            }
            adjusted.push(Arc::clone(change));
            if self.has_expired(change) && reports(change) {
                expiries.extend(late_expiry(change).map(Arc::new));
            }
            let goes_on = |next: &Arc<Change>| {
                matches!(next.kind, Kind::Put | Kind::Delete) && next.entry.id == change.entry.id
            };
            if !change.atomic || !changes.get(at + 1).is_some_and(goes_on) {
                adjusted.append(&mut expiries);
            }
        }
        adjusted.into()
    }

    /// True for an expiry through the time of this position: the expiry was delivered, or directly
    /// follows its put.
    pub(super) fn is_late_expiry(&self, change: &Change) -> bool {
        change.kind == Kind::Expire && self.has_expired(change)
    }

    // True for a change of a winner that expires by the time of this position.
    fn has_expired(&self, change: &Change) -> bool {
        let is_due = |ms| ms <= self.expired_through_ms;
        !change.late && change.expires_ms.is_some_and(is_due)
    }
}

fn late_expiry(put: &Change) -> Option<Change> {
    let heads = put.heads.clone();
    Change::expiry(
        put.key.clone(),
        put.expires_ms?,
        heads,
        put.origin,
        put.arrived_ms,
    )
}
