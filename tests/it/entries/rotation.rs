//! Keys that change. A rotation is one entry of the root store, by which a node makes its new key its
//! heir and removes itself.

use std::collections::BTreeSet;

use lattice::{
    Store,
    protocol::{
        entry::VerifiedEntry,
        frontier::FrontierTip,
        membership::role::{Act, Role, Tips},
    },
    store::Ingested,
};

use crate::{
    entries::acts::{NOW_MS, ROOT, act, config, grant, ids, take_in},
    support::{
        disk::{Cut, Image, MemDisk},
        model::{AUTHOR_A, AUTHOR_B, AUTHOR_C, author_of, put},
        writer::Writer,
    },
};

// Members that the old key of B let in, before the rotation and after it.
const BEFORE: [u8; 32] = [0xd; 32];
const AFTER: [u8; 32] = [0xe; 32];

/// Roles of the old key and of its heir.
fn roles(store: &Store) -> [Option<Role>; 2] {
    let members = store.members().borrow().clone();
    [AUTHOR_B, AUTHOR_C].map(|node| members.role(&author_of(node)))
}

async fn open(disk: &MemDisk) -> Store {
    Store::open(config(disk)).await.unwrap()
}

// Checks what a node finds after a power cut. Returns whether the rotation is there.
async fn check(image: &Image, rotation: &VerifiedEntry, after: &VerifiedEntry) -> bool {
    let store = open(&MemDisk::new(image)).await;
    let found = roles(&store);
    let is_rotated = found == [None, Some(Role::Admin)];
    assert!(
        is_rotated || found == [Some(Role::Admin), None],
        "{found:?}"
    );
    // A sync brings it again, and what the old key signs afterwards.
    take_in(&store, std::slice::from_ref(rotation)).await;
    let taken = take_in(&store, std::slice::from_ref(after)).await;
    assert!(matches!(taken[0], Ingested::Refused(_)), "{taken:?}");
    assert_eq!(roles(&store), [None, Some(Role::Admin)]);
    let members = store.members().borrow().clone();
    assert_eq!(members.role(&author_of(BEFORE)), Some(Role::Writer));
    assert_eq!(members.role(&author_of(AFTER)), None);
    assert_eq!(ids(&store, "/k").await, []);
    assert_eq!(store.verify().await.unwrap().damage, []);
    store.close().await.unwrap();
    is_rotated
}

// Two entries, a grant and then a leave, would leave two admins after a power cut between them; the
// other way round, none.
#[tokio::test(flavor = "multi_thread")]
async fn m11_a_rotation_is_whole_after_any_power_cut_and_the_old_key_is_void_past_it() {
    let [mut creator, mut old] = [AUTHOR_A, AUTHOR_B].map(|author| Writer::new(author, ROOT));
    let granted = vec![grant(AUTHOR_B, Role::Admin)];
    let granted = creator.write(NOW_MS, granted, BTreeSet::new(), false);
    let mut write = |ops, is_atomic| {
        let cites = BTreeSet::from([granted.as_parent()]);
        old.write(NOW_MS + 1, ops, cites, is_atomic)
    };
    let before = write(vec![grant(BEFORE, Role::Writer)], false);
    let tips = Tips::naming([], [(ROOT, FrontierTip::of(&before))]).unwrap();
    let leave = act(AUTHOR_B, &Act::Remove(tips));
    let rotation = write(vec![grant(AUTHOR_C, Role::Admin), leave], true);
    let after = write(vec![grant(AFTER, Role::Writer), put("/k", "after")], false);

    let disk = MemDisk::default();
    let store = open(&disk).await;
    take_in(&store, &[granted.clone(), before]).await;
    store.close().await.unwrap();
    let base = disk.image();
    let disk = MemDisk::new(&base);
    let store = open(&disk).await;
    take_in(&store, std::slice::from_ref(&rotation)).await;
    assert_eq!(roles(&store), [None, Some(Role::Admin)]);
    store.close().await.unwrap();

    let mut cut = Cut::new(&base, 4096);
    let mut rotated = BTreeSet::new();
    for operation in disk.operations() {
        for image in [cut.image(|_| 0), cut.image(|count| count - 1)] {
            rotated.insert(check(&image, &rotation, &after).await);
        }
        cut.step(&operation);
    }
    assert_eq!(
        rotated,
        BTreeSet::from([false, true]),
        "cuts before and after it"
    );
}
