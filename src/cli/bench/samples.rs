//! How long each of many calls took, and the time they took together.

use std::time::{Duration, Instant};

/// Durations of calls that ran during a known time.
#[derive(Debug, Default)]
pub(super) struct Samples {
    // Nanoseconds; sorted by `sort`.
    each: Vec<u64>,
    /// Time during which they ran.
    pub(super) span: Duration,
}

impl Samples {
    /// Adds one.
    pub(super) fn push(&mut self, took: Duration) {
        self.each
            .push(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
    }

    /// Adds those of another caller that ran at the same time.
    pub(super) fn beside(&mut self, other: Self) {
        self.each.extend(other.each);
        self.span = self.span.max(other.span);
    }

    /// Adds those of another turn, before or after.
    pub(super) fn then(&mut self, other: Self) {
        self.each.extend(other.each);
        self.span += other.span;
    }

    /// Runs `call` over and over for `time`, and remembers how long each took.
    ///
    /// # Errors
    /// The call's first.
    pub(super) fn of<E>(
        time: Duration,
        mut call: impl FnMut() -> Result<(), E>,
    ) -> Result<Self, E> {
        let mut samples = Self::default();
        let start = Instant::now();
        let mut before = start;
        while before - start < time {
            call()?;
            let now = Instant::now();
            samples.push(now - before);
            before = now;
        }
        samples.span = before - start;
        Ok(samples)
    }

    /// Returns how many there are.
    pub(super) fn count(&self) -> usize {
        self.each.len()
    }

    /// Returns calls per second.
    pub(super) fn rate(&self) -> f64 {
        rate(self.each.len(), self.span)
    }

    /// Sorts them, for `micros`.
    pub(super) fn sort(&mut self) {
        self.each.sort_unstable();
    }

    /// Returns the microseconds that `per_mille` of 1000 calls did not exceed; 0 without calls.
    pub(super) fn micros(&self, per_mille: usize) -> f64 {
        debug_assert!(self.each.is_sorted(), "sort first");
        let place = (self.each.len() * per_mille / 1000).min(self.each.len().saturating_sub(1));
        self.each
            .get(place)
            .map_or(0.0, |nanos| *nanos as f64 / 1e3)
    }
}

/// Returns things per second.
pub(super) fn rate(count: usize, span: Duration) -> f64 {
    if span.is_zero() {
        return 0.0;
    }
    count as f64 / span.as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_what_was_pushed() {
        let mut samples = Samples::default();
        assert_eq!(samples.micros(500), 0.0);
        for micros in (1..=100).rev() {
            samples.push(Duration::from_micros(micros));
        }
        samples.span = Duration::from_secs(2);
        samples.sort();
        assert_eq!(samples.micros(500), 51.0);
        assert_eq!(samples.micros(990), 100.0);
        assert_eq!(samples.rate(), 50.0);
    }
}
