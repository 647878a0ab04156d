//! Roots of whole stores: equal on nodes with the same entries, however they came.

use std::{collections::BTreeSet, path::Path};

use lattice::{
    Store,
    clock::Clock,
    id::StoreId,
    limits::VALUE_INLINE_BYTES_MAX,
    protocol::{
        entry::{Op, VerifiedEntry},
        heads::{Content, Value},
        heads_row::decode_heads,
        merkle::{Levels, verify},
    },
    store::StateRoot,
};

use crate::support::{
    disk::MemDisk,
    model::{AUTHOR_A, AUTHOR_B, delete, put},
    store,
    writer::Writer,
};

const STORE: StoreId = StoreId([3; 16]);
const NOW_MS: u64 = 1_700_000_000_000;

async fn open(node: u8, disk: MemDisk) -> Store {
    let clock = Clock::manual(NOW_MS);
    let config = store::config(STORE, [node; 32], &clock, disk);
    Store::open(config).await.unwrap()
}

// Entries of two authors who know nothing of each other: many keys have two heads.
fn entries() -> Vec<VerifiedEntry> {
    let mut entries = Vec::new();
    for (author, step) in [(AUTHOR_A, 3), (AUTHOR_B, 5)] {
        let mut writer = Writer::new(author, STORE);
        for part in 0..20 {
            let keys =
                (part * 30..part * 30 + 30).map(|number| format!("/key/{:04}", number * step));
            let mut ops: Vec<Op> = keys.map(|key| put(&key, "value")).collect();
            ops.push(delete(&format!("/gone/{part}")));
            ops.push(put(
                &format!("/big/{part}"),
                &"b".repeat(VALUE_INLINE_BYTES_MAX + 1),
            ));
            entries.push(writer.write(NOW_MS + part, ops, BTreeSet::new(), false));
        }
    }
    entries
}

async fn give(store: &Store, entries: &[VerifiedEntry]) {
    let entries = entries.iter().map(|entry| entry.signed.encode().into());
    store.ingest(entries.collect()).await.unwrap();
}

async fn roots(store: &Store) -> Vec<StateRoot> {
    let mut roots = Vec::new();
    for prefix in ["", "/key/", "/key/01", "/nothing/"] {
        roots.push(store.root(prefix.as_bytes()).await.unwrap());
    }
    roots
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_with_the_same_entries_have_one_root() {
    let entries = entries();
    let first = open(1, MemDisk::default()).await;
    give(&first, &entries).await;
    let expected = roots(&first).await;
    let all: BTreeSet<String> = expected
        .iter()
        .map(|state| state.root.to_string())
        .collect();
    assert_eq!(all.len(), expected.len(), "{all:?}");
    let disk = MemDisk::default();
    let second = open(2, disk.clone()).await;
    let mut rest = entries.clone();
    rest.reverse();
    while let Some(entry) = rest.pop() {
        // The other author first, and in parts.
        let at = rest.len() / 2;
        rest.rotate_left(at.min(1));
        give(&second, &[entry]).await;
        let roots = roots(&second).await;
        assert_eq!(rest.is_empty(), roots == expected);
    }
    second.close().await.unwrap();
    let mut image = disk.image();
    for without_state in [false, true] {
        if without_state {
            image.remove(Path::new("/store/state.db"));
            image.remove(Path::new("/store/state.sums"));
        }
        let store = open(2, MemDisk::new(&image)).await;
        assert_eq!(roots(&store).await, expected, "opened again");
        store.put("/one/more", "value").await.unwrap();
        assert_ne!(roots(&store).await[0].root, expected[0].root);
        store.close().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn r1_proof_speaks_of_a_big_value() {
    let store = open(1, MemDisk::default()).await;
    give(&store, &entries()).await;
    let big = vec![7; VALUE_INLINE_BYTES_MAX + 1];
    store.put("/big/mine", big.clone()).await.unwrap();
    let levels = Levels::new(STORE);
    for key in ["/big/mine", "/big/1", "/key/0003", "/gone/3", "/never"] {
        let key = key.as_bytes();
        let proven = store.prove(key).await.unwrap();
        let (root, row) = (proven.state.root, proven.row.as_deref());
        assert_eq!(verify(&levels, &root, key, row, &proven.proof), Ok(()));
        assert_eq!(row.is_none(), key == b"/never");
        assert_eq!(proven.state, store.root(&[]).await.unwrap());
    }
    let row = store.prove(b"/big/mine").await.unwrap().row.unwrap();
    let heads = decode_heads(&row).unwrap();
    let Content::Value { value, .. } = &heads.winner().unwrap().content else {
        panic!("it has a value")
    };
    let hash = *blake3::hash(&big).as_bytes();
    let bytes = u32::try_from(big.len()).unwrap();
    assert_eq!(*value, Value::InLog { bytes, hash });
    assert!(store.prove(b"").await.is_err(), "no key is empty");
}
