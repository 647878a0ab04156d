//! Entries whose own signature is wrong and for which a later one vouches: they count together with
//! one that does, or not at all, whatever the order and wherever messages end.

use std::{collections::BTreeSet, path::Path, time::Duration};

use lattice::{
    Store,
    clock::Clock,
    disk::Disk as _,
    id::{EntryId, StoreId},
    limits::{DRIFT_MS_MAX, INGEST_BYTES_MAX, UNVOUCHED_BYTES_MAX},
    protocol::{
        entry::{Header, Op, Parent, VerifiedEntry, sign},
        frontier::FrontierTip,
        hlc::Hlc,
        membership::role::{Act, Role, Tips},
    },
    store::Ingested,
};

use crate::{
    entries::acts::{self, ROOT, act, grant},
    support::{
        disk::MemDisk,
        model::{AUTHOR_A, AUTHOR_B, AUTHOR_C, author_of, key_of, put},
        store,
        writer::Writer,
    },
};

const NOW_MS: u64 = 1_700_000_000_000;
const STORE: StoreId = StoreId([3; 16]);

fn after(store: StoreId, prev: Option<&VerifiedEntry>, wall_ms: u64, key: &str) -> VerifiedEntry {
    let header = Header {
        store,
        seq: prev.map_or(1, |prev| prev.header.seq + 1),
        prev: prev.map(|prev| prev.id),
        hlc: Hlc {
            wall_ms,
            counter: 0,
        },
        atomic: false,
        cause: None,
        parents: Vec::new(),
    };
    sign(&key_of(AUTHOR_B), header, vec![put(key, "v")]).unwrap()
}

// The entry with a wrong signature; its author can vouch for it all the same.
fn odd(entry: &VerifiedEntry) -> VerifiedEntry {
    let mut signed = entry.signed.clone();
    signed.signature[3] ^= 1;
    signed.parse().unwrap().vouched()
}

async fn applied(store: &Store, keys: &[&'static str]) -> BTreeSet<&'static str> {
    let mut applied = BTreeSet::new();
    for key in keys {
        if !store.heads(key.as_bytes()).await.unwrap().is_empty() {
            applied.insert(*key);
        }
    }
    applied
}

fn orders<T: Clone>(items: &[T]) -> Vec<Vec<T>> {
    if items.is_empty() {
        return vec![Vec::new()];
    }
    (0..items.len())
        .flat_map(|at| {
            let mut rest = items.to_vec();
            let first = rest.remove(at);
            orders(&rest).into_iter().map(move |mut order| {
                order.insert(0, first.clone());
                order
            })
        })
        .collect()
}

// One node had the odd entry without what vouches for it, and others refused it from then on: they
// differed for ever, shut the honest node out, and its own store did not open again.
#[tokio::test(flavor = "multi_thread")]
async fn odd_entry_counts_with_its_voucher_in_any_order() {
    const KEYS: [&str; 4] = ["/first", "/odd", "/one", "/other"];
    let far_ms = NOW_MS + 2 * DRIFT_MS_MAX;
    for (held, expected) in [
        (0, &KEYS[..]),
        (1, &["/first", "/odd", "/other"][..]),
        (2, &["/first"][..]),
    ] {
        let stamp = |number: usize| {
            let far = number < held;
            if far { far_ms } else { NOW_MS + 5 }
        };
        let first = after(STORE, None, NOW_MS, "/first");
        let odd = odd(&after(STORE, Some(&first), NOW_MS + 1, "/odd"));
        let one = after(STORE, Some(&odd), stamp(0), "/one");
        let other = after(STORE, Some(&odd), stamp(1), "/other");
        let all = [first, odd, one, other];
        for (number, order) in orders(&all).into_iter().enumerate() {
            // Two of the fifteen cuts into messages for each order.
            for cut in [number % 4, (number / 4) % 4] {
                let (disk, clock) = (MemDisk::default(), Clock::manual(NOW_MS));
                let config = || store::config(STORE, AUTHOR_A, &clock, disk.clone());
                let mut store = Store::open(config()).await.unwrap();
                // The third time as a sync brings them: whole, and in order.
                for message in [&order[..cut], &order[cut..], &all] {
                    drop(acts::take_in(&store, message).await);
                }
                let expected: BTreeSet<_> = expected.iter().copied().collect();
                assert_eq!(applied(&store, &KEYS).await, expected, "{order:?}");
                // From the logs alone it is the same.
                store.close().await.unwrap();
                disk.remove(Path::new("/store/state.db")).unwrap();
                store = Store::open(config()).await.unwrap();
                assert_eq!(applied(&store, &KEYS).await, expected, "{order:?}");
                clock.set(far_ms);
                drop(acts::take_in(&store, &all).await);
                assert_eq!(applied(&store, &KEYS).await, BTreeSet::from(KEYS));
                assert_eq!(store.verify().await.unwrap().damage, []);
                store.close().await.unwrap();
            }
        }
    }
}

// A removal names the odd entry as the last one. One node had it and its voucher before; another
// hears of the removal first and never gets it.
#[tokio::test(flavor = "multi_thread")]
async fn removal_that_names_an_odd_entry_splits_nobody() {
    const KEYS: [&str; 5] = ["/first", "/before", "/odd", "/voucher", "/side"];
    let mut creator = Writer::new(AUTHOR_A, ROOT);
    let ops = vec![grant(AUTHOR_B, Role::Writer), grant(AUTHOR_C, Role::Writer)];
    let granted = creator.write(NOW_MS, ops, BTreeSet::new(), false);
    let first = after(ROOT, None, NOW_MS, "/first");
    let before = odd(&after(ROOT, Some(&first), NOW_MS + 1, "/before"));
    let last = odd(&after(ROOT, Some(&before), NOW_MS + 2, "/odd"));
    let voucher = after(ROOT, Some(&last), NOW_MS + 3, "/voucher");
    let side = after(ROOT, Some(&first), NOW_MS + 9, "/side");
    let tips = Tips::new([(ROOT, FrontierTip::of(&last))]).unwrap();
    let removal: Op = act(AUTHOR_B, &Act::Remove(tips));
    let removal = creator.write(NOW_MS, vec![removal], BTreeSet::new(), false);
    let entries = [first, before, last, voucher, side];
    let mut found = Vec::new();
    for removed_first in [false, true] {
        let disk = MemDisk::default();
        let store = Store::open(acts::config(&disk)).await.unwrap();
        acts::take_in(&store, std::slice::from_ref(&granted)).await;
        if removed_first {
            acts::take_in(&store, std::slice::from_ref(&removal)).await;
            acts::take_in(&store, &entries).await;
        } else {
            let taken = acts::take_in(&store, &entries).await;
            let all = taken.iter().all(|it| matches!(it, Ingested::Applied(_)));
            assert!(all, "{taken:?}");
            acts::take_in(&store, std::slice::from_ref(&removal)).await;
        }
        found.push(applied(&store, &KEYS).await);
        store.close().await.unwrap();
        disk.remove(Path::new("/store/state.db")).unwrap();
        let store = Store::open(acts::config(&disk)).await.unwrap();
        found.push(applied(&store, &KEYS).await);
        store.close().await.unwrap();
    }
    // As if the tip had not come: what has a lesser seq counts.
    let expected = BTreeSet::from(["/first", "/side"]);
    assert_eq!(found, vec![expected; 4]);
}

// A writer could stop every node for good: an entry that vouches for an odd one, and cites it with a
// wrong seq, was promised to be staged and then was not.
#[tokio::test(flavor = "multi_thread")]
async fn false_reference_to_an_odd_entry_stops_no_store() {
    for (seq, author) in [(7, AUTHOR_B), (1, AUTHOR_C), (1, AUTHOR_B)] {
        let odd = odd(&after(STORE, None, NOW_MS, "/odd"));
        let mut header = after(STORE, Some(&odd), NOW_MS + 1, "/k").header.clone();
        header.parents = vec![Parent {
            author: author_of(author),
            seq,
            ..odd.as_parent()
        }];
        let is_exact = header.parents == [odd.as_parent()];
        let voucher = sign(&key_of(AUTHOR_B), header, vec![put("/voucher", "v")]).unwrap();
        let clock = Clock::manual(NOW_MS);
        let config = store::config(STORE, AUTHOR_A, &clock, MemDisk::default());
        let store = Store::open(config).await.unwrap();
        for _again in 0..2 {
            drop(acts::take_in(&store, &[odd.clone(), voucher.clone()]).await);
        }
        // Who has the voucher alone could not refuse it, so it waits for an entry that never comes.
        let counts = applied(&store, &["/odd", "/voucher"]).await;
        assert_eq!(counts.len(), if is_exact { 2 } else { 0 });
        store.put("/own", "v").await.unwrap();
        store.close().await.unwrap();
    }
}

// More bytes of odd entries than are set aside: the writer set them aside, staged again those that
// had to make room, and so on for ever.
#[tokio::test(flavor = "multi_thread")]
async fn more_odd_entries_than_are_kept_stop_no_store() {
    let value = "v".repeat(900 << 10);
    let mut entries = Vec::new();
    for number in 0..12 {
        let header = after(STORE, None, NOW_MS + number, "/odd").header.clone();
        let large = sign(&key_of(AUTHOR_B), header, vec![put("/odd", &value)]).unwrap();
        let odd = odd(&large);
        let mut header = after(STORE, Some(&odd), NOW_MS + 100, "/k").header.clone();
        // It waits for a parent that never comes.
        header.parents = vec![Parent {
            id: EntryId([9; 32]),
            ..odd.as_parent()
        }];
        let voucher = sign(&key_of(AUTHOR_B), header, vec![put("/voucher", "v")]).unwrap();
        entries.extend([odd, voucher]);
    }
    let bytes: usize = entries.iter().map(|entry| entry.bytes()).sum();
    assert!(bytes > UNVOUCHED_BYTES_MAX && bytes < INGEST_BYTES_MAX);
    let clock = Clock::manual(NOW_MS);
    let config = store::config(STORE, AUTHOR_A, &clock, MemDisk::default());
    let store = Store::open(config).await.unwrap();
    for _again in 0..2 {
        let taken = tokio::time::timeout(Duration::from_secs(20), acts::take_in(&store, &entries));
        let taken = taken.await.expect("it ends");
        let waits = |it: &Ingested| matches!(it, Ingested::Pending { .. });
        assert!(taken.iter().all(waits), "{taken:?}");
    }
    store.put("/own", "v").await.unwrap();
    assert!(applied(&store, &["/odd", "/voucher"]).await.is_empty());
    store.close().await.unwrap();
}
