//! Summary: what people see of the history of a store at a glance, as of the last look.

use std::{collections::BTreeSet, sync::PoisonError};

use crate::{
    id::{Author, StoreId},
    node::{HistorySummary, Node},
    protocol::{
        finality::{AckMissing, Hold, Watermark},
        frontier::Frontier,
    },
    store::Store,
};

impl HistorySummary {
    /// Fills in the bytes of `store`, of which `last` are the last final entries.
    pub(super) fn measure(&mut self, store: &Store, last: &Frontier) {
        self.open_bytes = store.bytes_after(last);
        self.final_bytes = store.log_bytes().saturating_sub(self.open_bytes);
    }
}

impl Node {
    /// Returns the history of a store as of the last look of [`Tending`](super::Tending); `None` before the
    /// first one.
    pub fn history(&self, store: &StoreId) -> Option<HistorySummary> {
        let all = self.0.histories.lock();
        all.unwrap_or_else(PoisonError::into_inner)
            .get(store)
            .cloned()
    }

    pub(super) fn note_history(&self, store: StoreId, summary: HistorySummary) {
        let mut all = self
            .0
            .histories
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let open: BTreeSet<StoreId> = self.shared_stores().iter().map(Store::id).collect();
        all.retain(|id, _| open.contains(id));
        all.insert(store, summary);
    }
}

/// Returns the members that have not acknowledged entries.
pub(super) fn awaited(watermark: &Result<Watermark, AckMissing>) -> BTreeSet<Author> {
    match watermark {
        Err(missing) => missing.nodes.clone(),
        Ok(watermark) => {
            let nodes = |by: &Hold| match by {
                Hold::Members(nodes) | Hold::Grant(nodes) => nodes.clone(),
                Hold::NotGranted | Hold::Fork | Hold::Young | Hold::NotSigned => BTreeSet::new(),
            };
            watermark
                .held
                .iter()
                .flat_map(|held| nodes(&held.by))
                .collect()
        }
    }
}
