//! Marks: where each branch ends and its index, so that opening a store need not read the logs.

use std::collections::BTreeMap;

use crate::{
    id::Author,
    log::{Branch, Logs, Mark},
    store::writer::notes::Note,
};

/// How many index points of each branch the state file has.
#[derive(Debug, Default)]
pub(super) struct Marks {
    // Points in the file, by author and number of the branch.
    saved: BTreeMap<(Author, u32), usize>,
    // The same, as of the flush that is under way. Moved to `saved` by `flushed`.
    saving: BTreeMap<(Author, u32), usize>,
}

impl Marks {
    /// Begins with the marks that were read from a state file.
    pub(super) fn new(marks: &BTreeMap<(Author, u32), Mark>) -> Self {
        let points = |(branch, mark): (&(Author, u32), &Mark)| (*branch, mark.index.len());
        Self {
            saved: marks.iter().map(points).collect(),
            saving: BTreeMap::new(),
        }
    }

    /// Returns the ends of all branches, and the index points added since the last flush.
    pub(super) fn take_unsaved(&mut self, logs: &Logs) -> Vec<Note> {
        let mut notes = Vec::new();
        for branch in logs.reader().all() {
            let Some(mark) = Mark::of(&branch) else {
                continue;
            };
            notes.push(Note::Branch(mark));
            let branch_key = (branch.author, branch.number);
            let saved = self.saved.get(&branch_key).copied().unwrap_or(0);
            let points = branch.index_from(saved);
            self.saving.insert(branch_key, saved + points.len());
            notes.extend(points.into_iter().map(|point| Note::Point {
                branch: branch_key,
                point,
            }));
        }
        notes
    }

    /// The notes returned last are in the file.
    pub(super) fn flushed(&mut self) {
        self.saved.append(&mut self.saving);
    }

    /// The first index points of `branch` may have been removed since the last flush, which was of all
    /// its points. The state file keeps them; what opens it leaves them out.
    pub(super) fn cap(&mut self, branch: &Branch) {
        if let Some(saved) = self.saved.get_mut(&(branch.author, branch.number)) {
            *saved = (*saved).min(branch.index_from(0).len());
        }
    }

    /// The state file is a new one: it has no points.
    pub(super) fn forget_saved(&mut self) {
        self.saved.clear();
        self.saving.clear();
    }
}
