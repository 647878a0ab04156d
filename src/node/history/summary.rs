//! Summary: how much history a store has, and what is in the way of its end, as of the last look.

use std::{collections::BTreeSet, sync::PoisonError};

use crate::{
    id::{Author, StoreId},
    node::Node,
    protocol::{
        finality::{AckMissing, Hold, Watermark},
        frontier::Frontier,
    },
    store::Store,
};

/// How much history a store has on this node, and what is in the way of its end.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HistorySummary {
    /// About how many bytes of the logs are final: they are removed when the policy does not keep them.
    pub final_bytes: u64,
    /// About how many bytes are not final.
    pub open_bytes: u64,
    /// Time of the newest act by which entries became final, in ms since 1970; 0 before the first one.
    pub through_ms: u64,
    /// Members that have not acknowledged entries which could be final else.
    pub awaited: BTreeSet<Author>,
    /// Why entries could not be made final or removed; `None` if there was no error.
    pub trouble: Option<String>,
}

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
