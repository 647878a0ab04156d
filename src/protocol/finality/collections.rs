//! Collections: the heads that several acts take, joined.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    id::{Author, EntryId, Seq},
    protocol::{
        anchors_act::AnchorsAct,
        finality::collect::Collection,
        frontier::Frontier,
        heads::{Content, Head, Heads},
        placed_act::PlacedAct,
    },
};

/// The collections of several acts, joined. Their order has no effect.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Collections {
    // By the entry of the act.
    acts: BTreeMap<EntryId, Collection>,
    // By author: no later tombstone than at this seq is taken by any of them.
    earlier: BTreeMap<Author, Seq>,
}

/// Names collections by what they take: those of two nodes with the same hash take the same heads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CollectionsHash(pub [u8; 32]);

impl CollectionsHash {
    /// Names collections that take nothing.
    pub const NONE: Self = Self([0; 32]);
}

/// The end of what is left of the past, because acts took heads that were part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// An author of entries that may be without heads for this reason; of several, the first.
    pub author: Author,
    /// Seq of the last such entry of the author, inclusive.
    pub through: Seq,
    /// Number of authors of such entries.
    pub authors: usize,
    /// No such entry is stamped later, ms since 1970.
    pub reach_ms: u64,
}

// The acts that count about a store, by entry.
type Acts<'a> = BTreeMap<EntryId, &'a PlacedAct>;

// The collection that `later` orders; `None` if it orders none, or the earlier act that its `collect` line
// names is not among `acts`.
fn ordered(later: &AnchorsAct, acts: &Acts<'_>) -> Option<Collection> {
    let before = later.collection()?.before;
    Collection::new(&acts.get(&before)?.act, later)
}

fn by_entry<'a>(acts: impl IntoIterator<Item = &'a PlacedAct>) -> Acts<'a> {
    let acts = acts.into_iter();
    acts.map(|placed| (placed.at.id, placed)).collect()
}

// The acts that the admin of `act` knew: its own before, those that it cites, and what their admins knew.
fn known_to(act: &PlacedAct, acts: &Acts<'_>) -> BTreeSet<EntryId> {
    let mut own: BTreeMap<Author, Vec<&PlacedAct>> = BTreeMap::new();
    for placed in acts.values() {
        own.entry(placed.by).or_default().push(placed);
    }
    // The first at the end: from there the ones before a place are taken out, each once.
    for placed in own.values_mut() {
        placed.sort_by_key(|placed| std::cmp::Reverse(placed.at.seq));
    }
    let (mut known, mut next) = (BTreeSet::new(), vec![act]);
    while let Some(placed) = next.pop() {
        let cited = placed.cites.iter().filter_map(|id| acts.get(id).copied());
        next.extend(cited.filter(|cited| known.insert(cited.at.id)));
        let Some(own) = own.get_mut(&placed.by) else {
            continue;
        };
        while let Some(before) = own.pop_if(|before| before.at.seq < placed.at.seq) {
            if known.insert(before.at.id) {
                next.push(before);
            }
        }
    }
    known.remove(&act.at.id);
    known
}

impl Collections {
    /// Joins the collections that counting acts about a store order: of those acts for which `is_whole` is
    /// true, because nothing at or below their anchors is missing here, and what they take to be expired is
    /// reported.
    ///
    /// # Errors
    /// Those of `is_whole`.
    pub fn join<'a, E>(
        acts: impl IntoIterator<Item = &'a PlacedAct>,
        mut is_whole: impl FnMut(&PlacedAct, &Collection) -> Result<bool, E>,
    ) -> Result<Self, E> {
        let acts = by_entry(acts);
        let mut joined = Self::default();
        for later in acts.values() {
            if let Some(collection) = ordered(&later.act, &acts)
                && is_whole(later, &collection)?
            {
                joined.add(later.at.id, collection);
            }
        }
        Ok(joined)
    }

    /// Returns the collections that have an effect on the base of `act`: its own, and those of the acts that
    /// its admin knew, as far as their anchors are not above its own. So the base is the same on every node,
    /// from whichever base before it is made. The act may be one that is to be published. `acts`: those that
    /// count about the store.
    pub fn of_base<'a>(act: &PlacedAct, acts: impl IntoIterator<Item = &'a PlacedAct>) -> Self {
        let acts = by_entry(acts);
        let known = known_to(act, &acts);
        let mut both = Self::default();
        both.add_ordered(act, &acts);
        for before in known.iter().filter_map(|id| acts.get(id)) {
            let mut anchors = before.act.anchors().iter();
            if anchors.all(|(author, tip)| tip.seq <= act.act.anchors().seq(&author)) {
                both.add_ordered(before, &acts);
            }
        }
        both
    }

    fn add_ordered(&mut self, act: &PlacedAct, acts: &Acts<'_>) {
        if let Some(collection) = ordered(&act.act, acts) {
            self.add(act.at.id, collection);
        }
    }

    fn add(&mut self, act: EntryId, collection: Collection) {
        for (author, through) in &collection.authors {
            let earlier = self.earlier.entry(*author).or_default();
            *earlier = through.earlier.max(*earlier);
        }
        self.acts.insert(act, collection);
    }

    /// Returns whether the collection of the act with this entry is among these.
    pub fn has(&self, act: &EntryId) -> bool {
        self.acts.contains_key(act)
    }

    /// Returns the hash that names these collections.
    pub fn hash(&self) -> CollectionsHash {
        let all: BTreeSet<[u8; 32]> = self.acts.values().map(Collection::hash).collect();
        if all.is_empty() {
            return CollectionsHash::NONE;
        }
        let mut hasher = blake3::Hasher::new();
        for hash in all {
            hasher.update(&hash);
        }
        CollectionsHash(*hasher.finalize().as_bytes())
    }

    /// Returns the end of what is left of the past; `None` if nothing is taken.
    pub fn ended(&self) -> Option<Ended> {
        let mut authors = self.earlier.iter().filter(|(_, seq)| **seq > 0);
        let (author, through) = authors.next()?;
        let reach_ms = self.acts.values().map(Collection::reach_ms).max()?;
        Some(Ended {
            author: *author,
            through: *through,
            authors: authors.count().saturating_add(1),
            reach_ms,
        })
    }

    /// Returns the last seq of `author` of which heads may be taken; 0 for none.
    pub fn through(&self, author: &Author) -> Seq {
        self.earlier.get(author).copied().unwrap_or(0)
    }

    /// Returns whether nobody misses what is taken who has seen the entries of `frontier`, and the expiries
    /// through a time, in ms since 1970.
    pub fn is_seen(&self, frontier: &Frontier, expired_through_ms: u64) -> bool {
        let mut earlier = self.earlier.iter();
        earlier.all(|(author, seq)| frontier.seq(author) >= *seq)
            && expired_through_ms >= self.expired_ms()
    }

    /// Returns the time through which expired values are taken, in ms since 1970.
    pub fn expired_ms(&self) -> u64 {
        let times = self.acts.values().map(Collection::expired_ms);
        times.max().unwrap_or(0)
    }

    /// Returns whether nothing is taken.
    pub fn is_empty(&self) -> bool {
        self.acts.is_empty()
    }

    /// Returns whether all of `other` are among these.
    pub fn have(&self, other: &Self) -> bool {
        let mut others = other.acts.iter();
        others.all(|(act, other)| self.acts.get(act) == Some(other))
    }

    /// Returns the heads of a key that stay; `None` if all of them do.
    pub fn take_from(&self, heads: &Heads) -> Option<Heads> {
        // Most rows have none.
        let may_be_taken = |head: &Head| {
            let may_be_over = match head.content {
                Content::Tombstone => true,
                Content::Value { expires_ms, .. } => expires_ms.is_some(),
            };
            may_be_over
                && self
                    .earlier
                    .get(&head.author)
                    .is_some_and(|seq| head.seq <= *seq)
        };
        if self.acts.is_empty() || !heads.as_slice().iter().any(may_be_taken) {
            return None;
        }
        let mut left = heads.as_slice().to_vec();
        loop {
            // One may take what has kept another from taking.
            let before = left.len();
            for collection in self.acts.values() {
                collection.take(&mut left);
                if left.is_empty() {
                    return Some(Heads::default());
                }
            }
            if left.len() == before {
                break;
            }
        }
        (left.len() < heads.as_slice().len()).then(|| Heads::new(left))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::{
        id::StoreId,
        limits::DRIFT_MS_MAX,
        protocol::{anchors_act::ActCollection, frontier::FrontierTip, heads::Value, hlc::Hlc},
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

    fn joined(all: &[&Collection]) -> Collections {
        let mut collections = Collections::default();
        for (number, collection) in (1..).zip(all) {
            collections.add(EntryId([number; 32]), Collection::clone(collection));
        }
        collections
    }

    // The seqs that stay.
    fn left(collections: &Collections, row: &[Head]) -> Vec<Seq> {
        let heads = Heads::new(row.to_vec());
        let left = collections.take_from(&heads).unwrap_or(heads);
        left.as_slice().iter().map(|head| head.seq).collect()
    }

    #[test]
    fn only_rows_of_old_tombstones_go() {
        let earlier = act(9 * HOUR_MS, &[(NODE_1, 5), (NODE_2, 2)]);
        let later = act(20 * HOUR_MS, &[(NODE_1, 9), (NODE_2, 2)]);
        let collections = joined(&[&Collection::new(&earlier, &later).unwrap()]);
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
    fn what_is_taken_ends_the_past() {
        let nothing = Collections::default();
        assert_eq!(nothing.ended(), None);
        assert!(nothing.is_seen(&Frontier::default(), 0));
        assert_eq!(nothing.hash(), CollectionsHash::NONE);

        let earlier = act(9 * HOUR_MS, &[(NODE_1, 5), (NODE_2, 2)]);
        let later = act(20 * HOUR_MS, &[(NODE_1, 9), (NODE_2, 2)]);
        let collection = Collection::new(&earlier, &later).unwrap();
        let collections = joined(&[&collection]);
        let ended = Ended {
            author: NODE_1,
            through: 5,
            authors: 2,
            reach_ms: 10 * HOUR_MS,
        };
        assert_eq!(collections.ended(), Some(ended));
        for (one, two, hours, is_seen) in [
            (5, 2, 8, true),
            (9, 9, 9, true),
            (4, 2, 8, false),
            (9, 1, 8, false),
            (5, 2, 7, false),
        ] {
            let seen = act(0, &[(NODE_1, one), (NODE_2, two)]).anchors().clone();
            let found = collections.is_seen(&seen, hours * HOUR_MS);
            assert_eq!(found, is_seen, "{one} {two} {hours}");
        }

        // The entries of the acts have no part in it.
        let again = joined(&[&collection, &collection]);
        assert_eq!(again.hash(), collections.hash());
        let other = Collection::new(&earlier, &act(0, &[(NODE_1, 9)])).unwrap();
        let all = [&nothing, &collections, &joined(&[&other])].map(Collections::hash);
        assert_eq!(BTreeSet::from(all).len(), 3);
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
            assert_eq!(left(&joined(&[&collection]), &[dead(NODE_1, 1)]), [1]);
        }
    }

    #[test]
    fn time_of_the_first_hour_takes_nothing_early() {
        let lines = [(NODE_1, 5)];
        let early = act(HOUR_MS - 1, &lines);
        let collection = Collection::new(&early, &act(9 * HOUR_MS, &lines)).unwrap();
        let row = [value(NODE_1, 1, Some(1))];
        assert_eq!(left(&joined(&[&collection]), &row), [1]);
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
                let both =
                    |first: &Collection, second: &Collection| left(&joined(&[first, second]), &row);
                let expected = both(&one, &other);
                assert_eq!(expected, both(&other, &one), "{a} {b}");
                for first in [&one, &other] {
                    let heads = Heads::new(row.clone());
                    let some = joined(&[first]).take_from(&heads);
                    let some = some.unwrap_or(heads);
                    let all = joined(&[&one, &other]);
                    assert_eq!(left(&all, some.as_slice()), expected, "{a} {b}");
                }
                met += usize::from(expected.len() < row.len());
            }
        }
        assert!(met > 10, "{met}");
    }

    // A later act takes less where a value came between the two: whoever wrote it had not the tombstone any
    // more. A base has the effect of both, in whatever steps it is made.
    #[test]
    fn base_of_an_act_has_the_effect_of_those_that_its_admin_knew() {
        let placed =
            |id: u8, by, seq, cites: &[u8], lines: &[(Author, Seq)], before: Option<u8>| {
                let before = before.map(|before| ActCollection {
                    before: EntryId([before; 32]),
                    own: BTreeMap::new(),
                });
                let anchors = act(0, lines).anchors().clone();
                PlacedAct {
                    by,
                    at: FrontierTip {
                        seq,
                        id: EntryId([id; 32]),
                    },
                    store: StoreId([1; 16]),
                    cites: cites.iter().map(|id| EntryId([*id; 32])).collect(),
                    act: AnchorsAct::new(1, None, 0, anchors, before).unwrap(),
                }
            };
        let acts = [
            placed(1, NODE_1, 1, &[], &[(NODE_1, 5)], None),
            placed(2, NODE_1, 2, &[1], &[(NODE_1, 9)], Some(1)),
            // Another admin, who had not heard of it.
            placed(3, NODE_2, 1, &[1], &[(NODE_1, 7)], None),
            placed(4, NODE_2, 2, &[2], &[(NODE_1, 20)], Some(1)),
            // It is about more than the act that knows it.
            placed(5, NODE_1, 3, &[4], &[(NODE_1, 30)], Some(2)),
            placed(6, NODE_2, 3, &[5], &[(NODE_1, 25)], None),
        ];
        let of = |index: usize| {
            let of_base = Collections::of_base(&acts[index], &acts);
            let ids: Vec<u8> = of_base.acts.keys().map(|id| id.0[0]).collect();
            ids
        };
        let all: Vec<Vec<u8>> = (0..acts.len()).map(of).collect();
        assert_eq!(
            all,
            [
                vec![],
                vec![2],
                vec![],
                vec![2, 4],
                vec![2, 4, 5],
                vec![2, 4]
            ]
        );
        let row = [dead(NODE_1, 3), value(NODE_1, 12, None)];
        let of_base = |index: usize| Collections::of_base(&acts[index], &acts);
        assert_eq!(left(&of_base(3), &row), [12]);
        let alone = Collection::new(&acts[0].act, &acts[3].act).unwrap();
        assert_eq!(left(&joined(&[&alone]), &row), [3, 12]);
        // Before it is published, it has the same effect.
        let (by, store) = (acts[3].by, acts[3].store);
        let next = PlacedAct::to_be(by, store, acts[3].cites.clone(), acts[3].act.clone());
        let next = Collections::of_base(&next, &acts[..3]);
        assert_eq!(next.hash(), of_base(3).hash());
        assert!(of_base(4).have(&of_base(3)) && !of_base(3).have(&of_base(4)));
    }
}
