//! Long work yields its core to short work.
//!
//! While all cores are busy, the kernel lets a running thread go on until its slice ends, often at
//! a tick of 4 ms, even if another thread has just been woken: Linux protects a slice that has
//! begun (EEVDF, `RUN_TO_PARITY`). A put wakes a thread several times on its way, and would wait
//! that long each time beside a first sync. So work that goes through thousands of entries yields
//! in between.

#[cfg(feature = "net")]
use std::cell::RefCell;
use std::{thread, time::Instant};

use crate::limits::CORE_HELD_MAX;

/// The pace of long work on one thread.
#[derive(Debug)]
pub(crate) struct Pace {
    // When the thread began, or last yielded.
    since: Instant,
}

impl Pace {
    /// Begins long work.
    pub(crate) fn start() -> Self {
        Self {
            since: Instant::now(),
        }
    }

    /// Yields the core if the thread has held it for `CORE_HELD_MAX`. Call it every few dozen
    /// microseconds.
    pub(crate) fn step(&mut self) {
        if self.since.elapsed() >= CORE_HELD_MAX {
            thread::yield_now();
            self.since = Instant::now();
        }
    }
}

/// Like `Pace::step`, for tasks: they share the pace of the thread that runs them.
#[cfg(feature = "net")]
pub(crate) fn turn() {
    TURN.with_borrow_mut(Pace::step);
}

#[cfg(feature = "net")]
thread_local! {
    static TURN: RefCell<Pace> = RefCell::new(Pace::start());
}
