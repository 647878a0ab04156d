//! Runs the binary and makes its output comparable.

use std::{
    fmt,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    path::PathBuf,
    process::{Child, ChildStderr, ChildStdout, Command, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, sync_channel},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// Nothing here takes this long unless it hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A home directory; the data directory `data` in it does not exist at first.
pub(crate) struct Home {
    dir: TempDir,
    // The address at which its node listens for peers.
    bind: String,
    // Words before each command, which run it elsewhere.
    inside: Vec<String>,
}

impl Home {
    pub(crate) fn new() -> Self {
        // Nothing leaves this machine.
        Self::at("127.0.0.1:0".to_owned(), Vec::new())
    }

    /// A home whose node listens there, and whose commands run behind these words.
    pub(crate) fn at(bind: String, inside: Vec<String>) -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            bind,
            inside,
        }
    }

    /// A home with a node that was created and does not run.
    pub(crate) fn initialised() -> Self {
        let home = Self::new();
        assert_eq!(home.run(&["init"]).code, 0);
        home
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut words = self.inside.iter().map(String::as_str);
        let binary = env!("CARGO_BIN_EXE_lattice");
        let mut command = match words.next() {
            Some(first) => Command::new(first),
            None => Command::new(binary),
        };
        command
            .args(words)
            .args((!self.inside.is_empty()).then_some(binary))
            .args(arguments)
            .current_dir(self.dir.path())
            .env_clear()
            .env("HOME", self.dir.path())
            .env("LATTICE_DATA", self.data())
            .env("TZ", "UTC")
            .env("LATTICE_BIND", &self.bind)
            .env("LATTICE_NO_MDNS", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Runs a command to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Ran {
        self.start(arguments).end()
    }

    /// Runs a command with `stdin` to its end.
    pub(crate) fn feed(&self, arguments: &[&str], stdin: impl AsRef<[u8]>) -> Ran {
        let mut child = self
            .command(arguments)
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let mut pipe = child.stdin.take().unwrap();
        let bytes = stdin.as_ref().to_vec();
        // A command may stop reading: that is not an error here.
        let writer = thread::spawn(move || drop(pipe.write_all(&bytes)));
        let ran = Running::new(child, self).end();
        writer.join().unwrap();
        ran
    }

    /// Starts a command.
    pub(crate) fn start(&self, arguments: &[&str]) -> Running {
        self.spawn(self.command(arguments))
    }

    /// Starts a command made by hand.
    pub(crate) fn spawn(&self, mut command: Command) -> Running {
        Running::new(command.spawn().unwrap(), self)
    }

    /// Starts the node and waits until it serves.
    pub(crate) fn up(&self) -> Running {
        let mut node = self.start(&["up"]);
        node.line_with("stop ");
        node
    }
}

/// A process; killed when dropped.
pub(crate) struct Running {
    child: Child,
    home: String,
    lines: Receiver<String>,
    stdout: String,
    stderr: Option<thread::JoinHandle<String>>,
}

impl Running {
    fn new(mut child: Child, home: &Home) -> Self {
        let stdout = child.stdout.take().unwrap();
        let stderr = child.stderr.take();
        let (sender, lines) = sync_channel(1 << 20);
        thread::spawn(move || {
            for line in read_lines(stdout) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let stderr = Some(thread::spawn(move || {
            stderr.map_or_else(String::new, read_all)
        }));
        let home = home.dir.path().display().to_string();
        Self {
            child,
            home,
            lines,
            stdout: String::new(),
            stderr,
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for the next line of stdout; `None`: stdout was closed.
    pub(crate) fn line(&mut self) -> Option<String> {
        match self.lines.recv_timeout(PATIENCE) {
            Ok(line) => {
                self.stdout.push_str(&line);
                Some(line.trim_end_matches('\n').to_owned())
            }
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => panic!("no line; so far: {}", self.stdout),
        }
    }

    /// Waits for a line of stdout that contains `text`.
    pub(crate) fn line_with(&mut self, text: &str) -> String {
        while let Some(line) = self.line() {
            if line.contains(text) {
                return line;
            }
        }
        let stderr = self.stderr();
        panic!(
            "no line with {text:?}; stdout: {}, stderr: {stderr}",
            self.stdout
        )
    }

    /// Waits for the end of the process.
    pub(crate) fn end(mut self) -> Ran {
        while self.line().is_some() {}
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(
                Instant::now() < deadline,
                "it does not end; stdout: {}",
                self.stdout
            );
            thread::sleep(Duration::from_millis(2));
        };
        let code = status.code().unwrap_or(-1);
        let stderr = redact(&self.stderr(), &self.home);
        Ran {
            code,
            stdout: redact(&self.stdout, &self.home),
            stderr,
            raw: self.stdout.clone(),
        }
    }

    fn stderr(&mut self) -> String {
        self.stderr
            .take()
            .map(|reader| reader.join().unwrap())
            .unwrap_or_default()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The output of a command, with ids, times and paths replaced.
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    /// Stdout as it was.
    pub(crate) raw: String,
}

impl Ran {
    /// Asserts that it worked, and returns what it printed.
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.code, 0, "{self}");
        self.stdout
    }

    /// Parses what it printed as lines of JSON.
    pub(crate) fn json(&self) -> Vec<serde_json::Value> {
        self.raw
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }
}

impl fmt::Display for Ran {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}exit {}", self.stdout, self.stderr, self.code)
    }
}

fn read_lines(stdout: ChildStdout) -> impl Iterator<Item = String> {
    let mut reader = BufReader::new(stdout);
    std::iter::from_fn(move || {
        let mut line = Vec::new();
        let count = reader.read_until(b'\n', &mut line).unwrap_or(0);
        (count > 0).then(|| String::from_utf8_lossy(&line).into_owned())
    })
}

fn read_all(mut stderr: ChildStderr) -> String {
    let mut bytes = Vec::new();
    stderr.read_to_end(&mut bytes).unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Replaces what differs from run to run. Leaves out the texts and names that stand beside times and ids.
pub(crate) fn redact(text: &str, home: &str) -> String {
    let text = without_beside(&text.replace(home, "[home]"));
    let mut safe = String::new();
    let mut rest = text.as_str();
    while let Some(first) = rest.chars().next() {
        let is_start = !safe.ends_with(|c: char| c.is_ascii_alphanumeric() || c == '-');
        let found = PATTERNS
            .iter()
            .filter(|_| is_start)
            .find_map(|(pattern, name)| {
                let length = prefix_length(rest, pattern)?;
                let after = rest[length..].chars().next();
                let is_end = !after.is_some_and(|c| c.is_ascii_alphanumeric());
                is_end.then_some((length, *name))
            });
        match found {
            Some((length, name)) => {
                safe.push_str(name);
                rest = &rest[length..];
            }
            None => {
                safe.push(first);
                rest = &rest[first.len_utf8()..];
            }
        }
        for (label, name) in NUMBERS {
            if safe.ends_with(label) {
                let number = rest.trim_start_matches(|c: char| c.is_ascii_digit());
                if number.len() < rest.len() {
                    safe.push_str(name);
                    rest = number;
                }
            }
        }
    }
    safe
}

// Removes fields such as `,"wall_time":"..."` and `,"author_name":"..."`.
fn without_beside(text: &str) -> String {
    let mut left = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(",\"") {
        let (before, field) = rest.split_at(at);
        left.push_str(before);
        let name = field[2..].split('"').next().unwrap();
        let value = field[2 + name.len()..].strip_prefix("\":\"");
        let end = value.and_then(|value| value.find('"').map(|end| 2 + name.len() + 3 + end + 1));
        match end {
            Some(end) if name.ends_with("_time") || name.ends_with("_name") => rest = &field[end..],
            _kept => {
                left.push_str(",\"");
                rest = &field[2..];
            }
        }
    }
    left + rest
}

// `d` is a digit, `h` a hex digit, `b` one or more of base64url; the rest stands for itself.
const PATTERNS: &[(&str, &str)] = &[
    (
        "hhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhh",
        "[id]",
    ),
    ("hhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhh", "[change]"),
    ("hhhhhhhh-hhhh-hhhh-hhhh-hhhhhhhhhhhh", "[uuid]"),
    ("dddd-dd-dd dd:dd:dd.ddd", "[time]"),
    ("dd:dd:dd.ddd", "[time]"),
    ("ddddddddddddd", "[ms]"),
    ("AQoQb", "[cursor]"),
    ("hhhhhhhh", "[short]"),
];

const NUMBERS: &[(&str, &str)] = &[
    ("process ", "[pid]"),
    ("\"pid\":", "[pid]"),
    ("\"counter\":", "[n]"),
    ("_bytes\":", "[n]"),
    ("[time]+", "[n]"),
    ("attempt 1, ", "[n]"),
    ("attempt 2, ", "[n]"),
    ("again in ", "[n]"),
    ("took_ms\":", "[n]"),
    ("retry_ms\":", "[n]"),
];

fn prefix_length(text: &str, pattern: &str) -> Option<usize> {
    let mut chars = text.char_indices().peekable();
    for wanted in pattern.chars() {
        if wanted == 'b' {
            while chars
                .next_if(|(_, c)| c.is_ascii_alphanumeric() || "-_".contains(*c))
                .is_some()
            {}
            continue;
        }
        let (_, c) = chars.next()?;
        let fits = match wanted {
            'd' => c.is_ascii_digit(),
            'h' => c.is_ascii_digit() || ('a'..='f').contains(&c),
            exact => c == exact,
        };
        if !fits {
            return None;
        }
    }
    Some(chars.next().map_or(text.len(), |(at, _)| at))
}
