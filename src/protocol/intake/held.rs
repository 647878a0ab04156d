//! Held entries: stamped further ahead of this node's clock than `DRIFT_MS_MAX` allows.
//!
//! The pool has a bound, and a peer keeps what is dropped. It would be asked for it in each sync,
//! because the newest entry of the branch is not here. So the end of each held branch is noted, also
//! when its entries are dropped, and counts as here until the first dropped one is due.

use std::collections::BTreeMap;

use crate::{
    id::{Author, EntryId},
    limits::HELD_BRANCHES_MAX,
    protocol::{
        entry::{Order, VerifiedEntry},
        intake::bases::{Base, before},
    },
};

/// A bounded pool of entries by the time when they are due. When it is full, the entry that is due
/// last is dropped; a peer has it still.
#[derive(Debug)]
pub struct Held {
    // By due time, then by order: of one branch the newest comes last. They have `bytes` bytes.
    entries: BTreeMap<(u64, Order), VerifiedEntry>,
    // The place of each of `entries`, and the number of its branch, which may have been forgotten.
    places: BTreeMap<EntryId, (u64, Order, u64)>,
    bytes: usize,
    bytes_max: usize,
    // By number, the oldest first. At most HELD_BRANCHES_MAX: without one of them, entries that were
    // dropped are asked for again.
    branches: BTreeMap<u64, HeldBranch>,
    // The numbers of `branches`, by the newest entry of each.
    ends: BTreeMap<(Author, EntryId), u64>,
    next_branch: u64,
}

// Entries that were held one after the other, and of which some may have been dropped.
#[derive(Debug)]
struct HeldBranch {
    // The newest of them.
    end: (Author, EntryId),
    // The entry before the first one.
    base: Base,
    // When the newest is due.
    due_ms: u64,
    // When the first dropped one is due; `None`: none was dropped.
    dropped_due_ms: Option<u64>,
}

impl Held {
    /// Makes an empty pool for at most `bytes_max` bytes.
    pub fn new(bytes_max: usize) -> Self {
        Self {
            entries: BTreeMap::new(),
            places: BTreeMap::new(),
            bytes: 0,
            bytes_max,
            branches: BTreeMap::new(),
            ends: BTreeMap::new(),
            next_branch: 0,
        }
    }

    /// Keeps `entry` until `due_ms` (ms since 1970), or until the time that was given first if it is
    /// here already. Returns how many entries had to make room.
    pub fn insert(&mut self, entry: VerifiedEntry, due_ms: u64) -> usize {
        if self.places.contains_key(&entry.id) {
            return 0;
        }
        let branch = self.extend_branch(&entry, due_ms);
        self.bytes = self.bytes.saturating_add(entry.bytes());
        let order = entry.order();
        self.places.insert(entry.id, (due_ms, order, branch));
        self.entries.insert((due_ms, order), entry);
        let mut dropped = 0_usize;
        while self.bytes > self.bytes_max
            && let Some(((due_ms, _), last)) = self.entries.pop_last()
        {
            self.bytes = self.bytes.saturating_sub(last.bytes());
            dropped = dropped.saturating_add(1);
            let place = self.places.remove(&last.id);
            let branch = place.and_then(|(_, _, branch)| self.branches.get_mut(&branch));
            if let Some(branch) = branch {
                let first = branch.dropped_due_ms.unwrap_or(due_ms);
                branch.dropped_due_ms = Some(first.min(due_ms));
            }
        }
        dropped
    }

    // Notes `entry` as the end of its branch. Returns the number of the branch.
    fn extend_branch(&mut self, entry: &VerifiedEntry, due_ms: u64) -> u64 {
        let end = (entry.author(), entry.id);
        let prev = entry.header.prev.map(|prev| (entry.author(), prev));
        let number = prev.and_then(|prev| self.ends.remove(&prev));
        let number = number.unwrap_or(self.next_branch);
        let known = self.branches.get_mut(&number).map(|branch| {
            branch.end = end;
            branch.due_ms = due_ms;
        });
        if known.is_none() {
            self.next_branch = self.next_branch.saturating_add(1);
            let branch = HeldBranch {
                end,
                base: before(entry),
                due_ms,
                dropped_due_ms: None,
            };
            self.branches.insert(number, branch);
        }
        // Entries that were dropped have come again, up to the same end.
        if let Some(earlier) = self.ends.insert(end, number) {
            self.branches.remove(&earlier);
        }
        if self.branches.len() > HELD_BRANCHES_MAX
            && let Some((_, oldest)) = self.branches.pop_first()
        {
            self.ends.remove(&oldest.end);
        }
        number
    }

    /// Takes out the entries that are due at `now_ms`, causes before effects. Dropped ones that are due
    /// are forgotten, so that they are asked for.
    pub fn take_due(&mut self, now_ms: u64) -> Vec<VerifiedEntry> {
        let mut due = Vec::new();
        while let Some(first) = self.entries.first_entry()
            && first.key().0 <= now_ms
        {
            let entry = first.remove();
            self.places.remove(&entry.id);
            self.bytes = self.bytes.saturating_sub(entry.bytes());
            due.push(entry);
        }
        due.sort_by_key(|entry| entry.order());
        let (places, ends) = (&self.places, &mut self.ends);
        self.branches.retain(|_number, branch| {
            let waits = match branch.dropped_due_ms {
                Some(due_ms) => due_ms > now_ms,
                None => places.contains_key(&branch.end.1),
            };
            if !waits {
                ends.remove(&branch.end);
            }
            waits
        });
        due
    }

    /// Returns when the next entry is due, also one that was dropped; `None` when there is none.
    pub fn next_due_ms(&self) -> Option<u64> {
        let first = self.entries.keys().next().map(|(due_ms, _)| *due_ms);
        let dropped = self.branches.values().filter_map(|it| it.dropped_due_ms);
        dropped.chain(first).min()
    }

    /// Returns the entry before the one with `id`, if that is held; or if it is the end of a branch of
    /// which entries were dropped, the entry before the branch.
    pub fn before(&self, author: &Author, id: &EntryId) -> Option<Base> {
        if let Some((due_ms, order, _)) = self.places.get(id) {
            let entry = self.entries.get(&(*due_ms, *order))?;
            return (entry.author() == *author).then(|| before(entry));
        }
        let branch = self.branches.get(self.ends.get(&(*author, *id))?)?;
        branch.dropped_due_ms.map(|_due_ms| branch.base)
    }

    /// Returns when the entry of `author` with `id` is due, ms since 1970; `None` if it is neither here
    /// nor the end of a branch of which entries were dropped.
    pub fn due_ms(&self, author: &Author, id: &EntryId) -> Option<u64> {
        if let Some((due_ms, _, _)) = self.places.get(id) {
            return Some(*due_ms);
        }
        let branch = self.branches.get(self.ends.get(&(*author, *id))?)?;
        Some(branch.due_ms)
    }

    /// Returns the number of entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Returns whether no entry is held.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Returns all entries with the times when they are due, earliest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (u64, &VerifiedEntry)> {
        let entries = self.entries.iter();
        entries.map(|((due_ms, _), entry)| (*due_ms, entry))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{
        entry::tests::{AUTHOR_A, entry},
        frontier::FrontierTip,
    };

    fn stamped(wall_ms: u64) -> VerifiedEntry {
        entry(AUTHOR_A, 1, None, wall_ms, "/k")
    }

    #[test]
    fn due_entries_leave_earliest_first() {
        let mut held = Held::new(1 << 20);
        let (one, two, three) = (stamped(501), stamped(502), stamped(503));
        for (entry, due_ms) in [(&two, 20), (&three, 30), (&one, 10)] {
            assert_eq!(held.insert(entry.clone(), due_ms), 0);
        }
        assert_eq!(held.next_due_ms(), Some(10));
        assert_eq!(held.take_due(9), []);
        assert_eq!(held.take_due(20), [one, two]);
        assert_eq!(held.take_due(30), [three]);
        assert_eq!((held.next_due_ms(), held.bytes), (None, 0));
        assert!(held.branches.is_empty() && held.ends.is_empty());
    }

    #[test]
    fn a_full_pool_drops_what_is_due_last() {
        let bytes = stamped(500).bytes();
        let mut held = Held::new(2 * bytes);
        let entries: Vec<_> = (500..504).map(stamped).collect();
        let dropped: Vec<_> = entries
            .iter()
            .zip([40, 10, 30, 20])
            .map(|(entry, due_ms)| held.insert(entry.clone(), due_ms))
            .collect();
        assert_eq!(dropped, [0, 0, 1, 1]);
        let due: Vec<_> = held.iter().map(|(due_ms, _)| due_ms).collect();
        assert_eq!(due, [10, 20]);
    }

    // Entries 1 to `length` of one author, one a millisecond.
    fn chain(length: u64) -> Vec<VerifiedEntry> {
        let mut chain: Vec<VerifiedEntry> = Vec::new();
        for seq in 1..=length {
            let prev = chain.last().map(|prev| prev.id);
            chain.push(entry(AUTHOR_A, seq, prev, 500 + seq, "/k"));
        }
        chain
    }

    #[test]
    fn end_of_a_branch_is_noted_until_a_dropped_entry_is_due() {
        let chain = chain(6);
        let author = chain[0].author();
        let mut held = Held::new(2 * chain[1].bytes() + chain[0].bytes());
        let hold = |held: &mut Held| {
            for entry in &chain[1..] {
                held.insert(entry.clone(), entry.header.hlc.wall_ms);
            }
        };
        let first = FrontierTip::of(&chain[0]);
        // Twice: entries that were dropped are sent again when a new one is fetched.
        for _ in 0..2 {
            hold(&mut held);
            assert_eq!(held.len(), 2);
            let leads_to = |from: &VerifiedEntry| {
                let mut at = from.id;
                loop {
                    match held.before(&author, &at) {
                        Some(Some(place)) if place == first => return true,
                        Some(Some(place)) => at = place.id,
                        Some(None) | None => return false,
                    }
                }
            };
            assert!(leads_to(&chain[5]), "the end");
            assert!(leads_to(&chain[2]), "one that is held");
            assert!(!leads_to(&chain[4]), "one that was dropped");
        }
        assert_eq!(held.due_ms(&author, &chain[5].id), Some(506));
        assert_eq!(held.due_ms(&chain[0].author(), &chain[4].id), None);
        // The held ones leave, and the first dropped one is due then.
        assert_eq!(held.take_due(503).len(), 2);
        assert_eq!(held.next_due_ms(), Some(504));
        let released = FrontierTip::of(&chain[2]);
        assert_eq!(held.before(&author, &chain[5].id), Some(Some(released)));
        assert_eq!(held.take_due(504), []);
        assert_eq!(held.before(&author, &chain[5].id), None);
        assert_eq!(held.next_due_ms(), None);
        assert!(held.branches.is_empty() && held.ends.is_empty());
    }

    #[test]
    fn ends_of_branches_are_bounded() {
        let mut held = Held::new(0);
        for seq in 2..HELD_BRANCHES_MAX as u64 + 10 {
            let lone = entry(AUTHOR_A, seq, Some(EntryId([7; 32])), 500 + seq, "/k");
            assert_eq!(held.insert(lone, 10), 1);
        }
        assert_eq!(held.branches.len(), HELD_BRANCHES_MAX);
        assert_eq!(held.ends.len(), HELD_BRANCHES_MAX);
        held.take_due(10);
        assert!(held.branches.is_empty() && held.ends.is_empty());
    }

    #[test]
    fn an_entry_that_comes_again_counts_once() {
        let mut held = Held::new(1 << 20);
        for _ in 0..2 {
            assert_eq!(held.insert(stamped(500), 10), 0);
        }
        assert_eq!(held.bytes, stamped(500).bytes());
    }
}
