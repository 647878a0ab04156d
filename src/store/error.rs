//! Why a store could not be read.

use std::sync::Arc;

use crate::{log::LogError, protocol::entry::EntryError, state::StateError};

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
        source: Arc<std::io::Error>,
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
