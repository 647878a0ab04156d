//! The data store: every node has it, it is the default, and nothing is lost when its mesh changes.

use std::{path::Path, sync::Arc};

use lattice::{
    Node, NodeConfig,
    id::Author,
    node::{FormerRoot, OwnData, StoreError},
    protocol::membership::genesis::Genesis,
    store::WriteError,
};

use crate::support::{failing_disk::FailingDisk, files::copy_all};

async fn create(dir: &Path) -> Node {
    Node::open(NodeConfig::new(dir).create(true)).await.unwrap()
}

fn names(node: &Node) -> Vec<String> {
    node.stores().into_iter().map(|info| info.name).collect()
}

async fn value(node: &Node, store: &str, key: &str) -> Option<String> {
    let item = node.store(store).unwrap().get(key.as_bytes()).await;
    let item = item.unwrap()?;
    Some(String::from_utf8(item.value.to_vec()).unwrap())
}

// The genesis of another mesh.
fn elsewhere() -> Genesis {
    Genesis {
        creator: Author([9; 32]),
        nonce: [9; 32],
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn default_is_the_data_store() {
    let dir = tempfile::tempdir().unwrap();
    let node = create(dir.path()).await;
    assert_eq!(names(&node), ["root", "data"]);
    node.store("").unwrap().put("/a", "1").await.unwrap();
    node.close().await.unwrap();
    drop(node);
    let node = create(dir.path()).await;
    for name in ["", "data", &node.data().id().to_string()] {
        assert_eq!(value(&node, name, "/a").await.as_deref(), Some("1"));
    }
    assert_eq!(value(&node, "root", "/a").await, None);

    // Reserved keys are in the root store.
    let of_keys = |name: &str, keys: &[&str]| node.store_of_keys(name, keys);
    let (root, data) = (node.root().id(), node.data().id());
    for (name, keys, expected) in [
        ("", &["/nodes/", "/stores/x"][..], root),
        ("", &["/nodes", "/"], data),
        ("", &[], data),
        ("root", &["/a"], root),
        ("data", &["/nodes/"], data),
    ] {
        assert_eq!(of_keys(name, keys).unwrap().id(), expected, "{keys:?}");
    }
    assert!(matches!(
        of_keys("", &["/nodes/", "/a"]),
        Err(StoreError::TwoStores)
    ));
    let one = node.data().put("/nodes/x", "1").await;
    assert!(matches!(one, Err(WriteError::Reserved { .. })), "{one:?}");
    let write = lattice::store::Write {
        ops: vec![crate::support::model::put("/invites/x", "1")],
        atomic: false,
        condition: None,
        cause: None,
    };
    let many = node.data().write_many(vec![write]).await;
    assert!(matches!(many[..], [Err(WriteError::Reserved { .. })]));
}

#[tokio::test(flavor = "multi_thread")]
async fn data_store_keeps_its_name_and_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let node = create(dir.path()).await;
    let data = node.data().id();
    let notes = node.create_store("notes").await.unwrap().id;
    for refused in [
        node.rename_store(&data, "other").await,
        node.delete_store(&data).await,
        node.share_store(&data).await,
    ] {
        assert!(matches!(refused, Err(StoreError::Data)), "{refused:?}");
    }
    for refused in [
        node.create_store("data").await.map(drop),
        node.rename_store(&notes, "data").await,
    ] {
        assert!(
            matches!(refused, Err(StoreError::NameReserved)),
            "{refused:?}"
        );
    }
    assert_eq!(names(&node), ["root", "data", "notes"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn first_start_that_is_cut_is_made_good_by_the_next() {
    for at in 0.. {
        let dir = tempfile::tempdir().unwrap();
        let disk = FailingDisk::from_then_on(at);
        let mut config = NodeConfig::new(dir.path()).create(true);
        config.disk = Arc::new(disk.clone());
        if let Ok(node) = Node::open(config).await {
            let closed = node.close().await;
            assert!(closed.is_ok() || !disk.is_whole());
        }
        let node = create(dir.path()).await;
        assert_eq!(names(&node), ["root", "data"], "{at}");
        node.data().put("/a", "1").await.unwrap();
        node.close().await.unwrap();
        if disk.is_whole() {
            assert!(at > 20, "{at}");
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn join_that_is_cut_loses_no_data() {
    let before = tempfile::tempdir().unwrap();
    let node = create(before.path()).await;
    node.data().put("/mine", "1").await.unwrap();
    let (root, former) = (node.root().id(), node.data().id().to_string());
    node.close().await.unwrap();
    drop(node);
    let joined = |node: &Node| {
        assert_eq!(node.data().id(), elsewhere().data().store());
        let kept = format!("data-{}", &former[..8]);
        assert_eq!(names(node), ["root", "data", &kept]);
        let infos = node.stores();
        assert!(infos[2].private && infos[1].data && !infos[1].private);
        kept
    };
    for at in 0.. {
        let dir = tempfile::tempdir().unwrap();
        copy_all(before.path(), dir.path());
        let disk = FailingDisk::from_then_on(i64::MAX);
        let mut config = NodeConfig::new(dir.path());
        config.disk = Arc::new(disk.clone());
        let node = Node::open(config).await.unwrap();
        disk.set(at);
        let cut = node.adopt_root(elsewhere(), OwnData::Private).await;
        let is_whole = disk.is_whole();
        assert!(cut.is_ok() || !is_whole, "{at}: {cut:?}");
        drop(node.close().await);
        drop(node);

        let node = create(dir.path()).await;
        if node.root().id() == root {
            assert_eq!(names(&node), ["root", "data"], "{at}");
            assert_eq!(value(&node, "", "/mine").await.as_deref(), Some("1"));
        } else {
            let kept = joined(&node);
            assert_eq!(value(&node, &kept, "/mine").await.as_deref(), Some("1"));
        }
        let again = node.adopt_root(elsewhere(), OwnData::Private).await;
        let kept = joined(&node);
        match again.unwrap() {
            FormerRoot::Same => {}
            FormerRoot::Kept {
                name,
                root: None,
                private: true,
            } => assert_eq!(name, kept),
            other => panic!("{at}: {other:?}"),
        }
        assert_eq!(value(&node, &kept, "/mine").await.as_deref(), Some("1"));
        assert_eq!(value(&node, "", "/mine").await, None);
        node.close().await.unwrap();
        if is_whole {
            assert!(at > 10, "{at}");
            return;
        }
    }
}

/// The root store that named the founder of a private data store is gone.
#[tokio::test(flavor = "multi_thread")]
async fn kept_data_store_survives_a_lost_meta_db() {
    let dir = tempfile::tempdir().unwrap();
    let node = create(dir.path()).await;
    node.data().put("/mine", "1").await.unwrap();
    let host_dir = tempfile::tempdir().unwrap();
    let host = create(host_dir.path()).await;
    let key = format!("/stores/{}/genesis", host.root().id());
    let item = host.root().get(key.as_bytes()).await.unwrap().unwrap();
    let genesis = Genesis::decode(key.as_bytes(), &item.value).unwrap();
    host.close().await.unwrap();
    node.adopt_root(genesis, OwnData::Private).await.unwrap();
    let before = node.stores();
    node.close().await.unwrap();
    drop(node);
    // The entries of the new root store, as a sync brings them.
    let root = format!("stores/{}", genesis.store());
    std::fs::remove_dir_all(dir.path().join(&root)).unwrap();
    copy_all(&host_dir.path().join(&root), &dir.path().join(&root));
    std::fs::remove_file(dir.path().join("meta.db")).unwrap();
    let node = create(dir.path()).await;
    assert_eq!(node.stores(), before);
    assert_eq!(
        value(&node, &before[2].name, "/mine").await.as_deref(),
        Some("1")
    );
}
