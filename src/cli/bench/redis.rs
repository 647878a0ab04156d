//! A Redis server that syncs each write, for comparison: the same promise, the same disk.
//!
//! Its client multiplexes as ordinary ones do: all callers share one connection, on which commands are sent
//! as they come and answers are matched in order.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{mpsc, oneshot},
    task::JoinSet,
};

use crate::cli::{
    bench::{error::failed, load::Keys, samples::Samples, scratch::Scratch},
    exit::Failure,
};

/// A server in another process; killed on drop.
#[derive(Debug)]
pub(super) struct Redis {
    child: Child,
    socket: PathBuf,
    version: String,
}

/// One connection for any number of callers.
#[derive(Debug, Clone)]
pub(super) struct Multiplexed {
    // Ends the two tasks of the connection when the last clone is dropped.
    commands: mpsc::Sender<(Vec<u8>, oneshot::Sender<()>)>,
}

impl Redis {
    /// Starts a server in the scratch directory. Returns `None` if the program is not installed.
    pub(super) async fn start(scratch: &Scratch) -> Result<Option<Self>, Failure> {
        let Some(version) = version() else {
            return Ok(None);
        };
        let dir = scratch.new_path();
        std::fs::create_dir(&dir).map_err(|error| failed("cannot make a directory", &error))?;
        let socket = dir.join("sock");
        let child = Command::new(PROGRAM)
            .args(["--port", "0", "--save", "", "--daemonize", "no"])
            .args(["--appendonly", "yes", "--appendfsync", "always"])
            .arg("--dir")
            .arg(&dir)
            .arg("--unixsocket")
            .arg(&socket)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| failed("cannot start redis-server", &error))?;
        let redis = Self {
            child,
            socket,
            version,
        };
        let deadline = Instant::now() + START_WAIT;
        while let Err(error) = UnixStream::connect(&redis.socket).await {
            if Instant::now() >= deadline {
                return Err(failed("redis-server does not listen", &error));
            }
            tokio::time::sleep(START_RETRY).await;
        }
        Ok(Some(redis))
    }

    /// Returns the version of the program.
    pub(super) fn version(&self) -> &str {
        &self.version
    }

    /// Lets the callers with these keys set values for `time`.
    pub(super) async fn turn(
        &self,
        callers: &mut Vec<Keys>,
        value: &Bytes,
        time: Duration,
    ) -> Result<Samples, Failure> {
        let connection = Multiplexed::connect(&self.socket).await?;
        let until = Instant::now() + time;
        let mut tasks = JoinSet::new();
        for keys in callers.drain(..) {
            tasks.spawn(call(connection.clone(), keys, value.clone(), until));
        }
        let mut all = Samples::default();
        while let Some(done) = tasks.join_next().await {
            let (keys, samples) = done.map_err(|panic| failed("a caller panicked", &panic))??;
            callers.push(keys);
            all.merge(samples);
        }
        Ok(all)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

async fn call(
    connection: Multiplexed,
    mut keys: Keys,
    value: Bytes,
    until: Instant,
) -> Result<(Keys, Samples), Failure> {
    let mut samples = Samples::default();
    let start = Instant::now();
    let mut before = start;
    while before < until
        && let Some(key) = keys.next()
    {
        connection.set(&key, &value).await?;
        let now = Instant::now();
        samples.push(now - before);
        before = now;
    }
    samples.span = before - start;
    Ok((keys, samples))
}

impl Multiplexed {
    async fn connect(socket: &Path) -> Result<Self, Failure> {
        let stream = UnixStream::connect(socket)
            .await
            .map_err(|error| failed("cannot connect to redis-server", &error))?;
        let (reading, writing) = stream.into_split();
        let (commands, queue) = mpsc::channel(CALLERS_MAX);
        let (callers, answered) = mpsc::channel(CALLERS_MAX);
        // Both end when the connection is dropped.
        tokio::spawn(write(queue, writing, callers));
        tokio::spawn(read(reading, answered));
        Ok(Self { commands })
    }

    async fn set(&self, key: &[u8], value: &[u8]) -> Result<(), Failure> {
        let mut command = format!("*3\r\n$3\r\nSET\r\n${}\r\n", key.len()).into_bytes();
        command.extend_from_slice(key);
        command.extend_from_slice(format!("\r\n${}\r\n", value.len()).as_bytes());
        command.extend_from_slice(value);
        command.extend_from_slice(b"\r\n");
        let (caller, answer) = oneshot::channel();
        let sent = self.commands.send((command, caller)).await;
        let broke = || Failure::failed("bench", "redis-server refused a SET, or ended");
        sent.map_err(|_closed| broke())?;
        answer.await.map_err(|_closed| broke())
    }
}

// Writes all commands that wait with one call of the system.
async fn write(
    mut queue: mpsc::Receiver<(Vec<u8>, oneshot::Sender<()>)>,
    mut writing: OwnedWriteHalf,
    callers: mpsc::Sender<oneshot::Sender<()>>,
) {
    let mut waiting = Vec::new();
    while queue.recv_many(&mut waiting, CALLERS_MAX).await > 0 {
        let mut bytes = Vec::new();
        for (command, caller) in waiting.drain(..) {
            bytes.extend(command);
            if callers.send(caller).await.is_err() {
                return;
            }
        }
        if writing.write_all(&bytes).await.is_err() {
            return;
        }
    }
}

// Ends at an answer other than "+OK": then all callers that wait get an error.
async fn read(mut reading: OwnedReadHalf, mut callers: mpsc::Receiver<oneshot::Sender<()>>) {
    let mut bytes = vec![0; 1 << 16];
    let mut filled = 0;
    while let Ok(count @ 1..) = reading.read(&mut bytes[filled..]).await {
        filled += count;
        let whole = filled - filled % OK.len();
        for answer in bytes[..whole].chunks(OK.len()) {
            let Some(caller) = callers.recv().await.filter(|_| answer == OK) else {
                return;
            };
            // The caller waits until it has the answer.
            caller.send(()).unwrap_or_default();
        }
        bytes.copy_within(whole..filled, 0);
        filled -= whole;
    }
}

// Returns the version of the program; `None` if it is not installed.
fn version() -> Option<String> {
    let output = Command::new(PROGRAM).arg("--version").output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let version = text
        .split_whitespace()
        .find_map(|word| word.strip_prefix("v="));
    version.map(str::to_owned)
}

const PROGRAM: &str = "redis-server";
const OK: &[u8] = b"+OK\r\n";
/// Callers that wait for one connection. More wait before they send.
const CALLERS_MAX: usize = 8192;
const START_WAIT: Duration = Duration::from_secs(20);
const START_RETRY: Duration = Duration::from_millis(10);
