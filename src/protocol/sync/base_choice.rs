//! Which of several bases that acts name is taken.

use std::collections::BTreeMap;

use crate::{
    limits::{BASE_IDLE_MS, BASE_TRIES_MAX, BASES_REMEMBERED_MAX},
    protocol::anchors_act::BaseHash,
};

/// Place of a base among those that acts name: the number of the newest act that does, then the hash. The
/// greatest one is the newest base.
pub type BaseRank = (u64, [u8; 32]);

/// The base that is being taken, and those that turned out not to be what their hash says.
///
/// Parts of one base are on the disk at a time. So while the newest base comes, older ones are not taken,
/// unless nothing of it came for `BASE_IDLE_MS`.
#[derive(Debug, Default)]
pub struct BaseChoice {
    current: Option<Current>,
    failures: BTreeMap<BaseHash, u32>,
}

#[derive(Debug, Clone, Copy)]
struct Current {
    rank: BaseRank,
    // When something of it came last.
    at_ms: u64,
}

impl BaseChoice {
    /// Decides that the base of `rank` is taken at `now_ms`. Returns the rank of the newer one that is
    /// being taken if it is not.
    ///
    /// # Errors
    /// The rank of that one.
    pub fn choose(&mut self, rank: BaseRank, now_ms: u64) -> Result<(), BaseRank> {
        if let Some(current) = &mut self.current {
            // A clock that was set back.
            current.at_ms = current.at_ms.min(now_ms);
            let is_idle = now_ms.saturating_sub(current.at_ms) >= BASE_IDLE_MS;
            if current.rank > rank && !is_idle {
                return Err(current.rank);
            }
        }
        let at_ms = now_ms;
        self.current = Some(Current { rank, at_ms });
        Ok(())
    }

    /// Expects the base of `rank`, of which parts may be on the disk, unless one is being taken.
    pub fn expect(&mut self, rank: BaseRank, now_ms: u64) {
        let at_ms = now_ms;
        self.current.get_or_insert(Current { rank, at_ms });
    }

    /// Returns whether no base was taken since the store was opened, or the last one is installed.
    pub fn is_empty(&self) -> bool {
        self.current.is_none()
    }

    /// Notes that something of the base has come.
    pub fn come(&mut self, now_ms: u64) {
        if let Some(current) = &mut self.current {
            current.at_ms = now_ms;
        }
    }

    /// Notes that the base is installed.
    pub fn installed(&mut self) {
        self.current = None;
    }

    /// Notes that all of the base was there, and that it is not what its hash says.
    pub fn failed(&mut self, base: BaseHash) {
        if self.failures.len() >= BASES_REMEMBERED_MAX && !self.failures.contains_key(&base) {
            self.failures.clear();
        }
        let failures = self.failures.entry(base).or_default();
        *failures = failures.saturating_add(1);
        let is_current = |current: Current| current.rank.1 == base.0;
        if *failures >= BASE_TRIES_MAX && self.current.is_some_and(is_current) {
            self.current = None;
        }
    }

    /// Returns whether the base has failed so often that it is not taken any more.
    pub fn is_refused(&self, base: &BaseHash) -> bool {
        let failures = self.failures.get(base);
        failures.is_some_and(|failures| *failures >= BASE_TRIES_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: BaseRank = (3, [9; 32]);
    const NEW: BaseRank = (4, [1; 32]);

    /// Two acts name two bases, and peers offer both. Each erased the parts of the other.
    #[test]
    fn newest_base_is_taken_until_nothing_of_it_comes() {
        let mut choice = BaseChoice::default();
        assert!(choice.is_empty());
        assert_eq!(choice.choose(OLD, 10), Ok(()));
        assert_eq!(choice.choose(NEW, 20), Ok(()));
        assert_eq!(choice.choose(OLD, 30), Err(NEW));
        assert_eq!(choice.choose(NEW, 40), Ok(()));
        choice.come(1000);
        assert_eq!(choice.choose(OLD, 999 + BASE_IDLE_MS), Err(NEW));
        assert_eq!(choice.choose(OLD, 1000 + BASE_IDLE_MS), Ok(()));
        choice.installed();
        assert!(choice.is_empty());
        // The clock is set back: the time of idleness begins again, and ends.
        choice.expect(NEW, u64::MAX);
        choice.expect(OLD, 5);
        assert_eq!(choice.choose(OLD, 5), Err(NEW));
        assert_eq!(choice.choose(OLD, 5 + BASE_IDLE_MS), Ok(()));
    }

    #[test]
    fn base_that_fails_again_and_again_is_refused() {
        let (base, other) = (BaseHash([1; 32]), BaseHash([2; 32]));
        let mut choice = BaseChoice::default();
        for _try in 0..BASE_TRIES_MAX {
            assert!(!choice.is_refused(&base));
            choice.failed(base);
        }
        assert!(choice.is_refused(&base) && !choice.is_refused(&other));
        // It does not keep older ones from being taken.
        choice.failures.clear();
        assert_eq!(choice.choose(NEW, 10), Ok(()));
        for _try in 0..BASE_TRIES_MAX {
            assert_eq!(choice.choose(OLD, 10), Err(NEW));
            choice.failed(BaseHash(NEW.1));
        }
        assert_eq!(choice.choose(OLD, 10), Ok(()));
        for byte in 0..=255 {
            choice.failed(BaseHash([byte; 32]));
        }
        assert!(choice.failures.len() <= BASES_REMEMBERED_MAX);
    }
}
