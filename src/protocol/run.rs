//! Run: consecutive entries of one author, of which only the last needs a check of its signature.
//!
//! An entry is authentic if its own signature verifies, or if an authentic entry of the same author
//! has its id as `prev`: an id covers the signature, so by signing the later entry the author
//! vouches for the earlier one. This matters because a strict Ed25519 check costs as much as 150
//! hashes.
//!
//! An author can vouch for an entry whose own signature is wrong. Nodes that receive the entries in
//! different messages must still agree. So an entry whose seq is a multiple of `RUN_ENTRIES_MAX`
//! begins a run and does not vouch for its `prev`, nor does an entry vouch for what lies more than
//! `RUN_BYTES_MAX` back. Nobody vouches for an entry of another author.
//!
//! An entry that does not verify by itself is stored in one group with its run up to an entry that does, or not
//! at all (`intake`), and counts only while such an entry counts (`log::ancestry`).

use std::{cmp::Reverse, collections::BTreeMap};

use crate::{
    id::{Author, EntryId},
    limits::{RUN_BYTES_MAX, RUN_ENTRIES_MAX},
    protocol::entry::{Entry, EntryError, VerifiedEntry},
};

/// Checks the signatures of entries that came in one message, and returns them in the same order.
///
/// Entries of a run need not be neighbours in `entries`. Only the last signature of a run is
/// checked. If it is wrong, its entry is an error and the entry before is checked, and so on: valid
/// entries before an invalid one still count. Several runs of one author (a fork, a missing entry,
/// a multiple of `RUN_ENTRIES_MAX`) get a check each. An `Err` of the input is returned in its
/// place; `E` is the caller's error type.
///
/// `step` is called before each entry, so that the caller can give way to other work: a message in
/// which each entry has another author takes long.
pub fn verify<E: From<EntryError>>(
    entries: Vec<Result<Entry, E>>,
    mut step: impl FnMut(),
) -> Vec<Result<VerifiedEntry, E>> {
    let mut entries: Vec<_> = entries.into_iter().enumerate().collect();
    // Highest seq first, so that an entry comes before the entries that it vouches for.
    entries.sort_by_key(|(_, entry)| Reverse(entry.as_ref().map_or(0, |entry| entry.header.seq)));
    let mut vouched = BTreeMap::new();
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

// `vouched`: ids that authentic entries of the same author have as `prev`, with that author, and the
// bytes that are left of the longest such run.
fn check(
    entry: Entry,
    vouched: &mut BTreeMap<(Author, EntryId), usize>,
) -> Result<VerifiedEntry, EntryError> {
    let (author, bytes) = (entry.author(), entry.signed_bytes());
    let vouched_bytes = vouched.get(&(author, entry.id)).copied();
    let left = vouched_bytes.and_then(|left| left.checked_sub(bytes));
    let (entry, left) = match left {
        Some(left) => (entry.vouched(), left),
        None => (entry.verify()?, RUN_BYTES_MAX.saturating_sub(bytes)),
    };
    if let Some(prev) = entry.header.prev
        && !entry.header.seq.is_multiple_of(RUN_ENTRIES_MAX)
    {
        let known = vouched.entry((author, prev)).or_default();
        *known = left.max(*known);
    }
    Ok(entry)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::entry::tests::{AUTHOR_A, AUTHOR_B, entry};

    // Returns `length` entries of one author, the first of them after `first`; each puts /0.
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

    // Returns `entry` with a wrong signature. Its id differs, so later signed entries do not link
    // to it.
    fn forged(entry: &VerifiedEntry) -> Entry {
        let mut signed = entry.signed.clone();
        signed.signature[3] ^= 1;
        signed.parse().unwrap()
    }

    fn bare(entries: &[&VerifiedEntry]) -> Vec<Result<Entry, EntryError>> {
        entries.iter().map(|entry| Ok((***entry).clone())).collect()
    }

    #[test]
    fn checked_entries_keep_their_order() {
        let (a, b) = (chain(AUTHOR_A, None, 3), chain(AUTHOR_B, None, 2));
        let entries = [&a[0], &b[0], &a[1], &a[2], &b[1]];
        let checked = verify(bare(&entries), || {});
        let ids = checked.iter().map(|entry| entry.as_ref().unwrap().id);
        assert!(ids.eq(entries.iter().map(|entry| entry.id)));
    }

    // The signature of the first entry is wrong, and its author vouches for it with the second one.
    // It counts, as the chain through it does.
    #[test]
    fn vouched_entry_is_not_checked_itself() {
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
    fn b8_bad_last_signature_spares_those_before() {
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
    fn b8_forgery_in_the_middle_splits_the_run() {
        let a = chain(AUTHOR_A, None, 5);
        let mut entries = bare(&[&a[0], &a[1], &a[2], &a[3], &a[4]]);
        entries[2] = Ok(forged(&a[2]));
        let good: Vec<bool> = verify(entries, || {}).iter().map(Result::is_ok).collect();
        assert_eq!(good, [true, true, false, true, true]);
    }

    #[test]
    fn b1_each_branch_of_a_fork_is_checked() {
        let trunk = chain(AUTHOR_A, None, 2);
        let (left, mut right) = (
            chain(AUTHOR_A, trunk.last(), 2),
            chain(AUTHOR_A, trunk.last(), 3),
        );
        // With the same stamp, the first entry of this branch is the same entry as on the other
        // one.
        right.remove(0);
        let mut entries = bare(&[
            &trunk[0], &trunk[1], &left[0], &left[1], &right[0], &right[1],
        ]);
        entries[3] = Ok(forged(&left[1]));
        entries[5] = Ok(forged(&right[1]));
        let good: Vec<bool> = verify(entries, || {}).iter().map(Result::is_ok).collect();
        assert_eq!(good, [true, true, true, false, true, false]);
    }

    // Otherwise a node that received both in one message would have an entry that a node which
    // received them in two messages refuses, with everything that depends on it.
    #[test]
    fn b8_entry_before_the_run_is_not_vouched_for() {
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

    // The `prev` of an entry can be the id of a forged entry of another author. If that vouched for
    // it, anybody could write in the name of any author.
    #[test]
    fn b8_author_cannot_vouch_for_another() {
        let victim = chain(AUTHOR_A, None, 1).remove(0);
        let odd = forged(&victim);
        let liar = entry(AUTHOR_B, 2, Some(odd.id), 9, "/1");
        let checked = verify::<EntryError>(vec![Ok(odd), Ok((*liar).clone())], || {});
        let author = victim.author();
        assert_eq!(checked[0], Err(EntryError::BadSignature { author }));
        assert!(checked[1].is_ok());
    }

    #[test]
    fn earlier_refusal_stays_in_its_place() {
        let a = chain(AUTHOR_A, None, 2);
        let newer = EntryError::NeedsNewer { what: "test" };
        let mut entries = bare(&[&a[0], &a[1]]);
        entries.insert(1, Err(newer.clone()));
        let checked = verify(entries, || {});
        assert_eq!(checked[1], Err(newer));
        assert!(checked[0].is_ok() && checked[2].is_ok());
    }
}
