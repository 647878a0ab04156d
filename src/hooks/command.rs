//! One run of a command: in a process group of its own, with a cleared environment, fed on stdin,
//! its output read and capped, ended when its time is over.
//!
//! No shell is involved: arguments go to the program as they are. What is left of the group when
//! the command has ended is ended too.

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

/// A command: a program and its arguments, and where it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    program: PathBuf,
    arguments: Vec<String>,
    dir: PathBuf,
}

/// What a command is run with.
#[derive(Debug, Clone)]
pub struct Job {
    /// Variables, besides PATH and HOME of this process.
    pub variables: Vec<(&'static str, OsString)>,
    /// What it reads on stdin.
    pub stdin: Vec<u8>,
    /// How long it may take.
    pub timeout: Duration,
    /// Bytes of stdout that are kept; the rest is read and forgotten.
    pub stdout_bytes_max: usize,
    /// The same of stderr.
    pub stderr_bytes_max: usize,
}

/// What a command did.
#[derive(Debug)]
#[must_use]
pub struct Ran {
    /// How it ended.
    pub end: End,
    /// What it wrote to stdout.
    pub stdout: Captured,
    /// What it wrote to stderr.
    pub stderr: Captured,
}

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum End {
    /// By itself; 0 is success.
    #[error("exited with {code}")]
    Exited {
        /// Its exit code.
        code: i32,
    },
    /// By a signal that was not ours.
    #[error("ended by signal {signal}")]
    Signalled {
        /// Its number.
        signal: i32,
    },
    /// Its time was over.
    #[error("took longer than {} and was ended", crate::clock::duration_text(*.after))]
    TimedOut {
        /// What it was given.
        after: Duration,
    },
    /// A post was answered; 2xx is success.
    #[error("answered with {status}")]
    Answered {
        /// The HTTP status.
        status: u16,
    },
    /// A post did not reach the other end, or has no answer.
    #[error("not posted: {what}")]
    NotPosted {
        /// Why.
        what: String,
    },
    /// It never ran.
    #[error("cannot run {}: {what}", program.display())]
    NotStarted {
        /// The program.
        program: PathBuf,
        /// Why.
        what: String,
    },
}

/// The beginning of what a command wrote.
#[derive(Debug, Default)]
pub struct Captured {
    /// At most what was asked for.
    pub bytes: Vec<u8>,
    /// All that it wrote.
    pub total: u64,
}

impl Command {
    /// Makes the command `argv`. A program such as `./deploy.sh` is relative to `dir`; a bare name
    /// is looked for in PATH. `None`: there is no program.
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

    /// Runs it to its end. Dropping the call ends what runs.
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

    // Where the program is. With its place known, the system starts a process without a copy of
    // this one's page tables first, which takes tens of milliseconds where there is much memory.
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

    // The system says only that something is missing.
    fn complaint(&self, error: &io::Error) -> String {
        match error.kind() {
            io::ErrorKind::NotFound if !self.dir.is_dir() => {
                format!("there is no directory {}", self.dir.display())
            }
            io::ErrorKind::NotFound if self.program.is_file() => {
                "the interpreter that its first line names is not there".to_owned()
            }
            io::ErrorKind::PermissionDenied => format!("{error} (is its run bit set?)"),
            _other => error.to_string(),
        }
    }
}

// Feeds and reads a child until it has ended, by itself or because its time was over.
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
            // It need not read what it is told.
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
            // Its leader was reaped just now: no stranger has its number yet.
            group.end(Signal::KILL);
            End::from(status)
        }
        Err(_elapsed) => {
            group.signal(Signal::TERM);
            // Its end, friendly or not, is no news.
            drop(ended(HOOK_KILL_GRACE).await);
            group.end(Signal::KILL);
            drop(ended(HOOK_KILL_GRACE).await);
            End::TimedOut { after: limit }
        }
    }
}

impl End {
    /// True when it did what it was to do.
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
                what: format!("its end is not known: {error}"),
            },
        }
    }
}

impl Captured {
    // Reads to the end, and keeps the beginning. A pipe that fails has ended.
    async fn read(&mut self, pipe: Option<impl AsyncRead + Unpin>, bytes_max: usize) {
        let Some(mut pipe) = pipe else { return };
        // Not in the future itself, which is moved about.
        let mut chunk = vec![0; CHUNK_BYTES];
        while let Ok(count @ 1..) = pipe.read(&mut chunk).await {
            self.add(&chunk[..count], bytes_max);
        }
    }

    /// Adds what was read, and keeps what there is room for.
    pub(super) fn add(&mut self, chunk: &[u8], bytes_max: usize) {
        let room = bytes_max.saturating_sub(self.bytes.len());
        self.bytes
            .extend_from_slice(&chunk[..chunk.len().min(room)]);
        self.total += u64::try_from(chunk.len()).unwrap_or(0);
    }

    /// True when more was written than was kept.
    pub fn is_cut(&self) -> bool {
        u64::try_from(self.bytes.len()).is_ok_and(|kept| kept < self.total)
    }
}

/// A process group that does not outlive this.
struct Group(Option<Pid>);

impl Group {
    // The child leads it, so its number is the group's.
    fn of(child: &Child) -> Self {
        let id = child.id().and_then(|id| i32::try_from(id).ok());
        Self(id.and_then(Pid::from_raw))
    }

    fn signal(&self, signal: Signal) {
        if let Some(group) = self.0 {
            // Where nobody is left of it, there is nobody to tell.
            kill_process_group(group, signal).unwrap_or_default();
        }
    }

    // The last signal: afterwards the number may be somebody else's.
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

/// What of this process's environment a command sees: nothing else is passed on, and with it no
/// secret.
const KEPT_VARIABLES: [&str; 2] = ["PATH", "HOME"];
const CHUNK_BYTES: usize = 8 << 10;
