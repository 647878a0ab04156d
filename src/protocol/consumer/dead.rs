//! The dead letters of a consumer.

use std::collections::BTreeMap;

use crate::{
    limits::DEAD_LETTERS_MAX,
    protocol::{
        change::Kind,
        consumer::{
            change_ref::ChangeId,
            place::{DeadLetter, Place},
        },
    },
};

/// Changes that were given up, by number, each with its id.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct DeadLetters(BTreeMap<u64, (ChangeId, DeadLetter)>);

impl DeadLetters {
    pub(super) fn add(&mut self, letter: DeadLetter) {
        let id = ChangeId::of(&letter.change);
        self.0.insert(letter.number, (id, letter));
    }

    pub(super) fn remove(&mut self, number: u64) -> Option<(ChangeId, DeadLetter)> {
        self.0.remove(&number)
    }

    /// Removes the letters that `which` names, and returns their numbers.
    pub(super) fn extract(&mut self, which: impl Fn(&DeadLetter) -> bool) -> Vec<u64> {
        let found = self.0.extract_if(.., |_, (_, letter)| which(letter));
        found.map(|(number, _)| number).collect()
    }

    /// Returns the numbers of the letters that `which` names, those of gaps last.
    pub(super) fn select(&self, which: impl Fn(&DeadLetter) -> bool) -> Vec<u64> {
        let is_gap = |letter: &&DeadLetter| letter.change.kind == Kind::Gap;
        let found = self.letters().filter(|letter| which(letter));
        let (gaps, mut found): (Vec<_>, Vec<_>) = found.partition(is_gap);
        found.extend(gaps);
        found.into_iter().map(|letter| letter.number).collect()
    }

    pub(super) fn has(&self, id: ChangeId) -> bool {
        self.0.values().any(|(it, _)| *it == id)
    }

    pub(super) fn is_full(&self) -> bool {
        self.0.len() >= DEAD_LETTERS_MAX
    }

    /// Returns the place of a number that is not outstanding.
    pub(super) fn place(&self, number: u64) -> Place {
        let letter = self.0.get(&number);
        letter.map_or(Place::Finished, |(_, letter)| Place::Dead(letter.clone()))
    }

    /// Returns the letters, by number.
    pub(super) fn letters(&self) -> impl ExactSizeIterator<Item = &DeadLetter> {
        self.0.values().map(|(_, letter)| letter)
    }
}
