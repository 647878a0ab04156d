//! Selections of a watch: several prefixes, patterns, and an end in time. `histories` judges random
//! ones.

use std::time::Duration;

use bytes::Bytes;
use lattice::{
    Store,
    clock::Clock,
    protocol::{change::Kind, pattern::Pattern},
    store::{Start, Watch, WatchEvent, WatchOptions, Write},
};
use tokio_stream::StreamExt as _;

use crate::support::watch::{next, nothing, open};

const START_MS: u64 = 1_700_000_000_000;

fn about(prefixes: &[&'static str], patterns: &[&'static str], start: Start) -> WatchOptions {
    let pattern = |text: &&'static str| Pattern::new(*text).unwrap();
    WatchOptions {
        prefixes: prefixes.iter().map(|prefix| Bytes::from(*prefix)).collect(),
        patterns: patterns.iter().map(pattern).collect(),
        start,
        ..WatchOptions::default()
    }
}

async fn until_caught_up(watch: &mut Watch) -> Vec<String> {
    let mut told = Vec::new();
    loop {
        match next(watch).await {
            WatchEvent::Change(change) => told.push(String::from_utf8_lossy(&change.key).into()),
            WatchEvent::CaughtUp => return told,
            other => panic!("{other:?}"),
        }
    }
}

// Returns the keys of all changes until the end; expiries have a mark.
async fn until_the_end(watch: &mut Watch) -> Vec<String> {
    let all = async {
        let mut told = Vec::new();
        while let Some(event) = watch.next().await {
            if let WatchEvent::Change(change) = event.unwrap() {
                let mark = if change.kind == Kind::Expire { "!" } else { "" };
                told.push(format!("{}{mark}", String::from_utf8_lossy(&change.key)));
            }
        }
        told
    };
    let ended = tokio::time::timeout(Duration::from_secs(30), all).await;
    ended.expect("an end within 30 s")
}

async fn put_all(store: &Store, keys: &[&'static str]) {
    for key in keys {
        store.put(*key, "v").await.unwrap();
    }
}

const KEYS: [&str; 8] = [
    "/b/1",
    "/a/1",
    "/jobs/7/done",
    "/a/2",
    "/jobs/7/log",
    "/b/2",
    "/jobs/8/x/done",
    "/c",
];

#[tokio::test]
async fn several_prefixes_are_one_ordered_stream() {
    let dir = tempfile::tempdir().unwrap();
    let (_node, store) = open(dir.path(), &Clock::system(), 2).await;
    // Three of the selections match `/a/1`.
    let (prefixes, patterns) = (["/b/", "/a/", "/a/1", "/b/"], ["/jobs/*/done", "/a/?"]);
    let mut live = store.watch_with(about(&prefixes, &patterns, Start::Now));
    put_all(&store, &KEYS).await;
    let wanted = ["/b/1", "/a/1", "/jobs/7/done", "/a/2", "/b/2"];
    let mut told = until_caught_up(&mut live).await;
    while told.len() < wanted.len() {
        if let WatchEvent::Change(change) = next(&mut live).await {
            told.push(String::from_utf8_lossy(&change.key).into());
        }
    }
    assert_eq!(told, wanted);
    // Channels hold two batches: the watch has read the log for some of it.
    assert!(live.lags() > 0);

    let after = Start::After(nothing(&store));
    let mut replayed = store.watch_with(about(&prefixes, &patterns, after));
    assert_eq!(until_caught_up(&mut replayed).await, wanted);

    let mut initial = store.watch_with(about(&prefixes, &patterns, Start::Initial));
    let sorted = ["/a/1", "/a/2", "/b/1", "/b/2", "/jobs/7/done"];
    assert_eq!(until_caught_up(&mut initial).await, sorted);
}

#[tokio::test]
async fn cursor_serves_another_selection() {
    let dir = tempfile::tempdir().unwrap();
    let (_node, store) = open(dir.path(), &Clock::system(), 64).await;
    put_all(&store, &KEYS[..4]).await;
    let mut first = store.watch_with(about(&["/c"], &[], Start::Initial));
    assert_eq!(until_caught_up(&mut first).await, Vec::<String>::new());
    put_all(&store, &KEYS[4..]).await;
    let after = Start::After(first.cursor());
    let mut other = store.watch_with(about(&[], &["/jobs/**"], after));
    let rest = ["/jobs/7/log", "/jobs/8/x/done"];
    assert_eq!(until_caught_up(&mut other).await, rest);
}

#[tokio::test]
async fn past_watch_ends_in_time_and_resumes_there() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::manual(START_MS);
    let (_node, store) = open(dir.path(), &clock, 64).await;
    let brief = Write::put("/brief", "v").expires_ms(START_MS + 150);
    store.write(brief).await.unwrap();
    for key in ["/0", "/1", "/2", "/3"] {
        store.put(key, "v").await.unwrap();
        clock.advance(100);
    }
    let options = |until_ms| WatchOptions {
        until_ms: Some(START_MS + until_ms),
        ..about(&[], &[], Start::SinceAuthored { ms: START_MS })
    };
    let mut none_later = store.watch_with(options(100));
    assert_eq!(until_the_end(&mut none_later).await, ["/brief", "/0", "/1"]);
    let mut watch = store.watch_with(options(200));
    assert_eq!(
        until_the_end(&mut watch).await,
        ["/brief", "/0", "/1", "/2", "/brief!"]
    );
    let after = Start::After(watch.cursor());
    let mut rest = store.watch_with(about(&[], &[], after));
    assert_eq!(until_caught_up(&mut rest).await, ["/3"]);
}

#[tokio::test]
async fn watch_with_a_later_end_is_live_until_then() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::manual(START_MS);
    let (_node, store) = open(dir.path(), &clock, 64).await;
    store.put("/before", "v").await.unwrap();
    let mut watch = store.watch_with(WatchOptions {
        until_ms: Some(START_MS + 100),
        ..about(&[], &[], Start::SinceAuthored { ms: START_MS })
    });
    assert_eq!(until_caught_up(&mut watch).await, ["/before"]);
    clock.advance(100);
    let brief = Write::put("/then", "v").expires_ms(START_MS + 100);
    store.write(brief).await.unwrap();
    clock.advance(1);
    store.put("/late", "v").await.unwrap();
    assert_eq!(until_the_end(&mut watch).await, ["/then", "/then!"]);
}
