//! What one side of a session wants, and from where on it asks for it.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    id::{Author, Seq, StoreId},
    limits::{SYNC_BACK_ENTRIES, SYNC_ITEMS_MAX, SYNC_WANTS_MAX},
    protocol::{
        entry::{Entry, Order},
        frontier::{Frontier, FrontierTip, MissingRange},
        sync::SyncError,
    },
};

/// The wants of one side. Empty until both frontiers are known.
#[derive(Debug, Default)]
pub(super) struct Asking {
    // What of the peer's tips is not a tip here, and what was lost here and the peer can have.
    sought: BTreeMap<(Author, FrontierTip), Shared>,
    // The ranges of the Want that is out, by author. Empty when none is.
    asked: BTreeMap<Author, Vec<MissingRange>>,
    // What `asked` may still bring.
    entries_left: u64,
    // Of the last entry of this answer.
    order: Option<Order>,
    // What stands before the first entries of this answer. Where it is not here, the author has
    // forked, and was asked for from too late a place.
    joints: BTreeSet<(Author, FrontierTip)>,
    // How often that was so.
    steps_back: BTreeMap<Author, u32>,
    /// Wants up to now.
    pub(super) wants: u32,
    /// What of `sought` was not here when it was last looked for.
    pub(super) lacking: usize,
}

// What this side has of a tip's author.
#[derive(Debug, Clone, Copy)]
enum Shared {
    Nothing,
    // A tip at this place, which the sought one is probably a successor of.
    Through(Seq),
    // Only tips that it is no successor of.
    OtherBranches,
}

impl Asking {
    /// Compares two frontiers. `lost` are entries that `own` names and that cannot be read.
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
            // Of their own tips none is a successor of another.
            let is_before = |own: &&FrontierTip| {
                own.seq < tip.seq && theirs.binary_search(&(*author, **own)).is_err()
            };
            match own.iter().rev().find(is_before) {
                Some(before) => Shared::Through(before.seq),
                None if own.is_empty() => Shared::Nothing,
                None => Shared::OtherBranches,
            }
        };
        let new = theirs.iter().filter(is_new);
        let sought = new.chain(lost.iter().filter(can_have));
        Self {
            sought: sought.map(|tip| (*tip, shared(tip))).collect(),
            ..Self::default()
        }
    }

    /// Returns what must be looked for before `next`.
    pub(super) fn find(&self) -> Vec<(Author, FrontierTip)> {
        let tips: BTreeSet<_> = self.sought.keys().chain(&self.joints).copied().collect();
        tips.into_iter().collect()
    }

    /// Returns what to ask for, by author, `through` and tip, given what of `find` is not here.
    /// Nothing when that is all, or when asking again is of no use.
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
        // What did not come the first time comes when the place was wrong, not otherwise.
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

    /// Checks that an entry was asked for and has its turn.
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
        // So that an answer ends, and nothing in it waits for something behind it.
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

    // From `tip` back to what is shared, or further where that has turned out to be on another
    // branch: few entries for a young fork, few Wants for an old one.
    fn range(&self, (author, tip): (Author, FrontierTip), shared: Shared) -> MissingRange {
        let steps = self.steps_back.get(&author).copied().unwrap_or(0);
        let after = match shared {
            Shared::Nothing => 0,
            Shared::Through(seq) => seq.saturating_sub(back(steps)),
            Shared::OtherBranches => tip.seq.saturating_sub(back(steps.saturating_add(1))),
        };
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

fn entries_of<'a>(ranges: impl IntoIterator<Item = &'a MissingRange>) -> u64 {
    ranges.into_iter().fold(0, |sum: u64, range| {
        sum.saturating_add(range.through.saturating_sub(range.after))
    })
}
