//! The directory of a node: when it opens, and the error when it does not.

use std::{
    ffi::OsString,
    fs, io,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use lattice::{
    Node, NodeConfig,
    clock::Clock,
    disk::{Disk, DiskFile, Open, RealDisk},
    node::{NameError, OpenError, StoreError},
    permissions::{Trust, Untrusted},
    store::{Start, WatchEvent, WatchOptions, WriteError},
};
use tokio_stream::StreamExt as _;

use crate::support::files::copy_all;

async fn create(dir: &Path) -> Node {
    Node::open(NodeConfig::new(dir).create(true)).await.unwrap()
}

async fn refused(dir: &Path) -> OpenError {
    Node::open(NodeConfig::new(dir)).await.unwrap_err()
}

// A directory with a closed node in it.
async fn closed() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let node = create(dir.path()).await;
    node.root().put("/a", "1").await.unwrap();
    node.close().await.unwrap();
    drop(node);
    dir
}

#[tokio::test(flavor = "multi_thread")]
async fn directory_without_a_node_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("mistyped");
    assert!(matches!(
        refused(&missing).await,
        OpenError::NoDataDir { .. }
    ));
    assert!(!missing.exists());
    assert!(matches!(
        refused(dir.path()).await,
        OpenError::NoDataDir { .. }
    ));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn s14_second_opener_gets_the_process_id() {
    let dir = tempfile::tempdir().unwrap();
    let node = create(dir.path()).await;
    match refused(dir.path()).await {
        OpenError::AlreadyRunning { pid, .. } => assert_eq!(pid, Some(std::process::id())),
        other => panic!("{other:?}"),
    }
    node.root().put("/still", "works").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn s14_dropped_node_keeps_its_lock_until_it_ends() {
    let dir = tempfile::tempdir().unwrap();
    for n in 0..20 {
        let node = loop {
            match Node::open(NodeConfig::new(dir.path()).create(true)).await {
                Ok(node) => break node,
                Err(OpenError::AlreadyRunning { .. }) => tokio::task::yield_now().await,
                Err(other) => panic!("{other:?}"),
            }
        };
        let store = node.root();
        assert_eq!(
            store.status().await.recovered,
            Vec::<String>::new(),
            "open {n}"
        );
        store.put(format!("/{n}"), "v").await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn l2_readable_key_is_refused() {
    let dir = closed().await;
    let key = dir.path().join("identity.key");
    assert_eq!(
        fs::metadata(&key).unwrap().permissions().mode() & 0o777,
        0o600
    );
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    match refused(dir.path()).await {
        OpenError::Untrusted(Untrusted::Exposed { mode, trust, .. }) => {
            assert_eq!((mode, trust), (0o644, Trust::Secret));
        }
        other => panic!("{other:?}"),
    }
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&key, "lattice identity v1\nnot hex\n").unwrap();
    assert!(matches!(
        refused(dir.path()).await,
        OpenError::Unusable { .. }
    ));
    fs::write(&key, "").unwrap();
    assert!(matches!(
        refused(dir.path()).await,
        OpenError::Unusable { .. }
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn s15_world_writable_directory_is_refused() {
    let dir = closed().await;
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
    assert!(matches!(
        refused(dir.path()).await,
        OpenError::Untrusted(Untrusted::Exposed { .. })
    ));
}

/// Whoever may write in the directory may put a `hooks.toml` there, and so run commands as its user.
#[tokio::test(flavor = "multi_thread")]
async fn s15_directory_of_others_is_refused() {
    let dir = closed().await;
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o770)).unwrap();
    match refused(dir.path()).await {
        OpenError::Untrusted(error @ Untrusted::Exposed { mode: 0o770, .. }) => {
            let remedy = format!("chmod go-w {}", dir.path().display());
            assert_eq!(error.remedy(), Some(remedy));
        }
        other => panic!("{other:?}"),
    }
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
    // Only the superuser can give the directory away.
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(dir.path(), Some(65534), None).unwrap();
        let error = refused(dir.path()).await;
        let found = matches!(
            error,
            OpenError::Untrusted(Untrusted::WrongOwner { owner: 65534, .. })
        );
        assert!(found, "{error:?}");
        std::os::unix::fs::chown(dir.path(), Some(0), None).unwrap();
    }
    drop(create(dir.path()).await);
}

// The machine's disk. It records where directories were made and whose names were made durable.
#[derive(Debug, Default)]
struct Recording(Mutex<Vec<(&'static str, PathBuf)>>);

impl Disk for Recording {
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn DiskFile>> {
        RealDisk.open(path, how)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<OsString>> {
        RealDisk.list(dir)
    }
    fn make_dir(&self, dir: &Path) -> io::Result<bool> {
        self.0.lock().unwrap().push(("make", dir.to_owned()));
        RealDisk.make_dir(dir)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.0.lock().unwrap().push(("sync", dir.to_owned()));
        RealDisk.sync_dir(dir)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.rename(from, to)
    }
}

/// The name of a new data directory, and those of parents made for it, were not made durable: on
/// some file systems an acknowledged put was gone after a power cut, with its whole directory.
#[tokio::test(flavor = "multi_thread")]
async fn new_directory_and_its_parents_are_durable() {
    let top = tempfile::tempdir().unwrap();
    let parent = top.path().join("a");
    let data_dir = parent.join("b");
    let mut config = NodeConfig::new(&data_dir).create(true);
    let disk = Arc::new(Recording::default());
    config.disk = Arc::clone(&disk) as Arc<dyn Disk>;
    let node = Node::open(config).await.unwrap();
    let steps = disk.0.lock().unwrap().clone();
    let expected = [
        ("make", parent.clone()),
        ("sync", top.path().to_owned()),
        ("make", data_dir),
        ("sync", parent),
    ];
    assert_eq!(steps[..4], expected);
    for made in steps.iter().filter(|step| step.0 == "make") {
        let above = ("sync", made.1.parent().unwrap().to_owned());
        assert!(steps.contains(&above), "{made:?}");
    }
    node.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn l3_symlinks_are_not_followed() {
    let outside = tempfile::tempdir().unwrap();
    for name in ["identity.key", "lock", "meta.db"] {
        let dir = closed().await;
        let (path, target) = (dir.path().join(name), outside.path().join(name));
        fs::rename(&path, &target).unwrap();
        symlink(&target, &path).unwrap();
        let before = fs::read(&target).unwrap();
        match refused(dir.path()).await {
            OpenError::Io { path: named, .. }
            | OpenError::Untrusted(Untrusted::WrongKind { path: named, .. }) => {
                assert_eq!(named, path);
            }
            other => panic!("{name}: {other:?}"),
        }
        assert_eq!(
            fs::read(&target).unwrap(),
            before,
            "{name} outside was changed"
        );
    }
    let dir = closed().await;
    // The data store has no log yet.
    let has_log = |store: &PathBuf| fs::read_dir(store.join("logs")).unwrap().next().is_some();
    let store = fs::read_dir(dir.path().join("stores"))
        .unwrap()
        .map(|store| store.unwrap().path())
        .find(has_log)
        .unwrap();
    let log = fs::read_dir(store.join("logs"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    for path in [log, store.join("state.db")] {
        let target = outside.path().join(path.file_name().unwrap());
        fs::rename(&path, &target).unwrap();
        symlink(&target, &path).unwrap();
        assert!(
            matches!(refused(dir.path()).await, OpenError::Store { .. }),
            "{path:?}"
        );
        fs::remove_file(&path).unwrap();
        fs::rename(&target, &path).unwrap();
    }
    drop(create(dir.path()).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn t1_clock_set_back_30_days_keeps_the_order() {
    let dir = tempfile::tempdir().unwrap();
    let day_ms = 86_400_000;
    let clock = Clock::manual(1_800_000_000_000);
    let mut config = NodeConfig::new(dir.path()).create(true);
    config.clock = clock.clone();
    let node = Node::open(config.clone()).await.unwrap();
    let before = node.root().put("/k", "before").await.unwrap();
    clock.set(1_800_000_000_000 - 30 * day_ms);
    let during = node.root().put("/k", "during").await.unwrap();
    assert!(during.hlc > before.hlc);
    node.close().await.unwrap();
    drop(node);
    let node = Node::open(config).await.unwrap();
    let after = node.root().put("/k", "after").await.unwrap();
    assert!(after.hlc > during.hlc);
    let item = node.root().get(b"/k").await.unwrap().unwrap();
    assert_eq!((item.value.as_ref(), item.heads), (b"after".as_slice(), 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn l4_store_names_are_never_paths() {
    let dir = tempfile::tempdir().unwrap();
    let node = create(dir.path()).await;
    let long = "x".repeat(65);
    for name in [
        "",
        ".",
        "..",
        "../up",
        "/etc",
        "a/b",
        "a\0b",
        "Ünïcode",
        &long,
        "619ca535-1f35-84e9-8f26-501badb0561d",
    ] {
        let refused = node.create_store(name).await;
        assert!(
            matches!(refused, Err(StoreError::NameInvalid { .. })),
            "{name:?}: {refused:?}"
        );
    }
    let made = node.create_store("jobs").await.unwrap();
    assert!(matches!(
        node.create_store("jobs").await,
        Err(StoreError::NameTaken { .. })
    ));
    assert!(matches!(
        node.store("nope"),
        Err(StoreError::Unknown { .. })
    ));
    node.store("jobs")
        .unwrap()
        .put("/nodes/x", "allowed outside the root store")
        .await
        .unwrap();
    node.close().await.unwrap();
    drop(node);
    let node = create(dir.path()).await;
    let store = node.store(&made.id.to_string()).unwrap();
    assert!(store.get(b"/nodes/x").await.unwrap().is_some());
    assert_eq!(node.stores().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn closed_node_returns_closed() {
    let dir = tempfile::tempdir().unwrap();
    let node = create(dir.path()).await;
    let store = node.root();
    node.close().await.unwrap();
    assert!(matches!(
        store.put("/a", "b").await,
        Err(WriteError::Closed)
    ));
}

/// A store that could not be listed stayed, and a second try found its name taken.
#[tokio::test(flavor = "multi_thread")]
async fn failed_creation_leaves_no_store() {
    let dir = closed().await;
    // A node that is not a member may not list a store.
    Node::renew_identity(dir.path()).unwrap();
    let node = create(dir.path()).await;
    for _ in 0..2 {
        let refused = node.create_store("jobs").await;
        let found = matches!(refused, Err(StoreError::Write(WriteError::NotAdmitted)));
        assert!(found, "{refused:?}");
        assert_eq!(node.stores().len(), 2);
        let stores = fs::read_dir(dir.path().join("stores")).unwrap();
        assert_eq!(stores.count(), 2);
    }
    node.close().await.unwrap();
    drop(node);
    assert_eq!(create(dir.path()).await.stores().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn name_of_a_node_is_no_id() {
    let top = tempfile::tempdir().unwrap();
    let data_dir = top.path().join("data");
    let named = |name: &str| {
        let mut config = NodeConfig::new(&data_dir).create(true);
        config.name = Some(name.to_owned());
        config
    };
    for name in ["0123abcd".to_owned(), "AB".repeat(32)] {
        let refused = Node::open(named(&name)).await;
        assert!(
            matches!(refused, Err(OpenError::Name(NameError::LikeId { .. }))),
            "{refused:?}"
        );
        assert!(!data_dir.exists());
    }
    drop(Node::open(named("cafe")).await.unwrap());
}

/// A backup was put back, or the log was cut: the cursor names entries that were this node's own.
#[tokio::test(flavor = "multi_thread")]
async fn cursor_into_lost_own_entries_is_a_gap_with_the_state() {
    let top = tempfile::tempdir().unwrap();
    let (data, backup) = (top.path().join("data"), top.path().join("backup"));
    let node = create(&data).await;
    node.root().put("/cfg/a", "1").await.unwrap();
    node.root().put("/cfg/gone", "1").await.unwrap();
    node.close().await.unwrap();
    drop(node);
    copy_all(&data, &backup);
    let node = create(&data).await;
    for key in ["/cfg/a", "/cfg/new", "/cfg/gone"] {
        node.root().put(key, "2").await.unwrap();
    }
    let mut watch = node.root().watch("/cfg/");
    let cursor = loop {
        match watch.next().await.unwrap().unwrap() {
            WatchEvent::CaughtUp => break watch.cursor(),
            _state => {}
        }
    };
    drop(watch);
    node.close().await.unwrap();
    drop(node);
    fs::remove_dir_all(&data).unwrap();
    fs::rename(&backup, &data).unwrap();
    let node = create(&data).await;
    // Before other entries are in the places of the lost ones, and after.
    for more in 0..2 {
        let mut watch = node.root().watch_with(WatchOptions {
            prefixes: vec!["/cfg/".into()],
            start: Start::After(cursor.clone()),
            wait: true,
            ..WatchOptions::default()
        });
        let mut seen = Vec::new();
        let read = async {
            loop {
                match watch.next().await.unwrap().unwrap() {
                    WatchEvent::Gap { reason, .. } => {
                        assert!(reason.contains("older copy"), "{reason}");
                        seen.push("gap".to_owned());
                    }
                    WatchEvent::Change(change) => {
                        let value = change.value.clone().unwrap();
                        let key = String::from_utf8_lossy(&change.key).into_owned();
                        seen.push(format!("{key}={}", String::from_utf8_lossy(&value)));
                    }
                    WatchEvent::CaughtUp => break,
                    WatchEvent::Progress | WatchEvent::Damaged { .. } => {}
                }
            }
        };
        let read = tokio::time::timeout(std::time::Duration::from_secs(20), read);
        read.await
            .expect("it does not wait for entries that nobody has");
        assert_eq!(seen, ["gap", "/cfg/a=1", "/cfg/gone=1"], "{more}");
        drop(watch);
        for _put in 0..5 {
            node.root().put("/other", "x").await.unwrap();
        }
    }
}

// Stores were closed one after the other, each with its own fsyncs: 512 took longer than a service
// manager waits before it kills.
#[tokio::test(flavor = "multi_thread")]
async fn node_with_512_stores_stops_soon() {
    const STORES: usize = 512;
    let dir = tempfile::tempdir().unwrap();
    let node = create(dir.path()).await;
    let mut creating = tokio::task::JoinSet::new();
    for number in 0..STORES {
        let node = node.clone();
        creating.spawn(async move {
            let info = node.create_store(&format!("s{number}")).await.unwrap();
            let store = node.open_store(&info.id).unwrap();
            store.put("/k", "unflushed").await.unwrap();
        });
    }
    while let Some(created) = creating.join_next().await {
        created.unwrap();
    }
    let began = std::time::Instant::now();
    node.close().await.unwrap();
    let took = began.elapsed();
    println!("{STORES} stores are closed after {took:?}");
    assert!(took < std::time::Duration::from_secs(8), "{took:?}");
}
