//! Taking: the heads that go from a base when it is made.

use std::collections::BTreeSet;

use crate::protocol::{
    finality::{Collections, CollectionsHash},
    placed_act::PlacedAct,
};

/// The heads that go from a base, and those that may be gone already from the base that it is made of.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Taking {
    collections: Collections,
    before: BTreeSet<CollectionsHash>,
}

impl Taking {
    /// Describes a base with the effect of `collections`. `here`: of which the bases have the effect that it
    /// may be made of. It is made of one of which nothing is gone, or of the base of an act all of whose
    /// collections are among these: of any other it would not be the same as on other nodes. `acts`: those
    /// that count about the store.
    pub fn new<'a>(
        collections: Collections,
        mut here: BTreeSet<CollectionsHash>,
        acts: impl IntoIterator<Item = &'a PlacedAct>,
    ) -> Self {
        let acts: Vec<&PlacedAct> = acts.into_iter().collect();
        let mut before = BTreeSet::from([CollectionsHash::NONE, collections.hash()]);
        for act in &acts {
            if here.is_subset(&before) {
                break;
            }
            let of_base = Collections::of_base(act, acts.iter().copied());
            if collections.have(&of_base) {
                before.insert(of_base.hash());
            }
        }
        here.retain(|hash| before.contains(hash));
        Self {
            collections,
            before: here,
        }
    }

    /// Returns the heads that go.
    pub fn collections(&self) -> &Collections {
        &self.collections
    }

    /// Returns whether the base can be made of one with the effect of `collected`.
    pub fn may_begin_with(&self, collected: CollectionsHash) -> bool {
        collected == CollectionsHash::NONE || self.before.contains(&collected)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{
        id::{Author, EntryId, StoreId},
        protocol::{
            anchors_act::{ActCollection, AnchorsAct},
            frontier::FrontierTip,
        },
    };

    const ADMIN_1: Author = Author([1; 32]);
    const ADMIN_2: Author = Author([2; 32]);

    // An act through `last`, which takes the tombstones of act 1.
    fn placed(id: u8, by: Author, seq: u64, cites: &[u8], last: u64) -> PlacedAct {
        let tip = |seq| FrontierTip {
            seq,
            id: EntryId([9; 32]),
        };
        let ordered = (id > 1).then(|| ActCollection {
            before: EntryId([1; 32]),
            own: BTreeMap::new(),
        });
        let anchors = [(ADMIN_1, tip(last))].into_iter().collect();
        PlacedAct {
            by,
            at: FrontierTip {
                seq,
                id: EntryId([id; 32]),
            },
            store: StoreId([1; 16]),
            cites: cites.iter().map(|id| EntryId([*id; 32])).collect(),
            act: AnchorsAct::new(1, None, 0, anchors, ordered).unwrap(),
        }
    }

    #[test]
    fn a_base_is_made_of_one_that_is_the_same_on_other_nodes() {
        let acts = [
            placed(1, ADMIN_1, 1, &[], 5),
            placed(2, ADMIN_1, 2, &[1], 6),
            // Neither of these two admins knew the act of the other.
            placed(3, ADMIN_2, 1, &[1], 7),
            placed(4, ADMIN_1, 3, &[2], 8),
        ];
        let of_base = |index: usize| Collections::of_base(&acts[index], &acts);
        let unpublished = Collections::of_base(&placed(5, ADMIN_2, 2, &[4], 9), &acts);
        let hashes = || (0..4).map(|index| of_base(index).hash());
        let here = || hashes().chain([unpublished.hash()]).collect();
        let made_of = |collections: Collections| {
            let taking = Taking::new(collections, here(), &acts);
            let known: Vec<bool> = hashes().map(|hash| taking.may_begin_with(hash)).collect();
            (known, taking.may_begin_with(unpublished.hash()))
        };
        assert_eq!(
            made_of(of_base(0)),
            (vec![true, false, false, false], false)
        );
        assert_eq!(made_of(of_base(1)), (vec![true, true, false, false], false));
        assert_eq!(made_of(of_base(2)), (vec![true, false, true, false], false));
        assert_eq!(made_of(of_base(3)), (vec![true, true, false, true], false));
        assert_eq!(made_of(unpublished.clone()), (vec![true; 4], true));
        let nothing = Taking::default();
        assert!(nothing.may_begin_with(CollectionsHash::NONE));
        assert!(!nothing.may_begin_with(of_base(1).hash()));
    }
}
