//! How a command ends: its exit code, and what it says when it did not work.

use std::{io, process::ExitCode};

use lattice::{
    api::{client::ConnectError, error::ApiError},
    node::{ConfigError, OpenError},
};

/// Exit codes. They are a promise to scripts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Done; also when the reader of a pipe has seen enough.
    Done = 0,
    /// Failed, for a reason that has no code of its own.
    Failed = 1,
    /// The command was not understood.
    Usage = 2,
    /// The key, store or author does not exist.
    NotFound = 3,
    /// The condition of a write did not hold.
    Precondition = 4,
    /// No node, and no data directory to open.
    Unavailable = 5,
    /// Data on the disk is damaged.
    Damaged = 6,
    /// A part was done and is kept; the rest was not.
    Partly = 7,
    /// The time given was over.
    TimedOut = 8,
    /// Stopped by a signal.
    Interrupted = 130,
}

impl Exit {
    /// Returns the number that the process ends with.
    pub(crate) fn code(self) -> i32 {
        self as i32
    }

    // Returns the exit code that an error of the API carries, or `Failed` for an unknown one.
    fn from_code(code: u8) -> Self {
        let known = Self::ALL.into_iter().find(|exit| *exit as u8 == code);
        known.unwrap_or(Self::Failed)
    }

    const ALL: [Self; 10] = [
        Self::Done,
        Self::Failed,
        Self::Usage,
        Self::NotFound,
        Self::Precondition,
        Self::Unavailable,
        Self::Damaged,
        Self::Partly,
        Self::TimedOut,
        Self::Interrupted,
    ];
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command ends before, or without, success.
#[derive(Debug)]
pub(crate) struct Failure {
    /// Stable name, for programs.
    pub(crate) code: String,
    /// What the process ends with.
    pub(crate) exit: Exit,
    /// What happened; empty: nothing to say.
    pub(crate) message: String,
    /// What to do next; may be empty.
    pub(crate) hint: String,
}

impl Failure {
    /// Makes a failure of kind `exit`.
    pub(crate) fn new(exit: Exit, code: &str, message: impl Into<String>) -> Self {
        Self {
            code: code.to_owned(),
            exit,
            message: message.into(),
            hint: String::new(),
        }
    }

    /// Makes a failure that has no exit code of its own.
    pub(crate) fn failed(code: &str, message: impl Into<String>) -> Self {
        Self::new(Exit::Failed, code, message)
    }

    /// Makes the failure of a command that makes no sense as it was given.
    pub(crate) fn usage(code: &str, message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, code, message)
    }

    /// Makes the end of a command that a signal stopped.
    pub(crate) fn interrupted() -> Self {
        Self::new(Exit::Interrupted, "interrupted", "")
    }

    /// Makes the quiet end of a command whose reader has seen enough.
    pub(crate) fn pipe_closed() -> Self {
        Self::new(Exit::Done, "pipe_closed", "")
    }

    /// Adds what to do next.
    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        Self {
            code: error.code,
            exit: Exit::from_code(error.exit_code),
            message: error.message,
            hint: error.hint,
        }
    }
}

impl From<tonic::Status> for Failure {
    fn from(status: tonic::Status) -> Self {
        ApiError::from(status).into()
    }
}

impl From<ConnectError> for Failure {
    fn from(error: ConnectError) -> Self {
        ApiError::from(error).into()
    }
}

/// Of stdout: the only thing here that is written to without a path to name.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::pipe_closed(),
            _other => Self::failed("stdout", format!("cannot write to stdout: {error}")),
        }
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        let message = error.to_string();
        match error {
            ConfigError::Invalid { .. } | ConfigError::TooLong { .. } => {
                Self::usage("bad_config", message)
            }
            ConfigError::Io { .. } => Self::failed("config", message),
        }
    }
}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Self {
        ApiError::from(error).into()
    }
}
