//! Snapshots: what is restored is what was there, and nothing less is ever taken for it.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use lattice::{
    Node, NodeConfig, Store,
    id::Author,
    node::{
        FileError, HistoryPolicy, Identity, OpenError, OwnData, RestoreError, RestoreOptions,
        Restored, SnapshotOptions, read_manifest, read_snapshot,
    },
    protocol::{
        entry::Op,
        membership::genesis::Genesis,
        snapshot::{Checked, Manifest, SnapshotError},
    },
    store::List,
};

use crate::support::{failing_disk::FailingDisk, random::Random};

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

// Makes all entries of the store final and removes them from the logs.
async fn end_history(node: &Node, store: &Store) {
    let policy = HistoryPolicy::default();
    node.make_final(store, &policy, true)
        .await
        .unwrap()
        .unwrap();
    node.prune(store, &policy, true).await.unwrap().unwrap();
}

async fn values(store: &Store) -> Vec<(Bytes, Bytes)> {
    let items = store.list(List::default()).await.unwrap();
    let items = items.into_iter();
    items.map(|item| (item.key, item.value)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_without_its_first_entries_is_restored_with_their_state() {
    let dir = tempfile::tempdir().unwrap();
    let node = create(dir.path()).await;
    let data = node.data();
    fill(&data, 40).await;
    data.put("/big", vec![8; 300_000]).await.unwrap();
    end_history(&node, &data).await;
    let mut removed = data.frontier().seq(&node.id());
    // Without an entry in the log, with some, and with a newer state than the one where the log begins.
    for round in 0..3 {
        if round > 0 {
            fill(&data, 30 + round).await;
        }
        if round == 2 {
            let policy = HistoryPolicy::default();
            let made = node.make_final(&data, &policy, true).await.unwrap();
            assert!(made.is_some());
            data.put("/after", "1").await.unwrap();
        }
        let place = Place::new(&snapshot(&node, true).await);
        let (_entries, manifest) = place.verify().unwrap();
        let contents = manifest.stores.iter().find(|it| it.id == data.id());
        let contents = contents.unwrap();
        let here = data.frontier().seq(&node.id());
        assert_eq!(contents.removed_entries, removed, "{round}");
        assert_eq!(contents.entries, here - removed, "{round}");

        let restored = place.restore(Identity::InSnapshot).await.unwrap();
        assert_eq!(restored.differing, [] as [String; 0], "{round}");
        let again = Node::open(NodeConfig::new(place.data())).await.unwrap();
        let theirs = again.data();
        assert_eq!(values(&theirs).await, values(&data).await, "{round}");
        let big = data.get(b"/big").await.unwrap();
        assert_eq!(theirs.get(b"/big").await.unwrap(), big, "{round}");
        assert_eq!(theirs.frontier(), data.frontier());
        assert_eq!(theirs.begins(), data.begins());
        assert_eq!(
            theirs.state_hash().await.unwrap(),
            data.state_hash().await.unwrap()
        );
        assert!(theirs.verify().await.unwrap().damage.is_empty());
        // It goes on: it writes, its history ends again, and it is copied again.
        again.own_log_is_back().unwrap();
        theirs.put("/more", "1").await.unwrap();
        end_history(&again, &theirs).await;
        let second = Place::new(&snapshot(&again, true).await);
        again.close().await.unwrap();
        second.restore(Identity::InSnapshot).await.unwrap();
        let third = Node::open(NodeConfig::new(second.data())).await.unwrap();
        assert!(third.data().get(b"/more").await.unwrap().is_some());
        third.close().await.unwrap();
    }
    // Each of its files is one of the state now: what the logs began with is gone.
    end_history(&node, &data).await;
    removed = data.frontier().seq(&node.id());
    let place = Place::new(&snapshot(&node, true).await);
    let manifest = place.verify().unwrap().1;
    assert!(
        manifest
            .stores
            .iter()
            .any(|it| it.removed_entries == removed && it.entries == 0)
    );
}

// History ends while the file is read: it has what was there when it was begun.
#[tokio::test(flavor = "multi_thread")]
async fn entries_that_are_removed_meanwhile_are_in_the_snapshot() {
    let dir = tempfile::tempdir().unwrap();
    let node = create(dir.path()).await;
    let data = node.data();
    fill(&data, 10).await;
    end_history(&node, &data).await;
    for _round in 0..3 {
        // More than the parts that are made ahead.
        for n in 0..12_u8 {
            data.put("/big", vec![n; 1_000_000]).await.unwrap();
        }
        let (expected, begins) = (values(&data).await, data.begins());
        let options = SnapshotOptions {
            store: None,
            with_key: true,
        };
        let mut parts = node.snapshot(options).await.unwrap();
        let mut file = parts.next().await.unwrap().unwrap().to_vec();
        end_history(&node, &data).await;
        assert_ne!(data.begins(), begins);
        while let Some(part) = parts.next().await {
            file.extend_from_slice(&part.unwrap());
        }
        let place = Place::new(&file);
        place.restore(Identity::InSnapshot).await.unwrap();
        let again = Node::open(NodeConfig::new(place.data())).await.unwrap();
        assert_eq!(values(&again.data()).await, expected);
        assert_eq!(again.data().begins(), begins);
        again.close().await.unwrap();
    }
}

// Any byte that is changed, and any end that is missing, is found before there is a node; so is each failed
// change of the disk.
#[tokio::test(flavor = "multi_thread")]
async fn s22_a_damaged_state_of_removed_entries_makes_no_node() {
    let dir = tempfile::tempdir().unwrap();
    let node = create(dir.path()).await;
    let data = node.data();
    fill(&data, 20).await;
    end_history(&node, &data).await;
    fill(&data, 5).await;
    let file = snapshot(&node, true).await;
    let mut random = Random::new(7);
    for _case in 0..60 {
        let mut bad = file.clone();
        let at = random.below(bad.len());
        bad[at] ^= 1 << random.below(8);
        let place = Place::new(&bad);
        place.verify().unwrap_err();
        place.restore(Identity::InSnapshot).await.unwrap_err();
        assert!(place.is_empty(), "byte {at}");
        let cut = random.below(file.len());
        Place::new(&file[..cut]).verify().unwrap_err();
    }
    let place = Place::new(&file);
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
        if let Err(_failed) = restored {
            let opened = Node::open(NodeConfig::new(place.data())).await;
            assert!(opened.is_err(), "{at}");
            failed += 1;
        } else {
            let again = Node::open(NodeConfig::new(place.data())).await.unwrap();
            assert_eq!(values(&again.data()).await, values(&data).await, "{at}");
            again.close().await.unwrap();
            fs::remove_dir_all(place.data()).unwrap();
        }
        if failing.is_whole() {
            break;
        }
    }
    assert!(failed > 30, "{failed}");
}
