//! A node whose disk lost data gets it back from its peers.

use std::{fs, path::PathBuf};

use lattice::{
    id::{Author, StoreId},
    net::Addresses,
};

use super::*;

fn log_of(dir: &TempDir, store: &StoreId, author: &Author) -> PathBuf {
    let logs = dir.path().join(format!("stores/{store}/logs"));
    logs.join(format!("{author}.log"))
}

async fn is_whole(store: &Store) {
    let whole = async {
        while !store.status().await.damage.is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    if timeout(SOON, whole).await.is_err() {
        panic!("{:?}", store.status().await);
    }
    assert_eq!(store.verify().await.unwrap().damage, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn s2_cut_own_log_is_fetched_before_a_write() {
    let (a, b) = (Peer::new("a").await, Peer::new("b").await);
    b.join(&a, Role::Writer).await;
    for n in 0..5 {
        let key = format!("/k/{n}");
        b.node.root().put(key.clone(), "v").await.unwrap();
        has(&a.node.root(), &key, "v").await;
    }
    let own = b.node.id();
    let store = b.node.root().id();
    let dir = b.stop().await;
    let log = log_of(&dir, &store, &own);
    let bytes = fs::read(&log).unwrap();
    fs::write(&log, &bytes[..bytes.len() * 2 / 3]).unwrap();

    let b = Peer::at(dir, "b").await;
    assert!(!b.node.root().status().await.lost.is_empty());
    // It waits for the peer; without one it would be refused.
    b.node.root().put("/k/5", "v").await.unwrap();
    is_whole(&b.node.root()).await;
    has(&a.node.root(), "/k/5", "v").await;
    for peer in [&a, &b] {
        assert!(peer.node.root().status().await.forks.is_empty());
    }
    a.stop().await;
    b.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s4_next_sync_mends_a_flipped_bit() {
    let (a, b) = (Peer::new("a").await, Peer::new("b").await);
    b.join(&a, Role::Writer).await;
    for n in 0..5 {
        a.node
            .root()
            .put(format!("/k/{n}"), vec![n; 3000])
            .await
            .unwrap();
    }
    a.node.root().put("/last", "v").await.unwrap();
    has(&b.node.root(), "/last", "v").await;
    let author = a.node.id();
    let store = b.node.root().id();
    let dir = b.stop().await;
    let log = log_of(&dir, &store, &author);
    let mut bytes = fs::read(&log).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    fs::write(&log, bytes).unwrap();

    let b = Peer::at(dir, "b").await;
    assert!(!b.node.root().verify().await.unwrap().damage.is_empty());
    b.net.connect(&author, Addresses::default()).await.unwrap();
    is_whole(&b.node.root()).await;
    for n in 0..5_u8 {
        let item = b
            .node
            .root()
            .get(format!("/k/{n}").as_bytes())
            .await
            .unwrap();
        assert_eq!(item.unwrap().value, vec![n; 3000]);
    }
    let mended = b.node.root().status().await.recovered;
    assert!(
        mended
            .iter()
            .any(|line| line.contains("came back from a peer"))
    );
    a.stop().await;
    b.stop().await;
}
