use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;

use super::{
    Base, BaseBuilder, BaseManifest, Bases, Body, Incoming, IncomingError, OutgoingPart, RecordKey,
    RecordKind,
};
use crate::{
    disk::{Disk, RealDisk},
    id::{Author, EntryId, StoreId},
    protocol::{anchor::Anchor, hlc::Hlc, merkle::Levels},
    state::{StateError, row::encode_cause},
    support::random::{Random, for_each_seed},
};

const STORE: StoreId = StoreId([5; 16]);

type Model = BTreeMap<RecordKey, Bytes>;

fn manifest(number: u64) -> BaseManifest {
    let anchor = Anchor {
        seq: number,
        id: EntryId([7; 32]),
        hlc: Hlc::new(9, 1).unwrap(),
    };
    BaseManifest {
        store: STORE,
        number,
        keys: 3,
        entries: 4,
        anchors: vec![(Author([1; 32]), anchor)],
        has_taken_back: true,
        parts: Vec::new(),
    }
}

fn build(
    dir: &Path,
    before: Option<&Base>,
    number: u64,
    changes: Vec<(RecordKey, Body<'_>)>,
) -> Base {
    let mut builder = BaseBuilder::begin(&RealDisk, dir, Levels::new(STORE)).unwrap();
    builder.merge(before, changes).unwrap();
    builder.finish(manifest(number)).unwrap()
}

fn open(dir: &Path) -> Result<Option<Arc<Base>>, StateError> {
    Ok(Bases::open(&RealDisk, dir, STORE)?.newest)
}

fn key(kind: RecordKind, key: impl AsRef<[u8]>) -> RecordKey {
    RecordKey::new(kind, key.as_ref())
}

fn puts(model: &Model) -> Vec<(RecordKey, Body<'static>)> {
    let puts = model.iter();
    puts.map(|(key, body)| (key.clone(), Body::Is(body.clone())))
        .collect()
}

fn check(base: &Base, model: &Model) {
    let mut read = Model::new();
    let all = RecordKey(Bytes::new());
    base.each_from(&all, |key, body| {
        assert!(read.last_key_value().is_none_or(|(last, _)| last < key));
        read.insert(key.clone(), body.clone());
        Ok(true)
    })
    .unwrap();
    assert!(read == *model, "{} of {}", read.len(), model.len());
    assert_eq!(base.check().unwrap(), model.len() as u64);
    for (key, body) in model.iter().step_by(model.len() / 50 + 1) {
        assert_eq!(base.get(key).unwrap().as_ref(), Some(body));
        let from: Vec<_> = model.range(key..).take(3).collect();
        let mut read = Vec::new();
        base.each_from(key, |key, body| {
            read.push((key.clone(), body.clone()));
            Ok(read.len() < 3)
        })
        .unwrap();
        assert!(read.iter().map(|(k, b)| (k, b)).eq(from));
    }
}

fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let names = fs::read_dir(dir).unwrap();
    let files = names.map(|name| {
        let path: PathBuf = name.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        (name, fs::read(path).unwrap())
    });
    files.collect()
}

fn some_records(count: u32) -> Model {
    let mut model = Model::new();
    for n in 0..count {
        let body = vec![n.to_le_bytes()[0]; 60 + (n as usize * 7) % 300];
        model.insert(key(RecordKind::Heads, format!("/key/{n}")), body.into());
    }
    model.insert(key(RecordKind::Fact, "tfact"), Bytes::new());
    model.insert(key(RecordKind::Cause, [3; 16]), "cause".into());
    let value = RecordKey::value(b"/key/3", &EntryId([9; 32]));
    model.insert(value, vec![1; 300_000].into());
    model
}

#[test]
fn records_are_read_as_they_were_written() {
    for count in [0, 1, 5000] {
        let dir = tempfile::tempdir().unwrap();
        assert!(open(dir.path()).unwrap().is_none());
        let model = some_records(count);
        let base = build(dir.path(), None, 1, puts(&model));
        check(&base, &model);
        assert!(
            base.get(&key(RecordKind::Heads, "/missing"))
                .unwrap()
                .is_none()
        );
        assert!(
            base.get(&key(RecordKind::Cause, [0; 16]))
                .unwrap()
                .is_none()
        );
        let value = base.value(b"/key/3", &EntryId([9; 32])).unwrap();
        assert_eq!(value.unwrap().len(), 300_000);
        let hash = base.manifest().hash();
        // Before it is committed there is none, and what was written is removed.
        let committed = base
            .commit(&RealDisk, dir.path(), None)
            .unwrap()
            .newest
            .unwrap();
        drop(committed);
        let again = open(dir.path()).unwrap().unwrap();
        assert_eq!(again.manifest().hash(), hash);
        assert_eq!(again.manifest().anchors, manifest(1).anchors);
        check(&again, &model);
    }
}

#[test]
fn a_base_that_was_not_committed_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let model = some_records(100);
    drop(build(dir.path(), None, 1, puts(&model)));
    assert!(!files(dir.path()).is_empty());
    assert!(open(dir.path()).unwrap().is_none());
    assert!(files(dir.path()).is_empty());
    // Nor is the one before lost by one that was not.
    let base = build(dir.path(), None, 1, puts(&model));
    let base = base
        .commit(&RealDisk, dir.path(), None)
        .unwrap()
        .newest
        .unwrap();
    let kept = files(dir.path());
    drop(build(dir.path(), Some(&base), 2, puts(&some_records(3))));
    check(&open(dir.path()).unwrap().unwrap(), &model);
    assert!(files(dir.path()) == kept);
}

/// The base of a set of records has the same bytes, however they came together.
#[test]
fn equal_records_make_equal_files() {
    for_each_seed(0..=5, |random: &mut Random| {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut model = Model::new();
        let mut base: Option<Arc<Base>> = None;
        for number in 1..8 {
            let mut changes: BTreeMap<RecordKey, Option<Bytes>> = BTreeMap::new();
            let kinds = [RecordKind::Cause, RecordKind::Fact, RecordKind::Heads];
            let keys = if number == 1 {
                40_000
            } else {
                1 + random.below(300)
            };
            for _change in 0..keys {
                let kind = kinds[random.below(3)];
                let key = key(kind, random.below(60_000).to_string());
                let body = vec![u8::try_from(number).unwrap(); random.below(120)];
                let is_put = random.below(4) > 0;
                changes.insert(key, is_put.then(|| body.into()));
            }
            for (key, body) in &changes {
                match body {
                    Some(body) => drop(model.insert(key.clone(), body.clone())),
                    None => drop(model.remove(key)),
                }
            }
            let changes = changes.into_iter().map(|(key, body)| match body {
                Some(body) if body.len() % 2 == 0 => (key, Body::Is(body)),
                Some(body) => (key, Body::Later(Box::new(move || Ok(body)))),
                None => (key, Body::None),
            });
            let next = build(one.path(), base.as_deref(), number, changes.collect());
            check(&next, &model);
            base = Some(
                next.commit(&RealDisk, one.path(), None)
                    .unwrap()
                    .newest
                    .unwrap(),
            );
        }
        let base = base.unwrap();
        let parts = base.manifest().parts.len();
        assert!(parts > 2, "{parts} parts");
        let at_once = build(other.path(), None, 7, puts(&model));
        assert_eq!(at_once.manifest().hash(), base.manifest().hash());
        drop(
            at_once
                .commit(&RealDisk, other.path(), None)
                .unwrap()
                .newest
                .unwrap(),
        );
        drop(base);
        open(one.path()).unwrap();
        assert!(files(one.path()) == files(other.path()));
    });
}

#[test]
fn a_part_without_changes_is_shared() {
    let dir = tempfile::tempdir().unwrap();
    let mut model = Model::new();
    for n in 0..300_000 {
        model.insert(key(RecordKind::Heads, format!("/{n}")), "body".into());
    }
    let base = build(dir.path(), None, 1, puts(&model));
    let base = base
        .commit(&RealDisk, dir.path(), None)
        .unwrap()
        .newest
        .unwrap();
    let changed = key(RecordKind::Heads, "/7");
    model.insert(changed.clone(), "new".into());
    let next = build(
        dir.path(),
        Some(&base),
        2,
        vec![(changed, Body::Is("new".into()))],
    );
    check(&next, &model);
    let (old, new) = (&base.manifest().parts, &next.manifest().parts);
    let others = new.iter().filter(|part| !old.contains(part)).count();
    assert!(old.len() > 2 && others == 1, "{others} of {}", old.len());
}

/// Any byte of any file that is not as it was written is found before a record is read.
#[test]
fn s9_each_flipped_byte_and_each_cut_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let mut model = some_records(40);
    model.retain(|key, _| key.of(RecordKind::Value).is_none());
    let base = build(dir.path(), None, 1, puts(&model));
    drop(
        base.commit(&RealDisk, dir.path(), None)
            .unwrap()
            .newest
            .unwrap(),
    );
    let is_found = |dir: &Path| match open(dir) {
        Err(StateError::Damaged { .. }) => true,
        Ok(Some(base)) => matches!(base.check(), Err(StateError::Damaged { .. })),
        other => panic!("{other:?}"),
    };
    for (name, whole) in files(dir.path()) {
        let path = dir.path().join(&name);
        // The first bytes of a part say what it is, and nothing reads them.
        let first = if name.ends_with("part") { 8 } else { 0 };
        for at in first..whole.len() {
            let mut bad = whole.clone();
            bad[at] ^= 1 << (at % 8);
            fs::write(&path, &bad).unwrap();
            assert!(is_found(dir.path()), "byte {at} of {name}");
        }
        for cut in (0..whole.len()).step_by(11) {
            fs::write(&path, &whole[..cut]).unwrap();
            assert!(is_found(dir.path()), "cut at {cut} of {name}");
        }
        fs::write(&path, [whole.as_slice(), b"x"].concat()).unwrap();
        assert!(is_found(dir.path()), "a longer {name}");
        if name.ends_with("part") {
            fs::remove_file(&path).unwrap();
            assert!(is_found(dir.path()), "without {name}");
        }
        fs::write(&path, &whole).unwrap();
        assert!(!is_found(dir.path()));
    }
}

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
    Incoming::begin(&disk, dir.to_owned(), own, manifest).unwrap()
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
    // Each byte of an earlier attempt is read again.
    let dir = tempfile::tempdir().unwrap();
    let mut first = incoming(dir.path(), None, &base);
    take(&mut first, &base, (777, usize::MAX), |_, _| {}).unwrap();
    drop(first);
    for (name, whole) in files(dir.path()) {
        for at in (0..whole.len()).step_by(1 + whole.len() / 40) {
            let mut bad = whole.clone();
            bad[at] ^= 4;
            fs::write(dir.path().join(&name), &bad).unwrap();
            let mut again = incoming(dir.path(), None, &base);
            assert_eq!(again.progress().parts, 2, "byte {at} of {name}");
            take(&mut again, &base, (5000, usize::MAX), |_, _| {}).unwrap();
            assert!(fs::read(dir.path().join(&name)).unwrap() == whole);
        }
    }
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
    let third = incoming(dir.path(), Some(&own), &base);
    assert_eq!(third.progress().parts, 3, "what was put back is here");
    third
        .finish(2, Some(&own), crate::state::check_rows)
        .unwrap()
        .commit(&RealDisk, dir.path(), None)
        .unwrap();
    check(&open(dir.path()).unwrap().unwrap(), &model);
    // A damaged part of the own base comes again.
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
        BaseManifest::of_peer(&manifest.encode()).is_none(),
        "a number of its own"
    );
    for bit in 0..bytes.len() * 8 {
        let mut bad = bytes.to_vec();
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(BaseManifest::of_peer(&bad).is_none(), "bit {bit}");
    }
    for cut in 0..bytes.len() {
        assert!(
            BaseManifest::of_peer(&bytes[..cut]).is_none(),
            "cut to {cut}"
        );
    }
    // Under sound sums.
    let refused = |change: &dyn Fn(&mut BaseManifest)| {
        let mut other = manifest.clone();
        change(&mut other);
        assert!(BaseManifest::of_peer(&other.encode_for_peers()).is_none());
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
        BaseManifest::of_peer(&body).is_none(),
        "bytes behind its parts"
    );
}
