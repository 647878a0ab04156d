//! Nodes join, write apart and together, restart, and are removed.

use super::*;
use lattice::{node::FormerRoot, store::WriteError};

#[tokio::test(flavor = "multi_thread")]
async fn writes_travel_both_ways() {
    let (a, b) = (Peer::new("a").await, Peer::new("b").await);
    a.node.root().put("/before", "join").await.unwrap();
    b.join(&a, Role::Writer).await;
    has(&b.node.root(), "/before", "join").await;
    // The arrival of a node is data like any other.
    let status = format!("/nodes/{}/status", b.node.id());
    has(&a.node.root(), &status, "active").await;
    a.node.root().put("/from", "a").await.unwrap();
    has(&b.node.root(), "/from", "a").await;
    b.node.root().put("/from", "b").await.unwrap();
    has(&a.node.root(), "/from", "b").await;
    assert_eq!(a.node.root().frontier(), b.node.root().frontier());
    a.stop().await;
    b.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn offline_writes_agree_after_reconnect() {
    let (a, b) = (Peer::new("a").await, Peer::new("b").await);
    b.join(&a, Role::Writer).await;
    b.net.stop().await;
    a.node.root().put("/k", "a").await.unwrap();
    b.node.root().put("/k", "b").await.unwrap();
    let b = b.restart().await;
    for peer in [&a, &b] {
        let root = peer.node.root();
        let both = async {
            while root.heads(b"/k").await.unwrap().len() < 2 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(SOON, both).await.unwrap();
    }
    let values = [
        a.node.root().get(b"/k").await,
        b.node.root().get(b"/k").await,
    ];
    let values = values.map(|item| item.unwrap().unwrap());
    assert_eq!(values[0].value, values[1].value);
    a.node.root().put("/k", "merged").await.unwrap();
    has(&b.node.root(), "/k", "merged").await;
    assert_eq!(b.node.root().heads(b"/k").await.unwrap().len(), 1);
    a.stop().await;
    b.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn third_node_joins_through_the_second() {
    let (a, b, c) = (
        Peer::new("a").await,
        Peer::new("b").await,
        Peer::new("c").await,
    );
    b.join(&a, Role::Admin).await;
    c.join(&b, Role::Writer).await;
    c.node.root().put("/from", "c").await.unwrap();
    has(&a.node.root(), "/from", "c").await;
    a.node.root().put("/from", "a").await.unwrap();
    has(&c.node.root(), "/from", "a").await;
    // Another port: the restarted one dials those it knows.
    let c = c.restart().await;
    a.node.root().put("/after", "restart").await.unwrap();
    has(&c.node.root(), "/after", "restart").await;
    for peer in [a, b, c] {
        peer.stop().await;
    }
}

// It ended with an error nearly each time: the inviter does not have the store that the joiner brings
// before it has read of it.
#[tokio::test(flavor = "multi_thread")]
async fn join_of_a_node_with_data_ends_well() {
    let a = Peer::new("a").await;
    for number in 0..4 {
        let b = Peer::new("b").await;
        let key = format!("/mine/{number}");
        b.node.root().put(key.clone(), "kept").await.unwrap();
        let former = b.node.root().id();
        let joined = b.join(&a, Role::Writer).await;
        assert!(
            matches!(joined.former, FormerRoot::Kept { .. }),
            "{joined:?}"
        );
        let there = async {
            loop {
                if let Some(store) = a.node.open_store(&former) {
                    return store;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        has(&timeout(SOON, there).await.unwrap(), &key, "kept").await;
        b.stop().await;
    }
    a.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn new_store_appears_on_the_other_node() {
    let (a, b) = (Peer::new("a").await, Peer::new("b").await);
    b.join(&a, Role::Writer).await;
    let info = a.node.create_store("jobs").await.unwrap();
    let jobs = a.node.open_store(&info.id).unwrap();
    jobs.put("/one", "1").await.unwrap();
    let there = async {
        loop {
            if let Some(store) = b.node.open_store(&info.id) {
                return store;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let theirs = timeout(SOON, there).await.unwrap();
    has(&theirs, "/one", "1").await;
    theirs.put("/two", "2").await.unwrap();
    has(&jobs, "/two", "2").await;
    a.stop().await;
    b.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn m4_later_writes_of_a_removed_node_are_void() {
    let (a, b, c) = (
        Peer::new("a").await,
        Peer::new("b").await,
        Peer::new("c").await,
    );
    b.join(&a, Role::Admin).await;
    c.join(&a, Role::Writer).await;
    c.node.root().put("/k", "good").await.unwrap();
    has(&a.node.root(), "/k", "good").await;
    has(&b.node.root(), "/k", "good").await;
    // They know of each other's addresses from A only.
    let of_b = || {
        let peers = c.net.peers();
        peers
            .iter()
            .any(|peer| peer.node == b.node.id() && peer.online)
    };
    let met = async {
        while !of_b() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(SOON, met).await.unwrap();
    // A is disconnected: C writes on with only B connected, and A removes C meanwhile.
    a.net.stop().await;
    c.node.root().put("/k", "late").await.unwrap();
    has(&b.node.root(), "/k", "late").await;
    let mut told = b.node.root().watch_with(WatchOptions {
        prefixes: vec![Bytes::from_static(b"/k")],
        start: lattice::store::Start::Now,
        ..WatchOptions::default()
    });
    a.node.remove(&c.node.id()).await.unwrap();
    let a = a.restart().await;
    let retracted = async {
        while let Some(event) = told.next().await {
            if let WatchEvent::Change(change) = event.unwrap()
                && change.kind == lattice::protocol::change::Kind::Retract
            {
                return change;
            }
        }
        panic!("the watch ended");
    };
    let change = timeout(SOON, retracted).await.unwrap();
    assert_eq!(change.key.as_ref(), b"/k");
    let item = b.node.root().get(b"/k").await.unwrap().unwrap();
    assert_eq!(item.value.as_ref(), b"good");
    // Later writes of the removed one go nowhere, and it is not served any more.
    // It may know already that it was removed.
    let later = c.node.root().put("/k", "later").await;
    assert!(
        matches!(later, Ok(_) | Err(WriteError::Removed)),
        "{later:?}"
    );
    a.node.root().put("/k", "after").await.unwrap();
    has(&b.node.root(), "/k", "after").await;
    assert_eq!(a.node.root().frontier(), b.node.root().frontier());
    let reports = [a.node.root().verify().await, b.node.root().verify().await];
    for report in reports {
        assert!(report.unwrap().damage.is_empty());
    }
    let seen = c.node.root().get(b"/k").await.unwrap().unwrap();
    assert_ne!(seen.value.as_ref(), b"after");
    // The same after a restart, which replays the log.
    let b = b.restart().await;
    assert_eq!(a.node.root().frontier(), b.node.root().frontier());
    for peer in [a, b, c] {
        peer.stop().await;
    }
}
