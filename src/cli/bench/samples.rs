//! The durations of many calls, and their rate.

use std::time::{Duration, Instant};

/// Durations of calls, and the time in which the calls were made.
#[derive(Debug, Default)]
pub(super) struct Samples {
    // In nanoseconds; sorted by `sort`.
    each: Vec<u64>,
    /// Time in which all calls were made.
    pub(super) span: Duration,
}

impl Samples {
    /// Adds the duration of one call.
    pub(super) fn push(&mut self, took: Duration) {
        self.each
            .push(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
    }

    /// Adds the calls of another caller in the same time.
    pub(super) fn merge(&mut self, other: Self) {
        self.each.extend(other.each);
        self.span = self.span.max(other.span);
    }

    /// Adds the calls of another turn, at another time.
    pub(super) fn append(&mut self, other: Self) {
        self.each.extend(other.each);
        self.span += other.span;
    }

    /// Calls `call` repeatedly for `time` and measures each call. Stops at the first error.
    pub(super) fn measure<E>(
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

    /// Returns the number of calls.
    pub(super) fn count(&self) -> usize {
        self.each.len()
    }

    /// Returns the calls per second.
    pub(super) fn rate(&self) -> f64 {
        rate(self.each.len(), self.span)
    }

    /// Sorts the durations, as `micros` requires.
    pub(super) fn sort(&mut self) {
        self.each.sort_unstable();
    }

    /// Returns the duration that `per_mille` of 1000 calls did not exceed, in microseconds; 0
    /// without calls. Requires `sort`.
    pub(super) fn micros(&self, per_mille: usize) -> f64 {
        debug_assert!(self.each.is_sorted(), "sort first");
        let place = (self.each.len() * per_mille / 1000).min(self.each.len().saturating_sub(1));
        self.each
            .get(place)
            .map_or(0.0, |nanos| *nanos as f64 / 1e3)
    }
}

/// Returns `count` per second of `span`; 0 for an empty span.
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
    fn percentiles_and_rate() {
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
