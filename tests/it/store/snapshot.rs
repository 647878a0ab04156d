//! Snapshots: what is restored is what was there, and nothing less is ever taken for it.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use lattice::{
    Node, NodeConfig, Store,
    id::Author,
    node::{
        FileError, Identity, OpenError, OwnData, RestoreError, RestoreOptions, Restored,
        SnapshotOptions, read_manifest, read_snapshot,
    },
    protocol::{
        entry::Op,
        membership::genesis::Genesis,
        snapshot::{Checked, Manifest, SnapshotError},
    },
};

use crate::support::failing_disk::FailingDisk;

async fn create(dir: &Path) -> Node {
    Node::open(NodeConfig::new(dir).create(true)).await.unwrap()
}

async fn snapshot(node: &Node, with_key: bool) -> Vec<u8> {
    let options = SnapshotOptions {
        store: None,
        with_key,
    };
    collect(node, options).await
}

async fn collect(node: &Node, options: SnapshotOptions) -> Vec<u8> {
    let mut parts = node.snapshot(options).await.unwrap();
    let mut file = Vec::new();
    while let Some(part) = parts.next().await {
        file.extend_from_slice(&part.unwrap());
    }
    file
}

/// A file in a directory, and another directory for a node.
struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new(file: &[u8]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("file"), file).unwrap();
        Self { dir }
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("file")
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    async fn restore(&self, identity: Identity) -> Result<Restored, RestoreError> {
        let options = RestoreOptions {
            file: self.file(),
            identity,
        };
        Node::restore(NodeConfig::new(self.data()), options, |_read, _of| {}).await
    }

    fn verify(&self) -> Result<(usize, Manifest), FileError> {
        let mut entries = 0;
        let manifest = read_snapshot(
            &self.file(),
            |_, _| {},
            |checked| {
                if let Checked::Entries(list) = checked {
                    entries += list.len();
                }
                Ok::<_, FileError>(())
            },
        )?;
        Ok((entries, manifest))
    }

    fn is_empty(&self) -> bool {
        let names = fs::read_dir(self.data()).unwrap();
        let mut names = names.map(|name| name.unwrap().file_name());
        names.all(|name| name == "lock")
    }
}

async fn fill(store: &Store, keys: u32) {
    for key in 0..keys {
        store.put(format!("/{key}"), vec![7; 100]).await.unwrap();
    }
    store.put("/big", vec![9; 200_000]).await.unwrap();
    store.delete("/1").await.unwrap();
    let puts = (0..70).map(|key| Op::Put {
        key: format!("/batch/{key}").into(),
        value: "in one".into(),
        expires_ms: (key == 3).then_some(u64::from(u32::MAX) << 10),
    });
    store.batch(puts.collect()).await.unwrap();
}

async fn history(store: &Store, author: &Author) -> Vec<(u64, u64)> {
    let page = store.entries(*author, 0, 10_000).await.unwrap();
    let places = page.iter();
    places
        .map(|it| (it.entry.header.seq, it.arrived_ms))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_node_is_the_one_that_was_there() {
    let dir = tempfile::tempdir().unwrap();
    let node = create(dir.path()).await;
    let notes = node.create_store("notes").await.unwrap();
    let notes = node.store(&notes.id.to_string()).unwrap();
    fill(&node.root(), 40).await;
    fill(&notes, 90).await;
    let place = Place::new(&snapshot(&node, true).await);
    let (entries, manifest) = place.verify().unwrap();
    assert_eq!(read_manifest(&place.file()).unwrap(), manifest);
    let counted: u64 = manifest.stores.iter().map(|it| it.entries).sum();
    assert_eq!(entries as u64, counted);
    // Writes after it are not in it.
    notes.put("/late", "1").await.unwrap();

    let restored = place.restore(Identity::InSnapshot).await.unwrap();
    assert_eq!((restored.node, restored.waits), (node.id(), true));
    assert_eq!(restored.differing, [] as [String; 0]);
    let again = Node::open(NodeConfig::new(place.data())).await.unwrap();
    assert_eq!(again.stores(), node.stores());
    for (store, keys) in [("root", 40), ("notes", 90)] {
        let (before, after) = (node.store(store).unwrap(), again.store(store).unwrap());
        for key in (0..keys)
            .map(|key| format!("/{key}"))
            .chain(["/big".into(), "/batch/3".into()])
        {
            let expected = before.get(key.as_bytes()).await.unwrap();
            assert_eq!(
                after.get(key.as_bytes()).await.unwrap(),
                expected,
                "{store} {key}"
            );
        }
        assert_eq!(after.get(b"/late").await.unwrap(), None);
        let theirs = history(&after, &node.id()).await;
        let mut ours = history(&before, &node.id()).await;
        ours.truncate(theirs.len());
        assert_eq!(theirs, ours, "{store}: seqs and times of arrival");
        assert!(after.verify().await.unwrap().damage.is_empty());
    }
    // It goes on, and can be copied again.
    let notes = again.store("notes").unwrap();
    notes.put("/after", "1").await.unwrap_err();
    again.own_log_is_back().unwrap();
    notes.put("/after", "2").await.unwrap();
    let place = Place::new(&snapshot(&again, false).await);
    let (more, _manifest) = place.verify().unwrap();
    assert_eq!(more, entries + 1);
    again.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn s22_whose_key_it_is_is_checked() {
    let dir = tempfile::tempdir().unwrap();
    let node = create(dir.path()).await;
    fill(&node.root(), 3).await;
    let without = Place::new(&snapshot(&node, false).await);
    let refused = without.restore(Identity::InSnapshot).await.unwrap_err();
    assert!(matches!(refused, RestoreError::NoKey { node: of } if of == node.id()));
    assert!(without.is_empty());

    let other = tempfile::tempdir().unwrap();
    let stranger = create(other.path()).await;
    let key = |dir: &tempfile::TempDir| Identity::File(dir.path().join("identity.key"));
    let refused = without.restore(key(&other)).await.unwrap_err();
    assert!(
        matches!(refused, RestoreError::OtherKey { found, .. } if found == stranger.id()),
        "{refused}"
    );
    assert!(without.is_empty());

    let restored = without.restore(key(&dir)).await.unwrap();
    assert_eq!(restored.node, node.id());
    let refused = without.restore(key(&dir)).await.unwrap_err();
    assert!(
        matches!(refused, RestoreError::NotEmpty { .. }),
        "{refused}"
    );
    let again = Node::open(NodeConfig::new(without.data())).await.unwrap();
    again.own_log_is_back().unwrap();
    again.root().put("/mine", "1").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_identity_reads_and_does_not_write() {
    let dir = tempfile::tempdir().unwrap();
    let node = create(dir.path()).await;
    fill(&node.root(), 3).await;
    let place = Place::new(&snapshot(&node, true).await);
    let restored = place.restore(Identity::New).await.unwrap();
    assert_ne!(restored.node, node.id());
    assert!(!restored.waits);
    let again = Node::open(NodeConfig::new(place.data())).await.unwrap();
    assert_eq!(again.id(), restored.node);
    assert!(again.root().get(b"/0").await.unwrap().is_some());
    let refused = again.root().put("/0", "x").await.unwrap_err();
    assert!(refused.to_string().contains("not a member"), "{refused}");
    let key = fs::read_to_string(place.data().join("identity.key")).unwrap();
    let old = fs::read_to_string(dir.path().join("identity.key")).unwrap();
    assert_ne!(key, old);
}

// No part of a file is taken for all of it, and a directory stays as it was.
#[tokio::test(flavor = "multi_thread")]
async fn s22_a_file_that_is_not_whole_makes_no_node() {
    let dir = tempfile::tempdir().unwrap();
    let node = create(dir.path()).await;
    fill(&node.root(), 3).await;
    let file = snapshot(&node, true).await;
    for cut in [
        0,
        7,
        8,
        100,
        file.len() / 2,
        file.len() - 17,
        file.len() - 1,
    ] {
        let place = Place::new(&file[..cut]);
        let refused = place.restore(Identity::InSnapshot).await.unwrap_err();
        assert!(
            matches!(
                refused,
                RestoreError::File(FileError::Unusable {
                    source: SnapshotError::Cut { .. } | SnapshotError::Damaged { .. },
                    ..
                })
            ),
            "cut at {cut}: {refused}"
        );
        assert!(place.is_empty(), "cut at {cut}");
        place.verify().unwrap_err();
        read_manifest(&place.file()).unwrap_err();
    }
    for at in (0..file.len()).step_by(file.len() / 40) {
        let mut bad = file.clone();
        bad[at] ^= 0x10;
        let place = Place::new(&bad);
        place.verify().unwrap_err();
        place.restore(Identity::InSnapshot).await.unwrap_err();
        assert!(place.is_empty(), "byte {at}");
    }
    let longer = [file.as_slice(), b"more"].concat();
    Place::new(&longer).verify().unwrap_err();
    // The whole one, into the same kind of directory.
    let place = Place::new(&file);
    place.restore(Identity::InSnapshot).await.unwrap();
}

// A restore that was cut off leaves the file `restoring`: no node opens the directory, and the next
// restore begins anew.
#[tokio::test(flavor = "multi_thread")]
async fn s22_a_restore_that_was_cut_off_is_begun_anew() {
    let dir = tempfile::tempdir().unwrap();
    let node = create(dir.path()).await;
    fill(&node.root(), 3).await;
    let place = Place::new(&snapshot(&node, true).await);
    place.restore(Identity::InSnapshot).await.unwrap();
    // As if the process had died before the last step, and earlier.
    fs::write(place.data().join("restoring"), "").unwrap();
    for missing in ["", "identity.key", "meta.db"] {
        if !missing.is_empty() {
            fs::remove_file(place.data().join(missing)).unwrap();
        }
        let refused = Node::open(NodeConfig::new(place.data()).create(true)).await;
        assert!(
            matches!(refused, Err(OpenError::Restoring { .. })),
            "{missing}: {refused:?}"
        );
    }
    place.restore(Identity::InSnapshot).await.unwrap();
    let again = Node::open(NodeConfig::new(place.data())).await.unwrap();
    assert!(again.root().get(b"/big").await.unwrap().is_some());
    again.own_log_is_back().unwrap();
    again.root().put("/mine", "1").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn one_store_is_copied_with_the_root_store() {
    let dir = tempfile::tempdir().unwrap();
    let node = create(dir.path()).await;
    let notes = node.create_store("notes").await.unwrap();
    node.create_store("other").await.unwrap();
    let options = SnapshotOptions {
        store: Some(notes.id),
        with_key: true,
    };
    let place = Place::new(&collect(&node, options).await);
    place.restore(Identity::InSnapshot).await.unwrap();
    let again = Node::open(NodeConfig::new(place.data())).await.unwrap();
    let names: Vec<_> = again.stores().into_iter().map(|it| it.name).collect();
    // Each node has a data store.
    assert_eq!(names, ["root", "data", "notes"]);
}

// A store that a node kept to itself does not become one of the mesh by a backup.
#[tokio::test(flavor = "multi_thread")]
async fn private_stores_stay_private() {
    let dir = tempfile::tempdir().unwrap();
    let node = create(dir.path()).await;
    let diary = node.create_store("diary").await.unwrap();
    node.root().put("/mine", "1").await.unwrap();
    node.data().put("/mine", "2").await.unwrap();
    let host_dir = tempfile::tempdir().unwrap();
    let host = create(host_dir.path()).await;
    let key = format!("/stores/{}/genesis", host.root().id());
    let value = host
        .root()
        .get(key.as_bytes())
        .await
        .unwrap()
        .unwrap()
        .value;
    let genesis = Genesis::decode(key.as_bytes(), &value).unwrap();
    node.adopt_root(genesis, OwnData::Private).await.unwrap();
    let before = node.stores();
    assert!(
        before.iter().filter(|it| it.private).count() == 3,
        "{before:?}"
    );
    let place = Place::new(&snapshot(&node, true).await);
    place.restore(Identity::InSnapshot).await.unwrap();
    let again = Node::open(NodeConfig::new(place.data())).await.unwrap();
    assert_eq!(again.stores(), before);
    let diary = again.store(&diary.id.to_string()).unwrap();
    diary.put("/today", "rain").await.unwrap();
}

// All entries before a snapshot are in it, and writers do not wait for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_under_writes_has_all_that_was_there() {
    let dir = tempfile::tempdir().unwrap();
    let node = create(dir.path()).await;
    let store = node.root();
    let writing = {
        let store = store.clone();
        tokio::spawn(async move {
            for n in 0..600_u32 {
                store.put("/n", n.to_string()).await.unwrap();
            }
        })
    };
    let mut last = 0;
    while !writing.is_finished() {
        let before: u32 = match store.get(b"/n").await.unwrap() {
            Some(item) => str::from_utf8(&item.value).unwrap().parse().unwrap(),
            None => 0,
        };
        let place = Place::new(&snapshot(&node, true).await);
        place.restore(Identity::InSnapshot).await.unwrap();
        let again = Node::open(NodeConfig::new(place.data())).await.unwrap();
        let there: u32 = match again.root().get(b"/n").await.unwrap() {
            Some(item) => str::from_utf8(&item.value).unwrap().parse().unwrap(),
            None => 0,
        };
        assert!(there >= before && before >= last, "{last} {before} {there}");
        last = before;
        again.close().await.unwrap();
    }
    writing.await.unwrap();
}

// Each change of the disk fails once: there is the whole node, or none, and another restore works.
#[tokio::test(flavor = "multi_thread")]
async fn s22_a_restore_that_fails_leaves_no_half_of_a_node() {
    let dir = tempfile::tempdir().unwrap();
    let node = create(dir.path()).await;
    node.create_store("notes").await.unwrap();
    fill(&node.root(), 3).await;
    let place = Place::new(&snapshot(&node, true).await);
    let mut failed = 0;
    for at in 0.. {
        let failing = FailingDisk::once(at);
        let mut config = NodeConfig::new(place.data());
        config.disk = Arc::new(failing.clone());
        let options = RestoreOptions {
            file: place.file(),
            identity: Identity::InSnapshot,
        };
        let restored = Node::restore(config, options, |_, _| {}).await;
        let opened = Node::open(NodeConfig::new(place.data())).await;
        match (&restored, opened) {
            (Ok(_), Ok(again)) => {
                assert!(again.root().get(b"/big").await.unwrap().is_some(), "{at}");
                again.close().await.unwrap();
                fs::remove_dir_all(place.data()).unwrap();
            }
            (Err(_), Err(OpenError::NoDataDir { .. } | OpenError::Restoring { .. })) => {
                failed += 1;
            }
            (restored, opened) => {
                let (restored, opened) = (restored.as_ref().err(), opened.err());
                panic!("{at}: {restored:?}, {opened:?}");
            }
        }
        if failing.is_whole() {
            break;
        }
    }
    assert!(failed > 20, "{failed}");
}
