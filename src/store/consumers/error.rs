//! Errors of a call to a consumer.

use std::{io, sync::Arc};

use crate::{
    limits::{CONSUMER_NAME_CHARS_MAX, CONSUMERS_MAX},
    protocol::consumer::AckError,
    store::{ReadError, WatchError},
};

/// Why a call to a consumer failed.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ConsumerError {
    /// The name of a consumer is malformed.
    #[error(
        "{name:?} is not a name for a consumer: expected 1 to {CONSUMER_NAME_CHARS_MAX} letters, digits, \
        '-', '_' or '.'"
    )]
    Name {
        /// Name that was refused, its first 80 characters.
        name: String,
    },
    /// No consumer has this name; it may have been deleted.
    #[error("there is no consumer {name:?} in this store: create it first")]
    Unknown {
        /// Name of the consumer.
        name: String,
    },
    /// A consumer with this name exists, with other options.
    #[error(
        "a consumer {name:?} exists already, with another {differs}: delete it first, or choose another name"
    )]
    Exists {
        /// Name of the consumer.
        name: String,
        /// First option that differs.
        differs: &'static str,
    },
    /// An option is outside its limits.
    #[error("{option} must be {must}, it is {is}")]
    Option {
        /// Name of the option.
        option: &'static str,
        /// Values that are allowed, in words.
        must: String,
        /// Value that was refused.
        is: String,
    },
    /// The store has `CONSUMERS_MAX` consumers.
    #[error("the store has {CONSUMERS_MAX} consumers already: delete some")]
    TooMany,
    /// The next changes are missing from the log or cannot be read. No change is skipped silently.
    #[error(
        "consumer {name:?} has stopped: {reason}; set on_gap to state, or reset it to a position from which the log is \
        complete"
    )]
    HistoryGone {
        /// Name of the consumer.
        name: String,
        /// Changes that are missing, and why.
        reason: String,
    },
    /// The consumer's rows in consumers.db fail their checks: its outstanding changes are not known.
    #[error("consumer {name:?} is damaged: {what}; delete it and create it again")]
    DamagedConsumer {
        /// Name of the consumer.
        name: String,
        /// Damage that was found.
        what: String,
    },
    /// consumers.db is damaged. It cannot be rebuilt, because no other file has its content.
    #[error(
        "consumers.db is damaged: {what}; it cannot be rebuilt: move it away, and create the consumers again"
    )]
    Damaged {
        /// Damage that was found.
        what: String,
    },
    /// Reading or writing the file failed. Changes whose answers were not durable are delivered again.
    #[error("cannot read or write consumers.db")]
    Io {
        /// Error of the file system.
        source: Arc<io::Error>,
    },
    /// The delivery cannot be answered.
    #[error(transparent)]
    Ack(#[from] AckError),
    /// The cursor belongs to another store, or is ahead of this node.
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

    /// Sorts an error of redb into `Io` and `Damaged`.
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
            // `UnexpectedEof`: the file is shorter than its header says.
            io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => {
                Self::damaged(source.to_string())
            }
            _other => Self::Io {
                source: Arc::new(source),
            },
        }
    }
}
