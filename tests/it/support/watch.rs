//! The usual steps of a test with a watch: open a store, take the next item, name an empty cursor.

use std::time::Duration;

use ed25519_dalek::SigningKey;
use lattice::{
    Node, NodeConfig, Store,
    clock::Clock,
    id::Author,
    protocol::{cursor::Cursor, frontier::Frontier, membership::role::Role},
    store::{Watch, WatchEvent},
};
use tokio_stream::StreamExt as _;

use super::model::{AUTHOR_A, AUTHOR_B, AUTHOR_C};

/// Opens the store `s` of the node at `dir`, with channels that hold `bus_batches`.
pub async fn open(dir: &std::path::Path, clock: &Clock, bus_batches: usize) -> (Node, Store) {
    let mut config = NodeConfig::new(dir).create(true);
    config.clock = clock.clone();
    config.bus_batches = bus_batches;
    let node = Node::open(config).await.unwrap();
    if node.store("s").is_err() {
        node.create_store("s").await.unwrap();
        for secret in [AUTHOR_A, AUTHOR_B, AUTHOR_C] {
            let author = Author(SigningKey::from_bytes(&secret).verifying_key().to_bytes());
            let (invite, _expires_ms) = node.invite(Role::Writer, 60_000).await.unwrap();
            node.redeem(&invite, author).await.unwrap();
        }
    }
    let store = node.store("s").unwrap();
    (node, store)
}

/// Returns the next item; none within 30 s is a failure.
pub async fn next(watch: &mut Watch) -> WatchEvent {
    tokio::time::timeout(Duration::from_secs(30), watch.next())
        .await
        .expect("an item within 30 s")
        .expect("the watch goes on")
        .unwrap()
}

/// The position before everything.
pub fn nothing(store: &Store) -> Cursor {
    Cursor {
        store: store.id(),
        frontier: Frontier::default(),
        partial: None,
        expired_through_ms: 0,
    }
}
