//! Where an entry belongs in its author's log: at a tip, on a new branch, or not yet.

use crate::{
    id::{EntryId, Seq},
    protocol::{entry::Entry, hlc::Hlc},
};

/// The newest entry of a branch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tip {
    /// Its place.
    pub seq: Seq,
    /// Its id.
    pub id: EntryId,
    /// When it was written.
    pub hlc: Hlc,
}

/// What to do with an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// Append to the branch with this index.
    Append {
        /// Index into the branches given.
        branch: usize,
    },
    /// Begin the author's first branch.
    First,
    /// It is there already.
    Duplicate,
    /// Two entries with one seq: begin a new branch.
    Fork {
        /// Index of the branch it leaves, or `None` when it contests the first entry.
        branch: Option<usize>,
    },
    /// Entries before it are missing.
    Gap {
        /// First missing place, inclusive, as far as known.
        from: Seq,
        /// Last missing place, inclusive.
        through: Seq,
    },
}

/// Why an entry can never be admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// Its clock is not after its predecessor's.
    #[error("entry {seq} is stamped {hlc}, not after its predecessor's {prev_hlc}")]
    ClockWentBack {
        /// Its place.
        seq: Seq,
        /// Its stamp.
        hlc: Hlc,
        /// The predecessor's stamp.
        prev_hlc: Hlc,
    },
}

/// Decides where `entry` belongs, given its author's branches.
///
/// `tips` has one tip a branch. `at(branch, seq)` returns the entry of that branch (its ancestors
/// on other branches not included), or `None`.
///
/// # Errors
/// `ClockWentBack`.
pub fn admit(
    tips: &[Tip],
    entry: &Entry,
    mut at: impl FnMut(usize, Seq) -> Option<Tip>,
) -> Result<Admission, ChainError> {
    let seq = entry.header.seq;
    // The usual case first: it needs no look into a log.
    if let Some(prev) = entry.header.prev
        && let Some(branch) = tips.iter().position(|tip| tip.id == prev)
        && let Some(tip) = tips.get(branch)
    {
        after(entry, tip)?;
        return Ok(Admission::Append { branch });
    }
    let mut found = |seq: Seq, id: EntryId| {
        tips.iter().enumerate().find_map(|(branch, tip)| {
            let there = if tip.seq == seq {
                Some(*tip)
            } else {
                at(branch, seq)
            };
            there
                .filter(|there| there.id == id)
                .map(|there| (branch, there))
        })
    };
    if found(seq, entry.id).is_some() {
        return Ok(Admission::Duplicate);
    }
    let Some(prev) = entry.header.prev else {
        return Ok(if tips.is_empty() {
            Admission::First
        } else {
            Admission::Fork { branch: None }
        });
    };
    let before = seq.saturating_sub(1);
    if let Some((branch, there)) = found(before, prev) {
        after(entry, &there)?;
        return Ok(Admission::Fork {
            branch: Some(branch),
        });
    }
    let known = tips.iter().map(|tip| tip.seq).max().unwrap_or(0);
    Ok(Admission::Gap {
        from: known.saturating_add(1).min(before),
        through: before,
    })
}

fn after(entry: &Entry, prev: &Tip) -> Result<(), ChainError> {
    if entry.header.hlc > prev.hlc {
        return Ok(());
    }
    Err(ChainError::ClockWentBack {
        seq: entry.header.seq,
        hlc: entry.header.hlc,
        prev_hlc: prev.hlc,
    })
}
