//! How a consumer gives out changes: times, attempts, and bounds.

/// How a consumer gives out changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// Milliseconds that a taker has to acknowledge a change, unless it asks for more.
    pub ack_wait_ms: u64,
    /// Times a change is given out before it is a dead letter; `None`: no end.
    pub max_deliver: Option<u32>,
    /// Changes outstanding at a time, at least 1.
    pub max_in_flight: usize,
    /// Milliseconds before the 2nd, 3rd ... attempt; the last one is for all that follow. None at
    /// all: at once.
    pub backoff_ms: Vec<u64>,
}

impl Rules {
    /// Returns how long a change waits after its attempt number `attempt` has failed.
    pub fn backoff_ms(&self, attempt: u32) -> u64 {
        let index = usize::try_from(attempt.saturating_sub(1)).unwrap_or(usize::MAX);
        let waits = &self.backoff_ms;
        let wait = waits.get(index).or(waits.last());
        wait.copied().unwrap_or(0)
    }
}
