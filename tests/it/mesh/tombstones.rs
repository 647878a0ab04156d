//! Tombstones go once every writer knows them, on every node alike, and nothing comes back.

use super::{
    history::{make_final, prune},
    hostile::attacker::until,
    roots::vouched,
    *,
};
use lattice::{
    node::{HistoryError, HistoryPolicy},
    protocol::entry::Op,
    store::{Damage, List},
};

async fn keys(store: &Store) -> u64 {
    store.status().await.keys
}

async fn live(store: &Store) -> Vec<String> {
    let items = store.list(List::default()).await.unwrap().into_iter();
    items
        .map(|item| String::from_utf8_lossy(&item.key).into_owned())
        .collect()
}

async fn damage(store: &Store) -> Vec<Damage> {
    store.verify().await.unwrap().damage
}

/// Waits until nothing is left of keys that an act took.
async fn has_keys(store: &Store, count: u64) {
    until("the tombstones go", async || {
        (store.is_swept() && keys(store).await == count).then_some(())
    })
    .await;
}

// No admin does it by itself yet.
fn takes_tombstones() -> HistoryPolicy {
    HistoryPolicy {
        takes_tombstones: true,
        ..HistoryPolicy::default()
    }
}

/// Makes acts until `count` keys are left: one about the deletes, and one that takes their tombstones.
/// Nothing is written meanwhile.
async fn collect(peer: &Peer, store: &Store, count: u64) {
    let policy = takes_tombstones();
    until("the tombstones go", async || {
        match peer.node.make_final(store, &policy, true).await {
            Ok(_) | Err(HistoryError::AckMissing(_)) => {}
            Err(error) => panic!("{error}"),
        }
        (store.is_swept() && keys(store).await == count).then_some(())
    })
    .await;
    let (members, id) = (peer.node.members(), store.id());
    let mut acts = members.anchors_acts(&id);
    assert!(acts.any(|placed| placed.act.collection().is_some()));
}

async fn write_and_delete(store: &Store, prefix: &str, keys: u32) {
    let put = |key| Op::Put {
        key: format!("/{prefix}/{key}").into(),
        value: "here".into(),
        expires_ms: None,
    };
    store.batch((0..keys).map(put).collect()).await.unwrap();
    let delete = |key| Op::Delete {
        key: format!("/{prefix}/{key}").into(),
    };
    // The last one stays.
    let deletes = (0..keys - 1).map(delete).collect();
    store.batch(deletes).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn tombstones_go_on_all_nodes_and_nothing_comes_back() {
    let (a, b) = (Peer::new("a").await, Peer::new("b").await);
    b.join(&a, Role::Writer).await;
    let (of_a, of_b) = (a.node.data(), b.node.data());
    write_and_delete(&of_a, "a", 300).await;
    write_and_delete(&of_b, "b", 300).await;
    has(&of_b, "/a/299", "here").await;
    has(&of_a, "/b/299", "here").await;
    assert_eq!((keys(&of_a).await, keys(&of_b).await), (600, 600));
    collect(&a, &of_a, 2).await;
    let left = ["/a/299", "/b/299"];
    for store in [&of_a, &of_b] {
        has_keys(store, 2).await;
        assert_eq!(live(store).await, left);
        assert_eq!(damage(store).await, []);
    }
    let nodes = [a.node.id(), b.node.id()];
    let roots = [
        vouched(&a, &of_a, &nodes).await,
        vouched(&b, &of_b, &nodes).await,
    ];
    assert_eq!(roots[0], roots[1]);
    assert!(b.net.divergences(&of_b.id()).is_empty());

    // One removes its history, the other has all of it: what they have stays the same, also after a start.
    assert_eq!(of_a.folded().unwrap().base.keys, 2);
    prune(&a, &of_a).await;
    assert!(of_a.status().await.log_bytes < of_b.status().await.log_bytes);
    of_b.put("/a/7", "again").await.unwrap();
    of_b.delete("/a/299").await.unwrap();
    has(&of_a, "/a/7", "again").await;
    until("a has the delete", async || {
        (of_a.frontier() == of_b.frontier()).then_some(())
    })
    .await;
    // The other one makes the same base.
    prune(&b, &of_b).await;
    assert_eq!(of_b.folded().unwrap().base, of_a.folded().unwrap().base);
    let id = of_a.id();
    drop((of_a, of_b));
    let (a, b) = (a.restart().await, b.restart().await);
    let (of_a, of_b) = (a.node.data(), b.node.data());
    for store in [&of_a, &of_b] {
        // The new tombstone is there.
        has_keys(store, 3).await;
        assert_eq!(live(store).await, ["/a/7", "/b/299"]);
        assert_eq!(damage(store).await, []);
    }
    let root = async |store: &Store| store.root(&[]).await.unwrap().root;
    assert_eq!(root(&of_a).await, root(&of_b).await);
    // A new member gets the base; it never had the tombstones.
    let c = Peer::new("c").await;
    c.join(&a, Role::Writer).await;
    let of_c = c.node.data();
    has(&of_c, "/a/7", "again").await;
    has_keys(&of_c, 3).await;
    assert_eq!(root(&of_c).await, root(&of_a).await);
    assert_eq!(id, of_c.id());
    drop((of_a, of_b, of_c));
    for peer in [a, b, c] {
        peer.stop().await;
    }
}

/// A writer that has not acknowledged a delete holds the tombstone: it may have written without knowing it.
#[tokio::test(flavor = "multi_thread")]
async fn writer_that_is_away_holds_tombstones_and_its_value_wins_or_loses_by_its_stamp() {
    let (a, b) = (Peer::new("a").await, Peer::new("b").await);
    b.join(&a, Role::Writer).await;
    let (of_a, of_b) = (a.node.data(), b.node.data());
    of_a.put("/k", "old").await.unwrap();
    has(&of_b, "/k", "old").await;
    let id_of_b = b.node.id();
    drop(of_b);
    let dir = b.stop().await;
    of_a.delete("/k").await.unwrap();
    a.node.set_dormant(&id_of_b, true).await.unwrap();
    for number in 0..3 {
        of_a.put("/act", number.to_string()).await.unwrap();
        make_final(&a, &of_a).await;
        let made = a.node.make_final(&of_a, &takes_tombstones(), true).await;
        made.unwrap();
    }
    assert_eq!(keys(&of_a).await, 2, "the tombstone is there");
    let (members, id) = (a.node.members(), of_a.id());
    let mut acts = members.anchors_acts(&id);
    assert!(acts.all(|placed| placed.act.collection().is_none()));
    // It comes back with a value of before it knew the delete, written now.
    let node = lattice::Node::open(lattice::NodeConfig::new(dir.path()))
        .await
        .unwrap();
    node.data().put("/other", "b").await.unwrap();
    node.close().await.unwrap();
    drop(node);
    let b = Peer::at(dir, "").await;
    has(&of_a, "/other", "b").await;
    let of_b = b.node.data();
    collect(&a, &of_a, 2).await;
    for store in [&of_a, &of_b] {
        has_keys(store, 2).await;
        assert_eq!(live(store).await, ["/act", "/other"]);
    }
    drop((of_a, of_b));
    a.stop().await;
    b.stop().await;
}
