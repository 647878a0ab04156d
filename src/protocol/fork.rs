//! Fork: two entries of one author with one seq, and the entry by which the author closes the fork.
//!
//! Two authentic entries with different ids and the same author, store and seq are a fork: a backup
//! was restored, or the key is used in two places. Refusing one of them by arrival order would let
//! nodes differ for ever, so all nodes keep and apply both branches. The two signed entries
//! together are the evidence; they reach every node as other entries do.
//!
//! The author closes a fork with an entry without ops that goes on at one open tip and cites the
//! other open tips as parents. It goes on at the tip that is highest by `(hlc, id)`, so every node
//! would choose the same. Cited tips are closed. A fork is open while an author has two tips or
//! more that are not closed: if another branch is written to again, its new tip is open.
//!
//! A clock that was far ahead makes a branch that cannot be cited: the closing entry would have to be
//! stamped above it, and would be held as the branch is. So the author goes on before it, and *takes
//! back* each of its entries: the closing entry names them without their stamps. Such a reference
//! supersedes nothing, because it does not name its parent exactly, and nobody waits for it. It closes
//! the tip, and ranks what the entry wrote below all other heads of its keys. The values stay
//! readable, and win only where nothing else was written.

use crate::{
    id::{Author, EntryId, Seq},
    protocol::{
        chain::Tip,
        entry::{Entry, Parent, VerifiedEntry},
        frontier::FrontierTip,
        hlc::Hlc,
    },
};

/// Evidence that one key signed two entries with one seq.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fork {
    /// Author that signed both entries.
    pub author: Author,
    /// Seq of both entries.
    pub seq: Seq,
    /// Ids of the two entries, the lower one first.
    pub entries: [EntryId; 2],
}

impl Fork {
    /// Returns the fork that two authentic entries show.
    ///
    /// Returns `None` if they differ in author, store or seq, or are the same entry.
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

/// Returns those of `tips` that are open, in the order given: the fork is, if more than one is.
///
/// `tips`: the tips of all branches of an author. `is_closed` returns whether the author has closed
/// a tip; it is not asked when there is only one.
///
/// # Errors
/// That of `is_closed`.
pub fn open_tips<E>(
    tips: &[Tip],
    mut is_closed: impl FnMut(&EntryId) -> Result<bool, E>,
) -> Result<Vec<Tip>, E> {
    if tips.len() < 2 {
        return Ok(tips.to_vec());
    }
    let mut open = Vec::new();
    for tip in tips {
        if !is_closed(&tip.id)? {
            open.push(*tip);
        }
    }
    Ok(open)
}

/// Returns the tips of its author that `entry` closes: its parents by its own author, if it has no
/// ops.
///
/// Almost all entries close none.
pub fn closed_by(entry: &Entry) -> impl Iterator<Item = EntryId> + '_ {
    let author = entry.author();
    let parents = entry.header.parents.iter();
    parents
        .filter(move |parent| entry.ops.is_empty() && parent.author == author)
        .map(|parent| parent.id)
}

/// Returns the entries of its author that `entry` takes back, with their places: its parents by its
/// own author that it names without a stamp, if it has no ops.
///
/// Almost all entries take none back.
pub fn taken_back_by(entry: &Entry) -> impl Iterator<Item = FrontierTip> + '_ {
    let parents = entry.header.parents.iter();
    parents
        .filter(|parent| takes_back(entry, parent))
        .map(|parent| FrontierTip {
            seq: parent.seq,
            id: parent.id,
        })
}

/// Returns whether `parent`, a reference of `entry`, takes its entry back. It is not waited for.
pub fn takes_back(entry: &Entry, parent: &Parent) -> bool {
    entry.ops.is_empty() && parent.author == entry.author() && parent.hlc == Hlc::ZERO
}

/// Returns the reference by which its author takes the entry at `place` back.
pub fn taking_back(author: &Author, place: FrontierTip) -> Parent {
    Parent {
        hlc: Hlc::ZERO,
        author: *author,
        id: place.id,
        seq: place.seq,
    }
}

/// Returns the tip at which an entry that closes the fork of `author` goes on, and its parents,
/// sorted.
///
/// `open`: the open tips of `author`. Returns `None` if there are fewer than two.
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
    use std::{collections::BTreeSet, convert::Infallible};

    use ed25519_dalek::SigningKey;

    use super::*;
    use crate::protocol::entry::{
        Header, sign,
        tests::{AUTHOR_A, AUTHOR_B, entry},
    };

    fn tip(entry: &Entry) -> Tip {
        Tip {
            seq: entry.header.seq,
            id: entry.id,
            hlc: entry.header.hlc,
        }
    }

    // Signs an entry without ops after `on` that cites `parents`.
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
    fn two_entries_with_one_seq_show_a_fork() {
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
    fn closed_fork_reopens_when_a_branch_goes_on() {
        let first = entry(AUTHOR_A, 1, None, 10, "/1");
        let author = first.author();
        let tips: Vec<Tip> = [11, 13, 12]
            .map(|wall_ms| tip(&entry(AUTHOR_A, 2, Some(first.id), wall_ms, "/k")))
            .to_vec();
        let mut closed = BTreeSet::new();
        let open = |closed: &BTreeSet<EntryId>, tips: &[Tip]| {
            let is_closed = |id: &EntryId| Ok::<_, Infallible>(closed.contains(id));
            let Ok(open) = open_tips(tips, is_closed);
            open
        };
        assert_eq!(open(&closed, &tips), tips);
        let (on, parents) = closing(&author, &tips).unwrap();
        assert_eq!(on, tips[1], "the latest");
        let entry_on = close(on, parents);
        let closes: Vec<_> = closed_by(&entry_on).collect();
        assert_eq!(closes.len(), 2);
        closed.extend(closes);
        let now = [tips[0], tip(&entry_on), tips[2]];
        assert_eq!(open(&closed, &now), [tip(&entry_on)]);
        assert_eq!(closing(&author, &open(&closed, &now)), None);
        // Another branch is written to again, so the fork is open again.
        let again = tip(&entry(AUTHOR_A, 3, Some(tips[0].id), 20, "/k"));
        let now = [again, tip(&entry_on), tips[2]];
        assert_eq!(open(&closed, &now), [again, tip(&entry_on)]);
    }

    #[test]
    fn reference_without_a_stamp_takes_its_entry_back() {
        let far = entry(AUTHOR_A, 2, Some(EntryId([1; 32])), 1_000_000, "/far");
        let on = Tip {
            seq: 1,
            id: EntryId([1; 32]),
            hlc: Hlc::ZERO,
        };
        let place = FrontierTip::of(&far);
        let back = close(on, vec![taking_back(&far.author(), place)]);
        assert_eq!(taken_back_by(&back).collect::<Vec<_>>(), [place]);
        assert_eq!(closed_by(&back).collect::<Vec<_>>(), [far.id]);
        // Nobody takes back the entries of others, nor one that is named with its stamp.
        let of_b = entry(AUTHOR_B, 1, None, 10, "/b");
        let others = taking_back(&of_b.author(), FrontierTip::of(&of_b));
        assert_eq!(taken_back_by(&close(on, vec![others])).count(), 0);
        let near = entry(AUTHOR_A, 2, Some(EntryId([1; 32])), 10, "/near");
        assert_eq!(taken_back_by(&close(on, vec![near.as_parent()])).count(), 0);
        // Nor does an entry with ops, which counts like any other.
        let key = SigningKey::from_bytes(&AUTHOR_A);
        let with_ops = sign(&key, back.header.clone(), far.ops.to_vec()).unwrap();
        assert_eq!(taken_back_by(&with_ops).count(), 0);
        assert!(
            with_ops
                .header
                .parents
                .iter()
                .all(|it| !takes_back(&with_ops, it))
        );
        assert!(back.header.parents.iter().all(|it| takes_back(&back, it)));
    }

    #[test]
    fn entry_with_ops_or_foreign_parent_closes_nothing() {
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
