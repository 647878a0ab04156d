//! One key in two places: how its own node behaves, and how others see the fork.

use std::path::Path;

use bytes::Bytes;
use lattice::{
    Store,
    clock::Clock,
    disk::RealDisk,
    id::StoreId,
    protocol::{entry::SignedEntry, frontier::MissingRange},
    store::{Ingested, StoreConfig, WriteError},
};
use tempfile::TempDir;

use crate::support::store;

const NOW_MS: u64 = 1_800_000_000_000;
const STORE: StoreId = StoreId([7; 16]);

async fn open(dir: &Path, secret: u8, clock: &Clock) -> Store {
    let config = StoreConfig {
        dir: dir.to_owned(),
        bus_batches: 64,
        ..store::config(STORE, [secret; 32], clock, RealDisk)
    };
    Store::open(config).await.unwrap()
}

/// A place where entries are written: with the key of `secret`, or a copy of it.
struct Place {
    store: Store,
    dir: TempDir,
    secret: u8,
    clock: Clock,
}

impl Place {
    async fn new(secret: u8) -> Self {
        let (dir, clock) = (tempfile::tempdir().unwrap(), Clock::manual(NOW_MS));
        let store = open(dir.path(), secret, &clock).await;
        Self {
            store,
            dir,
            secret,
            clock,
        }
    }

    async fn put(&self, key: &str) {
        self.clock.advance(1);
        self.store.put(key.to_owned(), "v").await.unwrap();
    }

    /// Takes in everything that the other place has.
    async fn hear(&self, other: &Self) {
        let mut entries = Vec::new();
        for author in authors(other) {
            let log = other.store.entries(author, 0, 100).await.unwrap();
            entries.extend(log.into_iter().map(|it| it.entry));
        }
        entries.sort_by_key(|entry| entry.order());
        let bytes = entries.iter().map(|entry| encode(&entry.signed)).collect();
        for outcome in self.store.ingest(bytes).await.unwrap() {
            let here = matches!(outcome, Ingested::Applied(_) | Ingested::Duplicate(_));
            assert!(here, "{outcome:?}");
        }
    }

    async fn reopened(self, keep_state: bool) -> Self {
        let Self {
            store,
            dir,
            secret,
            clock,
        } = self;
        store.close().await.unwrap();
        drop(store);
        if !keep_state {
            std::fs::remove_file(dir.path().join("state.db")).unwrap();
        }
        let store = open(dir.path(), secret, &clock).await;
        Self {
            store,
            dir,
            secret,
            clock,
        }
    }

    async fn refuses(&self, place: u64) {
        let refused = self.store.put("/refused", "v").await;
        assert!(
            matches!(refused, Err(WriteError::OwnFork { seq }) if seq == place),
            "{refused:?}"
        );
        let status = self.store.status().await;
        assert!(status.poisoned.is_some_and(|why| why.contains("forked")));
    }

    async fn has_fork(&self, closed: bool) {
        let forks = self.store.status().await.forks;
        assert!(!forks.is_empty());
        assert!(forks.iter().all(|fork| fork.closed == closed), "{forks:?}");
    }
}

fn authors(place: &Place) -> Vec<lattice::id::Author> {
    let frontier = place.store.frontier();
    let mut authors: Vec<_> = frontier.iter().map(|(author, _)| author).collect();
    authors.dedup();
    authors
}

fn encode(entry: &SignedEntry) -> Bytes {
    entry.encode().into()
}

#[tokio::test(flavor = "multi_thread")]
async fn b2_repair_closes_the_own_fork() {
    let (mut one, copy, witness) = (
        Place::new(1).await,
        Place::new(1).await,
        Place::new(9).await,
    );
    one.put("/shared").await;
    copy.hear(&one).await;
    one.put("/k").await;
    one.put("/one").await;
    copy.put("/k").await;
    copy.put("/copy").await;
    one.hear(&copy).await;
    one.refuses(2).await;
    let [fork] = one.store.status().await.forks[..] else {
        panic!("one fork");
    };
    assert_eq!((fork.proof.author, fork.proof.seq), (one.store.author(), 2));
    assert!(!fork.closed);

    let repaired = one.store.repair().await.unwrap();
    let closed = repaired.closed.unwrap();
    assert_eq!(
        (repaired.lost, closed.seq, closed.tips.len()),
        (vec![], 4, 1)
    );
    assert_eq!(
        one.store.repair().await.unwrap().closed,
        None,
        "it is closed"
    );
    one.put("/after").await;
    one.has_fork(true).await;
    // Reads of the key that both wrote are settled by the next put, as any conflict.
    assert_eq!(one.store.heads(b"/k").await.unwrap().len(), 2);
    one.put("/k").await;
    assert_eq!(one.store.heads(b"/k").await.unwrap().len(), 1);

    for keep_state in [true, false, true] {
        one = one.reopened(keep_state).await;
        one.has_fork(true).await;
        one.put("/again").await;
    }
    witness.hear(&one).await;
    witness.has_fork(true).await;
    assert_eq!(
        witness.store.state_hash().await.unwrap(),
        one.store.state_hash().await.unwrap()
    );
    assert_eq!(witness.store.verify().await.unwrap().damage, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn b2_late_write_elsewhere_reopens_the_fork() {
    let (one, copy) = (Place::new(1).await, Place::new(1).await);
    one.put("/one").await;
    copy.put("/copy").await;
    one.hear(&copy).await;
    one.store.repair().await.unwrap();
    one.put("/one").await;
    copy.put("/copy").await;
    one.hear(&copy).await;
    one.refuses(1).await;
    one.has_fork(false).await;
    // Both places report the fork, and either can close it.
    copy.hear(&one).await;
    copy.refuses(1).await;
    let closed = copy.store.repair().await.unwrap().closed.unwrap();
    assert_eq!(closed.tips.len(), 1);
    copy.put("/copy").await;
    one.hear(&copy).await;
    one.put("/one").await;
    one.has_fork(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn b2_two_repairs_at_once_are_closed_again() {
    let (one, copy) = (Place::new(1).await, Place::new(1).await);
    one.put("/one").await;
    copy.put("/copy").await;
    one.hear(&copy).await;
    copy.hear(&one).await;
    copy.clock.advance(7);
    one.store.repair().await.unwrap();
    copy.store.repair().await.unwrap();
    one.hear(&copy).await;
    one.refuses(1).await;
    one.store.repair().await.unwrap();
    one.put("/one").await;
    copy.hear(&one).await;
    copy.put("/copy").await;
    one.hear(&copy).await;
    one.has_fork(true).await;
    copy.has_fork(true).await;
    assert_eq!(
        copy.store.state_hash().await.unwrap(),
        one.store.state_hash().await.unwrap()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn b2_fork_of_another_author_is_left_open() {
    let (one, copy, witness) = (
        Place::new(1).await,
        Place::new(1).await,
        Place::new(9).await,
    );
    one.put("/one").await;
    copy.put("/copy").await;
    witness.hear(&one).await;
    witness.hear(&copy).await;
    witness.has_fork(false).await;
    assert_eq!(witness.store.repair().await.unwrap().closed, None);
    witness.has_fork(false).await;
    witness.put("/witness").await;
}

// A peer that got more ended the session and blamed this node for it. Two ranges of one branch come
// with a fork below its tip, and with holes.
#[tokio::test]
async fn two_ranges_of_a_branch_bring_nothing_between_them() {
    let place = Place::new(1).await;
    for number in 0..10 {
        place.put(&format!("/{number}")).await;
    }
    let author = place.store.author();
    let log = place.store.entries(author, 0, 100).await.unwrap();
    let range = |after: u64, through: u64| MissingRange {
        author,
        after,
        through,
        tip: log[usize::try_from(through).unwrap() - 1].entry.id,
    };
    for (ranges, count) in [
        (vec![range(0, 2), range(8, 10)], 4),
        (vec![range(3, 5), range(0, 2)], 4),
        (vec![range(1, 6), range(4, 9)], 8),
        (vec![range(2, 4), range(2, 4), range(2, 9)], 7),
    ] {
        let mut outgoing = place.store.outgoing(&ranges).unwrap();
        let sent = outgoing.next_frame(1 << 20).unwrap();
        assert_eq!(sent.len(), count, "{ranges:?}");
    }
}
