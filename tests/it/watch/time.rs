//! Watches and time: heartbeats on a paused clock, expiries on a wall clock that the test sets.

use std::time::Duration;

use bytes::Bytes;
use lattice::{
    clock::Clock,
    limits::EXPIRIES_MS_MAX,
    protocol::{change::Kind, entry::Op},
    state::Expiring,
    store::{Start, WatchEvent, WatchOptions, Write},
};
use tokio::time::Instant;
use tokio_stream::StreamExt as _;

use crate::support::watch::{next, nothing, open};

const START_MS: u64 = 1_700_000_000_000;

fn ttl(key: &'static str, ms: u64) -> Write {
    Write::put(key, "v").expires_ms(ms)
}

// Goes past bookmarks to the next change.
async fn next_change(
    watch: &mut lattice::store::Watch,
) -> std::sync::Arc<lattice::protocol::change::Change> {
    for _ in 0..200 {
        if let WatchEvent::Change(change) = next(watch).await {
            return change;
        }
    }
    panic!("200 bookmarks and no change");
}

#[tokio::test]
async fn quiet_watch_gets_each_heartbeat() {
    let dir = tempfile::tempdir().unwrap();
    let (_node, store) = open(dir.path(), &Clock::system(), 2).await;
    store.put("/a", "1").await.unwrap();
    let mut watch = store.watch_with(WatchOptions {
        prefixes: vec!["/b".into()],
        start: Start::Now,
        heartbeat: Duration::from_secs(7),
        ..WatchOptions::default()
    });
    assert_eq!(next(&mut watch).await, WatchEvent::CaughtUp);
    tokio::time::pause();
    for _ in 0..3 {
        let before = Instant::now();
        assert_eq!(watch.next().await.unwrap().unwrap(), WatchEvent::Progress);
        let silent = before.elapsed();
        let heartbeat = Duration::from_secs(7);
        assert!(
            silent >= heartbeat && silent < heartbeat + Duration::from_millis(5),
            "{silent:?}"
        );
    }
    tokio::time::resume();
}

#[tokio::test]
async fn change_delays_the_heartbeat() {
    let dir = tempfile::tempdir().unwrap();
    let (_node, store) = open(dir.path(), &Clock::system(), 2).await;
    let mut watch = store.watch_with(WatchOptions {
        start: Start::Now,
        heartbeat: Duration::from_secs(10),
        ..WatchOptions::default()
    });
    assert_eq!(next(&mut watch).await, WatchEvent::CaughtUp);
    store.put("/a", "1").await.unwrap();
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(9)).await;
    let event = watch.next().await.unwrap().unwrap();
    assert!(matches!(event, WatchEvent::Change(_)), "{event:?}");
    let before = Instant::now();
    assert_eq!(watch.next().await.unwrap().unwrap(), WatchEvent::Progress);
    assert!(
        before.elapsed() >= Duration::from_secs(10),
        "{:?}",
        before.elapsed()
    );
    tokio::time::resume();
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_passes_entries_that_do_not_match() {
    let dir = tempfile::tempdir().unwrap();
    let (_node, store) = open(dir.path(), &Clock::system(), 1).await;
    let mut watch = store.watch_with(WatchOptions {
        prefixes: vec!["/quiet".into()],
        heartbeat: Duration::from_millis(10),
        ..WatchOptions::default()
    });
    // It is live before there is anything to pass over.
    assert_eq!(next(&mut watch).await, WatchEvent::CaughtUp);
    for n in 0..100 {
        store.put(format!("/loud/{n}"), "v").await.unwrap();
    }
    for _heartbeat in 0..1000 {
        if watch.cursor().frontier == store.frontier() {
            return;
        }
        let event = next(&mut watch).await;
        assert!(!matches!(event, WatchEvent::Change(_)), "{event:?}");
    }
    panic!("the cursor stands still");
}

#[tokio::test(flavor = "multi_thread")]
async fn expiry_is_delivered_once_in_time() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::manual(START_MS);
    let (_node, store) = open(dir.path(), &clock, 2).await;
    let mut watch = store.watch_with(WatchOptions {
        heartbeat: Duration::from_millis(50),
        ..WatchOptions::default()
    });
    let written = store.write(ttl("/lease", START_MS + 100)).await;
    let written = written.unwrap().unwrap();
    assert_eq!(next_change(&mut watch).await.kind, Kind::Put);
    clock.set(START_MS + 99);
    store.put("/other", "wakes the writer").await.unwrap();
    assert_eq!(next_change(&mut watch).await.key, "/other");
    assert_eq!(next(&mut watch).await, WatchEvent::Progress);
    assert!(store.get(b"/lease").await.unwrap().is_some());

    clock.set(START_MS + 100);
    let change = next_change(&mut watch).await;
    assert_eq!(
        (change.kind, change.entry.id),
        (Kind::Expire, written.entry)
    );
    assert_eq!(change.expires_ms, Some(START_MS + 100));
    assert_eq!(store.get(b"/lease").await.unwrap(), None);
    assert_eq!(next(&mut watch).await, WatchEvent::Progress);
    assert_eq!(watch.cursor().expired_through_ms, START_MS + 100);

    // A lease ends by the clock, also when that goes back; stamps go on upwards.
    clock.set(START_MS - 86_400_000);
    assert!(store.get(b"/lease").await.unwrap().is_some());
    let later = store.write(ttl("/lease", START_MS + 200)).await;
    let later = later.unwrap().unwrap();
    assert!(later.hlc > written.hlc);
    assert_eq!(next_change(&mut watch).await.kind, Kind::Put);
    assert!(store.get(b"/lease").await.unwrap().is_some());
    clock.set(START_MS + 200);
    let change = next_change(&mut watch).await;
    assert_eq!((change.kind, change.entry.id), (Kind::Expire, later.entry));
}

#[tokio::test(flavor = "multi_thread")]
async fn renewed_lease_does_not_expire() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::manual(START_MS);
    let (_node, store) = open(dir.path(), &clock, 2).await;
    let mut watch = store.watch("");
    for n in 1..=20 {
        store
            .write(ttl("/lease", START_MS + n * 10 + 15))
            .await
            .unwrap();
        clock.set(START_MS + n * 10);
    }
    store.put("/end", "").await.unwrap();
    loop {
        let change = next_change(&mut watch).await;
        assert_ne!(change.kind, Kind::Expire, "{change:?}");
        if change.key == "/end" {
            break;
        }
    }
}

// Lost before: expiries of one millisecond beyond one page (1,024 live, 512 in a replay).
#[tokio::test(flavor = "multi_thread")]
async fn many_keys_expire_in_one_millisecond() {
    const KEYS: usize = 3000;
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::manual(START_MS);
    let (_node, store) = open(dir.path(), &clock, 2).await;
    let mut watch = store.watch_with(WatchOptions {
        start: Start::Now,
        ..WatchOptions::default()
    });
    let at = watch.cursor();
    let writes: Vec<_> = (0..KEYS)
        .map(|n| Write::put(format!("/{n}"), "v").expires_ms(START_MS + 5 + (n as u64 / 2900)))
        .collect();
    for written in store.write_many(writes).await {
        written.unwrap();
    }
    clock.set(START_MS + 50);
    let mut expired = 0;
    while expired < KEYS {
        expired += usize::from(next_change(&mut watch).await.kind == Kind::Expire);
    }
    let mut replayed = store.watch_with(WatchOptions {
        start: Start::After(at),
        ..WatchOptions::default()
    });
    let mut expired = 0;
    loop {
        match next(&mut replayed).await {
            WatchEvent::Change(change) => expired += usize::from(change.kind == Kind::Expire),
            WatchEvent::CaughtUp => break,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(expired, KEYS);
}

// A member can sign any number of values that end at once. They took memory for all of them.
#[tokio::test(flavor = "multi_thread")]
async fn too_many_expiries_of_one_millisecond_are_a_gap() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::manual(START_MS);
    let (_node, store) = open(dir.path(), &clock, 2).await;
    let key = |number: usize| format!("/{number}");
    for first in (0..=EXPIRIES_MS_MAX).step_by(8192) {
        let writes = (first..(first + 8192).min(EXPIRIES_MS_MAX + 1))
            .map(|number| Write::put(key(number), "v").expires_ms(START_MS + 5));
        for written in store.write_many(writes.collect()).await {
            written.unwrap();
        }
    }
    store
        .write(Write::put("/later", "v").expires_ms(START_MS + 6))
        .await
        .unwrap();
    let mut watch = store.watch_with(WatchOptions {
        start: Start::Now,
        ..WatchOptions::default()
    });
    assert_eq!(next(&mut watch).await, WatchEvent::CaughtUp);
    let at = watch.cursor();
    clock.set(START_MS + 50);
    // Live, and on resume: the state, in which they are over.
    for replays in [false, true] {
        if replays {
            watch = store.watch_with(WatchOptions {
                start: Start::After(at.clone()),
                ..WatchOptions::default()
            });
        }
        let gap = loop {
            match next(&mut watch).await {
                WatchEvent::Progress => {}
                event => break event,
            }
        };
        let reason = Expiring::TOO_MANY.to_owned();
        assert_eq!(
            gap,
            WatchEvent::Gap {
                reason,
                reach_ms: None
            }
        );
        loop {
            match next(&mut watch).await {
                WatchEvent::CaughtUp => break,
                WatchEvent::Progress => {}
                WatchEvent::Change(change) if change.key == "/later" => {}
                other => panic!("{other:?}"),
            }
        }
    }
    assert!(store.get(key(0).as_bytes()).await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn expiry_during_downtime_is_delivered_on_resume() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::manual(START_MS);
    let (node, store) = open(dir.path(), &clock, 2).await;
    let mut watch = store.watch("");
    store.write(ttl("/a", START_MS + 10)).await.unwrap();
    store.write(ttl("/b", START_MS + 20)).await.unwrap();
    store.write(ttl("/c", START_MS + 30)).await.unwrap();
    clock.set(START_MS + 10);
    while next_change(&mut watch).await.kind != Kind::Expire {}
    let cursor = watch.cursor();
    node.close().await.unwrap();
    drop((watch, store, node));

    clock.set(START_MS + 25);
    let (_node, store) = open(dir.path(), &clock, 2).await;
    let keys = |items: Vec<lattice::store::Item>| items.into_iter().map(|item| item.key);
    let items = store.list(lattice::store::List::default()).await.unwrap();
    assert_eq!(keys(items).collect::<Vec<_>>(), ["/c"]);
    let mut watch = store.watch_with(WatchOptions {
        start: Start::After(cursor),
        ..WatchOptions::default()
    });
    let change = next_change(&mut watch).await;
    assert_eq!(
        (change.kind, &change.key),
        (Kind::Expire, &Bytes::from("/b"))
    );
    assert_eq!(next(&mut watch).await, WatchEvent::CaughtUp);
    clock.set(START_MS + 30);
    let change = next_change(&mut watch).await;
    assert_eq!(
        (change.kind, &change.key),
        (Kind::Expire, &Bytes::from("/c"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn value_expired_on_arrival_is_put_then_expires() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::manual(START_MS);
    let (_node, store) = open(dir.path(), &clock, 2).await;
    let mut watch = store.watch("");
    assert_eq!(next(&mut watch).await, WatchEvent::CaughtUp);
    for _ in 0..3 {
        // The same time again: each winner has an expiry of its own.
        let written = store.write(ttl("/k", START_MS - 10)).await;
        let written = written.unwrap().unwrap();
        let put = next_change(&mut watch).await;
        assert_eq!((put.kind, put.entry.id), (Kind::Put, written.entry));
        clock.advance(5);
        let expire = next_change(&mut watch).await;
        assert_eq!(
            (expire.kind, expire.entry.id),
            (Kind::Expire, written.entry)
        );
    }
    let mut replayed = store.watch_with(WatchOptions {
        start: Start::After(nothing(&store)),
        ..WatchOptions::default()
    });
    let mut kinds = Vec::new();
    while let WatchEvent::Change(change) = next(&mut replayed).await {
        kinds.push(change.kind);
    }
    assert_eq!(kinds, [Kind::Put, Kind::Put, Kind::Put, Kind::Expire]);
}

#[tokio::test(flavor = "multi_thread")]
async fn cursor_of_a_fast_clock_repeats_no_expiry() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::manual(START_MS);
    let (_node, store) = open(dir.path(), &clock, 2).await;
    store.write(ttl("/told", START_MS + 10)).await.unwrap();
    let mut cursor = nothing(&store);
    cursor.frontier = store.frontier();
    cursor.expired_through_ms = START_MS + 1000;
    let op = |key: &'static str| Op::Put {
        key: key.into(),
        value: "v".into(),
        expires_ms: Some(START_MS + 20),
    };
    store.batch(vec![op("/new")]).await.unwrap();
    let mut watch = store.watch_with(WatchOptions {
        start: Start::After(cursor),
        ..WatchOptions::default()
    });
    assert_eq!(next_change(&mut watch).await.key, "/new");
    clock.set(START_MS + 30);
    let change = next_change(&mut watch).await;
    assert_eq!(
        (change.kind, &change.key),
        (Kind::Expire, &Bytes::from("/new"))
    );
}
