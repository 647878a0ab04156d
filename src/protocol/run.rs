//! Runs: entries that came together and vouch for each other, so that few need a check.
//!
//! A signature costs as much as a hundred hashes. An entry's id covers its signature, and the next
//! entry's `prev` is that id: whoever signed the later one has said that the earlier is theirs.
//!
//! An author can sign that of an entry whose own signature is wrong. All nodes must see it alike,
//! wherever a message ends: a run begins at each multiple of `RUN_ENTRIES_MAX`, and nothing later
//! vouches for what was before.

use std::{cmp::Reverse, collections::BTreeSet};

use crate::{
    id::{Author, EntryId},
    limits::RUN_ENTRIES_MAX,
    protocol::entry::{Entry, EntryError, VerifiedEntry},
};

/// Checks entries that came together, and returns them in the order they came in.
///
/// Of a run (entries of one author, each the `prev` of the next, whatever is between them) only
/// the last signature is checked. Where that is wrong the one before it is checked, and so on, so
/// that the culprit is named and the good ones count. Several runs of an author (a fork, a hole)
/// each get a check. What was refused before stays as it is: `E` is the caller's error.
///
/// `step` is called before each entry: a message full of authors is long work.
pub fn verify<E: From<EntryError>>(
    entries: Vec<Result<Entry, E>>,
    mut step: impl FnMut(),
) -> Vec<Result<VerifiedEntry, E>> {
    let mut entries: Vec<_> = entries.into_iter().enumerate().collect();
    // The one that vouches comes before those it vouches for.
    entries.sort_by_key(|(_, entry)| Reverse(entry.as_ref().map_or(0, |entry| entry.header.seq)));
    let mut vouched = BTreeSet::new();
    let mut checked: Vec<_> = entries
        .into_iter()
        .map(|(place, entry)| {
            step();
            let checked = entry.and_then(|entry| Ok(check(entry, &mut vouched)?));
            (place, checked)
        })
        .collect();
    checked.sort_by_key(|(place, _)| *place);
    checked.into_iter().map(|(_, checked)| checked).collect()
}

// `vouched`: what authentic entries have said of their own authors' entries.
fn check(
    entry: Entry,
    vouched: &mut BTreeSet<(Author, EntryId)>,
) -> Result<VerifiedEntry, EntryError> {
    let author = entry.author();
    let entry = if vouched.contains(&(author, entry.id)) {
        entry.vouched()
    } else {
        entry.verify()?
    };
    if !entry.header.seq.is_multiple_of(RUN_ENTRIES_MAX) {
        vouched.extend(entry.header.prev.map(|prev| (author, prev)));
    }
    Ok(entry)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::entry::tests::{AUTHOR_A, AUTHOR_B, entry};

    // A chain of one author: /0, /0, ... each after the one before.
    fn chain(secret: [u8; 32], first: Option<&VerifiedEntry>, length: u64) -> Vec<VerifiedEntry> {
        let mut chain: Vec<VerifiedEntry> = first.into_iter().cloned().collect();
        for wall_ms in 1..=length {
            let (seq, prev, before_ms) = chain.last().map_or((0, None, 0), |prev| {
                (prev.header.seq, Some(prev.id), prev.header.hlc.wall_ms)
            });
            chain.push(entry(secret, seq + 1, prev, before_ms + wall_ms, "/0"));
        }
        chain.split_off(usize::from(first.is_some()))
    }

    // Not what anybody signed. Its id changes, so nothing that was signed later links to it.
    fn forged(entry: &VerifiedEntry) -> Entry {
        let mut signed = entry.signed.clone();
        signed.signature[3] ^= 1;
        signed.parse().unwrap()
    }

    fn bare(entries: &[&VerifiedEntry]) -> Vec<Result<Entry, EntryError>> {
        entries.iter().map(|entry| Ok((***entry).clone())).collect()
    }

    #[test]
    fn a_run_needs_one_check_and_keeps_its_order_among_others() {
        let (a, b) = (chain(AUTHOR_A, None, 3), chain(AUTHOR_B, None, 2));
        let entries = [&a[0], &b[0], &a[1], &a[2], &b[1]];
        let checked = verify(bare(&entries), || {});
        let ids = checked.iter().map(|entry| entry.as_ref().unwrap().id);
        assert!(ids.eq(entries.iter().map(|entry| entry.id)));
    }

    // Nobody needs to check a signature that a later, checked one has said is good: here it is
    // not, and the author said so. It counts, as the chain through it counts.
    #[test]
    fn what_an_authentic_later_entry_commits_to_is_not_checked_itself() {
        let first = chain(AUTHOR_A, None, 1).remove(0);
        let odd = forged(&first);
        let second = entry(AUTHOR_A, 2, Some(odd.id), 9, "/1");
        let entries = vec![Ok(odd.clone()), Ok((*second).clone())];
        assert!(
            verify::<EntryError>(entries, || {})
                .iter()
                .all(Result::is_ok)
        );
        assert!(verify::<EntryError>(vec![Ok(odd)], || {})[0].is_err());
    }

    #[test]
    fn b8_a_bad_last_signature_is_named_and_the_ones_before_it_count() {
        let a = chain(AUTHOR_A, None, 4);
        let mut entries = bare(&[&a[0], &a[1], &a[2], &a[3]]);
        entries[3] = Ok(forged(&a[3]));
        let checked = verify(entries, || {});
        assert_eq!(
            checked[..3],
            a[..3].iter().cloned().map(Ok).collect::<Vec<_>>()
        );
        let author = a[0].author();
        assert_eq!(checked[3], Err(EntryError::BadSignature { author }));
    }

    #[test]
    fn b8_a_forgery_in_the_middle_breaks_the_run_in_two() {
        let a = chain(AUTHOR_A, None, 5);
        let mut entries = bare(&[&a[0], &a[1], &a[2], &a[3], &a[4]]);
        entries[2] = Ok(forged(&a[2]));
        let good: Vec<bool> = verify(entries, || {}).iter().map(Result::is_ok).collect();
        assert_eq!(good, [true, true, false, true, true]);
    }

    #[test]
    fn b1_each_branch_of_a_fork_gets_its_own_check() {
        let trunk = chain(AUTHOR_A, None, 2);
        let (left, mut right) = (
            chain(AUTHOR_A, trunk.last(), 2),
            chain(AUTHOR_A, trunk.last(), 3),
        );
        // The one with the same stamp as on the other branch is the same entry.
        right.remove(0);
        let mut entries = bare(&[
            &trunk[0], &trunk[1], &left[0], &left[1], &right[0], &right[1],
        ]);
        entries[3] = Ok(forged(&left[1]));
        entries[5] = Ok(forged(&right[1]));
        let good: Vec<bool> = verify(entries, || {}).iter().map(Result::is_ok).collect();
        assert_eq!(good, [true, true, true, false, true, false]);
    }

    // If it did, a node that got both in one message would have an entry which a node that got them
    // in two has not, and everything that depends on it.
    #[test]
    fn b8_nothing_vouches_for_what_stands_before_its_run() {
        let before = chain(AUTHOR_A, None, RUN_ENTRIES_MAX - 2);
        let last = chain(AUTHOR_A, before.last(), 1).remove(0);
        assert_eq!(last.header.seq, RUN_ENTRIES_MAX - 1);
        let odd = forged(&last);
        let next = entry(AUTHOR_A, RUN_ENTRIES_MAX, Some(odd.id), 999, "/1");
        let after = chain(AUTHOR_A, Some(&next), 1);
        let entries = vec![Ok(odd), Ok((*next).clone()), Ok((*after[0]).clone())];
        let good: Vec<bool> = verify::<EntryError>(entries, || {})
            .iter()
            .map(Result::is_ok)
            .collect();
        assert_eq!(good, [false, true, true]);
    }

    // An author can sign an entry whose `prev` is an id of somebody else's forged entry. If that
    // vouched, anybody could write in anybody's name.
    #[test]
    fn b8_nobody_vouches_for_another_author() {
        let victim = chain(AUTHOR_A, None, 1).remove(0);
        let odd = forged(&victim);
        let liar = entry(AUTHOR_B, 2, Some(odd.id), 9, "/1");
        let checked = verify::<EntryError>(vec![Ok(odd), Ok((*liar).clone())], || {});
        let author = victim.author();
        assert_eq!(checked[0], Err(EntryError::BadSignature { author }));
        assert!(checked[1].is_ok());
    }

    #[test]
    fn what_was_refused_stays_in_its_place() {
        let a = chain(AUTHOR_A, None, 2);
        let newer = EntryError::NeedsNewer { what: "test" };
        let mut entries = bare(&[&a[0], &a[1]]);
        entries.insert(1, Err(newer.clone()));
        let checked = verify(entries, || {});
        assert_eq!(checked[1], Err(newer));
        assert!(checked[0].is_ok() && checked[2].is_ok());
    }
}
