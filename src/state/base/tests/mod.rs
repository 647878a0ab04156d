mod incoming;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;

use super::{Base, BaseBuilder, BaseManifest, Bases, Body, RecordKey, RecordKind};
use crate::{
    disk::RealDisk,
    id::{Author, EntryId, StoreId},
    protocol::{anchor::Anchor, finality::CollectionsHash, hlc::Hlc, merkle::Levels},
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
        collected: CollectionsHash([8; 32]),
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
