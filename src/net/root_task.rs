//! The task that computes the root of each store when its state rests. The next ack signs it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use tokio::time::Instant;

use crate::{limits::PULSE, net::mesh::Mesh, protocol::root_pace::RootPace, store::Store};

/// Computes roots when they are due, and asks for an ack with each new one. Does nothing without a
/// connected peer. Never returns.
pub(super) async fn follow(mesh: Arc<Mesh>) {
    let began = Instant::now();
    let now_ms = || u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    let mut paces: BTreeMap<_, RootPace> = BTreeMap::new();
    loop {
        tokio::time::sleep(PULSE).await;
        if mesh.peers.online().is_empty() {
            continue;
        }
        let (members, stores) = (mesh.node.members(), mesh.node.shared_stores());
        let open: BTreeSet<_> = stores.iter().map(Store::id).collect();
        paces.retain(|id, _| open.contains(id));
        mesh.roots
            .retain(&open, |node| members.role(node).is_some());
        for store in stores {
            let pace = paces.entry(store.id()).or_default();
            let is_known = store.settled_root().is_some();
            if pace.is_due(store.state_version(), is_known, now_ms()) {
                let begins_ms = now_ms();
                let has_failed = !settle(&mesh, &store).await;
                let ends_ms = now_ms();
                pace.ended(has_failed, ends_ms.saturating_sub(begins_ms), ends_ms);
            }
        }
    }
}

// Returns false if there is no root: the state is damaged, or changes with the members.
async fn settle(mesh: &Mesh, store: &Store) -> bool {
    match store.settle_root().await {
        Ok(Some(root)) => {
            if mesh.roots.claim(store.id(), root.claim()) {
                mesh.acknowledge(store);
            }
            true
        }
        Ok(None) => false,
        Err(error) => {
            tracing::debug!(store = %store.id(), %error, "the state has no root");
            false
        }
    }
}
