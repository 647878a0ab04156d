//! The pulse: a look at all peers four times a second.
//!
//! It notes which peers were heard of, closes connections that a restarted peer has left over, and
//! compares with a peer whose acks differ for longer than messages take. Every few seconds it writes the
//! acks that have come to disk. So what people read about a
//! peer is at most a second or two old, and a lost message of gossip costs no more than that.

use std::{collections::BTreeMap, sync::Arc};

use tokio::time::Instant;

use crate::{
    id::{Author, StoreId},
    limits::{ACKS_KEEP_EVERY, PULSE},
    net::{acks::Apart, mesh::Mesh},
};

/// Looks at all peers every `PULSE`. Never returns.
pub(super) async fn follow(mesh: Arc<Mesh>) {
    let mut before = BTreeMap::new();
    let mut kept = Instant::now();
    loop {
        tokio::time::sleep(PULSE).await;
        if kept.elapsed() >= ACKS_KEEP_EVERY {
            let node = mesh.node.clone();
            drop(tokio::task::spawn_blocking(move || node.keep_acks()).await);
            kept = Instant::now();
        }
        mesh.peers.listen(mesh.node.clock().now_ms());
        mesh.gate.close_left_over();
        before = look(&mesh, &before);
    }
}

// Compares with the peers that are as far apart as they were at the look `before`. Returns the
// differences of this look.
fn look(mesh: &Mesh, before: &Differences) -> Differences {
    let mut differences = Differences::new();
    let stores = mesh.node.shared_stores();
    let root = mesh.node.root();
    for node in mesh.peers.online() {
        // Nothing is known about a peer that has sent no status. More syncs would not change that.
        if matches!(mesh.acks.apart(&root, &node), Apart::Unknown) {
            continue;
        }
        let mut lags = false;
        for store in &stores {
            let place = (node, store.id());
            let was = before.get(&place);
            lags |= was.is_some_and(|was| mesh.acks.is_still_apart(store, &node, was));
            match mesh.acks.apart(store, &node) {
                Apart::InStep => {}
                apart => drop(differences.insert(place, apart)),
            }
        }
        mesh.peers.look_at_lag(&node, lags);
    }
    differences
}

// The stores in which a connected peer and this node differ. Bounded by members and stores.
type Differences = BTreeMap<(Author, StoreId), Apart>;
