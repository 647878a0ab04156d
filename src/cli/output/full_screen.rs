//! The whole terminal, for a screen that is drawn again and again.
//!
//! The terminal is given back when the screen is dropped: at its end, after an error, and at a signal.
//! It is given back before the message of a panic, too.

use std::{
    io::{self, BufWriter, IsTerminal as _, Write},
    panic,
    sync::{Mutex, MutexGuard, Once, PoisonError},
    thread::{self, ThreadId},
};

use crossterm::{
    cursor::{Hide, Show},
    execute,
    style::force_color_output,
    terminal::{EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode},
};
use ratatui::{
    Frame, Terminal, TerminalOptions, Viewport, backend::CrosstermBackend, layout::Rect,
};
use rustix::process::{Signal, getpid, kill_process};

use crate::cli::{
    exit::Failure,
    output::{
        print::Output,
        stderr::{self, Stderr},
    },
};

/// The terminal, taken for a screen.
#[derive(Debug)]
pub(crate) struct FullScreen {
    terminal: Terminal<CrosstermBackend<BufWriter<Frames>>>,
    area: Rect,
}

/// Stdout while the terminal is taken. Nothing is written after it was given back, and no error is reported
/// then: the terminal may be closed.
#[derive(Debug)]
struct Frames;

impl Write for Frames {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match *drawer() {
            Some(_) => io::stdout().write(bytes),
            None => Ok(bytes.len()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match *drawer() {
            Some(_) => io::stdout().flush(),
            None => Ok(()),
        }
    }
}

/// Returns an error if there is no terminal for a screen of `command`, which names what to use instead.
pub(crate) fn check(out: &Output, command: &str, instead: &str) -> Result<(), Failure> {
    let is_dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    let has_terminal = out.terminal && io::stdin().is_terminal();
    match refusal(out.json, has_terminal, is_dumb) {
        None => Ok(()),
        Some(why) => {
            let message = format!("`lattice {command}` {why}");
            Err(Failure::usage("no_screen", message).hint(instead))
        }
    }
}

fn refusal(json: bool, has_terminal: bool, is_dumb: bool) -> Option<&'static str> {
    match (json, has_terminal, is_dumb) {
        (true, _, _) => Some("is a screen for people and has no --json"),
        (_, false, _) => Some("needs a terminal for its keys and its screen"),
        (_, _, true) => {
            Some("needs a terminal that can move its cursor, and TERM says that this one is dumb")
        }
        (false, true, false) => None,
    }
}

impl FullScreen {
    /// Takes the terminal of stdin and stdout, which `check` has found.
    pub(crate) fn take(out: &Output) -> Result<Self, Failure> {
        force_color_output(out.screen().colour);
        give_back_at_a_panic();
        take()?;
        let area = area();
        let backend = CrosstermBackend::new(BufWriter::with_capacity(BUFFER_BYTES, Frames));
        let viewport = Viewport::Fixed(area);
        let terminal = Terminal::with_options(backend, TerminalOptions { viewport });
        match terminal {
            Ok(terminal) => Ok(Self { terminal, area }),
            Err(error) => {
                give_back();
                Err(error.into())
            }
        }
    }

    /// Draws the screen in the size that the terminal has now.
    pub(crate) fn draw(&mut self, draw: impl FnOnce(&mut Frame<'_>)) -> Result<(), Failure> {
        let area = area();
        if area != self.area {
            self.area = area;
            self.terminal.resize(area)?;
        }
        self.terminal.draw(draw)?;
        Ok(())
    }

    /// Forgets what the terminal shows, so that the next `draw` draws everything.
    pub(crate) fn clear(&mut self) -> Result<(), Failure> {
        // `Terminal::clear` asks the terminal for the place of its cursor, and takes keys for the answer.
        Ok(self.terminal.resize(self.area)?)
    }

    /// Gives the terminal back and stops this process, as Ctrl-Z does; takes it again when the process goes on.
    pub(crate) fn suspend(&mut self) -> Result<(), Failure> {
        give_back();
        // Stops here. Without a shell that could let it go on, the system ignores the signal.
        kill_process(getpid(), Signal::TSTP).map_err(io::Error::from)?;
        take()?;
        self.clear()
    }
}

impl Drop for FullScreen {
    fn drop(&mut self) {
        give_back();
    }
}

fn take() -> Result<(), Failure> {
    enable_raw_mode().map_err(|error| {
        Failure::failed("terminal", format!("cannot read single keys: {error}"))
    })?;
    *drawer() = Some(thread::current().id());
    stderr::hold();
    let entered = execute!(io::stdout(), EnterAlternateScreen, Hide);
    if entered.is_err() {
        give_back();
    }
    Ok(entered?)
}

// Restores the terminal if it is taken. Errors are ignored: the terminal may be closed.
fn give_back() {
    if drawer().take().is_none() {
        return;
    }
    drop(execute!(io::stdout(), LeaveAlternateScreen, Show));
    drop(disable_raw_mode());
    stderr::release();
}

// Before its message, a panic of the thread that draws gives the terminal back; that of another thread waits,
// as other lines for stderr do.
fn give_back_at_a_panic() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let report = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            let drawer = *drawer();
            match drawer {
                Some(thread) if thread == thread::current().id() => give_back(),
                Some(_another) => return drop(writeln!(Stderr, "{panic}")),
                None => {}
            }
            report(panic);
        }));
    });
}

// Returns the size of the terminal of stdout.
fn area() -> Rect {
    let size = rustix::termios::tcgetwinsize(io::stdout());
    match size.map(|size| (size.ws_col, size.ws_row)) {
        Ok((columns @ 1.., rows @ 1..)) => Rect::new(0, 0, columns, rows),
        _unknown => Rect::new(0, 0, 80, 24),
    }
}

fn drawer() -> MutexGuard<'static, Option<ThreadId>> {
    DRAWER.lock().unwrap_or_else(PoisonError::into_inner)
}

// The thread that draws; `None` while the terminal is not taken. Locked for a look, or for one write.
static DRAWER: Mutex<Option<ThreadId>> = Mutex::new(None);

/// Bytes of a frame that are written at once.
const BUFFER_BYTES: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn screen_is_refused_without_a_terminal() {
        assert_eq!(refusal(false, true, false), None);
        for (json, has_terminal, is_dumb) in [
            (true, true, false),
            (false, false, false),
            (false, true, true),
        ] {
            assert!(refusal(json, has_terminal, is_dumb).is_some());
        }
    }
}
