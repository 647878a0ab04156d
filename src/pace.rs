//! Long work makes way for short work.
//!
//! Where all cores are busy, a kernel lets the thread that runs go on until its slice ends, often
//! at a tick of 4 ms, also when somebody else has just been woken: Linux protects a slice that has
//! begun (EEVDF, `RUN_TO_PARITY`). A put is woken several times on its way, and would wait each time
//! beside a first sync. So whoever works through thousands of entries offers its core in between.

#[cfg(feature = "net")]
use std::cell::RefCell;
use std::{thread, time::Instant};

use crate::limits::CORE_HELD_MAX;

/// How long a thread has worked on end.
#[derive(Debug)]
pub(crate) struct Pace {
    since: Instant,
}

impl Pace {
    /// Begins long work.
    pub(crate) fn start() -> Self {
        Self {
            since: Instant::now(),
        }
    }

    /// Lets others have the core, if it was held for long. Call it every few dozen microseconds.
    pub(crate) fn step(&mut self) {
        if self.since.elapsed() >= CORE_HELD_MAX {
            thread::yield_now();
            self.since = Instant::now();
        }
    }
}

/// As `Pace::step`, for tasks, of which one thread works at many.
#[cfg(feature = "net")]
pub(crate) fn turn() {
    TURN.with_borrow_mut(Pace::step);
}

#[cfg(feature = "net")]
thread_local! {
    static TURN: RefCell<Pace> = RefCell::new(Pace::start());
}
