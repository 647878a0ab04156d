//! Why a store could not be opened or read.

use std::{io, path::PathBuf, sync::Arc};

use crate::{
    id::{Author, StoreId},
    log::{LogError, Pruned},
    protocol::entry::EntryError,
    state::StateError,
};

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// A directory could not be created or read.
    #[error("cannot open {}", path.display())]
    Io {
        /// Path of the directory.
        path: PathBuf,
        /// Answer of the file system.
        source: io::Error,
    },
    /// A log could not be read or written.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The state could neither be read nor built again.
    #[error(transparent)]
    State(#[from] StateError),
    /// A tip's signature does not verify: somebody wrote into the log.
    #[error("the log of {} ({file}) is not authentic", author.short())]
    NotAuthentic {
        /// Author of the log.
        author: Author,
        /// Name of the file in the log directory.
        file: String,
        /// Failure of the check.
        source: EntryError,
    },
    /// A log whose entries belong to another store: a file was put in the wrong place.
    #[error("the log of {} belongs to store {theirs}, this is {ours}", author.short())]
    ForeignLog {
        /// Author of the log.
        author: Author,
        /// Store that the log's newest entry names.
        theirs: StoreId,
        /// This store.
        ours: StoreId,
    },
    /// The state is gone, and cannot be built again: the logs no longer have all entries. Put back a
    /// copy of the store's files, or join with an empty directory; nothing was changed.
    #[error(
        "the state is of no use ({what}) and cannot be built again: {pruned}; put back a copy of the \
         store's directory, or join with an empty one"
    )]
    StateLost {
        /// Why the state file is of no use.
        what: String,
        /// The entries that the logs no longer have.
        pruned: Pruned,
    },
    /// A bug: the opening thread panicked.
    #[error("opening the store ended in a panic")]
    Panicked,
}

impl OpenError {
    /// Returns whether bytes on the disk are not the bytes that were written, or not in their place.
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Log(LogError::Damaged(_) | LogError::Begins { .. })
            | Self::State(StateError::Damaged { .. })
            | Self::StateLost { .. }
            | Self::NotAuthentic { .. }
            | Self::ForeignLog { .. } => true,
            Self::Io { .. }
            | Self::Log(
                LogError::Io { .. } | LogError::Full { .. } | LogError::NoDescriptor { .. },
            )
            | Self::State(StateError::Io { .. })
            | Self::Panicked => false,
        }
    }
}

/// Why a store could not be read.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The entry or row that the call needs is on the disk and unreadable.
    #[error("{what}")]
    Damaged {
        /// Name and place of the damaged record.
        what: String,
    },
    /// The state file is damaged. It is built again from the log.
    #[error("the state file is damaged: {what}")]
    State {
        /// Kind of damage that was found.
        what: String,
    },
    /// The file system refused.
    #[error("cannot read the store")]
    Io {
        /// Answer of the file system.
        source: Arc<io::Error>,
    },
    /// The call needs entries that were removed from the log here. Other members may have them.
    #[error("{0}")]
    Pruned(Pruned),
    /// The key is beyond the limits.
    #[error(transparent)]
    Key(EntryError),
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
}

impl From<StateError> for ReadError {
    fn from(error: StateError) -> Self {
        match error {
            StateError::Damaged { what } => Self::State { what },
            StateError::Io { source } => Self::Io { source },
        }
    }
}

impl From<LogError> for ReadError {
    fn from(error: LogError) -> Self {
        match error {
            LogError::Damaged(damage) => Self::Damaged {
                what: damage.to_string(),
            },
            LogError::Begins { what } => Self::Damaged { what },
            LogError::Io { source, .. }
            | LogError::Full { source, .. }
            | LogError::NoDescriptor { source, .. } => Self::Io {
                source: Arc::new(source),
            },
        }
    }
}
