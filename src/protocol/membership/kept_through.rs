//! Through where the entries of a removed author count.

use std::collections::BTreeSet;

use crate::{id::Author, protocol::frontier::FrontierTip};

/// Through where a removed author's entries count in one store: the tips of each removal.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KeptThrough(pub(super) Vec<BTreeSet<FrontierTip>>);

impl KeptThrough {
    /// True when `entry` of `author` counts: each removal has a tip that it is, or leads to.
    ///
    /// `leads` as in `Members::evaluate`, for the store that the cut is of.
    ///
    /// # Errors
    /// Those of `leads`.
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
