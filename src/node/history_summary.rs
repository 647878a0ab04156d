//! History summary: how much history a store has, and what is in the way of its end.

use std::collections::BTreeSet;

use crate::id::Author;

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
