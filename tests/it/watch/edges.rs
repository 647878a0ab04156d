//! Watches at the edges: hand-over during writes, damage, watches that are never read, odd options.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use lattice::{
    Store,
    clock::Clock,
    id::EntryId,
    protocol::{
        change::{Change, Kind},
        cursor::{Cursor, CursorError, Partial},
        entry::Op,
        frontier::FrontierTip,
    },
    store::{List, Start, Watch, WatchError, WatchEvent, WatchMode, WatchOptions, Write},
};
use tokio_stream::StreamExt as _;

use crate::support::{
    model::{AUTHOR_A, author_of, put},
    watch::{next, nothing, open},
    writer::Writer,
};

fn after(cursor: Cursor) -> WatchOptions {
    WatchOptions {
        start: Start::After(cursor),
        heartbeat: Duration::from_millis(20),
        ..WatchOptions::default()
    }
}

// Everything up to and with the next `CaughtUp`.
async fn until_caught_up(watch: &mut Watch) -> Vec<Arc<Change>> {
    let mut changes = Vec::new();
    loop {
        match next(watch).await {
            WatchEvent::Change(change) => changes.push(change),
            WatchEvent::CaughtUp => return changes,
            WatchEvent::Progress => {}
            WatchEvent::Gap { reason, .. } | WatchEvent::Damaged { what: reason, .. } => {
                panic!("{reason}")
            }
        }
    }
}

// Counters that only grow, written as fast as the store takes them.
fn fire(store: &Store, stop: &Arc<AtomicBool>) -> tokio::task::JoinHandle<u64> {
    let (store, stop) = (store.clone(), Arc::clone(stop));
    tokio::spawn(async move {
        let mut n = 0_u64;
        while !stop.load(Ordering::Relaxed) {
            let writes =
                (0..8).map(|at| Write::put(format!("/{at}"), (n + at).to_be_bytes().to_vec()));
            for written in store.write_many(writes.collect()).await {
                written.unwrap();
            }
            n += 8;
        }
        n
    })
}

fn count(change: &Change) -> u64 {
    u64::from_be_bytes(change.value.as_ref().unwrap()[..].try_into().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn hand_over_during_writes_is_lossless() {
    let dir = tempfile::tempdir().unwrap();
    let (_node, store) = open(dir.path(), &Clock::system(), 2).await;
    let stop = Arc::new(AtomicBool::new(false));
    let writing = fire(&store, &stop);
    let mut lags = 0;
    for round in 0..300_u64 {
        let start = match round % 3 {
            0 => Start::Initial,
            1 => Start::Now,
            _ => Start::After(
                store
                    .watch_with(WatchOptions {
                        start: Start::Now,
                        ..WatchOptions::default()
                    })
                    .cursor(),
            ),
        };
        let options = WatchOptions {
            start,
            ..WatchOptions::default()
        };
        let mut watch = store.watch_with(options.clone());
        let mut last: BTreeMap<Bytes, u64> = BTreeMap::new();
        let mut live = 0;
        while live < 60 {
            let WatchEvent::Change(change) = next(&mut watch).await else {
                continue;
            };
            live += u64::from(
                change.entry.seq > 0 && change.origin != lattice::protocol::change::Origin::Initial,
            );
            let n = count(&change);
            if let Some(before) = last.insert(change.key.clone(), n) {
                assert_eq!(n, before + 8, "round {round}, {options:?}: {change:?}");
            }
        }
        lags += watch.lags();
    }
    stop.store(true, Ordering::Relaxed);
    let written = writing.await.unwrap();
    assert!(written > 1000, "{written} puts are no fire");
    println!("{written} puts, {lags} lags");
}

// The log of the node's own author in store `s`: the largest, the root store's is small.
fn largest_log(dir: &Path) -> PathBuf {
    let stores = std::fs::read_dir(dir.join("stores")).unwrap();
    let logs =
        stores.flat_map(|store| std::fs::read_dir(store.unwrap().path().join("logs")).unwrap());
    let paths = logs.map(|log| log.unwrap().path());
    paths
        .max_by_key(|path| path.metadata().unwrap().len())
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_in_a_replay_is_one_gap_with_the_state() {
    let dir = tempfile::tempdir().unwrap();
    let (node, store) = open(dir.path(), &Clock::system(), 2).await;
    for n in 0..200 {
        store
            .put(format!("/k/{n:03}"), format!("value {n}"))
            .await
            .unwrap();
    }
    let start = nothing(&store);
    node.close().await.unwrap();
    drop((store, node));
    let path = largest_log(dir.path());
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    std::fs::write(&path, bytes).unwrap();

    let (_node, store) = open(dir.path(), &Clock::system(), 2).await;
    let mut watch = store.watch_with(after(start));
    let (mut gaps, mut state) = (0, BTreeSet::new());
    loop {
        match next(&mut watch).await {
            WatchEvent::Gap { reason, .. } => {
                assert!(reason.contains("damaged"), "{reason}");
                gaps += 1;
                state.clear();
            }
            WatchEvent::Change(change) => {
                state.insert(change.key.clone());
            }
            WatchEvent::CaughtUp => break,
            WatchEvent::Progress => {}
            WatchEvent::Damaged { what, .. } => panic!("{what}"),
        }
    }
    assert_eq!((gaps, state.len()), (1, 200));
    let cursor = watch.cursor();
    store.put("/k/new", "live").await.unwrap();
    let event = next(&mut watch).await;
    assert!(
        matches!(&event, WatchEvent::Change(change) if change.key == "/k/new"),
        "{event:?}"
    );
    let changes = until_caught_up(&mut store.watch_with(after(cursor))).await;
    assert_eq!(changes.len(), 1);
}

// A long value is in the log only. One that was damaged there ended every watch of the state, and
// so made every other key unwatchable.
#[tokio::test(flavor = "multi_thread")]
async fn damaged_long_value_is_reported_in_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let (node, store) = open(dir.path(), &Clock::system(), 2).await;
    let mut written = Vec::new();
    for n in 0..9 {
        let put = store.put(format!("/k/{n}"), vec![b'v'; 5000]);
        written.push(put.await.unwrap());
    }
    node.close().await.unwrap();
    drop((store, node));
    let path = largest_log(dir.path());
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    std::fs::write(&path, bytes).unwrap();

    let (_node, store) = open(dir.path(), &Clock::system(), 2).await;
    let mut watch = store.watch("/k/");
    let mut told = Vec::new();
    loop {
        match next(&mut watch).await {
            WatchEvent::Change(change) => told.push(change.key.clone()),
            WatchEvent::Damaged { key, entry, what } => {
                assert_eq!(key, "/k/4");
                assert_eq!((entry.id, entry.seq), (written[4].entry, written[4].seq));
                assert!(what.contains("bytes at offset"), "{what}");
                told.push("damaged".into());
            }
            WatchEvent::CaughtUp => break,
            other => panic!("{other:?}"),
        }
    }
    let expected = (0..9).map(|n| match n {
        4 => Bytes::from("damaged"),
        n => Bytes::from(format!("/k/{n}")),
    });
    assert_eq!(told, expected.collect::<Vec<_>>());
    store.put("/k/4", "mended").await.unwrap();
    let event = next(&mut watch).await;
    assert!(
        matches!(&event, WatchEvent::Change(change) if change.key == "/k/4"),
        "{event:?}"
    );
    // A watch without values does not report the damage.
    let keys_only = WatchOptions {
        prefixes: vec!["/k/".into()],
        keys_only: true,
        ..WatchOptions::default()
    };
    let changes = until_caught_up(&mut store.watch_with(keys_only)).await;
    assert_eq!(changes.len(), 9);
}

#[tokio::test(flavor = "multi_thread")]
async fn l8_stalled_watch_catches_up_from_the_log() {
    const PUTS: usize = 100_000;
    let dir = tempfile::tempdir().unwrap();
    let (_node, store) = open(dir.path(), &Clock::system(), 64).await;
    let mut watch = store.watch_with(after(nothing(&store)));
    let mut asleep = store.watch_with(WatchOptions {
        start: Start::Now,
        ..WatchOptions::default()
    });
    for from in (0..PUTS).step_by(2000) {
        let writes = (from..from + 2000).map(|n| Write::put(format!("/{n}"), "v"));
        for written in store.write_many(writes.collect()).await {
            written.unwrap();
        }
    }
    for watch in [&mut watch, &mut asleep] {
        let mut keys = BTreeSet::new();
        while keys.len() < PUTS {
            if let WatchEvent::Change(change) = next(watch).await {
                assert!(keys.insert(change.key.clone()), "{:?} twice", change.key);
            }
        }
    }
    // It was live before its first poll, and lost nothing by lagging.
    let lags = asleep.lags();
    assert!(lags <= 2, "{lags}");
}

// A late entry that sorts before the one delivered in part made the cursor forget the part, and
// the first ops of that one came twice after the next resume.
#[tokio::test(flavor = "multi_thread")]
async fn lag_counts_undelivered_entries() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), Clock::system());
    let (_node, store) = open(dir.path(), &clock, 4).await;
    let mut watch = store.watch("/a/");
    let mut idle = store.watch("/b/");
    for watch in [&mut watch, &mut idle] {
        assert_eq!(until_caught_up(watch).await.len(), 0);
        assert_eq!(watch.lag(), 0);
    }
    for number in 0..3 {
        store.put(format!("/a/{number}"), "v").await.unwrap();
        store.put("/elsewhere", "v").await.unwrap();
    }
    // Five lie behind the first one's position, and nothing waits for the other.
    assert_eq!((watch.lag(), idle.lag()), (6, 0));
    next(&mut watch).await;
    assert_eq!(watch.lag(), 5);
    for number in 3..20 {
        store.put(format!("/a/{number}"), "v").await.unwrap();
    }
    assert_eq!(watch.lag(), 22, "also past what its channel holds");
    for number in 1..20 {
        let WatchEvent::Change(change) = next(&mut watch).await else {
            panic!("only changes until it has caught up");
        };
        assert_eq!(change.key, format!("/a/{number}"));
    }
    assert!(matches!(next(&mut watch).await, WatchEvent::CaughtUp));
    assert_eq!(watch.lag(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn late_entry_leaves_a_partial_entry_alone() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::manual(1_700_000_000_000);
    let (_node, store) = open(dir.path(), &clock, 2).await;
    let start = nothing(&store);
    let keys = ["/x/0", "/x/1", "/x/2"];
    for written in store
        .write_many(keys.map(|key| Write::put(key, "v")).into())
        .await
    {
        written.unwrap();
    }
    let mut watch = store.watch_with(after(start));
    let WatchEvent::Change(first) = next(&mut watch).await else {
        panic!("a change")
    };
    assert_eq!((&first.key[..], first.op_count), (&b"/x/0"[..], 3));
    let cursor = watch.cursor();
    assert_eq!(cursor.partial.map(|partial| partial.ops), Some(1));

    let mut late = Writer::new(AUTHOR_A, store.id());
    let entry = late.write(1, vec![put("/a", "late")], BTreeSet::new(), false);
    store
        .ingest(vec![entry.signed.encode().into()])
        .await
        .unwrap();
    let mut told = Vec::new();
    let mut cursor = cursor;
    for _ in 0..3 {
        // One change, and a new watch.
        let mut watch = store.watch_with(after(cursor));
        let WatchEvent::Change(change) = next(&mut watch).await else {
            panic!("a change")
        };
        told.push(change.key.clone());
        cursor = watch.cursor();
    }
    assert_eq!(told, ["/x/1", "/x/2", "/a"]);
    assert_eq!(
        until_caught_up(&mut store.watch_with(after(cursor))).await,
        []
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn prefixes_are_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let (_node, store) = open(dir.path(), &Clock::system(), 2).await;
    let keys: [&[u8]; 6] = [
        b"/jobs/1",
        b"/jobs/10",
        b"/jobs/2",
        b"\0",
        b"\0\xff",
        b"\xff\xff",
    ];
    let watched = |prefix: &'static [u8], exact: bool, start: Start| WatchOptions {
        prefixes: vec![Bytes::from_static(prefix)],
        exact,
        start,
        ..WatchOptions::default()
    };
    let cases: [(&[u8], bool, &[usize]); 8] = [
        (b"/jobs/1", false, &[0, 1]),
        (b"/jobs/1", true, &[0]),
        (b"", false, &[0, 1, 2, 3, 4, 5]),
        (b"", true, &[]),
        (b"\0", false, &[3, 4]),
        (b"\0", true, &[3]),
        (b"\xff", false, &[5]),
        (b"\xff\xff\xff", false, &[]),
    ];
    let live: Vec<_> = cases
        .iter()
        .map(|(prefix, exact, _)| store.watch_with(watched(prefix, *exact, Start::Now)))
        .collect();
    for key in keys {
        store.put(key, "v").await.unwrap();
    }
    let all = nothing(&store);
    for ((prefix, exact, expected), mut live) in cases.into_iter().zip(live) {
        let expected: BTreeSet<&[u8]> = expected.iter().map(|at| keys[*at]).collect();
        assert_eq!(next(&mut live).await, WatchEvent::CaughtUp);
        let mut told = BTreeSet::new();
        while told.len() < expected.len() {
            if let WatchEvent::Change(change) = next(&mut live).await {
                told.insert(change.key.clone());
            }
        }
        let told: BTreeSet<&[u8]> = told.iter().map(|key| &key[..]).collect();
        assert_eq!(told, expected);
        for start in [Start::Initial, Start::After(all.clone())] {
            let changes =
                until_caught_up(&mut store.watch_with(watched(prefix, exact, start))).await;
            let told: BTreeSet<&[u8]> = changes.iter().map(|change| &change.key[..]).collect();
            assert_eq!(told, expected, "{:?}", Bytes::from_static(prefix));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn impossible_cursor_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (_node, store) = open(dir.path(), &Clock::system(), 2).await;
    store.put("/a", "v").await.unwrap();
    for text in ["", "x", "AAAAAAAA", "not a cursor!"] {
        let parsed = text.parse::<Cursor>();
        assert!(
            matches!(parsed, Err(CursorError::Garbage { .. })),
            "{text:?}: {parsed:?}"
        );
    }
    let mut text = nothing(&store).to_string();
    text.replace_range(3..4, if &text[3..4] == "A" { "B" } else { "A" });
    assert!(text.parse::<Cursor>().is_err());

    let unknown = FrontierTip {
        seq: 7,
        id: EntryId([9; 32]),
    };
    let mut ahead = nothing(&store);
    ahead.frontier.insert(author_of(AUTHOR_A), unknown);
    // An entry begun elsewhere that is not here is as good a reason as one that was finished.
    let mut begun = nothing(&store);
    begun.partial = Some(Partial {
        author: author_of(AUTHOR_A),
        tip: unknown,
        ops: 1,
    });
    for cursor in [ahead, begun] {
        let mut watch = store.watch_with(after(cursor));
        let refused = watch.next().await.unwrap();
        let Err(WatchError::Behind { missing }) = refused else {
            panic!("{refused:?}")
        };
        assert_eq!((missing[0].after, missing[0].through), (0, 7));
        assert!(watch.next().await.is_none(), "it ends after an error");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn latest_skips_superseded_changes_only() {
    let dir = tempfile::tempdir().unwrap();
    let (_node, store) = open(dir.path(), &Clock::system(), 1).await;
    let options = |start| WatchOptions {
        start,
        mode: WatchMode::Latest,
        ..WatchOptions::default()
    };
    let mut behind = store.watch_with(options(Start::Now));
    for n in 0..500 {
        store
            .put(format!("/{}", n % 5), format!("{n}"))
            .await
            .unwrap();
    }
    store.delete("/0").await.unwrap();
    let replayed =
        until_caught_up(&mut store.watch_with(options(Start::After(nothing(&store))))).await;
    let mut late = Vec::new();
    while late.len() < 5 {
        if let WatchEvent::Change(change) = next(&mut behind).await {
            late.push(change);
        }
    }
    for changes in [replayed, late] {
        let told: BTreeMap<_, _> = changes
            .iter()
            .map(|change| (&change.key[..], change.kind))
            .collect();
        assert_eq!((changes.len(), told.len()), (5, 5));
        assert_eq!(told[&b"/0"[..]], Kind::Delete);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dropped_watches_free_their_routes() {
    let dir = tempfile::tempdir().unwrap();
    let (node, store) = open(dir.path(), &Clock::system(), 2).await;
    let batch = vec![put("/a", "1"), put("/b", "2")];
    let mut watch = store.watch_with(WatchOptions {
        start: Start::Now,
        ..WatchOptions::default()
    });
    store.batch(batch.clone()).await.unwrap();
    node.close().await.unwrap();
    assert_eq!(next(&mut watch).await, WatchEvent::CaughtUp);
    // Changes published before the close still come.
    for op in &batch {
        let event = next(&mut watch).await;
        assert!(
            matches!(&event, WatchEvent::Change(change) if change.key == Op::key(op)),
            "{event:?}"
        );
    }
    assert!(matches!(watch.next().await, Some(Err(WatchError::Closed))));
    assert!(watch.next().await.is_none());
    assert!(
        store
            .list(List::default())
            .await
            .is_ok_and(|items| items.len() == 2)
            || store.put("/c", "3").await.is_err()
    );
}
