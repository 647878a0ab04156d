//! Jitter: many nodes may return at the same moment, so each node waits a different time.

/// Returns a wait from half to one and a half times `wait_ms`, exclusive. `random`: any 64 random
/// bits.
pub(super) fn jittered(wait_ms: u64, random: u64) -> u64 {
    let share = wait_ms.saturating_mul(random >> 32) >> 32;
    (wait_ms / 2).saturating_add(share)
}

#[cfg(test)]
mod tests {
    use super::*;

    // Random bits that make a wait shortest, leave it unchanged, and make it longest.
    const SHORTEST: u64 = 0;
    const EVEN: u64 = 1 << 63;
    const LONGEST: u64 = u64::MAX;

    #[test]
    fn jitter_is_half_to_one_and_a_half() {
        for (wait_ms, shortest, longest) in [(500, 250, 749), (60_000, 30_000, 89_999)] {
            assert_eq!(jittered(wait_ms, SHORTEST), shortest);
            assert_eq!(jittered(wait_ms, EVEN), wait_ms);
            assert_eq!(jittered(wait_ms, LONGEST), longest);
        }
        let waits: Vec<_> = (0..8).map(|part| jittered(800, part << 61)).collect();
        assert_eq!(waits, [400, 500, 600, 700, 800, 900, 1000, 1100]);
    }
}
