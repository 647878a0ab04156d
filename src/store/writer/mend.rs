//! Mending: entries that cannot be read any more are asked of peers, and put back into the log.

use std::collections::BTreeMap;

use tokio::sync::oneshot;

use crate::{
    id::{Author, EntryId},
    limits::PENDING_BYTES_MAX,
    log::{Hole, LogDamage, LogError},
    protocol::{entry::VerifiedEntry, frontier::FrontierTip},
    store::{
        Store, WriteError,
        writer::actor::{Actor, Command},
    },
};

/// What is missing, and what of it has come.
#[derive(Debug, Default)]
pub(super) struct Mending {
    holes: Vec<Hole>,
    // True while `holes` are those of the damage that is known: to look reads whole logs.
    looked: bool,
    // Entries for the holes, until all of one are there.
    found: BTreeMap<EntryId, VerifiedEntry>,
    found_bytes: usize,
}

impl Mending {
    /// Takes an entry whose place is in a hole; false for all others.
    pub(super) fn take(&mut self, entry: &VerifiedEntry) -> bool {
        let (author, seq) = (entry.author(), entry.header.seq);
        let is_here =
            |hole: &Hole| hole.author == author && (hole.first..=hole.last).contains(&seq);
        if !self.holes.iter().any(is_here) {
            return false;
        }
        // What does not fit is asked for again.
        if self.found_bytes + entry.bytes() <= PENDING_BYTES_MAX
            && self.found.insert(entry.id, entry.clone()).is_none()
        {
            self.found_bytes += entry.bytes();
        }
        true
    }

    // The entries of `hole`, when all are there: each commits to the one before.
    fn entries_of(&self, hole: &Hole) -> Option<Vec<VerifiedEntry>> {
        let mut entries = Vec::new();
        let mut next = Some(hole.tip);
        for seq in (hole.first..=hole.last).rev() {
            let entry = self.found.get(&next?)?;
            if entry.header.seq != seq {
                return None;
            }
            next = entry.header.prev;
            entries.push(entry.clone());
        }
        entries.reverse();
        Some(entries)
    }
}

impl Actor {
    /// Notes damage of a log that somebody met.
    pub(super) fn note_damage(&mut self, found: Vec<LogDamage>) {
        for found in found {
            if !self.damage.iter().any(|known| known.covers(&found)) {
                tracing::error!(store = %self.config.id, %found);
                self.damage.push(found);
                self.mending.looked = false;
            }
        }
    }

    /// Keeps an entry whose place is in a hole that `damage` says of; false for all others.
    pub(super) fn fits_hole(&mut self, entry: &VerifiedEntry, damage: Vec<LogDamage>) -> bool {
        if damage.is_empty() {
            return false;
        }
        self.note_damage(damage);
        self.look_for_holes();
        self.mending.take(entry)
    }

    /// True when the predecessor of `entry` cannot be read: the stamp that its log goes by is a guess
    /// then.
    pub(super) fn is_stamp_lost(&mut self, entry: &VerifiedEntry) -> bool {
        let Some(prev) = entry.header.prev else {
            return false;
        };
        let before = entry.header.seq.saturating_sub(1);
        match self.logs.reader().entry(&entry.author(), before, &prev) {
            Err(LogError::Damaged(found)) => {
                self.note_damage(vec![found]);
                true
            }
            _readable => false,
        }
    }

    /// Looks what is missing of the logs. Returns the last entry of each hole.
    pub(super) fn missing(&mut self) -> Vec<(Author, FrontierTip)> {
        self.look_for_holes();
        self.mend();
        let tip = |hole: &Hole| FrontierTip {
            seq: hole.last,
            id: hole.tip,
        };
        let holes = self.mending.holes.iter().filter(|hole| !hole.is_empty());
        holes.map(|hole| (hole.author, tip(hole))).collect()
    }

    fn look_for_holes(&mut self) {
        if !self.mending.looked {
            self.mending.holes = self.find_holes();
            self.mending.looked = true;
        }
    }

    fn find_holes(&self) -> Vec<Hole> {
        let mut holes: Vec<Hole> = Vec::new();
        for damage in &self.damage {
            if holes.iter().any(|hole| hole.file == damage.file) {
                continue;
            }
            match self.logs.reader().holes(damage) {
                Ok(found) => holes.extend(found),
                Err(error) => tracing::warn!(store = %self.config.id, %error, "a log is not read"),
            }
        }
        holes
    }

    /// Puts back what has come.
    pub(super) fn mend(&mut self) {
        if self.mending.holes.is_empty() || self.check_writable().is_err() {
            return;
        }
        let holes = std::mem::take(&mut self.mending.holes);
        let mut mended = Vec::new();
        for hole in holes {
            let Some(entries) = self.mending.entries_of(&hole) else {
                self.mending.holes.push(hole);
                continue;
            };
            match self.logs.fill(&hole, &entries) {
                Ok(true) => mended.push(hole),
                Ok(false) => {
                    tracing::warn!(store = %self.config.id, ?hole, "what has come does not fit");
                }
                Err(error) => {
                    let error = WriteError::from(error);
                    if matches!(error, WriteError::Poisoned { .. }) {
                        self.poisoned = Some(error.to_string());
                        return;
                    }
                    self.mending.holes.push(hole);
                }
            }
        }
        if mended.is_empty() {
            return;
        }
        // What stands behind a hole may say now what another one lacks.
        self.mending.looked = false;
        self.mending.found.clear();
        self.mending.found_bytes = 0;
        for hole in &mended {
            self.damage.retain(|damage| !hole.covers(damage));
            let is_back =
                |cut: &crate::log::LostTail| cut.file == hole.file && cut.through <= hole.last;
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
        // Where it was built while they were missing, the state lacks them. While others are
        // missing, it may be all there is of those.
        if self.damage.is_empty() {
            self.rebuild();
        }
    }
}

impl Store {
    /// Returns entries that are in a log here and cannot be read any more, the last of each run:
    /// a peer that has them is asked for them, and what it gives back is put where it was.
    ///
    /// # Errors
    /// `Closed`.
    pub async fn missing(&self) -> Result<Vec<(Author, FrontierTip)>, WriteError> {
        let (reply, answer) = oneshot::channel();
        self.queue.send(Command::Missing(reply)).await?;
        answer.await.map_err(|_gone| WriteError::Closed)
    }

    /// Says which damage of a log was met: `status` shows it, and peers are asked for what is
    /// missing.
    pub(in crate::store) async fn note_damage(&self, damage: Vec<LogDamage>) {
        if !damage.is_empty() {
            // A store that is closed finds it when it is opened.
            drop(self.queue.send(Command::Damaged(damage)).await);
        }
    }
}
