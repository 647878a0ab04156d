//! An allowance: how much work a peer may cause here, by a rate and a reserve (a token bucket).

/// The rate at which an allowance fills, and its reserve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Units in a second.
    pub per_s: u32,
    /// Units that are saved up at most. A new allowance has as many.
    pub reserve: u32,
}

/// The units that a peer has left. One unit is what the caller counts: a message, a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowance {
    rate: Rate,
    // Thousandths of a unit that were left at `at_ms`. At most `rate.reserve` units.
    left_milli: u64,
    at_ms: u64,
}

impl Allowance {
    /// Returns a full allowance.
    pub fn new(rate: Rate) -> Self {
        Self {
            rate,
            left_milli: full(rate),
            at_ms: 0,
        }
    }

    /// Takes `units` if they are left at `now_ms`, and returns whether they were.
    #[must_use]
    pub fn take(&mut self, units: u32, now_ms: u64) -> bool {
        self.fill(now_ms);
        let Some(left) = self.left_milli.checked_sub(milli(units)) else {
            return false;
        };
        self.left_milli = left;
        true
    }

    /// Takes up to `units`: they were used before the caller could ask.
    pub fn spend(&mut self, units: u32, now_ms: u64) {
        self.fill(now_ms);
        self.left_milli = self.left_milli.saturating_sub(milli(units));
    }

    /// Returns the milliseconds until `units` are left; 0 if they are at `now_ms`. More than the
    /// reserve never are.
    pub fn wait_ms(&mut self, units: u32, now_ms: u64) -> u64 {
        self.fill(now_ms);
        let missing = milli(units).saturating_sub(self.left_milli);
        missing.div_ceil(u64::from(self.rate.per_s.max(1)))
    }

    // A clock that goes back fills nothing.
    fn fill(&mut self, now_ms: u64) {
        let passed_ms = now_ms.saturating_sub(self.at_ms);
        // Thousandths of a unit in a millisecond: as many as units in a second.
        let filled = passed_ms.saturating_mul(u64::from(self.rate.per_s));
        self.left_milli = self.left_milli.saturating_add(filled).min(full(self.rate));
        self.at_ms = self.at_ms.max(now_ms);
    }
}

fn milli(units: u32) -> u64 {
    u64::from(units).saturating_mul(1000)
}

fn full(rate: Rate) -> u64 {
    milli(rate.reserve)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate {
        per_s: 10,
        reserve: 5,
    };

    #[test]
    fn n2_reserve_is_spent_at_once_then_the_rate_counts() {
        let mut allowance = Allowance::new(RATE);
        let taken = (0..100).filter(|_| allowance.take(1, 1000));
        assert_eq!(taken.count(), 5);
        assert_eq!(allowance.wait_ms(1, 1000), 100);
        assert_eq!(allowance.wait_ms(2, 1050), 150);
        assert!(!allowance.take(1, 1099));
        assert!(allowance.take(1, 1100));
        // Ten a second over a minute, whenever the peer asks.
        let taken = (1100..61_100).filter(|now_ms| allowance.take(1, *now_ms));
        assert_eq!(taken.count(), 599);
        // No more than the reserve is saved up, and time that goes back gives nothing.
        let taken = (0..100).filter(|_| allowance.take(1, u64::MAX));
        assert_eq!(taken.count(), 5);
        assert!(!allowance.take(1, 0));
        assert!(!allowance.take(1, u64::MAX));
    }

    #[test]
    fn work_that_was_done_before_the_question_is_taken_off() {
        let mut allowance = Allowance::new(RATE);
        allowance.spend(3, 0);
        assert!(!allowance.take(3, 0));
        assert!(allowance.take(2, 0));
        allowance.spend(u32::MAX, 0);
        assert_eq!(allowance.wait_ms(1, 0), 100, "there is no debt");
    }
}
