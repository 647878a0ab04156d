//! Replayed: which parents of an entry are not in the log, as a replay asks.
//!
//! A replay reads the logs in the order that all nodes share, so a parent comes before the entries
//! that cite it, if it is there at all.

use std::{
    collections::{BTreeMap, HashSet, VecDeque},
    sync::Arc,
};

use crate::{
    id::{Author, EntryId},
    limits::REPLAYED_KEPT_MAX,
    log::{LogError, LogReader},
    protocol::{
        entry::{Entry, Parent},
        finality::Finality,
        fork::takes_back,
        frontier::{Frontier, FrontierTip},
        heads::{Heads, among},
    },
};

/// The entries that a replay has read last, at most `REPLAYED_KEPT_MAX`.
#[derive(Debug, Default)]
pub(super) struct Replayed {
    ids: HashSet<EntryId>,
    // Oldest first.
    order: VecDeque<EntryId>,
    // A parent at or below is present, whatever an entry says of it: nobody can check that any more.
    anchors: Frontier,
    finality: Arc<Finality>,
}

impl Replayed {
    /// Begins after `anchors`, those of the base to which the entries are applied. `finality` has those of
    /// the store.
    pub(super) fn after(anchors: Frontier, finality: Arc<Finality>) -> Self {
        Self {
            anchors,
            finality,
            ..Self::default()
        }
    }

    /// Adds an entry that is read.
    pub(super) fn add(&mut self, id: EntryId) {
        if self.ids.insert(id) {
            self.order.push_back(id);
        }
        if self.order.len() > REPLAYED_KEPT_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.ids.remove(&oldest);
        }
    }

    /// Returns the parents of `entry` that are not in the log. `heads`: of the entry's keys. Most parents
    /// are among them, or were read shortly before, and need no look into the log. One that cannot be
    /// read counts as absent: to note it needlessly changes nothing.
    ///
    /// # Errors
    /// `Io`.
    pub(super) fn absent(
        &self,
        entry: &Entry,
        heads: &[Heads],
        log: &LogReader,
    ) -> Result<Vec<Parent>, LogError> {
        let parents = &entry.header.parents;
        if parents.is_empty() || entry.ops.is_empty() {
            return Ok(Vec::new());
        }
        let is_head = among(heads);
        let is_open = |parent: &&Parent| {
            !is_head(parent)
                && !self.ids.contains(&parent.id)
                && !takes_back(entry, parent)
                && parent.seq > self.anchors.seq(&parent.author)
                && !self.finality.is_present(parent)
        };
        let mut open: BTreeMap<Author, Vec<Parent>> = BTreeMap::new();
        for parent in parents.iter().filter(is_open) {
            open.entry(parent.author).or_default().push(*parent);
        }
        let mut absent = Vec::new();
        for (author, parents) in open {
            let place = |parent: &Parent| FrontierTip {
                seq: parent.seq,
                id: parent.id,
            };
            let places: Vec<FrontierTip> = parents.iter().map(place).collect();
            let (has, _damage) = log.find(&author, &places)?;
            let lacks = parents.into_iter().zip(has).filter(|(_, has)| !has);
            absent.extend(lacks.map(|(parent, _)| parent));
        }
        Ok(absent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_entries_are_remembered() {
        let id = |number: usize| EntryId(*blake3::hash(&number.to_le_bytes()).as_bytes());
        let mut replayed = Replayed::default();
        for number in 0..REPLAYED_KEPT_MAX + 2 {
            replayed.add(id(number));
            replayed.add(id(number));
        }
        assert_eq!(replayed.ids.len(), REPLAYED_KEPT_MAX);
        assert_eq!(replayed.order.len(), REPLAYED_KEPT_MAX);
        assert!(!replayed.ids.contains(&id(1)));
        assert!(replayed.ids.contains(&id(2)));
        assert!(replayed.ids.contains(&id(REPLAYED_KEPT_MAX + 1)));
    }
}
