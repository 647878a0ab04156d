//! Mending the logs: entries that cannot be read any more come back from peers and are put where they
//! were. The one other way into a log: the entry was here, and its place names its id.

use crate::{
    id::Author,
    log::{Hole, LogError, LostTail},
    protocol::{entry::VerifiedEntry, frontier::FrontierTip},
    store::{
        WriteError,
        writer::{
            health::{Health, WriteFailure},
            writer::Writer,
        },
    },
};

impl Writer {
    /// Returns the last entry of each hole, so that peers are asked for it. Reads the logs that have
    /// damage, once.
    pub(super) fn missing(&mut self) -> Vec<(Author, FrontierTip)> {
        self.mending.look(self.logs.reader());
        self.mend();
        let tip = |hole: &Hole| FrontierTip {
            seq: hole.last,
            id: hole.tip,
        };
        let holes = self.mending.holes().iter().filter(|hole| !hole.is_empty());
        holes.map(|hole| (hole.author, tip(hole))).collect()
    }

    /// Reads the record of an entry that has come again. If it is damaged, which its frame does not
    /// show, the entry is kept to mend it.
    ///
    /// # Errors
    /// The disk fails.
    pub(super) fn came_again(&mut self, entry: &VerifiedEntry) -> Result<(), WriteFailure> {
        let (author, seq, log) = (entry.author(), entry.header.seq, self.logs.reader());
        match log.entry(&author, seq, &entry.id) {
            Ok(_here_or_staged) => {}
            Err(LogError::Damaged(found)) => {
                self.mending.note(vec![found]);
                self.mending.look(log);
                if self.mending.is_hole(&author, seq) {
                    self.mending.keep(entry);
                }
            }
            Err(error) => return Err(WriteFailure::unreadable(error)),
        }
        Ok(())
    }

    /// Fills the holes of which all entries have come.
    pub(super) fn mend(&mut self) {
        if self.mending.holes().is_empty() || self.health.check_writable().is_err() {
            return;
        }
        let mut mended = Vec::new();
        for (hole, entries) in self.mending.take_ready() {
            match self.logs.fill(&hole, &entries) {
                Ok(true) => mended.push(hole),
                Ok(false) => {
                    tracing::warn!(
                        store = %self.config.id,
                        ?hole,
                        "the entries that came for a hole do not fit into it"
                    );
                }
                Err(error) => {
                    self.mending.put_back(hole);
                    if let WriteError::Poisoned { reason } = WriteError::from(error) {
                        drop(self.health.set(Health::Poisoned { reason }));
                        return;
                    }
                }
            }
        }
        if mended.is_empty() {
            return;
        }
        self.mending.mended(&mended);
        for hole in &mended {
            let is_back = |cut: &LostTail| cut.file == hole.file && cut.through <= hole.last;
            self.cuts.retain(|cut| !is_back(cut));
            let (first, last, file) = (hole.first, hole.last, &hole.file);
            let line = if hole.is_empty() {
                format!("the mark at entry {last} of {file} was written again")
            } else {
                format!("entries {first} to {last} of {file} came back from a peer")
            };
            tracing::info!(store = %self.config.id, line);
            self.recovered.push(line);
        }
        // A state that was built while they were missing lacks them. While others are missing, it may
        // be all there is of those. Where logs begin later and there is no base, it cannot be built again,
        // and goes on.
        if self.mending.damage().is_empty()
            && (self.logs.reader().pruned().is_none() || self.base.newest().is_some())
        {
            self.rebuild();
        }
    }
}
