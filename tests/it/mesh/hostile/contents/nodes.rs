//! Three honest nodes: given hostile logs, compared, asked to write.

use super::*;

/// The heads of all `keys` and of all that is listed, by key.
pub(super) async fn heads(peer: &Peer, keys: &BTreeSet<Bytes>) -> BTreeMap<Bytes, Vec<Parent>> {
    let root = peer.node.root();
    let listed = root.list(List {
        prefix: Bytes::new(),
        limit: None,
        keys_only: true,
    });
    let listed = listed.await.unwrap().into_iter().map(|item| item.key);
    let mut heads = BTreeMap::new();
    for key in keys.iter().cloned().chain(listed) {
        if heads.contains_key(&key) {
            continue;
        }
        let of_key = root.heads(&key).await.unwrap();
        let place = |head: &lattice::store::HeadItem| Parent {
            hlc: head.entry.hlc,
            author: head.entry.author,
            id: head.entry.id,
            seq: head.entry.seq,
        };
        let mut places: Vec<Parent> = of_key.iter().map(place).collect();
        places.sort_unstable();
        heads.insert(key, places);
    }
    heads.retain(|_, of_key: &mut Vec<Parent>| !of_key.is_empty());
    heads
}

/// Returns the hashes of the frontiers.
pub(super) fn hashes(peers: &[Peer]) -> BTreeSet<[u8; 32]> {
    let hashes = peers
        .iter()
        .map(|peer| peer.node.root().frontier().hash().0);
    hashes.collect()
}

/// Waits until all have equal frontiers, and checks that they have equal heads. Returns those.
pub(super) async fn equal(peers: &[Peer], keys: &BTreeSet<Bytes>) -> BTreeMap<Bytes, Vec<Parent>> {
    loop {
        let before = until("frontiers are equal", async || {
            Some(hashes(peers)).filter(|hashes| hashes.len() == 1)
        })
        .await;
        let mut all = Vec::new();
        for peer in peers {
            all.push(heads(peer, keys).await);
        }
        // Admins confirm leaves meanwhile.
        if hashes(peers) != before {
            continue;
        }
        let first = all.swap_remove(0);
        for other in &all {
            for key in keys.iter().chain(first.keys()).chain(other.keys()) {
                assert_eq!(first.get(key), other.get(key), "heads of {key:?}");
            }
        }
        return first;
    }
}

/// Each writes, all others get it, and no node holds anything against another.
pub(super) async fn all_write(peers: &[Peer], value: &str) {
    for (at, peer) in peers.iter().enumerate() {
        let key = format!("/alive/{at}");
        peer.node
            .root()
            .put(key.clone(), value.to_owned())
            .await
            .unwrap();
        for other in peers {
            has(&other.node.root(), &key, value).await;
        }
    }
    for (peer, other) in peers
        .iter()
        .flat_map(|one| peers.iter().map(move |two| (one, two)))
    {
        if peer.node.id() != other.node.id() {
            let status = status_at(peer, &other.node.id());
            assert_eq!((status.strikes, status.shut_out), (0, None), "{status:?}");
        }
    }
}

pub(super) async fn three() -> Vec<Peer> {
    let a = Peer::new("a").await;
    let (b, c) = (Peer::new("b").await, Peer::new("c").await);
    b.join(&a, Role::Admin).await;
    c.join(&a, Role::Writer).await;
    let peers = vec![a, b, c];
    for (at, peer) in peers.iter().enumerate() {
        peer.node
            .root()
            .put("/honest", at.to_string())
            .await
            .unwrap();
        let read = at.to_string();
        for other in &peers {
            has(&other.node.root(), "/honest", &read).await;
        }
    }
    peers
}

/// Gives the logs to the first node while the others are away, and lets these sync.
pub(super) async fn give(
    mut peers: Vec<Peer>,
    logs: impl Iterator<Item = (String, Vec<Bytes>)>,
) -> Vec<Peer> {
    let mut dirs = Vec::new();
    for peer in peers.drain(1..) {
        dirs.push(peer.stop().await);
    }
    let root = peers[0].node.root();
    for (name, given) in logs {
        eprintln!("{name}");
        for part in given.chunks(64) {
            drop(root.ingest(part.to_vec()).await.unwrap());
        }
    }
    root.settle().await;
    for (dir, name) in dirs.into_iter().zip(["b", "c"]) {
        peers.push(Peer::at(dir, name).await);
    }
    peers
}

pub(super) async fn facts(peers: &[Peer]) -> Facts {
    let a = &peers[0].node;
    let (secret, _expires_ms) = a.invite(Role::Reader, 600_000).await.unwrap();
    let none = BTreeSet::new();
    Facts {
        store: a.root().id(),
        now_ms: a.clock().now_ms(),
        nodes: [a.id(), peers[1].node.id(), peers[2].node.id()],
        invite: Invite::key(&secret),
        heads: heads(&peers[0], &none).await,
    }
}

/// Makes the authors of `pens` writers.
pub(super) async fn admit(host: &Peer, pens: impl Iterator<Item = Author>) {
    for author in pens {
        let (secret, _expires_ms) = host.node.invite(Role::Writer, 600_000).await.unwrap();
        host.node.redeem(&secret, author).await.unwrap();
    }
}
