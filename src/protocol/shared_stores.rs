//! Shared stores: which of the stores that other nodes list a node opens.
//!
//! Any store costs threads, files and memory on every node that opens it, so a list of others is
//! followed up to limits only: one for each node that lists stores, and one for all of them
//! together. A store that is open stays open and counts first. This is a choice of one node for
//! itself: what a store contains does not depend on it.

use std::collections::BTreeMap;

use crate::{
    id::{Author, StoreId},
    limits::{STORES_OF_LISTER_MAX, STORES_SHARED_MAX},
};

/// A store that the root store lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listed {
    /// The store.
    pub store: StoreId,
    /// The node that lists it: the author of its line.
    pub lister: Author,
    /// True if it is open here.
    pub is_open: bool,
}

/// The listed stores to open, and how many are left out.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ToOpen {
    /// Stores to open, in the order of the list.
    pub stores: Vec<StoreId>,
    /// Stores left out because their lister has `STORES_OF_LISTER_MAX` open here.
    pub of_lister: usize,
    /// Stores left out because `STORES_SHARED_MAX` of others are open here.
    pub in_all: usize,
}

/// Returns which of `listed` are to be opened. Those that `own`, this node, lists always are, and
/// do not count.
pub fn to_open(own: &Author, listed: &[Listed]) -> ToOpen {
    let of_others = || listed.iter().filter(|it| it.lister != *own);
    let mut counts: BTreeMap<Author, usize> = BTreeMap::new();
    let mut all = 0_usize;
    for store in of_others().filter(|it| it.is_open) {
        let count = counts.entry(store.lister).or_default();
        *count = count.saturating_add(1);
        all = all.saturating_add(1);
    }
    let mut to_open = ToOpen::default();
    for store in listed.iter().filter(|it| !it.is_open) {
        let count = counts.entry(store.lister).or_default();
        if store.lister == *own {
            to_open.stores.push(store.store);
        } else if *count >= STORES_OF_LISTER_MAX {
            to_open.of_lister = to_open.of_lister.saturating_add(1);
        } else if all >= STORES_SHARED_MAX {
            to_open.in_all = to_open.in_all.saturating_add(1);
        } else {
            *count = count.saturating_add(1);
            all = all.saturating_add(1);
            to_open.stores.push(store.store);
        }
    }
    to_open
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: Author = Author([1; 32]);

    fn listed(lister: u8, count: u16, is_open: bool) -> Vec<Listed> {
        let store = |number: u16| {
            let mut id = [lister; 16];
            id[..2].copy_from_slice(&number.to_be_bytes());
            id[2] = u8::from(is_open);
            StoreId(id)
        };
        let listed = |number| Listed {
            store: store(number),
            lister: Author([lister; 32]),
            is_open,
        };
        (0..count).map(listed).collect()
    }

    #[test]
    fn flood_of_one_lister_leaves_room_for_others() {
        let mut all = listed(2, 5000, false);
        all.extend(listed(3, 10, false));
        let to_open = to_open(&OWN, &all);
        assert_eq!(to_open.of_lister, 5000 - STORES_OF_LISTER_MAX);
        assert_eq!(to_open.in_all, 0);
        let of = |lister: u8| {
            to_open
                .stores
                .iter()
                .filter(|id| id.0[15] == lister)
                .count()
        };
        assert_eq!((of(2), of(3)), (STORES_OF_LISTER_MAX, 10));
    }

    #[test]
    fn many_listers_together_are_bounded() {
        let all: Vec<_> = (2..=255)
            .flat_map(|lister| listed(lister, 1, false))
            .collect();
        let to_open = to_open(&OWN, &all);
        assert_eq!(to_open.stores.len(), STORES_SHARED_MAX);
        assert_eq!(to_open.in_all, 254 - STORES_SHARED_MAX);
    }

    #[test]
    fn open_stores_count_first_and_own_ones_never() {
        let half = u16::try_from(STORES_OF_LISTER_MAX).unwrap() / 2;
        let mut all = listed(2, 3 * half, false);
        all.extend(listed(2, half, true));
        all.extend(listed(1, 1000, true));
        all.extend(listed(1, 1000, false));
        let to_open = to_open(&OWN, &all);
        assert_eq!(to_open.stores.len(), 1000 + usize::from(half));
        assert_eq!(
            (to_open.of_lister, to_open.in_all),
            (2 * usize::from(half), 0)
        );
        // More are open than the limits allow, from before they were set.
        let many = u16::try_from(STORES_SHARED_MAX).unwrap() + 9;
        let mut all = listed(2, many, true);
        all.extend(listed(3, 4, false));
        all.extend(listed(2, 4, false));
        let to_open = super::to_open(&OWN, &all);
        assert_eq!((to_open.of_lister, to_open.in_all), (4, 4));
        assert_eq!(to_open.stores, []);
    }
}
