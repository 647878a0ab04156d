//! Mending: which entries of the logs cannot be read any more, and which of them have come back.

use std::collections::BTreeMap;

use crate::{
    id::{Author, EntryId, Seq, StoreId},
    limits::PENDING_BYTES_MAX,
    log::{Begin, Hole, LogDamage, LogReader},
    protocol::entry::VerifiedEntry,
};

/// Damage of the logs, the holes that it makes, and entries that peers sent for them.
#[derive(Debug)]
pub(super) struct Mending {
    store: StoreId,
    // Known damage. None of it covers another.
    damage: Vec<LogDamage>,
    // Filled by `look`, which reads whole logs; as of then.
    holes: Vec<Hole>,
    // True while `holes` are those of `damage`.
    looked: bool,
    // Entries for the holes, kept until a whole hole can be filled. At most PENDING_BYTES_MAX; an
    // entry that does not fit is asked for again.
    found: BTreeMap<EntryId, VerifiedEntry>,
    found_bytes: usize,
}

impl Mending {
    /// Begins with the damage that was met when the logs were opened.
    pub(super) fn new(store: StoreId, damage: Vec<LogDamage>) -> Self {
        Self {
            store,
            damage,
            holes: Vec::new(),
            looked: false,
            found: BTreeMap::new(),
            found_bytes: 0,
        }
    }

    /// Notes damage that was met; logs what is new.
    pub(super) fn note(&mut self, found: Vec<LogDamage>) {
        for found in found {
            if !self.damage.iter().any(|known| known.covers(&found)) {
                tracing::error!(store = %self.store, %found);
                self.damage.push(found);
                self.looked = false;
            }
        }
    }

    /// Finds the holes that the known damage makes. Reads the logs that have some, once.
    pub(super) fn look(&mut self, log: &LogReader) {
        if self.looked {
            return;
        }
        self.holes.clear();
        for damage in &self.damage {
            if self.holes.iter().any(|hole| hole.file == damage.file) {
                continue;
            }
            match log.holes(damage) {
                Ok(found) => self.holes.extend(found),
                Err(error) => tracing::warn!(store = %self.store, %error, "a log cannot be read"),
            }
        }
        self.looked = true;
    }

    /// Keeps an entry whose place is in a hole.
    pub(super) fn keep(&mut self, entry: &VerifiedEntry) {
        if self.found_bytes + entry.bytes() <= PENDING_BYTES_MAX
            && self.found.insert(entry.id, entry.clone()).is_none()
        {
            self.found_bytes += entry.bytes();
        }
    }

    /// Takes out the holes that can be filled now, each with its entries in order.
    pub(super) fn take_ready(&mut self) -> Vec<(Hole, Vec<VerifiedEntry>)> {
        let (mut ready, mut open) = (Vec::new(), Vec::new());
        for hole in std::mem::take(&mut self.holes) {
            match self.entries_of(&hole) {
                Some(entries) => ready.push((hole, entries)),
                None => open.push(hole),
            }
        }
        self.holes = open;
        ready
    }

    /// Puts back a hole that could not be filled yet.
    pub(super) fn put_back(&mut self, hole: Hole) {
        self.holes.push(hole);
    }

    /// Forgets the damage that filled holes explain. What stands behind one may show now what another
    /// one is missing, so the holes are looked for again.
    pub(super) fn mended(&mut self, holes: &[Hole]) {
        self.damage
            .retain(|damage| !holes.iter().any(|hole| hole.covers(damage)));
        self.forget_found();
    }

    /// Forgets the damage of `file` at or behind `offset`, and all holes: those entries are given up.
    pub(super) fn give_up(&mut self, file: &str, offset: u64) {
        self.damage
            .retain(|damage| damage.file != file || damage.offset < offset);
        self.holes.clear();
        self.forget_found();
    }

    /// Forgets the damage before the places at which logs begin now, and all holes: nobody reads those bytes
    /// any more.
    pub(super) fn forget_before(&mut self, begin: impl Fn(&Author) -> Option<Begin>) {
        self.damage.retain(|damage| {
            let end = damage.offset.saturating_add(damage.bytes);
            begin(&damage.author).is_none_or(|begin| end > begin.offset)
        });
        self.holes.clear();
        self.forget_found();
    }

    /// Returns whether the place is in a known hole.
    pub(super) fn is_hole(&self, author: &Author, seq: Seq) -> bool {
        let has = |hole: &Hole| hole.author == *author && (hole.first..=hole.last).contains(&seq);
        self.holes.iter().any(has)
    }

    /// Returns the known holes.
    pub(super) fn holes(&self) -> &[Hole] {
        &self.holes
    }

    /// Returns the known damage.
    pub(super) fn damage(&self) -> &[LogDamage] {
        &self.damage
    }

    fn forget_found(&mut self) {
        self.looked = false;
        self.found.clear();
        self.found_bytes = 0;
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
