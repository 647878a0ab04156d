//! Golden bytes of the files on disk, and of proofs. If a test fails here, the format has changed:
//! that needs a new version, and the old one must still be read.

use std::path::PathBuf;

use bytes::Bytes;
use lattice::{
    id::{Author, EntryId},
    log::record::{Step, Walk},
    protocol::{
        heads::{Content, Head, Heads, Value},
        heads_row::{decode_heads, encode_heads},
        hlc::Hlc,
        merkle::{Levels, RowProof, Tree, TreeRoot, verify},
    },
    state::row,
};

use super::{
    flip,
    setup::{NOW_MS, STORE, author_a, key, open, put, signed, soon, state_path, sums_path},
};
use crate::support::{
    disk::{Image, MemDisk},
    rows::MemRows,
};

// Bytes as `tests/data` has them. `GOLDEN=new` writes a file that is missing.
fn golden(name: &str, now: &[u8]) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data")
        .join(name);
    if !path.exists() && std::env::var_os("GOLDEN").is_some() {
        std::fs::write(&path, now).unwrap();
    }
    std::fs::read(path).unwrap()
}

#[test]
fn s19_log_record_v1_round_trip() {
    let first = signed(&key(1), STORE, None, vec![], vec![put("/golden/1", "one")]);
    let parents = vec![first.as_parent()];
    let delete = lattice::protocol::entry::Op::Delete {
        key: "/golden/1".into(),
    };
    let second = signed(
        &key(1),
        STORE,
        Some(&first),
        parents,
        vec![delete, put("/golden/2", "")],
    );
    let mut log = Vec::new();
    let end = flip::write_frame(&mut log, 0, &first, 0);
    flip::write_frame(&mut log, end, &second, end as u64);
    let bytes = golden("log-record-v1.bin", &log);
    assert_eq!(bytes, log, "the same entries are written differently");
    let path = PathBuf::from("/log");
    let disk = MemDisk::new(&Image::from([(path.clone(), bytes.clone())]));
    let file = lattice::disk::Disk::open(&disk, &path, lattice::disk::Open::Existing).unwrap();
    let mut walk = Walk::new(file, 0, bytes.len() as u64, 4096);
    for entry in [&first, &second] {
        let Some(Step::Record(record)) = walk.step().unwrap() else {
            panic!("no record")
        };
        assert_eq!(record.header.arrived_ms, NOW_MS);
        assert_eq!(record.header.author, author_a());
        let read = record.entry().unwrap().verify().unwrap();
        assert_eq!((read.id, &read.ops), (entry.id, &entry.ops));
    }
    assert!(walk.step().unwrap().is_none());
}

#[test]
fn s19_state_row_v3_round_trip() {
    let head = |n: u8, content| Head {
        hlc: Hlc {
            wall_ms: NOW_MS + u64::from(n),
            counter: u32::from(n),
        },
        author: Author([n; 32]),
        id: EntryId([n + 100; 32]),
        seq: u64::from(n) << 40,
        content,
        taken_back: n == 5,
    };
    let value = |value, expires_ms| Content::Value { value, expires_ms };
    let in_log = |bytes: u32| Value::InLog {
        bytes,
        hash: *blake3::hash(&bytes.to_le_bytes()).as_bytes(),
    };
    let heads = Heads::new(vec![
        head(1, Content::Tombstone),
        head(2, value(Value::Inline(Bytes::from("inline")), None)),
        head(3, value(Value::Inline(Bytes::new()), Some(NOW_MS * 2))),
        head(4, value(in_log(70_000), Some(1))),
        head(5, value(in_log(1025), None)),
    ]);
    let sealed = row::seal("heads-v2", b"/golden", encode_heads(&heads));
    let written = golden("state-row-v3.bin", &sealed);
    assert_eq!(written, sealed, "the same heads are written differently");
    let body = sealed_body(&written, "heads-v2");
    assert_eq!(decode_heads(&body).as_ref(), Some(&heads));
}

/// The files of notes and consumers may have rows with the check of an earlier build.
#[test]
fn s19_checks_of_state_rows_v1_and_v2_are_read() {
    for name in ["state-row-v1.bin", "state-row-v2.bin"] {
        sealed_body(&golden(name, &[]), "heads-v1");
    }
}

/// A proof that somebody keeps is checked years later, by its root.
#[test]
fn s19_row_proof_v1_round_trip() {
    let row = |number: u32| number.to_string().into_bytes();
    let rows = (0..5000).map(|number| (format!("/golden/{number:04}").into_bytes(), row(number)));
    let rows = MemRows(rows.collect());
    let levels = Levels::new(STORE);
    let mut tree = Tree::new(levels.clone());
    let Ok(fresh) = tree.refresh(&rows);
    let Ok(one) = fresh.prove(b"/golden/2500");
    let Ok(none) = fresh.prove(b"/golden/2500/none");
    let bytes = [&fresh.root().0[..], &one.encode(), &none.encode()].concat();
    let written = golden("row-proof-v1.bin", &bytes);
    assert_eq!(written, bytes, "the same rows have another root or proof");
    let (root, proofs) = written.split_first_chunk::<32>().unwrap();
    let (one, none) = proofs.split_at(one.encode().len());
    let verified = |key: &[u8], row: Option<&[u8]>, proof| {
        let proof = RowProof::decode(proof).unwrap();
        verify(&levels, &TreeRoot(*root), key, row, &proof)
    };
    assert_eq!(verified(b"/golden/2500", Some(b"2500"), one), Ok(()));
    assert_eq!(verified(b"/golden/2500/none", None, none), Ok(()));
}

// Names of tables now and in earlier versions of the state file; others kept theirs.
const EARLIER_TABLES: [&[(&str, &str)]; 2] = [
    &[
        ("heads-v2", "heads-v1"),
        ("expiry-v2", "expiry-v1"),
        ("meta-v3", "meta-v1"),
    ],
    &[("meta-v3", "meta-v2")],
];

// Gives `work` the state file of `image`, as redb opens it, and puts what becomes of it back.
fn with_state_file<T>(image: &mut Image, work: impl FnOnce(&redb::Database) -> T) -> T {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.db");
    std::fs::write(&path, &image[&state_path()]).unwrap();
    let db = redb::Database::open(&path).unwrap();
    let answer = work(&db);
    drop(db);
    image.insert(state_path(), std::fs::read(&path).unwrap());
    image.remove(&sums_path());
    answer
}

/// A row of the first version has no hash of a big value, and is decoded as another one. So a node
/// that is updated builds its state again, once.
#[tokio::test(flavor = "multi_thread")]
async fn s19_state_file_of_an_earlier_version_is_built_again() {
    for earlier in EARLIER_TABLES {
        built_again_from(earlier).await;
    }
}

async fn built_again_from(earlier: &[(&str, &str)]) {
    let disk = MemDisk::default();
    let store = open(&disk).await.unwrap();
    let big = Bytes::from(vec![7; 5000]);
    soon(store.put("/big", big.clone())).await.unwrap();
    soon(store.put("/small", "value")).await.unwrap();
    let hash = soon(store.state_hash()).await.unwrap();
    soon(store.close()).await.unwrap();
    let mut image = disk.image();
    with_state_file(&mut image, |db| {
        let write = db.begin_write().unwrap();
        type Any<'a> = redb::TableDefinition<'a, &'static [u8], &'static [u8]>;
        for (now, name) in earlier {
            write.rename_table(Any::new(now), Any::new(name)).unwrap();
        }
        assert!(write.delete_table(Any::new("facts-v1")).unwrap());
        write.commit().unwrap();
    });
    for rebuilt in [true, false] {
        let disk = MemDisk::new(&image);
        let store = open(&disk).await.unwrap();
        let recovered = store.status().await.recovered;
        let said = recovered
            .iter()
            .any(|line| line.contains("an earlier version of Lattice wrote it"));
        assert_eq!(said, rebuilt, "{recovered:?}");
        assert_eq!(soon(store.state_hash()).await.unwrap(), hash);
        let read = soon(store.get(b"/big")).await.unwrap().unwrap();
        assert_eq!(read.value, big);
        soon(store.close()).await.unwrap();
        image = disk.image();
        let tables = with_state_file(&mut image, |db| {
            let read = redb::ReadableDatabase::begin_read(db).unwrap();
            let tables = read.list_tables().unwrap();
            tables
                .map(|table| redb::TableHandle::name(&table).to_owned())
                .collect::<Vec<_>>()
        });
        assert_eq!(tables.len(), 6, "{tables:?}");
        for (_now, name) in earlier {
            assert!(!tables.iter().any(|table| table == name), "{tables:?}");
        }
    }
}

// Returns the body of a row, and shows that its check covers table, key and every bit.
fn sealed_body(row: &[u8], table: &str) -> Vec<u8> {
    let body = row::unseal(table, b"/golden", row).unwrap();
    assert_eq!(row::unseal("heads-v9", b"/golden", row), None);
    assert_eq!(row::unseal(table, b"/golden2", row), None);
    for bit in 0..row.len() * 8 {
        let mut row = row.to_vec();
        row[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(row::unseal(table, b"/golden", &row), None, "bit {bit}");
    }
    body.to_vec()
}
