//! The turns of comparisons that peers have opened here.

use tokio::sync::{Mutex, Semaphore};

/// Bounds the cost of the comparisons that peers open.
#[derive(Debug)]
pub(super) struct CompareTurns {
    // A permit for each comparison that is served. Never closed.
    pub(super) served: Semaphore,
    // Held while a question is answered, and for the pause after it.
    pub(super) answering: Mutex<()>,
}

impl Default for CompareTurns {
    fn default() -> Self {
        Self {
            served: Semaphore::new(COMPARES_MAX),
            answering: Mutex::default(),
        }
    }
}

// Comparisons that peers may have open at a time, one a peer: each takes up to 16 MiB and keeps pages
// of a state file in use. More are refused.
const COMPARES_MAX: usize = 4;
