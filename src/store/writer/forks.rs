//! Forks: which authors have signed twice for one place, and which of their tips are closed.

use crate::{
    id::{Author, EntryId},
    log::LogReader,
    protocol::{
        chain::Tip,
        change::Origin,
        entry::{Entry, VerifiedEntry},
        fork::{ClosedTips, Fork, closed_by, closing},
    },
    store::{
        WriteError,
        writer::{actor::Actor, group::GroupError},
    },
};

/// A fork of an author, as `status` shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnownFork {
    /// What proves it: both entries are in the logs here.
    pub proof: Fork,
    /// True once its author has closed all but one of its branches.
    pub closed: bool,
}

/// Tips that are closed, as far as the logs say so; kept as notes of the state.
#[derive(Debug, Default)]
pub(super) struct Forks {
    closed: ClosedTips,
    // Of the current group: not durable yet.
    staged: Vec<(Author, EntryId)>,
    // Not in the state's notes yet.
    unsaved: Vec<(Author, EntryId)>,
}

impl Forks {
    /// Notes what an entry closes.
    pub(super) fn note(&mut self, entry: &Entry) {
        let author = entry.author();
        self.staged
            .extend(closed_by(entry).map(|tip| (author, tip)));
    }

    /// What was noted is durable.
    pub(super) fn commit(&mut self) {
        for (author, tip) in self.staged.drain(..) {
            self.closed.insert(author, tip);
            self.unsaved.push((author, tip));
        }
    }

    /// What was noted last is not in the log.
    pub(super) fn roll_back(&mut self) {
        self.staged.clear();
    }

    /// Returns which of the tips of `author` are open.
    pub(super) fn open(&self, author: &Author, tips: &[Tip]) -> Vec<Tip> {
        self.closed.open(author, tips)
    }

    /// Returns notes of what came since the last flush.
    pub(super) fn notes(&mut self) -> impl Iterator<Item = (Vec<u8>, Vec<u8>)> {
        let unsaved = std::mem::take(&mut self.unsaved);
        unsaved.into_iter().map(|(author, tip)| {
            let key = [&[CLOSED], author.0.as_slice(), tip.0.as_slice()].concat();
            (key, Vec::new())
        })
    }

    /// Reads what the notes of a state say; `None` where one is none.
    pub(super) fn read(notes: &[(Vec<u8>, Vec<u8>)]) -> Option<Self> {
        let mut forks = Self::default();
        for (key, _) in notes.iter().filter(|(key, _)| key.first() == Some(&CLOSED)) {
            let (author, tip) = key.get(1..)?.split_first_chunk()?;
            forks
                .closed
                .insert(Author(*author), EntryId::from_slice(tip)?);
        }
        Some(forks)
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
            // What contests its place; where that is damaged, nothing proves the fork.
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

impl Actor {
    /// Returns the tip of this node's own log; `None` before the first entry.
    ///
    /// # Errors
    /// `OwnFork` while it has several that are open.
    pub(super) fn own_tip(&self) -> Result<Option<Tip>, WriteError> {
        let tips = self.logs.tips(&self.author());
        if tips.len() < 2 {
            return Ok(tips.first().copied());
        }
        let open = self.marks.forks.open(&self.author(), &tips);
        if let [tip] = open.as_slice() {
            return Ok(Some(*tip));
        }
        let branches = self.logs.reader().of(&self.author());
        let forks = branches.iter().filter(|branch| branch.number > 0);
        let seq = forks.map(|branch| branch.first).min().unwrap_or(0);
        Err(WriteError::OwnFork { seq })
    }

    /// Closes the fork of this node's own log with an entry of its own. Returns that entry; `None`
    /// where there is no open fork.
    pub(super) fn close_own_fork(&mut self) -> Result<Option<VerifiedEntry>, GroupError> {
        let author = self.author();
        let open = self.marks.forks.open(&author, &self.logs.tips(&author));
        let Some((on, parents)) = closing(&author, &open) else {
            return Ok(None);
        };
        self.check_own_standing().map_err(GroupError::Refused)?;
        let entry = self.sign(Some(on), parents, Vec::new(), false, None)?;
        self.take_in(&entry, Origin::Local, Some(Vec::new()))?;
        Ok(Some(entry))
    }
}

const CLOSED: u8 = b'c';
