//! Stamps that are far ahead, and clocks that were wrong: nobody else is harmed, and nothing that
//! this node does later.

use std::collections::BTreeSet;

use lattice::{
    Node, NodeConfig, Store,
    clock::Clock,
    id::{EntryId, StoreId},
    limits::{DRIFT_MS_MAX, HELD_BYTES_MAX, PARENTS_MAX, STAMP_MS_MAX, VALUE_BYTES_MAX},
    protocol::{
        change::Kind,
        entry::{Header, Op, VerifiedEntry, sign},
        frontier::FrontierTip,
        hlc::Hlc,
        membership::role::{Act, Role, Tips, role_key},
    },
    store::{Condition, Ingested, StampedBy, Watch, WatchEvent, Write, WriteError},
};

use crate::{
    entries::acts,
    support::{
        disk::MemDisk,
        model::{AUTHOR_A, AUTHOR_B, AUTHOR_C, author_of, key_of, put},
        store,
        watch::next,
        writer::Writer,
    },
};

const NOW_MS: u64 = 1_700_000_000_000;
const STORE: StoreId = StoreId([3; 16]);
const TEN_YEARS_MS: u64 = 10 * 365 * 86_400_000;

// An entry after `prev` with the last stamp that there is.
fn at_the_end_of_time(
    secret: [u8; 32],
    store: StoreId,
    prev: &VerifiedEntry,
    ops: Vec<Op>,
) -> VerifiedEntry {
    let header = Header {
        store,
        seq: prev.header.seq + 1,
        prev: Some(prev.id),
        hlc: Hlc {
            wall_ms: STAMP_MS_MAX,
            counter: u32::MAX,
        },
        atomic: false,
        cause: None,
        parents: Vec::new(),
    };
    sign(&key_of(secret), header, ops).unwrap()
}

// A node, which is the creator of its root store, and a writer there. With it the present time.
struct Root {
    _dir: tempfile::TempDir,
    node: Node,
    store: Store,
    now_ms: u64,
    writer: Writer,
    first: VerifiedEntry,
}

async fn root() -> Root {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::open(NodeConfig::new(dir.path()).create(true));
    let node = node.await.unwrap();
    let store = node.root();
    let (secret, _expires_ms) = node.invite(Role::Writer, 60_000).await.unwrap();
    node.redeem(&secret, author_of(AUTHOR_B)).await.unwrap();
    let now_ms = store.now_ms();
    let mut writer = Writer::new(AUTHOR_B, store.id());
    let first = writer.write(now_ms, vec![put("/b", "1")], BTreeSet::new(), false);
    let taken = acts::take_in(&store, std::slice::from_ref(&first)).await;
    assert_eq!(taken, [Ingested::Applied(first.id)]);
    Root {
        _dir: dir,
        node,
        store,
        now_ms,
        writer,
        first,
    }
}

impl Root {
    fn bomb(&self, op: Op) -> VerifiedEntry {
        at_the_end_of_time(AUTHOR_B, self.store.id(), &self.first, vec![op])
    }

    // Checks that this node has removed the writer with a stamp of the present.
    async fn assert_removed(&self) {
        assert!(self.node.members().is_removed(&author_of(AUTHOR_B)));
        let heads = self.store.heads(&role_key(&author_of(AUTHOR_B))).await;
        let heads = heads.unwrap();
        let own = heads
            .iter()
            .find(|head| head.entry.author == self.node.id());
        let stamped_ms = own.unwrap().entry.hlc.wall_ms;
        assert!(stamped_ms < self.now_ms + DRIFT_MS_MAX, "{stamped_ms}");
    }
}

// One such entry of one writer ended all writing in the root store, for ever, on every node.
#[tokio::test(flavor = "multi_thread")]
async fn one_entry_at_the_end_of_time_stops_nobody() {
    let root = root().await;
    let bomb = root.bomb(put("/k", "bomb"));
    let taken = acts::take_in(&root.store, std::slice::from_ref(&bomb)).await;
    assert!(matches!(taken[..], [Ingested::Held { .. }]), "{taken:?}");
    let written = root.store.put("/k", "mine").await.unwrap();
    assert!(written.hlc.wall_ms < root.now_ms + DRIFT_MS_MAX);
    let item = root.store.get(b"/k").await.unwrap().unwrap();
    assert_eq!(item.value, "mine");
    root.node.remove(&author_of(AUTHOR_B)).await.unwrap();
    root.assert_removed().await;
    let status = root.store.status().await;
    assert_eq!((status.held_entries, status.held.len()), (1, 1));
}

// Acts are never held, and they move nobody's clock: a grant to oneself and a leave at the end of
// time do not keep an admin from removing their author.
#[tokio::test(flavor = "multi_thread")]
async fn acts_at_the_end_of_time_move_no_clock() {
    let root = root().await;
    let grant = root.bomb(acts::grant(AUTHOR_B, Role::Admin));
    let taken = acts::take_in(&root.store, std::slice::from_ref(&grant)).await;
    assert_eq!(taken, [Ingested::Applied(grant.id)]);
    root.node.remove(&author_of(AUTHOR_B)).await.unwrap();
    root.assert_removed().await;

    // A leave counts: the row of its author has a head at the end of time, which the removal that
    // confirms it must not cite.
    let root = self::root().await;
    let leave = root.bomb(acts::act(AUTHOR_B, &Act::Remove(Tips::default())));
    let taken = acts::take_in(&root.store, std::slice::from_ref(&leave)).await;
    assert_eq!(taken, [Ingested::Applied(leave.id)]);
    assert!(root.node.members().is_removed(&author_of(AUTHOR_B)));
    root.node.confirm_departures().await.unwrap();
    root.assert_removed().await;
    let before = root.store.frontier();
    root.node.confirm_departures().await.unwrap();
    assert_eq!(root.store.frontier(), before, "once");
}

// Far-ahead data is held, and an act of the same author that stands on it waits with it.
#[tokio::test(flavor = "multi_thread")]
async fn an_act_after_far_ahead_data_waits_with_it() {
    let mut root = root().await;
    let far_ms = root.now_ms + 2 * DRIFT_MS_MAX;
    let writer = &mut root.writer;
    let data = writer.write(far_ms, vec![put("/k", "later")], BTreeSet::new(), false);
    let leave = acts::act(AUTHOR_B, &Act::Remove(Tips::default()));
    let leave = writer.write(far_ms, vec![leave], BTreeSet::new(), false);
    for entries in [vec![data.clone(), leave.clone()], vec![leave, data]] {
        for taken in acts::take_in(&root.store, &entries).await {
            let waits = matches!(taken, Ingested::Held { .. });
            assert!(waits, "{taken:?}");
        }
    }
    assert!(!root.node.members().is_removed(&author_of(AUTHOR_B)));
    assert_eq!(root.store.status().await.held_entries, 2);
}

// The members within reach would hold what this node writes: it signs nothing, and the error names the
// reason.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_members_would_hold_is_not_signed() {
    let clock = Clock::manual(NOW_MS);
    let config = store::config(STORE, AUTHOR_A, &clock, MemDisk::default());
    let store = Store::open(config).await.unwrap();
    let refused_by = async || match store.put("/k", "v").await {
        Err(WriteError::FarAhead { by, ahead_ms }) => Some((by, ahead_ms)),
        Err(error) => panic!("{error}"),
        Ok(_written) => None,
    };
    let drift_ms = i64::try_from(DRIFT_MS_MAX).unwrap();
    clock.set_members_ahead(Some(-drift_ms));
    assert_eq!(refused_by().await, None, "exactly at the bound");
    clock.set_members_ahead(Some(-2 * drift_ms));
    let by_clock = Some((StampedBy::Clock, 2 * DRIFT_MS_MAX));
    assert_eq!(refused_by().await, by_clock);
    assert!(store.status().await.poisoned.is_some(), "status says so");
    // Nobody is within reach: nobody would hold it. Then the clock is right again.
    clock.set_members_ahead(None);
    clock.set(NOW_MS + 2 * DRIFT_MS_MAX);
    assert_eq!(refused_by().await, None);
    clock.set(NOW_MS);
    clock.set_members_ahead(Some(0));
    let by = refused_by().await.map(|(by, _)| by);
    assert_eq!(by, Some(StampedBy::Cited));
    let other = store.put("/other", "v").await;
    let by_own = matches!(
        other,
        Err(WriteError::FarAhead {
            by: StampedBy::OwnEntry,
            ..
        })
    );
    assert!(by_own, "{other:?}");
    clock.set(NOW_MS + DRIFT_MS_MAX);
    assert_eq!(refused_by().await, None);
}

// The node that redeemed the invite is two hours ahead: its new member is one everywhere at once, and
// what this node signs later has the time of its own clock.
#[tokio::test(flavor = "multi_thread")]
async fn invite_redeemed_by_a_node_that_is_ahead_admits_at_once() {
    let store = Store::open(acts::config(&MemDisk::default())).await;
    let store = store.unwrap();
    let far_ms = acts::NOW_MS + 2 * DRIFT_MS_MAX;
    let mut ahead = Writer::new(AUTHOR_A, acts::ROOT);
    let invite = put("/invites/1", "open");
    let invited = ahead.write(far_ms, vec![invite], BTreeSet::new(), false);
    let redeemed = vec![
        put("/invites/1", "used"),
        acts::grant(AUTHOR_B, Role::Writer),
    ];
    let redeemed = ahead.write(
        far_ms,
        redeemed,
        BTreeSet::from([invited.as_parent()]),
        true,
    );
    let mut joined = Writer::new(AUTHOR_B, acts::ROOT);
    let first = joined.write(
        acts::NOW_MS,
        vec![put("/k", "hello")],
        BTreeSet::new(),
        false,
    );
    let entries = [invited, redeemed, first];
    for taken in acts::take_in(&store, &entries).await {
        // The last one waits until the group that admits its author is durable.
        let is_here = matches!(taken, Ingested::Applied(_) | Ingested::Stranger(_));
        assert!(is_here, "{taken:?}");
    }
    assert_eq!(store.get(b"/k").await.unwrap().unwrap().value, "hello");
}

#[tokio::test(flavor = "multi_thread")]
async fn own_write_over_more_heads_than_it_may_cite_reads_back() {
    let clock = Clock::manual(NOW_MS);
    let config = store::config(STORE, AUTHOR_C, &clock, MemDisk::default());
    let store = Store::open(config).await.unwrap();
    let count = u64::try_from(PARENTS_MAX).unwrap() + 1;
    let mut entries = Vec::new();
    for number in 0..count {
        let mut secret = [0x55; 32];
        secret[..8].copy_from_slice(&number.to_le_bytes());
        let mut writer = Writer::new(secret, STORE);
        // Each a little later, some after this node's clock.
        let ops = vec![put("/k", "theirs")];
        entries.push(writer.write(NOW_MS + number, ops, BTreeSet::new(), false));
    }
    acts::take_in(&store, &entries).await;
    assert_eq!(store.heads(b"/k").await.unwrap().len(), entries.len());
    let written = store.put("/k", "mine").await.unwrap();
    let heads = store.heads(b"/k").await.unwrap();
    assert_eq!((heads.len(), heads[0].entry.id), (2, written.entry));
    assert_eq!(store.get(b"/k").await.unwrap().unwrap().value, "mine");
}

// The clock is ten years ahead for one read. Afterwards the lease was over here, could be taken a
// second time, and a lease of 30 s that was written then lasted ten years on all other nodes.
#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_was_ahead_for_one_read_changes_no_lease() {
    let disk = MemDisk::default();
    let clock = Clock::manual(NOW_MS);
    let open = |clock: &Clock| Store::open(store::config(STORE, AUTHOR_A, clock, disk.clone()));
    let store = open(&clock).await.unwrap();
    let lease = Write::put("/lease", "held").expires_ms(NOW_MS + DRIFT_MS_MAX);
    store.write(lease).await.unwrap();
    store.close().await.unwrap();

    let ahead = Clock::manual(NOW_MS + TEN_YEARS_MS);
    let store = open(&ahead).await.unwrap();
    assert_eq!(store.get(b"/lease").await.unwrap(), None);
    store.close().await.unwrap();

    let store = open(&clock).await.unwrap();
    assert_eq!(store.get(b"/lease").await.unwrap().unwrap().value, "held");
    let mut taken = Write::put("/lease", "twice");
    taken.condition = Some(Condition::Absent);
    let refused = store.write(taken).await;
    let is_refused = matches!(refused, Err(WriteError::PreconditionFailed { .. }));
    assert!(is_refused, "{refused:?}");
    assert_eq!(store.now_ms(), NOW_MS);
    // Its end is reported when it comes.
    let mut watch = watch(&store).await;
    clock.set(NOW_MS + DRIFT_MS_MAX);
    assert_eq!(kind(&mut watch).await, Kind::Expire);
}

async fn watch(store: &Store) -> Watch {
    let mut watch = store.watch("/lease");
    while next(&mut watch).await != WatchEvent::CaughtUp {}
    watch
}

// The kind of the next change.
async fn kind(watch: &mut Watch) -> Kind {
    loop {
        if let WatchEvent::Change(change) = next(watch).await {
            return change.kind;
        }
    }
}

// The same while the store is open: leases that are written once the clock is right again end when
// their time has come, not at once, and their end is reported.
#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_jumped_ahead_and_back_ends_leases_in_time() {
    let clock = Clock::manual(NOW_MS);
    let config = store::config(STORE, AUTHOR_A, &clock, MemDisk::default());
    let store = Store::open(config).await.unwrap();
    let mut watch = watch(&store).await;
    let lease = |ms| Write::put("/lease", "v").expires_ms(ms);
    store.write(lease(NOW_MS + 1000)).await.unwrap();
    assert_eq!(kind(&mut watch).await, Kind::Put);
    clock.set(NOW_MS + TEN_YEARS_MS);
    assert_eq!(kind(&mut watch).await, Kind::Expire);
    clock.set(NOW_MS);
    assert!(store.get(b"/lease").await.unwrap().is_some());
    store.write(lease(NOW_MS + 500)).await.unwrap();
    assert_eq!(kind(&mut watch).await, Kind::Put);
    clock.set(NOW_MS + 499);
    store.write(lease(NOW_MS + 600)).await.unwrap();
    assert_eq!(
        kind(&mut watch).await,
        Kind::Put,
        "the lease was renewed in time"
    );
    clock.set(NOW_MS + 600);
    assert_eq!(kind(&mut watch).await, Kind::Expire);
}

// A held branch that is larger than the pool was fetched again in each sync, up to what is dropped again.
#[tokio::test(flavor = "multi_thread")]
async fn held_branch_beyond_the_pool_is_not_asked_for_again() {
    let clock = Clock::manual(NOW_MS);
    let config = store::config(STORE, AUTHOR_A, &clock, MemDisk::default());
    let store = Store::open(config).await.unwrap();
    let mut ahead = Writer::new(AUTHOR_B, STORE);
    let value = "v".repeat(VALUE_BYTES_MAX);
    let count = HELD_BYTES_MAX / VALUE_BYTES_MAX + 4;
    // The first two are stamped now. Several have one stamp but for the counter.
    let mut entries = Vec::new();
    for number in 0..count {
        let far_ms = if number < 2 { 0 } else { 2 * DRIFT_MS_MAX };
        let now_ms = NOW_MS + far_ms + number as u64 / 3;
        let ops = vec![put(&format!("/{number}"), &value)];
        entries.push(ahead.write(now_ms, ops, BTreeSet::new(), false));
    }
    let tip = |entry: &VerifiedEntry| (entry.author(), FrontierTip::of(entry));
    let last = tip(entries.last().unwrap());
    assert_eq!(store.lacks(vec![last]).await.unwrap(), [last]);
    drop(acts::take_in(&store, &entries).await);
    let held = store.status().await.held_entries;
    assert!(held < count - 2, "some were dropped: {held}");
    assert_eq!(store.lacks(vec![last]).await.unwrap(), [], "not now");
    let between = tip(&entries[count - 2]);
    let unknown = FrontierTip {
        id: EntryId([9; 32]),
        ..last.1
    };
    let unknown = (last.0, unknown);
    for tip in [between, unknown] {
        assert_eq!(
            store.lacks(vec![tip]).await.unwrap().len(),
            1,
            "only the end"
        );
    }
    // They are due: what was dropped is asked for, and then all of it is here.
    clock.set(NOW_MS + DRIFT_MS_MAX + count as u64);
    while store.frontier().seq(&last.0) < 2 + held as u64 {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert_eq!(store.lacks(vec![last]).await.unwrap(), [last]);
    drop(acts::take_in(&store, &entries).await);
    assert_eq!(store.frontier().tips(&last.0), [last.1]);
    assert_eq!(store.lacks(vec![last]).await.unwrap(), []);
}
