//! Why a log could not be read or written, and what of it is damaged.

use std::{fmt, io};

use crate::id::{Author, Seq};

/// Why a log could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// Bytes that were durable have changed. Nothing is cut; records behind them are readable.
    #[error("{0}")]
    Damaged(LogDamage),
    /// The file system refused.
    #[error("cannot read or write {file}")]
    Io {
        /// The file's name.
        file: String,
        /// Why.
        source: io::Error,
    },
    /// The file system is full; nothing was written.
    #[error("no space left to append to {file}")]
    Full {
        /// The file's name.
        file: String,
        /// What the file system says.
        source: io::Error,
    },
}

/// A damaged part of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogDamage {
    /// Whose log.
    pub author: Author,
    /// The first record it touches, as far as known.
    pub seq: Option<Seq>,
    /// The file's name.
    pub file: String,
    /// Where it begins.
    pub offset: u64,
    /// How many bytes.
    pub bytes: u64,
    /// What is wrong.
    pub what: String,
}

impl LogDamage {
    /// True for damage that is a part of this one, or this one again.
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

pub(super) fn refused(file: &str, source: io::Error) -> LogError {
    let file = file.to_owned();
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            LogError::Full { file, source }
        }
        _other => LogError::Io { file, source },
    }
}
