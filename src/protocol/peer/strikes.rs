//! How long a peer is shut out after it has sent messages that no honest peer sends.

use crate::limits::{SHUT_OUT_MAX_MS, SHUT_OUT_MIN_MS, STRIKES_MAX};

/// Counts the messages of a peer that no honest peer sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Strikes {
    // Number of strikes since this node started. Never goes down.
    count: u32,
}

impl Strikes {
    /// Counts one more strike. Returns the milliseconds for which the peer is shut out because of
    /// it; `None` except for each `STRIKES_MAX`th strike. Each time is twice as long as the time
    /// before, up to `SHUT_OUT_MAX_MS`.
    #[must_use]
    pub fn strike(&mut self) -> Option<u64> {
        self.count = self.count.saturating_add(1);
        if !self.count.is_multiple_of(STRIKES_MAX) {
            return None;
        }
        let times = self.count / STRIKES_MAX;
        let doubled = 2_u64.saturating_pow(times.saturating_sub(1));
        Some(SHUT_OUT_MIN_MS.saturating_mul(doubled).min(SHUT_OUT_MAX_MS))
    }

    /// Returns the number of strikes.
    pub fn count(&self) -> u32 {
        self.count
    }
}

/// The time until which a peer is shut out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShutOut {
    until_ms: u64,
}

impl ShutOut {
    /// Shuts a peer out from `now_ms` on for `wait_ms`.
    pub fn new(now_ms: u64, wait_ms: u64) -> Self {
        Self {
            until_ms: now_ms.saturating_add(wait_ms),
        }
    }

    /// Returns the milliseconds that are left; `None` when the peer may connect.
    pub fn left_ms(&self, now_ms: u64) -> Option<u64> {
        Some(self.until_ms.saturating_sub(now_ms)).filter(|left_ms| *left_ms > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn n2_each_shut_out_is_twice_as_long() {
        let mut strikes = Strikes::default();
        let waits: Vec<_> = (1..=12 * STRIKES_MAX)
            .map(|count| {
                let wait_ms = strikes.strike();
                assert_eq!(strikes.count(), count);
                assert_eq!(wait_ms.is_some(), count.is_multiple_of(STRIKES_MAX));
                wait_ms
            })
            .collect();
        let waits: Vec<_> = waits.into_iter().flatten().collect();
        let doubling = [1, 2, 4, 8, 16, 32, 64, 128, 256].map(|times| SHUT_OUT_MIN_MS * times);
        assert_eq!(waits[..9], doubling);
        assert_eq!(waits[9..], [SHUT_OUT_MAX_MS; 3]);
        strikes.count = u32::MAX - 1;
        assert_eq!(strikes.strike(), None);
        assert_eq!(strikes.count(), u32::MAX, "the count does not wrap");
    }

    #[test]
    fn n2_shut_out_ends_at_its_time() {
        let shut_out = ShutOut::new(100, SHUT_OUT_MIN_MS);
        assert_eq!(shut_out.left_ms(100), Some(SHUT_OUT_MIN_MS));
        assert_eq!(shut_out.left_ms(99 + SHUT_OUT_MIN_MS), Some(1));
        assert_eq!(shut_out.left_ms(100 + SHUT_OUT_MIN_MS), None);
        assert_eq!(shut_out.left_ms(u64::MAX), None);
        assert_eq!(ShutOut::new(u64::MAX, 1).left_ms(u64::MAX), None);
    }
}
