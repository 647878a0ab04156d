//! An anchor: the entry after which a log begins here, because what came before was removed.
//!
//! A log that begins at an anchor no longer has the anchor's own entry, nor any before it. Of these
//! entries their places alone are known: all of them have been applied, and are final.
//!
//! A reader that has delivered everything through the anchor can go on in such a log. A reader that
//! has not must get the state instead. [`Anchor::place_of`] distinguishes the two, and a reader that
//! is ahead of this log.

use crate::{
    id::{EntryId, Seq},
    protocol::{chain::Tip, frontier::FrontierTip, hlc::Hlc},
};

/// The last entry of an author before the place where its log begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Anchor {
    /// Seq of the entry, at least 1.
    pub seq: Seq,
    /// Id of the entry.
    pub id: EntryId,
    /// Stamp of the entry: the greatest one of the entries that the log no longer has.
    pub hlc: Hlc,
}

/// Place of the tip of a position, seen from a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TipPlace {
    /// The log has the entry, or the tip is the anchor: a reader can go on after it.
    Here,
    /// The entry is before the place where the log begins: entries after it are gone.
    Behind,
    /// The entry is not in the log yet.
    Ahead,
}

impl Anchor {
    /// Returns whether the log no longer has the entry at `seq`, whatever the branch.
    pub fn is_final(&self, seq: Seq) -> bool {
        seq <= self.seq
    }

    /// Returns the place of `tip`, of the same author, in a log that begins at this anchor. `is_here`:
    /// whether the log has the entry.
    pub fn place_of(&self, tip: FrontierTip, is_here: bool) -> TipPlace {
        if tip == self.tip() || (is_here && !self.is_final(tip.seq)) {
            TipPlace::Here
        } else if self.is_final(tip.seq) {
            // Another entry at the anchor's seq is one of a fork that is not here and never comes.
            TipPlace::Behind
        } else {
            TipPlace::Ahead
        }
    }

    /// Returns whether one of `tips` leads back to the anchor: all of them are of its author, and
    /// every branch of that author leaves the others at the anchor or later.
    pub fn is_covered_by(&self, tips: &[FrontierTip]) -> bool {
        let covers = |tip: &FrontierTip| *tip == self.tip() || !self.is_final(tip.seq);
        tips.iter().any(covers)
    }

    /// Returns seq and id.
    pub fn tip(&self) -> FrontierTip {
        FrontierTip {
            seq: self.seq,
            id: self.id,
        }
    }
}

impl From<Anchor> for Tip {
    fn from(Anchor { seq, id, hlc }: Anchor) -> Self {
        Self { seq, id, hlc }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tip(seq: Seq, id: u8) -> FrontierTip {
        FrontierTip {
            seq,
            id: EntryId([id; 32]),
        }
    }

    fn anchor() -> Anchor {
        Anchor {
            seq: 5,
            id: EntryId([5; 32]),
            hlc: Hlc::ZERO,
        }
    }

    #[test]
    fn tip_is_here_behind_or_ahead() {
        for (tip, is_here, place) in [
            (tip(1, 1), false, TipPlace::Behind),
            (tip(4, 4), false, TipPlace::Behind),
            // The log's answer does not matter: it lacks entries after the tip.
            (tip(4, 4), true, TipPlace::Behind),
            (tip(5, 5), false, TipPlace::Here),
            (tip(5, 5), true, TipPlace::Here),
            (tip(5, 9), false, TipPlace::Behind),
            (tip(6, 6), true, TipPlace::Here),
            (tip(6, 6), false, TipPlace::Ahead),
            (tip(u64::MAX, 6), false, TipPlace::Ahead),
        ] {
            assert_eq!(anchor().place_of(tip, is_here), place, "{tip:?} {is_here}");
        }
    }

    #[test]
    fn anchor_is_covered_by_itself_and_by_what_comes_after() {
        for (tips, covered) in [
            (&[][..], false),
            (&[tip(4, 4)], false),
            (&[tip(5, 9)], false),
            (&[tip(5, 5)], true),
            (&[tip(9, 9)], true),
            (&[tip(4, 4), tip(9, 9)], true),
        ] {
            assert_eq!(anchor().is_covered_by(tips), covered, "{tips:?}");
        }
        assert!(anchor().is_final(5) && !anchor().is_final(6));
    }
}
