//! Lag: when two connected nodes compare although no message asks for it.
//!
//! Each change is announced, and each node acknowledges what it has. A message may be lost, and then
//! one node is missing entries, or only looks so, until the next periodic sync. The acks of both
//! sides show it.

use crate::limits::{LAG_WAIT_MIN_MS, SYNC_EVERY_MS};

/// Decides whether a node compares with one peer. The shell looks at the acks periodically while
/// the peer is connected, and calls [`look`](Self::look).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Lag {
    // Earliest time of the next comparison, ms on the clock of the caller; `None` while both are in
    // step.
    next_ms: Option<u64>,
    // The wait before it. Doubles up to SYNC_EVERY_MS: comparing may not help, because one side
    // holds an entry or refuses it.
    wait_ms: u64,
}

impl Lag {
    /// Notes the look at `now_ms`. `lags`: one side is still missing entries that the other one had
    /// at the look before. Returns true when both are to compare now.
    #[must_use]
    pub fn look(&mut self, lags: bool, now_ms: u64) -> bool {
        if !lags {
            *self = Self::default();
            return false;
        }
        if self.next_ms.is_some_and(|next_ms| now_ms < next_ms) {
            return false;
        }
        let doubled = self.wait_ms.saturating_mul(2);
        self.wait_ms = doubled.clamp(LAG_WAIT_MIN_MS, SYNC_EVERY_MS);
        self.next_ms = Some(now_ms.saturating_add(self.wait_ms));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // The times at which nodes compare that look every 100 ms until `end_ms`.
    fn compared(lag: &mut Lag, from_ms: u64, end_ms: u64) -> Vec<u64> {
        let looks = (from_ms..end_ms).step_by(100);
        looks.filter(|now_ms| lag.look(true, *now_ms)).collect()
    }

    #[test]
    fn lag_is_compared_at_once_then_less_and_less() {
        let mut lag = Lag::default();
        let times = compared(&mut lag, 0, 120_000);
        assert_eq!(times[..4], [0, LAG_WAIT_MIN_MS, 3000, 7000]);
        let waits = times.windows(2).map(|pair| pair[1] - pair[0]);
        assert!(waits.max() <= Some(SYNC_EVERY_MS), "{times:?}");
        assert!(times.len() < 10, "{times:?}");
    }

    #[test]
    fn lag_after_a_time_in_step_is_compared_at_once() {
        let mut lag = Lag::default();
        compared(&mut lag, 0, 60_000);
        assert!(!lag.look(false, 60_000));
        assert_eq!(compared(&mut lag, 60_100, 60_500), [60_100]);
    }
}
