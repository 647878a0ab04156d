//! Why a store could not be opened or read.

use std::{io, path::PathBuf, sync::Arc};

use crate::{
    id::{Author, StoreId},
    log::LogError,
    protocol::entry::EntryError,
    state::StateError,
};

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A directory could not be made or read.
    #[error("cannot open {}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A log could not be read or written.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The state could neither be read nor built again.
    #[error(transparent)]
    State(#[from] StateError),
    /// A tip's signature does not verify: somebody wrote into the log.
    #[error("the log of {} is not authentic", author.short())]
    NotAuthentic {
        /// Whose.
        author: Author,
        /// Why.
        source: EntryError,
    },
    /// A log whose entries belong to another store: a file was put in the wrong place.
    #[error("the log of {} belongs to store {theirs}, this is {ours}", author.short())]
    ForeignLog {
        /// Whose log.
        author: Author,
        /// What its entries say.
        theirs: StoreId,
        /// This store.
        ours: StoreId,
    },
    /// A bug: the opening thread panicked.
    #[error("opening the store ended in a panic")]
    Panicked,
}

impl OpenError {
    /// True when bytes on the disk are not what was written, or not where they belong.
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Log(LogError::Damaged(_))
            | Self::State(StateError::Damaged { .. })
            | Self::NotAuthentic { .. }
            | Self::ForeignLog { .. } => true,
            Self::Io { .. }
            | Self::Log(LogError::Io { .. } | LogError::Full { .. })
            | Self::State(StateError::Io { .. })
            | Self::Panicked => false,
        }
    }
}

/// Why something could not be read.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ReadError {
    /// What is asked for is on the disk, and not readable.
    #[error("{what}")]
    Damaged {
        /// What and where.
        what: String,
    },
    /// The state file is damaged. It is built again from the log.
    #[error("the state file is damaged: {what}")]
    State {
        /// What was found.
        what: String,
    },
    /// The file system refused.
    #[error("cannot read the store")]
    Io {
        /// Why.
        source: Arc<io::Error>,
    },
    /// A key beyond the limits.
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
            LogError::Io { source, .. } | LogError::Full { source, .. } => Self::Io {
                source: Arc::new(source),
            },
        }
    }
}
