//! Kept entries: through which entries a removed author counts in one store.
//!
//! Each counting removal of the author names tips in the store. An entry is kept if, for every
//! removal, it is one of these tips or a tip leads back to it. A removal that names no tip in the
//! store keeps nothing there. While a tip, or the branch between it and the entry, is not here,
//! every entry with a lesser seq than the tip's is taken to be kept.

use std::collections::BTreeSet;

use crate::{id::Author, protocol::frontier::FrontierTip};

/// Tips through which a removed author's entries count in one store, one set for each removal.
///
/// Without any set every entry is kept.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KeptThrough(pub(super) Vec<BTreeSet<FrontierTip>>);

impl KeptThrough {
    /// Returns whether `entry` of `author` is kept by every removal.
    ///
    /// `leads` is as in [`Members::evaluate`](super::Members::evaluate), for the store that the
    /// tips are in.
    ///
    /// # Errors
    /// The error of `leads`.
    pub fn covers<E>(
        &self,
        author: &Author,
        entry: FrontierTip,
        leads: impl Fn(&Author, FrontierTip, FrontierTip) -> Result<Option<bool>, E>,
    ) -> Result<bool, E> {
        for tips in &self.0 {
            let mut covered = false;
            for tip in tips {
                covered = covered || is_within(author, entry, *tip, &leads)?;
            }
            if !covered {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

fn is_within<E>(
    author: &Author,
    entry: FrontierTip,
    tip: FrontierTip,
    leads: impl Fn(&Author, FrontierTip, FrontierTip) -> Result<Option<bool>, E>,
) -> Result<bool, E> {
    if entry == tip {
        return Ok(true);
    }
    Ok(entry.seq < tip.seq && leads(author, entry, tip)?.unwrap_or(true))
}
