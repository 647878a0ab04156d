//! A secret that a command prints: `secret-tool`, `pass`, a vault's client, or a script of the owner's.

use std::{
    io::Read,
    os::unix::process::CommandExt as _,
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process_group};
use zeroize::Zeroizing;

use crate::{
    limits::{KEY_COMMAND_TIMEOUT, KEY_TEXT_BYTES_MAX},
    vault::KeyError,
};

/// Runs the command, without a shell and without input, and returns what it prints. It is ended with all
/// that it has started when it takes too long or prints too much.
///
/// Waits: not for an event loop.
///
/// # Errors
/// `Start`, `Command`, `CommandTime`, `CommandOutput`.
pub(super) fn run(argv: &[String]) -> Result<Zeroizing<String>, KeyError> {
    run_within(argv, KEY_COMMAND_TIMEOUT)
}

fn run_within(argv: &[String], wait: Duration) -> Result<Zeroizing<String>, KeyError> {
    let (program, arguments) = argv
        .split_first()
        .map_or(("", argv), |(program, rest)| (program.as_str(), rest));
    let command = program.to_owned();
    let started = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn();
    let mut child = started.map_err(|source| KeyError::Start {
        command: command.clone(),
        source,
    })?;
    let deadline = Instant::now() + wait;
    let output = read_on_thread(child.stdout.take(), KEY_TEXT_BYTES_MAX);
    let errors = read_on_thread(child.stderr.take(), STDERR_BYTES_MAX);
    let printed = output.recv_timeout(wait);
    let is_too_long = matches!(&printed, Ok(bytes) if bytes.len() > KEY_TEXT_BYTES_MAX);
    let ended = match (is_too_long, printed.is_ok()) {
        (false, true) => wait_for(&mut child, deadline),
        _not_ended => None,
    };
    end_all(&mut child);
    let stderr = errors.recv_timeout(STDERR_WAIT).unwrap_or_default();
    let stderr = String::from_utf8_lossy(&stderr).into_owned();
    if is_too_long {
        let bytes_max = KEY_TEXT_BYTES_MAX;
        return Err(KeyError::CommandOutput { command, bytes_max });
    }
    let (Ok(bytes), Some(status)) = (printed, ended) else {
        return Err(KeyError::CommandTime {
            command,
            wait,
            stderr,
        });
    };
    if !status.success() {
        return Err(KeyError::Command {
            command,
            how: format!("failed ({status})"),
            stderr,
        });
    }
    let mut text = Zeroizing::new(String::with_capacity(KEY_TEXT_BYTES_MAX));
    text.push_str(str::from_utf8(&bytes).unwrap_or_default());
    Ok(text)
}

// Reads up to `bytes_max` bytes and one more, on a thread: a program that ends may leave the pipe to another.
fn read_on_thread(
    pipe: Option<impl Read + Send + 'static>,
    bytes_max: usize,
) -> mpsc::Receiver<Zeroizing<Vec<u8>>> {
    let (send, receive) = mpsc::sync_channel(1);
    thread::spawn(move || {
        let mut bytes = Zeroizing::new(Vec::with_capacity(bytes_max + 1));
        if let Some(pipe) = pipe {
            let limit = u64::try_from(bytes_max + 1).unwrap_or(u64::MAX);
            // After an error, the bytes before it count.
            drop(pipe.take(limit).read_to_end(&mut bytes));
        }
        drop(send.send(bytes));
    });
    receive
}

fn wait_for(child: &mut Child, deadline: Instant) -> Option<ExitStatus> {
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Some(status),
            Ok(None) if Instant::now() < deadline => thread::sleep(LOOK_EVERY),
            _late_or_lost => return None,
        }
    }
}

// Ends the program, if it still runs, and everything that it has started.
fn end_all(child: &mut Child) {
    let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    if let Some(Err(error)) = group.map(|group| kill_process_group(group, Signal::KILL)) {
        tracing::trace!(%error, "nothing is left of a command");
    }
    drop(child.wait());
}

const STDERR_BYTES_MAX: usize = 1000;
const STDERR_WAIT: Duration = Duration::from_millis(200);
const LOOK_EVERY: Duration = Duration::from_millis(5);

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Result<String, String> {
        let argv = ["sh", "-c", script].map(str::to_owned);
        let printed = run_within(&argv, Duration::from_millis(700));
        printed
            .map(|text| text.to_string())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn command_prints_the_key_or_says_why_not() {
        assert_eq!(shell("echo abc").unwrap(), "abc\n");
        // It gets no input to wait for.
        assert_eq!(shell("cat; echo abc").unwrap(), "abc\n");
        let failed = shell("echo locked >&2; exit 3").unwrap_err();
        assert!(failed.contains("exit status: 3"), "{failed}");
        assert!(failed.ends_with("it wrote: locked"), "{failed}");
        let endless = shell("yes").unwrap_err();
        assert!(endless.contains("more than 16384 bytes"), "{endless}");
        let began = Instant::now();
        let hangs = shell("echo waiting >&2; sleep 60").unwrap_err();
        assert!(hangs.contains("did not end within"), "{hangs}");
        assert!(hangs.ends_with("it wrote: waiting"), "{hangs}");
        // A program of its own that holds the pipe is ended, too.
        let left = shell("sleep 60 & exit 0").unwrap_err();
        assert!(left.contains("did not end within"), "{left}");
        let closed = shell("exec >&-; sleep 60").unwrap_err();
        assert!(closed.contains("did not end within"), "{closed}");
        assert!(began.elapsed() < Duration::from_secs(20));
        let missing = run_within(&["/no/such/program".to_owned()], Duration::from_secs(1));
        assert!(
            matches!(missing, Err(KeyError::Start { .. })),
            "{missing:?}"
        );
    }
}
