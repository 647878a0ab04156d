//! How fast a count grows.

use std::collections::VecDeque;

/// The last values of a count that only grows, and when they were read.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rate {
    // Times in ms by a clock that never goes back, oldest first; at most `SAMPLES_MAX`.
    samples: VecDeque<(u64, u64)>,
}

impl Rate {
    /// Notes the count at a time in ms. A count that fell, or a clock that went back, begins again.
    pub(crate) fn note(&mut self, at_ms: u64, count: u64) {
        if let Some((last_ms, last)) = self.samples.back()
            && (*last_ms >= at_ms || *last > count)
        {
            self.samples.clear();
        }
        self.samples.push_back((at_ms, count));
        let is_old = |sample: &(u64, u64)| at_ms - sample.0 > WINDOW_MS;
        while self.samples.len() > SAMPLES_MAX || self.samples.front().is_some_and(is_old) {
            self.samples.pop_front();
        }
    }

    /// Returns the growth per second, rounded down; `None` after fewer than two values.
    pub(crate) fn per_second(&self) -> Option<u64> {
        Some(self.tenths()? / 10)
    }

    /// Returns the growth per second, as people read it; empty after fewer than two values.
    pub(crate) fn text(&self) -> String {
        match self.tenths() {
            None => String::new(),
            Some(0) => "0".to_owned(),
            Some(tenths @ 1..100) => format!("{}.{}", tenths / 10, tenths % 10),
            Some(tenths) => (tenths / 10).to_string(),
        }
    }

    fn tenths(&self) -> Option<u64> {
        let ((first_ms, first), (last_ms, last)) = (self.samples.front()?, self.samples.back()?);
        let grown = (last - first).saturating_mul(10_000);
        grown.checked_div(last_ms - first_ms)
    }
}

/// Time over which a rate is the mean.
const WINDOW_MS: u64 = 10_000;
/// Values of that time that are kept.
const SAMPLES_MAX: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(samples: &[(u64, u64)]) -> String {
        let mut rate = Rate::default();
        for (at_ms, count) in samples {
            rate.note(*at_ms, *count);
        }
        rate.text()
    }

    #[test]
    fn rate_is_the_mean_of_the_last_seconds() {
        assert_eq!(rate(&[]), "");
        assert_eq!(rate(&[(1000, 5)]), "");
        assert_eq!(rate(&[(1000, 5), (2000, 5)]), "0");
        assert_eq!(rate(&[(1000, 5), (2000, 8)]), "3.0");
        assert_eq!(rate(&[(1000, 0), (3000, 3)]), "1.5");
        assert_eq!(rate(&[(1000, 0), (2000, 34_000)]), "34000");
        assert_eq!(rate(&[(0, 0), (10_000, 0), (10_001, 0)]), "0");
        // The burst is older than the window.
        assert_eq!(rate(&[(0, 0), (1, 900), (15_000, 900), (16_000, 900)]), "0");
        assert_eq!(rate(&[(0, 0), (10_000, 0), (20_000, 1)]), "0.1");
    }

    #[test]
    fn count_that_fell_begins_again() {
        assert_eq!(rate(&[(1000, 50), (2000, 5)]), "");
        assert_eq!(rate(&[(1000, 50), (2000, 5), (3000, 7)]), "2.0");
        assert_eq!(rate(&[(2000, 5), (1000, 9)]), "");
        assert_eq!(rate(&[(2000, 5), (2000, 9)]), "");
    }

    #[test]
    fn samples_are_bounded() {
        let mut rate = Rate::default();
        for at_ms in 0..100_000 {
            rate.note(at_ms, at_ms);
            assert!(rate.samples.len() <= SAMPLES_MAX);
        }
        assert_eq!(rate.text(), "1000");
    }
}
