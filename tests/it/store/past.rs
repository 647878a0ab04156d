//! The past, compared with a second way to compute it: all entries stamped up to a time, folded in
//! order.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use lattice::{
    Store,
    clock::Clock,
    id::{Author, StoreId},
    limits::HISTORY_ENTRIES_MAX,
    protocol::entry::{Op, VerifiedEntry},
    store::{List, PastError, Write},
};

use crate::support::{
    disk::{Image, MemDisk},
    model::{AUTHOR_A, AUTHOR_B, delete, heads_after},
    random::{Random, for_each_seed},
    store,
    writer::{Writer, heads_of},
};

const START_MS: u64 = 1_700_000_000_000;
const KEYS: [&str; 5] = ["/a/1", "/a/2", "/b/1", "/b/2", "/c"];

async fn open(clock: &Clock, disk: &MemDisk) -> Store {
    let config = store::config(StoreId([3; 16]), [1; 32], clock, disk.clone());
    Store::open(config).await.unwrap()
}

fn op(random: &mut Random, key: &str, now_ms: u64) -> Op {
    if random.once_in(5) {
        return delete(key);
    }
    // Some are in rows, some in the log only; some expire.
    let bytes = if random.once_in(4) { 2000 } else { 3 };
    Op::Put {
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: vec![u8::try_from(random.below(256)).unwrap(); bytes].into(),
        expires_ms: random.once_in(4).then(|| now_ms + random.bits() % 40),
    }
}

/// The live values at `ms`, with their heads, by definition.
fn fold(log: &[VerifiedEntry], ms: u64) -> BTreeMap<Bytes, (Bytes, u32)> {
    let entries: Vec<_> = log
        .iter()
        .filter(|entry| entry.header.hlc.wall_ms <= ms)
        .collect();
    let live = heads_after(entries.iter().copied())
        .into_iter()
        .filter_map(|(key, heads)| {
            let winner = heads.winner().filter(|winner| winner.is_live(ms))?;
            let entry = entries.iter().find(|entry| entry.id == winner.id)?;
            let op = entry.ops.iter().find(|op| *op.key() == key)?;
            let Op::Put { value, .. } = op else {
                return None;
            };
            let heads = u32::try_from(heads.as_slice().len()).unwrap();
            Some((key, (value.clone(), heads)))
        });
    live.collect()
}

async fn one(random: &mut Random) {
    let clock = Clock::manual(START_MS);
    let store = open(&clock, &MemDisk::default()).await;
    let mut writers = [AUTHOR_A, AUTHOR_B].map(|secret| Writer::new(secret, store.id()));
    // Written elsewhere and not here yet.
    let mut late = Vec::new();
    // The newest entry of each writer at each key, which its next one there cites.
    let mut own = BTreeMap::new();
    for _ in 0..25 {
        clock.advance(random.bits() % 15);
        let now_ms = clock.now_ms();
        let mut keys = KEYS.to_vec();
        random.shuffle(&mut keys);
        keys.truncate(1 + random.below(3));
        let ops: Vec<Op> = keys.iter().map(|key| op(random, key, now_ms)).collect();
        if random.once_in(2) {
            let one = |op| Write {
                ops: vec![op],
                atomic: false,
                condition: None,
                cause: None,
            };
            for written in store.write_many(ops.into_iter().map(one).collect()).await {
                written.unwrap();
            }
            continue;
        }
        let mut parents = if random.once_in(3) {
            BTreeSet::new()
        } else {
            heads_of(&store, &keys).await
        };
        let at = random.below(2);
        parents.extend(keys.iter().filter_map(|key| own.get(&(at, *key))));
        let entry = writers[at].write(now_ms, ops, parents, false);
        own.extend(keys.iter().map(|key| ((at, *key), entry.as_parent())));
        late.push(entry);
        if random.once_in(2) {
            let entries = late.drain(..).map(|entry| entry.signed.encode().into());
            store.ingest(entries.collect()).await.unwrap();
        }
    }
    let entries = late.drain(..).map(|entry| entry.signed.encode().into());
    store.ingest(entries.collect()).await.unwrap();
    let authors: BTreeSet<Author> = store.frontier().iter().map(|(author, _)| author).collect();
    let mut log = Vec::new();
    for author in authors {
        let records = store.entries(author, 0, usize::MAX).await.unwrap();
        log.extend(records.into_iter().map(|record| record.entry));
    }
    let end_ms = clock.now_ms() + 50;
    let times = (0..12).map(|_| START_MS - 5 + random.bits() % (end_ms - START_MS + 10));
    let times: Vec<u64> = times.collect();
    for ms in &times {
        let expected = fold(&log, *ms);
        let listed = store.list_at(List::default(), *ms).await.unwrap();
        let listed: BTreeMap<_, _> = listed
            .into_iter()
            .map(|item| (item.key, (item.value, item.heads)))
            .collect();
        assert_eq!(listed, expected, "at {ms}");
        for key in KEYS {
            let item = store.get_at(key.as_bytes(), *ms).await.unwrap();
            let item = item.map(|item| (item.value, item.heads));
            assert_eq!(item.as_ref(), expected.get(key.as_bytes()), "{key} at {ms}");
        }
        let below = store
            .list_at(
                List {
                    prefix: "/b/".into(),
                    limit: Some(1),
                    keys_only: true,
                },
                *ms,
            )
            .await
            .unwrap();
        let first = expected.keys().find(|key| key.starts_with(b"/b/"));
        assert_eq!(below.first().map(|item| &item.key), first);
        assert!(below.len() <= 1 && below.iter().all(|item| item.value.is_empty()));
    }
    for (from, to) in times.iter().zip(&times[1..]) {
        let differences = store.diff("/a/", *from, *to).await.unwrap();
        let (before, after) = (fold(&log, *from), fold(&log, *to));
        for key in KEYS.iter().filter(|key| key.starts_with("/a/")) {
            let found = differences.iter().find(|found| found.key == key.as_bytes());
            let value = |at: &BTreeMap<Bytes, (Bytes, u32)>| {
                at.get(key.as_bytes()).map(|(value, _)| value.clone())
            };
            let (before, after) = (value(&before), value(&after));
            match found {
                Some(found) => {
                    assert_eq!(found.before.as_ref().map(|item| item.value.clone()), before);
                    assert_eq!(found.after.as_ref().map(|item| item.value.clone()), after);
                }
                None => assert_eq!(before, after, "{key} from {from} to {to}"),
            }
        }
        assert!(
            differences
                .iter()
                .all(|found| found.key.starts_with(b"/a/"))
        );
    }
}

#[test]
fn past_matches_a_fold_of_its_entries() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for_each_seed(1..=60, |random| runtime.block_on(one(random)));
}

/// A page of the list ends where 512 rows were read; the next one goes on there.
#[tokio::test]
async fn long_list_is_paged() {
    let clock = Clock::manual(START_MS);
    let store = open(&clock, &MemDisk::default()).await;
    let writes = (0..1500).map(|n| Write::put(format!("/{n:04}"), "v"));
    store.write_many(writes.collect()).await;
    clock.advance(10);
    store.delete("/0700").await.unwrap();
    let then = store.list_at(List::default(), START_MS).await.unwrap();
    assert_eq!(then.len(), 1500);
    assert!(then.is_sorted_by_key(|item| item.key.clone()));
    let now = store.list_at(List::default(), START_MS + 10).await.unwrap();
    assert_eq!(now.len(), 1499);
    let limited = List {
        limit: Some(700),
        ..List::default()
    };
    assert_eq!(store.list_at(limited, START_MS).await.unwrap().len(), 700);
}

#[tokio::test]
async fn time_before_the_log_is_an_error() {
    let clock = Clock::manual(START_MS);
    let disk = MemDisk::default();
    let store = open(&clock, &disk).await;
    for n in 0..3 {
        store.put("/k", vec![n; 3000]).await.unwrap();
        clock.advance(10);
    }
    store.close().await.unwrap();
    let mut image: Image = disk.image();
    let log = image
        .keys()
        .find(|path| path.starts_with("/store/logs"))
        .unwrap()
        .clone();
    image.get_mut(&log).unwrap()[4500] ^= 1;
    let store = open(&clock, &MemDisk::new(&image)).await;
    let newest = store.get_at(b"/k", START_MS + 20).await.unwrap().unwrap();
    assert_eq!(newest.value[0], 2);
    let refused = store.get_at(b"/k", START_MS + 10).await;
    assert!(matches!(refused, Err(PastError::Read(_))), "{refused:?}");
    let refused = store.diff("", START_MS, START_MS + 20).await;
    assert!(matches!(refused, Err(PastError::Read(_))), "{refused:?}");
}

#[tokio::test]
async fn key_written_too_often_since_is_refused() {
    let clock = Clock::manual(START_MS);
    let store = open(&clock, &MemDisk::default()).await;
    store.put("/k", "first").await.unwrap();
    clock.advance(10);
    let writes = (0..HISTORY_ENTRIES_MAX + 1).map(|_| Write::put("/k", "v"));
    store.write_many(writes.collect()).await;
    let refused = store.get_at(b"/k", START_MS).await;
    assert!(
        matches!(
            refused,
            Err(PastError::TooFar {
                entries_max: HISTORY_ENTRIES_MAX,
                ..
            })
        ),
        "{refused:?}"
    );
    assert!(store.get_at(b"/k", START_MS + 10).await.unwrap().is_some());
}
