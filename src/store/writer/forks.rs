//! Forks: which authors have signed two entries for one place, and which of their tips are closed.

use std::mem;

use crate::{
    id::{Author, EntryId},
    log::LogReader,
    protocol::{
        chain::Tip,
        entry::Entry,
        fork::{ClosedTips, Fork, closed_by},
    },
};

/// A fork of an author, as `status` lists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnownFork {
    /// The two entries that prove it. Both are in the logs here.
    pub proof: Fork,
    /// True once its author has closed all but one of its branches.
    pub closed: bool,
}

/// The tips that their authors have closed, as far as the logs here show.
#[derive(Debug, Default)]
pub(super) struct Forks {
    closed: ClosedTips,
    // Closed by the current group. Moved to `closed` and `unsaved` by `commit`.
    staged: Vec<(Author, EntryId)>,
    // Committed, and not in the state's notes yet.
    unsaved: Vec<(Author, EntryId)>,
}

impl Forks {
    /// Begins with the tips that were saved.
    pub(super) fn new(saved: &[(Author, EntryId)]) -> Self {
        let mut forks = Self::default();
        for (author, tip) in saved {
            forks.closed.insert(*author, *tip);
        }
        forks
    }

    /// Notes the tips that an entry closes.
    pub(super) fn note(&mut self, entry: &Entry) {
        let author = entry.author();
        self.staged
            .extend(closed_by(entry).map(|tip| (author, tip)));
    }

    /// Ends a group that is durable.
    pub(super) fn commit(&mut self) {
        for (author, tip) in self.staged.drain(..) {
            self.closed.insert(author, tip);
            self.unsaved.push((author, tip));
        }
    }

    /// Ends a group that was not written.
    pub(super) fn roll_back(&mut self) {
        self.staged.clear();
    }

    /// Returns whether tips are noted and neither committed nor rolled back.
    pub(super) fn is_staging(&self) -> bool {
        !self.staged.is_empty()
    }

    /// Returns those of the tips of `author` that are open.
    pub(super) fn open(&self, author: &Author, tips: &[Tip]) -> Vec<Tip> {
        self.closed.open(author, tips)
    }

    /// Takes out the tips closed since the last call: they go into the state's notes.
    pub(super) fn take_unsaved(&mut self) -> Vec<(Author, EntryId)> {
        mem::take(&mut self.unsaved)
    }

    /// Returns the forks that the logs show, by author.
    pub(super) fn known(&self, log: &LogReader) -> Vec<KnownFork> {
        let mut known = Vec::new();
        let branches = log.all();
        for branch in branches.iter().filter(|branch| branch.number > 0) {
            let author = branch.author;
            let first = branch.entry(branch.first);
            let Ok(Some((first, _))) = first else {
                continue;
            };
            // The entry that contests its place. Where that is damaged, nothing proves the fork.
            let others = branches.iter().filter(|it| it.author == author);
            let proof = others
                .filter(|other| other.number != branch.number)
                .filter_map(|other| other.entry(branch.first).ok().flatten())
                .find_map(|(other, _)| Fork::prove(&first, &other));
            let tips: Vec<Tip> = log.of(&author).iter().filter_map(|it| it.tip()).collect();
            known.extend(proof.map(|proof| KnownFork {
                proof,
                closed: self.open(&author, &tips).len() < 2,
            }));
        }
        known
    }
}
