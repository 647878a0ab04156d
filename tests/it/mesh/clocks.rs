//! A node whose clock is hours ahead, among members whose clocks are right.

use lattice::{
    api::{local::of_server, server::Server, whole},
    hooks::Hooks,
    id::Author,
    limits::DRIFT_MS_MAX,
    net::PeerStatus,
    store::{StampedBy, WriteError, Written},
    wire::api::Peer as Shown,
};

use super::{
    hostile::attacker::{status_at, until},
    *,
};

const TWO_HOURS_MS: u64 = 2 * DRIFT_MS_MAX + 60_000;

fn accepting() -> NetConfig {
    NetConfig {
        accept_clock: true,
        ..loopback()
    }
}

fn now_ms() -> u64 {
    Clock::system().now_ms()
}

async fn at(dir: TempDir, clock: &Clock, net: NetConfig) -> Peer {
    clock.set(clock.now_ms().max(now_ms()));
    Peer::with(dir, "", clock.clone(), net).await
}

// The reason for which a put is refused, and by how much it is ahead.
fn refused(put: Result<Written, WriteError>) -> Option<(StampedBy, u64)> {
    match put {
        Ok(_written) => None,
        Err(WriteError::FarAhead { by, ahead_ms }) => Some((by, ahead_ms)),
        Err(error) => panic!("{error}"),
    }
}

// What the API of `at` shows of a member.
async fn shown_of(at: &Peer, member: &Author) -> Shown {
    let hooks = Hooks::of(at.node.clone());
    let server = Server::new(at.node.clone(), Some(at.net.clone()), hooks, None);
    let peers = whole::peers(&mut of_server(server)).await.unwrap().peers;
    let mut peers = peers.into_iter();
    peers.find(|it| it.node == member.0.as_slice()).unwrap()
}

// A and B with the right time, and C, which is about to be two hours ahead.
async fn three() -> (Peer, Peer, TempDir, Clock) {
    let (a, b) = (Peer::new("a").await, Peer::new("b").await);
    b.join(&a, Role::Writer).await;
    let clock = Clock::manual(now_ms());
    let c = at(tempfile::tempdir().unwrap(), &clock, loopback()).await;
    c.join(&a, Role::Writer).await;
    c.node.root().put("/c", "before").await.unwrap();
    for peer in [&a, &b] {
        has(&peer.node.root(), "/c", "before").await;
    }
    let dir = c.stop().await;
    clock.set(now_ms() + TWO_HOURS_MS);
    (a, b, dir, clock)
}

#[tokio::test(flavor = "multi_thread")]
async fn t2_clock_two_hours_ahead_is_refused_before_it_signs() {
    let (a, b, dir, clock) = three().await;
    let c = at(dir, &clock, loopback()).await;
    let (root, me) = (c.node.root(), c.node.id());
    let before = root.frontier();
    let (by, ahead_ms) = refused(root.put("/c", "ahead").await).unwrap();
    assert_eq!(by, StampedBy::Clock);
    assert!(ahead_ms.abs_diff(TWO_HOURS_MS) < 600_000, "{ahead_ms}");
    let tips = |frontier: &lattice::protocol::frontier::Frontier| frontier.tips(&me).to_vec();
    assert_eq!(tips(&root.frontier()), tips(&before), "nothing is signed");
    let shown = root.status().await.poisoned.unwrap();
    for clock in [
        "the clock of this node is 2 h ahead",
        "members within reach",
    ] {
        assert!(shown.contains(clock), "{shown}");
    }
    let skewed = |status: PeerStatus, of_peer: i64| {
        let two_hours_ms = i64::try_from(TWO_HOURS_MS).unwrap();
        assert!((status.skew_ms - of_peer * two_hours_ms).abs() < 600_000);
    };
    skewed(status_at(&c, &a.node.id()), -1);
    skewed(status_at(&a, &me), 1);

    // A liar among three stops nobody: not who runs, and not who starts.
    a.node.root().put("/a", "runs").await.unwrap();
    let b = b.restart().await;
    b.node.root().put("/b", "starts").await.unwrap();
    has(&a.node.root(), "/b", "starts").await;
    for peer in [a, b, c] {
        peer.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn t2_repair_brings_what_was_written_ahead_to_everybody() {
    let (a, b, dir, clock) = three().await;
    let c = at(dir, &clock, accepting()).await;
    c.node.root().put("/c", "ahead").await.unwrap();
    c.node.root().put("/ahead", "only").await.unwrap();
    for peer in [&a, &b] {
        let root = peer.node.root();
        until("both are held", async || {
            (root.status().await.held_entries == 2).then_some(())
        })
        .await;
        let item = root.get(b"/c").await.unwrap().unwrap();
        assert_eq!(item.value, "before");
        // `peers` shows it as held, and not as in step.
        let shown = until("its acks have come", async || {
            let shown = shown_of(peer, &c.node.id()).await;
            shown.ahead.is_some_and(|ahead| ahead > 0).then_some(shown)
        })
        .await;
        assert!(shown.held && shown.online, "{shown:?}");
    }
    // The clock is right again.
    let dir = c.stop().await;
    clock.set(now_ms());
    let c = at(dir, &clock, loopback()).await;
    let root = c.node.root();
    let by = refused(root.put("/other", "v").await).unwrap().0;
    assert_eq!(by, StampedBy::OwnEntry);
    let back = root.repair().await.unwrap().taken_back.unwrap();
    assert_eq!((back.entries, back.keys), (2, 2));
    root.put("/c", "after").await.unwrap();
    for peer in [&a, &b, &c] {
        let root = peer.node.root();
        has(&root, "/c", "after").await;
        has(&root, "/ahead", "only").await;
        let status = root.status().await;
        assert!(status.forks.iter().all(|fork| fork.closed), "{status:?}");
        assert_eq!(status.pending_entries, 0);
    }
    // Also after a restart, and a sync of everything.
    drop(root);
    let c = c.restart().await;
    c.node.root().put("/c", "again").await.unwrap();
    has(&b.node.root(), "/c", "again").await;
    assert_eq!(status_at(&a, &c.node.id()).strikes, 0);
    for peer in [a, b, c] {
        peer.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn t2_clock_set_forward_while_the_node_runs_is_refused() {
    let (a, b, dir, clock) = three().await;
    clock.set(now_ms());
    let c = at(dir, &clock, loopback()).await;
    let root = c.node.root();
    root.put("/c", "right").await.unwrap();
    let jump_ms = i64::try_from(TWO_HOURS_MS).unwrap();
    clock.jump(jump_ms);
    // At once, before the members were asked again.
    let (by, ahead_ms) = refused(root.put("/c", "ahead").await).unwrap();
    assert_eq!(by, StampedBy::Clock);
    assert!(ahead_ms.abs_diff(TWO_HOURS_MS) < 600_000, "{ahead_ms}");
    // And after: they are asked when the jump is noticed.
    tokio::time::sleep(Duration::from_secs(4)).await;
    until("they are connected again", async || {
        let is_online = status_at(&c, &a.node.id()).online && status_at(&c, &b.node.id()).online;
        is_online.then_some(())
    })
    .await;
    let by = refused(root.put("/c", "ahead").await).unwrap().0;
    assert_eq!(by, StampedBy::Clock);
    clock.jump(-jump_ms);
    until("it is right again", async || {
        root.put("/c", "right again").await.ok()
    })
    .await;
    has(&b.node.root(), "/c", "right again").await;
    for peer in [a, b, c] {
        peer.stop().await;
    }
}

// An invite redeemed at a node that is two hours ahead: the new member is one everywhere at once.
#[tokio::test(flavor = "multi_thread")]
async fn t2_invite_redeemed_at_a_node_two_hours_ahead_admits_at_once() {
    let (a, b) = (Peer::new("a").await, Peer::new("b").await);
    b.join(&a, Role::Admin).await;
    let dir = b.stop().await;
    let clock = Clock::manual(now_ms() + TWO_HOURS_MS);
    let b = at(dir, &clock, accepting()).await;
    until("b is back", async || {
        status_at(&b, &a.node.id()).online.then_some(())
    })
    .await;
    let d = Peer::new("d").await;
    d.join(&b, Role::Writer).await;
    d.node.root().put("/d", "here").await.unwrap();
    has(&a.node.root(), "/d", "here").await;
    has(&b.node.root(), "/d", "here").await;
    assert_eq!(a.node.members().role(&d.node.id()), Some(Role::Writer));
    assert_eq!(a.node.root().status().await.held_entries, 0);
    for peer in [a, b, d] {
        peer.stop().await;
    }
}
