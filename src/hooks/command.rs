//! One run of a command: in its own process group, with a cleared environment, input on stdin,
//! output read up to a limit, and a time limit.
//!
//! No shell is involved: the program gets the arguments unchanged. When the command has ended, the
//! other processes of its group are killed.

use std::{
    ffi::OsString,
    io,
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    pin::pin,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use rustix::{
    fs::{Access, access},
    process::{Pid, Signal, kill_process_group},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    process::{Child, Command as Process},
    time::timeout,
};

use crate::limits::{HOOK_KILL_GRACE, HOOK_LINGER};

/// A command: a program, its arguments, and its working directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    program: PathBuf,
    arguments: Vec<String>,
    dir: PathBuf,
}

/// The input and the limits of one run.
#[derive(Debug, Clone)]
pub struct Job {
    /// Environment variables of the command, besides PATH and HOME of this process.
    pub variables: Vec<(&'static str, OsString)>,
    /// Input of the command.
    pub stdin: Vec<u8>,
    /// Longest time of the run.
    pub timeout: Duration,
    /// Bytes of stdout that are kept; the rest is read and dropped.
    pub stdout_bytes_max: usize,
    /// Bytes of stderr that are kept; the rest is read and dropped.
    pub stderr_bytes_max: usize,
}

/// The result of a run.
#[derive(Debug)]
#[must_use]
pub struct Ran {
    /// End of the command or of the post.
    pub end: End,
    /// Output on stdout; for a post, the body of the answer.
    pub stdout: Captured,
    /// Output on stderr; empty for a post.
    pub stderr: Captured,
}

/// The end of a command or a post.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum End {
    /// The command exited; 0 is success.
    #[error("exited with {code}")]
    Exited {
        /// Exit code.
        code: i32,
    },
    /// A signal ended the command, and the hook did not send it.
    #[error("ended by signal {signal}")]
    Signalled {
        /// Number of the signal.
        signal: i32,
    },
    /// The time limit passed, and the command was ended.
    #[error("took longer than {} and was ended", crate::clock::duration_text(*.after))]
    TimedOut {
        /// Time limit of the run.
        after: Duration,
    },
    /// The server answered the post; 2xx is success.
    #[error("answered with {status}")]
    Answered {
        /// HTTP status.
        status: u16,
    },
    /// The post did not reach the server, or the server did not answer.
    #[error("not posted: {what}")]
    NotPosted {
        /// Reason, for people.
        what: String,
    },
    /// The command could not be started.
    #[error("cannot run {}: {what}", program.display())]
    NotStarted {
        /// Program of the command.
        program: PathBuf,
        /// Reason, for people.
        what: String,
    },
}

/// The beginning of an output.
#[derive(Debug, Default)]
pub struct Captured {
    /// First bytes of the output, up to the limit of the [`Job`].
    pub bytes: Vec<u8>,
    /// Bytes of the whole output.
    pub total: u64,
}

impl Command {
    /// Returns the command `argv`. A program with a `/`, such as `./deploy.sh`, is relative to
    /// `dir`; a bare name is searched in PATH. `None`: `argv` is empty.
    pub fn new(argv: &[String], dir: &Path) -> Option<Self> {
        let (program, arguments) = argv.split_first()?;
        let program = match program.contains('/') {
            true => dir.join(program),
            false => program.into(),
        };
        Some(Self {
            program,
            arguments: arguments.to_vec(),
            dir: dir.to_owned(),
        })
    }

    /// Runs the command to its end. Dropping the call kills the command and its group.
    pub async fn run(&self, job: Job) -> Ran {
        let mut ran = Ran {
            end: End::Exited { code: 0 },
            stdout: Captured::default(),
            stderr: Captured::default(),
        };
        ran.end = match self.start(job.variables) {
            Ok(child) => {
                let limits = (job.timeout, job.stdout_bytes_max, job.stderr_bytes_max);
                attend(child, &job.stdin, limits, &mut ran).await
            }
            Err(error) => End::NotStarted {
                program: self.program.clone(),
                what: self.complaint(&error),
            },
        };
        ran
    }

    fn start(&self, variables: Vec<(&'static str, OsString)>) -> io::Result<Child> {
        let kept = KEPT_VARIABLES.iter();
        let kept = kept.filter_map(|name| Some((*name, std::env::var_os(name)?)));
        Process::new(self.located()?)
            .arg0(&self.program)
            .args(&self.arguments)
            .current_dir(&self.dir)
            .env_clear()
            .envs(kept)
            .envs(variables)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
    }

    // Returns the path of the program. With a full path, the system starts a process without first
    // copying the page tables of this process, which takes tens of milliseconds if this process
    // uses much memory.
    fn located(&self) -> io::Result<PathBuf> {
        if self.program.components().count() > 1 || self.program.is_absolute() {
            return Ok(self.program.clone());
        }
        let path = std::env::var_os("PATH").unwrap_or_default();
        let runs = |place: &PathBuf| place.is_file() && access(place, Access::EXEC_OK).is_ok();
        std::env::split_paths(&path)
            .map(|dir| dir.join(&self.program))
            .find(runs)
            .ok_or_else(|| rustix::io::Errno::NOENT.into())
    }

    // Returns the reason why the command did not start. The system reports only that a file is
    // missing, not which.
    fn complaint(&self, error: &io::Error) -> String {
        match error.kind() {
            io::ErrorKind::NotFound if !self.dir.is_dir() => {
                format!("there is no directory {}", self.dir.display())
            }
            io::ErrorKind::NotFound if self.program.is_file() => {
                "the interpreter in its first line does not exist".to_owned()
            }
            io::ErrorKind::PermissionDenied => format!("{error} (is the file executable?)"),
            _other => error.to_string(),
        }
    }
}

// Writes the input of a child process and reads its output until the child has ended, by itself or
// by the time limit.
async fn attend(
    mut child: Child,
    stdin: &[u8],
    (limit, stdout_max, stderr_max): (Duration, usize, usize),
    ran: &mut Ran,
) -> End {
    let mut group = Group::of(&child);
    let (pipe, out, err) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (stdout, stderr) = (&mut ran.stdout, &mut ran.stderr);
    let feed = async move {
        if let Some(mut pipe) = pipe {
            // A command need not read its input.
            pipe.write_all(stdin).await.unwrap_or_default();
        }
    };
    let talk = async {
        tokio::join!(
            feed,
            stdout.read(out, stdout_max),
            stderr.read(err, stderr_max)
        );
    };
    let mut talk = pin!(talk);
    let mut silent = false;
    let mut ended = async |limit| {
        let ended = async {
            loop {
                tokio::select! {
                    status = child.wait() => return status,
                    () = &mut talk, if !silent => silent = true,
                }
            }
        };
        timeout(limit, ended).await
    };
    match ended(limit).await {
        Ok(status) => {
            if !silent {
                timeout(HOOK_LINGER, &mut talk).await.unwrap_or_default();
            }
            // The leader was reaped just now: no other group has its number yet.
            group.end(Signal::KILL);
            End::from(status)
        }
        Err(_elapsed) => {
            group.signal(Signal::TERM);
            // From here on the outcome is `TimedOut`, however the command ends.
            drop(ended(HOOK_KILL_GRACE).await);
            group.end(Signal::KILL);
            drop(ended(HOOK_KILL_GRACE).await);
            End::TimedOut { after: limit }
        }
    }
}

impl End {
    /// Returns true for exit code 0 and for HTTP status 2xx.
    pub fn is_success(&self) -> bool {
        matches!(
            self,
            Self::Exited { code: 0 } | Self::Answered { status: 200..=299 }
        )
    }
}

impl From<io::Result<ExitStatus>> for End {
    fn from(status: io::Result<ExitStatus>) -> Self {
        match status {
            Ok(status) => match (status.code(), status.signal()) {
                (Some(code), _) => Self::Exited { code },
                (None, signal) => Self::Signalled {
                    signal: signal.unwrap_or(0),
                },
            },
            Err(error) => Self::NotStarted {
                program: PathBuf::new(),
                what: format!("its exit status is unknown: {error}"),
            },
        }
    }
}

impl Captured {
    // Reads a pipe to its end and keeps the beginning. An error counts as the end.
    async fn read(&mut self, pipe: Option<impl AsyncRead + Unpin>, bytes_max: usize) {
        let Some(mut pipe) = pipe else { return };
        // On the heap, because a buffer in the future would be copied when the future moves.
        let mut chunk = vec![0; CHUNK_BYTES];
        while let Ok(count @ 1..) = pipe.read(&mut chunk).await {
            self.add(&chunk[..count], bytes_max);
        }
    }

    /// Counts the bytes of `chunk`, and keeps as many as `bytes_max` allows.
    pub(super) fn add(&mut self, chunk: &[u8], bytes_max: usize) {
        let room = bytes_max.saturating_sub(self.bytes.len());
        self.bytes
            .extend_from_slice(&chunk[..chunk.len().min(room)]);
        self.total += u64::try_from(chunk.len()).unwrap_or(0);
    }

    /// Returns true if the output is longer than the kept beginning.
    pub fn is_cut(&self) -> bool {
        u64::try_from(self.bytes.len()).is_ok_and(|kept| kept < self.total)
    }
}

/// A process group. Dropping it kills the processes of the group.
// `None` after the last signal, because the number may then belong to another group.
struct Group(Option<Pid>);

impl Group {
    // The child leads its group, so both have the same number.
    fn of(child: &Child) -> Self {
        let id = child.id().and_then(|id| i32::try_from(id).ok());
        Self(id.and_then(Pid::from_raw))
    }

    fn signal(&self, signal: Signal) {
        if let Some(group) = self.0 {
            // Fails if no process of the group is left, which is fine.
            kill_process_group(group, signal).unwrap_or_default();
        }
    }

    // Sends the last signal.
    fn end(&mut self, signal: Signal) {
        self.signal(signal);
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.end(Signal::KILL);
    }
}

/// Variables of this process that a command inherits. Other variables might hold secrets.
const KEPT_VARIABLES: [&str; 2] = ["PATH", "HOME"];
/// Bytes of one read from a pipe.
const CHUNK_BYTES: usize = 8 << 10;
