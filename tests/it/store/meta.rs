//! `meta.db` that is empty, cut, flipped or missing: the node keeps its stores, or does not open.

use std::{
    fs,
    path::{Path, PathBuf},
};

use lattice::{
    Node, NodeConfig,
    id::StoreId,
    node::{OpenError, StoreInfo},
};

use crate::support::random::Random;

async fn open(dir: &Path) -> Result<Node, OpenError> {
    Node::open(NodeConfig::new(dir)).await
}

async fn close(node: Node) {
    node.close().await.unwrap();
    drop(node);
}

// A closed node with three stores, and their ids and names.
struct Closed {
    dir: tempfile::TempDir,
    stores: Vec<StoreInfo>,
    // The newest `meta.db` and its sums.
    meta: Vec<u8>,
    sums: Vec<u8>,
}

impl Closed {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = NodeConfig::new(dir.path()).create(true);
        let node = Node::open(config).await.unwrap();
        node.root().put("/a", "1").await.unwrap();
        for name in ["jobs", "sensors"] {
            node.create_store(name).await.unwrap();
            let store = node.store(name).unwrap();
            store.put("/name", name.to_owned()).await.unwrap();
        }
        let stores = node.stores();
        close(node).await;
        let read = |name| fs::read(dir.path().join(name)).unwrap();
        let (meta, sums) = (read("meta.db"), read("meta.sums"));
        Self {
            dir,
            stores,
            meta,
            sums,
        }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("meta.db")
    }

    // Puts these bytes in the place of the file, as after a clean close or a kill.
    fn set(&self, meta: &[u8], clean: bool) {
        let sums = self.path().with_extension("sums");
        fs::write(self.path(), meta).unwrap();
        match clean {
            true => fs::write(sums, &self.sums).unwrap(),
            false => drop(fs::remove_file(sums)),
        }
    }

    // Opens the node, and checks that it is the same node. Returns what was mended.
    async fn reopen(&self, case: &str) -> Vec<String> {
        let node = open(self.dir.path()).await;
        let node = node.unwrap_or_else(|error| panic!("{case}: {error:?}"));
        assert_eq!(node.stores(), self.stores, "{case}");
        let a = node.root().get(b"/a").await.unwrap().unwrap();
        assert_eq!(a.value.as_ref(), b"1", "{case}");
        for name in ["jobs", "sensors"] {
            let store = node.store(name).unwrap();
            let item = store.get(b"/name").await.unwrap().unwrap();
            assert_eq!(item.value.as_ref(), name.as_bytes(), "{case}");
        }
        node.root().put("/written", case.to_owned()).await.unwrap();
        let mended = node.mended().to_vec();
        close(node).await;
        mended
    }
}

/// An empty `meta.db` was taken for a new node: it got another root store, and all data of the old
/// one was gone from view without a word. A power cut, or a copy onto a full disk, leaves such a
/// file.
#[tokio::test(flavor = "multi_thread")]
async fn empty_cut_or_missing_meta_is_built_again() {
    let closed = Closed::new().await;
    let half = closed.meta.len() / 2;
    let cases = [
        ("empty", Vec::new()),
        ("one byte", closed.meta[..1].to_vec()),
        ("half", closed.meta[..half].to_vec()),
        (
            "one byte short",
            closed.meta[..closed.meta.len() - 1].to_vec(),
        ),
        ("zeros", vec![0; closed.meta.len()]),
        ("garbage", vec![7; 4096]),
    ];
    for (case, bytes) in cases {
        for clean in [true, false] {
            closed.set(&bytes, clean);
            let mended = closed.reopen(case).await;
            assert_eq!(mended.len(), 1, "{case}: {mended:?}");
            assert!(
                mended[0].contains("built again from the logs"),
                "{mended:?}"
            );
            let kept = closed.path().with_extension("db.damaged");
            assert_eq!(fs::read(&kept).unwrap(), bytes, "{case} is kept");
            fs::remove_file(kept).unwrap();
            assert_eq!(closed.reopen(case).await, Vec::<String>::new());
        }
    }
    fs::remove_file(closed.path()).unwrap();
    let mended = closed.reopen("missing").await;
    assert!(mended[0].contains("it is missing"), "{mended:?}");
    assert!(!closed.path().with_extension("db.damaged").exists());
}

/// redb does not check what it reads: a flipped bit could hide a table or a row, and the node had
/// another root store, or one store less.
#[tokio::test(flavor = "multi_thread")]
async fn flipped_bit_of_meta_is_never_a_wrong_root() {
    let closed = Closed::new().await;
    // The part that redb has written, without the room it reserved.
    let used: Vec<usize> = (0..closed.meta.len())
        .filter(|at| closed.meta[*at] != 0)
        .collect();
    let mut random = Random::new(3);
    let mut built = 0;
    for flip in 0..200 {
        let (at, bit) = (used[random.below(used.len())], random.below(8));
        let mut meta = closed.meta.clone();
        meta[at] ^= 1 << bit;
        closed.set(&meta, flip % 2 == 0);
        let case = format!("bit {bit} of byte {at}");
        let mended = closed.reopen(&case).await;
        built += mended.len();
        // Whatever happened, the file is whole now.
        assert_eq!(closed.reopen(&case).await, Vec::<String>::new(), "{case}");
    }
    assert!(built > 20, "{built} of 200 were found");
}

#[tokio::test(flavor = "multi_thread")]
async fn node_without_meta_and_stores_begins_anew() {
    // A crash of the first start: the key is durable, and nothing else.
    let closed = Closed::new().await;
    fs::remove_file(closed.path()).unwrap();
    fs::remove_dir_all(closed.dir.path().join("stores")).unwrap();
    let error = open(closed.dir.path()).await.unwrap_err();
    assert!(matches!(error, OpenError::NoDataDir { .. }), "{error:?}");
    let config = NodeConfig::new(closed.dir.path()).create(true);
    let node = Node::open(config).await.unwrap();
    assert_eq!(node.stores().len(), 2);
    assert!(node.mended().is_empty());
    close(node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_meta_without_stores_is_an_error() {
    let closed = Closed::new().await;
    fs::remove_dir_all(closed.dir.path().join("stores")).unwrap();
    for bytes in [Vec::new(), closed.meta[..5000].to_vec()] {
        closed.set(&bytes, false);
        let config = NodeConfig::new(closed.dir.path()).create(true);
        match Node::open(config).await.unwrap_err() {
            OpenError::Unusable { path, what } => {
                assert_eq!(path, closed.path());
                assert!(what.contains("no stores"), "{what}");
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(fs::read(closed.path()).unwrap(), bytes, "it is left alone");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn unclear_root_is_an_error_that_changes_nothing() {
    let closed = Closed::new().await;
    // The root store of a mesh that this node joined, of which no entry has come yet.
    let joined = StoreId([0x80; 16]);
    let dir = closed.dir.path().join("stores").join(joined.to_string());
    fs::create_dir_all(dir.join("logs")).unwrap();
    closed.set(b"", false);
    match open(closed.dir.path()).await.unwrap_err() {
        OpenError::RootUnknown { path, unclear, .. } => {
            assert_eq!(path, closed.path());
            assert_eq!(unclear, [joined]);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(fs::read(closed.path()).unwrap(), b"");
    // The way out that the hint names.
    fs::rename(&dir, closed.dir.path().join("moved")).unwrap();
    assert_eq!(closed.reopen("moved").await.len(), 1);
}
