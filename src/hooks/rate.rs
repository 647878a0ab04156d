//! How often a hook may run.

use std::time::Duration;

use tokio::time::Instant;

/// A bucket that fills with so many runs a second, and holds those of one.
#[derive(Debug)]
pub(super) struct Rate {
    per_second: u32,
    // Up to here all runs are taken; behind now: there is room.
    taken_until: Instant,
}

impl Rate {
    pub(super) fn new(per_second: u32, now: Instant) -> Self {
        Self {
            per_second: per_second.max(1),
            taken_until: now.checked_sub(BURST).unwrap_or(now),
        }
    }

    /// Takes the next run, and returns how long it has to wait.
    pub(super) fn take(&mut self, now: Instant) -> Duration {
        let first = now.checked_sub(BURST).unwrap_or(now);
        self.taken_until = self.taken_until.max(first) + Duration::from_secs(1) / self.per_second;
        self.taken_until.saturating_duration_since(now)
    }
}

/// What may run at once after a quiet time: as much as in this time otherwise.
const BURST: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_of_runs_goes_at_once_and_the_rest_at_its_rate() {
        let start = Instant::now() + Duration::from_secs(10);
        let mut rate = Rate::new(10, start);
        let waits: Vec<u128> = (0..13).map(|_| rate.take(start).as_millis()).collect();
        assert_eq!(waits, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 100, 200, 300]);
        let later = start + Duration::from_secs(60);
        assert_eq!(rate.take(later), Duration::ZERO);
    }
}
