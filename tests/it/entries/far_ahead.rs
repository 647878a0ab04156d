//! A node whose clock was ahead has written entries that all others hold. `repair` goes on before
//! them: what it wrote is everywhere at once, and stays right when the entries are due.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use bytes::Bytes;
use lattice::{
    Store,
    clock::Clock,
    disk::Disk as _,
    id::{EntryId, StoreId},
    limits::{DRIFT_MS_MAX, PARENTS_MAX},
    protocol::{
        entry::{SignedEntry, VerifiedEntry},
        frontier::MissingRange,
    },
    store::{StampedBy, TakenBack, Write, WriteError},
};

use crate::{
    entries::acts,
    support::{
        disk::MemDisk,
        model::{AUTHOR_A, AUTHOR_B, AUTHOR_C, put},
        random::Random,
        store,
        writer::Writer,
    },
};

const NOW_MS: u64 = 1_700_000_000_000;
const AHEAD_MS: u64 = 3 * 86_400_000;
const STORE: StoreId = StoreId([3; 16]);

struct Member {
    store: Store,
    clock: Clock,
    disk: MemDisk,
    secret: [u8; 32],
}

impl Member {
    async fn new(secret: [u8; 32]) -> Self {
        let (clock, disk) = (Clock::manual(NOW_MS), MemDisk::default());
        let config = store::config(STORE, secret, &clock, disk.clone());
        let store = Store::open(config).await.unwrap();
        Self {
            store,
            clock,
            disk,
            secret,
        }
    }

    async fn reopen(&mut self) {
        self.store.close().await.unwrap();
        let config = store::config(STORE, self.secret, &self.clock, self.disk.clone());
        self.store = Store::open(config).await.unwrap();
    }

    /// Returns all entries in the logs, causes before effects.
    fn entries(&self) -> Vec<VerifiedEntry> {
        let frontier = self.store.frontier();
        let range = |(author, tip): (_, &lattice::protocol::frontier::FrontierTip)| MissingRange {
            author,
            after: 0,
            through: tip.seq,
            tip: tip.id,
        };
        let tips: Vec<_> = frontier.iter().collect();
        let ranges: Vec<_> = tips
            .iter()
            .map(|(author, tip)| range((*author, tip)))
            .collect();
        let mut outgoing = self.store.outgoing(&ranges).unwrap();
        let (mut seen, mut entries) = (BTreeSet::new(), Vec::new());
        loop {
            let frame = outgoing.next_frame(1 << 20).unwrap();
            if frame.is_empty() {
                return entries;
            }
            for bytes in frame {
                let entry = SignedEntry::decode(bytes).unwrap();
                let entry = entry.parse().unwrap().verify().unwrap();
                if seen.insert(entry.id) {
                    entries.push(entry);
                }
            }
        }
    }

    async fn value(&self, key: &str) -> Option<Bytes> {
        let item = self.store.get(key.as_bytes()).await.unwrap();
        item.map(|item| item.value)
    }

    async fn heads(&self, key: &str) -> Vec<EntryId> {
        acts::ids(&self.store, key).await
    }

    /// Moves the clock on until nothing is held any more.
    async fn wait_until_due(&self) {
        self.clock.set(NOW_MS + 2 * AHEAD_MS);
        while self.store.status().await.held_entries > 0 {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    }

    async fn assert_fork_closed(&self) {
        let forks = self.store.status().await.forks;
        assert!(matches!(forks[..], [fork] if fork.closed), "{forks:?}");
        let report = self.store.verify().await.unwrap();
        assert!(report.damage.is_empty(), "{report:?}");
    }

    async fn hash(&self) -> [u8; 32] {
        self.store.state_hash().await.unwrap()
    }
}

// Writes while the clock is ahead, over a value of B, and sets the clock right. Returns the node, and
// what B wrote.
async fn wrote_ahead() -> (Member, VerifiedEntry) {
    let a = Member::new(AUTHOR_A).await;
    a.store.put("/before", "1").await.unwrap();
    let mut b = Writer::new(AUTHOR_B, STORE);
    let of_b = b.write(NOW_MS, vec![put("/shared", "b")], BTreeSet::new(), false);
    drop(acts::take_in(&a.store, std::slice::from_ref(&of_b)).await);
    a.clock.set(NOW_MS + AHEAD_MS);
    a.store.put("/k", "1").await.unwrap();
    a.store.put("/shared", "a").await.unwrap();
    a.store.put("/k", "2").await.unwrap();
    a.store.delete("/before").await.unwrap();
    let expires_ms = NOW_MS + 3 * AHEAD_MS;
    let lease = Write::put("/lease", "held").expires_ms(expires_ms);
    a.store.write(lease).await.unwrap();
    a.clock.set(NOW_MS);
    a.clock.set_members_ahead(Some(0));
    (a, of_b)
}

async fn repair(a: &Member) -> TakenBack {
    let repaired = a.store.repair().await.unwrap();
    assert_eq!((repaired.lost, repaired.closed), (Vec::new(), None));
    repaired.taken_back.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn values_written_ahead_are_everywhere_after_a_repair() {
    let (mut a, _of_b) = wrote_ahead().await;
    let far = a.entries();
    let refused = a.store.put("/new", "v").await;
    let by_own = matches!(
        refused,
        Err(WriteError::FarAhead {
            by: StampedBy::OwnEntry,
            ..
        })
    );
    assert!(by_own, "{refused:?}");
    // One has the entries and holds them, the other one gets them later.
    let (had, new) = (Member::new(AUTHOR_B).await, Member::new(AUTHOR_C).await);
    drop(acts::take_in(&had.store, &far).await);
    assert_eq!(had.store.status().await.held_entries, 5);

    let back = repair(&a).await;
    assert_eq!((back.entries, back.keys), (5, 4));
    a.store.put("/k", "3").await.unwrap();
    let near: Vec<_> = a
        .entries()
        .into_iter()
        .filter(|entry| entry.header.hlc.wall_ms < NOW_MS + DRIFT_MS_MAX)
        .collect();
    for peer in [&had, &new] {
        drop(acts::take_in(&peer.store, &near).await);
    }
    for member in [&a, &had, &new] {
        assert_eq!(member.value("/k").await.unwrap(), "3");
        assert_eq!(member.value("/shared").await.unwrap(), "a");
        assert_eq!(member.value("/before").await, None);
        let lease = member.store.get(b"/lease").await.unwrap().unwrap();
        assert_eq!(lease.expires_ms, Some(NOW_MS + 3 * AHEAD_MS));
        assert_eq!(member.store.status().await.pending_entries, 0);
    }
    a.assert_fork_closed().await;
    a.reopen().await;
    assert_eq!(a.value("/k").await.unwrap(), "3");

    // The entries are due: nothing old comes back, the fork is closed on everybody.
    drop(acts::take_in(&new.store, &far).await);
    for member in [&a, &had, &new] {
        member.wait_until_due().await;
        assert_eq!(member.value("/k").await.unwrap(), "3");
        assert_eq!(member.value("/shared").await.unwrap(), "a");
        member.assert_fork_closed().await;
    }
    assert_eq!(a.hash().await, had.hash().await);
    assert_eq!(a.hash().await, new.hash().await);
    assert_eq!(a.store.frontier(), new.store.frontier());
    // The next write merges what was taken back.
    assert_eq!(a.heads("/k").await.len(), 2);
    let written = a.store.put("/k", "4").await.unwrap();
    assert_eq!(a.heads("/k").await, [written.entry]);
    assert_eq!(a.store.repair().await.unwrap().taken_back, None);
}

// The same entries in any order, cut into messages anywhere, with a restart or without the state file:
// the same heads.
#[tokio::test(flavor = "multi_thread")]
async fn order_does_not_decide_what_is_taken_back() {
    let (a, of_b) = wrote_ahead().await;
    repair(&a).await;
    a.store.put("/k", "3").await.unwrap();
    // Another one writes over a value when it is due, before it knows that it was taken back.
    let mut entries = a.entries();
    let far = entries.iter().filter(|entry| {
        let is_put = entry.ops.iter().any(|op| op.key() == "/shared".as_bytes());
        is_put && entry.header.hlc.wall_ms > NOW_MS + DRIFT_MS_MAX
    });
    let cited = far.map(|entry| entry.as_parent()).collect();
    let mut b = Writer::new(AUTHOR_B, STORE);
    let first = b.write(NOW_MS, vec![put("/shared", "b")], BTreeSet::new(), false);
    assert_eq!(first.id, of_b.id, "the same log");
    entries.push(b.write(NOW_MS, vec![put("/shared", "c")], cited, false));
    a.wait_until_due().await;
    drop(acts::take_in(&a.store, &entries).await);
    let (hash, shared) = (a.hash().await, a.heads("/shared").await);

    for seed in 1..=40 {
        let mut random = Random::new(seed);
        let mut member = Member::new(AUTHOR_C).await;
        let mut rest = entries.clone();
        random.shuffle(&mut rest);
        let restart = random.below(rest.len());
        while !rest.is_empty() {
            let part: Vec<_> = rest.drain(..1 + random.below(rest.len())).collect();
            drop(acts::take_in(&member.store, &part).await);
            if rest.len() < restart && random.once_in(3) {
                let held = member.store.status().await.held_entries;
                let pending = member.store.status().await.pending_entries;
                if held + pending == 0 {
                    member.reopen().await;
                }
            }
            if random.once_in(3) {
                member.wait_until_due().await;
            }
        }
        member.wait_until_due().await;
        drop(acts::take_in(&member.store, &entries).await);
        assert_eq!(member.heads("/shared").await, shared, "SEED={seed}");
        assert_eq!(member.hash().await, hash, "SEED={seed}");
        member.assert_fork_closed().await;
        member.store.close().await.unwrap();
        member.disk.remove(Path::new("/store/state.db")).unwrap();
        let config = store::config(STORE, AUTHOR_C, &member.clock, member.disk.clone());
        member.store = Store::open(config).await.unwrap();
        assert_eq!(member.hash().await, hash, "SEED={seed}, from the logs");
    }
}

// More far entries than one entry can name, and nothing before them.
#[tokio::test(flavor = "multi_thread")]
async fn log_that_begins_far_ahead_begins_again() {
    let a = Member::new(AUTHOR_A).await;
    a.clock.set(NOW_MS + AHEAD_MS);
    let count = PARENTS_MAX + 10;
    let mut values = BTreeMap::new();
    for number in 0..count {
        let (key, value) = (format!("/{}", number % 7), number.to_string());
        a.store.put(key.clone(), value.clone()).await.unwrap();
        values.insert(key, value);
    }
    a.clock.set(NOW_MS);
    // Nobody is within reach: nobody would hold them.
    assert_eq!(a.store.repair().await.unwrap().taken_back, None);
    a.clock.set_members_ahead(Some(0));
    let far = a.entries();
    let back = repair(&a).await;
    assert_eq!((back.entries, back.keys), (count as u64, 7));
    let written = a.store.put("/new", "v").await.unwrap();
    assert_eq!(written.seq, back.seq + 1);
    let b = Member::new(AUTHOR_B).await;
    drop(acts::take_in(&b.store, &a.entries()).await);
    drop(acts::take_in(&b.store, &far).await);
    for _ in 0..2 {
        for (key, value) in &values {
            assert_eq!(b.value(key).await.unwrap(), *value);
        }
        b.wait_until_due().await;
    }
    a.wait_until_due().await;
    assert_eq!(a.hash().await, b.hash().await);
    b.assert_fork_closed().await;
}

// A clock that is ahead itself must be set first: the values would be written far ahead again.
#[tokio::test(flavor = "multi_thread")]
async fn repair_waits_for_the_clock_to_be_set() {
    let (a, _of_b) = wrote_ahead().await;
    a.clock.set(NOW_MS + AHEAD_MS);
    a.clock
        .set_members_ahead(Some(-i64::try_from(AHEAD_MS).unwrap()));
    let before = a.store.frontier();
    let refused = a.store.repair().await;
    let by_clock = matches!(
        refused,
        Err(WriteError::FarAhead {
            by: StampedBy::Clock,
            ..
        })
    );
    assert!(by_clock, "{refused:?}");
    assert_eq!(a.store.frontier(), before);
}
