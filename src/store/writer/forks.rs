//! Forks: which authors have signed two entries for one place, and which of their tips are closed.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::{
    id::{Author, EntryId, Seq},
    limits::FORKS_MAX,
    log::{Branch, LogError, LogReader, may_be_spent},
    protocol::{
        chain::Tip,
        entry::Entry,
        fork::{Fork, open_tips},
        frontier::FrontierTip,
        membership::Standing,
    },
    state::StateError,
    store::writer::{health::WriteFailure, membership::Membership, writer::Writer},
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

impl Writer {
    /// Returns those of the tips of `author` that it has not closed.
    ///
    /// # Errors
    /// `Damaged`, `Io`.
    pub(super) fn open_tips(&self, author: &Author) -> Result<Vec<Tip>, StateError> {
        let view = self.state.staged();
        open_tips(&self.logs.tips(author), |id| view.is_closed(author, id))
    }

    /// Returns whether an entry that is taken in counts now, see `Membership::counts_at_arrival`.
    ///
    /// # Errors
    /// The disk fails.
    pub(super) fn counts_at_arrival(&self, entry: &Entry) -> Result<bool, WriteFailure> {
        let prev = entry.header.prev.map(|id| FrontierTip {
            seq: entry.header.seq.saturating_sub(1),
            id,
        });
        let (author, at) = (entry.author(), FrontierTip::of(entry));
        let counts = self
            .membership
            .counts_at_arrival(&author, at, prev, self.logs.reader());
        counts.map_err(WriteFailure::unreadable)
    }

    /// Returns the forks that the logs show, by author; of an author whose key is spent the first one.
    /// Reads about two frames of each branch.
    ///
    /// # Errors
    /// `Damaged`, `Io`: of the state.
    pub(super) fn known_forks(&self) -> Result<Vec<KnownFork>, StateError> {
        let mut known = Vec::new();
        let log = self.logs.reader();
        for branches in log.all().chunk_by(|one, other| one.author == other.author) {
            let author = &branches[0].author;
            let spent = self.membership.standing(author) == Standing::Spent;
            let mut forks = forks_of(branches);
            if forks.is_empty() {
                continue;
            }
            if spent {
                forks.truncate(1);
            }
            let closed = self.open_tips(author)?.len() < 2;
            known.extend(forks.into_iter().map(|proof| KnownFork {
                proof,
                closed,
                spent,
            }));
        }
        Ok(known)
    }
}

impl Membership {
    /// Looks for spent keys in the log. Returns whether there are others than before.
    pub(super) fn find_spent(&mut self, log: &LogReader) -> bool {
        let spent = match log.spent(&self.finality(), &self.chains(log)) {
            Ok(spent) => spent,
            Err(error) => {
                // Those that were found before stay.
                tracing::error!(store = %self.store, %error, "spent keys cannot be looked for");
                return false;
            }
        };
        let changed = spent != *self.spent;
        for author in spent.difference(&self.spent) {
            tracing::warn!(
                store = %self.store,
                author = %author.short(),
                "a key is spent: more than {FORKS_MAX} forks of its log were signed with it, so none \
                 of it counts here"
            );
        }
        if changed {
            self.spent = Arc::new(spent);
        }
        changed
    }

    /// Returns whether another branch of `author` may begin at `seq`, beside those that end in `tips`.
    pub(super) fn takes_branch(
        &self,
        author: &Author,
        seq: Seq,
        tips: &[Tip],
        log: &LogReader,
    ) -> bool {
        let finality = self.finality();
        if self.is_anyone() || !may_be_spent(tips.len() + 1) || finality.may_be_final(author, seq) {
            return true;
        }
        let tips: Vec<_> = tips.iter().copied().map(FrontierTip::from).collect();
        let forks = finality.forks(author, &tips, &self.chains(log));
        // Where the disk fails, all of them are taken for forks.
        let forks = forks.unwrap_or(tips.len());
        self.standings().takes_branch(&self.store, author, forks)
    }

    /// Returns whether an entry that is taken in counts now. It may be here only because an anchor that has
    /// not come may make it final. `prev`: the entry before it.
    ///
    /// # Errors
    /// The disk fails.
    pub(super) fn counts_at_arrival(
        &self,
        author: &Author,
        at: FrontierTip,
        prev: Option<FrontierTip>,
        log: &LogReader,
    ) -> Result<bool, LogError> {
        let finality = self.finality();
        if self.is_anyone() || !finality.may_be_final(author, at.seq) {
            return Ok(true);
        }
        let standing = self.standing(author);
        finality.counts(&standing, author, at, prev, &self.chains(log))
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
