//! Root pace: when the root of a store's state is computed, so that the node can sign it.
//!
//! At rest it is computed once. While the state changes, it is computed now and then. A computation
//! reads the rows that have changed since the last one, which may be all; so it takes at most one
//! part in `ROOT_SHARE` of the time, whatever the state does.

use crate::limits::PULSE;

/// When the next root of one store is computed. Times are milliseconds of any clock that never goes
/// back.
#[derive(Debug, Clone, Default)]
pub struct RootPace {
    // The state at the last look, and since when it is the same.
    version: Option<u64>,
    since_ms: u64,
    // When the last root was that of the state for the last time; `None` while it is.
    unknown_ms: Option<u64>,
    // The end of the last computation; 0 before the first one.
    ended_ms: u64,
    took_ms: u64,
}

impl RootPace {
    /// Returns whether the root is to be computed now. `version` changes with the state; `is_known`:
    /// the last root is that of this state.
    pub fn is_due(&mut self, version: u64, is_known: bool, now_ms: u64) -> bool {
        if self.version != Some(version) {
            self.version = Some(version);
            self.since_ms = now_ms;
        }
        if is_known {
            self.unknown_ms = None;
            return false;
        }
        let unknown_ms = *self.unknown_ms.get_or_insert(now_ms);
        let for_ms = |since_ms: u64| now_ms.saturating_sub(since_ms);
        let rests = for_ms(self.since_ms) >= AT_REST_MS;
        let is_overdue = for_ms(unknown_ms.max(self.ended_ms)) >= BUSY_EVERY_MS;
        let pause_ms = self.took_ms.saturating_mul(ROOT_SHARE);
        (rests || is_overdue) && for_ms(self.ended_ms) >= pause_ms
    }

    /// Notes that a computation has ended. One that failed is tried again after `BUSY_EVERY_MS`.
    pub fn ended(&mut self, has_failed: bool, took_ms: u64, now_ms: u64) {
        self.ended_ms = now_ms;
        let failed_ms = BUSY_EVERY_MS.checked_div(ROOT_SHARE).unwrap_or_default();
        self.took_ms = if has_failed {
            took_ms.max(failed_ms)
        } else {
            took_ms
        };
    }
}

/// Milliseconds without a change after which a state is at rest: a flush comes within this time.
pub const AT_REST_MS: u64 = 1000;
/// Milliseconds between two roots of a state that changes all the time.
pub const BUSY_EVERY_MS: u64 = 10_000;
/// The part of the time, one in so many, that roots of one store may take.
pub const ROOT_SHARE: u64 = 20;
const _: () = assert!(AT_REST_MS as u128 >= 2 * PULSE.as_millis());

#[cfg(test)]
mod tests {
    use super::*;

    // Looks every 250 ms from `from_ms` on, and returns when the computations began. `version(now)`
    // is the state; each computation takes `took_ms`.
    fn begun(
        pace: &mut RootPace,
        (from_ms, to_ms): (u64, u64),
        version: impl Fn(u64) -> u64,
        took_ms: u64,
    ) -> Vec<u64> {
        let (mut begun, mut known, mut now_ms) = (Vec::new(), None, from_ms);
        while now_ms < to_ms {
            let version = version(now_ms);
            if pace.is_due(version, known == Some(version), now_ms) {
                begun.push(now_ms);
                known = Some(version);
                now_ms += took_ms;
                pace.ended(false, took_ms, now_ms);
            }
            now_ms += 250;
        }
        begun
    }

    #[test]
    fn state_at_rest_has_its_root_computed_once() {
        // Two writes: each time again once.
        let written = |now_ms| u64::from(now_ms >= 100_000) + u64::from(now_ms >= 150_000);
        let begun = begun(&mut RootPace::default(), (0, 200_000), written, 0);
        assert_eq!(begun, [1000, 101_000, 151_000]);
    }

    #[test]
    fn changing_state_costs_a_twentieth_of_the_time() {
        let always = |now_ms| now_ms;
        let starts = |took_ms| begun(&mut RootPace::default(), (0, 1_000_000), always, took_ms);
        assert_eq!(starts(0).len(), 99, "every 10 s");
        assert_eq!(starts(5000).len(), 10, "100 s of pause for 5 s of work");
        // A write every 2 s, and a root that takes a second: the state is at rest in between.
        let slowly = |now_ms| now_ms / 2000;
        let often = begun(&mut RootPace::default(), (0, 1_000_000), slowly, 1000);
        assert!((40..=50).contains(&often.len()), "{}", often.len());
    }

    #[test]
    fn failed_computation_is_not_tried_again_at_once() {
        let mut pace = RootPace::default();
        pace.is_due(1, false, 0);
        assert!(pace.is_due(1, false, 1000));
        pace.ended(true, 1, 1000);
        assert!(!pace.is_due(1, false, 10_750));
        assert!(pace.is_due(1, false, 11_000));
    }
}
