//! The limits of a write, and the errors that refuse it.

use std::io;

use bytes::Bytes;

use crate::{
    clock::about,
    id::{EntryId, Seq},
    limits::{FORKS_MAX, OPS_BYTES_MAX, OPS_MAX},
    log::LogError,
    protocol::{
        entry::{EntryError, Op},
        hlc::HlcExhausted,
        membership::reserved,
    },
    state::StateError,
    store::{Condition, ReadError, Write},
};

/// Why nothing was written.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The write has no op.
    #[error("a write needs at least one op")]
    Empty,
    /// A key, a value or a batch is beyond the limits.
    #[error(transparent)]
    Entry(#[from] EntryError),
    /// Only the node itself writes keys under this prefix.
    #[error(
        "only the node itself writes keys under {prefix} of the root store; this key is {}",
        String::from_utf8_lossy(.key)
    )]
    Reserved {
        /// The key.
        key: Bytes,
        /// Reserved prefix of the key.
        prefix: &'static str,
    },
    /// The condition does not hold.
    #[error(
        "the condition on {} does not hold: {}",
        String::from_utf8_lossy(.key),
        found(.winner.as_ref())
    )]
    PreconditionFailed {
        /// The key.
        key: Bytes,
        /// Condition of the write.
        condition: Condition,
        /// Winner of the key; `None` when it has no head.
        winner: Option<EntryId>,
    },
    /// This node has written for this cause before. Nothing was written now.
    #[error("entry {entry} was written for the same cause before; it is not written twice")]
    AlreadyCaused {
        /// Entry that was written for the same cause.
        entry: EntryId,
        /// Its place in this node's log.
        seq: Seq,
    },
    /// The file system is full. Reads go on, and writes when there is space again.
    #[error("no space left on the file system of the store: {what}")]
    DiskFull {
        /// File that could not be written.
        what: String,
    },
    /// The process or the machine has no file descriptor left. Reads go on as far as they need none,
    /// and writes when some are free again.
    #[error("too many files are open to write to the store: {what}")]
    NoDescriptor {
        /// File that could not be opened.
        what: String,
    },
    /// An earlier write failed in a way that leaves open what is on disk. Opening the store again is
    /// the only way on; reads go on until then.
    #[error("the store takes no writes until it is opened again: {reason}")]
    Poisoned {
        /// Failure of that write.
        reason: String,
    },
    /// This node's log has two branches: its key is used in two places, or a backup was restored.
    /// `Store::repair` closes all but one; reads, and entries of others, go on meanwhile.
    #[error("this node's own log has forked at entry {seq}: two places have written with its key")]
    OwnFork {
        /// First place for which two entries were signed.
        seq: Seq,
    },
    /// An entry of this node that is final on every node is not here: the node runs from an older copy of
    /// its directory. What it would write now would never count; reads, and entries of others, go on.
    #[error(
        "entry {seq} of this node's own log is final and not here: this is an older copy of the node"
    )]
    OwnLogBehind {
        /// Seq of that entry.
        seq: Seq,
    },
    /// This node's log goes on where it left the entries that are final on every node: the node was
    /// restored from an older copy and has written before it had met a member. `Store::repair` writes
    /// those values again, after the final entries; reads, and entries of others, go on meanwhile.
    #[error(
        "this node's own log left the entries that are final on every node before entry {seq}, so what \
         it wrote since has no effect"
    )]
    OwnLogVoid {
        /// The first of these entries.
        seq: Seq,
    },
    /// No admin has admitted this node, as far as this node knows.
    #[error("this node is not a member of the store's mesh yet")]
    NotAdmitted,
    /// This node's role does not allow it to write.
    #[error("this node may only read: its role is reader")]
    Reader,
    /// This node was removed from the mesh.
    #[error("this node was removed from the mesh; what it wrote before is still there")]
    Removed,
    /// This node's key has signed too many forks.
    #[error(
        "the key of this node is spent in this store: more than {FORKS_MAX} forks of its log were signed \
         with it, so nothing of it counts any more"
    )]
    KeySpent,
    /// The end of this node's own log is gone: its file was truncated, deleted, or replaced by an
    /// older copy. An entry in a place that was taken would be a fork. `Store::repair` gives the
    /// lost entries up; reads, and entries of other nodes, go on meanwhile.
    #[error(
        "the end of this node's own log is gone: entries {first} to {through} were durable, and are \
        not in its file"
    )]
    OwnLogCut {
        /// First entry that is lost.
        first: Seq,
        /// Newest entry that was durable here, inclusive.
        through: Seq,
    },
    /// The node was restored from a snapshot, and no other member has given back yet what this node
    /// wrote after it. An entry in a place that was taken would be a fork. `Node::own_log_is_back` gives
    /// those entries up; reads, and entries of other nodes, go on meanwhile.
    #[error(
        "this node was restored from a snapshot and has not met another member since: members may have \
         newer entries that this node wrote"
    )]
    Restored,
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
    /// The entry would be stamped so far ahead that other nodes would not apply it before their
    /// clocks come to it. Nothing was signed.
    #[error("{by} is {} ahead of {}: other nodes would wait with what is written", about(*.ahead_ms), by.compared_with())]
    FarAhead {
        /// Reason for the stamp.
        by: StampedBy,
        /// Milliseconds between the clock that it was compared with and the stamp.
        ahead_ms: u64,
    },
    /// The clock has no stamp left.
    #[error(transparent)]
    Clock(#[from] HlcExhausted),
    /// The state could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// Reason why an entry would be stamped far ahead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StampedBy {
    /// The clock of this node. It was compared with those of the writers and admins within reach:
    /// with their median, at the start and after a jump of the clock.
    Clock,
    /// The newest entry of this node, which was written while its clock was ahead.
    OwnEntry,
    /// An entry that is written over.
    Cited,
    /// The grant by which this node is an admin. It was compared with this node's clock.
    Authority,
}

impl StampedBy {
    fn compared_with(self) -> &'static str {
        match self {
            Self::Clock | Self::OwnEntry | Self::Cited => "the clocks of the members within reach",
            Self::Authority => "the clock of this node",
        }
    }
}

impl std::fmt::Display for StampedBy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Clock => "the clock of this node",
            Self::OwnEntry => "the newest entry of this node",
            Self::Cited => "the value that would be written over",
            Self::Authority => "the grant by which this node is an admin",
        })
    }
}

impl Write {
    /// Returns about how many bytes its ops have when they are encoded.
    pub(super) fn bytes(&self) -> usize {
        self.ops.iter().map(Op::encoded_bytes_max).sum()
    }

    // Checks everything that needs no state.
    pub(in crate::store) fn check(&self, reserves_keys: bool) -> Result<(), WriteError> {
        if self.ops.is_empty() {
            return Err(WriteError::Empty);
        }
        if self.ops.len() > OPS_MAX {
            return Err(EntryError::TooManyOps {
                ops: self.ops.len(),
                ops_max: OPS_MAX,
            }
            .into());
        }
        if let Some(cause) = &self.cause {
            cause.check()?;
        }
        let mut bytes = 0;
        for op in &self.ops {
            op.check()?;
            bytes += op.encoded_bytes_max();
            let reserved = reserved::PREFIXES
                .iter()
                .find(|prefix| op.key().starts_with(prefix.as_bytes()));
            if let Some(prefix) = reserved.filter(|_| reserves_keys) {
                return Err(WriteError::Reserved {
                    key: op.key().clone(),
                    prefix,
                });
            }
        }
        if bytes > OPS_BYTES_MAX {
            return Err(EntryError::OpsTooLong {
                bytes,
                bytes_max: OPS_BYTES_MAX,
            }
            .into());
        }
        Ok(())
    }
}

impl From<LogError> for WriteError {
    fn from(error: LogError) -> Self {
        match error {
            LogError::Full { file, source } => Self::DiskFull {
                what: format!("{file}: {source}"),
            },
            LogError::NoDescriptor { file, source } => Self::NoDescriptor {
                what: format!("{file}: {source}"),
            },
            LogError::Io { file, source } => Self::Poisoned {
                reason: format!("{file}: {source}"),
            },
            error @ (LogError::Damaged(_) | LogError::Begins { .. }) => {
                ReadError::from(error).into()
            }
        }
    }
}

impl From<StateError> for WriteError {
    fn from(error: StateError) -> Self {
        match error {
            StateError::Io { source } if is_full(&source) => Self::DiskFull {
                what: format!("state.db: {source}"),
            },
            error => ReadError::from(error).into(),
        }
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

fn found(winner: Option<&EntryId>) -> String {
    match winner {
        Some(id) => format!("its winner is {}", id.short()),
        None => "it has no value".to_owned(),
    }
}
