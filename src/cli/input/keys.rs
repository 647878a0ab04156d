//! Reads single keys from the terminal, for screens that fill it.
//!
//! The reader of crossterm never returns once the terminal is closed, so it could not be stopped.

use std::{
    io::{self, PipeWriter},
    thread::{self, JoinHandle},
    time::Duration,
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::sync::mpsc::{self, Receiver, Sender};

use crate::cli::exit::Failure;

/// A key, as a person pressed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Key {
    Char(char),
    Enter,
    Escape,
    Tab,
    BackTab,
    Backspace,
    Up,
    Down,
    Left,
    Right,
    PageUp,
    PageDown,
    Home,
    End,
    /// Ctrl-C, which a terminal in raw mode does not turn into a signal.
    Interrupt,
    /// Ctrl-Z, likewise.
    Suspend,
    /// Ctrl-L: draw everything again.
    Redraw,
}

/// The consequence of a key for a screen that fills the terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Then {
    Stay,
    Leave,
    /// Stop the process, until the shell lets it go on.
    Suspend,
    /// Draw everything again.
    Redraw,
}

/// The keys that are pressed on the terminal of stdin.
#[derive(Debug)]
pub(crate) struct Keyboard {
    // The thread sends; it closes the channel when the terminal is closed.
    keys: Receiver<io::Result<Key>>,
    // Dropping it ends the thread.
    stop: Option<PipeWriter>,
    thread: Option<JoinHandle<()>>,
}

impl Keyboard {
    /// Begins to read keys. The terminal must be in raw mode.
    pub(crate) fn open() -> Result<Self, Failure> {
        let (stopped, stop) = io::pipe()?;
        let (sender, keys) = mpsc::channel(KEYS_WAITING_MAX);
        let thread = thread::spawn(move || {
            if let Err(error) = read(&stopped, &sender) {
                // Without a receiver nobody waits for keys.
                drop(sender.blocking_send(Err(error)));
            }
        });
        Ok(Self {
            keys,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// Waits for the next key. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Result<Key, Failure> {
        match self.keys.recv().await {
            Some(Ok(key)) => Ok(key),
            Some(Err(error)) => Err(closed(&error.to_string())),
            None => Err(closed("it was closed")),
        }
    }
}

impl Drop for Keyboard {
    fn drop(&mut self) {
        self.keys.close();
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic of it was reported when it happened.
            drop(thread.join());
        }
    }
}

fn closed(why: &str) -> Failure {
    Failure::failed(
        "terminal",
        format!("cannot read keys from the terminal: {why}"),
    )
}

// Reads keys until the pipe or the receiver is closed.
fn read(stopped: &io::PipeReader, keys: &Sender<io::Result<Key>>) -> io::Result<()> {
    let stdin = io::stdin();
    let mut decoder = Decoder::default();
    let mut bytes = [0; 1024];
    loop {
        let mut fds = [
            PollFd::new(&stdin, PollFlags::IN),
            PollFd::new(stopped, PollFlags::IN),
        ];
        let wait = decoder.is_waiting().then_some(SEQUENCE_WAIT);
        let wait = wait.map(Timespec::try_from).transpose();
        let ready = match poll(&mut fds, wait.unwrap_or_default().as_ref()) {
            Err(rustix::io::Errno::INTR) => continue,
            ready => ready?,
        };
        if !fds[1].revents().is_empty() {
            return Ok(());
        }
        let found = if ready == 0 {
            decoder.end().into_iter().collect()
        } else {
            match rustix::io::read(&stdin, &mut bytes) {
                Err(rustix::io::Errno::INTR) => continue,
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => decoder.feed(&bytes[..count]),
                Err(error) => return Err(error.into()),
            }
        };
        for key in found {
            if keys.blocking_send(Ok(key)).is_err() {
                return Ok(());
            }
        }
    }
}

/// Turns the bytes of a terminal into keys.
#[derive(Debug, Default)]
struct Decoder {
    // Bytes of a key that is not complete.
    rest: Vec<u8>,
}

/// The beginning of the bytes of a terminal.
enum Beginning {
    /// A key, and the number of its bytes.
    Key(Key, usize),
    /// The number of bytes that are not a key of a screen.
    Other(usize),
    /// Part of a key.
    Part,
}

impl Decoder {
    /// Returns the keys that these bytes complete.
    fn feed(&mut self, bytes: &[u8]) -> Vec<Key> {
        self.rest.extend_from_slice(bytes);
        let mut keys = Vec::new();
        loop {
            let used = match beginning(&self.rest) {
                Beginning::Key(key, used) => {
                    keys.push(key);
                    used
                }
                Beginning::Other(used) => used,
                Beginning::Part => return keys,
            };
            self.rest.drain(..used);
        }
    }

    /// True if the last bytes were part of a key.
    fn is_waiting(&self) -> bool {
        !self.rest.is_empty()
    }

    /// Returns the key that the rest is if no bytes follow: the escape key for its byte alone.
    fn end(&mut self) -> Option<Key> {
        let rest = std::mem::take(&mut self.rest);
        (rest == [ESCAPE]).then_some(Key::Escape)
    }
}

fn beginning(bytes: &[u8]) -> Beginning {
    let key = |key| Beginning::Key(key, 1);
    match bytes {
        [] | [ESCAPE] | [ESCAPE, b'O'] => Beginning::Part,
        [ESCAPE, b'[', rest @ ..] => sequence(rest),
        [ESCAPE, b'O', last, ..] => named(*last, &[], 3),
        [ESCAPE, ESCAPE, ..] => key(Key::Escape),
        // A letter with Alt.
        [ESCAPE, _letter, ..] => Beginning::Other(2),
        [b'\r' | b'\n', ..] => key(Key::Enter),
        [b'\t', ..] => key(Key::Tab),
        [0x7f | 0x08, ..] => key(Key::Backspace),
        [0x03, ..] => key(Key::Interrupt),
        [0x1a, ..] => key(Key::Suspend),
        [0x0c, ..] => key(Key::Redraw),
        [0..0x20, ..] => Beginning::Other(1),
        letters => letter(letters),
    }
}

// Reads the first character of bytes that are to be UTF-8.
fn letter(bytes: &[u8]) -> Beginning {
    let chunk = bytes.utf8_chunks().next();
    let Some(chunk) = chunk else {
        return Beginning::Part;
    };
    match chunk.valid().chars().next() {
        Some(letter) if letter.is_control() => Beginning::Other(letter.len_utf8()),
        Some(letter) => Beginning::Key(Key::Char(letter), letter.len_utf8()),
        // The bytes end within a character.
        None if chunk.invalid().len() == bytes.len()
            && str::from_utf8(bytes).is_err_and(|error| error.error_len().is_none()) =>
        {
            Beginning::Part
        }
        None => Beginning::Other(chunk.invalid().len()),
    }
}

// Reads a sequence after its beginning, ESC [: parameters, and a letter or `~`.
fn sequence(rest: &[u8]) -> Beginning {
    let Some(at) = rest.iter().position(|byte| (0x40..=0x7e).contains(byte)) else {
        return match rest.len() {
            0..SEQUENCE_BYTES_MAX => Beginning::Part,
            too_long => Beginning::Other(too_long + 2),
        };
    };
    named(rest[at], &rest[..at], at + 3)
}

// Names the key of a sequence that ends with `last`, by its first parameter if that is `~`.
fn named(last: u8, parameters: &[u8], used: usize) -> Beginning {
    let first = parameters.split(|byte| *byte == b';').next();
    let key = match (last, first.unwrap_or_default()) {
        (b'A', _) => Key::Up,
        (b'B', _) => Key::Down,
        (b'C', _) => Key::Right,
        (b'D', _) => Key::Left,
        (b'H', _) | (b'~', b"1" | b"7") => Key::Home,
        (b'F', _) | (b'~', b"4" | b"8") => Key::End,
        (b'~', b"5") => Key::PageUp,
        (b'~', b"6") => Key::PageDown,
        (b'Z', _) => Key::BackTab,
        (b'M', _) if used == 3 => Key::Enter,
        _other => return Beginning::Other(used),
    };
    Beginning::Key(key, used)
}

const ESCAPE: u8 = 0x1b;
/// Keys that wait to be handled. When they are so many, the terminal keeps the next ones.
const KEYS_WAITING_MAX: usize = 64;
/// Bytes of the longest sequence that is waited for.
const SEQUENCE_BYTES_MAX: usize = 32;
/// Wait for the rest of a sequence, which a slow connection may send in pieces. After it, ESC alone is the
/// escape key.
const SEQUENCE_WAIT: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(bytes: &[u8]) -> Vec<Key> {
        let mut decoder = Decoder::default();
        let mut keys = decoder.feed(bytes);
        keys.extend(decoder.end());
        assert!(!decoder.is_waiting());
        keys
    }

    #[test]
    fn keys_of_terminals_are_known() {
        assert_eq!(
            keys("q/é日\r\n\t\u{7f}".as_bytes()),
            [
                Key::Char('q'),
                Key::Char('/'),
                Key::Char('é'),
                Key::Char('日'),
                Key::Enter,
                Key::Enter,
                Key::Tab,
                Key::Backspace
            ]
        );
        assert_eq!(
            keys(b"\x1b[A\x1bOB\x1b[1;5C\x1b[D\x1b[Z\x1b[5~\x1b[6~\x1b[H\x1b[4~\x1bOF"),
            [
                Key::Up,
                Key::Down,
                Key::Right,
                Key::Left,
                Key::BackTab,
                Key::PageUp,
                Key::PageDown,
                Key::Home,
                Key::End,
                Key::End
            ]
        );
        assert_eq!(
            keys(b"\x03\x1a\x0c"),
            [Key::Interrupt, Key::Suspend, Key::Redraw]
        );
    }

    #[test]
    fn escape_key_is_its_byte_alone() {
        assert_eq!(keys(b"\x1b"), [Key::Escape]);
        assert_eq!(keys(b"\x1b\x1b"), [Key::Escape, Key::Escape]);
        assert_eq!(keys(b"\x1b\x1b[A"), [Key::Escape, Key::Up]);
        // Alt and a letter, and a sequence that never ends.
        assert_eq!(keys(b"\x1bxq"), [Key::Char('q')]);
        assert_eq!(keys(b"\x1b[1"), []);
        let long = [b"\x1b[".as_slice(), &[b'1'; 40], b"q"].concat();
        assert_eq!(keys(&long), [], "the sequence ends with q");
    }

    #[test]
    fn keys_may_come_in_pieces() {
        for bytes in [b"\x1b[1;5A".as_slice(), "é".as_bytes(), "日".as_bytes()] {
            let mut decoder = Decoder::default();
            let mut found = Vec::new();
            for byte in bytes {
                found.extend(decoder.feed(&[*byte]));
            }
            assert_eq!(found, keys(bytes), "{bytes:?}");
            assert_eq!(found.len(), 1, "{bytes:?}");
        }
    }

    #[test]
    fn any_bytes_are_read_to_their_end() {
        for first in 0..=255 {
            for second in [0, b'A', b'[', b'O', b'~', 0x80, 0xc3, 0xff, ESCAPE] {
                keys(&[first, second, b'q']);
                keys(&[ESCAPE, first, second]);
            }
        }
        assert_eq!(keys(b"\xff\xfeq\x80"), [Key::Char('q')]);
        assert_eq!(keys("\u{9b}q".as_bytes()), [Key::Char('q')]);
    }
}
