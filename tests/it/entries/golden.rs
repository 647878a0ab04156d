//! Golden bytes that every later version must read: one file for each format and version.

use std::{env, fs, path::Path};

use bytes::Bytes;
use lattice::{
    id::{EntryId, StoreId},
    protocol::{
        cursor::{Cursor, Partial},
        entry::{Header, Op, Parent, SignedEntry, VerifiedEntry, cause::Cause, sign},
        frontier::FrontierTip,
        hlc::Hlc,
    },
};

use crate::support::model::{AUTHOR_A, AUTHOR_B, AUTHOR_C, author_of, key_of};

/// Returns the bytes of a file in tests/data; writes a new one where `GOLDEN=new` asks for it.
fn golden(name: &str, written_now: &[u8]) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data")
        .join(name);
    if !path.exists() && env::var("GOLDEN").is_ok_and(|asked| asked == "new") {
        fs::write(&path, written_now).unwrap();
    }
    fs::read(&path).unwrap_or_else(|error| {
        panic!("tests/data/{name}: {error}; `GOLDEN=new cargo test golden` writes files that are not there")
    })
}

fn assert_written_as_before(name: &str, written_now: &[u8], written_then: &[u8]) {
    assert!(
        written_now == written_then,
        "this version writes other bytes than tests/data/{name} has. If that is not what you \
         wanted, a format was broken. If it is: give the format a new version, keep this file \
         and the code that reads it, make the test write to a file of the new version, and run \
         `GOLDEN=new cargo test golden` once"
    );
}

fn entry_v1() -> VerifiedEntry {
    let parent = |wall_ms, secret, seq, id| Parent {
        hlc: Hlc {
            wall_ms,
            counter: 1,
        },
        author: author_of(secret),
        id: EntryId([id; 32]),
        seq,
    };
    let header = Header {
        store: StoreId([0x5; 16]),
        seq: 300,
        prev: Some(EntryId([0x1; 32])),
        hlc: Hlc {
            wall_ms: 1_767_225_600_000,
            counter: 7,
        },
        atomic: true,
        cause: Some(Cause {
            consumer: "deploy".to_owned(),
            trigger: EntryId([0x2; 32]),
            position: 4,
            depth: 1,
        }),
        parents: vec![
            parent(1_767_225_500_000, AUTHOR_A, 299, 0x3),
            parent(1_767_225_599_999, AUTHOR_B, 12, 0x4),
        ],
    };
    let ops = vec![
        Op::Put {
            key: "/nodes/a/status".into(),
            value: "active".into(),
            expires_ms: Some(1_767_225_630_000),
        },
        Op::Put {
            key: Bytes::from_static(&[0, 0xff, 0x80]),
            value: Bytes::new(),
            expires_ms: None,
        },
        Op::Delete {
            key: "/jobs/1".into(),
        },
    ];
    sign(&key_of(AUTHOR_A), header, ops).unwrap()
}

#[test]
fn s19_entry_v1_is_still_read() {
    let expected = entry_v1();
    let bytes = golden("entry-v1.bin", &expected.signed.encode());
    let entry = SignedEntry::decode(bytes.clone().into())
        .unwrap()
        .parse()
        .unwrap();
    let entry = entry.verify().unwrap();
    assert_eq!(
        entry.id.to_string(),
        "373a91f62c80dff557717eec6b788b337295fa836b38f892a1842e6cbb218fd2"
    );
    assert_eq!(entry.author(), author_of(AUTHOR_A));
    assert_eq!(entry.header, expected.header);
    assert_eq!(entry.ops, expected.ops);
    assert_eq!(
        entry.signed.encode(),
        bytes,
        "stored and forwarded as it came"
    );
    // Ed25519 is deterministic, so the same content is the same entry.
    assert_written_as_before("entry-v1.bin", &expected.signed.encode(), &bytes);
}

fn cursor_v1() -> Cursor {
    let tip = |seq, id| FrontierTip {
        seq,
        id: EntryId([id; 32]),
    };
    Cursor {
        store: StoreId([0x5; 16]),
        frontier: [
            (author_of(AUTHOR_A), tip(300, 0x1)),
            (author_of(AUTHOR_B), tip(12, 0x2)),
            (author_of(AUTHOR_B), tip(12, 0x3)),
        ]
        .into_iter()
        .collect(),
        partial: Some(Partial {
            author: author_of(AUTHOR_C),
            tip: tip(1, 0x4),
            ops: 2,
        }),
        expired_through_ms: 1_767_225_600_000,
    }
}

#[test]
fn s19_cursor_v1_is_still_read() {
    let expected = cursor_v1();
    let bytes = golden("cursor-v1.txt", format!("{expected}\n").as_bytes());
    let text = String::from_utf8(bytes).unwrap();
    assert_eq!(text.parse::<Cursor>().unwrap(), expected);
    assert_written_as_before(
        "cursor-v1.txt",
        format!("{expected}\n").as_bytes(),
        text.as_bytes(),
    );
}
