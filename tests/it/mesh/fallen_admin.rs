//! An admin ends history and is removed by one who has not heard of it: nodes have removed entries by acts that
//! do not count any more.

use super::{
    history::{make_final, prune},
    hostile::attacker::until,
    roots::vouched,
    *,
};
use lattice::{
    Node, NodeConfig,
    limits::GOSSIP_BYTES_MAX,
    net::{BaseRefusal, TakeStateError},
    node::{HistoryError, HistoryPolicy},
    store::List,
};

async fn live(store: &Store) -> Vec<String> {
    let items = store.list(List::default()).await.unwrap().into_iter();
    items
        .map(|item| String::from_utf8_lossy(&item.key).into_owned())
        .collect()
}

async fn keys(store: &Store) -> u64 {
    store.status().await.keys
}

/// A value that gossip only announces: what it carries whole, it also gives for half a minute to a node that
/// comes back, though no log has it any more.
fn large(text: &str) -> String {
    format!("{text:.<0$}", GOSSIP_BYTES_MAX)
}

/// Makes acts until the tombstones are gone and `count` keys are left.
async fn collect(peer: &Peer, store: &Store, count: u64) {
    let mut policy = HistoryPolicy::default();
    policy.retention.hold_ms = 0;
    until("the tombstones go", async || {
        match peer.node.make_final(store, &policy, true).await {
            Ok(_) | Err(HistoryError::AckMissing(_)) => {}
            Err(error) => panic!("{error}"),
        }
        (store.is_swept() && keys(store).await == count).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn n15_state_kept_by_acts_of_a_removed_admin_is_chosen_and_then_vouched_for() {
    let (a, b, c) = (
        Peer::new("a").await,
        Peer::new("b").await,
        Peer::new("c").await,
    );
    b.join(&a, Role::Admin).await;
    c.join(&a, Role::Writer).await;
    let (of_a, of_b, of_c) = (a.node.data(), b.node.data(), c.node.data());
    let id = of_a.id();
    let (id_of_a, id_of_b, id_of_c) = (a.node.id(), b.node.id(), c.node.id());
    for number in 0..10 {
        of_a.put(format!("/gone/{number}"), "v").await.unwrap();
    }
    of_a.put("/stays", "v").await.unwrap();
    for store in [&of_b, &of_c] {
        has(store, "/stays", "v").await;
    }
    for number in 0..10 {
        of_a.delete(format!("/gone/{number}")).await.unwrap();
    }
    of_a.put("/stays", "w").await.unwrap();
    for store in [&of_b, &of_c] {
        has(store, "/stays", "w").await;
    }
    // All know the tombstones.
    make_final(&a, &of_a).await;
    for store in [&of_a, &of_b, &of_c] {
        until("the act counts", async || {
            (store.finality().last() == of_a.frontier()).then_some(())
        })
        .await;
    }
    // An admin takes those that it has no history of any more.
    prune(&b, &of_b).await;
    of_a.put("/stays", "x").await.unwrap();
    for store in [&of_b, &of_c] {
        has(store, "/stays", "x").await;
    }
    vouched(&b, &of_b, &[id_of_a, id_of_b, id_of_c]).await;

    // A is away, and removes B meanwhile.
    drop(of_a);
    let dir = a.stop().await;
    let mut config = NodeConfig::new(dir.path());
    config.name = Some("a".to_owned());
    let node = Node::open(config).await.unwrap();
    node.remove(&id_of_b).await.unwrap();
    node.close().await.unwrap();
    drop(node);

    // The others write, and end history without A. Tombstones go.
    b.node.set_dormant(&id_of_a, true).await.unwrap();
    let [late, later] = ["late", "later"].map(large);
    of_c.put("/c/1", late.clone()).await.unwrap();
    of_c.put("/c/1", later.clone()).await.unwrap();
    has(&of_b, "/c/1", &later).await;
    of_b.put("/b/1", late.clone()).await.unwrap();
    has(&of_c, "/b/1", &late).await;
    collect(&b, &of_b, 3).await;
    prune(&b, &of_b).await;
    until("the tombstones go at c", async || {
        (of_c.is_swept() && keys(&of_c).await == 3).then_some(())
    })
    .await;
    prune(&c, &of_c).await;
    assert_eq!(of_c.folded().unwrap().base.keys, 3);
    let begins = of_c.begins();
    assert!(begins.seq(&id_of_c) > 0 && begins.seq(&id_of_b) > 0);
    drop(of_b);
    b.stop().await;

    // A is back. B does not count, so no act has the base of C, and nobody has the entries.
    let a = Peer::at(dir, "").await;
    let of_a = a.node.data();
    until("c knows that b was removed", async || {
        c.node.members().role(&id_of_b).is_none().then_some(())
    })
    .await;
    until("the base of c is refused", async || {
        let peers = a.net.peers().into_iter();
        let of_c = peers.into_iter().find(|peer| peer.node == id_of_c)?;
        let error = of_c.error?;
        error.to_string().contains("--state-from").then_some(())
    })
    .await;
    assert!(of_a.get(b"/c/1").await.unwrap().is_none());
    // C has removed entries of its own that A does not have: it cannot go back.
    let taken = c.net.take_state(&of_c, &id_of_a).await;
    let Err(TakeStateError::Base { why, .. }) = taken else {
        panic!("{taken:?}")
    };
    assert!(matches!(why, BaseRefusal::Behind { .. }), "{why}");
    has(&of_c, "/c/1", &later).await;

    // The user of A chooses what C has.
    timeout(SOON, a.net.take_state(&of_a, &id_of_c))
        .await
        .unwrap()
        .unwrap();
    for store in [&of_a, &of_c] {
        has(store, "/c/1", &later).await;
        has(store, "/b/1", &late).await;
        assert_eq!(live(store).await, ["/b/1", "/c/1", "/stays"]);
    }
    assert_eq!(keys(&of_a).await, 3);
    // A vouches for it: history goes on to end on both.
    of_a.put("/a/1", "new").await.unwrap();
    has(&of_c, "/a/1", "new").await;
    make_final(&a, &of_a).await;
    // That of C rests on no act that counts: its user chooses the one of A, and it ends history with it.
    timeout(SOON, c.net.take_state(&of_c, &id_of_a))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(of_c.folded().unwrap().base, of_a.folded().unwrap().base);
    prune(&a, &of_a).await;
    of_c.put("/c/3", "new").await.unwrap();
    has(&of_a, "/c/3", "new").await;
    make_final(&a, &of_a).await;
    prune(&c, &of_c).await;
    of_c.put("/c/2", "new").await.unwrap();
    has(&of_a, "/c/2", "new").await;
    let roots = [
        vouched(&a, &of_a, &[id_of_a, id_of_c]).await,
        vouched(&c, &of_c, &[id_of_a, id_of_c]).await,
    ];
    assert_eq!(roots[0], roots[1]);
    assert!(a.net.divergences(&id).is_empty());
    for store in [&of_a, &of_c] {
        assert_eq!(store.verify().await.unwrap().damage, []);
    }
    drop((of_a, of_c));
    for peer in [a, c] {
        peer.stop().await;
    }
}
