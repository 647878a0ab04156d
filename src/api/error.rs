//! What went wrong, for programs and people, on both ends of the API.
//!
//! The server turns a library error into an [`ApiError`] and that into a status with the trailer
//! `lattice-error-bin`; the client turns the status back. A status without the trailer was made
//! by the transport.

use std::error::Error;

use prost::Message as _;
use tonic::{Code, Status, metadata::MetadataValue};

use crate::{
    api::{client::ConnectError, socket::SocketError},
    hooks::{HooksError, HooksFileError},
    limits::{MESSAGE_BYTES_MAX, STORE_NAME_CHARS_MAX},
    node::{OpenError, StoreError},
    protocol::{consumer::AckError, cursor::CursorError, entry::EntryError},
    store::{PastError, ReadError, WatchError, WriteError, consumers::ConsumerError},
    wire::api,
};

/// An error of the API.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// Stable name, for instance `key_too_long`.
    pub code: String,
    /// What the command line exits with: 1 failed, 2 usage, 3 not found, 4 precondition failed,
    /// 5 node unavailable, 6 damaged data.
    pub exit_code: u8,
    /// What happened, for people.
    pub message: String,
    /// What to do next; may be empty.
    pub hint: String,
}

impl ApiError {
    /// Makes an error without a hint.
    pub fn new(code: &str, exit_code: u8, message: impl Into<String>) -> Self {
        Self {
            code: code.to_owned(),
            exit_code,
            message: message.into(),
            hint: String::new(),
        }
    }

    /// Adds what to do next.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }

    /// Makes the error of a request that no node could serve.
    pub fn usage(code: &str, message: impl Into<String>) -> Self {
        Self::new(code, EXIT_USAGE, message)
    }

    /// Returns the error as a message of the API.
    pub fn to_wire(&self) -> api::Error {
        api::Error {
            code: self.code.clone(),
            exit_code: self.exit_code.into(),
            hint: self.hint.clone(),
        }
    }

    /// Reads the error of one write of a streamed put.
    pub fn from_wire(failed: api::WriteFailed) -> Self {
        let error = failed.error.unwrap_or_default();
        Self {
            code: error.code,
            exit_code: u8::try_from(error.exit_code).unwrap_or(EXIT_FAILED),
            message: failed.message,
            hint: error.hint,
        }
    }

    /// Makes the error that ends streams when the server stops.
    pub fn stopping() -> Self {
        Self::new("stopping", EXIT_UNAVAILABLE, "the node is stopping")
            .hint("go on when it is back; what was acknowledged is safe")
    }

    fn unavailable(message: impl Into<String>) -> Self {
        Self::new("unavailable", EXIT_UNAVAILABLE, message).hint(HINT_START)
    }

    // What a client that knows nothing of Lattice sees.
    fn grpc(&self) -> Code {
        match (self.code.as_str(), self.exit_code) {
            ("disk_full" | "too_many_consumers" | "dead_letters_full", _) => {
                Code::ResourceExhausted
            }
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
            // The transport says so itself, or has an error of the system to tell.
            Code::Unavailable => Self::unavailable(lost(&status)),
            _other if status.source().is_some() => Self::unavailable(lost(&status)),
            Code::Cancelled => Self::unavailable(lost(&status)),
            _other => Self::new("failed", EXIT_FAILED, message),
        }
    }
}

impl From<ConnectError> for ApiError {
    fn from(error: ConnectError) -> Self {
        let message = error.to_string();
        match error {
            ConnectError::NoSocket { .. } | ConnectError::Refused { .. } => {
                Self::new("no_node", EXIT_UNAVAILABLE, message).hint(HINT_START)
            }
            ConnectError::Denied { .. } => Self::new("denied", EXIT_UNAVAILABLE, message)
                .hint("run this as the user who runs the node"),
            ConnectError::PathTooLong { .. } => {
                Self::usage("socket_path_too_long", message).hint(HINT_SHORTER)
            }
            ConnectError::Io { .. } => Self::new("unavailable", EXIT_UNAVAILABLE, message),
        }
    }
}

impl From<SocketError> for ApiError {
    fn from(error: SocketError) -> Self {
        let message = error.to_string();
        match error {
            SocketError::PathTooLong { .. } => {
                Self::usage("socket_path_too_long", message).hint(HINT_SHORTER)
            }
            SocketError::Directory { .. } => Self::new("socket_directory", EXIT_FAILED, message)
                .hint("move it away; the node makes a private directory in its place"),
            SocketError::NotASocket { .. } => Self::new("socket_in_the_way", EXIT_FAILED, message)
                .hint("no node puts anything else there; look at it and move it away"),
            SocketError::InUse { .. } => Self::new("socket_in_use", EXIT_FAILED, message),
            SocketError::Io { .. } => Self::new("socket", EXIT_FAILED, message),
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
                .hint("put the long part into the value, or its hash into the key"),
            EntryError::ValueTooLong { .. } => usage("value_too_long")
                .hint("keep large things in files and put a path or a hash into the value"),
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

impl From<CursorError> for ApiError {
    fn from(error: CursorError) -> Self {
        Self::usage("bad_cursor", error.to_string())
            .hint("copy the whole cursor as a watch printed it, or leave it out")
    }
}

impl From<WriteError> for ApiError {
    fn from(error: WriteError) -> Self {
        let message = text(&error);
        match error {
            WriteError::Entry(error) => error.into(),
            WriteError::Read(error) => error.into(),
            WriteError::Empty => Self::usage("empty_batch", message),
            WriteError::Reserved { .. } => Self::usage("reserved_key", message)
                .hint("the node itself writes there; choose another prefix"),
            WriteError::PreconditionFailed { .. } => {
                Self::new("precondition_failed", EXIT_PRECONDITION, message)
                    .hint("read the key again and decide with what it has now")
            }
            WriteError::Poisoned { .. } => Self::new("poisoned", EXIT_FAILED, message)
                .hint("restart the node once the disk is well; what was acknowledged is safe"),
            WriteError::AlreadyCaused { .. } => {
                Self::new("already_caused", EXIT_PRECONDITION, message)
            }
            WriteError::DiskFull { .. } => Self::new("disk_full", EXIT_FAILED, message)
                .hint("make room; reads go on, and writes go on when there is space"),
            WriteError::OwnFork { .. } => Self::new("own_fork", EXIT_FAILED, message).hint(
                "end the other one that uses this data directory or a copy of it, then: \
                `lattice repair`",
            ),
            WriteError::NotAdmitted => Self::new("not_admitted", EXIT_PRECONDITION, message).hint(
                "`lattice up` and wait for the first sync with the node that invited this one",
            ),
            WriteError::Reader => Self::new("reader", EXIT_PRECONDITION, message)
                .hint("ask an admin for the role of a writer"),
            WriteError::Removed => Self::new("removed", EXIT_PRECONDITION, message)
                .hint("a removed key stays removed: join again with a new data directory"),
            WriteError::OwnLogCut { .. } => Self::new("own_log_cut", EXIT_DAMAGED, message).hint(
                "`lattice up` fetches them from peers that have them; else put the newest copy of the \
                file back, or give them up: `lattice repair`",
            ),
            WriteError::Closed => closed(message),
            WriteError::Clock(_) => Self::new("clock_exhausted", EXIT_FAILED, message),
        }
    }
}

impl From<ReadError> for ApiError {
    fn from(error: ReadError) -> Self {
        let message = text(&error);
        match error {
            ReadError::Damaged { .. } | ReadError::State { .. } => {
                Self::new("damaged", EXIT_DAMAGED, message)
                    .hint("`lattice verify` says what is damaged and where")
            }
            ReadError::Io { .. } => Self::new("io", EXIT_FAILED, message),
            ReadError::Key(error) => error.into(),
            ReadError::Closed => closed(message),
        }
    }
}

impl From<PastError> for ApiError {
    fn from(error: PastError) -> Self {
        let message = error.to_string();
        match error {
            PastError::Read(error) => error.into(),
            PastError::TooFar { .. } => Self::new("too_far_back", EXIT_FAILED, message)
                .hint("ask for a later time; `lattice watch --since` reads the log in order"),
        }
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        let message = text(&error);
        match error {
            StoreError::Unknown { .. } => Self::new("unknown_store", EXIT_NOT_FOUND, message)
                .hint("`lattice store list` shows the stores of this node"),
            StoreError::NameInvalid { .. } => Self::usage("store_name_invalid", message)
                .hint(format!("a name has 1 to {STORE_NAME_CHARS_MAX} characters")),
            StoreError::NameTaken { .. } => Self::new("store_exists", EXIT_PRECONDITION, message),
            StoreError::Open(error) => error.into(),
            StoreError::Write(error) => error.into(),
        }
    }
}

impl From<OpenError> for ApiError {
    fn from(error: OpenError) -> Self {
        let message = text(&error);
        let failed = |code| Self::new(code, EXIT_FAILED, message.clone());
        match error {
            OpenError::AlreadyRunning { .. } => {
                Self::new("already_running", EXIT_UNAVAILABLE, message)
                    .hint("see it with `lattice status`, stop it with `lattice down`")
            }
            OpenError::NoDataDir { .. } => Self::new("no_data_dir", EXIT_UNAVAILABLE, message)
                .hint("create it with `lattice init` or `lattice up`, or name another with --data-dir"),
            OpenError::Exposed { path, mode_max, .. } => {
                failed("exposed").hint(format!("chmod {mode_max:o} {}", path.display()))
            }
            OpenError::WrongOwner { .. } => failed("wrong_owner")
                .hint("run this as the user who owns it, or name another with --data-dir"),
            OpenError::ReadOnly { .. } => failed("read_only").hint(
                "a node writes also to be read: let this user write there, \
                or name a copy with --data-dir",
            ),
            OpenError::Unusable { .. } => Self::new("unusable", EXIT_DAMAGED, message)
                .hint("restore it from a backup, or move the data directory away"),
            OpenError::Io { .. } => failed("io"),
            OpenError::Store { source, .. } if source.is_damage() => {
                Self::new("store_damaged", EXIT_DAMAGED, message)
                    .hint("nothing was changed; move the file away, or restore it from a backup")
            }
            OpenError::Store { .. } => failed("store_open"),
            OpenError::Write(error) => error.into(),
            OpenError::Read(error) => error.into(),
        }
    }
}

impl From<WatchError> for ApiError {
    fn from(error: WatchError) -> Self {
        let message = text(&error);
        match error {
            WatchError::ForeignCursor { .. } => Self::usage("foreign_cursor", message)
                .hint("name the cursor's store, or watch without the cursor"),
            WatchError::Behind { .. } => Self::new("cursor_ahead", EXIT_FAILED, message)
                .hint("wait until this node has caught up, as `lattice watch --wait` does"),
            WatchError::Closed => closed(message),
            WatchError::Read(error) => error.into(),
        }
    }
}

impl From<ConsumerError> for ApiError {
    fn from(error: ConsumerError) -> Self {
        let message = text(&error);
        match error {
            ConsumerError::Name { .. } => Self::usage("consumer_name_invalid", message),
            ConsumerError::Option { .. } => Self::usage("consumer_option", message),
            ConsumerError::Unknown { .. } => Self::new("unknown_consumer", EXIT_NOT_FOUND, message)
                .hint("`lattice consumer list` shows those of the store"),
            ConsumerError::Exists { .. } => {
                Self::new("consumer_exists", EXIT_PRECONDITION, message)
                    .hint("`lattice consumer show` says how it was made")
            }
            ConsumerError::TooMany => Self::new("too_many_consumers", EXIT_FAILED, message),
            ConsumerError::HistoryGone { .. } => Self::new("history_gone", EXIT_DAMAGED, message)
                .hint("`lattice verify` says what is damaged and where"),
            ConsumerError::DamagedConsumer { .. } => {
                Self::new("consumer_damaged", EXIT_DAMAGED, message)
            }
            ConsumerError::Damaged { .. } => Self::new("consumers_damaged", EXIT_DAMAGED, message),
            ConsumerError::Io { .. } => Self::new("io", EXIT_FAILED, message)
                .hint("what was not durable is given out again once the disk is well"),
            ConsumerError::Ack(error) => error.into(),
            ConsumerError::Start(error) => error.into(),
            ConsumerError::Read(error) => error.into(),
            ConsumerError::Closed => closed(message),
        }
    }
}

impl From<HooksError> for ApiError {
    fn from(error: HooksError) -> Self {
        let message = text(&error);
        match error {
            HooksError::Hook(_) => Self::usage("hook", message),
            HooksError::Unknown { .. } => Self::new("unknown_hook", EXIT_NOT_FOUND, message)
                .hint("`lattice hook list` shows those of this node"),
            HooksError::Exists { .. } => Self::new("hook_exists", EXIT_PRECONDITION, message)
                .hint("edit it in hooks.toml, remove it first, or take another name"),
            HooksError::File(HooksFileError::Io { .. }) | HooksError::Log { .. } => {
                Self::new("io", EXIT_FAILED, message)
            }
            HooksError::File(_) => Self::usage("hooks_file", message)
                .hint("mend it: what runs goes on as it was before"),
            HooksError::Watch(error) => error.into(),
            HooksError::HistoryGone { .. } => Self::new("history_gone", EXIT_DAMAGED, message)
                .hint("`lattice verify` says where; a shorter --since replays what is there"),
            HooksError::Post { .. } => Self::new("post", EXIT_FAILED, message),
            HooksError::Store(error) => error.into(),
            HooksError::Consumer(error) => error.into(),
        }
    }
}

impl From<AckError> for ApiError {
    fn from(error: AckError) -> Self {
        let message = error.to_string();
        let late = |code| Self::new(code, EXIT_PRECONDITION, message.clone());
        match error {
            AckError::NotOutstanding { .. } => late("not_outstanding"),
            AckError::GivenAgain { .. } => late("given_again")
                .hint("a longer --ack-wait, or `lattice consumer extend` while it is worked on"),
            AckError::Answered { .. } => late("answered"),
            AckError::Dead { .. } => {
                late("dead_letter").hint("`lattice consumer dead` lists, retries and skips them")
            }
            AckError::DeadLettersFull => Self::new("dead_letters_full", EXIT_FAILED, message)
                .hint("`lattice consumer dead` lists, retries and skips them"),
        }
    }
}

fn closed(message: String) -> ApiError {
    ApiError::new("closed", EXIT_UNAVAILABLE, message).hint(HINT_START)
}

// The connection is gone: what the transport knows about why.
fn lost(status: &Status) -> String {
    let text = format!("the connection to the node was lost: {}", status.message());
    with_causes(text.trim_end_matches(": ").to_owned(), status.source())
}

fn text(error: &dyn Error) -> String {
    with_causes(error.to_string(), error.source())
}

// In one line. An error that already says what its source says does not say it again.
fn with_causes(mut text: String, mut cause: Option<&dyn Error>) -> String {
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
pub(super) const EXIT_NOT_FOUND: u8 = 3;
pub(super) const EXIT_PRECONDITION: u8 = 4;
pub(super) const EXIT_UNAVAILABLE: u8 = 5;
const EXIT_DAMAGED: u8 = 6;
const EXIT_TIMED_OUT: u8 = 8;

const TRAILER: &str = "lattice-error-bin";
const HINT_START: &str = "start the node with `lattice up`";
const HINT_SHORTER: &str = "choose a shorter data directory with --data-dir or $LATTICE_DATA";
const HINT_SMALLER: &str = "split it into several batches";
