//! Stderr, whose lines wait while a screen fills the terminal.

use std::{
    io::{self, IsTerminal as _, Write},
    sync::{Mutex, MutexGuard, PoisonError},
};

/// A writer to stderr.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stderr;

impl Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut *held() {
            Some(held) => {
                keep(held, bytes);
                Ok(bytes.len())
            }
            None => io::stderr().write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// Keeps what is written from now on, if stderr is a terminal.
pub(crate) fn hold() {
    if io::stderr().is_terminal() {
        held().get_or_insert_default();
    }
}

/// Writes what was kept, and keeps no more.
pub(crate) fn release() {
    if let Some(bytes) = held().take() {
        // There is no other place for it.
        drop(io::stderr().write_all(&bytes));
    }
}

// Appends, and drops the oldest lines if there are too many.
fn keep(held: &mut Vec<u8>, bytes: &[u8]) {
    held.extend_from_slice(bytes);
    let Some(surplus) = held.len().checked_sub(HELD_BYTES_MAX + 1) else {
        return;
    };
    let newline = held[surplus..].iter().position(|byte| *byte == b'\n');
    held.drain(..newline.map_or(held.len(), |at| surplus + at + 1));
}

fn held() -> MutexGuard<'static, Option<Vec<u8>>> {
    HELD.lock().unwrap_or_else(PoisonError::into_inner)
}

// Locked for one write at a time. `None`: lines go to stderr at once.
static HELD: Mutex<Option<Vec<u8>>> = Mutex::new(None);

/// Bytes of lines that are kept: a screen may be shown for days.
const HELD_BYTES_MAX: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newest_lines_are_kept() {
        let mut held = Vec::new();
        for number in 0..10_000 {
            keep(&mut held, format!("line {number}\n").as_bytes());
            assert!(held.len() <= HELD_BYTES_MAX);
        }
        let text = String::from_utf8(held).unwrap();
        assert!(text.starts_with("line ") && text.ends_with("line 9999\n"));
        assert!(text.len() > HELD_BYTES_MAX - 20);
        let mut held = Vec::new();
        keep(&mut held, &[b'x'; HELD_BYTES_MAX + 1]);
        assert_eq!(held, b"", "a line that is too long");
    }
}
