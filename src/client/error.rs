//! The error of a call, for programs and people, on both ends of the API.
//!
//! The server turns a library error into an [`ApiError`], and the `ApiError` into a status with the
//! trailer `lattice-error-bin`. The client turns the status back. A status without the trailer
//! comes from the transport.

use std::error::Error;

use prost::Message as _;
use tonic::{Code, Status, metadata::MetadataValue};

use crate::{limits::MESSAGE_BYTES_MAX, protocol::entry::EntryError, wire::api};

/// A failed call: a code for programs, a message and a hint for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// Stable name, for instance `key_too_long`.
    pub code: String,
    /// Exit code of the command line: 1 failed, 2 usage, 3 not found, 4 precondition failed,
    /// 5 node unavailable, 6 damaged data, 8 timed out.
    pub exit_code: u8,
    /// Description of the failure, in one line.
    pub message: String,
    /// Advice for the user's next step; may be empty.
    pub hint: String,
}

/// The kind of a failed call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The node could not do it, for the reason in the message.
    Failed,
    /// The request is malformed or beyond a limit: it fails on every node, at any time.
    Usage,
    /// The store, consumer or delivery does not exist.
    NotFound,
    /// A condition does not hold, or this node may not write. Nothing was written.
    Precondition,
    /// No node is running, it is stopping, or the connection to it was lost. A write that was in flight
    /// may have been done.
    Unavailable,
    /// Data on the disk of the node is damaged.
    Damaged,
    /// The time for the call ran out.
    TimedOut,
}

impl ApiError {
    /// Returns an error without a hint.
    pub fn new(code: &str, exit_code: u8, message: impl Into<String>) -> Self {
        Self {
            code: code.to_owned(),
            exit_code,
            message: message.into(),
            hint: String::new(),
        }
    }

    /// Returns the error with `hint` as its advice.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }

    /// Returns the error of a malformed request, which fails on every node, at any time.
    pub fn usage(code: &str, message: impl Into<String>) -> Self {
        Self::new(code, EXIT_USAGE, message)
    }

    /// Returns the kind of the failure, by which a program decides what to do next.
    pub fn kind(&self) -> ErrorKind {
        match self.exit_code {
            EXIT_USAGE => ErrorKind::Usage,
            EXIT_NOT_FOUND => ErrorKind::NotFound,
            EXIT_PRECONDITION => ErrorKind::Precondition,
            EXIT_UNAVAILABLE => ErrorKind::Unavailable,
            EXIT_DAMAGED => ErrorKind::Damaged,
            EXIT_TIMED_OUT => ErrorKind::TimedOut,
            _other => ErrorKind::Failed,
        }
    }

    /// Returns the error as a message of the API. The text is not part of the message: a status
    /// carries the text.
    pub fn to_wire(&self) -> api::Error {
        api::Error {
            code: self.code.clone(),
            exit_code: self.exit_code.into(),
            hint: self.hint.clone(),
        }
    }

    /// Returns the error of one failed write of a streamed put.
    pub fn from_wire(failed: api::WriteFailed) -> Self {
        let error = failed.error.unwrap_or_default();
        Self {
            code: error.code,
            exit_code: u8::try_from(error.exit_code).unwrap_or(EXIT_FAILED),
            message: failed.message,
            hint: error.hint,
        }
    }

    /// Returns the error that ends streams when the server stops.
    pub fn stopping() -> Self {
        Self::new("stopping", EXIT_UNAVAILABLE, "the node is stopping")
            .hint("call again when the node is back; acknowledged writes are safe")
    }

    /// Returns the error of a connection that ended for a reason that has no status.
    pub(super) fn lost(reason: &str) -> Self {
        Self::unavailable(format!("the connection to the node was lost: {reason}"))
    }

    /// Returns the error for the caller of a write that was sent and not answered.
    pub(super) fn for_sent_write(self) -> Self {
        if self.kind() != ErrorKind::Unavailable {
            return self;
        }
        self.hint(
            "the write may have been done: read the key, or write it again when the node is back",
        )
    }

    fn unavailable(message: impl Into<String>) -> Self {
        Self::new("unavailable", EXIT_UNAVAILABLE, message).hint(HINT_START)
    }

    // The gRPC code, for clients that do not read the trailer.
    fn grpc(&self) -> Code {
        match (self.code.as_str(), self.exit_code) {
            (
                "disk_full" | "too_many_open_files" | "too_many_consumers" | "dead_letters_full",
                _,
            ) => Code::ResourceExhausted,
            ("store_exists" | "consumer_exists" | "hook_exists", _) => Code::AlreadyExists,
            ("poisoned" | "own_fork" | "own_log_cut", _) => Code::FailedPrecondition,
            (_, EXIT_USAGE) => Code::InvalidArgument,
            (_, EXIT_NOT_FOUND) => Code::NotFound,
            (_, EXIT_PRECONDITION) => Code::FailedPrecondition,
            (_, EXIT_UNAVAILABLE) => Code::Unavailable,
            (_, EXIT_DAMAGED) => Code::DataLoss,
            _other => Code::Internal,
        }
    }
}

impl From<EntryError> for ApiError {
    fn from(error: EntryError) -> Self {
        let message = error.to_string();
        let usage = |code| Self::usage(code, message.clone());
        match error {
            EntryError::KeyEmpty => usage("key_empty"),
            EntryError::KeyTooLong { .. } => usage("key_too_long")
                .hint("put the long part into the value, or a hash of it into the key"),
            EntryError::ValueTooLong { .. } => usage("value_too_long")
                .hint("keep large data in a file and put its path or hash into the value"),
            EntryError::TooManyOps { .. } => usage("too_many_ops").hint(HINT_SMALLER),
            EntryError::OpsTooLong { .. } => usage("ops_too_long").hint(HINT_SMALLER),
            EntryError::TooManyParents { .. } => usage("too_many_parents").hint(HINT_SMALLER),
            EntryError::KeyTwice { .. } => usage("key_twice"),
            EntryError::Malformed { .. } => Self::new("malformed", EXIT_DAMAGED, message),
            EntryError::BadSignature { .. } => Self::new("bad_signature", EXIT_DAMAGED, message),
            EntryError::NeedsNewer { .. } => Self::new("needs_newer", EXIT_FAILED, message)
                .hint("update lattice on this machine"),
        }
    }
}

impl From<ApiError> for Status {
    fn from(error: ApiError) -> Self {
        let mut status = Self::new(error.grpc(), error.message.clone());
        let trailer = MetadataValue::from_bytes(&error.to_wire().encode_to_vec());
        status.metadata_mut().insert_bin(TRAILER, trailer);
        status
    }
}

impl From<Status> for ApiError {
    fn from(status: Status) -> Self {
        let trailer = status
            .metadata()
            .get_bin(TRAILER)
            .and_then(|value| value.to_bytes().ok());
        if let Some(error) = trailer.and_then(|bytes| api::Error::decode(bytes).ok()) {
            let message = status.message().to_owned();
            return Self::from_wire(api::WriteFailed {
                error: Some(error),
                message,
            });
        }
        let message = status.message();
        match status.code() {
            Code::InvalidArgument => Self::usage("invalid_argument", message),
            Code::OutOfRange => Self::usage("message_too_long", message).hint(format!(
                "a message has at most {MESSAGE_BYTES_MAX} bytes; send several"
            )),
            Code::Unimplemented => Self::new("unimplemented", EXIT_FAILED, message)
                .hint("the node runs another version of lattice; restart it with this one"),
            Code::DeadlineExceeded => Self::new("timed_out", EXIT_TIMED_OUT, message),
            // The transport reports a lost connection by its code, or by a system error as source.
            Code::Unavailable => Self::unavailable(lost(&status)),
            _other if status.source().is_some() => Self::unavailable(lost(&status)),
            Code::Cancelled => Self::unavailable(lost(&status)),
            _other => Self::new("failed", EXIT_FAILED, message),
        }
    }
}

// Returns the text for a lost connection, with the reason that the transport knows.
fn lost(status: &Status) -> String {
    let text = format!("the connection to the node was lost: {}", status.message());
    with_causes(text.trim_end_matches(": ").to_owned(), status.source())
}

// Returns the error and its causes in one line. A cause that the text already contains is left out.
pub(crate) fn with_causes(mut text: String, mut cause: Option<&dyn Error>) -> String {
    while let Some(error) = cause {
        let cause_text = error.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        cause = error.source();
    }
    text
}

pub(crate) const EXIT_FAILED: u8 = 1;
const EXIT_USAGE: u8 = 2;
pub(crate) const EXIT_NOT_FOUND: u8 = 3;
pub(crate) const EXIT_PRECONDITION: u8 = 4;
pub(crate) const EXIT_UNAVAILABLE: u8 = 5;
pub(crate) const EXIT_DAMAGED: u8 = 6;
const EXIT_TIMED_OUT: u8 = 8;

const TRAILER: &str = "lattice-error-bin";
pub(crate) const HINT_START: &str = "start the node with `lattice up`";
pub(crate) const HINT_SHORTER: &str =
    "choose a shorter data directory with --data-dir or $LATTICE_DATA";
const HINT_SMALLER: &str = "split it into several batches";
