//! Roots: members with the same entries sign the same state, and an alarm names the one that does not.

use super::{
    hostile::attacker::{status_at, until},
    *,
};
use crate::support::state_file::change_state;
use lattice::{
    id::Author,
    protocol::{ack::Ack, merkle::TreeRoot},
};

/// Waits until `peer` knows an ack of each other one of `nodes` that has the root of its state of
/// `store`.
pub(super) async fn vouched(peer: &Peer, store: &Store, nodes: &[Author]) -> TreeRoot {
    until("the members sign one root", async || {
        let root = store.settled_root()?;
        let acks = peer.net.vouchers(store, &root).into_iter();
        let signers = acks.map(|ack| {
            let ack = Ack::open(ack).unwrap();
            assert_eq!(ack.state_claim(), Some(root.claim()));
            assert_eq!(ack.frontier, *root.frontier);
            ack.node
        });
        let signers: Vec<Author> = signers.chain([peer.node.id()]).collect();
        let all = nodes.iter().all(|node| signers.contains(node));
        all.then_some(root.root)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn members_at_rest_sign_one_root() {
    let (a, b) = (Peer::new("a").await, Peer::new("b").await);
    b.join(&a, Role::Writer).await;
    let nodes = [a.node.id(), b.node.id()];
    let (of_a, of_b) = (a.node.root(), b.node.root());
    let mut before = None;
    for number in 0..3 {
        let value = format!("{number}");
        of_a.put("/a", value.clone()).await.unwrap();
        of_b.put(format!("/b/{number}"), value.clone())
            .await
            .unwrap();
        has(&of_b, "/a", &value).await;
        has(&of_a, &format!("/b/{number}"), &value).await;
        let roots = [
            vouched(&a, &of_a, &nodes).await,
            vouched(&b, &of_b, &nodes).await,
        ];
        assert_eq!(roots[0], roots[1]);
        assert_ne!(before, Some(roots[0]), "the state has changed");
        before = Some(roots[0]);
    }
    // A store besides the root store, whose state rests on its entries alone.
    let jobs = a.node.create_store("jobs").await.unwrap().id;
    let jobs_of_a = a.node.open_store(&jobs).unwrap();
    jobs_of_a.put("/job", "1").await.unwrap();
    let jobs_of_b = until("b opens it", async || b.node.open_store(&jobs)).await;
    has(&jobs_of_b, "/job", "1").await;
    let roots = [
        vouched(&a, &jobs_of_a, &nodes).await,
        vouched(&b, &jobs_of_b, &nodes).await,
    ];
    assert_eq!(roots[0], roots[1]);
    for (peer, other) in [(&a, &b), (&b, &a)] {
        assert_eq!(peer.net.divergences(&of_a.id()), []);
        assert_eq!(status_at(peer, &other.node.id()).diverged, []);
    }
    a.stop().await;
    b.stop().await;
}

/// Waits until `peer` has an alarm about `node` in the root store, or none.
pub(super) async fn diverges(peer: &Peer, node: Author, is_wrong: bool) {
    let store = peer.node.root().id();
    let expected = if is_wrong { vec![store] } else { Vec::new() };
    until(&format!("an alarm: {is_wrong}"), async || {
        (status_at(peer, &node).diverged == expected).then_some(())
    })
    .await;
    let found = peer.net.divergences(&store);
    let nodes: Vec<Author> = found.iter().map(|(node, _)| *node).collect();
    assert_eq!(nodes.contains(&node), is_wrong, "{found:?}");
}

/// A row that was changed behind the back of its node, check and all, is found by no read. Both nodes
/// see that they differ, and both see that they agree again once the state was built again.
#[tokio::test(flavor = "multi_thread")]
async fn r5_wrong_state_raises_an_alarm_on_both_nodes() {
    let (a, b) = (Peer::new("a").await, Peer::new("b").await);
    b.join(&a, Role::Writer).await;
    let (id_of_a, id_of_b) = (a.node.id(), b.node.id());
    let store = a.node.root().id();
    a.node.root().put("/k", "1").await.unwrap();
    has(&b.node.root(), "/k", "1").await;
    let dir = b.stop().await;
    change_state(dir.path(), &store, &["/k".to_owned()]);
    let b = Peer::at(dir, "").await;
    diverges(&a, id_of_b, true).await;
    diverges(&b, id_of_a, true).await;
    let [(_, seen)] = a.net.divergences(&store)[..] else {
        panic!("one member");
    };
    assert_eq!((seen.with_here, seen.with_there), (1, 1));
    // All else goes on.
    a.node.root().put("/more", "1").await.unwrap();
    has(&b.node.root(), "/more", "1").await;
    diverges(&a, id_of_b, true).await;
    assert_eq!(status_at(&a, &id_of_b).strikes, 0);

    let dir = b.stop().await;
    std::fs::remove_file(
        dir.path()
            .join("stores")
            .join(store.to_string())
            .join("state.db"),
    )
    .unwrap();
    let b = Peer::at(dir, "").await;
    diverges(&a, id_of_b, false).await;
    diverges(&b, id_of_a, false).await;
    a.stop().await;
    b.stop().await;
}
