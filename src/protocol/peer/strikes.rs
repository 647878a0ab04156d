//! How long a peer is shut out after it has sent messages that no honest peer sends.

use crate::limits::{
    SHUT_OUT_MAX_MS, SHUT_OUT_MIN_MS, STRIKES_FORGET_MS, STRIKES_MAX, STRIKES_ROUNDS_MAX,
};

/// Counts the messages of a peer that no honest peer sends.
///
/// Times are milliseconds on a clock that never goes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Strikes {
    // Since the start of this node. Never goes down.
    total: u32,
    // Those that count. Falls by STRIKES_MAX for each STRIKES_FORGET_MS of peace.
    count: u32,
    // Beginning of the peace for which `count` has not fallen yet: the last strike, the end of the
    // shut-out that followed from it, or the end of the last STRIKES_FORGET_MS.
    peace_ms: u64,
}

impl Strikes {
    /// Counts one more at `now_ms`. Returns the milliseconds for which the peer is shut out because
    /// of it: `None` but for each `STRIKES_MAX`th strike. Each time is twice as long as the one
    /// before, up to `SHUT_OUT_MAX_MS`. For each `STRIKES_FORGET_MS` without a strike, in which the
    /// peer was let in, `STRIKES_MAX` strikes are forgotten.
    #[must_use]
    pub fn strike(&mut self, now_ms: u64) -> Option<u64> {
        self.forget(now_ms);
        self.total = self.total.saturating_add(1);
        self.count = self.count.saturating_add(1).min(COUNT_MAX);
        self.peace_ms = self.peace_ms.max(now_ms);
        if !self.count.is_multiple_of(STRIKES_MAX) {
            return None;
        }
        let times = self.count / STRIKES_MAX;
        let doubled = 2_u64.saturating_pow(times.saturating_sub(1));
        let wait_ms = SHUT_OUT_MIN_MS.saturating_mul(doubled).min(SHUT_OUT_MAX_MS);
        self.peace_ms = self.peace_ms.saturating_add(wait_ms);
        if self.count == COUNT_MAX {
            // The next round is the last one again.
            self.count = COUNT_MAX.saturating_sub(STRIKES_MAX);
        }
        Some(wait_ms)
    }

    /// Returns how many there were since the start of this node, also those that are forgotten.
    pub fn total(&self) -> u32 {
        self.total
    }

    fn forget(&mut self, now_ms: u64) {
        let peace_ms = now_ms.saturating_sub(self.peace_ms);
        let rounds = peace_ms / STRIKES_FORGET_MS;
        let forgotten = u32::try_from(rounds).unwrap_or(u32::MAX);
        self.count = self
            .count
            .saturating_sub(forgotten.saturating_mul(STRIKES_MAX));
        let passed_ms = rounds.saturating_mul(STRIKES_FORGET_MS);
        self.peace_ms = self.peace_ms.saturating_add(passed_ms);
    }
}

// The count at which the longest shut-out begins for good: a peer is not remembered for longer.
const COUNT_MAX: u32 = STRIKES_MAX * STRIKES_ROUNDS_MAX;

/// Until when a peer is shut out.
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

    // Strikes at one time, or at the end of the shut-out that is under way.
    fn storm(strikes: &mut Strikes, now_ms: &mut u64, rounds: u32) -> Vec<u64> {
        let mut waits = Vec::new();
        for count in 1..=rounds * STRIKES_MAX {
            let wait_ms = strikes.strike(*now_ms);
            assert_eq!(wait_ms.is_some(), count.is_multiple_of(STRIKES_MAX));
            *now_ms += wait_ms.unwrap_or(0);
            waits.extend(wait_ms);
        }
        waits
    }

    #[test]
    fn n2_each_shut_out_is_twice_as_long() {
        let (mut strikes, mut now_ms) = (Strikes::default(), 5);
        let waits = storm(&mut strikes, &mut now_ms, 12);
        let doubling = [1, 2, 4, 8, 16, 32, 64, 128, 256].map(|times| SHUT_OUT_MIN_MS * times);
        assert_eq!(waits[..9], doubling);
        assert_eq!(waits[9..], [SHUT_OUT_MAX_MS; 3]);
        assert_eq!(strikes.total(), 12 * STRIKES_MAX);
        // The longest time stays the longest, and the total does not wrap.
        strikes.total = u32::MAX - 1;
        assert_eq!(
            storm(&mut strikes, &mut now_ms, 1000),
            [SHUT_OUT_MAX_MS; 1000]
        );
        assert_eq!(strikes.total(), u32::MAX);
    }

    #[test]
    fn strikes_are_forgotten_in_peace() {
        let (mut strikes, mut now_ms) = (Strikes::default(), 5);
        assert_eq!(
            storm(&mut strikes, &mut now_ms, 3).last(),
            Some(&(4 * SHUT_OUT_MIN_MS))
        );
        // The time of the shut-out itself is no peace.
        now_ms += STRIKES_FORGET_MS - 1;
        assert_eq!(storm(&mut strikes, &mut now_ms, 1), [8 * SHUT_OUT_MIN_MS]);
        // One period halves the next time, many make it the shortest.
        now_ms += STRIKES_FORGET_MS;
        assert_eq!(storm(&mut strikes, &mut now_ms, 1), [8 * SHUT_OUT_MIN_MS]);
        now_ms += 2 * STRIKES_FORGET_MS;
        assert_eq!(storm(&mut strikes, &mut now_ms, 1), [4 * SHUT_OUT_MIN_MS]);
        now_ms += 100 * STRIKES_FORGET_MS;
        assert_eq!(
            storm(&mut strikes, &mut now_ms, 2),
            [1, 2].map(|times| SHUT_OUT_MIN_MS * times)
        );
        assert_eq!(strikes.total(), 8 * STRIKES_MAX);
    }

    #[test]
    fn rare_accidents_of_an_honest_peer_never_shut_it_out() {
        let mut strikes = Strikes::default();
        for day in 0..10_000 {
            assert_eq!(strikes.strike(day * 86_400_000), None);
        }
        // A clock that goes back forgets nothing, and ends nowhere.
        assert_eq!(strikes.strike(0), None);
        assert_eq!(strikes.strike(u64::MAX), None);
    }

    #[test]
    fn longest_shut_out_becomes_shorter_after_peace() {
        let (mut strikes, mut now_ms) = (Strikes::default(), 0);
        storm(&mut strikes, &mut now_ms, 50);
        now_ms += 2 * STRIKES_FORGET_MS;
        let waits = storm(&mut strikes, &mut now_ms, 2);
        assert!(waits[0] < SHUT_OUT_MAX_MS, "{waits:?}");
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
