//! A Bloom filter of keys: knows for certain that a key was never added.

use std::hash::{DefaultHasher, Hasher as _};

/// A set of keys. It may report a key that was never added, and never misses a key that was added.
#[derive(Debug)]
pub(super) struct KeyFilter {
    words: Vec<u64>,
}

impl KeyFilter {
    /// Returns an empty filter.
    pub(super) fn new() -> Self {
        Self {
            words: vec![0; WORDS],
        }
    }

    /// Adds a key.
    pub(super) fn insert(&mut self, key: &[u8]) {
        for (word, bit) in places(key) {
            self.words[word] |= bit;
        }
    }

    /// Returns true only when `key` was certainly never added. With 10 million keys in the filter,
    /// it returns false for 1 in 40 of the keys that were never added.
    pub(super) fn is_new(&self, key: &[u8]) -> bool {
        places(key).any(|(word, bit)| self.words[word] & bit == 0)
    }
}

// Indices of words, and a bit of each, that stand for a key.
fn places(key: &[u8]) -> impl Iterator<Item = (usize, u64)> {
    let mut hasher = DefaultHasher::new();
    hasher.write(key);
    let hash = hasher.finish();
    // Kirsch and Mitzenmacher: any number of hashes can be made from two.
    let (first, step) = (hash & u64::from(u32::MAX), (hash >> 32) | 1);
    (0..PLACES).map(move |number| {
        let place = first.wrapping_add(step.wrapping_mul(number)) % (WORDS as u64 * 64);
        let word = usize::try_from(place / 64).expect("less than WORDS");
        (word, 1 << (place % 64))
    })
}

// 16 MiB, 128 million bits: 13 for each of 10 million keys.
const WORDS: usize = 2 << 20;
const PLACES: u64 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_key_is_forgotten_and_few_are_mistaken() {
        let mut filter = KeyFilter::new();
        let key = |number: u32| format!("/key/{number}").into_bytes();
        (0..50_000).for_each(|number| filter.insert(&key(number)));
        assert!((0..50_000).all(|number| !filter.is_new(&key(number))));
        let mistaken = (50_000..100_000).filter(|number| !filter.is_new(&key(*number)));
        assert!(mistaken.count() < 50);
    }
}
