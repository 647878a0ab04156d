//! Why a log could not be read or written, and which part of it is damaged.

use std::{fmt, io};

use crate::{
    disk::is_out_of_descriptors,
    id::{Author, Seq},
};

/// Why a log could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// Durable bytes have changed. They are kept, and the records behind them are readable.
    #[error("{0}")]
    Damaged(LogDamage),
    /// The file system refused an operation.
    #[error("cannot read or write {file}")]
    Io {
        /// Name of the log's file.
        file: String,
        /// Error of the file system.
        source: io::Error,
    },
    /// The process or the machine has no file descriptor left; nothing was written.
    #[error("cannot open {file}: too many files are open")]
    NoDescriptor {
        /// Name of the log's file.
        file: String,
        /// Error of the file system.
        source: io::Error,
    },
    /// The file system is full; nothing was written.
    #[error("no space left to append to {file}")]
    Full {
        /// Name of the log's file.
        file: String,
        /// Error of the file system.
        source: io::Error,
    },
    /// The file that says where the logs begin cannot be used: what was removed from them is not known.
    /// The way out: put back a copy of the file, or join from an empty directory and let a peer send
    /// the store.
    #[error(
        "the file `begins` of the logs cannot be used: {what}; put back a copy of it, or join with an \
         empty directory"
    )]
    Begins {
        /// The check that failed, for people.
        what: String,
    },
}

/// A run of durable bytes of a log that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogDamage {
    /// Author of the log.
    pub author: Author,
    /// Place of the first entry that the bytes held; `None` when it is not known.
    pub seq: Option<Seq>,
    /// Name of the log's file.
    pub file: String,
    /// Offset of the first bad byte.
    pub offset: u64,
    /// Number of bad bytes.
    pub bytes: u64,
    /// The check that failed, for people.
    pub what: String,
}

impl LogDamage {
    /// Returns true when `found` begins inside this damage: it is this damage again, or a part of
    /// it.
    pub fn covers(&self, found: &Self) -> bool {
        let bytes = self.offset..self.offset.saturating_add(self.bytes);
        self.file == found.file && bytes.contains(&found.offset)
    }
}

impl fmt::Display for LogDamage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "log of {} damaged", self.author.short())?;
        if let Some(seq) = self.seq {
            write!(f, " at entry {seq}")?;
        }
        write!(
            f,
            ": {} bytes at offset {} of {}: {}",
            self.bytes, self.offset, self.file, self.what
        )
    }
}

/// Why entries cannot be removed from a log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CannotPrune {
    /// The log does not have the entry after which it shall begin.
    #[error("the log of {} does not have the entry {seq} that it shall begin after", author.short())]
    NoEntry {
        /// Author of the log.
        author: Author,
        /// Seq of the entry.
        seq: Seq,
    },
    /// The author has a branch that left before the entry and is not void, or several entries were named.
    /// Places alone would no longer distinguish the branches.
    #[error("the log of {} has a fork before entry {seq}", author.short())]
    Forked {
        /// Author of the log.
        author: Author,
        /// Seq of the entry.
        seq: Seq,
    },
    /// The signature of the entry is wrong, and only a later entry vouches for it.
    #[error("entry {seq} of {} does not verify by itself", author.short())]
    Unvouched {
        /// Author of the log.
        author: Author,
        /// Seq of the entry.
        seq: Seq,
    },
    /// The log is damaged at the entry, behind it or before it.
    #[error("{0}")]
    Damaged(LogDamage),
}

/// Why a base cannot take the place of entries of the logs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CannotInstall {
    /// A log here begins after the place up to which the base has the author's entries: those between the
    /// two would be nowhere.
    #[error(
        "this node has removed entries of {} through {seq}, and the base of the other node does not have \
         all of them",
        author.short()
    )]
    Apart {
        /// Author of the entries; of several, the first.
        author: Author,
        /// Last entry that was removed here, inclusive.
        seq: Seq,
    },
    /// This node's own log ends before the anchor, though it was not lost: it may have entries that the
    /// base does not have.
    #[error(
        "this node's own log ends at entry {ours}, and the base of the other node has its entries through \
         {theirs}: this is an older copy of the node"
    )]
    OwnLogBehind {
        /// The last own entry here.
        ours: Seq,
        /// The last own entry in the base.
        theirs: Seq,
    },
    /// This node's own log and the base have another entry there: the log has forked.
    #[error(
        "entry {seq} of this node's own log is another one here than in the base of the other node"
    )]
    OwnLogForked {
        /// Last own entry in the base.
        seq: Seq,
    },
    /// All entries of the base are here: it would only take their place.
    #[error("all entries of the base are here")]
    NothingLacked,
}

/// Returns the error for an operation on `file` that the file system refused.
pub(super) fn file_error(file: &str, source: io::Error) -> LogError {
    let file = file.to_owned();
    match source.kind() {
        _any if is_out_of_descriptors(&source) => LogError::NoDescriptor { file, source },
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            LogError::Full { file, source }
        }
        _other => LogError::Io { file, source },
    }
}
