//! When the first change of each key may be taken, or is taken back.

use std::collections::BTreeSet;

use crate::protocol::consumer::place::State;

/// The numbers of changes that are the first of their keys, each in the set that its state names.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Due {
    // Waiting changes that may be taken now.
    ready: BTreeSet<u64>,
    // Waiting changes, by the time from which on they may be taken.
    delayed: BTreeSet<(u64, u64)>,
    // Taken changes, by the time at which they are taken back.
    taken: BTreeSet<(u64, u64)>,
}

impl Due {
    pub(super) fn add(&mut self, number: u64, state: State) {
        match state {
            State::Waiting { due_ms: 0, .. } => self.ready.insert(number),
            State::Waiting { due_ms, .. } => self.delayed.insert((due_ms, number)),
            State::Taken { deadline_ms, .. } => self.taken.insert((deadline_ms, number)),
        };
    }

    /// Removes a number that may have become ready since it was added.
    pub(super) fn remove(&mut self, number: u64, state: State) {
        self.ready.remove(&number);
        match state {
            State::Waiting { due_ms, .. } => self.delayed.remove(&(due_ms, number)),
            State::Taken { deadline_ms, .. } => self.taken.remove(&(deadline_ms, number)),
        };
    }

    /// Returns the lowest number that may be taken now.
    pub(super) fn first_ready(&self) -> Option<u64> {
        self.ready.first().copied()
    }

    /// Returns the change whose time with its taker ended first, if one has ended by `now_ms`.
    pub(super) fn timed_out(&self, now_ms: u64) -> Option<u64> {
        let first = self.taken.first().filter(|at| at.0 <= now_ms);
        first.map(|(_, number)| *number)
    }

    /// Makes the changes ready whose pause has ended by `now_ms`.
    pub(super) fn wake(&mut self, now_ms: u64) {
        while let Some(due) = self.delayed.first().copied().filter(|at| at.0 <= now_ms) {
            self.delayed.remove(&due);
            self.ready.insert(due.1);
        }
    }

    /// Returns the time at which a pause or the time of a taker ends next; `None`: none ends.
    pub(super) fn next_ms(&self) -> Option<u64> {
        let first = [self.delayed.first(), self.taken.first()];
        first.into_iter().flatten().map(|(ms, _)| *ms).min()
    }

    /// Returns the number of changes that are with takers.
    pub(super) fn taken(&self) -> usize {
        self.taken.len()
    }

    #[cfg(test)]
    pub(super) fn all(&self) -> BTreeSet<u64> {
        let timed = self.delayed.iter().chain(&self.taken).map(|at| at.1);
        timed.chain(self.ready.iter().copied()).collect()
    }
}
