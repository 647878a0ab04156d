use bytes::Bytes;
use ed25519_dalek::SigningKey;

use super::{
    Block, BlockHead, Checked, Contents, Manifest, SnapshotChecker, SnapshotError, SnapshotStore,
    SnapshotWriter,
    block::{BLOCK_HEAD_BYTES, HEAD_BYTES, Kind, TRAILER_BYTES, check_head, last_block},
    check::{BranchBegin, base_body, branch_body, entries_body, piece_body},
};
use crate::{
    id::{Author, EntryId},
    protocol::{
        anchor::Anchor,
        entry::{
            Header, Op, VerifiedEntry, sign,
            tests::{AUTHOR_A, AUTHOR_B},
        },
        hlc::Hlc,
        membership::genesis::Genesis,
    },
};

fn key(secret: [u8; 32]) -> SigningKey {
    SigningKey::from_bytes(&secret)
}

fn author(secret: [u8; 32]) -> Author {
    Author(key(secret).verifying_key().to_bytes())
}

fn genesis(nonce: u8) -> Genesis {
    Genesis {
        creator: author(AUTHOR_A),
        nonce: [nonce; 32],
    }
}

fn entry(of: &Genesis, secret: [u8; 32], seq: u64, prev: Option<EntryId>) -> VerifiedEntry {
    let header = Header {
        seq,
        prev,
        hlc: Hlc::new(seq * 10, 0).unwrap(),
        store: of.store(),
        ..crate::protocol::entry::tests::entry(secret, 1, None, 10, "/k")
            .header
            .clone()
    };
    let op = Op::Delete { key: "/k".into() };
    sign(&key(secret), header, vec![op]).unwrap()
}

fn chain(of: &Genesis, secret: [u8; 32], length: u64) -> Vec<VerifiedEntry> {
    let mut chain: Vec<VerifiedEntry> = Vec::new();
    for seq in 1..=length {
        let prev = chain.last().map(|entry| entry.id);
        chain.push(entry(of, secret, seq, prev));
    }
    chain
}

/// The parts of a file, to be changed before it is made.
#[derive(Clone)]
struct Parts {
    blocks: Vec<(Kind, Bytes)>,
    manifest: Manifest,
}

impl Parts {
    fn new() -> Self {
        let root = genesis(9);
        let contents = |genesis: &Genesis, entries| Contents {
            id: genesis.store(),
            name: "name".to_owned(),
            root: *genesis == root,
            private: false,
            entries,
            keys: 1,
            state_root: Some([4; 32]),
            removed_entries: 0,
        };
        let mut authors = [AUTHOR_A, AUTHOR_B];
        authors.sort_by_key(|secret| author(*secret));
        let (mut blocks, mut stores) = (Vec::new(), Vec::new());
        for (of, length) in [(root, 40), (genesis(8), 3)] {
            blocks.push((Kind::Store, store(&of, of == root)));
            for secret in authors {
                blocks.push((Kind::Branch, branch_body(&author(secret), None)));
                for part in chain(&of, secret, length).chunks(7) {
                    blocks.push((Kind::Entries, body(part)));
                }
            }
            stores.push(contents(&of, 2 * length));
        }
        let manifest = Manifest {
            created_ms: 77,
            node: author(AUTHOR_A),
            name: "oak".to_owned(),
            has_key: false,
            stores,
            hash: [0; 32],
            peers: vec![(author(AUTHOR_B), Bytes::from_static(b"at home"))],
        };
        Self { blocks, manifest }
    }

    fn file(mut self) -> Vec<u8> {
        let (mut writer, head) = SnapshotWriter::begin();
        let mut file = head.to_vec();
        for (kind, body) in &self.blocks {
            file.extend(writer.block(*kind, body));
        }
        self.manifest.hash = writer.hash();
        file.extend(writer.finish(&self.manifest.sign(&key(AUTHOR_A))));
        file
    }
}

fn store(of: &Genesis, root: bool) -> Bytes {
    let store = SnapshotStore {
        genesis: *of,
        name: "name".to_owned(),
        root,
        private_under: None,
    };
    store.encode()
}

fn body(entries: &[VerifiedEntry]) -> Bytes {
    let entries = entries.iter().map(|it| (it.signed.encode().into(), 5));
    entries_body(entries.collect())
}

/// Reads a file as the shell does. Returns the number of entries and the manifest.
fn read(file: &[u8]) -> Result<(usize, Manifest), SnapshotError> {
    let cut = SnapshotError::Cut {
        bytes: file.len() as u64,
    };
    let (head, mut rest) = file.split_first_chunk::<HEAD_BYTES>().ok_or(cut.clone())?;
    check_head(*head)?;
    let (mut checker, mut entries) = (SnapshotChecker::default(), 0);
    loop {
        let offset = file.len() - rest.len();
        let (head, after) = rest
            .split_first_chunk::<BLOCK_HEAD_BYTES>()
            .ok_or(cut.clone())?;
        let head = BlockHead::decode(offset as u64, *head)?;
        let (bytes, after) = after.split_at_checked(head.rest).ok_or(cut.clone())?;
        let block: Block = head.block(offset as u64, Bytes::copy_from_slice(bytes))?;
        rest = after;
        let hash = || *blake3::hash(&file[..offset]).as_bytes();
        for checked in checker.next(&block, &hash)? {
            match checked {
                Checked::Entries(list) => entries += list.len(),
                Checked::Manifest(manifest) => {
                    assert!(checker.is_done());
                    let trailer = rest.first_chunk::<TRAILER_BYTES>().ok_or(cut)?;
                    assert_eq!(last_block(*trailer), Some(offset as u64));
                    return Ok((entries, manifest));
                }
                _begins => {}
            }
        }
    }
}

fn refusal(parts: Parts) -> String {
    match read(&parts.file()) {
        Err(SnapshotError::Damaged { what, .. }) => what,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_file_is_read_as_it_was_written() {
    let parts = Parts::new();
    let (entries, manifest) = read(&parts.clone().file()).unwrap();
    assert_eq!(entries, 86);
    let hash = manifest.hash;
    assert_eq!(
        manifest,
        Manifest {
            hash,
            ..parts.manifest
        }
    );
}

#[test]
fn a_key_is_read_and_must_be_that_of_the_node() {
    let mut parts = Parts::new();
    parts.manifest.has_key = true;
    let with = |secret: [u8; 32]| {
        let mut parts = parts.clone();
        let body = Bytes::copy_from_slice(&secret);
        parts.blocks.insert(0, (Kind::Key, body));
        parts
    };
    assert!(read(&with(AUTHOR_A).file()).unwrap().1.has_key);
    let what = "its key is not the one of its node";
    assert_eq!(refusal(with(AUTHOR_B)), what);
    assert_eq!(refusal(parts.clone()), what);
    let mut late = with(AUTHOR_A);
    late.blocks.swap(0, 1);
    assert_eq!(refusal(late), "a key where none is due");
}

#[test]
fn s22_each_flipped_byte_and_each_cut_is_found() {
    let file = Parts::new().file();
    let end = file.len() - TRAILER_BYTES;
    for at in 0..end {
        let mut bad = file.clone();
        bad[at] ^= 1 << (at % 8);
        assert!(read(&bad).is_err(), "byte {at}");
    }
    for cut in (0..file.len() - 1).step_by(13) {
        assert!(read(&file[..cut]).is_err(), "cut at {cut}");
    }
    assert_eq!(read(b"not one"), Err(SnapshotError::Cut { bytes: 7 }));
    assert_eq!(read(b"not one!"), Err(SnapshotError::NotASnapshot));
    let expected = SnapshotError::Version {
        version: 3,
        expected: 2,
    };
    assert_eq!(read(b"LATSNAP\x03 and so on"), Err(expected));
}

// The manifest is signed anew each time: a node that lies, or one whose disk does.
#[test]
fn s22_entries_that_do_not_belong_there_are_refused() {
    let root = genesis(9);
    let of_a = |length| chain(&root, AUTHOR_A, length);
    // A file with one store and one branch of A.
    let with = |entries: &[VerifiedEntry], count: u64| {
        let mut parts = Parts::new();
        parts.blocks = vec![
            (Kind::Store, store(&root, true)),
            (Kind::Branch, branch_body(&author(AUTHOR_A), None)),
            (Kind::Entries, body(entries)),
        ];
        parts.manifest.stores.truncate(1);
        parts.manifest.stores[0].entries = count;
        parts
    };
    assert_eq!(read(&with(&of_a(40), 40).file()).unwrap().0, 40);
    let others = "the manifest names other stores or entries";
    assert_eq!(refusal(with(&of_a(39), 40)), others);
    let mut gap = of_a(3);
    gap.remove(1);
    assert!(refusal(with(&gap, 2)).contains("entry 3 of"), "a gap");
    let begins_late = &of_a(3)[1..];
    assert!(refusal(with(begins_late, 2)).contains("entry 2 of"));
    let swapped: Vec<_> = of_a(2).into_iter().rev().collect();
    assert!(refusal(with(&swapped, 2)).contains("entry 2 of"));
    let of_b = chain(&root, AUTHOR_B, 1);
    assert_eq!(refusal(with(&of_b, 1)), "an entry of another author");
    let elsewhere = chain(&genesis(8), AUTHOR_A, 1);
    assert_eq!(refusal(with(&elsewhere, 1)), "an entry of another store");
    // A signature that does not verify: also as the last entry of a run, or of the branch.
    for at in [0, 30, 31, 39] {
        let mut entries = of_a(at + 1);
        let last = entries.pop().unwrap();
        let mut signed = last.signed.clone();
        signed.signature[3] ^= 1;
        entries.push(signed.parse().unwrap().vouched());
        let what = refusal(with(&entries, at + 1));
        assert!(what.contains("is not authentic"), "{at}: {what}");
    }
    let mut twice = with(&of_a(1), 1);
    twice.blocks.push((Kind::Store, store(&root, false)));
    assert!(refusal(twice).contains("is there twice"));
    let mut no_root = with(&of_a(1), 1);
    no_root.blocks[0].1 = store(&root, false);
    assert_eq!(refusal(no_root), "it has no root store, or several");
    let mut empty = with(&of_a(1), 1);
    empty.blocks.pop();
    assert_eq!(refusal(empty), "a branch without entries");
    let mut bare = with(&of_a(1), 1);
    bare.blocks.remove(1);
    assert_eq!(refusal(bare), "entries without a branch");
    let mut first = with(&of_a(1), 1);
    first.blocks.remove(0);
    assert_eq!(refusal(first), "a branch before the first store");
    for (kind, body) in [
        (Kind::Store, &b"\x0a\x01x"[..]),
        (Kind::Branch, b"\xff"),
        (Kind::Branch, b"\x12\x00"),
        (Kind::Base, b"\xff"),
        (Kind::Piece, b"\xff"),
        (Kind::Entries, b"\x0a\x00"),
        (Kind::Key, b"short"),
    ] {
        let mut parts = with(&of_a(1), 1);
        let at = if kind == Kind::Key {
            0
        } else {
            parts.blocks.len()
        };
        parts.blocks.insert(at, (kind, Bytes::from_static(body)));
        assert_eq!(refusal(parts), "the block is malformed", "{kind:?}");
    }
}

// A second branch of an author begins anywhere; one of an earlier author does not come any more.
#[test]
fn branches_of_an_author_come_together() {
    let root = genesis(9);
    let first = chain(&root, AUTHOR_A, 3);
    let mut header = first[2].header.clone();
    header.hlc = Hlc::new(999, 0).unwrap();
    let fork = sign(&key(AUTHOR_A), header, first[2].ops.to_vec()).unwrap();
    let branch = |entries: &[VerifiedEntry]| {
        let of = entries[0].author();
        [
            (Kind::Branch, branch_body(&of, None)),
            (Kind::Entries, body(entries)),
        ]
    };
    let of_b = chain(&root, AUTHOR_B, 1);
    let mut parts = Parts::new();
    parts.manifest.stores.truncate(1);
    parts.manifest.stores[0].entries = 5;
    let file = |order: &[&[VerifiedEntry]]| {
        let mut parts = parts.clone();
        parts.blocks = vec![(Kind::Store, store(&root, true))];
        parts.blocks.extend(order.iter().flat_map(|it| branch(it)));
        parts
    };
    let fork = std::slice::from_ref(&fork);
    let (mut low, mut high) = (vec![&first[..], fork], vec![&of_b[..]]);
    if author(AUTHOR_B) < author(AUTHOR_A) {
        (low, high) = (high, low);
    }
    let in_order: Vec<_> = low.iter().chain(&high).copied().collect();
    assert_eq!(read(&file(&in_order).file()).unwrap().0, 5);
    let other: Vec<_> = high.iter().chain(&low).copied().collect();
    assert_eq!(refusal(file(&other)), "the branches are not in order");
}

// Below its beginning a branch has no entries, and the state of these is there, once, before all branches.
#[test]
fn a_branch_begins_late_only_after_a_state() {
    let (root, of) = (genesis(9), genesis(8));
    let entries = chain(&of, AUTHOR_A, 40);
    let anchor = &entries[24];
    let begin = BranchBegin {
        anchor: Anchor {
            seq: 25,
            id: anchor.id,
            hlc: anchor.header.hlc,
        },
        arrived_ms: 5,
        first: 1,
        forked_from: None,
    };
    let late = |begin: &BranchBegin| (Kind::Branch, branch_body(&author(AUTHOR_A), Some(begin)));
    let base = (Kind::Base, base_body(Bytes::from_static(b"manifest")));
    let piece = (Kind::Piece, piece_body(Bytes::from_static(b"piece"), true));
    let whole = vec![
        (Kind::Store, store(&of, false)),
        base.clone(),
        piece.clone(),
        piece.clone(),
        late(&begin),
        (Kind::Entries, body(&entries[25..])),
    ];
    let with = |blocks: &[(Kind, Bytes)], count| {
        let mut parts = Parts::new();
        let root = (Kind::Store, store(&root, true));
        parts.blocks = blocks.iter().cloned().chain([root]).collect();
        parts.manifest.stores.swap(0, 1);
        parts.manifest.stores[0].entries = count;
        parts.manifest.stores[1].entries = 0;
        parts
    };
    assert_eq!(read(&with(&whole, 15).file()).unwrap().0, 15);
    // Also when there is nothing after it.
    assert_eq!(read(&with(&whole[..5], 0).file()).unwrap().0, 0);

    let changed = |at: usize, block: Option<(Kind, Bytes)>| {
        let mut blocks = whole.clone();
        match block {
            Some(block) => blocks[at] = block,
            None => drop(blocks.remove(at)),
        }
        refusal(with(&blocks, 15))
    };
    let inserted = |at: usize, block: &(Kind, Bytes)| {
        let mut blocks = whole.clone();
        blocks.insert(at, block.clone());
        refusal(with(&blocks, 15))
    };
    let wrong = |seq, id| {
        let anchor = Anchor {
            seq,
            id,
            hlc: anchor.header.hlc,
        };
        Some(late(&BranchBegin { anchor, ..begin }))
    };
    assert!(changed(4, wrong(24, anchor.id)).contains("entry 26 of"));
    assert!(changed(4, wrong(25, entries[3].id)).contains("entry 26 of"));
    assert_eq!(changed(4, wrong(0, anchor.id)), "the block is malformed");
    let no_state = "a branch begins late where none can";
    let mut bare = whole.clone();
    bare.drain(1..4);
    assert_eq!(refusal(with(&bare, 15)), no_state);
    assert_eq!(inserted(5, &late(&begin)), no_state, "twice of one author");
    let whole_branch = [
        (Kind::Branch, branch_body(&author(AUTHOR_A), None)),
        (Kind::Entries, body(&entries[..2])),
    ];
    let mut after_another = whole.clone();
    after_another.splice(4..4, whole_branch);
    assert_eq!(refusal(with(&after_another, 17)), no_state, "after another");
    let not_due = "a state of removed entries where none is due";
    assert_eq!(inserted(2, &base), not_due, "twice");
    assert_eq!(inserted(5, &base), not_due, "after a branch");
    assert_eq!(inserted(0, &base), not_due, "before a store");
    assert_eq!(changed(0, Some((Kind::Store, store(&root, true)))), not_due);
    let no_piece = "a piece of a state where none is due";
    assert_eq!(changed(1, None), no_piece);
    assert_eq!(inserted(5, &piece), no_piece);
}
