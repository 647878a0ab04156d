//! The offer of one side of a session: the entries that the peer may ask for, and how often.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    id::{Author, EntryId, Seq},
    limits::{SYNC_ASKED_TIMES_MAX, SYNC_INNER_RANGES_MAX, SYNC_ITEMS_MAX},
    protocol::{
        frontier::{Frontier, FrontierHash, FrontierTip, MissingRange},
        membership::spent::SpentKeys,
        sync::{SyncError, asking::entries_of},
    },
};

/// The entries of a node, as they are when a session begins.
#[derive(Debug, Clone, Default)]
pub struct OwnEntries {
    /// Frontier of the entries that count, durable or not: the node can send these entries.
    pub counting: Frontier,
    /// The spent keys. The peer gets the entries that show their forks, and counts them itself. Nothing else
    /// of these authors is sent, and nothing is asked for.
    pub spent: SpentKeys,
}

impl From<Frontier> for OwnEntries {
    fn from(counting: Frontier) -> Self {
        Self {
            counting,
            spent: SpentKeys::default(),
        }
    }
}

/// The entries that the peer may ask for.
#[derive(Debug)]
pub(super) struct Offer {
    // This node's frontier when the session began.
    own: Frontier,
    // Its proof has tips as far as there is room for them.
    spent: SpentKeys,
    // The entries at which logs of this node begin: it has neither them nor any before.
    begins: BTreeMap<Author, FrontierTip>,
    // Entries that the peer may still ask for.
    entries_left: u64,
    // Ranges that do not end in a tip that the peer may still ask for: each costs a read.
    inner_left: usize,
}

impl Offer {
    /// Offers the entries that `own` covers, and shows which keys are spent, as far as there is room for
    /// the tips.
    ///
    /// # Errors
    /// `TooManyOwnTips`.
    pub(super) fn new(own: OwnEntries) -> Result<Self, SyncError> {
        let OwnEntries {
            counting: own,
            mut spent,
        } = own;
        let tips = own.len();
        if tips > SYNC_ITEMS_MAX {
            return Err(SyncError::TooManyOwnTips {
                tips,
                tips_max: SYNC_ITEMS_MAX,
            });
        }
        let room = SYNC_ITEMS_MAX.saturating_sub(tips);
        spent.proof = spent.proof.iter().take(room).collect();
        let mut offer = Self {
            own,
            spent,
            begins: BTreeMap::new(),
            entries_left: 0,
            inner_left: SYNC_INNER_RANGES_MAX,
        };
        offer.entries_left = offer.entries_max();
        Ok(offer)
    }

    /// Notes where logs begin. Beginnings above the number that a session has room for are left out: peers
    /// that lack those find so by the next session.
    pub(super) fn begin_at(&mut self, anchors: &Frontier) {
        self.begins = anchors.iter().take(SYNC_ITEMS_MAX).collect();
    }

    /// Returns the entries at which logs begin, in order.
    pub(super) fn anchors(&self) -> Vec<(Author, FrontierTip)> {
        let begins = self.begins.iter();
        begins.map(|(author, anchor)| (*author, *anchor)).collect()
    }

    /// Returns the seqs of these entries.
    pub(super) fn begins(&self) -> impl Iterator<Item = (Author, Seq)> + '_ {
        let begins = self.begins.iter();
        begins.map(|(author, anchor)| (*author, anchor.seq))
    }

    /// Returns the seq of the entry at which the log of `author` begins; 0 when it is whole.
    pub(super) fn begin_of(&self, author: &Author) -> Seq {
        self.begins.get(author).map_or(0, |anchor| anchor.seq)
    }

    /// Checks that a peer with the tips `theirs` lacks no entry that was removed here.
    ///
    /// # Errors
    /// `PeerTooOld`.
    pub(super) fn check_lacks_nothing(
        &self,
        theirs: &[(Author, FrontierTip)],
    ) -> Result<(), SyncError> {
        let lacks = |(author, anchor): &(&Author, &FrontierTip)| {
            let covers = |(by, tip): &(Author, FrontierTip)| {
                by == *author && (tip == *anchor || tip.seq > anchor.seq)
            };
            !self.is_spent(author) && !theirs.iter().any(covers)
        };
        let lacking = self.begins.iter().find(lacks);
        lacking.map_or(Ok(()), |(author, anchor)| {
            Err(SyncError::PeerTooOld {
                author: *author,
                seq: anchor.seq,
            })
        })
    }

    /// Returns a hash of the entries that count and of the keys that are spent by what is here.
    ///
    /// Nodes may have different forks of a spent key. A node that has none of them has the same frontier, and
    /// must get them all the same.
    pub(super) fn hash(&self) -> FrontierHash {
        if self.spent.proof.is_empty() {
            return self.own.hash();
        }
        let mut marked = self.own.clone();
        for (author, _tips) in self.spent.proof.by_author() {
            marked.insert(author, SPENT);
        }
        marked.hash()
    }

    /// Returns the frontier of the entries that count.
    pub(super) fn own(&self) -> &Frontier {
        &self.own
    }

    /// Returns whether the key of `author` is spent.
    pub(super) fn is_spent(&self, author: &Author) -> bool {
        self.spent.authors.contains(author)
    }

    /// Returns all tips, in order.
    pub(super) fn tips(&self) -> Vec<(Author, FrontierTip)> {
        let tips: BTreeSet<_> = self.own.iter().chain(self.spent.proof.iter()).collect();
        tips.into_iter().collect()
    }

    /// Checks that a range can be asked for.
    ///
    /// # Errors
    /// `EmptyRange`, `RangeTooFar`.
    pub(super) fn check(&self, range: &MissingRange) -> Result<(), SyncError> {
        let MissingRange {
            author,
            after,
            through,
            tip: _,
        } = *range;
        if after >= through {
            return Err(SyncError::EmptyRange {
                author,
                after,
                through,
            });
        }
        let seq = self.own.seq(&author).max(self.spent.proof.seq(&author));
        if through > seq {
            return Err(SyncError::RangeTooFar {
                author,
                through,
                seq,
            });
        }
        Ok(())
    }

    /// Counts what the peer asks for over all its Wants, and takes out of `ranges` what is too much. A
    /// fork takes a few Wants for ranges that grow; the same ranges again and again are a way to keep
    /// this node busy. Ranges that end below a tip are for holes in the peer's log: those above the
    /// limit are left to its next session.
    ///
    /// # Errors
    /// `AskedAgain`.
    pub(super) fn ration(&mut self, ranges: &mut Vec<MissingRange>) -> Result<(), SyncError> {
        let Some(left) = self.entries_left.checked_sub(entries_of(ranges.iter())) else {
            return Err(SyncError::AskedAgain {
                entries_max: self.entries_max(),
            });
        };
        self.entries_left = left;
        let Self {
            own,
            spent,
            inner_left,
            ..
        } = self;
        ranges.retain(|range| {
            let end = FrontierTip {
                seq: range.through,
                id: range.tip,
            };
            let has_tip = |tips: &Frontier| tips.tips(&range.author).contains(&end);
            if has_tip(own) || has_tip(&spent.proof) {
                return true;
            }
            let left = inner_left.checked_sub(1);
            *inner_left = left.unwrap_or(0);
            left.is_some()
        });
        Ok(())
    }

    // The entries that a peer may ask for in one session, counted again each time it asks for them.
    fn entries_max(&self) -> u64 {
        let tips = self.own.iter().chain(self.spent.proof.iter());
        let entries = tips.fold(0, |sum: u64, (_, tip)| sum.saturating_add(tip.seq));
        let free = u64::try_from(SYNC_ITEMS_MAX).unwrap_or(u64::MAX);
        entries
            .saturating_mul(SYNC_ASKED_TIMES_MAX)
            .saturating_add(free)
    }
}

// Stands in a hash for the fact that a key is spent. No entry has this place.
const SPENT: FrontierTip = FrontierTip {
    seq: Seq::MAX,
    id: EntryId([0xff; 32]),
};
