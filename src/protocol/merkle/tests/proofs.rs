//! Proofs of rows, and attempts to forge them.

use bytes::Bytes;

use crate::{
    id::StoreId,
    limits::KEY_BYTES_MAX,
    protocol::merkle::{Levels, RowProof, RowProofError, Tree, verify, verify_range},
    support::{
        mutator::{Corpus, soaked},
        random::for_each_seed,
    },
};

use super::map::{Key, Map, levels, pool, some_of};

fn prove(map: &Map, key: &[u8]) -> RowProof {
    let mut tree = Tree::new(levels());
    let Ok(fresh) = tree.refresh(map);
    let Ok(proof) = fresh.prove(key);
    proof
}

fn check(map: &Map, key: &[u8], row: Option<&[u8]>, proof: &RowProof) -> Result<(), RowProofError> {
    verify(&levels(), &map.stream_root(), key, row, proof)
}

// Claims about `key` that are not true.
fn lies<'a>(map: &'a Map, key: &[u8]) -> Vec<Option<&'a [u8]>> {
    let own = map.rows.get(key).map(Vec::as_slice);
    let other = map.rows.values().next().map_or(&b"row"[..], Vec::as_slice);
    let claims = [None, Some(&b""[..]), Some(&b"another row"[..]), Some(other)];
    claims.into_iter().filter(|claim| *claim != own).collect()
}

#[test]
fn every_key_is_proven_there_or_absent() {
    let pool = pool();
    let half = Map::of(pool.iter().step_by(2).cloned());
    let one = Map::of(["/one"]);
    for map in [half, one, Map::default(), Map::of(pool.iter().cloned())] {
        let mut tree = Tree::new(levels());
        let Ok(fresh) = tree.refresh(&map);
        let others = [b"/".to_vec(), b"~".to_vec(), vec![255; KEY_BYTES_MAX]];
        for key in pool.iter().chain(&others) {
            let Ok(proof) = fresh.prove(key);
            let row = map.rows.get(key).map(Vec::as_slice);
            let bytes = proof.encode();
            assert_eq!(RowProof::decode(&bytes).as_ref(), Ok(&proof));
            let verified = verify(&levels(), &fresh.root(), key, row, &proof);
            assert_eq!(verified, Ok(()), "{}", key.escape_ascii());
            for lie in lies(&map, key) {
                let verified = verify(&levels(), &fresh.root(), key, lie, &proof);
                assert_eq!(verified, Err(RowProofError::OtherRow));
            }
        }
    }
}

#[test]
fn r1_proof_of_another_key_root_or_store_is_refused() {
    let pool = pool();
    let map = Map::of(pool.iter().step_by(2).cloned());
    let proof = prove(&map, &pool[0]);
    let mut other = map.clone();
    other.rows.remove(&pool[100]);
    let row = map.rows[&pool[0]].as_slice();
    assert_eq!(check(&map, &pool[0], Some(row), &proof), Ok(()));
    let refused = |map: &Map, key: &[u8], row| check(map, key, row, &proof).unwrap_err();
    assert_eq!(
        refused(&other, &pool[0], Some(row)),
        RowProofError::OtherRoot
    );
    let row = map.rows[&pool[2]].as_slice();
    assert_eq!(refused(&map, &pool[2], Some(row)), RowProofError::OtherKey);
    assert_eq!(refused(&map, &pool[2], None), RowProofError::OtherKey);
    assert_eq!(refused(&map, &pool[1], None), RowProofError::OtherKey);
    let levels = Levels::new(StoreId([8; 16]));
    let verified = verify(&levels, &map.stream_root(), &pool[0], Some(row), &proof);
    assert_eq!(verified, Err(RowProofError::OtherRoot));
}

/// Two leaves with something between them do not show that a key is absent.
#[test]
fn r1_leaves_that_are_no_neighbours_show_no_gap() {
    let map = Map::of((0..200).map(|number| format!("/{number:03}")));
    let mut tree = Tree::new(levels());
    let Ok(fresh) = tree.refresh(&map);
    for number in 1..199 {
        let key = |number: usize| format!("/{number:03}").into_bytes();
        let shown = [key(number - 1), key(number + 1)];
        let Ok(proof) = fresh.prove_with(&shown.map(Into::into));
        let verified = check(&map, &key(number), None, &proof);
        assert_eq!(verified, Err(RowProofError::OtherKey), "{number}");
        let row = map.rows[&key(number - 1)].as_slice();
        assert_eq!(check(&map, &key(number - 1), Some(row), &proof), Ok(()));
    }
    // The last leaf but one is not the last one.
    let Ok(proof) = fresh.prove_with(&[b"/198".to_vec().into()]);
    assert_eq!(
        check(&map, b"/zzz", None, &proof),
        Err(RowProofError::OtherKey)
    );
}

// The rows of a range.
fn rows_of<'a>(map: &'a Map, (from, to): (&[u8], Option<&[u8]>)) -> Vec<(&'a [u8], &'a [u8])> {
    let rows = map.rows.iter();
    let rows = rows.filter(|(key, _)| from <= key.as_slice());
    let rows = rows.filter(|(key, _)| to.is_none_or(|to| key.as_slice() < to));
    rows.map(|(key, row)| (key.as_slice(), row.as_slice()))
        .collect()
}

#[test]
fn r1_range_is_proven_whole_or_not_at_all() {
    let pool = pool();
    let short: Vec<Key> = pool.into_iter().filter(|key| key.len() < 50).collect();
    for_each_seed(1..=soaked(10), |random| {
        for map in [some_of(&short, random), Map::default()] {
            let mut tree = Tree::new(levels());
            let Ok(fresh) = tree.refresh(&map);
            for _ in 0..20 {
                let mut key = || match random.below(5) {
                    0 => Vec::new(),
                    1 => random.bytes(3),
                    _of_pool => short[random.below(short.len())].clone(),
                };
                let (mut from, to) = (key(), Some(key()).filter(|to| !to.is_empty()));
                if let Some(to) = &to {
                    from = from.min(to.clone());
                }
                let range = (from.as_slice(), to.as_deref());
                let Ok(proof) = fresh.prove_range(range.0, range.1);
                let bytes = proof.encode();
                assert_eq!(RowProof::decode(&bytes).as_ref(), Ok(&proof));
                let shows = |rows: &[(&[u8], &[u8])], (from, to)| {
                    let rows = rows.iter().copied();
                    verify_range(&levels(), &fresh.root(), (from, to), rows, &proof)
                };
                let rows = rows_of(&map, range);
                assert_eq!(shows(&rows, range), Ok(()), "{range:?}");
                // A row that is left out, changed, or made up.
                for at in 0..rows.len() {
                    let mut without = rows.clone();
                    without.remove(at);
                    assert_eq!(shows(&without, range), Err(RowProofError::OtherRow));
                    let mut changed = rows.clone();
                    changed[at].1 = b"changed";
                    assert_eq!(shows(&changed, range), Err(RowProofError::OtherRow));
                }
                let more = [rows.as_slice(), &[(&b"~~~"[..], &b"made up"[..])]].concat();
                assert_eq!(shows(&more, range), Err(RowProofError::OtherRow));
                // A longer range with the same rows: it is shown only if there are no others.
                for wider in [(&b""[..], range.1), (range.0, None), (&b""[..], None)] {
                    let is_true = rows_of(&map, wider) == rows;
                    assert!(is_true || shows(&rows, wider).is_err());
                }
            }
        }
    });
}

/// Each part of a range, cut down to its hash, would hide the rows in it.
#[test]
fn r1_range_with_a_part_cut_out_is_refused() {
    let map = Map::of((0..60).map(|number| format!("/{number:02}")));
    let mut tree = Tree::new(levels());
    let Ok(fresh) = tree.refresh(&map);
    let range = (&b"/10"[..], Some(&b"/50"[..]));
    let all: Vec<Key> = map.rows.keys().cloned().collect();
    for hidden in 9..=50 {
        let shown = (9..=50).filter(|number| *number != hidden);
        let shown: Vec<Bytes> = shown.map(|number| all[number].clone().into()).collect();
        let Ok(proof) = fresh.prove_with(&shown);
        let mut rows = rows_of(&map, range);
        let verify = |rows: &[_]| {
            let rows = rows.iter().copied();
            verify_range(&levels(), &fresh.root(), range, rows, &proof)
        };
        assert!(verify(&rows).is_err(), "{hidden} is hidden");
        rows.retain(|(key, _)| *key != all[hidden].as_slice());
        assert!(verify(&rows).is_err(), "{hidden} is hidden and left out");
    }
}

#[test]
fn r1_every_flipped_bit_of_a_proof_is_refused() {
    let map = Map::of((0..300).map(|number| format!("/{number:03}")));
    for (key, row) in [
        ("/007", Some(b"row of /007".as_slice())),
        ("/0071", None),
        ("/~", None),
    ] {
        let bytes = prove(&map, key.as_bytes()).encode();
        for bit in 0..bytes.len() * 8 {
            let mut bytes = bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let accepted = RowProof::decode(&bytes)
                .is_ok_and(|proof| check(&map, key.as_bytes(), row, &proof).is_ok());
            assert!(!accepted, "bit {bit} of the proof of {key}");
        }
        for cut in 0..bytes.len() {
            assert!(RowProof::decode(&bytes[..cut]).is_err(), "cut at {cut}");
        }
        let longer = [bytes.as_slice(), &[0]].concat();
        assert!(RowProof::decode(&longer).is_err());
    }
}

#[test]
fn r1_mutated_proofs_forge_nothing() {
    let pool = pool();
    let map = Map::of(
        pool.iter()
            .step_by(2)
            .filter(|key| key.len() < 200)
            .cloned(),
    );
    let keys: Vec<&Key> = pool
        .iter()
        .filter(|key| key.len() < 200)
        .step_by(5)
        .collect();
    let mut tree = Tree::new(levels());
    let Ok(fresh) = tree.refresh(&map);
    let proofs = keys.iter().map(|key| {
        let Ok(proof) = fresh.prove(key);
        proof.encode()
    });
    let corpus = Corpus::new(proofs);
    let (root, levels) = (fresh.root(), levels());
    let (mut decoded, mut true_ones) = (0_u32, 0_u32);
    for_each_seed(1..=soaked(20), |random| {
        for _ in 0..100 {
            let Ok(proof) = RowProof::decode(&corpus.mutant(random)) else {
                continue;
            };
            decoded += 1;
            for key in &keys {
                let row = map.rows.get(*key).map(Vec::as_slice);
                true_ones += u32::from(verify(&levels, &root, key, row, &proof).is_ok());
                for lie in lies(&map, key) {
                    assert!(verify(&levels, &root, key, lie, &proof).is_err());
                }
            }
        }
    });
    assert!(decoded > 100, "{decoded} mutants have the form of a proof");
    assert!(true_ones < decoded, "most of them are refused");
}

/// A node of another level, a pair of nodes of two levels, or a leaf in the place of a node would
/// let a forger show a part of the tree as the whole.
#[test]
fn r1_part_of_a_tree_is_not_a_tree() {
    let map = Map::of((0..300).map(|number| format!("/{number:03}")));
    let whole = prove(&map, b"/007").encode();
    let row = Some(b"row of /007".as_slice());
    let refused = |part: &[u8]| {
        let part = RowProof::decode(part).ok()?;
        let verified = check(&map, b"/007", row, &part);
        assert!(
            matches!(verified, Err(RowProofError::Malformed { .. })),
            "{verified:?}"
        );
        Some(())
    };
    let parts = (2..whole.len()).filter_map(|begin| refused(&[&[1], &whole[begin..]].concat()));
    assert!(parts.count() > 10, "many parts have the form of a proof");
    // A node more, and a leaf beside a node.
    let deeper = [&[1, 2], &whole[1..]].concat();
    assert_eq!(refused(&deeper), Some(()));
    let leaf = [&[3, 1, 0, b'a'][..], &[7; 32]].concat();
    let two_levels = [&[1, 1], leaf.as_slice(), &[2], &leaf].concat();
    assert_eq!(refused(&two_levels), Some(()));
    let top_and_leaf = [&[1, 1][..], &[2; 13], &leaf, &leaf].concat();
    assert_eq!(refused(&top_and_leaf), Some(()));
}
