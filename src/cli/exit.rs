//! How a command ends: its exit code, and the failure that it reports.

use std::{io, process::ExitCode};

use lattice::{
    api::{client::ConnectError, error::ApiError},
    node::{ConfigError, OpenError},
};

/// Exit codes. Scripts depend on them: a number never changes its meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Done; also when the reader of a pipe closed it.
    Done = 0,
    /// Failed, for a reason without an exit code of its own.
    Failed = 1,
    /// The command line makes no sense, or a flag has an invalid value.
    Usage = 2,
    /// The key, store or author does not exist.
    NotFound = 3,
    /// The condition of a write did not hold.
    Precondition = 4,
    /// No node answers, and there is no data directory to open.
    Unavailable = 5,
    /// Data on the disk is damaged.
    Damaged = 6,
    /// A part was done and is kept; the rest was not done.
    Partly = 7,
    /// The time limit ran out.
    TimedOut = 8,
    /// Stopped by a signal.
    Interrupted = 130,
}

impl Exit {
    /// Returns the number that the process exits with.
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

/// The reason why a command ended without success, or early.
#[derive(Debug)]
pub(crate) struct Failure {
    /// Stable name of the error, for programs.
    pub(crate) code: String,
    /// Exit code of the process.
    pub(crate) exit: Exit,
    /// The failure in words, for people; nothing is printed if it is empty.
    pub(crate) message: String,
    /// A hint for the next step; may be empty.
    pub(crate) hint: String,
    // The exit code of a program that was run, which is then that of the process.
    program: Option<u8>,
}

impl Failure {
    /// Makes a failure with exit code `exit`, the name `code` and no hint.
    pub(crate) fn new(exit: Exit, code: &str, message: impl Into<String>) -> Self {
        Self {
            code: code.to_owned(),
            exit,
            message: message.into(),
            hint: String::new(),
            program: None,
        }
    }

    /// Makes the silent end of a command that ran a program, with the exit code of that.
    pub(crate) fn of_program(code: u8) -> Self {
        Self {
            program: Some(code),
            ..Self::failed("program", "")
        }
    }

    /// Returns the exit code of the process.
    pub(crate) fn exit_code(&self) -> ExitCode {
        self.program
            .map_or_else(|| self.exit.into(), ExitCode::from)
    }

    /// Makes a failure with exit code 1.
    pub(crate) fn failed(code: &str, message: impl Into<String>) -> Self {
        Self::new(Exit::Failed, code, message)
    }

    /// Makes the failure of a command with invalid arguments or input.
    pub(crate) fn usage(code: &str, message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, code, message)
    }

    /// Makes the silent failure of a command that a signal stopped.
    pub(crate) fn interrupted() -> Self {
        Self::new(Exit::Interrupted, "interrupted", "")
    }

    /// Makes the silent end, with exit code 0, of a command whose reader closed the pipe.
    pub(crate) fn pipe_closed() -> Self {
        Self::new(Exit::Done, "pipe_closed", "")
    }

    /// Adds a hint: what to do next.
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
            program: None,
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

/// Converts an error of stdout, the only writer here without a path to name.
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
            ConfigError::Untrusted(error) => ApiError::from(error).into(),
            ConfigError::GroupWithoutMode { .. } => {
                Self::usage("bad_config", message).hint("remove one of the two settings")
            }
            _malformed => Self::usage("bad_config", message),
        }
    }
}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Self {
        ApiError::from(error).into()
    }
}
