//! The floor of the rate at which a base must come.

use crate::limits::{BASE_FLOOR_BYTES, BASE_FLOOR_MS};

/// Error of a peer that sends its base too slowly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the peer sends its base too slowly: {bytes} bytes came in {} s, and {BASE_FLOOR_BYTES} are expected",
    waited_ms / 1000
)]
pub struct TooSlow {
    /// Bytes that came.
    pub bytes: u64,
    /// Milliseconds for which this node waited for them.
    pub waited_ms: u64,
}

/// Counts the bytes of a base that come while this node waits for them. In each window of `BASE_FLOOR_MS`
/// of waiting, `BASE_FLOOR_BYTES` must come. Time in which this node works on its own disk does not count.
///
/// Times are milliseconds on a clock that never goes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RateFloor {
    // The waits in this window that have ended, added up, and the bytes that came in it.
    waited_ms: u64,
    bytes: u64,
    // When the waiting that goes on began. `None` while this node does not wait.
    since_ms: Option<u64>,
}

impl RateFloor {
    /// Notes that this node waits from `now_ms` on, unless it does already. Returns the milliseconds that
    /// are left of the window.
    pub fn wait(&mut self, now_ms: u64) -> u64 {
        let since_ms = *self.since_ms.get_or_insert(now_ms);
        let waited_ms = self
            .waited_ms
            .saturating_add(now_ms.saturating_sub(since_ms));
        BASE_FLOOR_MS.saturating_sub(waited_ms)
    }

    /// Notes that `bytes` came at `now_ms`, and that this node does not wait any more. With no bytes, it only
    /// looks at the time.
    ///
    /// # Errors
    /// `TooSlow` if a window has ended in which too little came.
    pub fn come(&mut self, bytes: u64, now_ms: u64) -> Result<(), TooSlow> {
        let since_ms = self.since_ms.take().unwrap_or(now_ms);
        let waited_ms = now_ms.saturating_sub(since_ms);
        self.waited_ms = self.waited_ms.saturating_add(waited_ms);
        self.bytes = self.bytes.saturating_add(bytes);
        if self.waited_ms < BASE_FLOOR_MS {
            return Ok(());
        }
        let Self {
            waited_ms, bytes, ..
        } = std::mem::take(self);
        if bytes < BASE_FLOOR_BYTES {
            return Err(TooSlow { bytes, waited_ms });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::BASE_PIECE_BYTES;

    const PIECE: u64 = BASE_PIECE_BYTES as u64;

    // Pieces of this length come at this rate, and the disk works for `work_ms` after each. Returns how
    // many came until the peer was too slow, 1000 at most.
    fn pieces(bytes: u64, bytes_per_s: u64, work_ms: u64) -> usize {
        let (mut floor, mut now_ms) = (RateFloor::default(), 7);
        for count in 0..1000 {
            let due_ms = now_ms + bytes * 1000 / bytes_per_s;
            loop {
                let left_ms = floor.wait(now_ms);
                if now_ms + left_ms > due_ms {
                    break;
                }
                now_ms += left_ms;
                if floor.come(0, now_ms).is_err() {
                    return count;
                }
            }
            now_ms = due_ms;
            if floor.come(bytes, now_ms).is_err() {
                return count;
            }
            now_ms += work_ms;
        }
        1000
    }

    #[test]
    fn slow_but_honest_link_gets_through_and_a_slower_one_does_not() {
        assert_eq!(pieces(PIECE, 9000, 0), 1000);
        assert_eq!(pieces(PIECE, 1 << 20, 0), 1000);
        assert!(pieces(PIECE, 8000, 0) < 10);
        // A peer that sends a byte a minute held the transfer for as long as it liked.
        assert_eq!(pieces(1, 1, 0), 59);
        assert_eq!(pieces(PIECE, 1, 0), 0);
    }

    #[test]
    fn time_in_which_the_own_disk_works_does_not_count() {
        assert_eq!(pieces(PIECE, 9000, 600_000), 1000);
        assert_eq!(pieces(PIECE, 9000, u64::MAX / 4000), 1000);
    }

    #[test]
    fn silence_ends_with_the_window() {
        let mut floor = RateFloor::default();
        assert_eq!(floor.wait(5), BASE_FLOOR_MS);
        assert_eq!(floor.wait(6), BASE_FLOOR_MS - 1);
        let end_ms = 5 + BASE_FLOOR_MS;
        assert_eq!(floor.wait(end_ms), 0);
        let (bytes, waited_ms) = (0, BASE_FLOOR_MS);
        assert_eq!(floor.come(0, end_ms), Err(TooSlow { bytes, waited_ms }));
        // A clock that goes back is not the peer's fault, nor is the greatest time there is.
        assert_eq!(floor.come(1, 0), Ok(()));
        floor.wait(u64::MAX);
        assert_eq!(floor.come(1, 3), Ok(()));
    }
}
