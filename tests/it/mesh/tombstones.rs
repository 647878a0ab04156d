//! Tombstones go with the history that has them, once every writer knows them, on every node alike, and
//! nothing comes back.

use super::{
    history::{make_final, prune},
    hostile::attacker::until,
    roots::vouched,
    *,
};
use std::collections::{BTreeMap, BTreeSet};

use lattice::{
    id::EntryId,
    node::{HistoryError, HistoryPolicy},
    protocol::{
        anchors_act::{ActCollection, AnchorsAct},
        cursor::Cursor,
        entry::Op,
        finality::{Collections, Taking},
        frontier::FrontierTip,
        placed_act::PlacedAct,
    },
    store::{Damage, List, PastError, ReadError, Start},
};

async fn keys(store: &Store) -> u64 {
    store.status().await.keys
}

async fn live(store: &Store) -> Vec<String> {
    let items = store.list(List::default()).await.unwrap().into_iter();
    items
        .map(|item| String::from_utf8_lossy(&item.key).into_owned())
        .collect()
}

async fn damage(store: &Store) -> Vec<Damage> {
    store.verify().await.unwrap().damage
}

/// Waits until nothing is left of keys that an act took.
async fn has_keys(store: &Store, count: u64) {
    until("the tombstones go", async || {
        (store.is_swept() && keys(store).await == count).then_some(())
    })
    .await;
}

// As if no consumer could hold the history any more.
fn without_holds() -> HistoryPolicy {
    let mut policy = HistoryPolicy::default();
    policy.retention.hold_ms = 0;
    policy
}

/// Ends the history of `peer`, and makes acts until `count` keys are left. Nothing is written meanwhile.
async fn collect(peer: &Peer, store: &Store, count: u64) {
    make_final(peer, store).await;
    prune(peer, store).await;
    let policy = without_holds();
    until("the tombstones go", async || {
        match peer.node.make_final(store, &policy, true).await {
            Ok(_) | Err(HistoryError::AckMissing(_)) => {}
            Err(error) => panic!("{error}"),
        }
        (store.is_swept() && keys(store).await == count).then_some(())
    })
    .await;
    let (members, id) = (peer.node.members(), store.id());
    let mut acts = members.anchors_acts(&id);
    assert!(acts.any(|placed| placed.act.collection().is_some()));
}

async fn write_and_delete(store: &Store, prefix: &str, keys: u32) {
    let put = |key| Op::Put {
        key: format!("/{prefix}/{key}").into(),
        value: "here".into(),
        expires_ms: None,
    };
    store.batch((0..keys).map(put).collect()).await.unwrap();
    let delete = |key| Op::Delete {
        key: format!("/{prefix}/{key}").into(),
    };
    // The last one stays.
    let deletes = (0..keys - 1).map(delete).collect();
    store.batch(deletes).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn tombstones_go_on_all_nodes_and_nothing_comes_back() {
    let (a, b) = (Peer::new("a").await, Peer::new("b").await);
    b.join(&a, Role::Writer).await;
    let (of_a, of_b) = (a.node.data(), b.node.data());
    write_and_delete(&of_a, "a", 300).await;
    write_and_delete(&of_b, "b", 300).await;
    has(&of_b, "/a/299", "here").await;
    has(&of_a, "/b/299", "here").await;
    assert_eq!((keys(&of_a).await, keys(&of_b).await), (600, 600));
    let settled = async |store: &Store| {
        until("a root is settled", async || store.settled_root()).await;
    };
    settled(&of_a).await;
    settled(&of_b).await;
    // As long as the history has them, they stay.
    make_final(&a, &of_a).await;
    let more = a.node.make_final(&of_a, &without_holds(), true).await;
    assert_eq!(more.unwrap(), None);
    of_a.put("/a/299", "here").await.unwrap();
    collect(&a, &of_a, 2).await;
    let left = ["/a/299", "/b/299"];
    for store in [&of_a, &of_b] {
        has_keys(store, 2).await;
        assert_eq!(live(store).await, left);
        assert_eq!(damage(store).await, []);
        // That of before the sweep is not given any more.
        let settled = store.settled_root().map(|settled| settled.root);
        let now = store.root(&[]).await.unwrap().root;
        assert!(settled.is_none_or(|settled| settled == now));
    }
    let nodes = [a.node.id(), b.node.id()];
    let roots = [
        vouched(&a, &of_a, &nodes).await,
        vouched(&b, &of_b, &nodes).await,
    ];
    assert_eq!(roots[0], roots[1]);
    assert!(b.net.divergences(&of_b.id()).is_empty());

    // One has removed its history, the other has all of it: what they have stays the same, also after a start.
    assert_eq!(of_a.folded().unwrap().base.keys, 2);
    assert!(of_a.status().await.log_bytes < of_b.status().await.log_bytes);
    of_b.put("/a/7", "again").await.unwrap();
    of_b.delete("/a/299").await.unwrap();
    has(&of_a, "/a/7", "again").await;
    until("a has the delete", async || {
        (of_a.frontier() == of_b.frontier()).then_some(())
    })
    .await;
    // The other one makes the same base.
    prune(&b, &of_b).await;
    assert_eq!(of_b.folded().unwrap().base, of_a.folded().unwrap().base);
    let id = of_a.id();
    drop((of_a, of_b));
    let (a, b) = (a.restart().await, b.restart().await);
    let (of_a, of_b) = (a.node.data(), b.node.data());
    for store in [&of_a, &of_b] {
        // The new tombstone is there.
        has_keys(store, 3).await;
        assert_eq!(live(store).await, ["/a/7", "/b/299"]);
        assert_eq!(damage(store).await, []);
    }
    let root = async |store: &Store| store.root(&[]).await.unwrap().root;
    assert_eq!(root(&of_a).await, root(&of_b).await);
    // A new member gets the base; it never had the tombstones.
    let c = Peer::new("c").await;
    c.join(&a, Role::Writer).await;
    let of_c = c.node.data();
    has(&of_c, "/a/7", "again").await;
    has_keys(&of_c, 3).await;
    assert_eq!(root(&of_c).await, root(&of_a).await);
    assert_eq!(id, of_c.id());
    drop((of_a, of_b, of_c));
    for peer in [a, b, c] {
        peer.stop().await;
    }
}

/// A writer that has not acknowledged a delete holds the tombstone: it may have written without knowing it.
#[tokio::test(flavor = "multi_thread")]
async fn writer_that_is_away_holds_tombstones_and_its_value_wins_or_loses_by_its_stamp() {
    let (a, b) = (Peer::new("a").await, Peer::new("b").await);
    b.join(&a, Role::Writer).await;
    let (of_a, of_b) = (a.node.data(), b.node.data());
    of_a.put("/k", "old").await.unwrap();
    has(&of_b, "/k", "old").await;
    let id_of_b = b.node.id();
    drop(of_b);
    let dir = b.stop().await;
    of_a.delete("/k").await.unwrap();
    a.node.set_dormant(&id_of_b, true).await.unwrap();
    for number in 0..3 {
        of_a.put("/act", number.to_string()).await.unwrap();
        make_final(&a, &of_a).await;
        prune(&a, &of_a).await;
        let made = a.node.make_final(&of_a, &without_holds(), true).await;
        made.unwrap();
    }
    assert_eq!(keys(&of_a).await, 2, "the tombstone is there");
    let (members, id) = (a.node.members(), of_a.id());
    let mut acts = members.anchors_acts(&id);
    assert!(acts.all(|placed| placed.act.collection().is_none()));
    // It comes back with a value of before it knew the delete, written now.
    let node = lattice::Node::open(lattice::NodeConfig::new(dir.path()))
        .await
        .unwrap();
    node.data().put("/other", "b").await.unwrap();
    node.close().await.unwrap();
    drop(node);
    let b = Peer::at(dir, "").await;
    has(&of_a, "/other", "b").await;
    let of_b = b.node.data();
    collect(&a, &of_a, 2).await;
    for store in [&of_a, &of_b] {
        has_keys(store, 2).await;
        assert_eq!(live(store).await, ["/act", "/other"]);
    }
    drop((of_a, of_b));
    a.stop().await;
    b.stop().await;
}

/// Returns the cursor after all that the store has.
async fn cursor(store: &Store) -> Cursor {
    let mut watch = store.watch("/");
    while !matches!(
        timeout(SOON, watch.next()).await.unwrap().unwrap().unwrap(),
        WatchEvent::CaughtUp
    ) {}
    watch.cursor()
}

async fn to_the_end(store: &Store, cursor: Cursor) -> (usize, Vec<String>) {
    let (mut gaps, mut changes) = (0, Vec::new());
    let options = WatchOptions {
        start: Start::After(cursor),
        ..WatchOptions::default()
    };
    let mut watch = store.watch_with(options);
    loop {
        match timeout(SOON, watch.next()).await.unwrap().unwrap().unwrap() {
            WatchEvent::Gap { .. } => gaps += 1,
            WatchEvent::Change(change) => {
                changes.push(String::from_utf8_lossy(&change.key).into_owned());
            }
            WatchEvent::CaughtUp => return (gaps, changes),
            _other => {}
        }
    }
}

/// A node that keeps all its history does not say that a key never had a value which was deleted, and no watch
/// misses that one expired.
#[tokio::test(flavor = "multi_thread")]
async fn the_past_ends_where_tombstones_went_also_where_the_logs_have_more() {
    let (a, b) = (Peer::new("a").await, Peer::new("b").await);
    b.join(&a, Role::Writer).await;
    let (of_a, of_b) = (a.node.data(), b.node.data());
    of_a.put("/k", "value").await.unwrap();
    has(&of_b, "/k", "value").await;
    let there_ms = of_b.now_ms();
    let before = cursor(&of_b).await;
    tokio::time::sleep(Duration::from_millis(5)).await;
    write_and_delete(&of_a, "a", 3).await;
    of_a.delete("/k").await.unwrap();
    has(&of_b, "/a/2", "here").await;
    until("b has all", async || {
        (of_a.frontier() == of_b.frontier()).then_some(())
    })
    .await;
    let after = cursor(&of_b).await;
    let value = of_b.get_at(b"/k", there_ms).await.unwrap();
    assert_eq!(value.unwrap().value, "value");
    assert_eq!(of_b.history(b"/k", 10).await.unwrap().entries.len(), 2);
    collect(&a, &of_a, 1).await;
    has_keys(&of_b, 1).await;

    let is_ended = |error: PastError| match error {
        PastError::Read(ReadError::Pruned(taken)) => taken.only_state && taken.reach_ms > there_ms,
        _other => false,
    };
    assert!(is_ended(of_b.get_at(b"/k", there_ms).await.unwrap_err()));
    let listed = of_b.list_at(List::default(), there_ms).await;
    assert!(is_ended(listed.unwrap_err()));
    let now_ms = of_b.now_ms();
    assert!(is_ended(of_b.diff("", there_ms, now_ms).await.unwrap_err()));
    let history = of_b.history(b"/k", 10).await.unwrap();
    assert!(history.entries.is_empty() && history.pruned.unwrap().only_state);
    // What nobody has deleted is read as before.
    let item = of_b.get_at(b"/a/2", now_ms).await.unwrap();
    assert_eq!(item.unwrap().value, "here");

    // A watch that has not seen the deletes gets one gap and the state; one that has goes on.
    assert_eq!(
        to_the_end(&of_b, before).await,
        (1, vec!["/a/2".to_owned()])
    );
    assert_eq!(to_the_end(&of_b, after).await, (0, vec![]));
    drop((of_a, of_b));
    a.stop().await;
    b.stop().await;
}

/// A crash may come after a base was made and before the act is published that names it. The next one is not
/// made of it: other nodes could not make the same.
#[tokio::test(flavor = "multi_thread")]
async fn base_of_an_act_that_was_never_published_is_not_gone_on_with() {
    let (a, b) = (Peer::new("a").await, Peer::new("b").await);
    b.join(&a, Role::Writer).await;
    let (of_a, of_b) = (a.node.data(), b.node.data());
    write_and_delete(&of_a, "a", 30).await;
    has(&of_b, "/a/29", "here").await;
    let act = make_final(&a, &of_a).await;
    // It takes tombstones, and nobody hears of it.
    let through =
        |number, ordered| AnchorsAct::new(number, None, 1, act.anchors.clone(), ordered).unwrap();
    let placed = PlacedAct {
        by: a.node.id(),
        at: FrontierTip {
            seq: 1,
            id: EntryId([1; 32]),
        },
        store: of_a.id(),
        cites: Vec::new(),
        act: through(1, None),
    };
    let ordered = ActCollection {
        before: placed.at.id,
        own: BTreeMap::new(),
    };
    let next = through(2, Some(ordered));
    let next = PlacedAct::to_be(a.node.id(), of_a.id(), vec![placed.at.id], next);
    let collections = Collections::of_base(&next, [&placed]);
    let taking = Taking::new(collections.clone(), BTreeSet::new(), []);
    let orphan = of_a.fold(act.anchors.clone(), taking).await.unwrap();
    assert_eq!(orphan.base.keys, 1);

    // Entries are not removed by it.
    prune(&a, &of_a).await;
    prune(&b, &of_b).await;
    assert_eq!(of_a.folded().unwrap().base.keys, 30);
    assert_eq!(of_b.folded().unwrap().base, of_a.folded().unwrap().base);
    let taking = |collections| Taking::new(collections, BTreeSet::new(), []);
    let orphan = of_a.fold(act.anchors.clone(), taking(collections)).await;
    assert_eq!(orphan.unwrap().base.keys, 1);
    of_b.put("/b", "more").await.unwrap();
    has(&of_a, "/b", "more").await;
    make_final(&a, &of_a).await;
    assert_eq!(of_a.folded().unwrap().base.keys, 31);
    prune(&b, &of_b).await;
    assert_eq!(of_b.folded().unwrap().base, of_a.folded().unwrap().base);
    drop((of_a, of_b));
    a.stop().await;
    b.stop().await;
}

/// Values that have expired go like tombstones. A watch that has seen them expire goes on, after weeks too; one
/// that has not gets a gap.
#[tokio::test(flavor = "multi_thread")]
async fn expired_values_go_and_no_watch_misses_that_they_expired() {
    let clock = Clock::manual(Clock::system().now_ms());
    let a = Peer::with(tempfile::tempdir().unwrap(), "a", clock.clone(), loopback()).await;
    let store = a.node.data();
    let expires_ms = Some(clock.now_ms() + 60_000);
    let put = |key: &str, expires_ms| Op::Put {
        key: key.to_owned().into(),
        value: "here".into(),
        expires_ms,
    };
    let puts = vec![put("/lease", expires_ms), put("/stays", None)];
    store.batch(puts).await.unwrap();
    let before = cursor(&store).await;
    clock.advance(60_000);
    until("it has expired", async || {
        (store.status().await.expired_through_ms >= clock.now_ms()).then_some(())
    })
    .await;
    let after = cursor(&store).await;

    // Time passes without a lease, and without entries.
    clock.advance(5 * 3_600_000);
    assert_eq!(keys(&store).await, 2);
    collect(&a, &store, 1).await;
    assert_eq!(live(&store).await, ["/stays"]);
    assert_eq!(damage(&store).await, []);
    assert_eq!(
        to_the_end(&store, before.clone()).await,
        (1, vec!["/stays".to_owned()])
    );
    // Its time is that of the lease: it may have missed others.
    assert_eq!(to_the_end(&store, after).await.0, 1);
    let now = cursor(&store).await;
    assert_eq!(to_the_end(&store, now.clone()).await, (0, vec![]));
    drop(store);
    // Also after a start, when nothing has expired for long.
    let dir = a.stop().await;
    clock.advance(5 * 3_600_000);
    let a = Peer::with(dir, "", clock.clone(), loopback()).await;
    let store = a.node.data();
    assert_eq!(to_the_end(&store, now).await, (0, vec![]));
    assert_eq!(to_the_end(&store, before).await.0, 1);
    drop(store);
    a.stop().await;
}
