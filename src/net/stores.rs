//! The stores of the mesh: each store that the root store lists is opened here and carried.

use std::{collections::BTreeSet, sync::Arc};

use tokio_stream::StreamExt as _;

use crate::{
    id::StoreId,
    net::{gossip, mesh::Mesh},
    node::{OpenError, StoreError},
    protocol::membership::genesis::Genesis,
};

/// Opens and carries every store that the root store lists, now and later. Never returns before the
/// watch of the root store ends.
pub(super) async fn follow(mesh: Arc<Mesh>) {
    let mut carried = BTreeSet::new();
    carry_new(&mesh, &mut carried);
    let mut listed = mesh.node.root().watch("/stores/");
    while let Some(event) = listed.next().await {
        if let Err(error) = event {
            tracing::warn!(%error, "new stores of other nodes are not opened until the next start");
            break;
        }
        if let Err(error) = open_listed(&mesh).await {
            tracing::warn!(%error, "a store of another node was not opened");
        }
        carry_new(&mesh, &mut carried);
    }
}

// Starts a task of gossip for each open store that has none, and syncs it with all connected peers.
fn carry_new(mesh: &Arc<Mesh>, carried: &mut BTreeSet<StoreId>) {
    for store in mesh.node.open_stores() {
        if carried.insert(store.id()) {
            let with = Arc::clone(mesh);
            mesh.spawn(async move { gossip::carry(with, store).await });
            mesh.peers
                .online()
                .iter()
                .for_each(|node| mesh.want_sync(node));
        }
    }
}

/// Opens the listed stores that are not open yet. A store is listed with its genesis, which proves
/// its id, and its name; one that has only the first is left for later.
///
/// # Errors
/// `StoreError`.
pub(super) async fn open_listed(mesh: &Arc<Mesh>) -> Result<(), StoreError> {
    let root = mesh.node.root();
    let open: BTreeSet<_> = mesh
        .node
        .open_stores()
        .iter()
        .map(|store| store.id())
        .collect();
    let mut scan = root.scan(crate::store::List {
        prefix: "/stores/".into(),
        limit: None,
        keys_only: false,
    });
    loop {
        let page = scan.next_page().await.map_err(OpenError::from)?;
        if page.is_empty() {
            return Ok(());
        }
        for item in page {
            let Some(genesis) = Genesis::decode(&item.key, &item.value) else {
                continue;
            };
            let id = genesis.store();
            if open.contains(&id) {
                continue;
            }
            let key = format!("/stores/{id}/name");
            let name = root.get(key.as_bytes()).await.map_err(OpenError::from)?;
            if let Some(name) = name {
                let name = String::from_utf8_lossy(&name.value).into_owned();
                mesh.node.open_shared(&name, genesis).await?;
            }
        }
    }
}
