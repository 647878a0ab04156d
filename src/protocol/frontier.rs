//! A frontier: the tips of all branches of all authors, which names a set of entries.

use std::collections::BTreeMap;

use crate::id::{Author, EntryId, Seq};

/// A set of entries, named by its tips: everything that a tip leads back to.
#[derive(Debug, Clone, PartialEq, Eq, Default, Hash)]
pub struct Frontier(BTreeMap<Author, Vec<FrontierTip>>);

/// The newest entry of a branch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FrontierTip {
    /// Its place in its author's log.
    pub seq: Seq,
    /// Its id.
    pub id: EntryId,
}

/// Entries of one author that one frontier has and another lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MissingRange {
    /// Whose.
    pub author: Author,
    /// Exclusive: the last place that both have. 0 when nothing is shared.
    pub after: Seq,
    /// Inclusive.
    pub through: Seq,
    /// The entry at `through`.
    pub tip: EntryId,
}

impl Frontier {
    /// Adds one tip.
    pub fn insert(&mut self, author: Author, tip: FrontierTip) {
        let tips = self.0.entry(author).or_default();
        if let Err(place) = tips.binary_search(&tip) {
            tips.insert(place, tip);
        }
    }

    /// Moves a branch forward: `tip` takes the place of its predecessor `prev`.
    ///
    /// Where `prev` is not a tip (the first entry, or a fork), the tip is added.
    pub fn advance(&mut self, author: Author, prev: Option<EntryId>, tip: FrontierTip) {
        if let (Some(prev), Some(tips)) = (prev, self.0.get_mut(&author)) {
            tips.retain(|known| known.id != prev);
        }
        self.insert(author, tip);
    }

    /// Returns all tips, by author, then seq, then id.
    pub fn iter(&self) -> impl Iterator<Item = (Author, FrontierTip)> + '_ {
        self.0
            .iter()
            .flat_map(|(author, tips)| tips.iter().map(|tip| (*author, *tip)))
    }

    /// Returns the tips of `author`: more than one only after a fork.
    pub fn tips(&self, author: &Author) -> &[FrontierTip] {
        self.0.get(author).map(Vec::as_slice).unwrap_or_default()
    }

    /// Returns the highest seq of `author`; 0 when it has none.
    pub fn seq(&self, author: &Author) -> Seq {
        self.tips(author).last().map_or(0, |tip| tip.seq)
    }

    /// Returns the number of authors.
    pub fn authors(&self) -> usize {
        self.0.len()
    }

    /// True when it names no entry.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the ranges that `self` has and `other` lacks, by author.
    ///
    /// Exact for authors who never forked. For a forked one a range begins after the highest
    /// place that can be shared, or at the start when nothing shows that any is.
    pub fn missing_from(&self, other: &Self) -> Vec<MissingRange> {
        let lacks = |author: Author, tip: FrontierTip| {
            let theirs = other.tips(&author);
            if theirs.contains(&tip) {
                return None;
            }
            let forked = theirs.len() > 1 || self.tips(&author).len() > 1;
            let highest = theirs.last().map_or(0, |tip| tip.seq);
            // They are past us on their only branch: either they have it, or one of us forked;
            // ids tell which, and only the log can compare them.
            if !forked && highest > tip.seq {
                return None;
            }
            let after = if forked || highest >= tip.seq {
                0
            } else {
                highest
            };
            Some(MissingRange {
                author,
                after,
                through: tip.seq,
                tip: tip.id,
            })
        };
        self.iter()
            .filter_map(|(author, tip)| lacks(author, tip))
            .collect()
    }
}

impl FromIterator<(Author, FrontierTip)> for Frontier {
    fn from_iter<T: IntoIterator<Item = (Author, FrontierTip)>>(tips: T) -> Self {
        let mut frontier = Self::default();
        for (author, tip) in tips {
            frontier.insert(author, tip);
        }
        frontier
    }
}
