//! Kept entries: through which entries a removed or lowered author counts in one store.
//!
//! Each counting removal or lowering of the author names tips in the store. It keeps an entry
//! that is one of these tips, or that a tip leads back to; without a tip it keeps nothing. An entry is kept if
//! every removal by others keeps it and, where an admin left, one of its own removals does. While
//! a tip, or the branch between it and the entry, is not here, every entry with a lesser seq than
//! the tip's is taken to be kept. So only nodes that are trusted with that may name tips: any other
//! author could name one that nobody will ever have, and sign what it likes below it.

use std::collections::BTreeSet;

use crate::{id::Author, protocol::frontier::FrontierTip};

/// Tips through which a removed author's entries count in one store, one set for each removal that
/// speaks of it.
///
/// Without any set every entry is kept.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KeptThrough {
    // By other nodes, lowerings too: each must keep an entry.
    pub(super) removals: Vec<BTreeSet<FrontierTip>>,
    // By the author itself, if it was an admin: one must keep it, if there is any.
    pub(super) leaves: Vec<BTreeSet<FrontierTip>>,
}

impl KeptThrough {
    /// Returns what one removal by another node keeps, which names `tips` in the store.
    #[cfg(test)]
    pub(in crate::protocol) fn by_one(tips: impl IntoIterator<Item = FrontierTip>) -> Self {
        Self {
            removals: vec![tips.into_iter().collect()],
            leaves: Vec::new(),
        }
    }

    /// Returns whether no entry is kept but those at and before tips for which `is_bound` is true.
    ///
    /// # Errors
    /// The error of `is_bound`.
    pub fn is_bounded<E>(
        &self,
        is_bound: impl Fn(FrontierTip) -> Result<bool, E>,
    ) -> Result<bool, E> {
        let all = |tips: &BTreeSet<FrontierTip>| {
            for tip in tips {
                if !is_bound(*tip)? {
                    return Ok(false);
                }
            }
            Ok(true)
        };
        for tips in &self.removals {
            if all(tips)? {
                return Ok(true);
            }
        }
        for tips in &self.leaves {
            if !all(tips)? {
                return Ok(false);
            }
        }
        Ok(!self.leaves.is_empty())
    }

    /// Returns whether `entry` of `author` is kept.
    ///
    /// `leads` is as in [`Members::evaluate`](super::Members::evaluate), for the store that the
    /// tips are in; see `LogReader::keeps`.
    ///
    /// # Errors
    /// The error of `leads`.
    pub fn covers<E>(
        &self,
        author: &Author,
        entry: FrontierTip,
        leads: impl Fn(&Author, FrontierTip, FrontierTip) -> Result<Option<bool>, E>,
    ) -> Result<bool, E> {
        for tips in &self.removals {
            if !is_kept(author, entry, tips, &leads)? {
                return Ok(false);
            }
        }
        for tips in &self.leaves {
            if is_kept(author, entry, tips, &leads)? {
                return Ok(true);
            }
        }
        Ok(self.leaves.is_empty())
    }
}

fn is_kept<E>(
    author: &Author,
    entry: FrontierTip,
    tips: &BTreeSet<FrontierTip>,
    leads: impl Fn(&Author, FrontierTip, FrontierTip) -> Result<Option<bool>, E>,
) -> Result<bool, E> {
    for tip in tips {
        if is_within(author, entry, *tip, &leads)? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn is_within<E>(
    author: &Author,
    entry: FrontierTip,
    tip: FrontierTip,
    leads: impl Fn(&Author, FrontierTip, FrontierTip) -> Result<Option<bool>, E>,
) -> Result<bool, E> {
    let may_be = entry == tip || entry.seq < tip.seq;
    Ok(may_be && leads(author, entry, tip)?.unwrap_or(true))
}
