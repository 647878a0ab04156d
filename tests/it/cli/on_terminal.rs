//! Runs a command on a pseudo-terminal, and reads its screen as a terminal shows it.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    num::NonZeroU16,
    os::fd::OwnedFd,
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use rustix::{
    fs::{Mode, OFlags, open},
    process::{Pid, Signal, kill_process},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize},
};
use vt100::{Parser, Screen};

use super::harness::PATIENCE;

/// A command with all of its streams on a terminal of its own.
pub(crate) struct OnTerminal {
    child: Child,
    keyboard: File,
    shown: Arc<Mutex<Shown>>,
    is_closed: Arc<AtomicBool>,
    reader: Option<thread::JoinHandle<()>>,
}

/// The output of a command: all of it as text, and the screen that it makes.
pub(crate) struct Shown {
    pub(crate) text: String,
    parser: Parser,
}

impl Shown {
    pub(crate) fn screen(&self) -> &Screen {
        self.parser.screen()
    }
}

impl OnTerminal {
    /// Starts a command on a terminal with 24 rows.
    pub(crate) fn start(mut command: Command, columns: u16) -> Self {
        let keyboard =
            openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&keyboard).unwrap();
        unlockpt(&keyboard).unwrap();
        let name = ptsname(&keyboard, Vec::new()).unwrap();
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let end = open(name, flags, Mode::empty()).unwrap();
        tcsetwinsize(&end, size(columns, 24)).unwrap();
        let stream = |end: &OwnedFd| Stdio::from(end.try_clone().unwrap());
        if !command.get_envs().any(|(name, _)| name == "TERM") {
            command.env("TERM", "xterm");
        }
        let child = command
            .stdin(stream(&end))
            .stdout(stream(&end))
            .stderr(stream(&end))
            .spawn()
            .unwrap();
        // `command` has copies: the screen ends when the last one is closed.
        drop((command, end));
        let keyboard = File::from(keyboard);
        let mut output = keyboard.try_clone().unwrap();
        let shown = Arc::new(Mutex::new(Shown {
            text: String::new(),
            parser: Parser::new(positive(24), positive(columns), 0),
        }));
        let to = Arc::clone(&shown);
        let is_closed = Arc::<AtomicBool>::default();
        let closed = Arc::clone(&is_closed);
        let reader = thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = output.read(&mut bytes) {
                if closed.load(Ordering::Relaxed) {
                    return;
                }
                let mut shown = to.lock().unwrap();
                let text = String::from_utf8_lossy(&bytes[..count]);
                shown.text.push_str(&text);
                shown.parser.process(&bytes[..count]);
            }
        });
        Self {
            child,
            keyboard,
            shown,
            is_closed,
            reader: Some(reader),
        }
    }

    /// Waits until the output has this text.
    pub(crate) fn wait_for(&self, text: &str) {
        self.wait_until(text, |shown| shown.text.contains(text));
    }

    /// Waits until the screen shows this text.
    pub(crate) fn see(&self, text: &str) {
        self.wait_until(text, |shown| shown.screen().contents().contains(text));
    }

    /// Waits until the screen does not show this text.
    pub(crate) fn see_no(&self, text: &str) {
        let is_gone = |shown: &Shown| !shown.screen().contents().contains(text);
        self.wait_until(&format!("no {text}"), is_gone);
    }

    /// Waits until the output is as it should be.
    pub(crate) fn wait_until(&self, what: &str, is_so: impl Fn(&Shown) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let shown = self.shown.lock().unwrap();
            if is_so(&shown) {
                return;
            }
            let (screen, text) = (shown.screen().contents(), &shown.text);
            assert!(
                Instant::now() < deadline,
                "not so: {what:?}; the screen:\n{screen}\nall: {text:?}"
            );
            drop(shown);
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Reads the output so far.
    pub(crate) fn shown<T>(&self, read: impl Fn(&Shown) -> T) -> T {
        read(&self.shown.lock().unwrap())
    }

    pub(crate) fn press(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Gives the terminal another size. The command gets the signal that it would get from its own terminal.
    pub(crate) fn resize(&self, columns: u16, rows: u16) {
        let mut shown = self.shown.lock().unwrap();
        tcsetwinsize(&self.keyboard, size(columns, rows)).unwrap();
        shown.parser.set_size(positive(rows), positive(columns));
        drop(shown);
        self.signal(Signal::WINCH);
    }

    /// True if the terminal gives each key to the command at once, and does not show it.
    pub(crate) fn is_raw(&self) -> bool {
        let modes = tcgetattr(&self.keyboard).unwrap().local_modes;
        !modes.intersects(LocalModes::ICANON | LocalModes::ECHO)
    }

    /// True if the terminal shows what is typed.
    pub(crate) fn echoes(&self) -> bool {
        let modes = tcgetattr(&self.keyboard).unwrap().local_modes;
        modes.contains(LocalModes::ECHO)
    }

    /// Waits for the end, and returns the exit code and the output. The terminal is as it was before.
    pub(crate) fn restored(mut self) -> (i32, String) {
        let code = self.code();
        assert!(!self.is_raw() && self.echoes());
        self.reader.take().unwrap().join().unwrap();
        let shown = self.shown.lock().unwrap();
        let screen = shown.screen();
        let text = &shown.text;
        assert!(!screen.alternate_screen(), "{text:?}");
        assert!(!screen.hide_cursor(), "{text:?}");
        (code, screen.contents())
    }

    /// Waits for the end of the command, and returns its exit code; -1 if a signal ended it.
    pub(crate) fn code(&mut self) -> i32 {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code().unwrap_or(-1);
            }
            assert!(Instant::now() < deadline, "it does not end");
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Closes the terminal while the command runs, and returns the exit code.
    pub(crate) fn close(mut self) -> i32 {
        // The reader drops its copy at the next output, which comes every second.
        self.is_closed.store(true, Ordering::Relaxed);
        let null = File::open("/dev/null").unwrap();
        drop(std::mem::replace(&mut self.keyboard, null));
        self.code()
    }

    /// Waits for the end, and returns all that was shown.
    pub(crate) fn end(mut self) -> String {
        let status = self.child.wait().unwrap();
        self.reader.take().unwrap().join().unwrap();
        let shown = self.shown.lock().unwrap().text.replace("\r\n", "\n");
        assert!(status.success(), "{shown}");
        shown
    }
}

impl Drop for OnTerminal {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn size(columns: u16, rows: u16) -> Winsize {
    Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    }
}

fn positive(number: u16) -> NonZeroU16 {
    NonZeroU16::new(number).unwrap()
}
