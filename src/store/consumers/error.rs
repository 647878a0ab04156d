//! Why a consumer does not do what it was asked.

use std::{io, sync::Arc};

use crate::{
    limits::{CONSUMER_NAME_CHARS_MAX, CONSUMERS_MAX},
    protocol::consumer::AckError,
    store::{ReadError, WatchError},
};

/// Why a consumer does not do what it was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ConsumerError {
    /// Not a name for a consumer.
    #[error(
        "{name:?} is no name for a consumer: 1 to {CONSUMER_NAME_CHARS_MAX} letters, digits, '-', \
        '_' or '.'"
    )]
    Name {
        /// What was given.
        name: String,
    },
    /// There is none of this name, or not any more.
    #[error("there is no consumer {name:?} in this store: create it first")]
    Unknown {
        /// The name.
        name: String,
    },
    /// There is one of this name, with other options.
    #[error(
        "there is a consumer {name:?} already, and its {differs} is another: delete it first, or take another name"
    )]
    Exists {
        /// The name.
        name: String,
        /// The first option that differs.
        differs: &'static str,
    },
    /// An option is beyond its limits.
    #[error("{option} must be {must}, it is {is}")]
    Option {
        /// Which.
        option: &'static str,
        /// What is allowed.
        must: String,
        /// What was given.
        is: String,
    },
    /// The store has no room for another one.
    #[error("the store has {CONSUMERS_MAX} consumers already: delete some")]
    TooMany,
    /// The log does not have what comes next, or not readable: nothing is skipped in silence.
    #[error(
        "consumer {name:?} has stopped: {reason}; reset it to a place from which history is there"
    )]
    HistoryGone {
        /// The name.
        name: String,
        /// What is missing.
        reason: String,
    },
    /// Its rows in consumers.db fail their checks. What it had not finished is not known.
    #[error("consumer {name:?} is damaged: {what}; delete it and create it again")]
    DamagedConsumer {
        /// The name.
        name: String,
        /// What was found.
        what: String,
    },
    /// consumers.db is not what was written. Nothing can stand in for it: it is not rebuilt.
    #[error(
        "consumers.db is damaged: {what}; it is not rebuilt: move it away, and create the consumers again"
    )]
    Damaged {
        /// What was found.
        what: String,
    },
    /// The file system refused. What was not durable is given out again.
    #[error("cannot read or write consumers.db")]
    Io {
        /// Why.
        source: Arc<io::Error>,
    },
    /// The answer finds nothing to answer.
    #[error(transparent)]
    Ack(#[from] AckError),
    /// The cursor is of another store, or ahead of this node.
    #[error(transparent)]
    Start(#[from] WatchError),
    /// The log or the state could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
}

impl ConsumerError {
    pub(super) fn damaged(what: impl Into<String>) -> Self {
        Self::Damaged { what: what.into() }
    }

    /// Sorts what redb says.
    pub(super) fn of_file(error: impl Into<redb::Error>) -> Self {
        match error.into() {
            redb::Error::Io(source) => source.into(),
            other => Self::damaged(other.to_string()),
        }
    }
}

impl From<io::Error> for ConsumerError {
    fn from(source: io::Error) -> Self {
        match source.kind() {
            // Also a file that is shorter than it says.
            io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => {
                Self::damaged(source.to_string())
            }
            _other => Self::Io {
                source: Arc::new(source),
            },
        }
    }
}
