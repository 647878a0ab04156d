//! Whether a peer is asked for its base before others.

use crate::limits::{BASE_LAST_MAX_MS, BASE_LAST_MIN_MS};

/// Remembers the failures of a peer that was to give its base. After one, others are asked first for a
/// while, which doubles each time.
///
/// Times are milliseconds on a clock that never goes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BaseGiver {
    failures: u32,
    until_ms: u64,
}

impl BaseGiver {
    /// Notes that the peer was too slow, sent something else, or hung up midway.
    pub fn failed(&mut self, now_ms: u64) {
        let doubled = 2_u64.saturating_pow(self.failures);
        let wait_ms = BASE_LAST_MIN_MS.saturating_mul(doubled);
        self.failures = self.failures.saturating_add(1);
        self.until_ms = now_ms.saturating_add(wait_ms.min(BASE_LAST_MAX_MS));
    }

    /// Notes that the peer has given its base.
    pub fn gave(&mut self) {
        *self = Self::default();
    }

    /// Returns whether others are asked first.
    pub fn is_last(&self, now_ms: u64) -> bool {
        now_ms < self.until_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peer_that_fails_again_is_last_for_longer_and_never_for_ever() {
        let mut giver = BaseGiver::default();
        assert!(!giver.is_last(0));
        let mut waits = Vec::new();
        for now_ms in [5, 1_000_000, 2_000_000, 3_000_000, 4_000_000, 5_000_000] {
            giver.failed(now_ms);
            assert!(giver.is_last(now_ms) && !giver.is_last(now_ms + BASE_LAST_MAX_MS));
            waits.push(giver.until_ms - now_ms);
        }
        let doubling = [1, 2, 4, 8].map(|times| times * BASE_LAST_MIN_MS);
        assert_eq!(waits[..4], doubling);
        assert_eq!(waits[4..], [BASE_LAST_MAX_MS; 2]);
        giver.gave();
        assert!(!giver.is_last(5_000_001));
        giver.failed(u64::MAX);
        assert_eq!(giver.until_ms, u64::MAX);
    }
}
