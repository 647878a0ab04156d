//! Golden bytes of the files on disk. If a test fails here, the format has changed: that needs a
//! new version, and the old one must still be read.

use std::path::PathBuf;

use bytes::Bytes;
use lattice::{
    id::{Author, EntryId},
    log::record::{Step, Walk},
    protocol::{
        heads::{Content, Head, Heads, Value},
        hlc::Hlc,
    },
    state::row,
};

use super::{
    flip,
    setup::{NOW_MS, STORE, author_a, key, put, signed},
};
use crate::support::disk::{Image, MemDisk};

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
fn s19_state_row_v1_is_read_v2_round_trip() {
    let head = |n: u8, content| Head {
        hlc: Hlc {
            wall_ms: NOW_MS + u64::from(n),
            counter: u32::from(n),
        },
        author: Author([n; 32]),
        id: EntryId([n + 100; 32]),
        seq: u64::from(n) << 40,
        content,
        taken_back: false,
    };
    let value = |value, expires_ms| Content::Value { value, expires_ms };
    let heads = Heads::new(vec![
        head(1, Content::Tombstone),
        head(2, value(Value::Inline(Bytes::from("inline")), None)),
        head(3, value(Value::Inline(Bytes::new()), Some(NOW_MS * 2))),
        head(4, value(Value::InLog { bytes: 70_000 }, Some(1))),
        head(5, value(Value::InLog { bytes: 1025 }, None)),
    ]);
    let sealed = row::seal("heads-v1", b"/golden", row::encode_heads(&heads));
    let written = golden("state-row-v2.bin", &sealed);
    assert_eq!(written, sealed, "the same heads are written differently");
    // They differ in the check.
    for bytes in [golden("state-row-v1.bin", &[]), written] {
        let body = row::unseal("heads-v1", b"/golden", &bytes).unwrap();
        assert_eq!(row::decode_heads(body).as_ref(), Some(&heads));
        // The check covers table, key and every bit.
        assert_eq!(row::unseal("heads-v2", b"/golden", &bytes), None);
        assert_eq!(row::unseal("heads-v1", b"/golden2", &bytes), None);
        for bit in 0..bytes.len() * 8 {
            let mut bytes = bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(
                row::unseal("heads-v1", b"/golden", &bytes),
                None,
                "bit {bit}"
            );
        }
    }
}
