//! Looks: when the history of a store is looked at, if nobody asks.
//!
//! A look reads logs and acks, so the stores of a node are not all looked at in one second: each has a place
//! of its own in the time between two looks, which follows from its id.

use crate::id::StoreId;

/// The looks at one store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Looks {
    // Time since the last look, in ms. Until the second one, the place of the store is added.
    since_ms: u64,
    // Bytes of the logs at the last look.
    log_bytes: u64,
    has_looked: bool,
}

impl Looks {
    /// Begins with a look that is due at once.
    pub fn new() -> Self {
        Self {
            since_ms: LOOK_EVERY_MS,
            log_bytes: 0,
            has_looked: false,
        }
    }

    /// Adds `elapsed_ms` since the call before. Returns whether a look is due: ten minutes after the last one,
    /// or when the logs, of `log_bytes` now, have changed much since.
    pub fn is_due(&mut self, elapsed_ms: u64, log_bytes: u64) -> bool {
        self.since_ms = self.since_ms.saturating_add(elapsed_ms);
        self.since_ms >= LOOK_EVERY_MS || log_bytes.abs_diff(self.log_bytes) >= CHANGE_BYTES
    }

    /// Notes a look at `store`, whose logs have `log_bytes`.
    pub fn looked(&mut self, store: &StoreId, log_bytes: u64) {
        let since_ms = if self.has_looked { 0 } else { place_ms(store) };
        *self = Self {
            since_ms,
            log_bytes,
            has_looked: true,
        };
    }
}

impl Default for Looks {
    fn default() -> Self {
        Self::new()
    }
}

// Ids are hashes, so the places are spread evenly.
fn place_ms(store: &StoreId) -> u64 {
    let first = store.0.first_chunk().copied().unwrap_or_default();
    u64::from_be_bytes(first)
        .checked_rem(LOOK_EVERY_MS)
        .unwrap_or(0)
}

// A store of which the logs have not changed much is looked at this often.
const LOOK_EVERY_MS: u64 = 600_000;
const CHANGE_BYTES: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u64) -> StoreId {
        let hash = blake3::hash(&number.to_be_bytes());
        StoreId(*hash.as_bytes().first_chunk().unwrap())
    }

    /// All stores of a node became due in the same second, every ten minutes.
    #[test]
    fn stores_are_looked_at_in_turn_and_each_every_ten_minutes() {
        let mut stores: Vec<_> = (0..500).map(|number| (id(number), Looks::new())).collect();
        let mut looked = vec![Vec::new(); stores.len()];
        for second in (0_u64..4000).step_by(2) {
            let mut at_once = 0;
            for (number, (id, looks)) in stores.iter_mut().enumerate() {
                if looks.is_due(2000, 0) {
                    looks.looked(id, 0);
                    looked[number].push(second);
                    at_once += 1;
                }
            }
            // In the beginning everything is to be known.
            assert!(at_once < 10 || second == 0, "{at_once} after {second} s");
        }
        for seconds in looked {
            assert_eq!(seconds[0], 0);
            assert!(seconds[1] <= 600, "{seconds:?}");
            let rest = seconds[1..].windows(2);
            assert!(rest.clone().count() >= 5, "{seconds:?}");
            rest.for_each(|pair| assert_eq!(pair[1] - pair[0], 600, "{seconds:?}"));
        }
    }

    #[test]
    fn store_whose_logs_change_much_is_looked_at_at_once() {
        let mut looks = Looks::new();
        looks.looked(&id(1), 5 * CHANGE_BYTES);
        looks.looked(&id(1), 5 * CHANGE_BYTES);
        assert!(!looks.is_due(2000, 6 * CHANGE_BYTES - 1));
        assert!(looks.is_due(2000, 6 * CHANGE_BYTES));
        assert!(
            looks.is_due(2000, 4 * CHANGE_BYTES),
            "also if they get shorter"
        );
    }
}
