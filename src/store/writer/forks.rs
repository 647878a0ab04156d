//! Forks: which authors have signed two entries for one place, and which of their tips are closed.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    sync::Arc,
};

use crate::{
    id::{Author, EntryId, Seq},
    log::{Branch, LogReader},
    protocol::{
        chain::Tip,
        entry::Entry,
        fork::{ClosedTips, Fork, closed_by, taken_back_by},
        membership::Standing,
    },
    store::writer::membership::Membership,
};

/// A fork of an author, as `status` lists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnownFork {
    /// The two entries that prove it. Both are in the logs here.
    pub proof: Fork,
    /// True once its author has closed all but one of its branches.
    pub closed: bool,
    /// True when the author's key is spent here. One of its forks is listed then.
    pub spent: bool,
}

/// The tips that their authors have closed, as far as the logs here show.
#[derive(Debug, Default)]
pub(super) struct Forks {
    closed: ClosedTips,
    // Closed by the current group. Moved to `closed` and `unsaved` by `commit`.
    staged: Vec<(Author, EntryId)>,
    // Committed, and not in the state's notes yet.
    unsaved: Vec<(Author, EntryId)>,
    // Entries that were taken back, by the current group and since the last notes. The state has all of
    // them.
    staged_back: Vec<(Author, EntryId)>,
    unsaved_back: Vec<(Author, EntryId)>,
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

    /// Notes the entries that an entry which counts takes back.
    pub(super) fn note_taken_back(&mut self, entry: &Entry) {
        let author = entry.author();
        self.staged_back
            .extend(taken_back_by(entry).map(|place| (author, place.id)));
    }

    /// Ends a group that is durable.
    pub(super) fn commit(&mut self) {
        for (author, tip) in self.staged.drain(..) {
            self.closed.insert(author, tip);
            self.unsaved.push((author, tip));
        }
        self.unsaved_back.append(&mut self.staged_back);
    }

    /// Ends a group that was not written.
    pub(super) fn roll_back(&mut self) {
        self.staged.clear();
        self.staged_back.clear();
    }

    /// Returns whether tips are noted and neither committed nor rolled back.
    pub(super) fn is_staging(&self) -> bool {
        !self.staged.is_empty() || !self.staged_back.is_empty()
    }

    /// Returns those of the tips of `author` that are open.
    pub(super) fn open(&self, author: &Author, tips: &[Tip]) -> Vec<Tip> {
        self.closed.open(author, tips)
    }

    /// Takes out the tips closed since the last call: they go into the state's notes.
    pub(super) fn take_unsaved(&mut self) -> Vec<(Author, EntryId)> {
        mem::take(&mut self.unsaved)
    }

    /// Takes out the entries taken back since the last call: they go into the state's notes.
    pub(super) fn take_unsaved_back(&mut self) -> Vec<(Author, EntryId)> {
        mem::take(&mut self.unsaved_back)
    }

    /// Returns the forks that the logs show, by author; of an author whose key is spent the first one.
    /// Reads about two frames of each branch.
    pub(super) fn known(&self, log: &LogReader, membership: &Membership) -> Vec<KnownFork> {
        let mut known = Vec::new();
        for branches in log.all().chunk_by(|one, other| one.author == other.author) {
            let spent = membership.standing(&branches[0].author) == Standing::Spent;
            let mut forks = forks_of(branches);
            if forks.is_empty() {
                continue;
            }
            if spent {
                forks.truncate(1);
            }
            let tips: Vec<Tip> = branches.iter().filter_map(|it| it.tip()).collect();
            let closed = self.open(&branches[0].author, &tips).len() < 2;
            known.extend(forks.into_iter().map(|proof| KnownFork {
                proof,
                closed,
                spent,
            }));
        }
        known
    }
}

// Returns a fork for each of an author's branches but the first. Where nothing else can be read at
// its place, there is no proof.
fn forks_of(branches: &[Arc<Branch>]) -> Vec<Fork> {
    let forked = branches.iter().filter(|branch| branch.number > 0);
    let begun = forked.filter_map(|branch| {
        let record = branch.header(branch.first).ok().flatten()?;
        Some((branch.first, record.header.id))
    });
    let begun: Vec<(Seq, EntryId)> = begun.collect();
    // The ids at each of these places; two are enough.
    let mut ids: BTreeMap<Seq, BTreeSet<EntryId>> = BTreeMap::new();
    for (seq, id) in &begun {
        ids.entry(*seq).or_default().insert(*id);
    }
    let mut open: BTreeSet<Seq> = ids.keys().copied().collect();
    for branch in branches {
        open.retain(|seq| ids[seq].len() < 2);
        for (seq, id) in branch.ids_at(&open) {
            ids.entry(seq).or_default().insert(id);
        }
    }
    let forks = begun.into_iter().filter_map(|(seq, own)| {
        let other = *ids.get(&seq)?.iter().find(|id| **id != own)?;
        let (author, entries) = (branches.first()?.author, [own.min(other), own.max(other)]);
        Some(Fork {
            author,
            seq,
            entries,
        })
    });
    forks.collect()
}
