//! Collection of tombstones: which heads an anchors act takes from the state.
//!
//! A tombstone may go once every entry that was written without knowing it is at or below the anchors
//! of an act. An admin shows this by two acts: all writers have acknowledged the anchors of the
//! *earlier* one, and what each had written by then is at or below those of the *later* one
//! ([`Stability`](super::Stability)). This is causal stability (Baquero, Almeida and
//! Shoker, "Pure operation-based replicated data types", 2017), by two acts.
//!
//! The rule is about the heads of a key that are at or below the anchors of the later act, by place: if all
//! of them are tombstones, or expired, and at or below the anchors of the earlier act, they go. Heads above
//! the later anchors have no part in it. So it does not matter when a node follows the rule, once all
//! entries at or below the later anchors are here: none comes any more, the heads of a key below them only
//! become fewer, and heads that were taken would be taken again. A base has the effect of its own act
//! only; a state has that of all acts that count.

use std::collections::BTreeMap;

use crate::{
    id::{Author, Seq},
    limits::DRIFT_MS_MAX,
    protocol::{
        anchors_act::AnchorsAct,
        frontier::{Frontier, FrontierTip},
        heads::{Content, Head, Heads},
        placed_act::PlacedAct,
    },
};

/// A collection: the heads that one counting act takes, as its `collect` line orders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Collection {
    authors: BTreeMap<Author, Through>,
    // Values that expired at or before this time are like tombstones, in ms since 1970.
    expired_ms: u64,
}

// Seqs of the anchors of an author.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Through {
    // 0 without one.
    earlier: Seq,
    later: Seq,
}

impl Collection {
    /// Returns the collection that `later` orders; `None` if it orders none. `acts`: those that count
    /// about its store; without the earlier act that its `collect` line names there is none.
    pub fn of<'a>(
        later: &AnchorsAct,
        acts: impl IntoIterator<Item = &'a PlacedAct>,
    ) -> Option<Self> {
        let before = later.collection()?.before;
        let mut acts = acts.into_iter();
        let earlier = acts.find(|placed| placed.at.id == before)?;
        Self::new(&earlier.act, later)
    }

    /// Returns the collection of two acts; `None` if one of them names several branches of an author: there
    /// places do not say what an anchor leads back to.
    pub fn new(earlier: &AnchorsAct, later: &AnchorsAct) -> Option<Self> {
        let seqs = |anchors: &Frontier| -> Option<BTreeMap<Author, Seq>> {
            let authors = anchors.by_author();
            let one = |(author, tips): (Author, &[FrontierTip])| match tips {
                [only] => Some((author, only.seq)),
                _branches => None,
            };
            authors.map(one).collect()
        };
        let earlier = seqs(earlier.anchors())?;
        let authors = seqs(later.anchors())?.into_iter();
        let through = |(author, later): (Author, Seq)| {
            let earlier = earlier.get(&author).copied().unwrap_or(0);
            (author, Through { earlier, later })
        };
        Some(Self {
            authors: authors.map(through).collect(),
            // The admin's stamp may be ahead of true time by as much.
            expired_ms: later.through_ms().saturating_sub(DRIFT_MS_MAX),
        })
    }

    // Returns whether this head is at or below the later anchors.
    fn is_below(&self, head: &Head) -> bool {
        let through = self.authors.get(&head.author);
        through.is_some_and(|through| head.seq <= through.later)
    }

    fn is_over(&self, head: &Head) -> bool {
        let is_dead = match head.content {
            Content::Tombstone => true,
            Content::Value { expires_ms, .. } => {
                expires_ms.is_some_and(|expires_ms| expires_ms <= self.expired_ms)
            }
        };
        let through = self.authors.get(&head.author);
        is_dead && through.is_some_and(|through| head.seq <= through.earlier)
    }

    // Takes heads out of `heads`. A row with a value beside a tombstone stays: without the tombstone the
    // value would be back.
    fn take(&self, heads: &mut Vec<Head>) {
        let mut below = heads.iter().filter(|head| self.is_below(head));
        if below.all(|head| self.is_over(head)) {
            heads.retain(|head| !self.is_below(head));
        }
    }
}

/// The collections of several acts, joined. Their order has no effect.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Collections(Vec<Collection>);

impl Collections {
    /// Joins the collections that counting acts about a store order: of those acts for which `is_whole` is
    /// true, because nothing at or below their anchors is missing here.
    ///
    /// # Errors
    /// Those of `is_whole`.
    pub fn join<'a, E>(
        acts: impl IntoIterator<Item = &'a PlacedAct>,
        mut is_whole: impl FnMut(&PlacedAct) -> Result<bool, E>,
    ) -> Result<Self, E> {
        let acts: Vec<&PlacedAct> = acts.into_iter().collect();
        let mut collections: BTreeMap<_, _> = BTreeMap::new();
        for later in &acts {
            let ordered = Collection::of(&later.act, acts.iter().copied());
            if let Some(collection) = ordered
                && is_whole(later)?
            {
                collections.insert(later.at.id, collection);
            }
        }
        let mut all: Vec<Collection> = collections.into_values().collect();
        // One that reaches less far than another takes nothing more.
        let is_within = |one: &Collection, other: &Collection| one != other && other.covers(one);
        let kept: Vec<Collection> = all.clone();
        all.retain(|one| !kept.iter().any(|other| is_within(one, other)));
        all.dedup();
        Ok(Self(all))
    }

    /// Returns the only collection.
    pub fn one(collection: Collection) -> Self {
        Self(vec![collection])
    }

    /// Returns whether nothing is taken.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns whether everything that `other` takes is taken by these, too.
    pub fn cover(&self, other: &Self) -> bool {
        let mut others = other.0.iter();
        others.all(|other| self.0.iter().any(|one| one.covers(other)))
    }

    /// Returns the heads of a key that stay; `None` if all of them do.
    pub fn take_from(&self, heads: &Heads) -> Option<Heads> {
        // Most rows have none.
        let may_be_taken = |head: &Head| match head.content {
            Content::Tombstone => true,
            Content::Value { expires_ms, .. } => expires_ms.is_some(),
        };
        if self.0.is_empty() || !heads.as_slice().iter().any(may_be_taken) {
            return None;
        }
        let mut left = heads.as_slice().to_vec();
        loop {
            // What one takes may be what kept another from taking.
            let before = left.len();
            for collection in &self.0 {
                collection.take(&mut left);
            }
            if left.len() == before {
                break;
            }
        }
        (left.len() < heads.as_slice().len()).then(|| Heads::new(left))
    }
}

impl Collection {
    // Whether this one takes everything that `other` takes.
    fn covers(&self, other: &Self) -> bool {
        let reaches = |(author, other): (&Author, &Through)| {
            let through = self.authors.get(author);
            through.is_some_and(|it| it.earlier >= other.earlier && it.later >= other.later)
        };
        self.expired_ms >= other.expired_ms && other.authors.iter().all(reaches)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::{
        id::EntryId,
        protocol::{heads::Value, hlc::Hlc},
    };

    const NODE_1: Author = Author([1; 32]);
    const NODE_2: Author = Author([2; 32]);
    const HOUR_MS: u64 = DRIFT_MS_MAX;

    fn act(through_ms: u64, lines: &[(Author, Seq)]) -> AnchorsAct {
        let lines = lines.iter().map(|(author, seq)| {
            let id = EntryId([u8::try_from(*seq).unwrap(); 32]);
            (*author, FrontierTip { seq: *seq, id })
        });
        AnchorsAct::new(1, None, through_ms, lines.collect(), None).unwrap()
    }

    fn head(author: Author, seq: Seq, content: Content) -> Head {
        let id = u8::try_from(seq).unwrap();
        Head {
            hlc: Hlc::ZERO,
            author,
            id: EntryId([id; 32]),
            seq,
            content,
            taken_back: false,
        }
    }

    fn dead(author: Author, seq: Seq) -> Head {
        head(author, seq, Content::Tombstone)
    }

    fn value(author: Author, seq: Seq, expires_ms: Option<u64>) -> Head {
        let value = Value::Inline(Bytes::new());
        head(author, seq, Content::Value { value, expires_ms })
    }

    // The seqs that stay.
    fn left(collections: &Collections, row: &[Head]) -> Vec<Seq> {
        let heads = Heads::new(row.to_vec());
        let left = collections.take_from(&heads).unwrap_or(heads);
        left.as_slice().iter().map(|head| head.seq).collect()
    }

    #[test]
    fn only_rows_of_old_tombstones_go() {
        let earlier = act(0, &[(NODE_1, 5), (NODE_2, 2)]);
        let later = act(9 * HOUR_MS, &[(NODE_1, 9), (NODE_2, 2)]);
        let collections = Collections::one(Collection::new(&earlier, &later).unwrap());
        let stranger = Author([3; 32]);
        for (row, stays) in [
            (vec![], vec![]),
            (vec![dead(NODE_1, 5)], vec![]),
            (vec![dead(NODE_1, 6)], vec![6]),
            (vec![dead(NODE_1, 5), dead(NODE_2, 2)], vec![]),
            (vec![dead(NODE_1, 6), dead(NODE_1, 1)], vec![1, 6]),
            // The value is at or below the later anchors: it would be back.
            (vec![dead(NODE_1, 5), value(NODE_2, 1, None)], vec![1, 5]),
            (vec![dead(NODE_1, 5), value(NODE_1, 9, None)], vec![5, 9]),
            // It is above them, so it was written by somebody who knew the tombstone.
            (vec![dead(NODE_1, 5), value(NODE_2, 3, None)], vec![3]),
            (vec![dead(NODE_1, 5), dead(NODE_1, 10)], vec![10]),
            (vec![dead(NODE_1, 5), value(stranger, 1, None)], vec![1]),
            (vec![value(NODE_1, 1, None)], vec![1]),
            (vec![dead(stranger, 1)], vec![1]),
            (vec![value(NODE_1, 1, Some(8 * HOUR_MS))], vec![]),
            (vec![value(NODE_1, 1, Some(8 * HOUR_MS + 1))], vec![1]),
            (vec![value(NODE_1, 6, Some(0))], vec![6]),
            (vec![dead(NODE_2, 1), value(NODE_1, 1, Some(0))], vec![]),
        ] {
            let mut left = left(&collections, &row);
            left.sort_unstable();
            assert_eq!(left, stays, "{row:?}");
        }
    }

    #[test]
    fn an_author_with_branches_keeps_all_tombstones() {
        let new = |earlier: &[(Author, Seq)], later: &[(Author, Seq)]| {
            Collection::new(&act(0, earlier), &act(0, later))
        };
        assert!(new(&[(NODE_1, 5)], &[(NODE_1, 6)]).is_some());
        // By place an entry of the second branch would be taken for one of the first.
        assert!(new(&[(NODE_1, 5)], &[(NODE_1, 6), (NODE_1, 2)]).is_none());
        assert!(new(&[(NODE_1, 5), (NODE_1, 6)], &[(NODE_1, 7)]).is_none());
        // Nobody is known to know the deletes of other authors.
        for lines in [&[][..], &[(NODE_2, 6)]] {
            let collection = new(lines, &[(NODE_1, 6)]).unwrap();
            assert_eq!(left(&Collections::one(collection), &[dead(NODE_1, 1)]), [1]);
        }
    }

    #[test]
    fn time_of_the_first_hour_takes_nothing_early() {
        let lines = [(NODE_1, 5)];
        let collection = Collection::new(&act(0, &lines), &act(HOUR_MS - 1, &lines)).unwrap();
        let row = [value(NODE_1, 1, Some(1))];
        assert_eq!(left(&Collections::one(collection), &row), [1]);
    }

    // Two admins that did not know of each other: in either order, and whatever came first, the same stays.
    #[test]
    fn order_of_collections_has_no_effect() {
        let new = |earlier: [Seq; 2], later: [Seq; 2]| {
            let act = |[one, two]: [Seq; 2]| act(0, &[(NODE_1, one), (NODE_2, two)]);
            Collection::new(&act(earlier), &act(later)).unwrap()
        };
        let one = new([4, 1], [9, 2]);
        let other = new([2, 6], [5, 8]);
        let mut met = 0;
        for a in 0..=10 {
            for b in 0..=10 {
                let mut row = Vec::new();
                row.extend((a > 0).then(|| dead(NODE_1, a)));
                row.extend((b > 0).then(|| dead(NODE_2, b)));
                let both = |first: &Collection, second: &Collection| {
                    left(&Collections(vec![first.clone(), second.clone()]), &row)
                };
                let joined = both(&one, &other);
                assert_eq!(joined, both(&other, &one), "{a} {b}");
                for first in [&one, &other] {
                    let heads = Heads::new(row.clone());
                    let some = Collections::one(first.clone()).take_from(&heads);
                    let some = some.unwrap_or(heads);
                    let all = Collections(vec![one.clone(), other.clone()]);
                    assert_eq!(left(&all, some.as_slice()), joined, "{a} {b}");
                }
                met += usize::from(joined.len() < row.len());
            }
        }
        assert!(met > 10, "{met}");
        assert!(!one.covers(&other) && !other.covers(&one));
        assert!(new([4, 6], [9, 8]).covers(&one) && new([4, 6], [9, 8]).covers(&other));
    }
}
