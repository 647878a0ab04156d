//! Known acts: those in the root store that may count.

use std::{collections::BTreeMap, mem};

use crate::{
    id::{Author, EntryId},
    log::{LogError, merge::Span},
    protocol::{
        entry::{Parent, VerifiedEntry},
        membership::{acts::Acts, reserved::may_claim},
    },
    store::writer::notes::Note,
};

/// The creator and the acts: everything that the members of a root store follow from.
#[derive(Debug)]
pub(in crate::store) struct Grounds {
    pub(in crate::store) creator: Author,
    /// All entries that have acts which may count.
    pub(in crate::store) acts: BTreeMap<EntryId, Acts>,
}

/// All entries that have acts, or other reserved ops that need authority, and that may count some day.
/// Empty in any other store than the root store.
#[derive(Debug)]
pub(super) struct KnownActs {
    creator: Author,
    // Includes `staged`.
    acts: BTreeMap<EntryId, Acts>,
    // Acts that are void for ever, and not kept, among those that were read since the start.
    void: usize,
    // Acts of the current group. Moved to `unsaved` by `commit`, removed by `roll_back`.
    staged: Vec<EntryId>,
    // Committed, and not in the state's notes yet.
    unsaved: Vec<EntryId>,
}

impl KnownActs {
    pub(super) fn new(creator: Author) -> Self {
        Self {
            creator,
            acts: BTreeMap::new(),
            void: 0,
            staged: Vec::new(),
            unsaved: Vec::new(),
        }
    }

    /// Adds the acts of an entry. Returns false when it has none that may ever count.
    pub(super) fn gather(&mut self, acts: &Acts) -> bool {
        let has_any = !acts.acts.is_empty() || acts.needs_authority;
        if !has_any || !self.may_count(acts) {
            self.void = self.void.saturating_add(acts.acts.len());
            return false;
        }
        let id = acts.place.id;
        // An entry may cite a thousand others. Grants that count come to be known with all acts that
        // cite them (`Membership::gather_again`), so the rest is of no use.
        let known = Acts {
            cites: self.authorities(acts).map(|grant| grant.place).collect(),
            ..acts.clone()
        };
        if self.acts.insert(id, known).is_none() {
            self.staged.push(id);
        }
        true
    }

    // True for acts that may count some day: by the creator, of the author on itself, or citing acts
    // that may count and make the author an admin. Only acts that may are kept, so this is an answer
    // for ever, by the form of what came before: a writer's void acts cost no memory. Acts whose
    // grant has not come are gathered again when it comes (`Membership::gather_again`).
    fn may_count(&self, acts: &Acts) -> bool {
        acts.place.author == self.creator
            || acts.leaves()
            || self.authorities(acts).next().is_some()
    }

    /// Returns the grants that may count by which the author of `acts` may act, as they cite them.
    pub(super) fn authorities<'a>(&'a self, acts: &'a Acts) -> impl Iterator<Item = &'a Acts> {
        acts.authorities(|id| self.acts.get(id))
    }

    /// Returns whether acts are noted and neither committed nor rolled back.
    pub(super) fn is_staging(&self) -> bool {
        !self.staged.is_empty()
    }

    /// Ends a group that is durable.
    pub(super) fn commit(&mut self) {
        self.unsaved.append(&mut self.staged);
    }

    /// Ends a group that was not written.
    pub(super) fn roll_back(&mut self) {
        for id in self.staged.drain(..) {
            self.acts.remove(&id);
        }
    }

    /// Marks the acts that are noted as saved: they came from the notes.
    pub(super) fn mark_saved(&mut self) {
        self.staged.clear();
    }

    /// Marks all acts as unsaved: the state file is a new one.
    pub(super) fn forget_saved(&mut self) {
        self.unsaved = self.acts.keys().copied().collect();
        self.void = 0;
    }

    /// Takes out the places of entries that were committed since the last call: they go into the
    /// state's notes.
    pub(super) fn take_unsaved(&mut self) -> Vec<Note> {
        let unsaved = mem::take(&mut self.unsaved).into_iter();
        let noted = unsaved.filter_map(|id| self.acts.get(&id));
        noted
            .map(|Acts { place, .. }| Note::Act {
                author: place.author,
                seq: place.seq,
                id: place.id,
            })
            .collect()
    }

    /// Returns the creator of the mesh.
    pub(super) fn creator(&self) -> Author {
        self.creator
    }

    /// Returns the place of an entry that has acts.
    pub(super) fn place(&self, id: &EntryId) -> Option<Parent> {
        self.acts.get(id).map(|acts| acts.place)
    }

    /// Returns whether an entry may count that makes a node an admin: others may act by it.
    pub(super) fn makes_admins(&self, id: &EntryId) -> bool {
        let known = self.acts.get(id);
        known.is_some_and(Acts::makes_admins)
    }

    /// Returns all acts.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Acts> {
        self.acts.values()
    }

    /// Returns how many acts are void for ever, of those that were read since the start.
    pub(super) fn void(&self) -> usize {
        self.void
    }

    /// Returns what the members follow from.
    pub(super) fn grounds(&self) -> Grounds {
        Grounds {
            creator: self.creator,
            acts: self.acts.clone(),
        }
    }
}

/// Returns the entries of `spans` that have acts. The state meets damage again when it gets the entries.
///
/// # Errors
/// The disk fails.
pub(super) fn acts_in(spans: &[Span]) -> Result<Vec<VerifiedEntry>, LogError> {
    let mut found = Vec::new();
    for span in spans {
        let mut walk = span.branch.walk(span.after + 1);
        loop {
            match walk.next_record() {
                Ok(Some(record)) if record.header.seq <= span.through => {
                    // Few entries have acts, and decoding an entry costs more than all the rest.
                    if may_claim(&record.payload)
                        && let Ok(entry) = span.branch.read_entry(&record)
                        && Acts::of(&entry).is_some()
                    {
                        found.push(entry);
                    }
                }
                Ok(_end) => break,
                Err(LogError::Damaged(_)) => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(found)
}
