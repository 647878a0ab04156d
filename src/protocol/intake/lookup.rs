//! A lookup: the questions that intake asks of log, state and membership.

use crate::{
    id::{Author, Seq},
    protocol::{
        chain::Tip,
        entry::{Entry, Parent},
        finality::Arrival,
        frontier::FrontierTip,
        heads::Heads,
        membership::Standing,
    },
};

/// Answer to the question which entry a branch has at a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// This entry.
    Entry(Tip),
    /// Nothing.
    Free,
    /// An entry that cannot be read. It is not free: the entry comes back from a peer.
    Unreadable,
}

/// The log, the state and the members, as intake sees them.
///
/// Answers hold for entries that are durable; of those staged in the current group only `tips` and
/// `heads` know. An unreadable record is never "no": see each method.
pub trait Lookup {
    /// Why a question has no answer at all: the disk fails, or the state must be built again.
    type Error;

    /// Returns the tip of each branch of `author` by number, staged entries included.
    fn tips(&self, author: &Author) -> Vec<Tip>;

    /// Returns what a branch has at `seq`, ancestors on other branches left out. `branch` is an index
    /// into `tips`.
    ///
    /// # Errors
    /// The disk fails.
    fn at(&self, author: &Author, branch: usize, seq: Seq) -> Result<Place, Self::Error>;

    /// Returns the seq of the entry at which the log of `author` begins here, if entries were removed
    /// from it: they and this entry are final. `at` and `has` know the entry itself.
    fn anchor(&self, author: &Author) -> Option<Seq> {
        let _whole = author;
        None
    }

    /// Returns for each place whether the log has that entry of `author`, and it can be read. Many
    /// places at once cost less than one after the other.
    ///
    /// # Errors
    /// The disk fails.
    fn has(&self, author: &Author, places: &[FrontierTip]) -> Result<Vec<bool>, Self::Error> {
        let branches = self.tips(author).len();
        let mut has = vec![false; places.len()];
        for (has, place) in has.iter_mut().zip(places) {
            for branch in 0..branches {
                let found = self.at(author, branch, place.seq)?;
                *has |= matches!(found, Place::Entry(tip) if tip.id == place.id);
            }
        }
        Ok(has)
    }

    /// Returns whether the place is in a known hole: entries that are in the log and unreadable.
    ///
    /// # Errors
    /// The disk fails.
    fn is_hole(&self, author: &Author, seq: Seq) -> Result<bool, Self::Error>;

    /// Returns the heads of the entry's keys, one for each op.
    ///
    /// # Errors
    /// The state is unreadable.
    fn heads(&self, entry: &Entry) -> Result<Vec<Heads>, Self::Error>;

    /// Returns what becomes of entries of `author` in this store, as it was when the group began.
    fn standing(&self, author: &Author) -> Standing;

    /// Returns what becomes of an entry that comes from elsewhere, by the anchors; `prev` is the entry
    /// before it ([`Finality::arrival`](crate::protocol::finality::Finality::arrival)).
    ///
    /// # Errors
    /// The disk fails.
    fn arrival(
        &self,
        author: &Author,
        entry: FrontierTip,
        prev: Option<FrontierTip>,
    ) -> Result<Arrival, Self::Error> {
        let _without_anchors = (author, entry, prev);
        Ok(Arrival::Usual)
    }

    /// Returns whether a reference is to an entry at or below the greatest anchor of its author: it
    /// counts as present.
    fn is_present(&self, parent: &Parent) -> bool {
        let _without_anchors = parent;
        false
    }

    /// Returns whether the entry of `author` at `seq` is taken in whatever the standing of its author is:
    /// an anchor that has not come may make it final
    /// ([`Finality::may_be_final`](crate::protocol::finality::Finality::may_be_final)).
    fn may_be_final(&self, author: &Author, seq: Seq) -> bool {
        let _without_anchors = (author, seq);
        false
    }

    /// Returns whether another branch of `author` may begin at `seq`, beside those that end in `tips`; see
    /// [`spent`](crate::protocol::membership::spent).
    fn takes_branch(&self, author: &Author, seq: Seq, tips: &[Tip]) -> bool;

    /// Returns whether a removal of `author` that names `tip` keeps `entry`: as `leads`, also for the
    /// tip itself, but for entries that do not verify by themselves (`LogReader::keeps`).
    ///
    /// # Errors
    /// The disk fails.
    fn keeps(
        &self,
        author: &Author,
        entry: FrontierTip,
        tip: FrontierTip,
    ) -> Result<Option<bool>, Self::Error> {
        if entry == tip {
            return Ok(Some(true));
        }
        self.leads(author, entry, tip)
    }

    /// Returns whether `author` was removed, has left, or was lowered to reader.
    fn is_cut_off(&self, author: &Author) -> bool;

    /// Returns whether `entry` is on the branch of `author` that ends in `tip`; `None` when that tip
    /// has not come, or cannot be read until it comes back.
    ///
    /// # Errors
    /// The disk fails.
    fn leads(
        &self,
        author: &Author,
        entry: FrontierTip,
        tip: FrontierTip,
    ) -> Result<Option<bool>, Self::Error>;
}
