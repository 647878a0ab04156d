//! Rules of a consumer: times, attempts, and bounds of its deliveries.

/// Rules by which a consumer delivers changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// Milliseconds in which a taker must answer a change, unless it extends them.
    pub ack_wait_ms: u64,
    /// Attempts at a change before it becomes a dead letter; `None`: no limit.
    pub max_deliver: Option<u32>,
    /// Number of outstanding changes at which no further changes are fed; at least 1.
    pub max_in_flight: usize,
    /// Milliseconds before the 2nd, 3rd ... attempt; the last wait applies to all later attempts.
    /// Empty: no pause.
    pub backoff_ms: Vec<u64>,
}

impl Rules {
    /// Returns the milliseconds that a change waits after its attempt number `attempt` (from 1) has
    /// failed.
    pub fn backoff_ms(&self, attempt: u32) -> u64 {
        let index = usize::try_from(attempt.saturating_sub(1)).unwrap_or(usize::MAX);
        let waits = &self.backoff_ms;
        let wait = waits.get(index).or(waits.last());
        wait.copied().unwrap_or(0)
    }
}
