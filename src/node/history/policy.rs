//! Policy: how much history is kept, and for how long.

use crate::protocol::finality::{Retention, StorePolicy};

/// When entries become final, and how many final ones a node keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HistoryPolicy {
    /// When an admin makes entries final.
    pub store: StorePolicy,
    /// How much of the logs this node keeps.
    pub retention: Retention,
}

impl Default for HistoryPolicy {
    fn default() -> Self {
        Self {
            store: StorePolicy {
                final_after_ms: DAY_MS,
                final_bytes: 256 * MIB,
                dormant_after_ms: 7 * DAY_MS,
                dormant_bytes: 1024 * MIB,
            },
            retention: Retention {
                age_ms: 30 * DAY_MS,
                bytes: 1024 * MIB,
                hold_ms: 7 * DAY_MS,
            },
        }
    }
}

const DAY_MS: u64 = 86_400_000;
const MIB: u64 = 1 << 20;
