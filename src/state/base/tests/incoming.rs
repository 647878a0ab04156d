use std::collections::BTreeSet;

use bytes::BufMut as _;

use super::*;
use crate::{
    disk::Disk,
    limits::{BASE_ANCHORS_MAX, BASE_KEY_BYTES_MAX, BASE_PART_BYTES_MAX, BASE_PARTS_MAX},
    state::base::{
        Incoming, IncomingError, ManifestError, OutgoingPart,
        chunk::CHUNK_BYTES,
        part::{HEAD, PartId, PartInfo, TRAILER_BYTES},
    },
};

// Records that have no heads, so that the base is whole by itself.
fn without_heads(causes: u8, value_bytes: usize) -> Model {
    let mut model = Model::new();
    for n in 0..causes {
        let body = encode_cause(&EntryId([n; 32]), 7);
        model.insert(key(RecordKind::Cause, [n; 16]), body.into());
    }
    model.insert(key(RecordKind::Fact, "tfact"), Bytes::new());
    for n in 0..8 {
        let value = RecordKey::value(format!("/key/{n}").as_bytes(), &EntryId([9; 32]));
        model.insert(value, vec![n; value_bytes].into());
    }
    model
}

fn build_for_peers(dir: &Path, model: &Model) -> Arc<Base> {
    let mut builder = BaseBuilder::begin(&RealDisk, dir, Levels::new(STORE)).unwrap();
    builder.merge(None, puts(model)).unwrap();
    let manifest = BaseManifest {
        keys: 0,
        ..manifest(5)
    };
    let base = builder.finish(manifest).unwrap();
    base.commit(&RealDisk, dir, None).unwrap().newest.unwrap()
}

fn incoming(dir: &Path, own: Option<&Base>, base: &Base) -> Incoming {
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let manifest = base.manifest().encode_for_peers();
    let manifest = BaseManifest::of_peer(&manifest).unwrap();
    Incoming::begin(&disk, dir.to_owned(), own, manifest, &BTreeSet::new()).unwrap()
}

// Takes the base in pieces of `piece_bytes` until `bytes_max` have come. `change` is called with each
// piece and the bytes that came before it. Returns the bytes that came; `None` when all is here.
fn take(
    incoming: &mut Incoming,
    base: &Arc<Base>,
    (piece_bytes, bytes_max): (usize, usize),
    mut change: impl FnMut(&mut Vec<u8>, usize),
) -> Result<Option<usize>, IncomingError> {
    let mut come = 0;
    while let Some(want) = incoming.next_part()? {
        let part = OutgoingPart::begin(base, &want.part, want.from_chunk).unwrap();
        let mut part = part.unwrap();
        let mut of_part = 0;
        while let Some(piece) = part.next_piece(piece_bytes).unwrap() {
            assert!(piece.len() <= piece_bytes);
            of_part += piece.len() as u64;
            assert!(of_part <= want.bytes_max);
            let mut piece = piece.to_vec();
            change(&mut piece, come);
            come += piece.len();
            incoming.keep(&piece, false)?;
            let progress = incoming.progress();
            assert!(progress.bytes <= progress.bytes_max, "{progress:?}");
            if come >= bytes_max {
                return Ok(Some(come));
            }
        }
        incoming.keep(&[], true)?;
    }
    Ok(None)
}

#[test]
fn base_comes_in_pieces_of_any_length_and_is_the_same_files() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let model = without_heads(90, 50_000);
    let base = build_for_peers(one.path(), &model);
    for piece_bytes in [1, 43, 1000, 1 << 20] {
        let dir = other.path().join(piece_bytes.to_string());
        let mut incoming = incoming(&dir, None, &base);
        let all = take(&mut incoming, &base, (piece_bytes, usize::MAX), |_, _| {});
        assert!(all.unwrap().is_none());
        let progress = incoming.progress();
        assert_eq!(progress.bytes, progress.bytes_max);
        assert_eq!((progress.parts, progress.parts_max), (3, 3));
        let taken = incoming.finish(1, None, crate::state::check_rows).unwrap();
        assert_eq!(taken.manifest().hash(), base.manifest().hash());
        drop(taken.commit(&RealDisk, &dir, None).unwrap().newest.unwrap());
        incoming.end().unwrap();
        check(&open(&dir).unwrap().unwrap(), &model);
        let (of_one, of_dir) = (files(one.path()), files(&dir));
        assert_eq!(of_one.len(), of_dir.len());
        let parts = of_one.iter().filter(|(name, _)| name.ends_with("part"));
        assert!(
            parts
                .clone()
                .all(|(name, bytes)| of_dir.get(name) == Some(bytes))
        );
        assert_eq!(parts.count(), 3);
    }
}

#[test]
fn interrupted_base_goes_on_at_the_chunk_that_is_missing() {
    let one = tempfile::tempdir().unwrap();
    let model = without_heads(90, 50_000);
    let base = build_for_peers(one.path(), &model);
    let all = usize::try_from(base.manifest().bytes()).unwrap();
    for bytes_max in [1, 40, 200, 6000, 70_000, 200_000, 300_000, all - 100] {
        let dir = tempfile::tempdir().unwrap();
        let mut first = incoming(dir.path(), None, &base);
        let come = take(&mut first, &base, (777, bytes_max), |_, _| {});
        let come = come.unwrap().unwrap();
        drop(first);
        let mut again = incoming(dir.path(), None, &base);
        let kept = again.progress().bytes;
        let mut rest = 0;
        take(&mut again, &base, (5000, usize::MAX), |piece, _| {
            rest += piece.len()
        })
        .unwrap();
        // A chunk and an index at most come twice.
        assert!(come + rest <= all + 120_000, "{come} and {rest} of {all}");
        assert!(
            come < 100_000 || rest + 60_000 < all,
            "{come} and {rest}, {kept} kept"
        );
        again
            .finish(1, None, crate::state::check_rows)
            .unwrap()
            .commit(&RealDisk, dir.path(), None)
            .unwrap();
        check(&open(dir.path()).unwrap().unwrap(), &model);
    }
}

/// One damaged part made a node ask for all of them again, and reading all that was here made the peer wait.
#[test]
fn part_that_the_disk_has_damaged_is_asked_for_again_and_no_other_one() {
    let one = tempfile::tempdir().unwrap();
    let model = without_heads(90, 50_000);
    let base = build_for_peers(one.path(), &model);
    let dir = tempfile::tempdir().unwrap();
    let mut first = incoming(dir.path(), None, &base);
    take(&mut first, &base, (777, usize::MAX), |_, _| {}).unwrap();
    drop(first);
    for (name, whole) in files(dir.path()) {
        // Nothing reads the first bytes.
        for at in (HEAD.len()..whole.len()).step_by(1 + whole.len() / 20) {
            let mut bad = whole.clone();
            bad[at] ^= 4;
            fs::write(dir.path().join(&name), &bad).unwrap();
            let mut again = incoming(dir.path(), None, &base);
            assert_eq!(
                again.progress().parts,
                3,
                "it is not read before a peer is asked"
            );
            assert!(again.next_part().unwrap().is_none());
            let refused = again.finish(1, None, crate::state::check_rows);
            assert!(
                matches!(refused, Err(StateError::Damaged { .. })),
                "byte {at} of {name}"
            );
            assert_eq!(again.damaged_parts().len(), 1, "byte {at} of {name}");
            again.put_back(None).unwrap();
            let mut again = incoming(dir.path(), None, &base);
            assert_eq!(again.progress().parts, 2, "byte {at} of {name}");
            take(&mut again, &base, (5000, usize::MAX), |_, _| {}).unwrap();
            assert!(fs::read(dir.path().join(&name)).unwrap() == whole);
        }
    }
}

/// A base was checked under the last names of its parts. So a crash meanwhile, or an error of the disk, threw
/// away all that had come.
#[test]
fn interrupted_check_of_a_whole_base_keeps_all_its_parts() {
    let (one, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let base = build_for_peers(one.path(), &without_heads(90, 5000));
    let mut first = incoming(dir.path(), None, &base);
    take(&mut first, &base, (777, usize::MAX), |_, _| {}).unwrap();
    let failing = |_base: &Base| Err(std::io::Error::other("the power goes").into());
    assert!(first.finish(1, None, failing).is_err());
    drop(first);
    assert!(open(dir.path()).unwrap().is_none());
    let mut again = incoming(dir.path(), None, &base);
    assert_eq!(again.progress().parts, 3);
    assert!(again.next_part().unwrap().is_none());
    let taken = again.finish(1, None, crate::state::check_rows).unwrap();
    assert_eq!(taken.manifest().hash(), base.manifest().hash());
}

#[test]
fn parts_that_are_here_are_not_asked_for_and_others_are_removed() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let model = without_heads(90, 5000);
    let base = build_for_peers(one.path(), &model);
    let mut next_model = model.clone();
    next_model.insert(key(RecordKind::Fact, "tmore"), Bytes::new());
    let next = build_for_peers(two.path(), &next_model);
    let dir = tempfile::tempdir().unwrap();
    let mut first = incoming(dir.path(), None, &base);
    take(&mut first, &base, (777, usize::MAX), |_, _| {}).unwrap();
    // The peer has moved to the next base meanwhile.
    let mut second = incoming(dir.path(), None, &next);
    assert_eq!(second.progress().parts, 2);
    let names = files(dir.path());
    assert_eq!(names.len(), 2, "the part that it does not have is removed");
    take(&mut second, &next, (777, usize::MAX), |_, _| {}).unwrap();
    let own = second
        .finish(1, None, crate::state::check_rows)
        .unwrap()
        .commit(&RealDisk, dir.path(), None)
        .unwrap();
    let own = own.newest.unwrap();
    second.end().unwrap();
    // It shares parts with the base that is here.
    let mut third = incoming(dir.path(), Some(&own), &base);
    assert_eq!(third.progress().parts, 2);
    take(&mut third, &base, (777, usize::MAX), |_, _| {}).unwrap();
    let taken = third
        .finish(2, Some(&own), crate::state::check_rows)
        .unwrap();
    third.put_back(Some(&own)).unwrap();
    drop(taken);
    check(&open(dir.path()).unwrap().unwrap(), &next_model);
    let mut third = incoming(dir.path(), Some(&own), &base);
    assert_eq!(third.progress().parts, 3, "what was put back is here");
    third
        .finish(2, Some(&own), crate::state::check_rows)
        .unwrap()
        .commit(&RealDisk, dir.path(), None)
        .unwrap();
    check(&open(dir.path()).unwrap().unwrap(), &model);
    // A damaged part of the own base comes again, once it was found.
    let own = open(dir.path()).unwrap().unwrap();
    let (name, whole) = files(dir.path()).pop_first().unwrap();
    assert!(name.ends_with("part") || name.ends_with("manifest"));
    let (name, whole) = if name.ends_with("part") {
        (name, whole)
    } else {
        files(dir.path())
            .into_iter()
            .find(|(name, _)| name.ends_with("part"))
            .unwrap()
    };
    let mut bad = whole.clone();
    bad[12] ^= 1;
    fs::write(dir.path().join(&name), &bad).unwrap();
    let mut again = incoming(dir.path(), Some(&own), &base);
    assert_eq!(again.progress().parts, 3);
    let refused = again.finish(3, Some(&own), crate::state::check_rows);
    assert!(matches!(refused, Err(StateError::Damaged { .. })));
    let damaged = again.damaged_parts().clone();
    again.put_back(Some(&own)).unwrap();
    assert!(
        dir.path().join(&name).exists(),
        "nothing of the own base is removed"
    );
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let manifest = BaseManifest::of_peer(&base.manifest().encode_for_peers()).unwrap();
    let again = Incoming::begin(&disk, dir.path().to_owned(), Some(&own), manifest, &damaged);
    let mut again = again.unwrap();
    assert_eq!(again.progress().parts, 2);
    take(&mut again, &base, (777, usize::MAX), |_, _| {}).unwrap();
    again
        .finish(3, Some(&own), crate::state::check_rows)
        .unwrap()
        .commit(&RealDisk, dir.path(), None)
        .unwrap();
    check(&open(dir.path()).unwrap().unwrap(), &model);
}

/// E9: each byte that a peer can change is found before the part counts as here.
#[test]
fn s9_forged_cut_and_endless_parts_are_refused() {
    let one = tempfile::tempdir().unwrap();
    let base = build_for_peers(one.path(), &without_heads(20, 700));
    let dir = tempfile::tempdir().unwrap();
    let all = usize::try_from(base.manifest().bytes()).unwrap() - 3 * 8;
    for at in (0..all).step_by(3) {
        fs::remove_dir_all(dir.path()).unwrap();
        let mut taken = incoming(dir.path(), None, &base);
        let forged = take(&mut taken, &base, (97, usize::MAX), |piece, before| {
            if let Some(byte) = at.checked_sub(before).and_then(|at| piece.get_mut(at)) {
                *byte ^= 1 << (at % 8);
            }
        });
        assert!(
            matches!(forged, Err(IncomingError::Forged { .. })),
            "byte {at}: {forged:?}"
        );
        let here = taken.progress().parts;
        drop(taken);
        let mut again = incoming(dir.path(), None, &base);
        assert_eq!(again.progress().parts, here, "byte {at}");
        if at % 150 == 0 {
            take(&mut again, &base, (97, usize::MAX), |_, _| {}).unwrap();
            again.finish(1, None, crate::state::check_rows).unwrap();
        }
    }
    for change in [
        (|piece: &mut Vec<u8>| piece.truncate(piece.len() - 1)) as fn(&mut Vec<u8>),
        |piece| piece.push(0),
        |piece| piece.insert(0, 0),
    ] {
        for at in (0..all / 97).step_by(3) {
            fs::remove_dir_all(dir.path()).unwrap();
            let mut taken = incoming(dir.path(), None, &base);
            let (mut number, mut is_done) = (0, false);
            let refused = take(&mut taken, &base, (97, usize::MAX), |piece, _| {
                number += 1;
                if number > at && !is_done {
                    is_done = true;
                    change(piece);
                }
            });
            let fault = matches!(
                refused,
                Err(IncomingError::Forged { .. } | IncomingError::Cut)
            );
            assert!(fault, "piece {at}: {refused:?}");
        }
    }
    // Pieces that nobody asked for.
    let mut taken = incoming(dir.path(), None, &base);
    assert!(taken.keep(b"x", false).is_err());
}

#[test]
fn manifest_of_a_peer_is_exactly_what_a_node_makes() {
    let one = tempfile::tempdir().unwrap();
    let base = build_for_peers(one.path(), &without_heads(2, 700));
    let manifest = base.manifest();
    let bytes = manifest.encode_for_peers();
    let read = BaseManifest::of_peer(&bytes).unwrap();
    assert_eq!((read.number, read.hash()), (0, manifest.hash()));
    assert_eq!(&bytes[bytes.len() - 32..], manifest.hash());
    assert!(
        BaseManifest::of_peer(&manifest.encode()).is_err(),
        "a number of its own"
    );
    for bit in 0..bytes.len() * 8 {
        let mut bad = bytes.to_vec();
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(BaseManifest::of_peer(&bad).is_err(), "bit {bit}");
    }
    for cut in 0..bytes.len() {
        assert!(
            BaseManifest::of_peer(&bytes[..cut]).is_err(),
            "cut to {cut}"
        );
    }
    // Under sound sums.
    let refused = |change: &dyn Fn(&mut BaseManifest)| {
        let mut other = manifest.clone();
        change(&mut other);
        assert!(BaseManifest::of_peer(&other.encode_for_peers()).is_err());
    };
    refused(&|it| it.anchors.push(it.anchors[0]));
    refused(&|it| it.anchors.push((Author([0; 32]), it.anchors[0].1)));
    refused(&|it| it.anchors[0].1.seq = 0);
    refused(&|it| it.parts.swap(0, 1));
    refused(&|it| it.parts[0].bytes = u64::MAX);
    let mut body = bytes[..bytes.len() - 32].to_vec();
    body.push(0);
    let sum = blake3::hash(&body);
    body.extend(sum.as_bytes());
    assert!(
        BaseManifest::of_peer(&body).is_err(),
        "bytes behind its parts"
    );
}

/// A dishonest admin names a base that takes more memory or files than a node has.
#[test]
fn n1_base_that_is_too_large_is_refused_before_there_is_memory_for_it() {
    let one = tempfile::tempdir().unwrap();
    let base = build_for_peers(one.path(), &without_heads(2, 700));
    let refused = |change: &dyn Fn(&mut BaseManifest)| {
        let mut other = base.manifest().clone();
        change(&mut other);
        match BaseManifest::of_peer(&other.encode_for_peers()) {
            Err(ManifestError::TooLarge { what, .. }) => what,
            other => panic!("{other:?}"),
        }
    };
    let anchor = base.manifest().anchors[0].1;
    let what = refused(&|it| {
        let authors = (0..=BASE_ANCHORS_MAX).map(|n| n.to_be_bytes());
        it.anchors = authors
            .map(|n| (Author(*blake3::hash(&n).as_bytes()), anchor))
            .collect();
    });
    assert_eq!(what, "authors");
    let what = refused(&|it| {
        let part = it.parts[0].clone();
        let keys = (0..=BASE_PARTS_MAX).map(|n| key(RecordKind::Fact, n.to_be_bytes()));
        let part = |first| PartInfo {
            first,
            ..part.clone()
        };
        it.parts = keys.map(part).collect();
    });
    assert_eq!(what, "parts");
    let what = refused(&|it| it.parts[0].bytes = BASE_PART_BYTES_MAX + 1);
    assert_eq!(what, "bytes of a part");
    let last = base.manifest().parts.len() - 1;
    let what = refused(&|it| {
        it.parts[last].first = key(RecordKind::Value, [b'x'; BASE_KEY_BYTES_MAX]);
    });
    assert_eq!(what, "bytes of a key");
}

// The trailer and the index of a part with chunks of these lengths, and its line in a manifest.
fn part_of(chunks: &[u32], key_bytes: usize) -> (Vec<u8>, PartInfo) {
    let (mut index, mut offset) = (Vec::new(), HEAD.len() as u64);
    let first = |number: usize| {
        let mut key = number.to_be_bytes().to_vec();
        key.resize(key_bytes, 0);
        key
    };
    for (number, bytes) in chunks.iter().enumerate() {
        index.put_u64_le(offset);
        index.put_u32_le(*bytes);
        index.put_u32_le(1);
        index.put_slice(&[3; 32]);
        index.put_u16_le(u16::try_from(key_bytes).unwrap());
        index.put_slice(&first(number));
        offset += u64::from(*bytes);
    }
    let id = *blake3::hash(&index).as_bytes();
    let mut tail = Vec::new();
    tail.put_u64_le(offset);
    tail.put_u32_le(u32::try_from(index.len()).unwrap());
    tail.put_slice(&id);
    assert_eq!(tail.len(), TRAILER_BYTES);
    let info = PartInfo {
        id: PartId(id),
        bytes: offset + (index.len() + TRAILER_BYTES) as u64,
        records: chunks.len() as u64,
        first: RecordKey(first(0).into()),
    };
    tail.extend(index);
    (tail, info)
}

/// The index of a part is what its name says, and its chunks are such as no node makes: one that takes all
/// memory when it is read, or a million that each take more memory than bytes.
#[test]
fn n1_part_whose_chunks_are_too_long_or_too_short_is_refused_by_its_index() {
    let chunk = u32::try_from(CHUNK_BYTES).unwrap();
    let take = |chunks: &[u32], key_bytes| {
        let (tail, info) = part_of(chunks, key_bytes);
        let dir = tempfile::tempdir().unwrap();
        let disk: Arc<dyn Disk> = Arc::new(RealDisk);
        let manifest = BaseManifest {
            parts: vec![info],
            ..manifest(5)
        };
        let bytes = manifest.encode_for_peers();
        let manifest = BaseManifest::of_peer(&bytes).unwrap();
        let own = dir.path().to_owned();
        let mut taken = Incoming::begin(&disk, own, None, manifest, &BTreeSet::new()).unwrap();
        taken.next_part().unwrap().unwrap();
        taken.keep(&tail, false)
    };
    assert!(take(&[chunk, 2 * chunk, 1], 8).is_ok());
    assert!(take(&[32 << 20], 8).is_ok());
    for chunks in [
        vec![(32 << 20) + 1],
        vec![100 << 20],
        vec![chunk - 1, chunk],
        vec![0],
    ] {
        let refused = take(&chunks, 8);
        assert!(
            matches!(refused, Err(IncomingError::Unsound { .. })),
            "{chunks:?}: {refused:?}"
        );
    }
}
