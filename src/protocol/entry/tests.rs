use bytes::Bytes;
use ed25519_dalek::SigningKey;

use super::*;
use crate::{
    id::{EntryId, Seq, StoreId},
    protocol::hlc::Hlc,
};

pub(crate) const AUTHOR_A: [u8; 32] = [0xa; 32];
pub(crate) const AUTHOR_B: [u8; 32] = [0xb; 32];

/// Signs an entry at `seq`, after `prev`, that puts `key`.
pub(crate) fn entry(
    secret: [u8; 32],
    seq: Seq,
    prev: Option<EntryId>,
    wall_ms: u64,
    key: &'static str,
) -> VerifiedEntry {
    let header = Header {
        store: StoreId([5; 16]),
        seq,
        prev,
        hlc: Hlc {
            wall_ms,
            counter: 0,
        },
        atomic: false,
        cause: None,
        parents: Vec::new(),
    };
    let op = Op::Put {
        key: key.into(),
        value: Bytes::new(),
        expires_ms: None,
    };
    sign(&SigningKey::from_bytes(&secret), header, vec![op]).unwrap()
}

#[test]
fn id_commits_to_every_part() {
    let signed = entry(AUTHOR_A, 1, None, 5, "/k").signed.clone();
    let mut others = [signed.clone(), signed.clone(), signed.clone()];
    others[0].author.0[0] ^= 1;
    others[1].signature[0] ^= 1;
    others[2].header = Bytes::from_static(b"other");
    assert!(others.iter().all(|other| other.id() != signed.id()));
    assert_ne!(entry(AUTHOR_A, 1, None, 5, "/l").id, signed.id());
}

#[test]
fn n3_memory_of_small_ops_is_counted() {
    let mut header = entry(AUTHOR_A, 1, None, 5, "/k").header.clone();
    header.atomic = true;
    let delete = |n: usize| Op::Delete {
        key: Bytes::from(n.to_string()),
    };
    let ops = (0..1000).map(delete).collect();
    let entry = sign(&SigningKey::from_bytes(&AUTHOR_A), header, ops).unwrap();
    assert!(entry.bytes() > entry.ops.len() * size_of::<Op>() + entry.signed.ops.len());
}
