//! The rate limit of a hook.

use std::time::Duration;

use tokio::time::Instant;

/// A token bucket: it gains `per_second` runs each second, and holds the runs of one second.
#[derive(Debug)]
pub(super) struct Rate {
    per_second: u32,
    // Time up to which runs are assigned. Earlier than now: a run may start at once.
    taken_until: Instant,
}

impl Rate {
    pub(super) fn new(per_second: u32, now: Instant) -> Self {
        Self {
            per_second: per_second.max(1),
            taken_until: now.checked_sub(BURST).unwrap_or(now),
        }
    }

    /// Assigns the next run and returns the time that it must wait.
    pub(super) fn take(&mut self, now: Instant) -> Duration {
        let first = now.checked_sub(BURST).unwrap_or(now);
        self.taken_until = self.taken_until.max(first) + Duration::from_secs(1) / self.per_second;
        self.taken_until.saturating_duration_since(now)
    }
}

/// After a quiet time, the runs of this period may start at once.
const BURST: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn burst_of_one_second_then_the_rate() {
        let start = Instant::now() + Duration::from_secs(10);
        let mut rate = Rate::new(10, start);
        let waits: Vec<u128> = (0..13).map(|_| rate.take(start).as_millis()).collect();
        assert_eq!(waits, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 100, 200, 300]);
        let later = start + Duration::from_secs(60);
        assert_eq!(rate.take(later), Duration::ZERO);
    }
}
