//! Crowds of watches. Those that read a long log at the same time read it once for all, and each
//! gets exactly the changes behind its own position. Watches that are never read, and storms of
//! others that come and go, slow nobody.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use lattice::{
    Store, Watch, WatchEvent, WatchOptions,
    clock::Clock,
    id::{EntryId, StoreId},
    limits::{INDEX_EVERY_BYTES, SHARED_READ_BYTES_MAX},
    protocol::{cursor::Cursor, frontier::Frontier},
    store::Start,
};
use tokio_stream::StreamExt as _;

use crate::support::{
    disk::{EIO, Fail, MemDisk},
    model::put,
    random::Random,
    store,
    writer::Writer,
};

const STORE: StoreId = StoreId([8; 16]);
const NOW_MS: u64 = 1_700_000_000_000;
const HERE: [u8; 32] = [0x2a; 32];
const THERE: [u8; 32] = [0x2b; 32];
const VALUE_BYTES: usize = 2_000;
/// Watches that come and go in a storm, at least.
const STORM: usize = 200;

async fn open(disk: &MemDisk) -> Store {
    let config = store::config(STORE, HERE, &Clock::manual(NOW_MS), disk.clone());
    Store::open(config).await.unwrap()
}

// Two authors, who write in turns; more than is kept for those who read.
async fn fill(store: &Store) {
    let mut there = Writer::new(THERE, STORE);
    let value = "v".repeat(VALUE_BYTES);
    let puts = usize::try_from(SHARED_READ_BYTES_MAX).unwrap() / VALUE_BYTES * 3 / 2;
    for round in 0..puts / 100 {
        let mut come = Vec::new();
        for number in 0..50 {
            let ops = vec![put(&format!("/there/{round}/{number}"), &value)];
            let entry = there.write(NOW_MS, ops, BTreeSet::new(), false);
            come.push(entry.signed.encode().into());
        }
        store.ingest(come).await.unwrap();
        for number in 0..50 {
            store
                .put(format!("/here/{}", number % 5), value.clone())
                .await
                .unwrap();
        }
    }
}

fn watch(store: &Store, from: &Cursor) -> Watch {
    store.watch_with(WatchOptions {
        start: Start::After(from.clone()),
        ..WatchOptions::default()
    })
}

fn beginning() -> Cursor {
    Cursor {
        store: STORE,
        frontier: Frontier::default(),
        partial: None,
        expired_through_ms: 0,
    }
}

// Returns the changes after a position, each with the position after it, and the gap if the watch
// ended early.
async fn rest(store: &Store, from: &Cursor) -> (Vec<(EntryId, Cursor)>, Option<String>) {
    let mut watch = watch(store, from);
    let mut told = Vec::new();
    loop {
        match watch.next().await.unwrap().unwrap() {
            WatchEvent::Change(change) => told.push((change.entry.id, watch.cursor())),
            WatchEvent::Gap { reason, .. } => return (told, Some(reason)),
            WatchEvent::CaughtUp => return (told, None),
            _other => {}
        }
    }
}

fn ids(told: &[(EntryId, Cursor)]) -> Vec<EntryId> {
    told.iter().map(|(id, _)| *id).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn lagging_crowd_reads_the_log_once() {
    let disk = MemDisk::default();
    let store = open(&disk).await;
    fill(&store).await;
    let (all, gap) = rest(&store, &beginning()).await;
    assert_eq!(gap, None);
    let expected = store.status().await.entries;
    assert_eq!(all.len() as u64, expected);
    let all = Arc::new(all);
    let mut random = Random::new(7);
    // This only counts reads: the fault is never reached.
    disk.fail(u64::MAX, EIO, Fail::Any);
    let mut crowd = tokio::task::JoinSet::new();
    for number in 0..100 {
        // They fell behind at about the same time, and a few of them long ago.
        let place = if number % 10 == 0 {
            random.below(all.len())
        } else {
            random.below(40)
        };
        let (store, all) = (store.clone(), Arc::clone(&all));
        crowd.spawn(async move {
            let (told, gap) = rest(&store, &all[place].1).await;
            assert_eq!(gap, None);
            assert!(ids(&told) == ids(&all[place + 1..]), "behind place {place}");
        });
    }
    while let Some(done) = crowd.join_next().await {
        done.unwrap();
    }
    let log_bytes = store.status().await.log_bytes;
    let (reads, chunks) = (disk.counted(), log_bytes / INDEX_EVERY_BYTES);
    eprintln!("{reads} reads of {log_bytes} bytes by 100 watches");
    // Each chunk a few times, as some come late; not a hundred times.
    assert!(reads < chunks * 10, "{reads} reads of {chunks} chunks");
    assert!(chunks > 60, "the log is longer than what is kept");
    store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn read_ahead_for_one_reader_is_not_repeated() {
    let disk = MemDisk::default();
    let store = open(&disk).await;
    fill(&store).await;
    disk.fail(u64::MAX, EIO, Fail::Any);
    let (all, gap) = rest(&store, &beginning()).await;
    assert_eq!(gap, None);
    assert_eq!(all.len() as u64, store.status().await.entries);
    let log_bytes = store.status().await.log_bytes;
    let (reads, chunks) = (disk.counted(), log_bytes / INDEX_EVERY_BYTES);
    // Values are in the log, and none is read for itself: they come with their entries.
    assert!(
        reads < chunks * 5 / 4 + 20,
        "{reads} reads of {chunks} chunks"
    );
    store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn every_reader_meets_the_same_damage() {
    let disk = MemDisk::default();
    let store = open(&disk).await;
    fill(&store).await;
    let (all, _) = rest(&store, &beginning()).await;
    let author = store.author();
    store.close().await.unwrap();
    drop(store);
    let mut image = disk.image();
    let (_, log) = image
        .iter_mut()
        .find(|(path, _)| path.to_string_lossy().contains(&author.to_string()))
        .unwrap();
    // In the middle of some value, in the middle of some chunk.
    let at = usize::try_from(INDEX_EVERY_BYTES).unwrap() * 7 / 2;
    let at = at
        + log[at..]
            .windows(8)
            .position(|bytes| bytes == b"vvvvvvvv")
            .unwrap();
    log[at] ^= 1;
    let disk = MemDisk::new(&image);
    let store = open(&disk).await;
    let mut met = Vec::new();
    for _time in 0..3 {
        let (told, gap) = rest(&store, &beginning()).await;
        let gap = gap.expect("damage is told");
        assert!(gap.contains("damaged"), "{gap}");
        assert!(
            ids(&told) == ids(&all[..told.len()]),
            "what lies before it is told"
        );
        met.push((told.len(), gap));
    }
    assert!(met[0].0 > 50 && met[0].0 < 400, "{met:?}");
    assert!(met.iter().all(|it| *it == met[0]), "{met:?}");
    // Behind it there is nothing wrong.
    let behind = all.len() / 2;
    let (told, gap) = rest(&store, &all[behind].1).await;
    assert_eq!(gap, None);
    assert!(ids(&told) == ids(&all[behind + 1..]));
    store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn l8_thousand_watches_that_stall_and_leave() {
    const PUTS: usize = 300;
    let store = open(&MemDisk::default()).await;
    let live = WatchOptions {
        start: Start::Now,
        ..WatchOptions::default()
    };
    let asleep: Vec<_> = (0..100).map(|_| store.watch_with(live.clone())).collect();
    let mut readers = tokio::task::JoinSet::new();
    for _reader in 0..900 {
        readers.spawn(all_of(store.watch_with(live.clone()), PUTS));
    }
    let over = Arc::new(AtomicBool::new(false));
    let mut storms = tokio::task::JoinSet::new();
    for seed in 0..4 {
        storms.spawn(storm(store.clone(), Arc::clone(&over), Random::new(seed)));
    }
    for number in 0..PUTS {
        let put = store.put(format!("/k/{number:03}"), "v");
        put.await.unwrap();
    }
    while let Some(done) = readers.join_next().await {
        done.unwrap();
    }
    over.store(true, Ordering::Release);
    let come_and_gone: usize = storms.join_all().await.into_iter().sum();
    assert!(come_and_gone >= 4 * STORM, "{come_and_gone}");
    // A watch that was not read for long has lost nothing.
    for watch in asleep {
        all_of(watch, PUTS).await;
    }
    assert_eq!(store.status().await.watchers, 0);
    store.close().await.unwrap();
}

// Reads until `puts` keys came, each once and in order.
async fn all_of(mut watch: Watch, puts: usize) {
    let mut told = 0;
    while told < puts {
        if let WatchEvent::Change(change) = watch.next().await.unwrap().unwrap() {
            assert_eq!(change.key, format!("/k/{told:03}"));
            told += 1;
        }
    }
}

// Watches come, read a little or nothing, and go, until it is over. Returns how many.
async fn storm(store: Store, over: Arc<AtomicBool>, mut random: Random) -> usize {
    let mut come = 0;
    // On a busy machine it goes on until it was one.
    while !over.load(Ordering::Acquire) || come < STORM {
        let mut watches = Vec::new();
        for _watch in 0..20 {
            let prefix = format!("/k/{}", random.below(100));
            watches.push(store.watch(prefix));
        }
        come += watches.len();
        for watch in watches.iter_mut().take(3) {
            let soon = Duration::from_millis(2);
            drop(tokio::time::timeout(soon, watch.next()).await);
        }
        tokio::task::yield_now().await;
    }
    come
}
