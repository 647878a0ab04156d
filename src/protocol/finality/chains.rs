//! Chains: the questions that finality asks of the logs of one store.

use crate::{
    id::{Author, Seq},
    protocol::{chain::Tip, frontier::FrontierTip},
};

/// The logs of one store, as finality sees them.
pub trait Chains {
    /// Why a question has no answer at all: the disk fails.
    type Error;

    /// Returns whether the entry at `place` is here and verifies by itself, or is the anchor at which
    /// a log begins. An unreadable entry is here if it was.
    ///
    /// # Errors
    /// The disk fails.
    fn has(&self, author: &Author, place: FrontierTip) -> Result<bool, Self::Error>;

    /// Returns whether the entry at `place` is here as for [`has`](Self::has), and everything that it
    /// leads back to is here or was removed from the log. This is not so where a log has lost its end
    /// and a branch left an entry in it, until that entry is back.
    ///
    /// # Errors
    /// The disk fails.
    fn is_joined(&self, author: &Author, place: FrontierTip) -> Result<bool, Self::Error>;

    /// Returns whether `entry` is on the branch that ends in `tip`, or is that tip; `None` while `tip`,
    /// or the answer, is not here or cannot be read.
    ///
    /// Below the anchor where a log begins, places
    /// decide: what an entry after the anchor leads back to includes all of them.
    ///
    /// # Errors
    /// The disk fails.
    fn leads(
        &self,
        author: &Author,
        entry: FrontierTip,
        tip: FrontierTip,
    ) -> Result<Option<bool>, Self::Error>;

    /// Returns whether a removal that names `tip` keeps `entry`: as `leads`, but for tips that do not
    /// verify by themselves (`LogReader::keeps`).
    ///
    /// # Errors
    /// The disk fails.
    fn keeps(
        &self,
        author: &Author,
        entry: FrontierTip,
        tip: FrontierTip,
    ) -> Result<Option<bool>, Self::Error> {
        self.leads(author, entry, tip)
    }

    /// Returns the last entry that the branches ending in `one` and in `other` have in common, which
    /// may be either; `None` when there is none, or one of the two is not here.
    ///
    /// # Errors
    /// The disk fails.
    fn meet(
        &self,
        author: &Author,
        one: FrontierTip,
        other: FrontierTip,
    ) -> Result<Option<FrontierTip>, Self::Error>;

    /// Returns the last entry at or before `seq` that verifies by itself, on the branch that ends in
    /// `tip`; `None` when none is here.
    ///
    /// # Errors
    /// The disk fails.
    fn at(&self, author: &Author, tip: FrontierTip, seq: Seq) -> Result<Option<Tip>, Self::Error>;
}
