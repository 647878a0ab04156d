//! Flushes: rows in memory go to the state file, now and then and at the end.

use std::time::{Duration, Instant};

use crate::{
    id::Author,
    limits::{FLUSH_EVERY, RECENT_BYTES_MAX},
    log::LogError,
    protocol::frontier::Frontier,
    state::StateError,
    store::{PruneError, writer::writer::Writer},
};

impl Writer {
    /// Begins a flush when enough has changed or enough time has passed, and ends one that is done.
    ///
    /// # Errors
    /// The state file cannot be written.
    pub(super) fn flush_if_due(&mut self) -> Result<(), StateError> {
        let full = self.state.recent_bytes() >= RECENT_BYTES_MAX;
        if self.state.finish_flush(full)? {
            self.marks.flushed();
        }
        let due = self.state.recent_bytes() > 0 && self.flushed_at.elapsed() >= FLUSH_EVERY;
        if (full || due) && !self.state.is_flushing() {
            debug_assert!(
                self.logs_cover_state(),
                "the state is not ahead of the logs"
            );
            let notes = self.take_notes();
            self.state.flush(notes);
            self.flushed_at = Instant::now();
        }
        Ok(())
    }

    /// Writes everything in memory to the state file and waits for it.
    ///
    /// # Errors
    /// The state file cannot be written.
    pub(super) fn flush_all(&mut self) -> Result<(), StateError> {
        if self.state.finish_flush(true)? {
            self.marks.flushed();
        }
        let notes = self.take_notes();
        self.state.flush(notes);
        self.state.finish_flush(true)?;
        self.marks.flushed();
        Ok(())
    }

    /// Returns whether the state file has everything at and before `anchors`. If it has not, begins a flush
    /// unless one is running: ask again.
    ///
    /// # Errors
    /// The disk fails, or the store takes no writes now.
    pub(super) fn flush_through(&mut self, anchors: &Frontier) -> Result<bool, PruneError> {
        self.health.check_writable()?;
        if self.is_flushed_through(anchors)? {
            return Ok(true);
        }
        if !self.state.is_flushing() && self.health.state_error().is_none() {
            let notes = self.take_notes();
            self.state.flush(notes);
            self.flushed_at = Instant::now();
        }
        Ok(false)
    }

    /// Returns whether the state file is known to have everything at and before `anchors`.
    ///
    /// # Errors
    /// The disk fails.
    fn is_flushed_through(&self, anchors: &Frontier) -> Result<bool, LogError> {
        let Some(flushed) = self.state.flushed_through() else {
            return Ok(false);
        };
        let log = self.logs.reader();
        for (author, anchor) in anchors.iter() {
            let mut is_in_file = false;
            for tip in flushed.tips(&author) {
                is_in_file |= *tip == anchor || log.leads(&author, anchor, *tip)? == Some(true);
            }
            if !is_in_file {
                return Ok(false);
            }
        }
        Ok(true)
    }

    // Returns whether everything that a flush writes follows from durable entries. A state file that
    // is ahead of its logs is thrown away when the store is opened.
    fn logs_cover_state(&self) -> bool {
        let log = self.logs.reader();
        let durable = |author: &Author| {
            let branches = log.of(author);
            branches
                .iter()
                .filter_map(|branch| branch.tip())
                .map(|tip| tip.seq)
                .max()
        };
        let frontier = &self.state.staged().frontier;
        frontier
            .iter()
            .all(|(author, tip)| durable(&author) >= Some(tip.seq))
    }

    /// Returns how long nothing is to be flushed, if nothing is written meanwhile.
    pub(super) fn flush_due_in(&self) -> Duration {
        if self.state.is_flushing() {
            LOOK_AGAIN
        } else if self.state.recent_bytes() > 0 {
            FLUSH_EVERY.saturating_sub(self.flushed_at.elapsed())
        } else {
            Duration::MAX
        }
    }
}

// While a flush is under way, its end is looked for this often.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
