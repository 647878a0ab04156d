//! What goes to stdout and stderr.
//!
//! Lines for programs are JSON; lines for people never let a key or a value move the cursor,
//! colour the screen or fake a line: control characters are escaped.

use std::{
    borrow::Cow,
    error::Error,
    fmt::Write as _,
    fs::File,
    io::{self, IsTerminal as _, Write as _},
    os::fd::AsFd as _,
    process::ExitCode,
};

use serde::Serialize;
use tokio::{io::Interest, net::unix::pipe};

use crate::cli::{exit::Failure, output::json};

/// Stdout.
#[derive(Debug)]
pub(crate) struct Output {
    out: io::BufWriter<io::Stdout>,
    /// True for programs: one object per line.
    pub(crate) json: bool,
    /// True when a person sees it directly.
    pub(crate) terminal: bool,
}

impl Output {
    /// Makes the writer; nothing else writes to stdout.
    pub(crate) fn new(json: bool) -> Self {
        let stdout = io::stdout();
        let terminal = stdout.is_terminal();
        Self {
            out: io::BufWriter::with_capacity(BUFFER_BYTES, stdout),
            json,
            terminal,
        }
    }

    /// Writes an object and a newline. Nobody sees it before the next `flush`.
    pub(crate) fn object(&mut self, object: &impl Serialize) -> Result<(), Failure> {
        self.line(&json::to_json(object))
    }

    /// Writes a line. Nobody sees it before the next `flush`.
    pub(crate) fn line(&mut self, line: &str) -> Result<(), Failure> {
        self.bytes(line.as_bytes())?;
        self.bytes(b"\n")
    }

    /// Writes bytes as they are.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        Ok(self.out.write_all(bytes)?)
    }

    /// Hands what was written to the reader.
    pub(crate) fn flush(&mut self) -> Result<(), Failure> {
        Ok(self.out.flush()?)
    }

    /// Tells something on stderr that is no error.
    pub(crate) fn notice(&self, code: &str, message: &str) {
        if self.json {
            complain(&json::to_json(&json::Notice {
                notice: code,
                message,
            }));
        } else {
            complain(&format!("note: {message}"));
        }
    }

    /// Returns the columns of the terminal; `None`: stdout is no terminal.
    pub(crate) fn columns(&self) -> Option<usize> {
        let size = rustix::termios::tcgetwinsize(io::stdout()).ok()?;
        Some(usize::from(size.ws_col)).filter(|columns| self.terminal && *columns > 0)
    }
}

/// Returns when the reader of stdout has gone; never when stdout is not a pipe or a socket.
///
/// A writer learns it at its next write, and a quiet watch may not have one for hours.
pub(crate) async fn stdout_closed() {
    // A descriptor of its own, so that its end closes nothing, and unchecked, so that stdout stays
    // as it is for those who share it. What cannot be watched (a file) fails here.
    let stdout = io::stdout().as_fd().try_clone_to_owned().map(File::from);
    if let Ok(stdout) = stdout.and_then(pipe::Sender::from_file_unchecked)
        && stdout.ready(Interest::ERROR).await.is_ok()
    {
        return;
    }
    std::future::pending().await
}

/// Prints `failure` on stderr and returns its exit code.
pub(crate) fn report(failure: &Failure, json: bool) -> ExitCode {
    if failure.message.is_empty() {
        return failure.exit.into();
    }
    if json {
        complain(&json::to_json(&json::Error {
            error: &failure.code,
            message: &failure.message,
            hint: &failure.hint,
            exit_code: failure.exit as u8,
        }));
    } else {
        complain(&format!("error: {}", failure.message));
        if !failure.hint.is_empty() {
            complain(&format!("hint: {}", failure.hint));
        }
    }
    failure.exit.into()
}

/// Writes a line to stderr; when even that fails, there is nobody left to tell.
pub(crate) fn complain(line: &str) {
    drop(writeln!(io::stderr().lock(), "{line}"));
}

/// Returns an error with its sources, where they say more than it does.
pub(crate) fn sources(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let inner = error.to_string();
        if !text.contains(&inner) {
            text.push_str(": ");
            text.push_str(&inner);
        }
        source = error.source();
    }
    text
}

/// Makes bytes safe to show on one line: what is neither UTF-8 nor printable is escaped.
pub(crate) fn escape(bytes: &[u8]) -> Cow<'_, str> {
    if let Ok(text) = str::from_utf8(bytes)
        && text.chars().all(is_harmless)
    {
        return text.into();
    }
    let mut safe = String::with_capacity(bytes.len() + 16);
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if is_harmless(c) {
                safe.push(c);
            } else {
                safe.extend(c.escape_default());
            }
        }
        for byte in chunk.invalid() {
            write!(safe, "\\x{byte:02x}").expect("a string takes every write");
        }
    }
    safe.into()
}

/// As [`escape`], but keeps newlines and tabs, which a value on a screen of its own may have.
pub(crate) fn escape_lines(bytes: &[u8]) -> String {
    let parts = bytes.split_inclusive(|byte| matches!(byte, b'\n' | b'\t'));
    let mut safe = String::with_capacity(bytes.len());
    for part in parts {
        match part {
            [text @ .., b'\n'] => safe.push_str(&(escape(text) + "\n")),
            [text @ .., b'\t'] => safe.push_str(&(escape(text) + "\t")),
            text => safe.push_str(&escape(text)),
        }
    }
    safe
}

/// Cuts `text` to `columns` characters; what was cut shows as an ellipsis.
pub(crate) fn cut(text: &str, columns: usize) -> Cow<'_, str> {
    match text.char_indices().nth(columns) {
        None => text.into(),
        Some(_longer) => {
            let kept = text.chars().take(columns.saturating_sub(1));
            kept.chain(std::iter::once('…')).collect::<String>().into()
        }
    }
}

// Neither a control character nor one that changes the direction of the text around it.
fn is_harmless(c: char) -> bool {
    !c.is_control()
        && !matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

const BUFFER_BYTES: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_escapes_to_the_terminal() {
        assert_eq!(escape(b"plain \xc3\xa9"), "plain é");
        assert_eq!(escape(b"\x1b[31mred\n"), "\\u{1b}[31mred\\n");
        assert_eq!(escape(b"\xff\x00a"), "\\xff\\u{0}a");
        assert_eq!(
            escape("\u{9b}31m \u{202e}".as_bytes()),
            "\\u{9b}31m \\u{202e}"
        );
        assert_eq!(escape_lines(b"a\n\tb\x07\n"), "a\n\tb\\u{7}\n");
    }

    #[test]
    fn a_cut_says_so() {
        assert_eq!(cut("abc", 3), "abc");
        assert_eq!(cut("abcd", 3), "ab…");
        assert_eq!(cut("éééé", 2), "é…");
        assert_eq!(cut("abc", 0), "…");
    }
}
