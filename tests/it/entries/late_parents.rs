//! Parents that come after the entries that cite them. Whatever happens to the node in between, the
//! heads are those of a node that got the parents first.

use std::{collections::BTreeSet, path::Path};

use lattice::{
    Store,
    clock::Clock,
    disk::RealDisk,
    id::StoreId,
    limits::PARENT_WAIT_MS,
    protocol::{
        entry::{Parent, VerifiedEntry},
        hlc::Hlc,
        membership::role::Role,
    },
    store::{Ingested, StoreConfig},
};

use crate::{
    entries::acts::{self, ROOT, grant, ids, take_in},
    support::{
        disk::{MemDisk, Operation},
        files::copy_all,
        model::{AUTHOR_A, AUTHOR_B, AUTHOR_C, put},
        store,
        writer::Writer,
    },
};

const AUTHOR_D: [u8; 32] = [0xd; 32];
const NOW_MS: u64 = 1_800_000_000_000;
const STORE: StoreId = StoreId([7; 16]);

async fn open(dir: &Path, clock: &Clock) -> Store {
    let config = StoreConfig {
        dir: dir.to_owned(),
        bus_batches: 64,
        ..store::config(STORE, [1; 32], clock, RealDisk)
    };
    Store::open(config).await.unwrap()
}

/// A, who forked, and B, who cites an entry on A's shorter branch.
struct Told {
    /// In causal order; `late` is not among them.
    entries: Vec<VerifiedEntry>,
    /// Writes `/k`, which B's entry writes too, and `/free`.
    late: VerifiedEntry,
    citing: VerifiedEntry,
}

fn told() -> Told {
    let none = BTreeSet::new;
    let (mut a, mut b) = (Writer::new(AUTHOR_A, STORE), Writer::new(AUTHOR_B, STORE));
    let first = a.write(NOW_MS, vec![put("/first", "")], none(), false);
    let mut other = a.clone();
    let late = vec![put("/free", "late"), put("/k", "late")];
    let late = other.write(NOW_MS + 5, late, none(), false);
    let longer = [1, 2].map(|ms| a.write(NOW_MS + ms, vec![put("/a", "")], none(), false));
    let cited = BTreeSet::from([late.as_parent()]);
    let citing = vec![put("/k", "cites"), put("/other", "cites")];
    let citing = b.write(NOW_MS + 10, citing, cited, false);
    let [second, third] = longer;
    Told {
        entries: vec![first, second, third, citing.clone()],
        late,
        citing,
    }
}

async fn apply_without_parents(store: &Store, clock: &Clock, entries: &[VerifiedEntry]) {
    drop(take_in(store, entries).await);
    clock.set(clock.now_ms() + PARENT_WAIT_MS);
    store.settle().await;
}

// The late entry stayed a head when the node had died between its fsync and the next flush, and when
// the state file was lost while its author had a longer branch.
#[tokio::test(flavor = "multi_thread")]
async fn a_late_parent_is_superseded_through_power_cuts_and_rebuilds() {
    let told = told();
    let expected = {
        let (dir, clock) = (tempfile::tempdir().unwrap(), Clock::manual(NOW_MS));
        let store = open(dir.path(), &clock).await;
        let mut entries = told.entries.clone();
        entries.insert(1, told.late.clone());
        let taken = take_in(&store, &entries).await;
        assert!(taken.iter().all(|it| matches!(it, Ingested::Applied(_))));
        store.state_hash().await.unwrap()
    };
    for before in ["nothing", "opened again", "state lost"] {
        for after in ["nothing", "state of before", "state lost"] {
            let case = format!("{before} before, {after} after");
            let (dir, clock) = (tempfile::tempdir().unwrap(), Clock::manual(NOW_MS));
            let mut store = open(dir.path(), &clock).await;
            apply_without_parents(&store, &clock, &told.entries).await;
            assert_eq!(ids(&store, "/k").await, [told.citing.id], "{case}");
            if before != "nothing" {
                store.close().await.unwrap();
                if before == "state lost" {
                    std::fs::remove_file(dir.path().join("state.db")).unwrap();
                }
                store = open(dir.path(), &clock).await;
            }
            let kept = tempfile::tempdir().unwrap();
            if after == "state of before" {
                store.close().await.unwrap();
                copy_all(dir.path(), kept.path());
                store = open(dir.path(), &clock).await;
            }
            let taken = take_in(&store, std::slice::from_ref(&told.late)).await;
            assert_eq!(taken, [Ingested::Applied(told.late.id)], "{case}");
            assert_eq!(ids(&store, "/k").await, [told.citing.id], "{case}, live");
            store.close().await.unwrap();
            match after {
                "state of before" => {
                    let of = |dir: &tempfile::TempDir| dir.path().join("state.db");
                    std::fs::copy(of(&kept), of(&dir)).unwrap();
                }
                "state lost" => std::fs::remove_file(dir.path().join("state.db")).unwrap(),
                _nothing => {}
            }
            let store = open(dir.path(), &clock).await;
            assert_eq!(ids(&store, "/k").await, [told.citing.id], "{case}");
            assert_eq!(ids(&store, "/free").await, [told.late.id], "{case}");
            assert_eq!(store.state_hash().await.unwrap(), expected, "{case}");
            assert_eq!(store.verify().await.unwrap().damage, [], "{case}");
            store.close().await.unwrap();
        }
    }
}

// Once 66 such entries had come, each group with an entry of an author whom the 67th cited had the
// whole state built again.
#[tokio::test(flavor = "multi_thread")]
async fn made_up_parents_of_a_member_do_not_have_the_state_built_again() {
    const ENTRIES: usize = 70;
    let (disk, clock) = (MemDisk::default(), Clock::manual(NOW_MS));
    let config = store::config(STORE, [1; 32], &clock, disk.clone());
    let store = Store::open(config).await.unwrap();
    let (mut member, mut hostile) = (Writer::new(AUTHOR_A, STORE), Writer::new(AUTHOR_C, STORE));
    let made_up = |number: usize| Parent {
        hlc: Hlc {
            wall_ms: NOW_MS + 1,
            counter: 0,
        },
        author: member.author(),
        id: lattice::id::EntryId(*blake3::hash(&number.to_le_bytes()).as_bytes()),
        seq: 1_000 + number as u64,
    };
    let entries: Vec<VerifiedEntry> = (0..ENTRIES)
        .map(|number| {
            let parents = (0..1_000).map(|at| made_up(number * 1_000 + at)).collect();
            hostile.write(NOW_MS + 2, vec![put("/h", "")], parents, false)
        })
        .collect();
    // Each begins to wait when the one before it is applied.
    for entry in entries.chunks(1) {
        apply_without_parents(&store, &clock, entry).await;
    }
    assert_eq!(store.frontier().seq(&hostile.author()), ENTRIES as u64);
    let removed = |operation: &Operation| matches!(operation, Operation::Remove(path) if path.ends_with("state.db"));
    let removals = || disk.operations().iter().filter(|it| removed(it)).count();
    let before = removals();
    for number in 0..20 {
        let op = vec![put("/member", &number.to_string())];
        let entry = member.write(NOW_MS + 3, op, BTreeSet::new(), false);
        let taken = take_in(&store, std::slice::from_ref(&entry)).await;
        assert_eq!(taken, [Ingested::Applied(entry.id)]);
    }
    assert_eq!(removals(), before, "the state file is the one it was");
    store.close().await.unwrap();
}

// B acts by a grant of admin that comes after the act: the node had given up waiting for it. Then the
// act counts, whatever happened to the node since it came.
#[tokio::test(flavor = "multi_thread")]
async fn acts_count_once_their_grant_has_come() {
    let none = BTreeSet::new;
    let (mut creator, mut b) = (Writer::new(AUTHOR_A, ROOT), Writer::new(AUTHOR_B, ROOT));
    let mut c = Writer::new(AUTHOR_C, ROOT);
    let writer = vec![grant(AUTHOR_B, Role::Writer)];
    let writer = creator.write(acts::NOW_MS, writer, none(), false);
    let admin = vec![grant(AUTHOR_B, Role::Admin)];
    let admin = creator.write(acts::NOW_MS, admin, none(), false);
    let cited = BTreeSet::from([admin.as_parent()]);
    let act = b.write(
        acts::NOW_MS,
        vec![grant(AUTHOR_C, Role::Admin)],
        cited,
        false,
    );
    // By the act, which was void by its form while its own grant was not here.
    let cited = BTreeSet::from([act.as_parent()]);
    let next = c.write(
        acts::NOW_MS,
        vec![grant(AUTHOR_D, Role::Writer)],
        cited,
        false,
    );
    let value = c.write(acts::NOW_MS, vec![put("/k", "of c")], none(), false);
    let open = async |disk: &MemDisk, clock: &Clock| {
        let config = StoreConfig {
            clock: clock.clone(),
            ..acts::config(disk)
        };
        Store::open(config).await.unwrap()
    };
    let expected = {
        let store = open(&MemDisk::default(), &Clock::manual(acts::NOW_MS)).await;
        let entries = [&writer, &admin, &act, &next, &value].map(Clone::clone);
        // C is a stranger until the act is on disk.
        drop(take_in(&store, &entries).await);
        assert_eq!(ids(&store, "/k").await, [value.id]);
        store.state_hash().await.unwrap()
    };
    for after in ["nothing", "state of before", "state lost"] {
        let (mut disk, clock) = (MemDisk::default(), Clock::manual(acts::NOW_MS));
        let mut store = open(&disk, &clock).await;
        let early = [&writer, &act, &next, &value].map(Clone::clone);
        apply_without_parents(&store, &clock, &early).await;
        assert_eq!(
            store.frontier().seq(&b.author()),
            1,
            "{after}: void, and here"
        );
        assert_eq!(store.frontier().seq(&c.author()), 0, "{after}: a stranger");
        store.close().await.unwrap();
        let before = disk.image();
        store = open(&disk, &clock).await;
        drop(take_in(&store, std::slice::from_ref(&admin)).await);
        if after != "nothing" {
            store.close().await.unwrap();
            let mut image = disk.image();
            image.retain(|path, _| !path.ends_with("state.db"));
            if after == "state of before" {
                let state = |(path, _): &(&std::path::PathBuf, _)| path.ends_with("state.db");
                let (path, bytes) = before.iter().find(state).unwrap();
                image.insert(path.clone(), bytes.clone());
            }
            disk = MemDisk::new(&image);
            store = open(&disk, &clock).await;
        }
        drop(take_in(&store, &[next.clone(), value.clone()]).await);
        assert_eq!(ids(&store, "/k").await, [value.id], "{after}");
        assert_eq!(store.state_hash().await.unwrap(), expected, "{after}");
        assert_eq!(store.verify().await.unwrap().damage, [], "{after}");
        store.close().await.unwrap();
    }
}
