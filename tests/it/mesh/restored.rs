//! A node that was restored from a snapshot, and the members that have what it wrote since.

use std::path::Path;

use lattice::{
    Node, NodeConfig,
    net::Net,
    node::{Identity, RestoreOptions, Restored, SnapshotOptions},
    protocol::membership::role::Role,
    store::WriteError,
};

use super::{
    history::{fill, make_final, prune},
    hostile::attacker::until,
    loopback,
    peer::{Peer, has},
};

async fn snapshot(peer: &Peer, file: &Path) {
    let options = SnapshotOptions {
        store: None,
        with_key: true,
    };
    let mut parts = peer.node.snapshot(options).await.unwrap();
    let mut bytes = Vec::new();
    while let Some(part) = parts.next().await {
        bytes.extend_from_slice(&part.unwrap());
    }
    std::fs::write(file, bytes).unwrap();
}

async fn restore(dir: &Path, file: &Path, identity: Identity) -> Restored {
    let options = RestoreOptions {
        file: file.to_owned(),
        identity,
    };
    let config = NodeConfig::new(dir);
    Node::restore(config, options, |_read, _of| {})
        .await
        .unwrap()
}

// What was lost: the restored node wrote at once, at the places of the entries that the other member
// had of it. From then on its log had a fork, and no own write was taken.
#[tokio::test(flavor = "multi_thread")]
async fn s22_b2_a_restored_node_waits_for_what_it_wrote_since() {
    let a = Peer::new("a").await;
    let b = Peer::new("b").await;
    b.join(&a, Role::Writer).await;
    b.node.root().put("/before", "b").await.unwrap();
    let files = tempfile::tempdir().unwrap();
    let file = files.path().join("file");
    snapshot(&b, &file).await;
    // A store that is not in the snapshot, in which it has written, too.
    let notes = a.node.create_store("notes").await.unwrap();
    let of_b = until("the new store is at b", async || {
        b.node.open_store(&notes.id)
    })
    .await;
    of_b.put("/in/notes", "b").await.unwrap();
    let of_a = a.node.open_store(&notes.id).unwrap();
    has(&of_a, "/in/notes", "b").await;
    drop(of_b);
    for n in 0..5 {
        b.node.root().put(format!("/since/{n}"), "b").await.unwrap();
    }
    has(&a.node.root(), "/since/4", "b").await;
    drop(b.stop().await);

    let dir = tempfile::tempdir().unwrap();
    let restored = restore(dir.path(), &file, Identity::InSnapshot).await;
    assert!(restored.waits);
    let node = Node::open(NodeConfig::new(dir.path())).await.unwrap();
    let root = node.root();
    let refused = root.put("/too/early", "b").await;
    assert!(matches!(refused, Err(WriteError::Restored)), "{refused:?}");
    assert!(root.status().await.restored);
    // It is so after a restart, too.
    node.close().await.unwrap();
    drop((root, node));
    let node = Node::open(NodeConfig::new(dir.path())).await.unwrap();
    let refused = node.root().put("/too/early", "b").await;
    assert!(matches!(refused, Err(WriteError::Restored)), "{refused:?}");

    let net = Net::start(node.clone(), loopback());
    let b = Peer { node, net, dir };
    let root = b.node.root();
    has(&root, "/since/4", "b").await;
    // The store that was made since comes, too.
    let late = until("it may write", async || root.put("/late", "b").await.ok()).await;
    assert!(late.seq > 6, "{late:?}");
    has(&a.node.root(), "/late", "b").await;
    let status = root.status().await;
    assert!(status.forks.is_empty() && !status.restored, "{status:?}");
    assert!(a.node.root().status().await.forks.is_empty());
    let of_b = b.node.open_store(&notes.id).unwrap();
    let next = of_b.put("/in/notes/2", "b").await.unwrap();
    assert_eq!(next.seq, 2, "the first one has come back before");
    has(&of_a, "/in/notes/2", "b").await;
    assert!(of_a.status().await.forks.is_empty());
    drop(of_b);
    // For good. A handle of a store keeps the directory locked.
    drop(root);
    let b = b.restart().await;
    b.node.root().put("/again", "b").await.unwrap();
    b.stop().await;
    a.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_node_that_meets_nobody_writes_when_it_is_let() {
    let a = Peer::new("a").await;
    let b = Peer::new("b").await;
    b.join(&a, Role::Admin).await;
    let files = tempfile::tempdir().unwrap();
    let file = files.path().join("file");
    snapshot(&b, &file).await;
    drop((a.stop().await, b.stop().await));
    let dir = tempfile::tempdir().unwrap();
    restore(dir.path(), &file, Identity::InSnapshot).await;
    let node = Node::open(NodeConfig::new(dir.path())).await.unwrap();
    let root = node.root();
    root.put("/0", "b").await.unwrap_err();
    // A repair signs, too.
    let refused = root.repair().await;
    assert!(matches!(refused, Err(WriteError::Restored)), "{refused:?}");
    node.own_log_is_back().unwrap();
    root.put("/0", "b").await.unwrap();
    node.close().await.unwrap();
    drop((root, node));
    let node = Node::open(NodeConfig::new(dir.path())).await.unwrap();
    assert!(!node.is_restored());
    node.root().put("/0", "c").await.unwrap();
}

// A backup saves the way over the network: the joiner has all of it already.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_node_joins_with_the_data_of_a_snapshot() {
    let a = Peer::new("a").await;
    a.node.root().put("/before", "a").await.unwrap();
    let files = tempfile::tempdir().unwrap();
    let file = files.path().join("file");
    snapshot(&a, &file).await;
    let dir = tempfile::tempdir().unwrap();
    restore(dir.path(), &file, Identity::New).await;
    let c = Peer::at(dir, "c").await;
    assert!(c.node.root().get(b"/before").await.unwrap().is_some());
    c.join(&a, Role::Writer).await;
    c.node.root().put("/mine", "c").await.unwrap();
    has(&a.node.root(), "/mine", "c").await;
    c.stop().await;
    a.stop().await;
}

// The snapshot is from before there were other members. Nothing in it says that there are any now.
#[tokio::test(flavor = "multi_thread")]
async fn s22_a_node_that_was_alone_then_does_not_write_either() {
    let a = Peer::new("a").await;
    let files = tempfile::tempdir().unwrap();
    let file = files.path().join("file");
    snapshot(&a, &file).await;
    let b = Peer::new("b").await;
    b.join(&a, Role::Writer).await;
    a.node.root().put("/since", "a").await.unwrap();
    drop(a.stop().await);
    let dir = tempfile::tempdir().unwrap();
    let restored = restore(dir.path(), &file, Identity::InSnapshot).await;
    assert!(restored.waits && restored.differing.is_empty());
    let node = Node::open(NodeConfig::new(dir.path())).await.unwrap();
    let refused = node.root().put("/0", "a").await;
    assert!(matches!(refused, Err(WriteError::Restored)), "{refused:?}");
    let refused = node.create_store("new").await;
    assert!(refused.is_err(), "{refused:?}");
    b.stop().await;
}

// The file has the state of removed entries of several authors. Later ones, which came after it, are
// removed at the other member, too: what b wrote since comes back as a newer state.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_restored_without_its_first_entries_gets_what_it_lacks() {
    let (a, b) = (Peer::new("a").await, Peer::new("b").await);
    b.join(&a, Role::Writer).await;
    let (of_a, of_b) = (a.node.data(), b.node.data());
    let write = async |prefix: &str| {
        fill(&of_a, &format!("a/{prefix}"), 30).await;
        fill(&of_b, &format!("b/{prefix}"), 30).await;
        has(&of_b, &format!("/a/{prefix}/9"), "29").await;
        has(&of_a, &format!("/b/{prefix}/9"), "29").await;
    };
    write("first").await;
    make_final(&a, &of_a).await;
    prune(&b, &of_b).await;
    write("logged").await;
    let files = tempfile::tempdir().unwrap();
    let file = files.path().join("file");
    let begins = of_b.begins();
    assert!(begins.len() >= 2, "{begins:?}");
    snapshot(&b, &file).await;
    write("since").await;
    until("all that b wrote is final", async || {
        make_final(&a, &of_a).await;
        let last = of_a.finality().last();
        (last.seq(&b.node.id()) == of_b.frontier().seq(&b.node.id())).then_some(())
    })
    .await;
    prune(&a, &of_a).await;
    drop((of_b, b.stop().await));

    let dir = tempfile::tempdir().unwrap();
    let restored = restore(dir.path(), &file, Identity::InSnapshot).await;
    assert_eq!(restored.differing, [] as [String; 0]);
    let node = Node::open(NodeConfig::new(dir.path())).await.unwrap();
    assert_eq!(node.data().begins(), begins);
    let b = Peer {
        net: Net::start(node.clone(), loopback()),
        node,
        dir,
    };
    let of_b = b.node.data();
    has(&of_b, "/b/since/9", "29").await;
    has(&of_b, "/b/first/9", "29").await;
    let late = until("it may write", async || of_b.put("/late", "b").await.ok()).await;
    assert!(late.seq > 90, "{late:?}");
    has(&of_a, "/late", "b").await;
    for store in [&of_a, &of_b] {
        assert!(store.status().await.forks.is_empty());
    }
    assert_eq!(
        of_a.root(&[]).await.unwrap().root,
        of_b.root(&[]).await.unwrap().root
    );
    drop((of_a, of_b));
    b.stop().await;
    a.stop().await;
}
