//! Chain: where an entry belongs in its author's log.
//!
//! An author's log is one branch, or several after a fork. [`admit`] compares an entry with the
//! branches that are here, in this order:
//!
//! 1. `prev` is the tip of a branch: append to that branch.
//! 2. The entry itself is on a branch: it is a duplicate.
//! 3. It is at or before the anchor at which the author's log begins: its place is final, and nothing
//!    is done.
//! 4. It has no `prev`: it begins the first branch, or a fork if the author has a branch already.
//! 5. `prev` is on a branch at `seq - 1`, before the tip: begin a branch there (a fork). The anchor
//!    counts as an entry of its branch.
//! 6. Otherwise entries before it are missing: a gap.
//!
//! In cases 1 and 5 the entry must have the seq after that of `prev` and a greater stamp, or it is
//! never admitted. No branch is preferred to another, so the result is the same whichever branch
//! came first. That a stamp is greater than those of all parents is checked when an entry is
//! parsed.

use crate::{
    id::{EntryId, Seq},
    protocol::{entry::Entry, hlc::Hlc},
};

/// The newest entry of a branch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tip {
    /// Seq of the entry.
    pub seq: Seq,
    /// Id of the entry.
    pub id: EntryId,
    /// Stamp of the entry.
    pub hlc: Hlc,
}

/// Place of an entry in its author's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// The entry goes on at the tip of a branch.
    Append {
        /// Index into the tips that `admit` was given.
        branch: usize,
    },
    /// The entry begins the author's first branch.
    First,
    /// The entry is on a branch already.
    Duplicate,
    /// The entry is at or before the anchor: it was here, or is one of a fork that has no effect.
    Final,
    /// Another entry has the same seq: this one begins a new branch.
    Fork {
        /// Index of the branch that it leaves; `None` if it is another first entry.
        branch: Option<usize>,
    },
    /// Entries before this one are missing.
    Gap {
        /// First missing seq, inclusive. An estimate, one after the highest tip: more is missing if
        /// the entry is on a branch that left the known ones before that.
        from: Seq,
        /// Last missing seq, inclusive: the one before the entry.
        through: Seq,
    },
}

/// Why an entry can never be admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChainError {
    /// The entry's stamp is not greater than that of its `prev`.
    #[error("entry {seq} is stamped {hlc}, not later than the entry before it, {prev_hlc}")]
    ClockWentBack {
        /// Seq of the entry.
        seq: Seq,
        /// Stamp of the entry.
        hlc: Hlc,
        /// Stamp of its `prev`.
        prev_hlc: Hlc,
    },
    /// The entry's `prev` is here, and has another seq than the one before the entry's.
    #[error("entry {seq} names entry {prev_seq} as its predecessor")]
    NotNext {
        /// Seq of the entry.
        seq: Seq,
        /// Seq of its `prev`.
        prev_seq: Seq,
    },
}

/// Decides where `entry` belongs among its author's branches; see the module for the rule.
///
/// `tips` has the tip of each branch, and `anchor` is the seq of the entry at which the author's log
/// begins; `None` for a whole log. `at(branch, seq)` returns the entry at `seq` that the branch
/// itself has, or `None`; entries before the place where the branch forked belong to another
/// branch. The inner result is an error if the entry can never be admitted.
///
/// # Errors
/// The outer error is that of `at`.
pub fn admit<E>(
    tips: &[Tip],
    anchor: Option<Seq>,
    entry: &Entry,
    mut at: impl FnMut(usize, Seq) -> Result<Option<Tip>, E>,
) -> Result<Result<Admission, ChainError>, E> {
    let seq = entry.header.seq;
    // The usual case comes first: it needs no call of `at`.
    if let Some(prev) = entry.header.prev
        && let Some(branch) = tips.iter().position(|tip| tip.id == prev)
        && let Some(tip) = tips.get(branch)
    {
        return Ok(after(entry, tip).map(|()| Admission::Append { branch }));
    }
    let mut find = |seq: Seq, id: EntryId| {
        for (branch, tip) in tips.iter().enumerate() {
            let there = if tip.seq == seq {
                Some(*tip)
            } else {
                at(branch, seq)?
            };
            if let Some(there) = there.filter(|there| there.id == id) {
                return Ok(Some((branch, there)));
            }
        }
        Ok(None)
    };
    if find(seq, entry.id)?.is_some() {
        return Ok(Ok(Admission::Duplicate));
    }
    if anchor.is_some_and(|anchor| seq <= anchor) {
        return Ok(Ok(Admission::Final));
    }
    let Some(prev) = entry.header.prev else {
        return Ok(Ok(if tips.is_empty() {
            Admission::First
        } else {
            Admission::Fork { branch: None }
        }));
    };
    let before = seq.saturating_sub(1);
    if let Some((branch, there)) = find(before, prev)? {
        let branch = Some(branch);
        return Ok(after(entry, &there).map(|()| Admission::Fork { branch }));
    }
    let known = tips.iter().map(|tip| tip.seq).max().unwrap_or(0);
    Ok(Ok(Admission::Gap {
        from: known.saturating_add(1).min(before),
        through: before,
    }))
}

fn after(entry: &Entry, prev: &Tip) -> Result<(), ChainError> {
    let (seq, hlc) = (entry.header.seq, entry.header.hlc);
    if prev.seq.checked_add(1) != Some(seq) {
        return Err(ChainError::NotNext {
            seq,
            prev_seq: prev.seq,
        });
    }
    if hlc <= prev.hlc {
        return Err(ChainError::ClockWentBack {
            seq,
            hlc,
            prev_hlc: prev.hlc,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;
    use crate::protocol::entry::{
        VerifiedEntry,
        tests::{AUTHOR_A, entry},
    };

    fn tip(entry: &Entry) -> Tip {
        Tip {
            seq: entry.header.seq,
            id: entry.id,
            hlc: entry.header.hlc,
        }
    }

    fn next(prev: &Entry, key: &'static str) -> VerifiedEntry {
        let wall_ms = prev.header.hlc.wall_ms + 1;
        entry(AUTHOR_A, prev.header.seq + 1, Some(prev.id), wall_ms, key)
    }

    /// Calls `admit` with branches given as their entries, first to last.
    fn admit_to(branches: &[&[&VerifiedEntry]], entry: &Entry) -> Result<Admission, ChainError> {
        let tips: Vec<Tip> = branches
            .iter()
            .map(|branch| tip(branch.last().unwrap()))
            .collect();
        let at = |branch: usize, seq| {
            let mut entries = branches[branch].iter().map(|there| tip(there));
            Ok::<_, Infallible>(entries.find(|there| there.seq == seq))
        };
        let Ok(admission) = admit(&tips, None, entry, at);
        admission
    }

    #[test]
    fn prev_decides_where_an_entry_goes() {
        let first = entry(AUTHOR_A, 1, None, 10, "/1");
        let second = next(&first, "/2");
        let third = next(&second, "/3");
        let fourth = next(&third, "/4");
        let (other_first, other_second) = (entry(AUTHOR_A, 1, None, 10, "/x"), next(&first, "/x"));
        let other_third = next(&other_second, "/y");
        let main: &[&VerifiedEntry] = &[&first, &second, &third];
        let fork: &[&VerifiedEntry] = &[&other_second];

        let append = |branch| Ok(Admission::Append { branch });
        let forks = |branch| Ok(Admission::Fork { branch });
        let gap = |from, through| Ok(Admission::Gap { from, through });
        let duplicate = Ok(Admission::Duplicate);
        type Case<'a> = (
            &'a [&'a [&'a VerifiedEntry]],
            &'a Entry,
            Result<Admission, ChainError>,
        );
        let cases: &[Case<'_>] = &[
            (&[], &first, Ok(Admission::First)),
            (&[], &second, gap(1, 1)),
            (&[], &fourth, gap(1, 3)),
            (&[&[&first]], &first, duplicate),
            (&[&[&first]], &second, append(0)),
            (&[&[&first]], &third, gap(2, 2)),
            (&[&[&first]], &fourth, gap(2, 3)),
            (&[main], &first, duplicate),
            (&[main], &second, duplicate),
            (&[main], &third, duplicate),
            (&[main], &fourth, append(0)),
            // Another first entry; another entry in the middle; a branch that is unknown here.
            (&[main], &other_first, forks(None)),
            (&[main], &other_second, forks(Some(0))),
            (&[main], &other_third, gap(2, 2)),
            // Each of two branches goes on by itself.
            (&[main, fork], &other_second, duplicate),
            (&[main, fork], &other_third, append(1)),
            (&[main, fork], &fourth, append(0)),
            (&[fork, main], &fourth, append(1)),
            (&[main, fork], &next(&first, "/z"), forks(Some(0))),
            (&[main, fork], &next(&second, "/z"), forks(Some(0))),
        ];
        for (index, (branches, entry, expected)) in cases.iter().enumerate() {
            assert_eq!(&admit_to(branches, entry), expected, "case {index}");
        }
    }

    #[test]
    fn t5_stamp_not_after_prev_is_refused() {
        let first = entry(AUTHOR_A, 1, None, 10, "/1");
        let second = next(&first, "/2");
        for wall_ms in [0, 9, 10] {
            let late = entry(AUTHOR_A, 2, Some(first.id), wall_ms, "/x");
            let refused = Err(ChainError::ClockWentBack {
                seq: 2,
                hlc: late.header.hlc,
                prev_hlc: first.header.hlc,
            });
            assert_eq!(admit_to(&[&[&first]], &late), refused);
            assert_eq!(admit_to(&[&[&first, &second]], &late), refused);
        }
    }

    /// The log has entry 2 as its anchor, and entries 3 and 4; or nothing after the anchor.
    #[test]
    fn log_that_begins_at_an_anchor_goes_on_there() {
        let first = entry(AUTHOR_A, 1, None, 10, "/1");
        let second = next(&first, "/2");
        let third = next(&second, "/3");
        let fourth = next(&third, "/4");
        let admit_to = |log: &[&VerifiedEntry], entry: &Entry| {
            let at = |_branch, seq| {
                let mut there = log.iter().map(|there| tip(there));
                Ok::<_, Infallible>(there.find(|there| there.seq == seq))
            };
            let Ok(admission) = admit(&[tip(log.last().unwrap())], Some(2), entry, at);
            admission
        };
        let (other_first, other_second) = (entry(AUTHOR_A, 1, None, 10, "/x"), next(&first, "/x"));
        let (other_third, late) = (
            next(&second, "/x"),
            entry(AUTHOR_A, 3, Some(second.id), 11, "/x"),
        );
        let after_void = next(&other_second, "/y");
        let went_back = Err(ChainError::ClockWentBack {
            seq: 3,
            hlc: late.header.hlc,
            prev_hlc: second.header.hlc,
        });
        for log in [&[&second, &third, &fourth][..], &[&second]] {
            for known in [&first, &other_first, &other_second] {
                assert_eq!(admit_to(log, known), Ok(Admission::Final), "{log:?}");
            }
            assert_eq!(admit_to(log, &second), Ok(Admission::Duplicate));
            // The stamp of the anchor is known.
            assert_eq!(admit_to(log, &late), went_back, "{log:?}");
            let gap = admit_to(log, &after_void);
            assert!(
                matches!(gap, Ok(Admission::Gap { through: 2, .. })),
                "{gap:?}"
            );
        }
        let whole: &[&VerifiedEntry] = &[&second, &third, &fourth];
        let fork = Ok(Admission::Fork { branch: Some(0) });
        assert_eq!(admit_to(whole, &other_third), fork);
        assert_eq!(
            admit_to(whole, &next(&fourth, "/5")),
            Ok(Admission::Append { branch: 0 })
        );
        assert_eq!(
            admit_to(&[&second], &third),
            Ok(Admission::Append { branch: 0 })
        );
        assert_eq!(admit_to(whole, &third), Ok(Admission::Duplicate));
    }

    // Such an entry was once appended where its `prev` was a tip, and waited as a gap everywhere
    // else: the logs of two nodes would have differed for ever.
    #[test]
    fn b6_seq_not_next_after_prev_is_never_admitted() {
        let first = entry(AUTHOR_A, 1, None, 10, "/1");
        let second = next(&first, "/2");
        for seq in [3, 4, u64::MAX] {
            let skips = entry(AUTHOR_A, seq, Some(first.id), 20, "/x");
            let refused = Err(ChainError::NotNext { seq, prev_seq: 1 });
            assert_eq!(admit_to(&[&[&first]], &skips), refused);
            let elsewhere = admit_to(&[&[&first, &second]], &skips);
            assert!(
                matches!(elsewhere, Ok(Admission::Gap { .. })),
                "{elsewhere:?}"
            );
        }
        let back = entry(AUTHOR_A, 2, Some(second.id), 20, "/x");
        let refused = Err(ChainError::NotNext {
            seq: 2,
            prev_seq: 2,
        });
        assert_eq!(admit_to(&[&[&first, &second]], &back), refused);
    }
}
