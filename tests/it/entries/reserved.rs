//! Reserved keys: an op that its author may not write has no effect, on any node and in any order.

use std::collections::BTreeSet;

use lattice::{
    Store,
    protocol::{
        entry::{Op, VerifiedEntry},
        membership::{
            genesis::Genesis,
            role::{Act, Role, Tips},
        },
    },
};

use crate::{
    entries::acts::{NOW_MS, ROOT, config, grant, take_in},
    support::{
        disk::MemDisk,
        model::{AUTHOR_A, AUTHOR_B, AUTHOR_C, author_of, put},
        random::{Random, for_each_seed},
        writer::Writer,
    },
};

fn info(of: [u8; 32]) -> String {
    format!("/nodes/{}/info", author_of(of))
}

fn bytes(key: &str, value: &[u8]) -> Op {
    Op::Put {
        key: key.to_owned().into(),
        value: value.to_vec().into(),
        expires_ms: None,
    }
}

fn genesis(creator: [u8; 32], nonce: u8) -> Genesis {
    Genesis {
        creator: author_of(creator),
        nonce: [nonce; 32],
    }
}

fn founding(genesis: &Genesis) -> Op {
    let key = String::from_utf8(genesis.key().to_vec()).unwrap();
    bytes(&key, &genesis.encode())
}

fn name_of(genesis: &Genesis) -> String {
    format!("/stores/{}/name", genesis.store())
}

async fn value(store: &Store, key: &str) -> Option<String> {
    let item = store.get(key.as_bytes()).await.unwrap()?;
    Some(String::from_utf8(item.value.to_vec()).unwrap())
}

// A writer could rename any node, and an admin who then removed the node of that name removed the
// wrong one for ever.
#[tokio::test(flavor = "multi_thread")]
async fn a_writer_describes_itself_and_nobody_else() {
    let store = Store::open(config(&MemDisk::default())).await.unwrap();
    let (mut admin, mut writer) = (Writer::new(AUTHOR_A, ROOT), Writer::new(AUTHOR_B, ROOT));
    let none = BTreeSet::new;
    let granted = admin.write(NOW_MS, vec![grant(AUTHOR_B, Role::Writer)], none(), false);
    let (kitchen, own) = (info(AUTHOR_C), info(AUTHOR_B));
    let named = admin.write(NOW_MS, vec![put(&kitchen, "kitchen")], none(), false);
    let open = admin.write(NOW_MS, vec![put("/invites/1", "open")], none(), false);
    let cites = |entries: &[&VerifiedEntry]| {
        let parents = entries.iter().map(|entry| entry.as_parent());
        parents.collect::<BTreeSet<_>>()
    };
    let theirs = genesis(AUTHOR_A, 1);
    let renames = vec![
        put(&kitchen, "intruder"),
        put(&own, "kitchen"),
        put(&name_of(&theirs), "prod"),
        put("/invites/1", "used"),
        put("/nodes/nobody/info", "x"),
        put("/stores/x", "x"),
        put("/plain", "counts"),
    ];
    let stolen = writer.write(NOW_MS + 1, renames, cites(&[&named, &open]), true);
    take_in(&store, &[granted, named, open, stolen]).await;
    assert_eq!(value(&store, &kitchen).await.as_deref(), Some("kitchen"));
    assert_eq!(store.heads(kitchen.as_bytes()).await.unwrap().len(), 1);
    assert_eq!(value(&store, &own).await.as_deref(), Some("kitchen"));
    assert_eq!(value(&store, "/invites/1").await.as_deref(), Some("open"));
    assert_eq!(value(&store, &name_of(&theirs)).await, None);
    assert_eq!(value(&store, "/nodes/nobody/info").await, None);
    assert_eq!(value(&store, "/stores/x").await, None);
    assert_eq!(value(&store, "/plain").await.as_deref(), Some("counts"));
    assert_eq!(store.verify().await.unwrap().damage, []);
}

// The founder names its store with its genesis, or after it on the same branch; an admin any store.
// A promotion after void acts does not make them count.
fn history() -> Vec<VerifiedEntry> {
    let mut creator = Writer::new(AUTHOR_A, ROOT);
    let mut writer = Writer::new(AUTHOR_B, ROOT);
    let mut admin = Writer::new(AUTHOR_C, ROOT);
    let none = BTreeSet::new;
    let ops = vec![grant(AUTHOR_B, Role::Writer), grant(AUTHOR_C, Role::Admin)];
    let granted = creator.write(NOW_MS, ops, none(), false);
    let by_admin = BTreeSet::from([granted.as_parent()]);
    let (early, late, foreign) = (
        genesis(AUTHOR_B, 1),
        genesis(AUTHOR_B, 2),
        genesis(AUTHOR_C, 3),
    );
    let mut entries = vec![granted.clone()];
    let mut write = |writer: &mut Writer, ops: Vec<Op>, cites: &BTreeSet<_>| {
        let entry = writer.write(NOW_MS + 1, ops, cites.clone(), false);
        entries.push(entry.clone());
        entry
    };
    // Before its genesis: void for ever.
    write(
        &mut writer,
        vec![put(&name_of(&late), "too early")],
        &none(),
    );
    write(
        &mut writer,
        vec![founding(&early), put(&name_of(&early), "first")],
        &none(),
    );
    let mut other = writer.clone();
    write(&mut writer, vec![founding(&late)], &none());
    let mut fork = writer.clone();
    // The genesis is on the first branch, not before this entry.
    write(
        &mut other,
        vec![put(&format!("{}3", name_of(&late)), "beside its genesis")],
        &none(),
    );
    write(&mut writer, vec![put(&name_of(&late), "named")], &none());
    write(
        &mut writer,
        vec![put(&name_of(&foreign), "stolen")],
        &none(),
    );
    // Not an admin yet, so this never counts.
    write(&mut writer, vec![put("/invites/early", "x")], &none());
    write(
        &mut fork,
        vec![put(&format!("{}2", name_of(&late)), "on another branch")],
        &none(),
    );
    write(&mut admin, vec![put("/invites/uncited", "x")], &none());
    write(&mut admin, vec![put("/invites/cited", "x")], &by_admin);
    write(&mut admin, vec![founding(&foreign)], &none());
    write(
        &mut admin,
        vec![put(&name_of(&early), "renamed")],
        &by_admin,
    );
    let promoted = write(&mut admin, vec![grant(AUTHOR_B, Role::Admin)], &by_admin);
    let cites = BTreeSet::from([promoted.as_parent()]);
    write(&mut writer, vec![put("/invites/late", "x")], &cites);
    entries
}

async fn take_shuffled(random: &mut Random, entries: &[VerifiedEntry]) -> Store {
    let store = Store::open(config(&MemDisk::default())).await.unwrap();
    let mut entries = entries.to_vec();
    random.shuffle(&mut entries);
    for part in entries.chunks(1 + random.below(4)) {
        take_in(&store, part).await;
    }
    store
}

#[test]
fn reserved_keys_are_the_same_in_any_order() {
    let entries = history();
    for_each_seed(1..=40, |random| {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap()
            .block_on(async {
                let store = take_shuffled(random, &entries).await;
                let (early, late) = (genesis(AUTHOR_B, 1), genesis(AUTHOR_B, 2));
                let foreign = genesis(AUTHOR_C, 3);
                let expected = [
                    (name_of(&early), 2),
                    (name_of(&late), 1),
                    (format!("{}2", name_of(&late)), 1),
                    (format!("{}3", name_of(&late)), 0),
                    (name_of(&foreign), 0),
                    ("/invites/early".to_owned(), 0),
                    ("/invites/uncited".to_owned(), 0),
                    ("/invites/cited".to_owned(), 1),
                    ("/invites/late".to_owned(), 1),
                ];
                for (key, heads) in &expected {
                    let found = store.heads(key.as_bytes()).await.unwrap();
                    assert_eq!(found.len(), *heads, "{key}: {found:?}");
                }
                let named = value(&store, &name_of(&late)).await;
                assert_eq!(named.as_deref(), Some("named"));
                assert_eq!(store.verify().await.unwrap().damage, []);
                store.close().await.unwrap();
            });
    });
}

// A removal takes the authority of what comes after its tips.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_removed_admin_described_later_is_void() {
    let store = Store::open(config(&MemDisk::default())).await.unwrap();
    let (mut creator, mut admin) = (Writer::new(AUTHOR_A, ROOT), Writer::new(AUTHOR_C, ROOT));
    let none = BTreeSet::new;
    let granted = creator.write(NOW_MS, vec![grant(AUTHOR_C, Role::Admin)], none(), false);
    let cites = BTreeSet::from([granted.as_parent()]);
    let kept = admin.write(
        NOW_MS,
        vec![put("/invites/1", "kept")],
        cites.clone(),
        false,
    );
    let cut = admin.write(NOW_MS, vec![put("/invites/2", "cut")], cites, false);
    take_in(&store, &[granted, kept.clone(), cut]).await;
    assert!(value(&store, "/invites/2").await.is_some());
    let tip = lattice::protocol::frontier::FrontierTip::of(&kept);
    let act = Act::Remove(Tips::new([(ROOT, tip)]).unwrap());
    let removal = creator.write(
        NOW_MS,
        vec![super::acts::act(AUTHOR_C, &act)],
        none(),
        false,
    );
    take_in(&store, &[removal]).await;
    assert_eq!(value(&store, "/invites/1").await.as_deref(), Some("kept"));
    assert_eq!(value(&store, "/invites/2").await, None);
}
