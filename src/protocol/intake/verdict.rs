//! A verdict: the decision about an entry, and its reason.

use crate::{
    id::{Author, EntryId, Seq},
    limits::FORKS_MAX,
    protocol::{chain::ChainError, entry::VerifiedEntry, heads::Before},
};

/// Decision about an entry that was offered.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "an entry that is to be appended is nowhere else"]
pub enum Verdict {
    /// The caller appends it to a branch, applies it, and calls `Intake::staged`.
    Append {
        /// Index into the tips of its author.
        branch: usize,
        /// Heads of the entry's keys, and its ancestors among them.
        before: Before,
    },
    /// The caller begins a branch with it, applies it, and calls `Intake::staged`.
    Begin {
        /// True when its author has a branch already: two entries were signed for one place.
        fork: bool,
        /// Heads of the entry's keys, and its ancestors among them.
        before: Before,
    },
    /// It is in the log.
    Duplicate,
    /// Its place in the log is a hole: the caller keeps it until the whole hole can be filled.
    Repairs,
    /// It is pending: kept until this entry, its predecessor or a parent, has come.
    AwaitsEntry(EntryId),
    /// It is held: kept until the clock reaches this time, ms since 1970.
    AwaitsClock {
        /// When it is offered again.
        due_ms: u64,
    },
    /// It is kept until somebody admits its author.
    AwaitsMember,
    /// It was set aside: its own signature is wrong, and it is kept until an entry is offered that
    /// vouches for it and can be staged with it.
    AwaitsVoucher,
    /// The caller offers these again in the same group, in this order: all will be staged. The last is
    /// the entry that was offered, the others were set aside and it vouches for them.
    Run(Vec<VerifiedEntry>),
    /// It can never be applied.
    Refused(Refusal),
}

/// Why an authentic entry of this store can never be applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// It does not fit its author's log.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// Its author's role does not allow it to write.
    #[error("node {author} may not write: its role is reader")]
    Reader {
        /// Author of the entry.
        author: Author,
    },
    /// It is on a branch that left the final entries of its author below an anchor.
    #[error(
        "entry {seq} of {author} is on a branch that left its log below the entries that are final: it \
         has no effect on any node. This happens when a node was restored from an old copy; `lattice \
         repair` there goes on after the final entries"
    )]
    Void {
        /// Author of the entry.
        author: Author,
        /// Its place.
        seq: Seq,
    },
    /// Its author's key is spent in this store.
    #[error("node {author} signed more than {FORKS_MAX} forks of its log here: none of it counts")]
    Spent {
        /// Author of the entry.
        author: Author,
    },
    /// Its author was removed or lowered to reader, and that does not cover this entry.
    #[error(
        "node {author} was removed or is a reader now, and this entry is not among those that still count"
    )]
    Removed {
        /// Author of the entry.
        author: Author,
    },
}
