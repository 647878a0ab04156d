//! Why the state could not be read or written.

use std::{io, sync::Arc};

/// Why the state could not be read or written.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// The file is not as it was written. The file is built again from the log.
    #[error("the state file is damaged: {what}")]
    Damaged {
        /// The check that failed, for people.
        what: String,
    },
    /// The file system refused an operation, or the flusher thread has ended.
    #[error("cannot read or write the state file")]
    Io {
        /// Error of the file system. Shared, because the writer reports it to every caller.
        source: Arc<io::Error>,
    },
}

impl StateError {
    pub(super) fn damaged(what: &str) -> Self {
        Self::Damaged {
            what: what.to_owned(),
        }
    }
}

impl From<io::Error> for StateError {
    fn from(source: io::Error) -> Self {
        match source.kind() {
            // `UnexpectedEof`: the file is shorter than redb's header says.
            io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => Self::Damaged {
                what: source.to_string(),
            },
            _other => Self::Io {
                source: Arc::new(source),
            },
        }
    }
}

impl From<redb::Error> for StateError {
    fn from(error: redb::Error) -> Self {
        match error {
            redb::Error::Io(source) => source.into(),
            other => Self::Damaged {
                what: other.to_string(),
            },
        }
    }
}

macro_rules! from_redb {
    ($($error:ident),*) => {
        $(impl From<redb::$error> for StateError {
            fn from(error: redb::$error) -> Self {
                redb::Error::from(error).into()
            }
        })*
    };
}
from_redb!(
    StorageError,
    TableError,
    TransactionError,
    CommitError,
    DatabaseError,
    SetDurabilityError
);
