//! Entries from elsewhere, and the outcome of each: applied, pending, held, refused.

use bytes::Bytes;
use ed25519_dalek::SigningKey;
use lattice::{
    Store,
    clock::Clock,
    disk::RealDisk,
    id::{EntryId, StoreId},
    limits::DRIFT_MS_MAX,
    protocol::{
        entry::{Header, Op, Parent, VerifiedEntry, sign},
        hlc::Hlc,
    },
    store::{Ingested, RefusedEntry, Start, StoreConfig, WatchEvent, WatchOptions, WriteError},
};
use std::{pin::pin, time::Duration};
use tokio_stream::StreamExt as _;

use crate::support::{random::for_each_seed, store};

const NOW_MS: u64 = 1_800_000_000_000;
const STORE: StoreId = StoreId([7; 16]);

/// Signs entries of one author.
struct Author {
    key: SigningKey,
    tip: Option<VerifiedEntry>,
}

impl Author {
    fn new(seed: u8) -> Self {
        Self {
            key: SigningKey::from_bytes(&[seed; 32]),
            tip: None,
        }
    }

    fn put(
        &mut self,
        key: &str,
        value: &str,
        wall_ms: u64,
        parents: &[&VerifiedEntry],
    ) -> VerifiedEntry {
        let entry = self.fork(key, value, wall_ms, parents);
        self.tip = Some(entry.clone());
        entry
    }

    // Like `put`, but the tip stays where it was.
    fn fork(
        &self,
        key: &str,
        value: &str,
        wall_ms: u64,
        parents: &[&VerifiedEntry],
    ) -> VerifiedEntry {
        let header = Header {
            store: STORE,
            seq: self.tip.as_ref().map_or(1, |tip| tip.header.seq + 1),
            prev: self.tip.as_ref().map(|tip| tip.id),
            hlc: Hlc {
                wall_ms,
                counter: 0,
            },
            atomic: false,
            cause: None,
            parents: parents.iter().map(|parent| parent.as_parent()).collect(),
        };
        let op = Op::Put {
            key: Bytes::copy_from_slice(key.as_bytes()),
            value: Bytes::copy_from_slice(value.as_bytes()),
            expires_ms: None,
        };
        sign(&self.key, header, vec![op]).unwrap()
    }
}

async fn open(dir: &std::path::Path, clock: &Clock) -> Store {
    Store::open(StoreConfig {
        dir: dir.to_owned(),
        bus_batches: 4,
        ..store::config(STORE, [1; 32], clock, RealDisk)
    })
    .await
    .unwrap()
}

fn bytes(entry: &VerifiedEntry) -> Bytes {
    entry.signed.encode().into()
}

async fn take(store: &Store, entry: &VerifiedEntry) -> Ingested {
    store.ingest(vec![bytes(entry)]).await.unwrap().remove(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn entry_waits_for_its_parents() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), Clock::manual(NOW_MS));
    let store = open(dir.path(), &clock).await;
    let (mut a, mut b) = (Author::new(2), Author::new(3));
    let a1 = a.put("/k", "1", NOW_MS, &[]);
    let a2 = a.put("/k", "2", NOW_MS + 1, &[&a1]);
    let b1 = b.put("/k", "3", NOW_MS + 2, &[&a2]);
    assert_eq!(
        take(&store, &b1).await,
        Ingested::Pending {
            entry: b1.id,
            missing: a2.id
        }
    );
    assert_eq!(
        take(&store, &a2).await,
        Ingested::Pending {
            entry: a2.id,
            missing: a1.id
        }
    );
    assert_eq!(store.status().await.pending_entries, 2);
    assert_eq!(take(&store, &a1).await, Ingested::Applied(a1.id));
    assert_eq!(store.status().await.pending_entries, 0);
    let heads = store.heads(b"/k").await.unwrap();
    assert_eq!(
        heads.iter().map(|head| head.entry.id).collect::<Vec<_>>(),
        [b1.id]
    );
    for entry in [&a1, &a2, &b1] {
        assert_eq!(take(&store, entry).await, Ingested::Duplicate(entry.id));
    }
    assert_eq!(store.verify().await.unwrap().damage, []);
}

/// The end of a log was not durable yet, and a power cut takes it, and the state with it; what cites it
/// stands in another log.
#[tokio::test(flavor = "multi_thread")]
async fn superseded_entry_that_comes_late_is_no_head() {
    for opened in 1..=2 {
        let (dir, clock) = (tempfile::tempdir().unwrap(), Clock::manual(NOW_MS));
        let store = open(dir.path(), &clock).await;
        let (mut a, mut b) = (Author::new(2), Author::new(3));
        let a1 = a.put("/k", "1", NOW_MS, &[]);
        let a2 = a.put("/k", "2", NOW_MS + 1, &[&a1]);
        let b1 = b.put("/k", "3", NOW_MS + 2, &[&a2]);
        for entry in [&a1, &a2, &b1] {
            assert_eq!(take(&store, entry).await, Ingested::Applied(entry.id));
        }
        store.close().await.unwrap();
        let log = format!("logs/{}.log", a1.author());
        std::fs::remove_file(dir.path().join(log)).unwrap();
        std::fs::remove_file(dir.path().join("state.db")).unwrap();
        let mut store = open(dir.path(), &clock).await;
        if opened > 1 {
            // That something is missing is known from the state's file then.
            store.close().await.unwrap();
            store = open(dir.path(), &clock).await;
        }
        for entry in [&a1, &a2] {
            assert_eq!(take(&store, entry).await, Ingested::Applied(entry.id));
        }
        let heads = store.heads(b"/k").await.unwrap();
        let heads: Vec<_> = heads.iter().map(|head| head.entry.id).collect();
        assert_eq!(heads, [b1.id], "opened {opened} times");
        assert_eq!(store.verify().await.unwrap().damage, []);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn t3_future_entry_is_held_until_due() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), Clock::manual(NOW_MS));
    let store = open(dir.path(), &clock).await;
    let early = Author::new(2).put("/k", "early", NOW_MS + DRIFT_MS_MAX + 1000, &[]);
    let due_ms = NOW_MS + 1000;
    assert_eq!(
        take(&store, &early).await,
        Ingested::Held {
            entry: early.id,
            due_ms
        }
    );
    assert_eq!(store.status().await.held[0].due_ms, due_ms);
    let own = store.put("/own", "v").await.unwrap();
    assert_eq!(
        own.hlc.wall_ms, NOW_MS,
        "a held entry does not move the clock"
    );
    assert_eq!(store.get(b"/k").await.unwrap(), None);
    clock.set(due_ms);
    while store.get(b"/k").await.unwrap().is_none() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(store.status().await.held, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn b1_both_branches_survive_reopening() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), Clock::manual(NOW_MS));
    let store = open(dir.path(), &clock).await;
    let mut a = Author::new(2);
    let first = a.put("/k", "first", NOW_MS, &[]);
    let left = a.fork("/k", "left", NOW_MS + 1, &[&first]);
    let right = a.put("/k", "right", NOW_MS + 2, &[&first]);
    let next = a.put("/other", "next", NOW_MS + 3, &[]);
    for entry in [&first, &left, &right, &next] {
        assert_eq!(take(&store, entry).await, Ingested::Applied(entry.id));
    }
    let hash = store.state_hash().await.unwrap();
    for _ in 0..2 {
        let heads = store.heads(b"/k").await.unwrap();
        assert_eq!(
            heads.iter().map(|head| head.entry.id).collect::<Vec<_>>(),
            [right.id, left.id]
        );
        let forks = store.status().await.forks;
        let [fork] = forks.as_slice() else {
            panic!("{forks:?}");
        };
        assert_eq!((fork.proof.author, fork.proof.seq), (first.author(), 2));
    }
    assert_eq!(store.entries(first.author(), 0, 10).await.unwrap().len(), 4);
    store.close().await.unwrap();
    drop(store);
    std::fs::remove_file(dir.path().join("state.db")).unwrap();
    let store = open(dir.path(), &clock).await;
    assert_eq!(store.state_hash().await.unwrap(), hash);
    assert_eq!(store.frontier().tips(&first.author()).len(), 2);
    assert_eq!(store.verify().await.unwrap().damage, []);
    for entry in [&first, &left, &right, &next] {
        assert_eq!(take(&store, entry).await, Ingested::Duplicate(entry.id));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn b2_own_fork_stops_own_writes() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), Clock::manual(NOW_MS));
    let store = open(dir.path(), &clock).await;
    store.put("/own", "v").await.unwrap();
    let other = Author::new(1).put("/own", "elsewhere", NOW_MS, &[]);
    assert_eq!(take(&store, &other).await, Ingested::Applied(other.id));
    let refused = store.put("/own", "w").await;
    assert!(
        matches!(refused, Err(WriteError::OwnFork { .. })),
        "{refused:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn b4_b8_forged_or_foreign_entry_is_refused() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), Clock::manual(NOW_MS));
    let store = open(dir.path(), &clock).await;
    let key = SigningKey::from_bytes(&[2; 32]);
    let header = |store| Header {
        store,
        seq: 1,
        prev: None,
        hlc: Hlc {
            wall_ms: NOW_MS,
            counter: 0,
        },
        atomic: false,
        cause: None,
        parents: vec![],
    };
    let op = || vec![Op::Delete { key: "/k".into() }];
    let foreign = sign(&key, header(StoreId([8; 16])), op()).unwrap();
    let refused = take(&store, &foreign).await;
    assert!(
        matches!(refused, Ingested::Refused(RefusedEntry::WrongStore { .. })),
        "{refused:?}"
    );

    let mut forged = sign(&key, header(STORE), op()).unwrap().signed.clone();
    forged.signature[3] ^= 1;
    let refused = store
        .ingest(vec![forged.encode().into()])
        .await
        .unwrap()
        .remove(0);
    assert!(
        matches!(refused, Ingested::Refused(RefusedEntry::Entry(_))),
        "{refused:?}"
    );

    let garbage = store
        .ingest(vec![Bytes::from_static(b"\x0a\xff")])
        .await
        .unwrap()
        .remove(0);
    assert!(
        matches!(garbage, Ingested::Refused(RefusedEntry::Entry(_))),
        "{garbage:?}"
    );

    let mut a = Author::new(2);
    let a1 = a.put("/k", "1", NOW_MS, &[]);
    let a2 = a.put("/other", "2", NOW_MS + 5, &[]);
    for entry in [&a1, &a2] {
        drop(take(&store, entry).await);
    }
    let mut lie = header(STORE);
    lie.hlc.wall_ms = NOW_MS + 9;
    lie.parents = vec![Parent {
        hlc: Hlc {
            wall_ms: NOW_MS + 1,
            counter: 0,
        },
        ..a1.as_parent()
    }];
    let lie = sign(&SigningKey::from_bytes(&[3; 32]), lie, op()).unwrap();
    // It applies, as it does on a node that never gets `a1`, and supersedes nothing.
    assert_eq!(take(&store, &lie).await, Ingested::Applied(lie.id));
    assert_eq!(store.heads(b"/k").await.unwrap().len(), 2);
    assert_eq!(store.status().await.entries, 3);
}

/// Promise 2, through real stores: any order of arrival gives the same bytes.
#[test]
fn every_order_gives_byte_equal_states() {
    for_each_seed(1..=12, |random| {
        let mut authors = [Author::new(2), Author::new(3), Author::new(4)];
        let mut entries: Vec<VerifiedEntry> = Vec::new();
        for n in 0..30 {
            let author = random.below(3);
            let key = format!("/k/{}", random.below(4));
            // Parents are some entries of this key that the author may have seen.
            let seen: Vec<_> = entries
                .iter()
                .filter(|entry| entry.ops[0].key() == key.as_bytes())
                .cloned()
                .collect();
            let parents: Vec<_> = seen.iter().filter(|_| random.below(2) == 0).collect();
            let wall_ms = NOW_MS + n * 10;
            let entry = if random.once_in(8) {
                authors[author].fork(&key, &n.to_string(), wall_ms, &parents)
            } else {
                authors[author].put(&key, &n.to_string(), wall_ms, &parents)
            };
            entries.push(entry);
        }
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let clock = Clock::manual(NOW_MS);
            let mut hashes = std::collections::BTreeSet::new();
            for order in 0..4 {
                let dir = tempfile::tempdir().unwrap();
                let store = open(dir.path(), &clock).await;
                if order > 0 {
                    random.shuffle(&mut entries);
                }
                for part in entries.chunks(1 + random.below(10)) {
                    store
                        .ingest(part.iter().map(bytes).collect())
                        .await
                        .unwrap();
                }
                assert_eq!(store.status().await.entries, 30, "order {order}");
                assert_eq!(store.verify().await.unwrap().damage, [], "order {order}");
                hashes.insert((
                    store.state_hash().await.unwrap(),
                    store.frontier().iter().count(),
                ));
                store.close().await.unwrap();
            }
            assert_eq!(hashes.len(), 1);
        });
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn b8_entry_vouched_for_later_is_not_damage() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), Clock::manual(NOW_MS));
    let store = open(dir.path(), &clock).await;
    let mut a = Author::new(2);
    let mut odd = a.put("/k", "odd", NOW_MS, &[]).signed.clone();
    odd.signature[3] ^= 1;
    let header = Header {
        seq: 2,
        prev: Some(odd.id()),
        ..a.put("/k", "next", NOW_MS + 1, &[]).header.clone()
    };
    let op = Op::Delete { key: "/k".into() };
    let next = sign(&a.key, header, vec![op]).unwrap();
    let both = vec![odd.encode().into(), bytes(&next)];
    let outcomes = store.ingest(both).await.unwrap();
    assert_eq!(
        outcomes,
        [Ingested::Applied(odd.id()), Ingested::Applied(next.id)]
    );
    let report = store.verify().await.unwrap();
    assert_eq!((report.damage, report.signatures), (vec![], 1));
}

/// A first sync brings thousands of entries in one message: whoever writes here meanwhile goes
/// between them, and none of either is lost, twice, or out of order.
#[tokio::test(flavor = "multi_thread")]
async fn writes_interleave_with_a_long_message() {
    const COUNT: u64 = 10_000;
    let (dir, clock) = (tempfile::tempdir().unwrap(), Clock::manual(NOW_MS));
    let store = open(dir.path(), &clock).await;
    let mut watch = store.watch_with(WatchOptions {
        start: Start::Now,
        ..WatchOptions::default()
    });
    // Among them /shared, that both sides write.
    let mut author = Author::new(2);
    let message: Vec<VerifiedEntry> = (0..COUNT)
        .map(|n| match n % 10 {
            0 => author.put("/shared", &n.to_string(), NOW_MS + n, &[]),
            _ => author.put(&format!("/k/{n}"), "v", NOW_MS + n, &[]),
        })
        .collect();
    let mut ingest = pin!(store.ingest_verified(message.clone()));
    let mut answered = None;
    let mut writes = Vec::new();
    while answered.is_none() {
        let written = async {
            let alone = store.put("/shared", "here").await.unwrap();
            let batch = vec![
                Op::Put {
                    key: "/b/1".into(),
                    value: "1".into(),
                    expires_ms: None,
                },
                Op::Put {
                    key: "/b/2".into(),
                    value: "2".into(),
                    expires_ms: None,
                },
            ];
            let batch = store.batch(batch).await.unwrap().unwrap();
            [alone.entry, batch.entry]
        };
        let mut written = pin!(written);
        // The message is asked first, so that it is on its way before the first write.
        let done = std::future::poll_fn(|cx| {
            if answered.is_none()
                && let std::task::Poll::Ready(outcomes) = ingest.as_mut().poll(cx)
            {
                answered = Some(outcomes.unwrap());
            }
            written.as_mut().poll(cx)
        });
        writes.extend(done.await);
    }
    let applied: Vec<_> = message
        .iter()
        .map(|entry| Ingested::Applied(entry.id))
        .collect();
    assert_eq!(answered.unwrap(), applied);
    // By stamp, which is the order of application: a put is stamped after all that was applied.
    let (mut told, mut ops) = (Vec::new(), 0);
    while ops < message.len() + writes.len() * 3 / 2 {
        let event = tokio::time::timeout(Duration::from_secs(60), watch.next());
        if let WatchEvent::Change(change) = event.await.unwrap().unwrap().unwrap() {
            ops += 1;
            if told.last() != Some(&change.entry.id) {
                told.push(change.entry.id);
            }
        }
    }
    let mine = |id: &&EntryId| writes.contains(id);
    let theirs: Vec<_> = told.iter().filter(|id| !mine(id)).copied().collect();
    assert!(theirs.iter().eq(message.iter().map(|entry| &entry.id)));
    assert!(told.iter().filter(mine).eq(&writes));
    let between = told.iter().rposition(|id| !writes.contains(id)).unwrap();
    let between = told[..between].iter().filter(mine).count();
    // One before the first entry, and one that came when all were staged.
    assert!(
        between > 2,
        "{between} of {} writes went between",
        writes.len()
    );
    let report = store.verify().await.unwrap();
    assert_eq!(
        (report.damage, report.entries),
        (vec![], COUNT + writes.len() as u64)
    );
    let hash = store.state_hash().await.unwrap();
    store.close().await.unwrap();
    drop(watch);
    // A rebuild from the logs alone gives the same.
    std::fs::remove_file(dir.path().join("state.db")).unwrap();
    let store = open(dir.path(), &clock).await;
    assert_eq!(store.state_hash().await.unwrap(), hash);
    store.close().await.unwrap();
}

/// A node gets its own entries back, as after a restored backup: a write that comes meanwhile goes
/// after all of them, or it would fork the log.
#[tokio::test(flavor = "multi_thread")]
async fn write_waits_for_the_own_log_to_return() {
    const COUNT: u64 = 2000;
    let clock = Clock::manual(NOW_MS);
    // The key of `open`.
    let mut own = Author::new(1);
    let message: Vec<VerifiedEntry> = (0..COUNT)
        .map(|n| own.put(&format!("/k/{n}"), "v", NOW_MS + n, &[]))
        .collect();
    for _attempt in 0..20 {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path(), &clock).await;
        let back = store.ingest_verified(message.clone());
        let later = async {
            tokio::time::sleep(Duration::from_millis(2)).await;
            store.put("/k", "v").await.unwrap()
        };
        let (back, written) = tokio::join!(back, later);
        let is_first = written.seq == 1;
        if !is_first {
            assert_eq!(written.seq, COUNT + 1);
            let applied = |outcome: &Ingested| matches!(outcome, Ingested::Applied(_));
            assert!(back.unwrap().iter().all(applied));
            assert!(store.status().await.forks.is_empty());
        }
        store.close().await.unwrap();
        if !is_first {
            return;
        }
    }
    panic!("the write came first, always");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn n12_puts_go_on_while_tips_are_looked_up_for_a_peer() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), &Clock::manual(NOW_MS)).await;
    let mut author = Author::new(3);
    let value = "v".repeat(500);
    let chain: Vec<_> = (0..2000)
        .map(|number| author.put("/long", &value, NOW_MS - 5000 + number, &[]))
        .collect();
    let bytes = chain.iter().map(|entry| entry.signed.encode().into());
    assert!(store.ingest(bytes.collect()).await.is_ok());
    // Each of these costs a look into the log: the place is there, the id is not.
    let tip = |number: usize| lattice::protocol::frontier::FrontierTip {
        seq: 1 + u64::try_from(number).unwrap() % 2000,
        id: EntryId([7; 32]),
    };
    let tips: Vec<_> = (0..20_000)
        .map(|number| (chain[0].author(), tip(number)))
        .collect();
    let count = tips.len();
    let looking = tokio::spawn({
        let store = store.clone();
        async move { store.lacks(tips).await }
    });
    let (mut puts, began) = (0, std::time::Instant::now());
    let mut slowest = Duration::ZERO;
    while !looking.is_finished() {
        let asked = std::time::Instant::now();
        store.put("/own", puts.to_string()).await.unwrap();
        slowest = slowest.max(asked.elapsed());
        puts += 1;
    }
    eprintln!(
        "{puts} puts in {:?}, the slowest {slowest:?}",
        began.elapsed()
    );
    assert_eq!(looking.await.unwrap().unwrap().len(), count);
    // With the look-up on the writer's thread it is one put, and that takes all the time.
    assert!(puts > 3, "{puts} puts");
}
