//! Hybrid logical clock (Kulkarni et al., "Logical Physical Clocks", 2014), as a value.
//!
//! A stamp is a wall part in ms and a counter, compared as a pair. The next stamp after a given one
//! is the least that is greater and not before the wall clock: the wall clock with counter 0 if the
//! clock is ahead of the wall part, otherwise the same wall part with the counter plus one. A full
//! counter carries into the wall part, which ends at `STAMP_MS_MAX` (47 bits). So stamps grow along
//! every causal chain, also when a wall clock is set back. Reading the wall clock is up to the
//! caller.

use std::fmt;

use crate::limits::STAMP_MS_MAX;

/// A time stamp that grows along every causal chain, also when wall clocks are set back.
///
/// Ordered by `wall_ms`, then `counter`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Hlc {
    /// Milliseconds since 1970, at most `STAMP_MS_MAX`.
    pub wall_ms: u64,
    /// Distinguishes stamps with one `wall_ms`; from 0.
    pub counter: u32,
}

/// The clock has reached its last stamp, `STAMP_MS_MAX` with a full counter, in the year 6429.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the hybrid clock is exhausted: its last stamp, in the year 6429, is used")]
pub struct HlcExhausted;

impl Hlc {
    /// The least stamp.
    pub const ZERO: Self = Self {
        wall_ms: 0,
        counter: 0,
    };

    /// Creates a stamp; `None` if `wall_ms` is above `STAMP_MS_MAX` (47 bits).
    pub fn new(wall_ms: u64, counter: u32) -> Option<Self> {
        (wall_ms <= STAMP_MS_MAX).then_some(Self { wall_ms, counter })
    }

    /// Returns the least stamp that is greater than `self` and not before `now_ms`.
    ///
    /// `now_ms` is in ms since 1970; a time above `STAMP_MS_MAX` counts as `STAMP_MS_MAX`.
    ///
    /// # Errors
    /// `HlcExhausted` if `self` is the last stamp.
    pub fn next(self, now_ms: u64) -> Result<Self, HlcExhausted> {
        let now_ms = now_ms.min(STAMP_MS_MAX);
        if now_ms > self.wall_ms {
            return Ok(Self {
                wall_ms: now_ms,
                counter: 0,
            });
        }
        if let Some(counter) = self.counter.checked_add(1) {
            return Ok(Self {
                wall_ms: self.wall_ms,
                counter,
            });
        }
        let wall_ms = self.wall_ms.checked_add(1).ok_or(HlcExhausted)?;
        Self::new(wall_ms, 0).ok_or(HlcExhausted)
    }
}

impl fmt::Display for Hlc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.wall_ms, self.counter)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn t4_full_counter_carries_into_wall_part() {
        let full = Hlc {
            wall_ms: 5,
            counter: u32::MAX,
        };
        assert_eq!(
            full.next(5),
            Ok(Hlc {
                wall_ms: 6,
                counter: 0
            })
        );
        let last = Hlc {
            wall_ms: STAMP_MS_MAX,
            counter: u32::MAX,
        };
        assert_eq!(last.next(u64::MAX), Err(HlcExhausted));
    }

    #[test]
    fn t1_stamps_grow_when_clock_is_set_back() {
        let month_ms = 30 * 86_400_000;
        let before = Hlc {
            wall_ms: 1_700_000_000_000,
            counter: 3,
        };
        let after = before.next(before.wall_ms - month_ms).unwrap();
        assert_eq!(
            after,
            Hlc {
                wall_ms: before.wall_ms,
                counter: 4
            }
        );
    }

    proptest! {
        #[test]
        fn next_is_greater_and_not_before_now(wall in 0..=STAMP_MS_MAX, counter: u32, now: u64) {
            let stamp = Hlc::new(wall, counter).unwrap();
            if let Ok(next) = stamp.next(now) {
                prop_assert!(next > stamp);
                prop_assert!(next.wall_ms >= now.min(STAMP_MS_MAX));
                prop_assert!(next.wall_ms <= STAMP_MS_MAX);
            } else {
                prop_assert_eq!(stamp, Hlc { wall_ms: STAMP_MS_MAX, counter: u32::MAX });
            }
        }
    }
}
