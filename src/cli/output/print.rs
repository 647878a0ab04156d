//! Writes to stdout and stderr.
//!
//! Lines for programs are JSON. In lines for people, control characters are escaped, so that a
//! key or a value cannot move the cursor, colour the screen or fake a line.

use std::{
    borrow::Cow,
    error::Error,
    fmt::Write as _,
    fs::File,
    io::{self, IsTerminal as _, Write as _},
    os::fd::AsFd as _,
    process::ExitCode,
};

use lattice::clock::Clock;
use serde::Serialize;
use tokio::{io::Interest, net::unix::pipe};

use crate::cli::{
    exit::Failure,
    output::{
        form::Form,
        ink::{Colour, Ink},
        json::{self, typed},
        screen::Screen,
        stderr::Stderr,
        vocabulary::{self, NodeNames},
    },
};

/// Buffered stdout. Nothing else writes to stdout while it exists.
#[derive(Debug)]
pub(crate) struct Output {
    out: io::BufWriter<io::Stdout>,
    /// True if commands print objects in place of lines: as JSON, or through a template.
    pub(crate) json: bool,
    /// True if stdout is a terminal.
    pub(crate) terminal: bool,
    /// Value of `--color`.
    pub(crate) colour: Colour,
    // True with `-v`.
    whole_ids: bool,
    form: Form,
    // Names that objects have beside the ids of nodes; `None` until they were asked for.
    names: Option<NodeNames>,
}

impl Output {
    /// Makes the writer of data in this form.
    pub(crate) fn new(form: Form, colour: Colour, whole_ids: bool) -> Self {
        let stdout = io::stdout();
        let terminal = stdout.is_terminal();
        Self {
            out: io::BufWriter::with_capacity(BUFFER_BYTES, stdout),
            json: matches!(form, Form::Json | Form::Template(_)),
            terminal,
            colour,
            whole_ids,
            form,
            names: None,
        }
    }

    /// Makes another writer like this one, for a thread that writes alone from then on.
    pub(crate) fn another(&self) -> Self {
        Self {
            names: self.names.clone(),
            ..Self::new(self.form.clone(), self.colour, self.whole_ids)
        }
    }

    /// Returns the form of the data.
    pub(crate) fn form(&self) -> &Form {
        &self.form
    }

    /// Changes the form of the data.
    pub(crate) fn set_form(&mut self, form: Form) {
        self.json = matches!(form, Form::Json | Form::Template(_));
        self.form = form;
    }

    /// True if this node's name would stand beside its id in an object, but is not known.
    pub(crate) fn wants_name(&self, node: &[u8]) -> bool {
        let is_known = self.names.as_ref().is_some_and(|names| names.knows(node));
        self.json && !is_known
    }

    /// True if objects are printed, and the names of nodes were not asked for yet.
    pub(crate) fn wants_names(&self) -> bool {
        self.json && self.names.is_none()
    }

    /// Has objects print these names beside the ids of nodes.
    pub(crate) fn set_names(&mut self, names: NodeNames) {
        self.names = Some(names);
    }

    /// True if text is for people: on a terminal, and in a pipe with `-o table` or `--color always`. Other
    /// pipes get lines for scripts.
    pub(crate) fn for_people(&self) -> bool {
        let in_a_pipe = self.colour == Colour::Always || matches!(self.form, Form::Table);
        !self.json && (self.terminal || in_a_pipe)
    }

    /// Returns the place that text is drawn for.
    pub(crate) fn screen(&self) -> Screen {
        let columns = match self.terminal {
            true => self.columns(),
            // A table that was asked for is whole.
            false if matches!(self.form, Form::Table) => None,
            false => self.for_people().then_some(COLUMNS_IN_A_PIPE),
        };
        Screen {
            columns: columns.filter(|_| !self.whole_ids),
            colour: self.colour.is_on(self.terminal),
            ages: self.for_people(),
            now_ms: Clock::system().now_ms(),
            whole_ids: self.whole_ids,
        }
    }

    /// Writes an object, as JSON or through the template, and a newline. Both may stay in the buffer until
    /// the next `flush`.
    pub(crate) fn object(&mut self, object: &impl Serialize) -> Result<(), Failure> {
        let json = self.to_line(object);
        let Form::Template(template) = &self.form else {
            return self.line(&json);
        };
        match template.fill(&json)? {
            Some(text) if self.terminal => self.line(&escape_lines(text.as_bytes())),
            Some(text) => self.line(&text),
            None => Ok(()),
        }
    }

    /// Returns an object as a line of JSON, without a newline.
    pub(crate) fn to_line(&self, object: &impl Serialize) -> String {
        let unnamed = NodeNames::default();
        vocabulary::to_line(object, self.names.as_ref().unwrap_or(&unnamed))
    }

    /// Writes a line, which may stay in the buffer until the next `flush`.
    pub(crate) fn line(&mut self, line: &str) -> Result<(), Failure> {
        self.bytes(line.as_bytes())?;
        self.bytes(b"\n")
    }

    /// Writes bytes unchanged.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        Ok(self.out.write_all(bytes)?)
    }

    /// Writes the buffer to stdout.
    pub(crate) fn flush(&mut self) -> Result<(), Failure> {
        Ok(self.out.flush()?)
    }

    /// Prints a notice on stderr: useful information that is not an error.
    pub(crate) fn notice(&self, code: &str, message: &str) {
        if self.form.is_json() {
            let notice = json::Notice {
                notice: code,
                message,
            };
            stderr_line(&json::to_json(&typed("notice", notice)));
        } else {
            stderr_line(&format!("note: {message}"));
        }
    }

    /// Returns the width of the terminal in columns; `None` if stdout is not a terminal.
    pub(crate) fn columns(&self) -> Option<usize> {
        let size = rustix::termios::tcgetwinsize(io::stdout()).ok()?;
        Some(usize::from(size.ws_col)).filter(|columns| self.terminal && *columns > 0)
    }
}

/// Resolves when the reader of stdout has closed it; never if stdout is not a pipe or a socket.
///
/// A write would also notice the close, but a watch may have nothing to write for hours.
pub(crate) async fn stdout_closed() {
    // A duplicate, so that dropping it does not close stdout; unchecked, so that stdout does not
    // become non-blocking for processes that share it. A regular file fails at this step, because
    // it cannot be watched.
    let stdout = io::stdout().as_fd().try_clone_to_owned().map(File::from);
    if let Ok(stdout) = stdout.and_then(pipe::Sender::from_file_unchecked)
        && stdout.ready(Interest::ERROR).await.is_ok()
    {
        return;
    }
    std::future::pending().await
}

/// Prints `failure` on stderr and returns its exit code.
pub(crate) fn report(failure: &Failure, json: bool, colour: Colour) -> ExitCode {
    if failure.message.is_empty() {
        return failure.exit_code();
    }
    if json {
        let error = json::Error {
            error: &failure.code,
            message: &failure.message,
            hint: &failure.hint,
            exit_code: failure.exit as u8,
        };
        stderr_line(&json::to_json(&typed("error", error)));
    } else {
        // `always` is about stdout: what is on stderr may go to a log.
        let colour = colour.is_on(true) && io::stderr().is_terminal();
        let error = Ink::Alarm.paint("error:", colour);
        stderr_line(&format!(
            "{error} {}",
            escape_lines(failure.message.as_bytes())
        ));
        if !failure.hint.is_empty() {
            let hint = Ink::Dim.paint("hint:", colour);
            stderr_line(&format!("{hint} {}", escape_lines(failure.hint.as_bytes())));
        }
    }
    failure.exit_code()
}

/// Writes a line to stderr. Errors are ignored: there is no other place to report them.
pub(crate) fn stderr_line(line: &str) {
    drop(Stderr.write_all(format!("{line}\n").as_bytes()));
}

/// Returns an error and its sources as one text; a source that the text already contains is left
/// out.
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

/// Writes a key or a value on one line, so that `unescape` returns the same bytes.
///
/// A backslash is `\\`, a newline `\n`, a tab `\t`, a carriage return `\r`. Each byte that is not
/// UTF-8, or is part of an unprintable character, is `\xNN`. The `$'...'` of a shell reads the same.
pub(crate) fn escape(bytes: &[u8]) -> Cow<'_, str> {
    escaped(bytes, |c| c != '\\' && is_harmless(c))
}

/// Makes a text for people safe to show on one line: as `escape`, but a backslash stays as it is.
pub(crate) fn harmless(text: &str) -> Cow<'_, str> {
    escaped(text.as_bytes(), is_harmless)
}

/// Like [`harmless`], but keeps newlines and tabs, for a value that is printed alone.
pub(crate) fn escape_lines(bytes: &[u8]) -> String {
    let is_kept = |c| matches!(c, '\n' | '\t') || is_harmless(c);
    escaped(bytes, is_kept).into_owned()
}

fn escaped(bytes: &[u8], is_kept: impl Fn(char) -> bool) -> Cow<'_, str> {
    if let Ok(text) = str::from_utf8(bytes)
        && text.chars().all(&is_kept)
    {
        return text.into();
    }
    let hex = |safe: &mut String, byte: &u8| {
        write!(safe, "\\x{byte:02x}").expect("a string takes every write");
    };
    let mut safe = String::with_capacity(bytes.len() + 16);
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                c if is_kept(c) => safe.push(c),
                '\\' => safe.push_str("\\\\"),
                '\n' => safe.push_str("\\n"),
                '\t' => safe.push_str("\\t"),
                '\r' => safe.push_str("\\r"),
                c => {
                    let mut bytes = [0; 4];
                    let bytes = c.encode_utf8(&mut bytes).as_bytes();
                    bytes.iter().for_each(|byte| hex(&mut safe, byte));
                }
            }
        }
        chunk.invalid().iter().for_each(|byte| hex(&mut safe, byte));
    }
    safe.into()
}

// False for control characters and for characters that change the direction of the text around
// them.
fn is_harmless(c: char) -> bool {
    !c.is_control()
        && !matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

const BUFFER_BYTES: usize = 64 << 10;
/// Width of lines for people that go into a pipe.
const COLUMNS_IN_A_PIPE: usize = 80;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(escape(b"plain \xc3\xa9"), "plain é");
        assert_eq!(escape(b"\x1b[31mred\n\t\r"), "\\x1b[31mred\\n\\t\\r");
        assert_eq!(escape(b"\xff\x00a\\n"), "\\xff\\x00a\\\\n");
        assert_eq!(
            escape("\u{9b}31m \u{202e}".as_bytes()),
            "\\xc2\\x9b31m \\xe2\\x80\\xae"
        );
        assert_eq!(harmless("a\\n\n"), "a\\n\\n");
        assert_eq!(escape_lines(b"a\n\tb\x07\\\n"), "a\n\tb\\x07\\\n");
    }
}
