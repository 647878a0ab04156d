//! Forks: two entries of one author in one place, and the entry by which the author closes it.
//!
//! Both branches are kept everywhere, so the two entries that contest a place reach every node as
//! all others do; together they are the proof, for each is signed. A fork is closed by an entry
//! without ops that goes on at one tip and names the others as parents: what its author writes from
//! then on has all branches in its past.

use std::collections::BTreeSet;

use crate::{
    id::{Author, EntryId, Seq},
    protocol::{
        chain::Tip,
        entry::{Entry, Parent, VerifiedEntry},
    },
};

/// Proof that one key signed two entries for one place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fork {
    /// Author of both: its key is used in two places, or a backup of its log was restored.
    pub author: Author,
    /// The place.
    pub seq: Seq,
    /// The two entries, the lower id first.
    pub entries: [EntryId; 2],
}

impl Fork {
    /// Returns what two authentic entries prove; `None` where they contest no place.
    pub fn prove(one: &VerifiedEntry, other: &VerifiedEntry) -> Option<Self> {
        let place = |entry: &Entry| (entry.author(), entry.header.store, entry.header.seq);
        if place(one) != place(other) || one.id == other.id {
            return None;
        }
        Some(Self {
            author: one.author(),
            seq: one.header.seq,
            entries: [one.id.min(other.id), one.id.max(other.id)],
        })
    }
}

/// Tips that their authors have closed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClosedTips(BTreeSet<(Author, EntryId)>);

impl ClosedTips {
    /// Adds the tip `id` of `author`.
    pub fn insert(&mut self, author: Author, id: EntryId) {
        self.0.insert((author, id));
    }

    /// Returns all of them.
    pub fn iter(&self) -> impl Iterator<Item = (Author, EntryId)> + '_ {
        self.0.iter().copied()
    }

    /// Returns which of `tips`, the tips of all branches of `author`, are open: where they are more
    /// than one, the fork is.
    pub fn open(&self, author: &Author, tips: &[Tip]) -> Vec<Tip> {
        let is_open = |tip: &&Tip| !self.0.contains(&(*author, tip.id));
        tips.iter().filter(is_open).copied().collect()
    }
}

/// Returns the tips of its author that `entry` closes; none for almost all entries.
pub fn closed_by(entry: &Entry) -> impl Iterator<Item = EntryId> + '_ {
    let author = entry.author();
    let parents = entry.header.parents.iter();
    parents
        .filter(move |parent| entry.ops.is_empty() && parent.author == author)
        .map(|parent| parent.id)
}

/// Returns where an entry that closes the fork of `author` goes on, and its parents; `None` where
/// `open` has no two tips. The latest tip goes on: every node would choose the same.
pub fn closing(author: &Author, open: &[Tip]) -> Option<(Tip, Vec<Parent>)> {
    let on = open.iter().max_by_key(|tip| (tip.hlc, tip.id))?;
    let others = open.iter().filter(|tip| tip.id != on.id);
    let mut parents: Vec<Parent> = others
        .map(|tip| Parent {
            hlc: tip.hlc,
            author: *author,
            id: tip.id,
            seq: tip.seq,
        })
        .collect();
    parents.sort_unstable();
    (!parents.is_empty()).then_some((*on, parents))
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::SigningKey;

    use super::*;
    use crate::protocol::{
        entry::{
            Header, sign,
            tests::{AUTHOR_A, AUTHOR_B, entry},
        },
        hlc::Hlc,
    };

    fn tip(entry: &Entry) -> Tip {
        Tip {
            seq: entry.header.seq,
            id: entry.id,
            hlc: entry.header.hlc,
        }
    }

    // Signs an entry without ops after `on` that names `parents`.
    fn close(on: Tip, parents: Vec<Parent>) -> VerifiedEntry {
        let header = Header {
            seq: on.seq + 1,
            prev: Some(on.id),
            hlc: Hlc {
                wall_ms: 100,
                counter: 0,
            },
            parents,
            ..entry(AUTHOR_A, 1, None, 1, "/k").header.clone()
        };
        sign(&SigningKey::from_bytes(&AUTHOR_A), header, Vec::new()).unwrap()
    }

    #[test]
    fn two_entries_in_one_place_are_a_proof_and_nothing_else_is() {
        let first = entry(AUTHOR_A, 1, None, 10, "/1");
        let (left, right) = (
            entry(AUTHOR_A, 2, Some(first.id), 11, "/l"),
            entry(AUTHOR_A, 2, Some(first.id), 11, "/r"),
        );
        let fork = Fork::prove(&left, &right).unwrap();
        assert_eq!((fork.author, fork.seq), (first.author(), 2));
        assert!(fork.entries[0] < fork.entries[1]);
        assert_eq!(Fork::prove(&right, &left), Some(fork));
        assert_eq!(Fork::prove(&left, &left), None);
        assert_eq!(Fork::prove(&first, &left), None);
        let other_author = entry(AUTHOR_B, 2, Some(first.id), 11, "/r");
        assert_eq!(Fork::prove(&left, &other_author), None);
    }

    #[test]
    fn an_entry_without_ops_that_names_the_other_tips_closes_them_until_one_goes_on() {
        let first = entry(AUTHOR_A, 1, None, 10, "/1");
        let author = first.author();
        let tips: Vec<Tip> = [11, 13, 12]
            .map(|wall_ms| tip(&entry(AUTHOR_A, 2, Some(first.id), wall_ms, "/k")))
            .to_vec();
        let mut closed = ClosedTips::default();
        assert_eq!(closed.open(&author, &tips), tips);
        let (on, parents) = closing(&author, &tips).unwrap();
        assert_eq!(on, tips[1], "the latest");
        let entry_on = close(on, parents);
        let closes: Vec<_> = closed_by(&entry_on).collect();
        assert_eq!(closes.len(), 2);
        closes.into_iter().for_each(|id| closed.insert(author, id));
        let now = [tips[0], tip(&entry_on), tips[2]];
        assert_eq!(closed.open(&author, &now), [tip(&entry_on)]);
        assert_eq!(closing(&author, &closed.open(&author, &now)), None);
        // The other place writes on: the fork is open again.
        let again = tip(&entry(AUTHOR_A, 3, Some(tips[0].id), 20, "/k"));
        let now = [again, tip(&entry_on), tips[2]];
        assert_eq!(closed.open(&author, &now), [again, tip(&entry_on)]);
    }

    #[test]
    fn what_has_ops_or_is_of_somebody_else_closes_nothing() {
        let first = entry(AUTHOR_A, 1, None, 10, "/1");
        let of_b = entry(AUTHOR_B, 1, None, 10, "/b");
        assert_eq!(closed_by(&first).count(), 0);
        assert_eq!(
            closed_by(&close(tip(&first), vec![of_b.as_parent()])).count(),
            0
        );
        let mut header = close(tip(&first), Vec::new()).header.clone();
        header.parents = vec![entry(AUTHOR_A, 1, None, 10, "/2").as_parent()];
        let key = SigningKey::from_bytes(&AUTHOR_A);
        let with_ops = sign(&key, header, first.ops.to_vec()).unwrap();
        assert_eq!(closed_by(&with_ops).count(), 0);
    }
}
