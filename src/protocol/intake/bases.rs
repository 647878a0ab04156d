//! Bases: where the chains of entries that wait leave the log.
//!
//! An entry that is held, or a stranger's, is here if everything before it by `prev` is. The chain
//! back to the log may be long, and a peer may name many places in it. So the walk is a value that
//! goes on in steps, visits each entry once, and asks the log nothing: the caller looks up the bases
//! that come out.

use std::collections::BTreeMap;

use crate::{
    id::{Author, EntryId},
    protocol::{entry::Entry, frontier::FrontierTip},
};

/// The entry before a chain of entries that wait. `None`: the chain begins with the author's first
/// entry.
pub type Base = Option<FrontierTip>;

/// Returns the entry before `entry` by `prev`.
pub(super) fn before(entry: &Entry) -> Base {
    entry.header.prev.map(|id| FrontierTip {
        seq: entry.header.seq.saturating_sub(1),
        id,
    })
}

/// A walk from some tips back to their bases.
#[derive(Debug, Default)]
pub struct Bases {
    // Tips to walk from; the last one is next.
    todo: Vec<(Author, FrontierTip)>,
    // The walk that is under way.
    walk: Option<Walk>,
    // Base of each entry that was walked over.
    known: BTreeMap<EntryId, Base>,
    done: Vec<((Author, FrontierTip), Base)>,
}

#[derive(Debug)]
struct Walk {
    from: (Author, FrontierTip),
    // The next place to look at.
    place: FrontierTip,
    // Entries that were walked over.
    passed: Vec<EntryId>,
}

impl Bases {
    /// Begins a walk from each of `tips`.
    pub fn new(tips: Vec<(Author, FrontierTip)>) -> Self {
        Self {
            todo: tips,
            ..Self::default()
        }
    }

    /// Goes on for at most `steps` entries and tips. Returns whether all bases are found. `kept`
    /// returns the entry before one of an author that waits, or an earlier one before it if all between
    /// them are known to wait; it may differ from call to call.
    pub fn advance(
        &mut self,
        steps: usize,
        kept: impl Fn(&Author, &EntryId) -> Option<Base>,
    ) -> bool {
        for _ in 0..steps {
            let next = || {
                let from = self.todo.pop()?;
                Some(Walk {
                    from,
                    place: from.1,
                    passed: Vec::new(),
                })
            };
            let Some(mut walk) = self.walk.take().or_else(next) else {
                return true;
            };
            let (author, place) = (walk.from.0, walk.place);
            let base = match (self.known.get(&place.id), kept(&author, &place.id)) {
                (Some(base), _) => *base,
                (None, None) => Some(place),
                (None, Some(before)) => {
                    walk.passed.push(place.id);
                    let Some(before) = before else {
                        self.found(walk, None);
                        continue;
                    };
                    walk.place = before;
                    self.walk = Some(walk);
                    continue;
                }
            };
            self.found(walk, base);
        }
        self.todo.is_empty() && self.walk.is_none()
    }

    /// Returns each tip with its base. A tip that does not wait is its own base.
    pub fn into_found(self) -> Vec<((Author, FrontierTip), Base)> {
        self.done
    }

    fn found(&mut self, walk: Walk, base: Base) {
        let passed = walk.passed.into_iter();
        self.known.extend(passed.map(|id| (id, base)));
        self.done.push((walk.from, base));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::entry::{
        VerifiedEntry,
        tests::{AUTHOR_A, AUTHOR_B, entry},
    };

    // Entries 1 to `length` of one author.
    fn chain(secret: [u8; 32], length: u64) -> Vec<VerifiedEntry> {
        let mut chain: Vec<VerifiedEntry> = Vec::new();
        for seq in 1..=length {
            let prev = chain.last().map(|prev| prev.id);
            chain.push(entry(secret, seq, prev, 100 + seq, "/k"));
        }
        chain
    }

    fn tip(entry: &VerifiedEntry) -> (Author, FrontierTip) {
        (entry.author(), FrontierTip::of(entry))
    }

    fn pool(entries: &[VerifiedEntry]) -> BTreeMap<EntryId, &VerifiedEntry> {
        entries.iter().map(|entry| (entry.id, entry)).collect()
    }

    #[test]
    fn chain_leads_to_the_entry_before_it() {
        let chain = chain(AUTHOR_A, 9);
        let waits = pool(&chain[4..8]);
        let kept = |_: &Author, id: &EntryId| waits.get(id).map(|entry| before(entry));
        let mut bases = Bases::new(chain.iter().map(tip).collect());
        assert!(bases.advance(usize::MAX, kept));
        let mut found = bases.into_found();
        found.sort();
        for (entry, (from, base)) in chain.iter().zip(found) {
            assert_eq!(from, tip(entry));
            let seq = base.map(|base| base.seq);
            let waits = (5..=8).contains(&entry.header.seq);
            assert_eq!(seq, Some(if waits { 4 } else { entry.header.seq }));
        }
        // From the first entry on there is nothing to look up.
        let waits = pool(&chain);
        let kept = |_: &Author, id: &EntryId| waits.get(id).map(|entry| before(entry));
        let mut bases = Bases::new(vec![tip(&chain[8])]);
        assert!(bases.advance(usize::MAX, kept));
        assert_eq!(bases.into_found(), [(tip(&chain[8]), None)]);
    }

    #[test]
    fn n2_each_entry_is_visited_once_and_in_bounded_steps() {
        let chain = chain(AUTHOR_A, 200);
        let waits = pool(&chain[1..]);
        let asked = std::cell::Cell::new(0);
        let kept = |_: &Author, id: &EntryId| {
            asked.set(asked.get() + 1);
            waits.get(id).map(|entry| before(entry))
        };
        // Every place of the chain, and as many of entries that nobody has.
        let made_up = |seq| FrontierTip {
            seq,
            id: EntryId([7; 32]),
        };
        let other = entry(AUTHOR_B, 1, None, 5, "/k").author();
        let mut tips: Vec<_> = chain.iter().map(tip).collect();
        tips.extend((1..=200).map(|seq| (other, made_up(seq))));
        let mut bases = Bases::new(tips.clone());
        let mut rounds = 0;
        while !bases.advance(10, kept) {
            rounds += 1;
            assert!(asked.get() <= rounds * 10 + 10);
        }
        assert!(asked.get() <= 2 * tips.len(), "{}", asked.get());
        assert!(rounds >= 40, "{rounds}");
        let found = bases.into_found();
        assert_eq!(found.len(), tips.len());
        let first = FrontierTip::of(&chain[0]);
        let own = |(author, _): &(Author, FrontierTip)| *author == chain[0].author();
        assert!(
            found
                .iter()
                .all(|(from, base)| !own(from) || *base == Some(first))
        );
    }
}
