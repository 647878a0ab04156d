//! The stores of the mesh: the stores that the root store lists are opened here, within limits, and
//! carried.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use tokio::time::{Instant, sleep, timeout_at};
use tokio_stream::StreamExt as _;

use crate::{
    id::{Author, StoreId},
    limits::STORE_NAME_CHARS_MAX,
    net::{gossip, mesh::Mesh},
    node::Unopened,
    protocol::{
        membership::genesis::Genesis,
        shared_stores::{Listed, to_open},
    },
    store::{Item, List, ReadError, Watch, WatchError},
};

/// Opens and carries the stores that the root store lists, now and later. Never returns before the
/// root store is closed.
pub(super) async fn follow(mesh: Arc<Mesh>) {
    let mut carried = BTreeSet::new();
    carry_new(&mesh, &mut carried);
    loop {
        let mut listed = mesh.node.root().watch("/stores/");
        match follow_list(&mesh, &mut carried, &mut listed).await {
            WatchError::Closed => return,
            // The next watch delivers the whole list again.
            error => tracing::warn!(%error, "the list of stores is watched again"),
        }
        sleep(WATCH_AGAIN).await;
    }
}

// Follows the list until its watch fails.
async fn follow_list(
    mesh: &Arc<Mesh>,
    carried: &mut BTreeSet<StoreId>,
    listed: &mut Watch,
) -> WatchError {
    let mut is_due = false;
    loop {
        if !is_due {
            match listed.next().await {
                Some(Ok(_event)) => {}
                Some(Err(error)) => return error,
                None => return WatchError::Closed,
            }
        }
        if let Err(error) = open_listed(mesh).await {
            tracing::warn!(%error, "the list of stores cannot be read");
        }
        carry_new(mesh, carried);
        // One look for all lines that come meanwhile: each look reads the whole list.
        is_due = false;
        let until = Instant::now() + LOOK_AGAIN;
        while let Ok(event) = timeout_at(until, listed.next()).await {
            match event {
                Some(Ok(_event)) => is_due = true,
                Some(Err(error)) => return error,
                None => return WatchError::Closed,
            }
        }
    }
}

// Starts a task of gossip for each open store that has none, and syncs it with all connected peers.
fn carry_new(mesh: &Arc<Mesh>, carried: &mut BTreeSet<StoreId>) {
    for store in mesh.node.shared_stores() {
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

/// Opens the listed stores that are not open yet, as far as the limits allow. A store is listed with
/// its genesis, which proves its id, and its name; one that has only the first is left for later.
/// A store that cannot be opened stops no other; [`Node::unopened`](crate::Node::unopened) counts
/// them.
///
/// # Errors
/// The list in the root store cannot be read.
pub(super) async fn open_listed(mesh: &Arc<Mesh>) -> Result<(), ReadError> {
    let node = &mesh.node;
    let lines = read_list(mesh).await?;
    let listed: Vec<_> = lines.values().map(|line| line.listed).collect();
    let chosen = to_open(&node.id(), &listed);
    let mut unopened = Unopened {
        of_lister: chosen.of_lister,
        in_all: chosen.in_all,
        ..Unopened::default()
    };
    for store in &chosen.stores {
        let Some(line) = lines.get(store) else {
            continue;
        };
        if let Err(error) = node.open_shared(&line.name, line.genesis).await {
            tracing::warn!(%store, %error, "a store of another node was not opened");
            unopened.failed += 1;
            unopened.error = Some(error.to_string());
        }
    }
    let names = lines.into_iter().map(|(store, line)| (store, line.name));
    if let Err(error) = node.follow_list(&names.collect()).await {
        tracing::warn!(%error, "a store was not renamed or deleted as the list says");
    }
    if unopened != node.unopened() && unopened.of_lister + unopened.in_all > 0 {
        let Unopened {
            of_lister, in_all, ..
        } = unopened;
        tracing::warn!(
            of_lister,
            in_all,
            "more stores are listed than this node opens"
        );
    }
    node.set_unopened(unopened);
    Ok(())
}

/// A store in the list, with a genesis and a name.
struct Line {
    listed: Listed,
    genesis: Genesis,
    name: String,
}

// Reads the list. The two keys of a store come one after the other.
async fn read_list(mesh: &Arc<Mesh>) -> Result<BTreeMap<StoreId, Line>, ReadError> {
    let open = mesh.node.open_stores();
    let open: BTreeSet<_> = open.iter().map(|store| store.id()).collect();
    let mut scan = mesh.node.root().scan(List {
        prefix: "/stores/".into(),
        limit: None,
        keys_only: false,
    });
    let mut lines = BTreeMap::new();
    let mut last: Option<(Genesis, Author)> = None;
    loop {
        let page = scan.next_page().await?;
        if page.is_empty() {
            return Ok(lines);
        }
        for item in page {
            if let Some(genesis) = Genesis::decode(&item.key, &item.value) {
                last = Some((genesis, item.entry.author));
            } else if let Some((genesis, lister)) = last
                && let Some(name) = name_of(&genesis.store(), &item)
            {
                let store = genesis.store();
                let listed = Listed {
                    store,
                    lister,
                    is_open: open.contains(&store),
                };
                let line = Line {
                    listed,
                    genesis,
                    name,
                };
                lines.insert(store, line);
            }
        }
    }
}

// Returns the name of `store` if `item` is the line with it. A longer name than any that is allowed
// is cut.
fn name_of(store: &StoreId, item: &Item) -> Option<String> {
    if item.key != format!("/stores/{store}/name").as_bytes() {
        return None;
    }
    let name = String::from_utf8_lossy(&item.value);
    Some(name.chars().take(STORE_NAME_CHARS_MAX + 1).collect())
}

// Shortest time between two looks at the list.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
// Time after which a watch of the list that failed is begun again.
const WATCH_AGAIN: Duration = Duration::from_secs(1);
