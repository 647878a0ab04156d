//! The end of history in a mesh: an admin makes final what all members have, and then each node removes
//! it by itself.

use super::{
    hostile::attacker::{status_at, until},
    roots::vouched,
    *,
};
use crate::support::writer::Writer;
use lattice::{
    id::Author,
    node::{Final, HistoryError, HistoryPolicy, Outlook, Pruned, Tending},
    protocol::finality::{Hold, NotYet, Taking},
    store::consumers::{ConsumerOptions, ConsumerStart},
};

const POLICY: fn() -> HistoryPolicy = HistoryPolicy::default;

pub(super) async fn fill(store: &Store, prefix: &str, entries: u32) {
    for number in 0..entries {
        let key = format!("/{prefix}/{}", number % 10);
        store.put(key, number.to_string()).await.unwrap();
    }
}

/// Makes all final that can be, once there is any.
pub(super) async fn make_final(peer: &Peer, store: &Store) -> Final {
    until("entries can become final", async || {
        match peer.node.make_final(store, &POLICY(), true).await {
            // Not one that only takes tombstones.
            Ok(made) => made.filter(|made| made.bytes > 0),
            Err(HistoryError::AckMissing(_)) => None,
            Err(error) => panic!("{error}"),
        }
    })
    .await
}

/// Removes final entries, once that is safe.
pub(super) async fn prune(peer: &Peer, store: &Store) -> Pruned {
    until("final entries can be removed", async || {
        match peer.node.prune(store, &POLICY(), true).await {
            Ok(pruned) => pruned,
            Err(HistoryError::NotYet(_) | HistoryError::NothingFinal) => None,
            Err(error) => panic!("{error}"),
        }
    })
    .await
}

async fn outlook(peer: &Peer, store: &Store) -> Outlook {
    peer.node.outlook(store, &POLICY(), true).await.unwrap()
}

/// A store of `a` that `b` has opened.
async fn shared(a: &Peer, b: &Peer) -> (Store, Store) {
    let id = a.node.create_store("jobs").await.unwrap().id;
    let of_a = a.node.open_store(&id).unwrap();
    let of_b = until("b opens it", async || b.node.open_store(&id)).await;
    (of_a, of_b)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_all_members_have_becomes_final_and_goes() {
    let (a, b) = (Peer::new("a").await, Peer::new("b").await);
    b.join(&a, Role::Writer).await;
    let (of_a, of_b) = shared(&a, &b).await;
    let nodes: [Author; 2] = [a.node.id(), b.node.id()];
    fill(&of_a, "a", 50).await;
    fill(&of_b, "b", 50).await;
    has(&of_b, "/a/9", "49").await;
    has(&of_a, "/b/9", "49").await;

    let made = make_final(&a, &of_a).await;
    assert_eq!(made.number, 1);
    let refused = b.node.make_final(&of_b, &POLICY(), true).await;
    assert!(matches!(
        refused,
        Err(HistoryError::NotAdmin {
            role: Some(Role::Writer)
        })
    ));
    // The acks may have been those of the moment before the last entries.
    let all = of_a.frontier();
    if made.anchors != all {
        assert_eq!(make_final(&a, &of_a).await.anchors, all);
    }
    for (peer, store) in [(&a, &of_a), (&b, &of_b)] {
        until("the act counts", async || {
            (store.finality().last() == all).then_some(())
        })
        .await;
        let pruned = prune(peer, store).await;
        assert!(pruned.removed.branches >= 2, "{pruned:?}");
        assert_eq!(store.status().await.log_bytes, 0);
        // Nothing is left to be removed.
        let seen = outlook(peer, store).await;
        assert_eq!(
            (seen.anchors, seen.open_bytes, &*seen.not_yet),
            (all.clone(), 0, &[][..])
        );
    }
    let base = |store: &Store| store.folded().unwrap().base;
    assert_eq!(base(&of_a), base(&of_b), "the same base on both");

    fill(&of_a, "a", 55).await;
    has(&of_b, "/a/4", "54").await;
    let roots = [
        vouched(&a, &of_a, &nodes).await,
        vouched(&b, &of_b, &nodes).await,
    ];
    assert_eq!(roots[0], roots[1]);
    let id = of_a.id();
    drop((of_a, of_b));
    let (a, b) = (a.restart().await, b.restart().await);
    for peer in [&a, &b] {
        let store = peer.node.open_store(&id).unwrap();
        has(&store, "/a/4", "54").await;
        has(&store, "/b/9", "49").await;
        let verified = store.verify().await.unwrap();
        assert!(verified.damage.is_empty(), "{verified:?}");
        assert_eq!(store.finality().last(), all);
    }
    a.stop().await;
    b.stop().await;
}

/// Admin A and writer C are never online at the same time; both meet B. A never heard what C has, so nothing
/// became final, and after a restart A had to meet every member again.
#[tokio::test(flavor = "multi_thread")]
async fn admin_learns_from_one_member_what_another_has_and_keeps_it() {
    let (a, b) = (Peer::new("a").await, Peer::new("b").await);
    b.join(&a, Role::Admin).await;
    let (of_a, of_b) = shared(&a, &b).await;
    let id = of_a.id();
    fill(&of_a, "a", 20).await;
    has(&of_b, "/a/9", "19").await;
    drop(of_a);
    let dir_of_a = a.stop().await;
    let c = Peer::new("c").await;
    c.join(&b, Role::Writer).await;
    let id_of_c = c.node.id();
    let of_c = until("c opens it", async || c.node.open_store(&id)).await;
    fill(&of_c, "c", 20).await;
    has(&of_b, "/c/9", "19").await;
    until("b knows that c has everything", async || {
        (status_at(&b, &id_of_c).behind == Some(0)).then_some(())
    })
    .await;
    drop(of_c);
    c.stop().await;

    let a = Peer::at(dir_of_a, "").await;
    let of_a = a.node.open_store(&id).unwrap();
    has(&of_a, "/c/9", "19").await;
    let made = make_final(&a, &of_a).await;
    assert!(made.anchors.seq(&id_of_c) > 0, "{made:?}");
    until("the act is everywhere", async || {
        (of_b.finality().last() == made.anchors).then_some(())
    })
    .await;
    drop((of_a, of_b));
    b.stop().await;
    let a = a.restart().await;
    let of_a = a.node.open_store(&id).unwrap();
    let seen = a.node.outlook(&of_a, &POLICY(), true).await.unwrap();
    assert!(seen.watermark.is_ok(), "{:?}", seen.watermark);
    a.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn member_that_is_away_is_waited_for_until_it_is_dormant() {
    let (a, b) = (Peer::new("a").await, Peer::new("b").await);
    b.join(&a, Role::Writer).await;
    let (of_a, of_b) = shared(&a, &b).await;
    let id_of_b = b.node.id();
    fill(&of_b, "b", 20).await;
    has(&of_a, "/b/9", "19").await;
    let before = make_final(&a, &of_a).await.anchors;
    let dir = b.stop().await;
    fill(&of_a, "a", 50).await;

    let made = a.node.make_final(&of_a, &POLICY(), true).await.unwrap();
    let seen = outlook(&a, &of_a).await;
    let held = seen.watermark.unwrap().held;
    let by_b = |hold: &Hold| matches!(hold, Hold::Members(nodes) if nodes.contains(&id_of_b));
    assert!(held.iter().any(|held| by_b(&held.by)), "{held:?}");
    let last = made.map_or(before, |made| made.anchors);
    assert_ne!(last, of_a.frontier(), "b is waited for");

    a.node.set_dormant(&id_of_b, true).await.unwrap();
    assert_eq!(make_final(&a, &of_a).await.anchors, of_a.frontier());
    prune(&a, &of_a).await;
    drop(dir);
    a.stop().await;
}

/// Nobody else has to acknowledge anything.
#[tokio::test(flavor = "multi_thread")]
async fn node_alone_makes_its_own_entries_final() {
    let dir = tempfile::tempdir().unwrap();
    let node = lattice::Node::open(lattice::NodeConfig::new(dir.path()).create(true)).await;
    let node = node.unwrap();
    let id = node.create_store("s").await.unwrap().id;
    let store = node.open_store(&id).unwrap();
    let refused = node.prune(&store, &POLICY(), true).await;
    assert!(
        matches!(refused, Err(HistoryError::NothingFinal)),
        "{refused:?}"
    );
    assert_eq!(
        node.make_final(&store, &POLICY(), true).await.unwrap(),
        None
    );
    fill(&store, "k", 100).await;
    // Too few, and too young.
    assert_eq!(
        node.make_final(&store, &POLICY(), false).await.unwrap(),
        None
    );
    let made = node
        .make_final(&store, &POLICY(), true)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(made.anchors, store.frontier());
    assert_eq!(node.prune(&store, &POLICY(), false).await.unwrap(), None);
    let pruned = node.prune(&store, &POLICY(), true).await.unwrap().unwrap();
    assert_eq!((pruned.act, pruned.removed.branches), (1, 1));
    assert_eq!(store.status().await.log_bytes, 0);
    let refused = node.make_final(&node.root(), &POLICY(), true).await;
    assert!(matches!(refused, Err(HistoryError::Root)), "{refused:?}");
    for number in 90..100 {
        let key = format!("/k/{}", number % 10);
        has(&store, &key, &number.to_string()).await;
    }
    node.close().await.unwrap();
}

/// Without anybody asking, only what the policy does not keep is removed.
#[tokio::test(flavor = "multi_thread")]
async fn node_removes_by_itself_what_the_policy_does_not_keep() {
    let dir = tempfile::tempdir().unwrap();
    let node = lattice::Node::open(lattice::NodeConfig::new(dir.path()).create(true)).await;
    let node = node.unwrap();
    let id = node.create_store("s").await.unwrap().id;
    let store = node.open_store(&id).unwrap();
    fill(&store, "k", 100).await;
    let mut policy = POLICY();
    let tended = node.tend(&store, &policy).await.unwrap();
    assert_eq!(tended, lattice::node::Tended::default());
    node.make_final(&store, &policy, true)
        .await
        .unwrap()
        .unwrap();
    let before = store.log_bytes();
    assert!(before > 0);
    policy.retention.bytes = before;
    assert_eq!(node.tend(&store, &policy).await.unwrap().pruned, None);
    policy.retention.bytes = before - 1;
    let pruned = node.tend(&store, &policy).await.unwrap().pruned.unwrap();
    assert_eq!((pruned.act, store.log_bytes()), (1, 0));
    // What is gone is not removed again.
    policy.retention.bytes = 0;
    assert_eq!(
        node.tend(&store, &policy).await.unwrap(),
        lattice::node::Tended::default()
    );
    node.close().await.unwrap();
}

/// The time in an act stood for the arrival of entries. So an admin whose clock is 40 days behind had all
/// nodes remove them at once.
#[tokio::test(flavor = "multi_thread")]
async fn slow_clock_of_an_admin_removes_nothing_early() {
    let (dir, clock) = (
        tempfile::tempdir().unwrap(),
        Clock::manual(Clock::system().now_ms()),
    );
    let mut config = lattice::NodeConfig::new(dir.path()).create(true);
    config.clock = clock.clone();
    let node = lattice::Node::open(config).await.unwrap();
    let id = node.create_store("s").await.unwrap().id;
    let store = node.open_store(&id).unwrap();
    fill(&store, "k", 10).await;
    let anchors = store.frontier();
    let base = store
        .fold(anchors.clone(), Taking::default())
        .await
        .unwrap()
        .base;
    let policy = POLICY();
    let through_ms = clock.now_ms() - policy.retention.age_ms - 1;
    let act =
        lattice::protocol::anchors_act::AnchorsAct::new(1, Some(base), through_ms, anchors, None);
    node.publish_act(&store, &act.unwrap()).await.unwrap();
    assert_eq!(node.prune(&store, &policy, false).await.unwrap(), None);
    assert!(store.log_bytes() > 0);
    clock.set(clock.now_ms() + policy.retention.age_ms);
    let pruned = node.prune(&store, &policy, false).await.unwrap();
    assert_eq!((pruned.unwrap().act, store.log_bytes()), (1, 0));
    node.close().await.unwrap();
}

/// A member that forked its log once kept the history of the store on all nodes for ever.
#[tokio::test(flavor = "multi_thread")]
async fn void_branch_holds_history_for_a_week() {
    let (dir, clock) = (
        tempfile::tempdir().unwrap(),
        Clock::manual(Clock::system().now_ms()),
    );
    let mut config = lattice::NodeConfig::new(dir.path()).create(true);
    config.clock = clock.clone();
    let node = lattice::Node::open(config).await.unwrap();
    let id = node.create_store("s").await.unwrap().id;
    let store = node.open_store(&id).unwrap();
    let mut writer = Writer::new([8; 32], id);
    let (secret, _expires_ms) = node.invite(Role::Writer, 60_000).await.unwrap();
    node.redeem(&secret, writer.author()).await.unwrap();
    let now_ms = clock.now_ms();
    let write = |writer: &mut Writer, key: &'static str| {
        let put = lattice::protocol::entry::Op::Put {
            key: key.into(),
            value: "v".into(),
            expires_ms: None,
        };
        writer.write(now_ms, vec![put], std::collections::BTreeSet::new(), false)
    };
    let first = write(&mut writer, "/b/1");
    let mut copy = writer.clone();
    let last = write(&mut writer, "/b/2");
    let void = write(&mut copy, "/void");
    for entry in [&first, &last, &void] {
        let taken = store.ingest(vec![entry.signed.encode().into()]).await;
        assert!(matches!(
            taken.unwrap()[..],
            [lattice::store::Ingested::Applied(_)]
        ));
    }
    let tip = lattice::protocol::frontier::FrontierTip::of(&last);
    let anchors: lattice::protocol::frontier::Frontier =
        [(writer.author(), tip)].into_iter().collect();
    let base = store
        .fold(anchors.clone(), Taking::default())
        .await
        .unwrap()
        .base;
    let act = lattice::protocol::anchors_act::AnchorsAct::new(1, Some(base), now_ms, anchors, None);
    node.publish_act(&store, &act.unwrap()).await.unwrap();
    assert!(store.get(b"/void").await.unwrap().is_none());
    let kept = node.prune(&store, &POLICY(), true).await;
    let Err(HistoryError::NotYet(reasons)) = kept else {
        panic!("{kept:?}")
    };
    assert!(
        matches!(reasons[..], [NotYet::Voided { .. }]),
        "{reasons:?}"
    );
    clock.set(clock.now_ms() + POLICY().retention.hold_ms);
    let pruned = node.prune(&store, &POLICY(), true).await.unwrap().unwrap();
    assert_eq!((pruned.removed.voids, pruned.removed.branches), (1, 1));
    has(&store, "/b/2", "v").await;
    assert!(store.get(b"/void").await.unwrap().is_none());
    assert!(store.verify().await.unwrap().damage.is_empty());
    node.close().await.unwrap();
}

/// A consumer that has not got entries keeps them, for some time.
#[tokio::test(flavor = "multi_thread")]
async fn consumer_holds_history_until_it_is_done_or_too_old() {
    let dir = tempfile::tempdir().unwrap();
    let node = lattice::Node::open(lattice::NodeConfig::new(dir.path()).create(true)).await;
    let node = node.unwrap();
    let id = node.create_store("s").await.unwrap().id;
    let store = node.open_store(&id).unwrap();
    fill(&store, "k", 20).await;
    let options = ConsumerOptions {
        from: ConsumerStart::Beginning,
        ..ConsumerOptions::default()
    };
    store.consumer("c").create(options).await.unwrap();
    let mut policy = POLICY();
    node.make_final(&store, &policy, true)
        .await
        .unwrap()
        .unwrap();
    // By its age all may go.
    policy.retention.age_ms = 0;
    assert_eq!(node.tend(&store, &policy).await.unwrap().pruned, None);
    assert!(store.log_bytes() > 0);
    policy.retention.hold_ms = 0;
    assert!(node.tend(&store, &policy).await.unwrap().pruned.is_some());
    assert_eq!(store.log_bytes(), 0);
    node.close().await.unwrap();
}

/// A node whose state is another one than the admin's keeps its entries.
#[tokio::test(flavor = "multi_thread")]
async fn entries_stay_while_another_base_follows_from_them() {
    let dir = tempfile::tempdir().unwrap();
    let node = lattice::Node::open(lattice::NodeConfig::new(dir.path()).create(true)).await;
    let node = node.unwrap();
    let id = node.create_store("s").await.unwrap().id;
    let store = node.open_store(&id).unwrap();
    fill(&store, "k", 10).await;
    let base = lattice::protocol::anchors_act::ActBase {
        hash: lattice::protocol::anchors_act::BaseHash([7; 32]),
        keys: 10,
    };
    let anchors = store.frontier();
    let act = lattice::protocol::anchors_act::AnchorsAct::new(1, Some(base), 0, anchors, None);
    node.publish_act(&store, &act.unwrap()).await.unwrap();
    assert_eq!(store.finality().last(), store.frontier());
    let kept = node.prune(&store, &POLICY(), true).await;
    let Err(HistoryError::NotYet(reasons)) = kept else {
        panic!("{kept:?}")
    };
    assert!(
        matches!(reasons[..], [NotYet::OtherBase { .. }]),
        "{reasons:?}"
    );
    assert!(store.status().await.log_bytes > 0);
    node.close().await.unwrap();
}

/// What goes is the oldest of what is final, act by act, and no more than the policy wants.
#[tokio::test(flavor = "multi_thread")]
async fn oldest_entries_go_first_and_the_policy_keeps_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    let node = lattice::Node::open(lattice::NodeConfig::new(dir.path()).create(true)).await;
    let node = node.unwrap();
    let id = node.create_store("s").await.unwrap().id;
    let store = node.open_store(&id).unwrap();
    let (mut policy, mut acts, mut times) = (POLICY(), Vec::new(), Vec::new());
    for act in 0..5 {
        // Bytes are counted in pieces of 64 KiB.
        for number in 0..40 {
            let value = format!("{act} {number}{}", " ".repeat(8000));
            store
                .put(format!("/k/{}", number % 10), value)
                .await
                .unwrap();
        }
        let made = node.make_final(&store, &policy, true).await;
        acts.push(made.unwrap().unwrap().anchors);
        times.push(store.now_ms());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // Many more that are not final: they end nobody's history.
    fill(&store, "open", 1000).await;
    let tended = node.tend(&store, &policy).await.unwrap();
    assert_eq!(tended.pruned, None);
    let open_bytes = store.bytes_after(&acts[4]);
    policy.retention.bytes = store.bytes_after(&acts[2]) - open_bytes;
    let pruned = node.tend(&store, &policy).await.unwrap().pruned.unwrap();
    assert_eq!((pruned.act, store.begins()), (3, acts[2].clone()));
    policy.retention.bytes = store.log_bytes() - open_bytes - 1;
    let pruned = node.tend(&store, &policy).await.unwrap().pruned.unwrap();
    assert_eq!((pruned.act, store.begins()), (4, acts[3].clone()));
    // The past reaches back to the beginning of the logs, though the newest base has later entries.
    let reaches = async |store: &Store| {
        for (act, is_there) in [(2, false), (3, true), (4, true)] {
            let found = store.get_at(b"/k/7", times[act]).await;
            let Ok(found) = found else {
                assert!(!is_there, "{found:?}");
                continue;
            };
            let found = found.unwrap().value;
            assert!(is_there && found.starts_with(format!("{act} 37").as_bytes()));
        }
        let now = store.get(b"/k/7").await.unwrap().unwrap();
        assert!(now.value.starts_with(b"4 37"));
    };
    reaches(&store).await;
    assert!(store.verify().await.unwrap().damage.is_empty());
    node.close().await.unwrap();
    drop((store, node));
    // The state is built from the base and the rest.
    std::fs::remove_file(dir.path().join(format!("stores/{id}/state.db"))).unwrap();
    let node = lattice::Node::open(lattice::NodeConfig::new(dir.path())).await;
    let node = node.unwrap();
    let store = node.open_store(&id).unwrap();
    assert_eq!(store.begins(), acts[3]);
    has(&store, "/open/9", "999").await;
    reaches(&store).await;
    // The last act has the newest base, so no older one is needed.
    let older = dir
        .path()
        .join(format!("stores/{id}/base/beginning.manifest"));
    assert!(older.exists());
    node.prune(&store, &policy, true).await.unwrap().unwrap();
    assert!(!older.exists());
    assert_eq!(store.begins(), acts[4]);
    node.close().await.unwrap();
}

/// Waits until `peer` knows that `member` has its newest entry of `store`.
async fn has_acknowledged(peer: &Peer, member: &Peer, store: &Store) {
    let own = peer.node.id();
    let frontier = store.frontier();
    let [tip] = frontier.tips(&own) else {
        panic!("one branch")
    };
    until("the member acknowledges the entry", async || {
        let nodes = peer.net.who_has(store, &own, *tip);
        nodes.contains(&member.node.id()).then_some(())
    })
    .await;
}

/// A member may be gone before it has ever acknowledged anything. It does not hold history for ever.
#[tokio::test(flavor = "multi_thread")]
async fn member_that_was_never_heard_becomes_dormant_by_itself() {
    let (a, b) = (Peer::new("a").await, Peer::new("b").await);
    let c = Peer::new("c").await;
    b.join(&a, Role::Writer).await;
    c.join(&a, Role::Writer).await;
    let gone = c.node.id();
    c.stop().await;
    // It has never heard of this store.
    let (of_a, of_b) = shared(&a, &b).await;
    let mut policy = POLICY();
    policy.store.dormant_after_ms = 3_600_000;
    a.node.set_history_policy(&of_a, &policy).await.unwrap();
    let mut tending = Tending::default();
    let mut passed = 0;
    while !a.node.is_dormant(&gone).await.unwrap() {
        assert!(passed < 600, "it is waited for after {passed} minutes");
        of_a.put("/n", passed.to_string()).await.unwrap();
        has(&of_b, "/n", &passed.to_string()).await;
        has_acknowledged(&a, &b, &of_a).await;
        passed += 10;
        tending.look(&a.node, Duration::from_secs(600)).await;
    }
    assert!(passed >= 60, "{passed} minutes");
    assert!(!a.node.is_dormant(&b.node.id()).await.unwrap());
    make_final(&a, &of_a).await;
    for peer in [a, b] {
        peer.stop().await;
    }
}

/// A member that makes no progress is not waited for, and is waited for again once it is back.
#[tokio::test(flavor = "multi_thread")]
async fn member_without_progress_becomes_dormant_by_itself() {
    let a = Peer::new("a").await;
    let (b, c) = (Peer::new("b").await, Peer::new("c").await);
    b.join(&a, Role::Writer).await;
    c.join(&a, Role::Writer).await;
    let (of_a, of_b) = shared(&a, &b).await;
    let of_c = until("c opens it", async || c.node.open_store(&of_a.id())).await;
    fill(&of_a, "a", 20).await;
    has(&of_b, "/a/9", "19").await;
    has(&of_c, "/a/9", "19").await;
    let mut policy = POLICY();
    policy.store.dormant_after_ms = 3_600_000;
    a.node.set_history_policy(&of_a, &policy).await.unwrap();
    assert_eq!(a.node.history_policy(&of_a.id()).await.unwrap(), policy);

    let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
    let mut tending = Tending::default();
    tending.look(&a.node, minutes(10)).await;
    let id = b.node.id();
    drop(of_b);
    let away = b.stop().await;
    let mut passed = 0;
    while !a.node.is_dormant(&id).await.unwrap() {
        assert!(passed < 600, "b is waited for after {passed} minutes");
        let number = of_a.frontier().seq(&a.node.id()).to_string();
        of_a.put("/n", number.clone()).await.unwrap();
        has(&of_c, "/n", &number).await;
        // Time without news of anybody does not count for long.
        has_acknowledged(&a, &c, &of_a).await;
        passed += 10;
        tending.look(&a.node, minutes(10)).await;
    }
    assert!(passed >= 60, "{passed} minutes");
    assert!(!a.node.is_dormant(&c.node.id()).await.unwrap());
    // The acks may have been those of the moment before the last entry.
    let all = of_a.frontier();
    if make_final(&a, &of_a).await.anchors != all {
        assert_eq!(make_final(&a, &of_a).await.anchors, all);
    }

    let b = Peer::at(away, "").await;
    let of_b = until("b opens it", async || b.node.open_store(&of_a.id())).await;
    for number in 0.. {
        of_b.put("/b", number.to_string()).await.unwrap();
        has(&of_a, "/b", &number.to_string()).await;
        tending.look(&a.node, minutes(10)).await;
        if !a.node.is_dormant(&id).await.unwrap() {
            break;
        }
        assert!(number < 100, "b is back and not waited for");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for peer in [a, b, c] {
        peer.stop().await;
    }
}

/// The best ranked admin decides who is waited for. Once it is gone itself, the next one does, and history
/// goes on to end.
#[tokio::test(flavor = "multi_thread")]
async fn next_admin_takes_over_from_one_that_is_gone() {
    let a = Peer::new("a").await;
    let (b, c) = (Peer::new("b").await, Peer::new("c").await);
    b.join(&a, Role::Admin).await;
    c.join(&a, Role::Writer).await;
    let (of_a, of_b) = shared(&a, &b).await;
    let of_c = until("c opens it", async || c.node.open_store(&of_a.id())).await;
    let (id_of_a, id_of_c) = (a.node.id(), c.node.id());
    let mut policy = POLICY();
    policy.store.dormant_after_ms = 3_600_000;
    a.node.set_history_policy(&of_a, &policy).await.unwrap();
    until("b has the policy", async || {
        (b.node.history_policy(&of_b.id()).await.unwrap() == policy).then_some(())
    })
    .await;
    fill(&of_a, "a", 20).await;
    has(&of_b, "/a/9", "19").await;
    has(&of_c, "/a/9", "19").await;

    // C is gone. That is for A to say, though B has heard C.
    until("b has heard all members", async || {
        outlook(&b, &of_b).await.watermark.ok()
    })
    .await;
    let mut tending = Tending::default();
    let ten_minutes = Duration::from_secs(600);
    tending.look(&b.node, ten_minutes).await;
    drop(of_c);
    let away = c.stop().await;
    // Not each look has news of A, and time without news counts for half an hour only.
    for number in 0..60 {
        of_a.put("/n", number.to_string()).await.unwrap();
        has(&of_b, "/n", &number.to_string()).await;
        tending.look(&b.node, ten_minutes).await;
    }
    for gone in [&id_of_a, &id_of_c] {
        assert!(!b.node.is_dormant(gone).await.unwrap());
    }
    let c = Peer::at(away, "").await;
    let of_c = until("c opens it", async || c.node.open_store(&of_a.id())).await;
    has(&of_c, "/n", "59").await;

    // And now A.
    let mut tending = Tending::default();
    tending.look(&b.node, ten_minutes).await;
    drop(of_a);
    let away = a.stop().await;
    let mut passed = 0;
    while !b.node.is_dormant(&id_of_a).await.unwrap() {
        assert!(passed < 600, "a is waited for after {passed} minutes");
        let number = format!("b{passed}");
        of_b.put("/n", number.clone()).await.unwrap();
        has(&of_c, "/n", &number).await;
        has_acknowledged(&b, &c, &of_b).await;
        passed += 10;
        tending.look(&b.node, ten_minutes).await;
    }
    assert!(passed >= 60, "{passed} minutes");
    assert!(!b.node.is_dormant(&id_of_c).await.unwrap());
    // The acks may have been those of the moment before the last entry.
    let all = of_b.frontier();
    if make_final(&b, &of_b).await.anchors != all {
        assert_eq!(make_final(&b, &of_b).await.anchors, all);
    }
    prune(&b, &of_b).await;
    let a = Peer::at(away, "").await;
    let of_a = until("a opens it", async || a.node.open_store(&of_b.id())).await;
    has(&of_a, "/n", &format!("b{}", passed - 10)).await;
    for peer in [a, b, c] {
        peer.stop().await;
    }
}

/// Nobody but an admin sets how much is kept.
#[tokio::test(flavor = "multi_thread")]
async fn policy_is_set_by_an_admin_and_followed_by_all() {
    let (a, b) = (Peer::new("a").await, Peer::new("b").await);
    b.join(&a, Role::Writer).await;
    let (of_a, of_b) = shared(&a, &b).await;
    let mut policy = POLICY();
    policy.retention.bytes = 5;
    let refused = b.node.set_history_policy(&of_b, &policy).await;
    assert!(
        matches!(refused, Err(HistoryError::NotAdmin { .. })),
        "{refused:?}"
    );
    a.node.set_history_policy(&of_a, &policy).await.unwrap();
    until("b has it", async || {
        (b.node.history_policy(&of_b.id()).await.unwrap() == policy).then_some(())
    })
    .await;
    let root = a.node.root();
    let refused = a.node.set_history_policy(&root, &policy).await;
    assert!(matches!(refused, Err(HistoryError::Root)), "{refused:?}");
    a.stop().await;
    b.stop().await;
}
