//! Random choices that a seed repeats: splitmix64 (Steele, Lea, Flood 2014).

use std::{env, ops::RangeInclusive};

/// Calls `test` once a seed, or only with `SEED` where that is set; names the seed that failed.
pub fn for_each_seed(seeds: RangeInclusive<u64>, mut test: impl FnMut(&mut Random)) {
    let mut run = |seed| {
        let named = Named(seed);
        test(&mut Random(seed));
        drop(named);
    };
    match env::var("SEED") {
        Ok(seed) => run(seed.parse().expect("SEED is a number")),
        Err(_unset) => seeds.for_each(run),
    }
}

/// A random generator.
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    /// Starts the generator from `seed`.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Returns 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// Returns a number below `end`, which is not 0.
    pub fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.bits() % end as u64).unwrap()
    }

    /// Returns a generator of its own, for a task.
    pub fn split(&mut self) -> Self {
        Self(self.bits())
    }

    /// Returns true once in `times`, on average.
    pub fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    /// Returns up to `length_max` random bytes.
    pub fn bytes(&mut self, length_max: usize) -> Vec<u8> {
        let length = self.below(length_max + 1);
        (0..length).map(|_| self.bits().to_le_bytes()[0]).collect()
    }

    /// Puts `items` in a random order (Fisher and Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}

// Prints the seed when the test panics.
struct Named(u64);

impl Drop for Named {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "failed with SEED={}; run only this one with SEED={} cargo test",
                self.0, self.0
            );
        }
    }
}

#[test]
fn splitmix64_gives_the_published_numbers() {
    let mut random = Random(1_234_567);
    assert_eq!(random.bits(), 6_457_827_717_110_365_317);
    assert_eq!(random.bits(), 3_203_168_211_198_807_973);
}
