//! References to a grant that do not name it exactly. They give no authority, in whatever order the
//! grant and the act come and however often the node starts: otherwise the members would differ.

use std::{collections::BTreeSet, path::Path};

use lattice::{
    Store,
    clock::Clock,
    disk::Disk as _,
    limits::PARENT_WAIT_MS,
    protocol::{
        entry::{Parent, VerifiedEntry},
        membership::role::{Role, role_key},
    },
    store::StoreConfig,
};

use crate::{
    entries::acts::{NOW_MS, ROOT, config, grant, take_in},
    support::{
        disk::MemDisk,
        model::{AUTHOR_A, AUTHOR_B, AUTHOR_C, author_of, put},
        writer::Writer,
    },
};

const AUTHOR_D: [u8; 32] = [0xd; 32];

/// B's grant of admin, and its act, which makes D a writer and cites that grant as `reference` says.
struct Told {
    /// Make B and C writers.
    before: VerifiedEntry,
    granted: VerifiedEntry,
    act: VerifiedEntry,
}

/// Makes a reference to the grant a false one.
type Falsify = fn(&mut Parent);

fn told(reference: Falsify) -> Told {
    let none = BTreeSet::new;
    let [mut creator, mut writer] = [AUTHOR_A, AUTHOR_B].map(|author| Writer::new(author, ROOT));
    let members = vec![grant(AUTHOR_B, Role::Writer), grant(AUTHOR_C, Role::Writer)];
    let before = creator.write(NOW_MS, members, none(), false);
    let ops = vec![grant(AUTHOR_B, Role::Admin)];
    let granted = creator.write(NOW_MS + 50, ops, none(), false);
    let mut cited = granted.as_parent();
    reference(&mut cited);
    let ops = vec![grant(AUTHOR_D, Role::Writer), put("/invites/1", "open")];
    let act = writer.write(NOW_MS + 10, ops, BTreeSet::from([cited]), false);
    Told {
        before,
        granted,
        act,
    }
}

async fn open(disk: &MemDisk, clock: &Clock) -> Store {
    let config = StoreConfig {
        clock: clock.clone(),
        ..config(disk)
    };
    Store::open(config).await.unwrap()
}

// Members, heads and state, once nothing waits any more.
async fn end(store: &Store) -> (String, bool) {
    let role = store.heads(&role_key(&author_of(AUTHOR_D))).await.unwrap();
    let invite = store.heads(b"/invites/1").await.unwrap();
    let members = store.members().borrow().clone();
    let acts = store.state_hash().await.unwrap();
    let all = format!("{members:?} {role:?} {invite:?} {acts:?}");
    let is_member = members.role(&author_of(AUTHOR_D)).is_some();
    assert_eq!(
        (is_member, is_member),
        (!role.is_empty(), !invite.is_empty())
    );
    assert_eq!(store.verify().await.unwrap().damage, []);
    (all, is_member)
}

async fn ends(told: &Told) -> Vec<(String, bool)> {
    let mut ends = Vec::new();
    for is_granted_first in [true, false] {
        let (disk, clock) = (MemDisk::default(), Clock::manual(NOW_MS));
        let mut store = open(&disk, &clock).await;
        let [first, last] = if is_granted_first {
            [&told.granted, &told.act]
        } else {
            [&told.act, &told.granted]
        };
        for entry in [&told.before, first, last] {
            drop(take_in(&store, std::slice::from_ref(entry)).await);
            clock.set(clock.now_ms() + PARENT_WAIT_MS);
            store.settle().await;
        }
        assert_eq!(store.status().await.pending_entries, 0);
        ends.push(end(&store).await);
        for is_state_lost in [false, true] {
            store.close().await.unwrap();
            if is_state_lost {
                disk.remove(Path::new("/store/state.db")).unwrap();
            }
            store = open(&disk, &clock).await;
            ends.push(end(&store).await);
        }
        store.close().await.unwrap();
    }
    ends
}

#[tokio::test(flavor = "multi_thread")]
async fn m6_members_do_not_depend_on_when_a_grant_comes_that_is_cited_falsely() {
    let references: [(&str, Falsify); 5] = [
        ("a low stamp", |cited| cited.hlc.wall_ms = NOW_MS + 1),
        ("a writer's", |cited| cited.author = author_of(AUTHOR_C)),
        ("a stranger's", |cited| cited.author = author_of(AUTHOR_D)),
        ("another place", |cited| cited.seq = 1),
        ("exact", |_cited| {}),
    ];
    for (name, reference) in references {
        let ends = ends(&told(reference)).await;
        assert!(ends.iter().all(|end| *end == ends[0]), "{name}: {ends:#?}");
        assert_eq!(ends[0].1, name == "exact", "{name}");
    }
}
