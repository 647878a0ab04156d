//! One key on two machines, a restored backup, clocks hours apart.

use lattice::{Node, NodeConfig, clock::Clock, net::Net, store::WriteError};

use super::{super::loopback, *};
use crate::support::files::copy_all;

fn copied(dir: &tempfile::TempDir) -> tempfile::TempDir {
    let twin = tempfile::tempdir().unwrap();
    copy_all(dir.path(), twin.path());
    twin
}

async fn agree(peers: &[&Peer]) {
    until("all have the same", async || {
        let frontiers: Vec<_> = peers
            .iter()
            .map(|peer| peer.node.root().frontier())
            .collect();
        frontiers
            .windows(2)
            .all(|pair| pair[0] == pair[1])
            .then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn b1_copied_directory_loses_nothing() {
    let field = Field::new().await;
    let c = Peer::new("c").await;
    c.join(&field.a, Role::Writer).await;
    let author = c.node.id();
    let dir = c.stop().await;
    let twin = copied(&dir);
    let root = field.a.node.root();

    // One runs after the other, and neither received the other's entries.
    for (dir, key) in [(dir, "/twin/1"), (twin, "/twin/2")] {
        let node = Node::open(NodeConfig::new(dir.path())).await.unwrap();
        node.root().put(key, "mine").await.unwrap();
        let net = Net::start(node.clone(), loopback());
        let twin = Peer { node, net, dir };
        has(&root, key, "mine").await;
        has(&field.b.node.root(), key, "mine").await;
        twin.stop().await;
        field.still_works().await;
    }
    for store in [&root, &field.b.node.root()] {
        let forks = store.status().await.forks;
        assert!(
            matches!(forks[..], [fork] if fork.proof.author == author && !fork.closed),
            "{forks:?}"
        );
        for key in ["/twin/1", "/twin/2"] {
            has(store, key, "mine").await;
        }
    }
    agree(&[&field.a, &field.b]).await;
    let hashes = [
        root.state_hash().await,
        field.b.node.root().state_hash().await,
    ];
    let [one, other] = hashes.map(Result::unwrap);
    assert_eq!(one, other);
    assert_eq!(status_at(&field.a, &author).strikes, 0);
    field.stop().await;
}

// Within this time both copies of a directory know of each other once each of them has met anybody.
const AT_ONCE: Duration = Duration::from_secs(2);

/// Two running copies of a node's directory, which are connected to `a` only.
async fn copies(field: &Field) -> (Peer, Peer) {
    let c = Peer::new("c").await;
    c.join(&field.a, Role::Writer).await;
    let dir = c.stop().await;
    let twin = copied(&dir);
    field.b.net.stop().await;
    let (c, twin) = (Peer::at(dir, "c").await, Peer::at(twin, "c").await);
    for peer in [&c, &twin] {
        meets(peer, &field.a).await;
    }
    // Own writes no longer wait, and each has what the other has written.
    for (one, other, value) in [(&c, &twin, "c"), (&twin, &c, "twin")] {
        one.node.root().put("/0", value).await.unwrap();
        has(&other.node.root(), "/0", value).await;
    }
    (c, twin)
}

async fn meets(peer: &Peer, other: &Peer) {
    until("it is connected", async || {
        status_at(peer, &other.node.id()).online.then_some(())
    })
    .await;
}

async fn stop_all(copies: (Peer, Peer), field: Field) {
    copies.1.stop().await;
    copies.0.stop().await;
    let Field { a, b, .. } = field;
    a.stop().await;
    b.stop().await;
}

async fn fork_is_known(store: &lattice::Store) {
    until("it knows of the fork", async || {
        let forks = store.status().await.forks;
        (!forks.is_empty()).then_some(())
    })
    .await;
}

// Two copies run at the same time and are connected to one member. The member had the proof of their
// fork within milliseconds; the two learned of it with their next timed sync, and wrote on for 13 to
// 37 s. Gossip reaches only one of the two.
#[tokio::test(flavor = "multi_thread")]
async fn b1_copies_that_run_together_are_told_at_once() {
    let field = Field::new().await;
    let (c, twin) = copies(&field).await;
    // One after the other: the second one goes on after the entry of the first one.
    for (one, other, key) in [(&c, &twin, "/1"), (&twin, &c, "/2")] {
        let began = std::time::Instant::now();
        one.node.root().put(key, "alone").await.unwrap();
        has(&other.node.root(), key, "alone").await;
        let took = began.elapsed();
        println!("{key} is at the other copy after {took:?}");
        assert!(took < AT_ONCE, "{took:?}");
    }
    // Both at once.
    let (one, other) = (c.node.root(), twin.node.root());
    let wrote = tokio::join!(one.put("/3", "c"), other.put("/3", "twin"));
    let began = std::time::Instant::now();
    for written in [wrote.0, wrote.1] {
        written.unwrap();
    }
    for root in [&one, &other] {
        fork_is_known(root).await;
        let refused = root.put("/4", "refused").await;
        let is_fork = matches!(refused, Err(WriteError::OwnFork { .. }));
        assert!(is_fork, "{refused:?}");
    }
    let took = began.elapsed();
    println!("both copies refuse after {took:?}");
    assert!(took < AT_ONCE, "{took:?}");
    let closed = one.repair().await.unwrap().closed;
    assert!(closed.is_some(), "there is something to repair");
    drop((one, other));
    assert_eq!(status_at(&field.a, &c.node.id()).strikes, 0);
    stop_all((c, twin), field).await;
}

// Both copies have written before they met anybody, and the third node is the last to start, the
// first, or in between.
#[tokio::test(flavor = "multi_thread")]
async fn b1_copies_are_told_in_any_order_of_starts() {
    let field = Field::new().await;
    let c = Peer::new("c").await;
    c.join(&field.a, Role::Writer).await;
    let Field { a, b, .. } = field;
    b.stop().await;
    let addresses = a.net.addresses().unwrap();
    let at = *addresses.direct.first().unwrap();
    let mut dirs = [a.stop().await, c.stop().await, tempfile::tempdir().unwrap()];
    for (round, order) in [[0, 1, 2], [1, 0, 2], [1, 2, 0]].into_iter().enumerate() {
        let twin = copied(&dirs[1]);
        drop(std::mem::replace(&mut dirs[2], twin));
        for copy in &dirs[1..] {
            let node = Node::open(NodeConfig::new(copy.path())).await.unwrap();
            let value = copy.path().to_string_lossy().into_owned();
            node.root().put("/order", value).await.unwrap();
            node.close().await.unwrap();
        }
        let mut dirs_left = dirs.map(Some);
        let mut peers = [None, None, None];
        for who in order {
            let dir = dirs_left[who].take().unwrap();
            let mut net = loopback();
            net.bind = Some(if who == 0 { at } else { net.bind.unwrap() });
            let system = Clock::system();
            peers[who] = Some(Peer::with(dir, "again", system, net).await);
        }
        let [a, c, twin] = peers.map(Option::unwrap);
        for copy in [&c, &twin] {
            meets(copy, &a).await;
        }
        let met = std::time::Instant::now();
        for copy in [&c, &twin] {
            let root = copy.node.root();
            until("its own log has forked", async || {
                let refused = root.put("/order", "refused").await;
                matches!(refused, Err(WriteError::OwnFork { .. })).then_some(())
            })
            .await;
        }
        let took = met.elapsed();
        println!("order {round}: both refuse after {took:?}");
        assert!(took < AT_ONCE, "{took:?}");
        // What was written before it was refused, too.
        agree(&[&a, &c, &twin]).await;
        let closed = c.node.root().repair().await.unwrap().closed;
        assert!(closed.is_some());
        agree(&[&a, &c, &twin]).await;
        dirs = [a.stop().await, c.stop().await, twin.stop().await];
    }
}

// A repair said that there was nothing to repair while another member had the proof.
#[tokio::test(flavor = "multi_thread")]
async fn b2_repair_asks_the_members_first() {
    let field = Field::new().await;
    let (c, twin) = copies(&field).await;
    let (one, other) = (c.node.root(), twin.node.root());
    let wrote = tokio::join!(one.put("/3", "c"), other.put("/3", "twin"));
    wrote.0.unwrap();
    wrote.1.unwrap();
    let root = field.a.node.root();
    let known = async {
        while root.status().await.forks.is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(SOON, known).await.unwrap();
    c.net.catch_up().await;
    let closed = one.repair().await.unwrap().closed;
    assert!(closed.is_some(), "there is something to repair");
    drop((one, other, root));
    stop_all((c, twin), field).await;
}

// Both copies acknowledge as one node, and the acks of the one that had started later hid those of the
// other one until that started again: for ever 21 entries behind, and nobody could wait for it.
#[tokio::test(flavor = "multi_thread")]
async fn b2_acks_count_after_a_repair_without_a_restart() {
    for repairs in [true, false] {
        let field = Field::new().await;
        let (c, twin) = copies(&field).await;
        let one = c.node.root();
        if repairs {
            let wrote = tokio::join!(one.put("/3", "c"), async {
                twin.node.root().put("/3", "twin").await
            });
            wrote.0.unwrap();
            wrote.1.unwrap();
            fork_is_known(&one).await;
        }
        twin.stop().await;
        if repairs {
            assert!(one.repair().await.unwrap().closed.is_some());
            c.net.acknowledge_again().unwrap();
        }
        let began = std::time::Instant::now();
        let written = one.put("/4", "c").await.unwrap();
        let (root, author) = (field.a.node.root(), c.node.id());
        has(&root, "/4", "c").await;
        let tip = FrontierTip {
            seq: written.seq,
            id: written.entry,
        };
        let waiting = field.a.net.wait_for(&root, &author, tip, 2);
        timeout(SOON, waiting).await.unwrap();
        until("it is in step", async || {
            let status = status_at(&field.a, &author);
            (status.behind == Some(0)).then_some(())
        })
        .await;
        let took = began.elapsed();
        println!("acknowledged after {took:?}, repair: {repairs}");
        // With a copy that was not repaired, the next statuses count.
        assert!(took < 2 * AT_ONCE, "{took:?}");
        drop((one, root));
        c.stop().await;
        let Field { a, b, .. } = field;
        a.stop().await;
        b.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn b2_node_alone_writes_after_a_moment() {
    let field = Field::new().await;
    let Field { a, b, .. } = field;
    let (_gone, dir) = (a.stop().await, b.stop().await);
    let b = Peer::at(dir, "b").await;
    // By its own clock: peers that are not there are waited for, and not for long.
    let began = std::time::Instant::now();
    b.node.root().put("/alone", "b").await.unwrap();
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    b.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn b2_fork_is_shown_and_closed_by_its_node() {
    let field = Field::new().await;
    let c = Peer::new("c").await;
    c.join(&field.a, Role::Writer).await;
    let author = c.node.id();
    let dir = c.stop().await;
    // These writes reached no peer and are lost: a copy of the directory is left.
    let lost = copied(&dir);
    let node = Node::open(NodeConfig::new(lost.path())).await.unwrap();
    node.root().put("/fork", "lost").await.unwrap();
    node.close().await.unwrap();
    drop(node);
    let c = Peer::at(dir, "c").await;
    c.node.root().put("/fork", "kept").await.unwrap();
    has(&field.a.node.root(), "/fork", "kept").await;
    c.stop().await;

    // The lost one comes back.
    let c = Peer::at(lost, "c").await;
    let refused = c.node.root().put("/fork", "refused").await;
    assert!(
        matches!(refused, Err(WriteError::OwnFork { .. })),
        "{refused:?}"
    );
    let closed = c.node.root().repair().await.unwrap().closed;
    assert_eq!(closed.map(|closed| closed.tips.len()), Some(1));
    c.node.root().put("/fork", "settled").await.unwrap();
    for peer in [&field.a, &field.b] {
        let root = peer.node.root();
        has(&root, "/fork", "settled").await;
        assert_eq!(root.heads(b"/fork").await.unwrap().len(), 1);
        let forks = root.status().await.forks;
        assert!(
            matches!(forks[..], [fork] if fork.proof.author == author && fork.closed),
            "{forks:?}"
        );
    }
    c.stop().await;
    field.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn b2_restored_backup_loses_nothing() {
    let field = Field::new().await;
    let c = Peer::new("c").await;
    c.join(&field.a, Role::Writer).await;
    let author = c.node.id();
    c.node.root().put("/backup", "before").await.unwrap();
    let dir = c.stop().await;
    let backup = copied(&dir);
    let c = Peer::at(dir, "c").await;
    c.node.root().put("/backup", "after").await.unwrap();
    has(&field.a.node.root(), "/backup", "after").await;
    drop(c.stop().await);

    // At once, and not before what the others have of its log is here.
    let c = Peer::at(backup, "c").await;
    c.node.root().put("/backup", "restored").await.unwrap();
    assert_eq!(c.node.root().heads(b"/backup").await.unwrap().len(), 1);
    for peer in [&field.a, &field.b] {
        has(&peer.node.root(), "/backup", "restored").await;
    }
    agree(&[&field.a, &field.b, &c]).await;
    for peer in [&field.a, &field.b, &c] {
        let status = peer.node.root().status().await;
        assert!(status.forks.is_empty(), "{status:?}");
    }
    assert_eq!(status_at(&field.a, &author).strikes, 0);
    c.stop().await;
    field.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn t2_t3_fast_clock_moves_no_other_clock() {
    const AHEAD_MS: u64 = 5 * 3_600_000;
    let field = Field::new().await;
    let jobs = field.a.node.create_store("jobs").await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let now_ms = field.a.node.clock().now_ms();
    let mut config = NodeConfig::new(dir.path()).create(true);
    config.clock = Clock::manual(now_ms + AHEAD_MS);
    let node = Node::open(config).await.unwrap();
    let net = Net::start(node.clone(), loopback());
    let c = Peer { node, net, dir };
    c.join(&field.a, Role::Writer).await;
    let theirs = until("the store is there", async || c.node.open_store(&jobs.id)).await;
    theirs.put("/from/the/future", "c").await.unwrap();

    let ours = field.a.node.open_store(&jobs.id).unwrap();
    let held = until("it is held", async || {
        let held = ours.status().await.held;
        (!held.is_empty()).then_some(held)
    })
    .await;
    assert_eq!((held.len(), held[0].author), (1, c.node.id()));
    assert!(held[0].due_ms > now_ms + AHEAD_MS / 2);
    assert_eq!(ours.get(b"/from/the/future").await.unwrap(), None);
    until("the skew shows", async || {
        let skew_ms = status_at(&field.a, &c.node.id()).skew_ms;
        let about = AHEAD_MS.abs_diff(u64::try_from(skew_ms).ok()?) < 120_000;
        about.then_some(())
    })
    .await;
    // Entries written here are stamped by the clock here.
    let written = ours.put("/here", "now").await.unwrap();
    let skew_ms = written.hlc.wall_ms.abs_diff(field.a.node.clock().now_ms());
    assert!(skew_ms < 120_000, "{skew_ms}");
    has(&field.b.node.open_store(&jobs.id).unwrap(), "/here", "now").await;
    assert_eq!(status_at(&field.a, &c.node.id()).strikes, 0);
    c.stop().await;
    field.stop().await;
}
