//! Known parents: parents of entries from elsewhere that are in the logs.
//!
//! An entry may cite a thousand entries all over a log, and to look up each of them is a read of up to
//! 64 KiB. So they are looked up before the writer gets the entry, on another thread, and local writes
//! do not wait for the reads. Entries do not leave a log unless they are final there, so what was found
//! holds when the writer uses it. What was not found may have come since, and is looked up again.

use std::collections::{BTreeMap, HashSet};

use crate::{
    id::Author,
    log::LogReader,
    protocol::{entry::Parent, frontier::FrontierTip},
    store::writer::intake::Checked,
};

/// Places that the logs have.
#[derive(Debug, Default)]
pub(in crate::store) struct KnownParents(HashSet<(Author, FrontierTip)>);

impl KnownParents {
    /// Returns whether an entry among `entries` has so many parents that they should be looked up before
    /// the writer does it.
    pub(in crate::store) fn are_many(entries: &[Checked]) -> bool {
        entries.iter().any(|entry| !parents_of(entry).is_empty())
    }

    /// Looks up the parents of those of `entries` that have many. A log that cannot be read answers no:
    /// the writer asks again, and reports it.
    pub(in crate::store) fn look_up(entries: &[Checked], log: &LogReader) -> Self {
        let mut places: BTreeMap<Author, Vec<FrontierTip>> = BTreeMap::new();
        for parent in entries.iter().flat_map(parents_of) {
            let of_author = places.entry(parent.author).or_default();
            of_author.push(FrontierTip {
                seq: parent.seq,
                id: parent.id,
            });
        }
        let mut known = HashSet::new();
        for (author, places) in places {
            let Ok((here, _damage)) = log.find(&author, &places) else {
                continue;
            };
            let here = places.into_iter().zip(here).filter(|(_, is_here)| *is_here);
            known.extend(here.map(|(place, _)| (author, place)));
        }
        Self(known)
    }

    /// Returns whether the logs are known to have `place` of `author`.
    pub(super) fn has(&self, author: &Author, place: &FrontierTip) -> bool {
        self.0.contains(&(*author, *place))
    }

    /// Returns whether nothing is known.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

// Returns the parents of an entry, if they are many.
fn parents_of(entry: &Checked) -> &[Parent] {
    let parents = entry
        .as_ref()
        .map_or(&[][..], |entry| &entry.header.parents);
    if parents.len() < MANY { &[] } else { parents }
}

// The heads of a few keys are fewer, and need no look into a log.
const MANY: usize = 32;
