//! Frontier: the tips of all branches of all authors; it stands for a set of entries.
//!
//! The set is every tip and every entry that a tip leads back to by `prev`. An author has one tip,
//! or several after a fork. Tips are kept sorted by author, then seq, then id, so equal sets of
//! tips compare, iterate and hash alike.
//!
//! [`Frontier::missing_from`] compares two frontiers by places and ids alone, without a log. An
//! author who has at most one tip on either side is taken not to have forked: the entries after the
//! lower seq are missing on the side with that seq. If ids show a fork (several tips on a side, or
//! two different ids at one seq), the range begins at the first entry, because tips do not show
//! which entries both sides have.

use std::{collections::BTreeMap, fmt};

use crate::{
    id::{Author, EntryId, Seq},
    protocol::{chain::Tip, entry::Entry},
};

/// A set of entries, named by its tips: the tips and all entries that they lead back to.
#[derive(Debug, Clone, PartialEq, Eq, Default, Hash)]
pub struct Frontier(BTreeMap<Author, Vec<FrontierTip>>);

/// The newest entry of a branch in a frontier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FrontierTip {
    /// Place in the author's log, from 1.
    pub seq: Seq,
    /// Id of the entry.
    pub id: EntryId,
}

impl FrontierTip {
    /// Returns the seq and id of `entry`.
    pub fn of(entry: &Entry) -> Self {
        Self {
            seq: entry.header.seq,
            id: entry.id,
        }
    }
}

impl From<Tip> for FrontierTip {
    fn from(Tip { seq, id, .. }: Tip) -> Self {
        Self { seq, id }
    }
}

/// BLAKE3 hash of a frontier: equal if, and only if, the sets of tips are equal.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct FrontierHash(pub [u8; 32]);

impl fmt::Debug for FrontierHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, ..] = self.0;
        write!(f, "FrontierHash({a:02x}{b:02x}{c:02x}{d:02x})")
    }
}

/// Entries of one author that one frontier has and another is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct MissingRange {
    /// Author of the entries.
    pub author: Author,
    /// Seq before the first missing entry, exclusive; 0 if the range begins at the first entry.
    pub after: Seq,
    /// Seq of the last missing entry, inclusive.
    pub through: Seq,
    /// Id of the entry at `through`; it names the branch.
    pub tip: EntryId,
}

impl Frontier {
    /// Adds `tip` beside the other tips of `author`. Does nothing if `author` has this tip already.
    pub fn insert(&mut self, author: Author, tip: FrontierTip) {
        let tips = self.0.entry(author).or_default();
        if let Err(place) = tips.binary_search(&tip) {
            tips.insert(place, tip);
        }
    }

    /// Moves a branch forward: replaces the tip `prev` by `tip`.
    ///
    /// `prev` is the entry before `tip`. If it is `None` or not a tip (the first entry, or a fork),
    /// `tip` is added.
    pub fn advance(&mut self, author: Author, prev: Option<EntryId>, tip: FrontierTip) {
        if let (Some(id), Some(tips)) = (prev, self.0.get_mut(&author)) {
            let seq = tip.seq.saturating_sub(1);
            if let Ok(place) = tips.binary_search(&FrontierTip { seq, id }) {
                tips.remove(place);
            }
        }
        self.insert(author, tip);
    }

    /// Makes `tip` the only tip of `author`, in place of all earlier tips.
    pub fn replace(&mut self, author: Author, tip: FrontierTip) {
        self.0.insert(author, vec![tip]);
    }

    /// Makes `tips` the tips of `author`, whatever tips were there. They need not be in order.
    pub fn set_tips(&mut self, author: Author, mut tips: Vec<FrontierTip>) {
        tips.sort_unstable();
        tips.dedup();
        if tips.is_empty() {
            self.0.remove(&author);
        } else {
            self.0.insert(author, tips);
        }
    }

    /// Returns the tips of each author, by author.
    pub fn by_author(&self) -> impl Iterator<Item = (Author, &[FrontierTip])> {
        self.0
            .iter()
            .map(|(author, tips)| (*author, tips.as_slice()))
    }

    /// Returns all tips, sorted by author, then seq, then id.
    pub fn iter(&self) -> impl Iterator<Item = (Author, FrontierTip)> + '_ {
        self.0
            .iter()
            .flat_map(|(author, tips)| tips.iter().map(|tip| (*author, *tip)))
    }

    /// Returns the tips of `author`, sorted by seq, then id; more than one only after a fork.
    pub fn tips(&self, author: &Author) -> &[FrontierTip] {
        self.0.get(author).map(Vec::as_slice).unwrap_or_default()
    }

    /// Returns the highest seq of `author`; 0 if the frontier has no entry of it.
    pub fn seq(&self, author: &Author) -> Seq {
        self.tips(author).last().map_or(0, |tip| tip.seq)
    }

    /// Returns the number of tips of all authors.
    pub fn len(&self) -> usize {
        self.0.values().map(Vec::len).sum()
    }

    /// Returns the BLAKE3 hash of all tips in order.
    ///
    /// Each tip is 72 bytes (author, seq in big endian, id), so two frontiers never hash the same
    /// bytes. The hash has a derive-key context of its own.
    pub fn hash(&self) -> FrontierHash {
        let mut hasher = blake3::Hasher::new_derive_key("lattice 2026 frontier v1");
        for (author, tip) in self.iter() {
            hasher
                .update(&author.0)
                .update(&tip.seq.to_be_bytes())
                .update(&tip.id.0);
        }
        FrontierHash(*hasher.finalize().as_bytes())
    }

    /// Returns the number of authors.
    pub fn authors(&self) -> usize {
        self.0.len()
    }

    /// Returns whether the frontier has no tip.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the ranges that `self` has and `other` is missing, by author, then seq, then id.
    ///
    /// Exact for authors who never forked. For a forked author each tip of `self` that `other` does
    /// not have gives a range from the first entry; it may contain entries that `other` has.
    pub fn missing_from(&self, other: &Self) -> Vec<MissingRange> {
        let missing = |author: Author, tip: FrontierTip| {
            let theirs = other.tips(&author);
            if theirs.binary_search(&tip).is_ok() {
                return None;
            }
            let forked = theirs.len() > 1 || self.tips(&author).len() > 1;
            let highest = theirs.last().map_or(0, |tip| tip.seq);
            // The only tip of `other` is at a greater seq: either `other` has `tip`, or the author
            // forked. Only a log shows which of the two is the case.
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
            .filter_map(|(author, tip)| missing(author, tip))
            .collect()
    }

    /// Returns the number of entries that `self` has and `other` is missing.
    ///
    /// As exact as `missing_from`: for a forked author the number may include entries that `other`
    /// has, and an entry may count once for each branch.
    pub fn entries_beyond(&self, other: &Self) -> u64 {
        let missing = self.missing_from(other).into_iter();
        missing
            .map(|range| range.through.saturating_sub(range.after))
            .fold(0, u64::saturating_add)
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::{collection::btree_map, prelude::*};

    use super::*;

    const AUTHOR_A: Author = Author([0xa; 32]);
    const AUTHOR_B: Author = Author([0xb; 32]);

    fn tip(seq: Seq, id: u8) -> FrontierTip {
        FrontierTip {
            seq,
            id: EntryId([id; 32]),
        }
    }

    fn frontier(tips: &[(Author, FrontierTip)]) -> Frontier {
        tips.iter().copied().collect()
    }

    fn range(author: Author, after: Seq, through: Seq, id: u8) -> MissingRange {
        MissingRange {
            author,
            after,
            through,
            tip: EntryId([id; 32]),
        }
    }

    #[test]
    fn tip_replaces_its_prev_and_fork_adds_one() {
        let mut frontier = Frontier::default();
        assert!(frontier.is_empty());
        frontier.advance(AUTHOR_A, None, tip(1, 1));
        frontier.advance(AUTHOR_A, Some(EntryId([1; 32])), tip(2, 2));
        assert_eq!(frontier.tips(&AUTHOR_A), [tip(2, 2)]);
        frontier.advance(AUTHOR_A, Some(EntryId([1; 32])), tip(2, 3));
        assert_eq!(frontier.tips(&AUTHOR_A), [tip(2, 2), tip(2, 3)]);
        frontier.advance(AUTHOR_A, Some(EntryId([2; 32])), tip(3, 4));
        assert_eq!(frontier.tips(&AUTHOR_A), [tip(2, 3), tip(3, 4)]);
        assert_eq!((frontier.seq(&AUTHOR_A), frontier.seq(&AUTHOR_B)), (3, 0));
        assert_eq!((frontier.authors(), frontier.iter().count()), (1, 2));
    }

    #[test]
    fn hash_depends_on_every_part_of_every_tip() {
        let tips = [
            (AUTHOR_A, tip(5, 1)),
            (AUTHOR_A, tip(5, 2)),
            (AUTHOR_B, tip(2, 3)),
        ];
        let hash = frontier(&tips).hash();
        let backwards: Frontier = tips.iter().rev().copied().collect();
        assert_eq!((backwards.hash(), backwards.len()), (hash, 3));
        let others = [
            frontier(&tips[1..]),
            frontier(&[tips[0], tips[1], (AUTHOR_A, tip(2, 3))]),
            frontier(&[tips[0], tips[1], (AUTHOR_B, tip(3, 3))]),
            frontier(&[tips[0], tips[1], (AUTHOR_B, tip(2, 4))]),
            Frontier::default(),
        ];
        assert!(others.iter().all(|other| other.hash() != hash));
    }

    #[test]
    fn ranges_without_forks_are_exact() {
        let one = frontier(&[(AUTHOR_A, tip(5, 1)), (AUTHOR_B, tip(2, 2))]);
        let other = frontier(&[(AUTHOR_A, tip(3, 3))]);
        let missing = [range(AUTHOR_A, 3, 5, 1), range(AUTHOR_B, 0, 2, 2)];
        assert_eq!(one.missing_from(&other), missing);
        assert_eq!(other.missing_from(&one), []);
        assert_eq!(one.missing_from(&one), []);
        assert_eq!(Frontier::default().missing_from(&one), []);
    }

    #[test]
    fn b1_fork_is_sent_from_the_first_entry() {
        // Two tips with one seq: each side is missing the tip of the other.
        let (one, other) = (
            frontier(&[(AUTHOR_A, tip(5, 1))]),
            frontier(&[(AUTHOR_A, tip(5, 2))]),
        );
        assert_eq!(one.missing_from(&other), [range(AUTHOR_A, 0, 5, 1)]);
        assert_eq!(other.missing_from(&one), [range(AUTHOR_A, 0, 5, 2)]);
        // Both branches are on one side, one of them on the other.
        let both = frontier(&[(AUTHOR_A, tip(5, 1)), (AUTHOR_A, tip(5, 2))]);
        assert_eq!(both.missing_from(&one), [range(AUTHOR_A, 0, 5, 2)]);
        assert_eq!(one.missing_from(&both), []);
        // A longer branch on the other side does not hide a shorter one.
        let long = frontier(&[(AUTHOR_A, tip(9, 3)), (AUTHOR_A, tip(5, 1))]);
        assert_eq!(
            frontier(&[(AUTHOR_A, tip(5, 2))]).missing_from(&long).len(),
            1
        );
    }

    proptest! {
        #[test]
        fn ranges_are_the_difference_of_the_sets(
            one in btree_map(0..6_u8, 1..20_u64, 0..6),
            other in btree_map(0..6_u8, 1..20_u64, 0..6),
        ) {
            // No author forks here, so author and seq determine the id.
            type Tips = BTreeMap<u8, Seq>;
            let id = |author: u8, seq: Seq| {
                EntryId([u8::try_from(u64::from(author) * 20 + seq).unwrap(); 32])
            };
            let frontier = |tips: &Tips| tips
                .iter()
                .map(|(author, seq)| {
                    (Author([*author; 32]), FrontierTip { seq: *seq, id: id(*author, *seq) })
                })
                .collect::<Frontier>();
            let set = |tips: &Tips| tips
                .iter()
                .flat_map(|(author, seq)| (1..=*seq).map(|seq| (Author([*author; 32]), seq)))
                .collect::<BTreeSet<_>>();
            let ranges = frontier(&one).missing_from(&frontier(&other));
            let mut sent = BTreeSet::new();
            for range in ranges {
                prop_assert_eq!(range.tip, id(range.author.0[0], range.through));
                for seq in range.after + 1..=range.through {
                    prop_assert!(sent.insert((range.author, seq)), "sent twice");
                }
            }
            let missing: BTreeSet<_> = set(&one).difference(&set(&other)).copied().collect();
            prop_assert_eq!(sent, missing);
        }
    }
}
