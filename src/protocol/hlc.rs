//! The hybrid logical clock (Kulkarni et al., "Logical Physical Clocks", 2014) as a value.

use std::fmt;

use crate::limits::WALL_MS_MAX;

/// A time stamp that never goes back along a causal chain, whatever wall clocks do.
///
/// Ordered by `wall_ms`, then `counter`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Hlc {
    /// Milliseconds since 1970, at most `WALL_MS_MAX`.
    pub wall_ms: u64,
    /// Orders stamps of one millisecond.
    pub counter: u32,
}

/// The clock has reached its last stamp, in the year 10889.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the hybrid clock is exhausted: no stamp is left after {WALL_MS_MAX} ms")]
pub struct HlcExhausted;

impl Hlc {
    /// The stamp before all others.
    pub const ZERO: Self = Self {
        wall_ms: 0,
        counter: 0,
    };

    /// Returns a stamp, or `None` where `wall_ms` has more than 48 bits.
    pub fn new(wall_ms: u64, counter: u32) -> Option<Self> {
        (wall_ms <= WALL_MS_MAX).then_some(Self { wall_ms, counter })
    }

    /// Returns the least stamp that is greater than `self` and not before `now_ms`.
    ///
    /// A full counter carries into the wall part.
    ///
    /// # Errors
    /// `HlcExhausted` when there is none.
    pub fn next(self, now_ms: u64) -> Result<Self, HlcExhausted> {
        let now_ms = now_ms.min(WALL_MS_MAX);
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
    fn t4_full_counter_carries_into_the_wall_part() {
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
            wall_ms: WALL_MS_MAX,
            counter: u32::MAX,
        };
        assert_eq!(last.next(u64::MAX), Err(HlcExhausted));
    }

    #[test]
    fn t1_clock_set_back_still_moves_forward() {
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
        fn next_is_greater_and_not_before_now(wall in 0..=WALL_MS_MAX, counter: u32, now: u64) {
            let stamp = Hlc::new(wall, counter).unwrap();
            if let Ok(next) = stamp.next(now) {
                prop_assert!(next > stamp);
                prop_assert!(next.wall_ms >= now.min(WALL_MS_MAX));
                prop_assert!(next.wall_ms <= WALL_MS_MAX);
            } else {
                prop_assert_eq!(stamp, Hlc { wall_ms: WALL_MS_MAX, counter: u32::MAX });
            }
        }
    }
}
