//! Known acts: those in the root store that may count, and the stores that their authors founded.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
};

use crate::{
    id::{Author, EntryId, StoreId},
    protocol::{
        entry::{Entry, Parent},
        frontier::FrontierTip,
        hlc::Hlc,
        membership::acts::Acts,
    },
    store::writer::notes::{Founding, Note},
};

/// The creator and the acts: everything that the members of a root store follow from.
#[derive(Debug)]
pub(in crate::store) struct Grounds {
    pub(in crate::store) creator: Author,
    /// All entries that have acts which may count.
    pub(in crate::store) acts: BTreeMap<EntryId, (Parent, Acts)>,
}

/// All entries that have acts, or other reserved ops that need more than the entry to count, and that
/// may count some day. Empty in any other store than the root store.
#[derive(Debug)]
pub(super) struct KnownActs {
    creator: Author,
    // Includes `staged`.
    acts: BTreeMap<EntryId, (Parent, Acts)>,
    // Entries of `acts` that describe a store which their author has founded before.
    founders: BTreeSet<(EntryId, StoreId)>,
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
            founders: BTreeSet::new(),
            void: 0,
            staged: Vec::new(),
            unsaved: Vec::new(),
        }
    }

    /// Adds the acts of an entry, and returns them; `None` when it has none that may ever count.
    /// `is_ancestor(before)` returns whether the author's entry at `before` is on the branch of `entry`.
    ///
    /// # Errors
    /// That of `is_ancestor`.
    pub(super) fn gather<E>(
        &mut self,
        entry: &Entry,
        mut is_ancestor: impl FnMut(FrontierTip) -> Result<bool, E>,
    ) -> Result<Option<Acts>, E> {
        let Some(acts) = Acts::of(entry) else {
            return Ok(None);
        };
        let mut founders = BTreeSet::new();
        for store in &acts.describes {
            let mut is_founder = acts.founds.contains(store);
            for (place, founding) in self.acts.values() {
                let earlier = place.author == acts.author && place.seq < acts.seq;
                if !is_founder && earlier && founding.founds.contains(store) {
                    is_founder = is_ancestor(FrontierTip {
                        seq: place.seq,
                        id: place.id,
                    })?;
                }
            }
            if is_founder {
                founders.insert((acts.entry, *store));
            }
        }
        if !self.may_count(&acts) && founders.is_empty() && acts.founds.is_empty() {
            self.void = self.void.saturating_add(acts.acts.len());
            return Ok(None);
        }
        self.founders.extend(founders);
        let known = (entry.as_parent(), acts.clone());
        if self.acts.insert(entry.id, known).is_none() {
            self.staged.push(entry.id);
        }
        Ok(Some(acts))
    }

    /// Takes over an entry that founds stores, without reading it: a damaged log of a founder opens.
    pub(super) fn found(&mut self, founding: &Founding) {
        let Founding {
            author,
            seq,
            id,
            stores,
        } = founding;
        self.founders
            .extend(stores.iter().map(|store| (*id, *store)));
        let place = Parent {
            // The stamp is not known here and not needed: only grants are cited, and this is none.
            hlc: Hlc::ZERO,
            author: *author,
            id: *id,
            seq: *seq,
        };
        let acts = Acts {
            entry: *id,
            author: *author,
            seq: *seq,
            cites: Vec::new(),
            acts: Vec::new(),
            needs_authority: false,
            founds: stores.clone(),
            describes: stores.clone(),
        };
        self.acts.insert(*id, (place, acts));
    }

    // True for acts that may count some day: by the creator, of the author on itself, or citing acts
    // that may count and make the author an admin. Only acts that may are kept, so this is an answer
    // for ever, by the form of what came before: a writer's void acts cost no memory. Acts whose
    // grant has not come are gathered again when it comes (`Membership::gather_again`).
    fn may_count(&self, acts: &Acts) -> bool {
        let makes_admin = |cited: &EntryId| {
            let cited = self.acts.get(cited);
            cited.is_some_and(|(_, cited)| cited.makes_admin(&acts.author))
        };
        acts.author == self.creator || acts.leaves() || acts.cites.iter().any(makes_admin)
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
            if let Some((_, acts)) = self.acts.remove(&id) {
                for store in acts.describes {
                    self.founders.remove(&(id, store));
                }
            }
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
        noted.map(|(at, acts)| note_of(at, acts)).collect()
    }

    /// Returns the creator of the mesh.
    pub(super) fn creator(&self) -> Author {
        self.creator
    }

    /// Returns the place of an entry that has acts.
    pub(super) fn place(&self, id: &EntryId) -> Option<Parent> {
        self.acts.get(id).map(|(place, _)| *place)
    }

    /// Returns whether an entry may count that makes a node an admin: others may act by it.
    pub(super) fn makes_admins(&self, id: &EntryId) -> bool {
        let known = self.acts.get(id);
        known.is_some_and(|(_, acts)| acts.makes_admins())
    }

    /// Returns all acts.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Acts> {
        self.acts.values().map(|(_, acts)| acts)
    }

    /// Returns the entries that describe a store which their author has founded before, and the store.
    pub(super) fn founders(&self) -> &BTreeSet<(EntryId, StoreId)> {
        &self.founders
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

fn note_of(at: &Parent, acts: &Acts) -> Note {
    let Parent {
        author, seq, id, ..
    } = *at;
    if acts.acts.is_empty() && !acts.needs_authority && !acts.founds.is_empty() {
        return Note::Founding(Founding {
            author,
            seq,
            id,
            stores: acts.founds.clone(),
        });
    }
    Note::Act { author, seq, id }
}
