//! Foundings: the stores that authors of the root store have founded, and the later entries in which
//! they describe them.
//!
//! An author may write about a store that it has founded before on the same branch, so this is kept
//! for ever: about 80 bytes for each store and branch, a third of the bytes that the founding takes in
//! the log. Foundings say nothing about members, and are not evaluated with the acts.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
};

use crate::{
    id::{Author, EntryId, Seq, StoreId},
    protocol::{frontier::FrontierTip, membership::acts::Acts},
    store::writer::notes::{Founding, Note},
};

/// The foundings in the root store. Empty in any other.
#[derive(Debug, Default)]
pub(super) struct Foundings {
    // The first of each branch. An entry that founds a store again is in `later`.
    first: Places,
    later: Places,
    // Those of the current group. Moved to `unsaved` by `commit`, removed by `roll_back`.
    staged: Vec<Founding>,
    // Committed, and not in the state's notes yet.
    unsaved: Vec<Founding>,
}

// Stores and entries about them, by author.
type Places = BTreeMap<Author, BTreeSet<(StoreId, Seq, EntryId)>>;

impl Foundings {
    /// Adds the stores that an entry founds, and those founded before that it describes, and returns
    /// all of them. `is_ancestor(before)` returns whether the author's entry at `before` is on the
    /// branch of the entry.
    ///
    /// # Errors
    /// That of `is_ancestor`; nothing is added then.
    pub(super) fn gather<E>(
        &mut self,
        acts: &Acts,
        mut is_ancestor: impl FnMut(FrontierTip) -> Result<bool, E>,
    ) -> Result<BTreeSet<StoreId>, E> {
        let founds: BTreeSet<StoreId> = acts.founds.iter().copied().collect();
        let (mut first, mut later) = (Vec::new(), Vec::new());
        for store in founds.iter().chain(&acts.describes) {
            let mut is_founded = false;
            for place in self.earlier(acts, *store) {
                is_founded = is_ancestor(place)?;
                if is_founded {
                    break;
                }
            }
            if is_founded {
                later.push(*store);
            } else if founds.contains(store) {
                first.push(*store);
            }
        }
        let founding = |mut stores: Vec<StoreId>, is_first| {
            stores.sort_unstable();
            stores.dedup();
            Founding {
                author: acts.author,
                seq: acts.seq,
                id: acts.entry,
                stores,
                is_first,
            }
        };
        let both = [founding(first, true), founding(later, false)];
        let stores = both.iter().flat_map(|it| it.stores.iter().copied());
        let stores = stores.collect();
        for founding in both {
            if self.add(&founding) {
                self.staged.push(founding);
            }
        }
        Ok(stores)
    }

    /// Adds what a note says, without reading the entry: a damaged log of a founder opens. Returns
    /// whether it is new.
    pub(super) fn add(&mut self, founding: &Founding) -> bool {
        let Founding {
            author, seq, id, ..
        } = *founding;
        let mut is_new = false;
        for store in &founding.stores {
            let places = self.places(founding.is_first).entry(author).or_default();
            is_new |= places.insert((*store, seq, id));
        }
        is_new
    }

    /// Returns the entries about stores that their authors founded, and the store.
    pub(super) fn founders(&self) -> impl Iterator<Item = (EntryId, StoreId)> {
        let places = self.first.values().chain(self.later.values()).flatten();
        places.map(|(store, _seq, id)| (*id, *store))
    }

    /// Ends a group that is durable.
    pub(super) fn commit(&mut self) {
        self.unsaved.append(&mut self.staged);
    }

    /// Ends a group that was not written.
    pub(super) fn roll_back(&mut self) {
        for founding in mem::take(&mut self.staged) {
            let places = self.places(founding.is_first).get_mut(&founding.author);
            let Some(places) = places else { continue };
            for store in &founding.stores {
                places.remove(&(*store, founding.seq, founding.id));
            }
        }
    }

    /// Marks those that are added as saved: they came from the notes.
    pub(super) fn mark_saved(&mut self) {
        self.staged.clear();
    }

    /// Marks all as unsaved: the state file is a new one.
    pub(super) fn forget_saved(&mut self) {
        let mut all: BTreeMap<(Author, Seq, EntryId, bool), Vec<StoreId>> = BTreeMap::new();
        for (is_first, places) in [(true, &self.first), (false, &self.later)] {
            for (author, places) in places {
                for (store, seq, id) in places {
                    let of_entry = all.entry((*author, *seq, *id, is_first)).or_default();
                    of_entry.push(*store);
                }
            }
        }
        let unsaved = all.into_iter();
        let unsaved = unsaved.map(|((author, seq, id, is_first), stores)| Founding {
            author,
            seq,
            id,
            stores,
            is_first,
        });
        self.unsaved = unsaved.collect();
    }

    /// Takes out what was committed since the last call, for the state's notes.
    pub(super) fn take_unsaved(&mut self) -> impl Iterator<Item = Note> {
        mem::take(&mut self.unsaved).into_iter().map(Note::Founding)
    }

    // Returns the places at which the author of an entry has founded `store` before it, the first one
    // first: at most one for each of its branches.
    fn earlier(&self, acts: &Acts, store: StoreId) -> impl Iterator<Item = FrontierTip> {
        let places = self.first.get(&acts.author);
        let from = (store, 0, EntryId([0; 32]));
        let to = (store, acts.seq, EntryId([0; 32]));
        let earlier = places.into_iter().flat_map(move |it| it.range(from..to));
        earlier.map(|(_store, seq, id)| FrontierTip { seq: *seq, id: *id })
    }

    fn places(&mut self, is_first: bool) -> &mut Places {
        if is_first {
            &mut self.first
        } else {
            &mut self.later
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    const AUTHOR: Author = Author([7; 32]);
    const STORE: StoreId = StoreId([1; 16]);
    const OTHER: StoreId = StoreId([2; 16]);

    fn acts(seq: Seq, branch: u8, founds: &[StoreId], describes: &[StoreId]) -> Acts {
        Acts {
            entry: EntryId([branch; 32]),
            author: AUTHOR,
            seq,
            cites: Vec::new(),
            acts: Vec::new(),
            needs_authority: false,
            anchors: Vec::new(),
            founds: founds.to_vec(),
            describes: describes.to_vec(),
        }
    }

    fn gather(all: &mut Foundings, acts: &Acts, is_ancestor: bool) -> Vec<StoreId> {
        let Ok(stores) = all.gather(acts, |_place| Ok::<_, Infallible>(is_ancestor));
        stores.into_iter().collect()
    }

    fn notes(all: &mut Foundings) -> Vec<(u8, Vec<StoreId>)> {
        let notes = all.take_unsaved();
        let notes = notes.map(|note| match note {
            Note::Founding(it) => (it.id.0[0] + u8::from(!it.is_first), it.stores),
            other => panic!("{other:?}"),
        });
        let mut notes: Vec<_> = notes.collect();
        notes.sort();
        notes
    }

    #[test]
    fn only_the_branch_on_which_a_store_was_founded_describes_it() {
        let mut all = Foundings::default();
        assert_eq!(
            gather(&mut all, &acts(1, 10, &[STORE], &[STORE]), true),
            [STORE]
        );
        assert_eq!(
            gather(&mut all, &acts(2, 20, &[], &[STORE, OTHER]), true),
            [STORE]
        );
        assert_eq!(gather(&mut all, &acts(2, 30, &[], &[STORE]), false), []);
        // Its own genesis counts on any branch; an entry does not come before itself.
        assert_eq!(
            gather(&mut all, &acts(2, 40, &[STORE], &[]), false),
            [STORE]
        );
        assert_eq!(gather(&mut all, &acts(1, 50, &[], &[STORE]), true), []);
        let first = all.first[&AUTHOR].len();
        assert_eq!((first, all.founders().count()), (2, 3));
    }

    // A founder that puts the genesis again and again, or renames its store, adds no places that later
    // entries are compared with.
    #[test]
    fn a_store_founded_again_is_found_once() {
        let mut all = Foundings::default();
        for seq in 1..100 {
            let again = acts(seq, u8::try_from(seq).unwrap(), &[STORE], &[STORE]);
            assert_eq!(gather(&mut all, &again, true), [STORE]);
        }
        assert_eq!(all.earlier(&acts(100, 0, &[], &[]), STORE).count(), 1);
        assert_eq!(all.founders().count(), 99);
    }

    #[test]
    fn notes_have_what_is_durable_and_all_of_it_for_a_new_file() {
        let mut all = Foundings::default();
        gather(&mut all, &acts(1, 10, &[STORE, OTHER], &[]), true);
        all.commit();
        gather(&mut all, &acts(2, 20, &[], &[STORE]), true);
        all.roll_back();
        assert_eq!(all.founders().count(), 2);
        assert_eq!(notes(&mut all), [(10, vec![STORE, OTHER])]);
        gather(&mut all, &acts(2, 20, &[], &[STORE]), true);
        all.commit();
        // It comes again when the log is read again.
        gather(&mut all, &acts(2, 20, &[], &[STORE]), true);
        all.commit();
        assert_eq!(notes(&mut all), [(21, vec![STORE])]);
        assert_eq!(notes(&mut all), []);
        all.forget_saved();
        assert_eq!(
            notes(&mut all),
            [(10, vec![STORE, OTHER]), (21, vec![STORE])]
        );
    }
}
