//! The wants of one side of a session: the tips that it is missing, and the seq from which it asks
//! for them.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    id::{Author, Seq, StoreId},
    limits::{SYNC_AUTHOR_TIPS_MAX, SYNC_BACK_ENTRIES, SYNC_ITEMS_MAX, SYNC_WANTS_MAX},
    protocol::{
        entry::{Entry, Order},
        frontier::{Frontier, FrontierTip, MissingRange},
        sync::SyncError,
    },
};

/// The wants of one side. Empty until both frontiers are known.
#[derive(Debug, Default)]
pub(super) struct Asking {
    // Tips of the peer that are not tips of this node, and damaged entries of this node that the
    // peer may have.
    sought: BTreeMap<(Author, FrontierTip), Shared>,
    // The ranges of the Want that was sent, by author. Empty when its answer has ended.
    asked: BTreeMap<Author, Vec<MissingRange>>,
    // Entries that the answer to `asked` may still bring.
    entries_left: u64,
    // The place of the last entry of this answer. `None` before the first entry.
    order: Option<Order>,
    // The entries just before the asked ranges. If this node is missing one of them after the
    // answer, its author has forked below that entry, and the range began too late. At most
    // SYNC_ITEMS_MAX.
    joints: BTreeSet<(Author, FrontierTip)>,
    // The seqs up to which no entry of an author is asked for: at one side at least they were removed, and
    // this side has them or their rows.
    not_before: BTreeMap<Author, Seq>,
    // How often a range of each author began too late.
    steps_back: BTreeMap<Author, u32>,
    /// Wants sent so far.
    pub(super) wants: u32,
    /// Number of tips of `sought` that this node was missing at the last `next`.
    pub(super) lacking: usize,
}

// How much of a tip's branch this side probably has.
#[derive(Debug, Clone, Copy)]
enum Shared {
    Nothing,
    // This node has a tip at this seq, and the sought tip probably follows it.
    Through(Seq),
    // This node has only tips of other branches of the author.
    OtherBranches,
}

impl Asking {
    /// Compares two frontiers. `lost` are entries below `own` that cannot be read.
    pub(super) fn new(
        own: &Frontier,
        theirs: &[(Author, FrontierTip)],
        lost: &[(Author, FrontierTip)],
    ) -> Self {
        let is_new = |(author, tip): &&(Author, FrontierTip)| !own.tips(author).contains(tip);
        let can_have = |lost: &&(Author, FrontierTip)| {
            let reaches = |tip: &(Author, FrontierTip)| tip.0 == lost.0 && tip.1.seq >= lost.1.seq;
            theirs.iter().any(reaches)
        };
        let shared = |(author, tip): &(Author, FrontierTip)| {
            let own = own.tips(author);
            // A tip that the peer also has is on another branch: no tip of one frontier is a
            // successor of another.
            let is_before = |own: &&FrontierTip| {
                own.seq < tip.seq && theirs.binary_search(&(*author, **own)).is_err()
            };
            match own.iter().rev().find(is_before) {
                Some(before) => Shared::Through(before.seq),
                None if own.is_empty() => Shared::Nothing,
                None => Shared::OtherBranches,
            }
        };
        // A node has a tip for each branch that it knows. Names of more branches than any author
        // has cost a look into the log each, so those above a limit are passed over.
        let mut counted: (Option<Author>, usize) = (None, 0);
        let is_looked_up = |(author, _): &&(Author, FrontierTip)| {
            let before = if counted.0 == Some(*author) {
                counted.1
            } else {
                0
            };
            counted = (Some(*author), before.saturating_add(1));
            before < SYNC_AUTHOR_TIPS_MAX
        };
        let new = theirs.iter().filter(is_new).filter(is_looked_up);
        let sought = new.chain(lost.iter().filter(can_have));
        Self {
            sought: sought.map(|tip| (*tip, shared(tip))).collect(),
            ..Self::default()
        }
    }

    /// Notes seqs up to which no entries are asked for, by author: they were removed.
    pub(super) fn not_before(&mut self, begins: impl Iterator<Item = (Author, Seq)>) {
        for (author, seq) in begins {
            let known = self.not_before.entry(author).or_default();
            *known = seq.max(*known);
        }
        let begins = &self.not_before;
        self.sought.retain(|(author, tip), _shared| {
            let begin = begins.get(author);
            begin.is_none_or(|seq| tip.seq > *seq)
        });
    }

    /// Returns the entries that the shell must look up before `next`.
    pub(super) fn find(&self) -> Vec<(Author, FrontierTip)> {
        let tips: BTreeSet<_> = self.sought.keys().chain(&self.joints).copied().collect();
        tips.into_iter().collect()
    }

    /// Returns the ranges to ask for, by author, `through` and tip. `lacking` are the entries of
    /// `find` that this node is missing. Empty when nothing is missing, and when asking again would
    /// not help.
    pub(super) fn next(&mut self, lacking: Vec<(Author, FrontierTip)>) -> Vec<MissingRange> {
        let lacking: BTreeSet<_> = lacking.into_iter().collect();
        let forked = lacking
            .intersection(&self.joints)
            .map(|(author, _)| *author);
        let forked: BTreeSet<_> = forked.collect();
        for author in &forked {
            let steps = self.steps_back.entry(*author).or_default();
            *steps = steps.saturating_add(1);
        }
        self.answered();
        let sought = self.sought.iter().filter(|(tip, _)| lacking.contains(tip));
        let ranges: Vec<_> = sought
            .map(|(tip, shared)| self.range(*tip, *shared))
            .collect();
        self.lacking = ranges.len();
        // A second Want helps only if the first one began at the wrong place.
        let is_of_use = self.wants == 0 || !forked.is_empty();
        if ranges.is_empty() || !is_of_use || self.wants == SYNC_WANTS_MAX {
            return Vec::new();
        }
        self.wants = self.wants.saturating_add(1);
        self.entries_left = entries_of(&ranges);
        for range in &ranges {
            self.asked.entry(range.author).or_default().push(*range);
        }
        ranges
    }

    /// Counts an entry of the answer, readable or not.
    pub(super) fn count(&mut self) -> Result<(), SyncError> {
        let Some(left) = self.entries_left.checked_sub(1) else {
            return Err(SyncError::TooManyEntries {
                entries_max: entries_of(self.asked.values().flatten()),
            });
        };
        self.entries_left = left;
        Ok(())
    }

    /// Checks that an entry was asked for and is in order.
    pub(super) fn check(&mut self, entry: &Entry, store: StoreId) -> Result<(), SyncError> {
        let (author, seq) = (entry.author(), entry.header.seq);
        if entry.header.store != store {
            return Err(SyncError::EntryOfOtherStore {
                theirs: entry.header.store,
                ours: store,
            });
        }
        let ranges = self
            .asked
            .get(&author)
            .map(Vec::as_slice)
            .unwrap_or_default();
        if !ranges
            .iter()
            .any(|range| range.after < seq && seq <= range.through)
        {
            return Err(SyncError::NotAsked { author, seq });
        }
        // The order makes an answer finite, and no entry in it waits for a later entry.
        if self.order.is_some_and(|before| entry.order() <= before) {
            return Err(SyncError::NotInOrder { what: "entries" });
        }
        self.order = Some(entry.order());
        if let (Some(id), Some(before)) = (entry.header.prev, seq.checked_sub(1))
            && ranges.iter().any(|range| range.after == before)
            && self.joints.len() < SYNC_ITEMS_MAX
        {
            self.joints
                .insert((author, FrontierTip { seq: before, id }));
        }
        Ok(())
    }

    fn answered(&mut self) {
        self.asked.clear();
        self.entries_left = 0;
        self.order = None;
        self.joints.clear();
    }

    // From `tip` back to the shared place, or further back if that place turned out to be on
    // another branch. The steps grow: few entries for a young fork, few Wants for an old one.
    fn range(&self, (author, tip): (Author, FrontierTip), shared: Shared) -> MissingRange {
        let steps = self.steps_back.get(&author).copied().unwrap_or(0);
        let after = match shared {
            Shared::Nothing => 0,
            Shared::Through(seq) => seq.saturating_sub(back(steps)),
            Shared::OtherBranches => tip.seq.saturating_sub(back(steps.saturating_add(1))),
        };
        let after = after.max(self.not_before.get(&author).copied().unwrap_or(0));
        MissingRange {
            author,
            after,
            through: tip.seq,
            tip: tip.id,
        }
    }
}

fn back(steps: u32) -> Seq {
    steps.checked_sub(1).map_or(0, |more| {
        SYNC_BACK_ENTRIES.saturating_mul(4_u64.saturating_pow(more))
    })
}

/// Returns how many places `ranges` have.
pub(super) fn entries_of<'a>(ranges: impl IntoIterator<Item = &'a MissingRange>) -> u64 {
    ranges.into_iter().fold(0, |sum: u64, range| {
        sum.saturating_add(range.through.saturating_sub(range.after))
    })
}
