//! An author that forks a lot: opening, resuming and replaying take time linear in its branches, and
//! what is counted is the work.

use std::{sync::Arc, time::Instant};

use lattice::{
    Store, WatchEvent, WatchOptions,
    clock::Clock,
    disk::{Disk, RealDisk},
    protocol::{
        cursor::Cursor,
        entry::{Header, VerifiedEntry, sign},
        hlc::Hlc,
    },
    store::{Ingested, Start, StoreConfig},
};
use tokio_stream::StreamExt as _;

use super::setup::{NOW_MS, STORE, encoded, key, open, put, soon, state_path, sums_path};
use crate::support::{
    disk::{MemDisk, Reads},
    store,
};

/// Branches of one author, and their entries in rounds: each round has the next entry of every
/// branch.
struct Forked {
    first: Vec<VerifiedEntry>,
    second: Vec<VerifiedEntry>,
}

/// Makes a number of branches.
type Shape = fn(usize) -> Forked;

fn after(before: Option<&VerifiedEntry>, n: usize) -> VerifiedEntry {
    let n = n as u64;
    let header = Header {
        store: STORE,
        seq: before.map_or(1, |entry| entry.header.seq + 1),
        prev: before.map(|entry| entry.id),
        // Different, so that every entry is another one.
        hlc: Hlc {
            wall_ms: before.map_or(NOW_MS, |entry| entry.header.hlc.wall_ms + 1),
            counter: u32::try_from(n).unwrap(),
        },
        atomic: false,
        cause: None,
        parents: Vec::new(),
    };
    sign(&key(2), header, vec![put(format!("/{n:05}"), "x")]).unwrap()
}

/// All branches leave the author's first entry.
fn fan(branches: usize) -> Forked {
    let root = after(None, 0);
    let mut first = vec![root.clone()];
    first.extend((0..branches).map(|n| after(Some(&root), n)));
    let second = (0..branches).map(|n| after(Some(&first[n + 1]), n));
    let second = second.collect();
    Forked { first, second }
}

/// Each branch leaves another entry of the first one.
fn comb(branches: usize) -> Forked {
    let mut first = vec![after(None, 0)];
    for n in 1..=branches {
        first.push(after(first.last(), n));
    }
    let leave = (0..=branches).map(|n| after(Some(&first[n]), branches + 1 + n));
    let second = leave.collect();
    Forked { first, second }
}

/// Each branch leaves the first entry of the one before: a tip leads back through all of those.
fn stairs(branches: usize) -> Forked {
    let mut first = vec![after(None, 0)];
    let (mut leaves, mut tips) = (first[0].clone(), Vec::new());
    for n in 0..branches {
        let one = after(Some(&leaves), 2 * n);
        let two = after(Some(&one), 2 * n + 1);
        first.extend([one.clone(), two.clone()]);
        (leaves, _) = (one, tips.push(two));
    }
    let second = tips
        .iter()
        .zip(2 * branches..)
        .map(|(tip, n)| after(Some(tip), n));
    let second = second.collect();
    Forked { first, second }
}

async fn ingest(store: &Store, entries: &[VerifiedEntry]) {
    let entries: Vec<_> = entries.iter().collect();
    for outcome in soon(store.ingest(encoded(&entries))).await.unwrap() {
        assert!(matches!(outcome, Ingested::Applied(_)), "{outcome:?}");
    }
}

/// Reads through the history after `start`; returns its changes and the position after it.
async fn replay(store: &Store, start: Start) -> (usize, Cursor) {
    let mut watch = store.watch_with(WatchOptions {
        start,
        ..WatchOptions::default()
    });
    let mut changes = 0;
    loop {
        match soon(watch.next()).await.unwrap().unwrap() {
            WatchEvent::Change(_) => changes += 1,
            WatchEvent::CaughtUp => return (changes, watch.cursor()),
            _other => {}
        }
    }
}

fn since(start: Reads, now: Reads) -> Reads {
    Reads {
        calls: now.calls - start.calls,
        bytes: now.bytes - start.bytes,
    }
}

/// The reads of each step that has to do with all branches.
async fn work(forked: &Forked) -> Vec<(&'static str, Reads)> {
    let disk = MemDisk::default();
    let mut work = Vec::new();
    let store = open(&disk).await.unwrap();
    ingest(&store, &forked.first).await;
    let (_, cursor) = replay(&store, Start::SinceAuthored { ms: 1 }).await;
    ingest(&store, &forked.second).await;
    let (one, two) = (forked.first.len(), forked.second.len());
    for (step, start, expected) in [
        ("resume at old tips", Start::After(cursor), two),
        ("since a time", Start::SinceAuthored { ms: 1 }, one + two),
        ("since an arrival", Start::SinceArrived { ms: 1 }, one + two),
    ] {
        let before = disk.reads();
        let (changes, _) = replay(&store, start).await;
        assert_eq!(changes, expected, "{step}");
        work.push((step, since(before, disk.reads())));
    }
    let before = disk.reads();
    let status = soon(store.status()).await;
    assert!(status.forks.len() >= forked.second.len() - 1);
    work.push(("status", since(before, disk.reads())));
    soon(store.close()).await.unwrap();
    let mut image = disk.image();
    let disk = MemDisk::new(&image);
    let store = open(&disk).await.unwrap();
    work.push(("open", disk.reads()));
    let hash = soon(store.state_hash()).await.unwrap();
    soon(store.close()).await.unwrap();
    image.retain(|path, _| *path != state_path() && *path != sums_path());
    let disk = MemDisk::new(&image);
    let store = open(&disk).await.unwrap();
    work.push(("build the state", disk.reads()));
    assert_eq!(soon(store.state_hash()).await.unwrap(), hash);
    soon(store.close()).await.unwrap();
    work
}

#[tokio::test]
async fn work_is_linear_in_the_branches_of_an_author() {
    let shapes: [(_, Shape); 3] = [("fan", fan), ("comb", comb), ("stairs", stairs)];
    for (shape, forked) in shapes {
        let small = work(&forked(40)).await;
        let large = work(&forked(160)).await;
        for ((step, small), (_, large)) in small.into_iter().zip(large) {
            eprintln!("{shape}, {step}: {small:?} for 40, {large:?} for 160");
            // Four times the branches: at most five times the reads, quadratic work would be 16.
            assert!(large.calls <= 5 * small.calls + 20, "{shape}, {step}");
            assert!(large.calls <= 20 * 160, "{shape}, {step}: {large:?}");
        }
    }
}

/// `cargo test --release -- --ignored --nocapture time_of_forks`.
#[tokio::test]
#[ignore = "measures time"]
async fn time_of_forks() {
    for branches in [150, 1100, 5000] {
        let forked = fan(branches);
        let dir = tempfile::tempdir().unwrap();
        let disk: Arc<dyn Disk> = Arc::new(RealDisk);
        let config = || StoreConfig {
            dir: dir.path().to_owned(),
            disk: Arc::clone(&disk),
            ..store::config(STORE, [1; 32], &Clock::manual(NOW_MS), RealDisk)
        };
        let mut began = Instant::now();
        let mut lap = |step: &str| {
            eprintln!("{branches} branches, {step}: {:?}", began.elapsed());
            began = Instant::now();
        };
        let store = Store::open(config()).await.unwrap();
        ingest(&store, &forked.first).await;
        lap("first entries");
        let (_, cursor) = replay(&store, Start::SinceAuthored { ms: 1 }).await;
        lap("since a time");
        ingest(&store, &forked.second).await;
        lap("second entries");
        replay(&store, Start::After(cursor)).await;
        lap("resume");
        assert!(store.status().await.forks.len() >= branches - 1);
        lap("status");
        store.close().await.unwrap();
        lap("close");
        let store = Store::open(config()).await.unwrap();
        lap("open");
        store.close().await.unwrap();
        for path in [state_path(), sums_path()] {
            let path = dir.path().join(path.file_name().unwrap());
            std::fs::remove_file(path).unwrap();
        }
        lap("close");
        let store = Store::open(config()).await.unwrap();
        lap("build the state");
        store.close().await.unwrap();
    }
}
