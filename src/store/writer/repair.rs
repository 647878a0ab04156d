//! Repair: gives up lost entries of this node's own log, goes on before entries that are stamped far
//! ahead, and closes its fork, so that it can write again.

use std::fmt;

use crate::{
    bus::StateReset,
    id::{EntryId, Seq},
    protocol::fork::closed_by,
    store::{
        WriteError,
        writer::{far_ahead::TakenBack, health::Health, transaction::Transaction, writer::Writer},
    },
};

/// Entries of this node's own log that were given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LostEntries {
    /// File name of the log.
    pub file: String,
    /// First place that is given up.
    pub first: Seq,
    /// Last place that is given up, inclusive.
    pub through: Seq,
}

impl LostEntries {
    /// Returns how many entries are given up.
    pub fn count(&self) -> u64 {
        self.through - self.first + 1
    }
}

impl fmt::Display for LostEntries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            file,
            first,
            through,
        } = self;
        write!(f, "entries {first} to {through} of {file}")
    }
}

/// Outcome of a repair.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Repaired {
    /// Entries of this node's own log that were given up.
    pub lost: Vec<LostEntries>,
    /// Entries of this node's own log that were taken back, because they were stamped far ahead;
    /// `None` when there were none.
    pub taken_back: Option<TakenBack>,
    /// Fork of this node's own log that was closed; `None` when there was none.
    pub closed: Option<ClosedFork>,
}

/// The entry by which this node closed a fork of its own log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClosedFork {
    /// Id of the closing entry. It has no ops.
    pub entry: EntryId,
    /// Place of the closing entry in this node's log.
    pub seq: Seq,
    /// Newest entries of the branches that end.
    pub tips: Vec<EntryId>,
}

impl Writer {
    /// Gives up what is gone of this node's own log, takes back what is stamped far ahead, then closes
    /// its fork.
    ///
    /// # Errors
    /// The store takes no writes; this node may not write anyway; files cannot be written.
    pub(super) fn repair(&mut self) -> Result<Repaired, WriteError> {
        self.health.check_writable()?;
        let lost = self.give_up()?;
        let taken_back = self.go_on_before_far_ahead()?;
        let mut transaction = Transaction::begin(self)?;
        let closed = transaction.close_own_fork()?;
        let aftermath = transaction.commit()?;
        self.follow_up(aftermath);
        Ok(Repaired {
            lost,
            taken_back,
            closed: closed.map(|entry| ClosedFork {
                entry: entry.id,
                seq: entry.header.seq,
                tips: closed_by(&entry).collect(),
            }),
        })
    }

    fn give_up(&mut self) -> Result<Vec<LostEntries>, WriteError> {
        // The logs come first: until the state is a new one, their end is found to be gone again.
        for cut in &self.cuts {
            if let Err(error) = self.logs.give_up(cut) {
                let error = WriteError::from(error);
                if let WriteError::Poisoned { reason } = &error {
                    let reason = reason.clone();
                    drop(self.health.set(Health::Poisoned { reason }));
                }
                return Err(error);
            }
            self.mending.give_up(&cut.file, cut.end);
        }
        let lost = self.lost();
        if lost.is_empty() {
            return Ok(lost);
        }
        self.cuts.clear();
        self.rebuild();
        if let Some(error) = self.health.state_error() {
            return Err(error.clone().into());
        }
        for lost in &lost {
            let line = format!("gave up {lost}");
            tracing::warn!(store = %self.config.id, line);
            let reset = StateReset::Lost(line.as_str().into());
            self.bus.publish_reset(&reset, self.published());
            self.recovered.push(line);
        }
        Ok(lost)
    }
}
