//! Foundings: the stores that authors of the root store have founded, and the later entries in which
//! they describe them.
//!
//! An author may write about a store that it has founded before on the same branch, so this is kept
//! for ever and grows with the log: about 100 bytes for each store and branch, and about 250 bytes for
//! each entry and 32 for each store in it that was founded before. The log has more bytes of each
//! of these, so an author fills the disk first, and the status shows by whom a log grows. A bound that
//! is the same on all nodes would have to be a rule of validity, and would end what an honest founder
//! may write. Foundings say nothing about members, and are not evaluated with the acts.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    sync::Arc,
};

use imbl::OrdMap;

use crate::{
    id::{Author, EntryId, Seq, StoreId},
    protocol::{frontier::FrontierTip, membership::acts::Acts},
    store::writer::notes::{Founding, Note},
};

/// The foundings in the root store. Empty in any other.
#[derive(Debug, Default)]
pub(super) struct Foundings {
    // The first of each branch, by author. An entry that founds a store again is in `later`.
    first: BTreeMap<Author, BTreeSet<(StoreId, Seq, EntryId)>>,
    // Stores that an entry describes and that were founded before it, in order.
    later: BTreeMap<(Author, Seq, EntryId), Arc<[StoreId]>>,
    // Those of the current group. Moved to `unsaved` by `commit`, removed by `roll_back`.
    staged: Vec<Founding>,
    // Committed, and not in the state's notes yet.
    unsaved: Vec<Founding>,
}

impl Foundings {
    /// Adds the stores that an entry founds, and those founded before that it describes, and returns
    /// all of them. `ancestors(places)` returns those of the author's entries that are on the branch of
    /// the entry. It is called at most once, with at most one place for each store and branch.
    ///
    /// # Errors
    /// That of `ancestors`; nothing is added then.
    pub(super) fn gather<E>(
        &mut self,
        acts: &Acts,
        ancestors: impl FnOnce(BTreeSet<FrontierTip>) -> Result<BTreeSet<FrontierTip>, E>,
    ) -> Result<BTreeSet<StoreId>, E> {
        let founds: BTreeSet<StoreId> = acts.founds.iter().copied().collect();
        let stores: BTreeSet<StoreId> = founds.iter().chain(&acts.describes).copied().collect();
        let places = stores.iter().flat_map(|store| self.earlier(acts, *store));
        let places: BTreeSet<FrontierTip> = places.collect();
        let ancestors = if places.is_empty() {
            places
        } else {
            ancestors(places)?
        };
        let is_founded = |store: &StoreId| {
            let mut earlier = self.earlier(acts, *store);
            earlier.any(|place| ancestors.contains(&place))
        };
        let (later, first): (Vec<_>, Vec<_>) = stores.into_iter().partition(is_founded);
        let first = first.into_iter().filter(|store| founds.contains(store));
        let founding = |stores: Vec<StoreId>, is_first| Founding {
            author: acts.place.author,
            seq: acts.place.seq,
            id: acts.place.id,
            stores,
            is_first,
        };
        let both = [founding(first.collect(), true), founding(later, false)];
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
        if founding.stores.is_empty() {
            return false;
        }
        if founding.is_first {
            let places = self.first.entry(author).or_default();
            let before = places.len();
            places.extend(founding.stores.iter().map(|store| (*store, seq, id)));
            return places.len() > before;
        }
        let known = self.later.entry((author, seq, id)).or_default();
        // Damage may have hidden some of them.
        let all: BTreeSet<StoreId> = known.iter().chain(&founding.stores).copied().collect();
        let is_new = all.len() > known.len();
        if is_new {
            *known = all.into_iter().collect();
        }
        is_new
    }

    /// Returns the entries for which `of` is true and that are about stores which their authors
    /// founded, with these stores in order.
    pub(super) fn founders(
        &self,
        of: impl Fn(&EntryId) -> bool,
    ) -> OrdMap<EntryId, Arc<[StoreId]>> {
        let later = self.later.iter().filter(|((_, _, id), _)| of(id));
        let mut founders: OrdMap<_, Arc<[StoreId]>> = later
            .map(|((_, _, id), stores)| (*id, Arc::clone(stores)))
            .collect();
        let mut first: BTreeMap<EntryId, BTreeSet<StoreId>> = BTreeMap::new();
        for (store, _seq, id) in self.first.values().flatten() {
            if of(id) {
                first.entry(*id).or_default().insert(*store);
            }
        }
        for (id, mut stores) in first {
            stores.extend(founders.get(&id).into_iter().flat_map(|it| it.iter()));
            founders.insert(id, stores.into_iter().collect());
        }
        founders
    }

    /// Ends a group that is durable.
    pub(super) fn commit(&mut self) {
        self.unsaved.append(&mut self.staged);
    }

    /// Ends a group that was not written.
    pub(super) fn roll_back(&mut self) {
        for founding in mem::take(&mut self.staged) {
            let Founding {
                author, seq, id, ..
            } = founding;
            if !founding.is_first {
                self.later.remove(&(author, seq, id));
            } else if let Some(places) = self.first.get_mut(&author) {
                for store in &founding.stores {
                    places.remove(&(*store, seq, id));
                }
            }
        }
    }

    /// Marks those that are added as saved: they came from the notes.
    pub(super) fn mark_saved(&mut self) {
        self.staged.clear();
    }

    /// Marks all as unsaved: the state file is a new one.
    pub(super) fn forget_saved(&mut self) {
        let mut first: BTreeMap<(Author, Seq, EntryId), Vec<StoreId>> = BTreeMap::new();
        for (author, places) in &self.first {
            for (store, seq, id) in places {
                first.entry((*author, *seq, *id)).or_default().push(*store);
            }
        }
        let later = self.later.iter();
        let later = later.map(|(place, stores)| (*place, stores.to_vec(), false));
        let first = first.into_iter();
        let all = first
            .map(|(place, stores)| (place, stores, true))
            .chain(later);
        let unsaved = all.map(|((author, seq, id), stores, is_first)| Founding {
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
        let places = self.first.get(&acts.place.author);
        let from = (store, 0, EntryId([0; 32]));
        let to = (store, acts.place.seq, EntryId([0; 32]));
        let earlier = places.into_iter().flat_map(move |it| it.range(from..to));
        earlier.map(|(_store, seq, id)| FrontierTip { seq: *seq, id: *id })
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;
    use crate::protocol::{entry::Parent, hlc::Hlc};

    const AUTHOR: Author = Author([7; 32]);
    const STORE: StoreId = StoreId([1; 16]);
    const OTHER: StoreId = StoreId([2; 16]);

    fn acts(seq: Seq, branch: u8, founds: &[StoreId], describes: &[StoreId]) -> Acts {
        Acts {
            place: Parent {
                hlc: Hlc::default(),
                author: AUTHOR,
                id: EntryId([branch; 32]),
                seq,
            },
            cites: Vec::new(),
            acts: Vec::new(),
            needs_authority: false,
            anchors: Vec::new(),
            founds: founds.to_vec(),
            describes: describes.to_vec(),
        }
    }

    fn gather(all: &mut Foundings, acts: &Acts, is_ancestor: bool) -> Vec<StoreId> {
        let Ok(stores) = all.gather(acts, |places| {
            let ancestors = places.into_iter().filter(|_| is_ancestor);
            Ok::<_, Infallible>(ancestors.collect())
        });
        stores.into_iter().collect()
    }

    // Entries, and stores that they are about.
    fn pairs(all: &Foundings) -> usize {
        let founders = all.founders(|_id| true);
        founders.values().map(|stores| stores.len()).sum()
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
        assert_eq!((first, pairs(&all)), (2, 3));
        let of_10 = all.founders(|id| *id == EntryId([10; 32]));
        let expected: Arc<[StoreId]> = Arc::from([STORE]);
        assert_eq!(
            of_10.into_iter().collect::<Vec<_>>(),
            [(EntryId([10; 32]), expected)]
        );
    }

    // Damage hid the founding of one store; it was mended, and the log was read again.
    #[test]
    fn what_damage_hid_is_added() {
        let mut all = Foundings::default();
        gather(&mut all, &acts(1, 10, &[STORE], &[]), false);
        gather(&mut all, &acts(2, 20, &[OTHER], &[]), false);
        let names = acts(3, 30, &[], &[STORE, OTHER]);
        let one = |places: BTreeSet<FrontierTip>| {
            let readable = places.into_iter().filter(|place| place.seq == 1);
            Ok::<_, Infallible>(readable.collect())
        };
        let Ok(stores) = all.gather(&names, one);
        assert_eq!((stores, pairs(&all)), (BTreeSet::from([STORE]), 3));
        all.commit();
        drop(notes(&mut all));
        assert_eq!(gather(&mut all, &names, true), [STORE, OTHER]);
        all.commit();
        assert_eq!(
            (pairs(&all), notes(&mut all)),
            (4, vec![(31, vec![STORE, OTHER])])
        );
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
        assert_eq!(pairs(&all), 99);
    }

    #[test]
    fn notes_have_what_is_durable_and_all_of_it_for_a_new_file() {
        let mut all = Foundings::default();
        gather(&mut all, &acts(1, 10, &[STORE, OTHER], &[]), true);
        all.commit();
        gather(&mut all, &acts(2, 20, &[], &[STORE]), true);
        all.roll_back();
        assert_eq!(pairs(&all), 2);
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
