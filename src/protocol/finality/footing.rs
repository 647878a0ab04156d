//! Footing: whether acts that count bear the bases of a node.

use std::{cmp::Reverse, collections::BTreeSet};

use crate::protocol::{
    finality::{Collections, CollectionsHash},
    placed_act::PlacedAct,
};

/// Returns whether a next base can be made of one of those that a node has, of which the bases have the effect
/// of `collected`: nothing is gone from one of them, or the heads that are gone are those of an act that
/// counts. `acts`: those that count about the store.
///
/// Only the newest `ACTS_LOOKED_AT_MAX` acts are looked at.
///
/// It is not when an admin was removed by one who had not heard of its acts, after nodes had removed history
/// by them. The tombstones that are gone there are still at others, and nobody can give back the logs. Its
/// user chooses a member whose state it takes.
pub fn is_borne<'a>(
    collected: &BTreeSet<CollectionsHash>,
    acts: impl IntoIterator<Item = &'a PlacedAct>,
) -> bool {
    if collected.is_empty() || collected.contains(&CollectionsHash::NONE) {
        return true;
    }
    let acts: Vec<&PlacedAct> = acts.into_iter().collect();
    let mut newest = acts.clone();
    newest.sort_by_key(|placed| Reverse((placed.act.number(), placed.at.id)));
    newest.truncate(ACTS_LOOKED_AT_MAX);
    let of_base = |act: &&PlacedAct| Collections::of_base(act, acts.iter().copied()).hash();
    newest.iter().any(|act| collected.contains(&of_base(act)))
}

// The base of a node is that of one of the last acts. Each look goes through all of them.
const ACTS_LOOKED_AT_MAX: usize = 256;

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

    const ADMIN: Author = Author([1; 32]);

    // An act through `last`, which takes the tombstones of act 1.
    fn placed(id: u8, cites: &[u8], last: u64) -> PlacedAct {
        let tip = |seq, id| FrontierTip {
            seq,
            id: EntryId([id; 32]),
        };
        let ordered = (id > 1).then(|| ActCollection {
            before: EntryId([1; 32]),
            own: BTreeMap::new(),
        });
        let anchors = [(ADMIN, tip(last, 9))].into_iter().collect();
        PlacedAct {
            by: ADMIN,
            at: tip(id.into(), id),
            store: StoreId([1; 16]),
            cites: cites.iter().map(|id| EntryId([*id; 32])).collect(),
            act: AnchorsAct::new(1, None, 0, anchors, ordered).unwrap(),
        }
    }

    #[test]
    fn base_is_borne_by_an_act_that_counts_or_by_what_it_has_kept() {
        let acts = [placed(1, &[], 5), placed(2, &[1], 6)];
        let taken = Collections::of_base(&acts[1], &acts).hash();
        assert_ne!(taken, CollectionsHash::NONE);
        let here = |hashes: &[CollectionsHash]| hashes.iter().copied().collect();
        assert!(is_borne(&here(&[]), &acts));
        assert!(is_borne(&here(&[taken]), &acts));
        assert!(!is_borne(&here(&[taken]), &acts[..1]));
        assert!(!is_borne(&here(&[taken]), []));
        // A base of which nothing is gone can always be gone on with.
        assert!(is_borne(&here(&[CollectionsHash::NONE]), []));
        assert!(is_borne(&here(&[taken, CollectionsHash::NONE]), []));
    }
}
